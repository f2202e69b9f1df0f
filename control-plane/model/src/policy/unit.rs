//! What the naive reading does not show: notes, ports, how much is looked at, and what a connection is told.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use http::{HeaderMap, Method};

use super::*;
use crate::{
    SpiffeId,
    facts::{Connection, Request, Source},
};

fn peer(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn connection(identity: Option<&SpiffeId>) -> Connection<'_> {
    Connection::new(Source::peer(Ipv4Addr::new(10, 0, 0, 1).into(), identity), 8080)
}

fn request<'a>(connection: &'a Connection<'a>, path: &'a str, headers: &'a HeaderMap) -> Request<'a> {
    Request {
        connection,
        method: &Method::GET,
        scheme: "http",
        authority: "web",
        path,
        query: "",
        headers,
        token: None,
    }
}

fn paths(patterns: &[&str]) -> Condition {
    let texts = patterns.iter().map(|text| TextPattern::istio(text)).collect();
    Condition { asks: Asks::Path(PathSet::new(&texts, Vec::new())), negated: false }
}

fn principal(account: &str) -> Condition {
    let exact = TextPattern::Exact(format!("cluster.local/ns/shop/sa/{account}").into());
    Condition { asks: Asks::Principal([exact].into_iter().collect()), negated: false }
}

fn policy(name: &str, action: Action, rules: Vec<Rule>) -> Policy {
    Policy { name: name.into(), action, dry_run: false, ports: None, rules, why: None }
}

fn inbound(policies: Vec<Policy>) -> InboundPolicy {
    InboundPolicy { authorization: Some(Arc::new(Authorization::new(policies))), ..InboundPolicy::default() }
}

/// An ALLOW policy of 100 rules: each lets one account ask for one path.
fn hundred() -> Authorization {
    let rule = |number: usize| Rule {
        from: vec![vec![principal(&format!("a{number}"))]],
        to: vec![vec![paths(&[&format!("/p{number}")])]],
        ..Rule::everything(format!("allow rule {number}"))
    };
    let deny = |number: usize| Rule {
        to: vec![vec![paths(&[&format!("/secret{number}/*")])]],
        ..Rule::everything(format!("deny rule {number}"))
    };
    Authorization::new(vec![
        policy("deny", Action::Deny, (0..100).map(deny).collect()),
        policy("allow", Action::Allow, (0..100).map(rule).collect()),
    ])
}

#[test]
fn of_two_hundred_rules_those_are_looked_at_that_can_match() {
    let (authorization, headers) = (hundred(), HeaderMap::new());
    let identity = peer("a57");
    let connection = connection(Some(&identity));
    let looked_at = |authorization: &Authorization, path| {
        let request = request(&connection, path, &headers);
        authorization.looked_at(Stage::Request(&Readings::new(&request)))
    };

    assert_eq!(looked_at(&authorization, "/p57"), 1);
    assert_eq!(looked_at(&authorization, "/secret9/x"), 2);
    assert_eq!(looked_at(&authorization, "/nothing"), 1);
    // A connection has no path yet: all that deny may deny its requests.
    assert_eq!(authorization.looked_at(Stage::Connection(&connection)), 101);
}

#[test]
fn of_a_hundred_rules_for_one_peer_those_are_looked_at_that_ask_for_the_path() {
    let (identity, headers) = (peer("web"), HeaderMap::new());
    let connection = connection(Some(&identity));
    let stranger = Connection { source: Source::UNKNOWN, ..connection };
    let looked_at = |from: Condition| {
        let rule = |number: usize| Rule {
            from: vec![vec![from.clone()]],
            to: vec![vec![paths(&[&format!("/p{number}/own")])]],
            ..Rule::everything(format!("allow rule {number}"))
        };
        let all = Authorization::new(vec![policy("allow", Action::Allow, (0..100).map(rule).collect())]);
        assert_eq!(all.looked_at(Stage::Connection(&connection)), 100, "any of them may be for a request");
        assert_eq!(all.looked_at(Stage::Connection(&stranger)), 0);
        all.looked_at(Stage::Request(&Readings::new(&request(&connection, "/p57/own", &headers))))
    };

    assert_eq!(looked_at(principal("web")), 1);
    let namespace = [TextPattern::Exact("shop".into())].into_iter().collect();
    assert_eq!(looked_at(Condition { asks: Asks::Namespace(namespace), negated: false }), 1);
}

