use std::net::Ipv4Addr;

use super::*;
use crate::{
    ConnectionVerdict, InboundPolicy, Order, SpiffeId,
    facts::{Connection, Source},
    policy::{Action, Asks, Condition, Policy, Rule, TextPattern},
    route,
};

const PORT: u16 = 8080;

fn rule(name: &str, who: Option<&str>, routes: Option<&[usize]>) -> Rule {
    let condition = |asks| Condition { asks, negated: false };
    let mut rule = Rule::everything(name);
    if let Some(who) = who {
        let set = std::iter::once(TextPattern::Exact(format!("cluster.local/ns/a/sa/{who}").into()));
        rule.from.push(vec![condition(Asks::Principal(set.collect()))]);
    }
    if let Some(routes) = routes {
        rule.when.push(condition(Asks::Route(routes.iter().copied().collect())));
    }
    rule
}

fn server(rules: Vec<Rule>) -> Policy {
    let ports = Some([PORT].into());
    Policy { name: "Server a/s".into(), action: Action::Allow, dry_run: false, ports, rules, why: None }
}

fn policy(rules: Vec<Rule>, routes: &[&str]) -> InboundPolicy {
    let of_path = |path: &&str| route::Rule {
        matches: vec![Match { path: Some(StringMatch::PathPrefix((*path).to_owned())), ..Match::default() }],
        ..route::Rule::default()
    };
    let table = RouteTable::new(Order::MostSpecific, routes.iter().map(of_path).collect());
    let routes = (!routes.is_empty()).then(|| (PORT, ServerRoutes::new("Server a/s".into(), table)));
    let servers = Servers::new(Authorization::new(vec![server(rules)]), routes.into_iter().collect());
    InboundPolicy { servers: Some(Arc::new(servers)), ..InboundPolicy::default() }
}

/// What becomes of a request of `who` for `path`, and of what it has instead of requests.
fn asked(policy: &InboundPolicy, who: &str, path: &str) -> (String, String) {
    let identity: SpiffeId = format!("spiffe://cluster.local/ns/a/sa/{who}").parse().unwrap();
    let connection = Connection::new(Source::peer(Ipv4Addr::LOCALHOST.into(), Some(&identity)), PORT);
    let request = facts::Request {
        token: None,
        connection: &connection,
        method: &http::Method::GET,
        scheme: "http",
        authority: "a",
        path,
        query: "",
        headers: &http::HeaderMap::new(),
    };
    let words = |verdict| match verdict {
        Verdict::Allow { rule } => format!("allowed by {rule}"),
        Verdict::Deny { rule, by, .. } => format!("denied by {rule}: {by:?}"),
    };
    let verdict = policy.authorize_request(&request);
    if let ConnectionVerdict::Final(all) = policy.authorize(&connection)
        && !policy.has_routes(PORT)
    {
        assert_eq!(all, verdict);
    }
    (words(verdict), words(policy.authorize_opaque(&connection)))
}

fn both(words: &str) -> (String, String) {
    (words.to_owned(), words.to_owned())
}

#[test]
fn a_server_without_policies_lets_nobody_in_and_one_with_them_those_whom_they_allow() {
    assert_eq!(asked(&policy(vec![], &[]), "x", "/"), both("denied by Server a/s: Authorization"));
    let some = policy(vec![rule("p", Some("x"), None)], &[]);
    assert_eq!(asked(&some, "x", "/"), both("allowed by p"));
    assert_eq!(asked(&some, "y", "/"), both("denied by Server a/s: Authorization"));
}

#[test]
fn a_request_that_matches_no_route_is_told_apart_and_no_route_is_for_what_has_no_requests() {
    let routed = policy(vec![rule("p", Some("x"), Some(&[0]))], &["/a", "/b"]);

    let opaque = "denied by Server a/s: Authorization".to_owned();
    assert_eq!(asked(&routed, "x", "/a/c"), ("allowed by p".to_owned(), opaque.clone()));
    assert_eq!(asked(&routed, "x", "/b"), both(&opaque));
    for who in ["x", "y"] {
        assert_eq!(asked(&routed, who, "/c"), ("denied by Server a/s: Route".to_owned(), opaque.clone()));
    }
}

#[test]
fn the_most_specific_route_decides_however_its_path_is_written() {
    let rules = vec![rule("all", None, Some(&[0])), rule("admins", Some("x"), Some(&[0, 1]))];
    let routed = policy(rules, &["/", "/admin"]);

    assert_eq!(asked(&routed, "y", "/public").0, "allowed by all");
    for path in ["/admin/a", "/ADMIN/a", "//admin/a", "/admin;a/b", "/public/..%2Fadmin", "/%2fadmin"] {
        assert_eq!(asked(&routed, "y", path).0, "denied by Server a/s: Authorization", "{path}");
        assert_eq!(asked(&routed, "x", path).0, "allowed by admins", "{path}");
    }
}

#[test]
fn what_a_server_allows_another_policy_still_refuses_and_the_other_way_round() {
    let deny = Policy { action: Action::Deny, ports: None, ..server(vec![rule("deny", Some("x"), None)]) };
    let with = |policies: Vec<Policy>, policy: InboundPolicy| InboundPolicy {
        authorization: Some(Arc::new(Authorization::new(policies))),
        ..policy
    };
    let open = || policy(vec![rule("p", None, None)], &[]);

    assert_eq!(asked(&with(vec![deny], open()), "x", "/"), both("denied by deny: Authorization"));
    let allow = Policy { ports: None, ..server(vec![rule("allow", None, None)]) };
    assert_eq!(asked(&with(vec![allow.clone()], open()), "x", "/"), both("allowed by allow"));
    let closed = with(vec![allow], policy(vec![], &[]));
    assert_eq!(asked(&closed, "x", "/"), both("denied by Server a/s: Authorization"));
}
