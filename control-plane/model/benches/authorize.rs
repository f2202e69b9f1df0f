//! What one decision costs, by the number of rules: `cargo bench -p selvedge-model` (`-- --quick` shows that it works).
//!
//! The goal is less than 1 µs for a request and 100 rules. Every rule asks for a principal, methods and paths, and the last
//! one is for the client. The rules of networks ask for an identity and an address in a set of 64 workloads each.

use std::{fs, hint::black_box, sync::Arc, time::Duration};

use http::{HeaderMap, Method};
use selvedge_model::{
    SpiffeId,
    facts::{Connection, Request, Source},
    policy::{
        Action, Asks, Authorization, Condition, InboundPolicy, PathSet, Policy, Rule, TextPattern, TextSet,
        network::{
            Member, NetworkAction, NetworkAsks, NetworkCondition, NetworkRule, NetworkRules, Peers, SetName,
            SetPart, SetRef, WorkloadSet,
        },
    },
};

fn main() {
    let rounds = if std::env::args().any(|arg| arg == "--quick") { 1_000 } else { 1_000_000 };
    for rules in [0, 1, 10, 100, 1_000] {
        let (requests, connections) = (by_rules(rules), by_network_rules(rules));
        println!(
            "{rules} rules: a request that the last lets in {}, one that none does {}; a connection that the last network \
             rule lets in {}, one that none does {}",
            taken(&requests, "last", rounds),
            taken(&requests, "nobody", rounds),
            taken(&connections, "last", rounds),
            taken(&connections, "nobody", rounds),
        );
    }
}

/// How long `policy` takes to decide on a request of `client`.
fn taken(policy: &InboundPolicy, client: &str, rounds: u32) -> String {
    let client = identity(client);
    let connection = Connection::new(Source::peer([10, 0, 0, 1].into(), Some(&client)), 8080);
    let headers = HeaderMap::new();
    let request = Request {
        connection: &connection,
        method: &Method::GET,
        scheme: "http",
        authority: "app.team-0",
        path: "/items/7",
        query: "",
        headers: &headers,
        token: None,
    };
    let start = used();
    for _ in 0..rounds {
        black_box(policy.authorize_request(black_box(&request)));
    }
    format!("{:?}", used().saturating_sub(start) / rounds)
}

/// The processor time that this thread has used: what else runs on the machine does not count.
fn used() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/clients/sa/{account}").parse().expect("an identity")
}

/// The account that the rule `number` of `count` is for.
fn account(number: usize, count: usize) -> String {
    if number == count { "last".to_owned() } else { format!("client-{number}") }
}

fn texts<'t>(texts: impl IntoIterator<Item = &'t str>) -> TextSet {
    TextSet::new(texts.into_iter().map(TextPattern::istio))
}

fn by_rules(count: usize) -> InboundPolicy {
    let condition = |asks| Condition { asks, negated: false };
    let rules = (1..=count).map(|number| {
        let principal = format!("cluster.local/ns/clients/sa/{}", account(number, count));
        let paths = PathSet::new(texts(["/items/*", &format!("/own-{number}")]), Vec::new());
        Rule {
            name: format!("rule {number}").into(),
            from: vec![vec![condition(Asks::Principal(texts([&*principal])))]],
            to: vec![vec![condition(Asks::Method(texts(["GET", "POST"]))), condition(Asks::Path(paths))]],
            when: Vec::new(),
        }
    });
    let policy = Policy {
        name: "policy".into(),
        action: Action::Allow,
        dry_run: false,
        ports: None,
        rules: rules.collect(),
        why: None,
    };
    let policies = if count == 0 { Vec::new() } else { vec![policy] };
    InboundPolicy { authorization: Some(Authorization::new(policies).into()), ..InboundPolicy::default() }
}

fn by_network_rules(count: usize) -> InboundPolicy {
    let rules = (1..=count).map(|number| {
        let member = |place: u8| Member {
            identity: Some(identity(&format!(
                "{}{}",
                account(number, count),
                if place == 0 { String::new() } else { format!("-{place}") }
            ))),
            addresses: [[10, 0, (number % 250) as u8, place].into()].into(),
            ..Member::default()
        };
        let part = Arc::new(SetPart::new((0..64).map(member).collect(), []));
        let members = Some(Arc::new(WorkloadSet::new(vec![part])));
        let set = SetRef { name: SetName { id: format!("set{number}").into(), parts: 1 }, members };
        NetworkRule {
            name: format!("network rule {number}").into(),
            action: NetworkAction::Allow,
            conditions: vec![NetworkCondition::new(NetworkAsks::Peer(vec![Peers::Set(set)]))],
        }
    });
    let policies = if count == 0 { Vec::new() } else { vec!["network policy".into()] };
    let network = NetworkRules::one_tier(rules.collect(), policies);
    InboundPolicy { network: Some(Arc::new(network)), ..InboundPolicy::default() }
}