#[test]
fn a_rule_that_asks_for_none_of_nothing_is_not_lost_in_an_index() {
    let connection = connection(None);
    for asks in [
        Asks::Host(TextSet::default()),
        Asks::Path(PathSet::default()),
        Asks::RequestPrincipal(TextSet::default()),
    ] {
        let when = vec![Condition { asks, negated: false }];
        let rule = |number: usize| {
            let name = format!("rule {number}");
            let from = vec![vec![principal(&format!("a{number}"))]];
            if number == 57 {
                return Rule { when: when.clone(), ..Rule::everything(name) };
            }
            Rule { from, ..Rule::everything(name) }
        };
        let deny = inbound(vec![policy("deny", Action::Deny, (0..100).map(rule).collect())]);
        // Of what is no request, who refuses takes it for so.
        let verdict = deny.authorize_opaque(&connection);
        assert!(
            matches!(&verdict, Verdict::Deny { rule, .. } if rule.to_string() == "rule 57"),
            "{verdict:?}"
        );
    }
}

#[test]
fn of_a_hundred_rules_for_hosts_those_are_looked_at_that_ask_for_it_in_any_case() {
    let headers = HeaderMap::new();
    let connection = connection(None);
    let looked_at = |action, authority: &str| {
        let rule = |number: usize| {
            let host = [TextPattern::Exact(format!("h{number}.example").into())].into_iter().collect();
            let to = vec![vec![Condition { asks: Asks::Host(host), negated: false }]];
            Rule { to, ..Rule::everything(format!("rule {number}")) }
        };
        let all = Authorization::new(vec![policy("all", action, (0..100).map(rule).collect())]);
        let request = Request { authority, ..request(&connection, "/", &headers) };
        all.looked_at(Stage::Request(&Readings::new(&request)))
    };

    assert_eq!(looked_at(Action::Allow, "H57.example"), 1);
    assert_eq!(looked_at(Action::Allow, "h57.example:80"), 0);
    assert_eq!(looked_at(Action::Deny, "H57.example.:80"), 1);
    assert_eq!(looked_at(Action::Deny, "h100.example"), 0);
}

#[test]
fn a_rule_for_all_accounts_of_a_namespace_is_found_by_how_their_principal_begins() {
    let rule = |number: usize| {
        let begins = [TextPattern::istio(&format!("cluster.local/ns/shop{number}/*"))];
        let asks = Asks::Principal(begins.into_iter().collect());
        let from = vec![vec![Condition { asks, negated: false }]];
        Rule { from, ..Rule::everything(format!("allow rule {number}")) }
    };
    let all = Authorization::new(vec![policy("allow", Action::Allow, (0..100).map(rule).collect())]);
    let identity = "spiffe://cluster.local/ns/shop57/sa/web".parse().unwrap();

    assert_eq!(all.looked_at(Stage::Connection(&connection(Some(&identity)))), 1);
    assert_eq!(all.looked_at(Stage::Connection(&connection(None))), 0);
}

#[test]
fn a_request_on_a_connection_that_was_let_in_is_decided_like_the_first() {
    let refusing = NetworkRules::one_tier(Vec::new(), vec!["network".into()]);
    let policy = InboundPolicy {
        authorization: Some(Arc::new(hundred())),
        network: Some(Arc::new(refusing)),
        ..InboundPolicy::default()
    };
    let (identity, headers) = (peer("a57"), HeaderMap::new());
    let connection = connection(Some(&identity));

    for (path, lets_in) in [("/p57", true), ("/p58", false), ("/secret9/x", false)] {
        let request = request(&connection, path, &headers);
        let verdict = policy.authorize_next_request(&request);
        assert_eq!(matches!(verdict, Verdict::Allow { .. }), lets_in, "{path}");
        let first = policy.authorize_request(&request);
        assert!(matches!(first, Verdict::Deny { by: By::Network, .. }), "{path}: {first:?}");
    }
}

