//! What one decision costs, by the number of rules: `cargo bench -p selvedge-model` (`-- --quick` shows that it works).
//!
//! The goal is less than 1 µs for 100 rules, whichever of them decides. Rules of policies ask for a principal of their own,
//! or for one that all have and a path of their own; each has methods and other paths, too. The rules of networks ask for
//! an identity and an address in a set of 64 workloads each.

use std::{fs, hint::black_box, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, Method};
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
    println!("| rules | what is asked | the last rule allows | none does |\n|---|---|---|---|");
    for rules in [0, 1, 10, 100, 1_000] {
        let (peers, paths, hosts) = (by_peers(rules), by_paths(rules), by_hosts(rules));
        let networks = by_network_rules(rules);
        let row = |what: &str, last: Duration, none: Duration| {
            println!("| {rules} | {what} | {last:?} | {none:?} |");
        };
        let own = format!("/own-{rules}");
        row(
            "a request, rules by principal",
            requests(&peers, ("last", "a", &own), rounds),
            requests(&peers, ("nobody", "a", &own), rounds),
        );
        row(
            "a request, rules by path",
            requests(&paths, ("everybody", "a", &own), rounds),
            requests(&paths, ("everybody", "a", "/elsewhere"), rounds),
        );
        let host = format!("host-{rules}.example");
        row(
            "a request, rules by host",
            requests(&hosts, ("everybody", &host, "/"), rounds),
            requests(&hosts, ("everybody", "elsewhere.example", "/"), rounds),
        );
        row(
            "a connection, rules by path",
            connections(&paths, "everybody", rounds),
            connections(&paths, "nobody", rounds),
        );
        row(
            "a connection, network rules",
            connections(&networks, "last", rounds),
            connections(&networks, "nobody", rounds),
        );
    }
}

/// How long `policy` takes to decide on a request of `client` for `path` at `authority`.
fn requests(policy: &InboundPolicy, (client, authority, path): (&str, &str, &str), rounds: u32) -> Duration {
    let client = identity(client);
    let connection = Connection::new(Source::peer([10, 0, 0, 1].into(), Some(&client)), 8080);
    let headers = headers();
    let request = Request {
        connection: &connection,
        method: &Method::GET,
        scheme: "http",
        authority,
        path,
        query: "",
        headers: &headers,
        token: None,
    };
    taken(rounds, || {
        black_box(policy.authorize_request(black_box(&request)));
    })
}

/// How long it takes to decide on a connection of `client`.
fn connections(policy: &InboundPolicy, client: &str, rounds: u32) -> Duration {
    let client = identity(client);
    let connection = Connection::new(Source::peer([10, 0, 0, 1].into(), Some(&client)), 8080);
    taken(rounds, || {
        black_box(policy.authorize(black_box(&connection)));
    })
}

/// As many as an ordinary client's and its sidecar's.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for name in
        ["accept", "accept-encoding", "content-type", "host", "traceparent", "user-agent", "x-request-id"]
    {
        headers.insert(name, HeaderValue::from_static("some value"));
    }
    headers
}

/// How long `decide` takes, on average.
fn taken(rounds: u32, decide: impl Fn()) -> Duration {
    let start = used();
    for _ in 0..rounds {
        decide();
    }
    used().saturating_sub(start) / rounds
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

/// Each rule is for a principal of its own.
fn by_peers(count: usize) -> InboundPolicy {
    by_rules(count, |number| account(number, count))
}

/// Each rule is for the same principal, and for a path of its own.
fn by_paths(count: usize) -> InboundPolicy {
    by_rules(count, |_| "everybody".to_owned())
}

/// Each rule is for the same principal, and for a host of its own.
fn by_hosts(count: usize) -> InboundPolicy {
    let rule = |number: usize| {
        let host = Asks::Host(texts([&*format!("host-{number}.example")]));
        let everybody = Asks::Principal(texts(["cluster.local/ns/clients/sa/everybody"]));
        (everybody, vec![host])
    };
    by_rules_of(count, rule)
}

fn by_rules(count: usize, account: impl Fn(usize) -> String) -> InboundPolicy {
    let rule = |number: usize| {
        let principal = format!("cluster.local/ns/clients/sa/{}", account(number));
        let paths = [&*format!("/own-{number}"), &format!("/items-{number}/*")];
        let paths = PathSet::new(&texts(paths), Vec::new());
        let operation = vec![Asks::Method(texts(["GET", "POST"])), Asks::Path(paths)];
        (Asks::Principal(texts([&*principal])), operation)
    };
    by_rules_of(count, rule)
}

/// A policy of `count` rules, each with a source and with what an operation asks.
fn by_rules_of(count: usize, rule: impl Fn(usize) -> (Asks, Vec<Asks>)) -> InboundPolicy {
    let condition = |asks| Condition { asks, negated: false };
    let rules = (1..=count).map(|number| {
        let (source, operation) = rule(number);
        Rule {
            name: format!("rule {number}").into(),
            from: vec![vec![condition(source)]],
            to: vec![operation.into_iter().map(condition).collect()],
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