#[test]
fn a_long_policy_names_the_rule_that_decides() {
    let policy = InboundPolicy { authorization: Some(Arc::new(hundred())), ..InboundPolicy::default() };
    let (identity, headers) = (peer("a57"), HeaderMap::new());
    let connection = connection(Some(&identity));
    let decided = |path| match policy.authorize_request(&request(&connection, path, &headers)) {
        Verdict::Allow { rule } => format!("allow: {rule}"),
        Verdict::Deny { rule, .. } => format!("deny: {rule}"),
    };

    assert_eq!(decided("/p57"), "allow: allow rule 57");
    assert_eq!(decided("/p58"), "deny: allow");
    assert_eq!(decided("/secret9/x"), "deny: deny rule 9");
}

#[test]
fn what_asks_only_for_the_peer_is_decided_with_the_connection() {
    let rule = Rule { from: vec![vec![principal("web")]], ..Rule::everything("allow rule 1") };
    let policy = inbound(vec![policy("allow", Action::Allow, vec![rule])]);

    for (account, lets_in) in [("web", true), ("other", false)] {
        let identity = peer(account);
        let ConnectionVerdict::Final(verdict) = policy.authorize(&connection(Some(&identity))) else {
            panic!("{account}: depends on a request")
        };
        assert_eq!(matches!(verdict, Verdict::Allow { .. }), lets_in, "{account}");
    }
}

#[test]
fn a_policy_for_some_ports_leaves_the_others_alone() {
    let mut nothing = policy("allow nothing", Action::Allow, Vec::new());
    nothing.ports = Some(BTreeSet::from([9090]));
    let policy = inbound(vec![nothing]);
    let at = |port| policy.authorize(&Connection { port, ..connection(None) });

    assert!(matches!(at(8080), ConnectionVerdict::Final(Verdict::Allow { .. })));
    assert!(matches!(at(9090), ConnectionVerdict::Final(Verdict::Deny { by: By::Authorization, .. })));
}

#[test]
fn mutual_tls_is_asked_for_before_policies() {
    let everything = Rule::everything("allow rule 1");
    let mut policy = inbound(vec![policy("allow", Action::Allow, vec![everything])]);
    policy.default.mode = MtlsMode::Strict;

    let verdict = policy.authorize(&connection(None));

    assert!(matches!(verdict, ConnectionVerdict::Final(Verdict::Deny { by: By::Mtls, .. })), "{verdict:?}");
}

#[test]
fn audits_and_dry_runs_are_noted_and_decide_nothing() {
    let rule = |name: &str, path: &str| Rule { to: vec![vec![paths(&[path])]], ..Rule::everything(name) };
    let dry = |policy: Policy| Policy { dry_run: true, ..policy };
    let policy = inbound(vec![
        policy("audit", Action::Audit, vec![rule("audit rule 1", "/seen")]),
        dry(policy("deny", Action::Deny, vec![rule("deny rule 1", "/bad")])),
        dry(policy("allow", Action::Allow, vec![rule("allow rule 1", "/good")])),
    ]);
    let (connection, headers) = (connection(None), HeaderMap::new());
    let notes = |path| {
        let mut notes = Vec::new();
        let request = request(&connection, path, &headers);
        assert!(matches!(policy.authorize_request(&request), Verdict::Allow { .. }), "{path}");
        policy.notes_on_request(&request, |note| notes.push(format!("{} {}", note.rule, note.says)));
        notes
    };

    assert!(policy.has_notes());
    assert_eq!(notes("/good"), ["allow rule 1 would-allow"]);
    assert_eq!(notes("/bad"), ["deny rule 1 would-deny", "allow would-deny"]);
    assert_eq!(notes("/seen"), ["audit rule 1 audit", "allow would-deny"]);
    assert!(!inbound(Vec::new()).has_notes());
}

/// Whether a policy with the one condition `request.headers[field]`, to be one of `values`, is for a request.
fn is_for(
    action: Action,
    (field, values): (&str, &[&str]),
    (method, authority, path): (&str, &str, &str),
    lines: &[(&'static str, &'static str)],
) -> bool {
    let values = values.iter().map(|text| TextPattern::istio(text)).collect();
    let condition = Condition { asks: Asks::header(field.parse().unwrap(), values), negated: false };
    let rule = Rule { when: vec![condition], ..Rule::everything("rule 1") };
    let policy = inbound(vec![policy("one", action, vec![rule])]);
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, http::HeaderValue::from_static(value));
    }
    let connection = connection(None);
    let method = method.parse().unwrap();
    let request = facts::Request { method: &method, authority, ..request(&connection, path, &headers) };
    matches!(policy.authorize_request(&request), Verdict::Deny { .. }) == (action == Action::Deny)
}

#[test]
fn headers_are_seen_under_names_that_apps_take_for_the_same() {
    let any = ("GET", "a.example", "/");
    let denied = |lines| is_for(Action::Deny, ("x-role", &["admin"]), any, lines);
    assert!(denied(&[("x-role", "admin")]));
    assert!(denied(&[("x-role", "user"), ("x-role", "admin")]));
    assert!(denied(&[("x_role", "admin")]));
    assert!(!denied(&[("x-role", "user"), ("y-role", "admin")]));
    assert!(!denied(&[]));

    let allowed = |lines| is_for(Action::Allow, ("x-role", &["user", "guest"]), any, lines);
    assert!(allowed(&[("x-role", "user")]) && allowed(&[("x-role", "user"), ("x_role", "guest")]));
    assert!(!allowed(&[("x-role", "user"), ("x_role", "admin")]));
    assert!(!allowed(&[("x_role", "user")]));
}

#[test]
fn parts_of_a_request_that_are_named_like_headers_are_seen_as_apps_may_read_them() {
    let denied = |field, value, request, lines| is_for(Action::Deny, (field, &[value]), request, lines);
    for host in ["a.example", "A.example", "a.example:80", "a.example."] {
        assert!(denied(":authority", "a.example", ("GET", host, "/"), &[]), "{host}");
    }
    for path in ["/admin", "/Admin", "//admin", "/admin/", "/admin;x"] {
        assert!(denied(":path", "/admin", ("GET", "a.example", path), &[]), "{path}");
    }
    assert!(denied(":method", "DELETE", ("POST", "a.example", "/"), &[("x-http-method", "delete")]));
    assert!(denied(":method", "DELETE", ("POST", "a.example", "/"), &[("x_http_method_override", "DELETE")]));
    assert!(denied(":method", "DELETE", ("delete", "a.example", "/"), &[]));
    assert!(!denied(":method", "DELETE", ("POST", "a.example", "/"), &[("x-http-methods", "DELETE")]));

    let allowed = |field, value, request| is_for(Action::Allow, (field, &[value]), request, &[]);
    assert!(allowed(":path", "/public/*", ("GET", "a.example", "/public/a")));
    assert!(!allowed(":path", "/public/*", ("GET", "a.example", "/public/..%2Fadmin")));
    assert!(!allowed(":method", "GET", ("get", "a.example", "/")));
}

#[test]
fn no_other_way_to_write_a_path_leads_past_a_policy_or_its_index() {
    let headers = HeaderMap::new();
    let connection = connection(None);
    let rule = |number: usize| Rule {
        to: vec![vec![paths(&[&format!("/caf%C3%A9{number}/*"), &format!("/%7Eown{number}*")])]],
        ..Rule::everything(format!("rule {number}"))
    };
    let deny = inbound(vec![policy("deny", Action::Deny, (0..100).map(rule).collect())]);
    let not = |pattern: &str| Condition { negated: true, ..paths(&[pattern]) };
    let except =
        Rule { to: vec![vec![not("/caf%C3%A957*"), not("/%7Eown57*")]], ..Rule::everything("rule 1") };
    let allow = inbound(vec![policy("allow", Action::Allow, vec![except])]);

    for (path, is_refused) in [
        ("/caf%C3%A957/x", true),
        ("/caf%c3%a957/x", true),
        ("/CAF%C3%A957/x", true),
        ("/caf%25C3%25A957/x", true),
        ("/~own57/x", true),
        ("/~OWN57", true),
        ("/own57", false),
    ] {
        for policy in [&deny, &allow] {
            let verdict = policy.authorize_request(&request(&connection, path, &headers));
            assert_eq!(matches!(verdict, Verdict::Deny { .. }), is_refused, "{path} {verdict:?}");
        }
    }
    for path in ["/caf%c3%a9/x", "/CAF%C3%A9/x"] {
        assert!(
            is_for(Action::Deny, (":path", &["/caf%C3%A9/*"]), ("GET", "a.example", path), &[]),
            "{path}"
        );
    }
    assert!(is_for(Action::Allow, (":path", &["/%7Ea"]), ("GET", "a.example", "/~a"), &[]));
    assert!(is_for(Action::Allow, (":path", &["/caf%C3%A9"]), ("GET", "a.example", "/caf%c3%a9"), &[]));
}
