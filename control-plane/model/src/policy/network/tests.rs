//! Who is in a set, and which rule decides.

use std::collections::BTreeSet;

use super::*;
use crate::facts::{Connection, Source};

fn identity(account: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn member(account: Option<&str>, addresses: &[&str]) -> Member {
    Member {
        identity: account.map(identity),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        ..Member::default()
    }
}

fn set(members: Vec<Member>) -> Peers {
    // Each in a part of its own: what the parts say counts together.
    let parts = members.into_iter().map(|member| Arc::new(SetPart::new(vec![member], []))).collect();
    let name = SetName { id: "set".into(), parts: 1 };
    Peers::Set(SetRef { name, members: Some(Arc::new(WorkloadSet::new(parts))) })
}

fn rule(name: &str, action: NetworkAction, conditions: Vec<NetworkAsks>) -> NetworkRule {
    NetworkRule {
        name: name.into(),
        action,
        conditions: conditions.into_iter().map(NetworkCondition::new).collect(),
    }
}

fn rules(rules: Vec<NetworkRule>) -> NetworkRules {
    NetworkRules::one_tier(rules, vec!["policy".into()])
}

fn allowing(members: Vec<Member>) -> NetworkRules {
    rules(vec![rule("allow", NetworkAction::Allow, vec![NetworkAsks::Peer(vec![set(members)])])])
}

/// What a peer from `address` is told. `redirected`: at a sidecar that gets redirected connections.
fn judged(rules: &NetworkRules, account: Option<&str>, address: &str, redirected: bool) -> String {
    let identity = account.map(identity);
    let arrived_at = redirected.then(|| ip("10.0.0.99"));
    let source = Source::peer(ip(address), identity.as_ref());
    let connection = Connection { arrived_at, ..Connection::new(source, 8080) };
    said(rules.judge(&Party::incoming(&connection), |_| {}))
}

fn said(verdict: NetworkVerdict<'_>) -> String {
    match verdict {
        NetworkVerdict::Allow(rule) => format!("allow {}", rule.map_or("itself", |rule| rule)),
        NetworkVerdict::Deny(rule, why) => format!("deny {rule}: {why}"),
    }
}

fn is_allowed(said: &str) -> bool {
    said.starts_with("allow")
}

#[test]
fn a_mesh_peer_needs_an_identity_and_where_it_is_redirected_the_address_too() {
    let web = allowing(vec![member(Some("web"), &["10.0.0.1"]), member(Some("api"), &["10.0.0.2"])]);

    for (account, address, redirected, lets_in) in [
        ("web", "10.0.0.1", true, true),
        ("web", "::ffff:10.0.0.1", true, true),
        ("web", "10.0.0.7", true, false),
        ("web", "10.0.0.2", true, false),
        ("other", "10.0.0.1", true, false),
        ("other", "10.0.0.7", true, false),
        ("web", "127.0.0.1", false, true),
        ("other", "10.0.0.1", false, false),
    ] {
        let said = judged(&web, Some(account), address, redirected);
        assert_eq!(is_allowed(&said), lets_in, "{account} {address} {redirected}: {said}");
    }
}

#[test]
fn a_plaintext_peer_needs_an_address() {
    let web = allowing(vec![member(Some("web"), &["10.0.0.1"]), member(None, &["10.0.0.2"])]);

    for redirected in [true, false] {
        for (address, lets_in) in [("10.0.0.1", true), ("10.0.0.2", true), ("10.0.0.3", false)] {
            assert_eq!(is_allowed(&judged(&web, None, address, redirected)), lets_in, "{address}");
        }
    }
}

#[test]
fn an_account_that_others_share_is_told_apart_by_the_address_alone() {
    let shared = Member { shares_identity: true, ..member(Some("web"), &["10.0.0.1"]) };
    let web = allowing(vec![shared]);

    assert!(is_allowed(&judged(&web, Some("web"), "10.0.0.1", true)));
    for (address, redirected) in [("10.0.0.2", true), ("10.0.0.1", false)] {
        let said = judged(&web, Some("web"), address, redirected);
        assert!(said.starts_with("deny allow: ") && said.contains("account of its own"), "{said}");
    }
}

#[test]
fn an_address_that_others_share_is_told_apart_by_the_identity_alone() {
    let shared = Member { shared: BTreeSet::from([ip("10.0.0.1")]), ..member(Some("web"), &[]) };
    let web = allowing(vec![shared]);

    assert!(is_allowed(&judged(&web, Some("web"), "10.0.0.1", true)));
    assert!(!is_allowed(&judged(&web, Some("other"), "10.0.0.1", true)));
    let said = judged(&web, None, "10.0.0.1", true);
    assert!(said.contains("an address of its own"), "{said}");
}

#[test]
fn a_workload_at_a_name_is_known_by_its_identity() {
    let named = Member { is_named: true, ..member(Some("web"), &[]) };

    assert!(is_allowed(&judged(&allowing(vec![named.clone()]), Some("web"), "10.0.0.9", true)));
    let shared = Member { shares_identity: true, ..named };
    assert!(!is_allowed(&judged(&allowing(vec![shared]), Some("web"), "10.0.0.9", true)));
}

#[test]
fn a_set_that_has_not_arrived_refuses_whatever_the_rule_does() {
    let unknown = || {
        let name = SetName { id: "set".into(), parts: 1 };
        NetworkAsks::Peer(vec![Peers::Set(SetRef { name, members: None })])
    };
    let everything = || rule("everything", NetworkAction::Allow, Vec::new());
    let not = NetworkCondition { asks: unknown(), negated: true };
    let negated = NetworkRule { conditions: vec![not], ..everything() };

    for refusing in [
        rules(vec![rule("allow", NetworkAction::Allow, vec![unknown()])]),
        rules(vec![rule("deny", NetworkAction::Deny, vec![unknown()]), everything()]),
        rules(vec![rule("pass", NetworkAction::Pass, vec![unknown()])]),
        rules(vec![negated]),
    ] {
        let said = judged(&refusing, Some("web"), "10.0.0.1", true);
        assert!(said.contains("not known here yet"), "{said}");
    }
}

#[test]
fn sets_arrive_by_name() {
    let name = SetName { id: "web".into(), parts: 2 };
    let peers = Peers::Set(SetRef { name: name.clone(), members: None });
    let rules = rules(vec![rule("allow", NetworkAction::Allow, vec![NetworkAsks::Peer(vec![peers])])]);
    let part = Arc::new(SetPart::new(vec![member(Some("web"), &["10.0.0.1"])], []));
    let set = Arc::new(WorkloadSet::new(vec![part]));

    assert_eq!(rules.sets().collect::<Vec<_>>(), [&name]);
    let resolved = rules.resolved(|wanted| (*wanted == name).then(|| Arc::clone(&set)));
    assert!(is_allowed(&judged(&resolved, Some("web"), "10.0.0.1", true)));
    assert!(!is_allowed(&judged(&rules, Some("web"), "10.0.0.1", true)));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let from = |block: &str| {
        let within = AddressSet::new([block.parse().unwrap()]);
        NetworkAsks::Peer(vec![Peers::Block { within, except: AddressSet::default() }])
    };
    let ordered = rules(vec![
        rule("log", NetworkAction::Log, vec![from("10.0.0.0/8")]),
        rule("deny", NetworkAction::Deny, vec![from("10.1.0.0/16")]),
        rule("pass", NetworkAction::Pass, vec![from("10.2.0.0/16")]),
        rule("allow", NetworkAction::Allow, vec![from("10.0.0.0/8")]),
    ]);

    assert_eq!(judged(&ordered, None, "10.1.0.1", true), "deny deny: it denies this");
    assert_eq!(judged(&ordered, None, "10.2.0.1", true), "allow pass");
    assert_eq!(judged(&ordered, None, "10.3.0.1", true), "allow allow");
    assert!(judged(&ordered, None, "11.0.0.1", true).starts_with("deny policy: "));
    let mut logged = Vec::new();
    let connection = Connection::new(Source::peer(ip("10.3.0.1"), None), 80);
    ordered.judge(&Party::incoming(&connection), |rule| logged.push(rule.to_string()));
    assert_eq!(logged, ["log"]);
    assert!(ordered.logs());
}

#[test]
fn a_block_leaves_out_its_exceptions_and_ports_are_ranges() {
    let within = AddressSet::new(["10.0.0.0/8".parse().unwrap()]);
    let except = AddressSet::new(["10.1.0.0/16".parse().unwrap()]);
    let ports = |first, last| NetworkAsks::Port(Ports { ranges: vec![(first, last)], named: Vec::new() });
    let with = |ports| {
        let peers = Peers::Block { within: within.clone(), except: except.clone() };
        rules(vec![rule("allow", NetworkAction::Allow, vec![NetworkAsks::Peer(vec![peers]), ports])])
    };

    assert!(is_allowed(&judged(&with(ports(8080, 8080)), None, "10.0.0.1", false)));
    assert!(is_allowed(&judged(&with(ports(8000, 9000)), Some("web"), "10.0.0.1", true)));
    assert!(!is_allowed(&judged(&with(ports(8081, 9000)), None, "10.0.0.1", false)));
    assert!(!is_allowed(&judged(&with(ports(8080, 8080)), None, "10.1.0.1", false)));
}

#[test]
fn nothing_keeps_a_workload_from_itself() {
    let nothing = NetworkRules { itself: Some(identity("web")), ..rules(Vec::new()) };

    assert!(is_allowed(&judged(&nothing, Some("web"), "127.0.0.1", false)));
    assert!(is_allowed(&judged(&nothing, None, "10.0.0.99", true)));
    assert!(!is_allowed(&judged(&nothing, Some("other"), "127.0.0.1", false)));
    assert!(!is_allowed(&judged(&nothing, None, "10.0.0.98", true)));
    assert!(!is_allowed(&judged(&NetworkRules { itself: None, ..nothing }, None, "127.0.0.1", false)));
}

#[test]
fn an_endpoint_is_told_by_address_and_port() {
    let socket: SocketAddr = "10.0.0.1:5432".parse().unwrap();
    let database = Member {
        shared: BTreeSet::from([socket.ip()]),
        sockets: BTreeSet::from([socket]),
        shares_identity: true,
        ..member(Some("database"), &[])
    };
    let rules = allowing(vec![database]);
    let at = |socket: &str, account: Option<&str>| {
        let identity = account.map(identity);
        is_allowed(&said(rules.judge(&Party::endpoint(socket.parse().unwrap(), identity.as_ref()), |_| {})))
    };

    assert!(at("10.0.0.1:5432", Some("database")));
    assert!(at("10.0.0.1:5432", None));
    assert!(!at("10.0.0.1:5433", Some("database")));
    assert!(!at("10.0.0.1:5433", None));
    assert!(!at("10.0.0.1:5432", Some("other")));
}

#[test]
fn a_port_with_a_name_is_where_a_workload_of_the_set_has_it() {
    let socket: SocketAddr = "10.0.0.1:8081".parse().unwrap();
    let part = SetPart::new(vec![Member { sockets: BTreeSet::from([socket]), ..member(None, &[]) }], []);
    let name = SetName { id: "http".into(), parts: 1 };
    let members = Some(Arc::new(WorkloadSet::new(vec![Arc::new(part)])));
    let ports = Ports { ranges: Vec::new(), named: vec![SetRef { name, members }] };
    let rules = rules(vec![rule("allow", NetworkAction::Allow, vec![NetworkAsks::Port(ports)])]);
    let at = |socket: &str| {
        is_allowed(&said(rules.judge(&Party::endpoint(socket.parse().unwrap(), None), |_| {})))
    };

    assert!(at("10.0.0.1:8081"));
    assert!(!at("10.0.0.1:8080") && !at("10.0.0.2:8081"));
}

#[test]
fn the_name_of_a_part_is_read_as_it_is_written() {
    let name = PartName { set: SetName { id: "3f2a".into(), parts: 4 }, part: 3 };

    assert_eq!(name.to_string().parse(), Ok(name));
    for wrong in ["", "a", "a/1", "a/1/1", "a/0/0", "a/1/0/0", "/1/0", "a-b/1/0", "a/4294967295/0"] {
        assert_eq!(wrong.parse::<PartName>(), Err(NotAPart), "{wrong}");
    }
}

/// Rules of one tier as the test writes them: what each does, and whether it matches; `None`: nobody knows.
type Written = (Vec<(NetworkAction, Option<bool>)>, EndOfTier);

/// Whether it may pass, read naively. The bits of `world` say of each rule of which nobody knows it whether it matches.
fn reaches(tiers: &[Written], mut world: u32) -> bool {
    let mut matches = |known: Option<bool>| {
        known.unwrap_or_else(|| {
            let guess = world & 1 == 1;
            world >>= 1;
            guess
        })
    };
    // All are asked, so that each has its own bit.
    let known: Vec<(Vec<NetworkAction>, EndOfTier)> = tiers
        .iter()
        .map(|(rules, otherwise)| {
            let matching = rules.iter().filter(|(_, known)| matches(*known)).map(|(action, _)| *action);
            (matching.filter(|action| *action != NetworkAction::Log).collect(), *otherwise)
        })
        .collect();
    for (matching, otherwise) in known {
        match (matching.first(), otherwise) {
            (Some(NetworkAction::Allow), _) => return true,
            (Some(NetworkAction::Deny), _) | (None, EndOfTier::Deny) => return false,
            _ => {}
        }
    }
    true
}

#[test]
fn tiers_allow_what_a_naive_reading_allows_whatever_is_so_of_what_nobody_knows() {
    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let written: Vec<Written> = (0..rng.usize(1..4))
            .map(|_| {
                let rules = (0..rng.usize(..4)).map(|_| {
                    let actions =
                        [NetworkAction::Allow, NetworkAction::Deny, NetworkAction::Log, NetworkAction::Pass];
                    (actions[rng.usize(..4)], [Some(true), Some(false), None][rng.usize(..3)])
                });
                (rules.collect(), [EndOfTier::Deny, EndOfTier::Pass][rng.usize(..2)])
            })
            .collect();
        let tier = |(rules, otherwise): &Written| NetworkTier {
            rules: rules
                .iter()
                .map(|(action, matches)| rule("rule", *action, vec![asks(*matches)]))
                .collect(),
            policies: vec!["policy".into()],
            otherwise: *otherwise,
        };
        let rules = NetworkRules::new(written.iter().map(tier).collect(), None);

        let may = is_allowed(&judged(&rules, None, "10.0.0.1", true));

        let unknown = written.iter().flat_map(|(rules, _)| rules).filter(|(_, matches)| matches.is_none());
        let worlds = 1 << unknown.count();
        assert_eq!(may, (0..worlds).all(|world| reaches(&written, world)), "{seed}: {written:?}");
        *if may { &mut allowed } else { &mut denied } += 1;
    }
    assert!(allowed > 1000 && denied > 1000, "{allowed} {denied}");
}

fn asks(matches: Option<bool>) -> NetworkAsks {
    let block = |text: &str| {
        NetworkAsks::Peer(vec![Peers::Block {
            within: AddressSet::new([text.parse().unwrap()]),
            except: AddressSet::default(),
        }])
    };
    match matches {
        Some(true) => block("10.0.0.0/8"),
        Some(false) => block("11.0.0.0/8"),
        None => NetworkAsks::Unknowable,
    }
}

/// Random conditions about a few accounts and addresses.
fn drawn(rng: &mut fastrand::Rng) -> NetworkCondition {
    let account = |rng: &mut fastrand::Rng| ["web", "api", "db"][rng.usize(..3)];
    let address = |rng: &mut fastrand::Rng| format!("10.0.0.{}", rng.usize(1..4));
    let some = |rng: &mut fastrand::Rng| {
        let socket = SocketAddr::new(ip(&address(rng)), 8080);
        let one = member((rng.u8(..4) > 0).then(|| account(rng)), &[&address(rng)]);
        match rng.u8(..5) {
            0 => Member { shares_identity: true, ..one },
            1 => Member { shared: one.addresses, addresses: BTreeSet::new(), ..one },
            2 => Member { sockets: BTreeSet::from([socket]), addresses: BTreeSet::new(), ..one },
            3 => Member { is_named: true, ..one },
            _ => one,
        }
    };
    let asks = match rng.u8(..12) {
        0 => NetworkAsks::Unknowable,
        1 => NetworkAsks::OwnAddress(AddressSet::new(["10.0.0.0/30".parse().unwrap()])),
        2 => {
            let ranges = vec![if rng.bool() { (8080, 8080) } else { (1, 80) }];
            NetworkAsks::Port(Ports { ranges, named: Vec::new() })
        }
        3 => {
            let within = AddressSet::new([address(rng).parse::<IpAddr>().unwrap().into()]);
            NetworkAsks::Peer(vec![
                Peers::Block { within, except: AddressSet::default() },
                set(vec![some(rng)]),
            ])
        }
        4 => {
            let blocks = [format!("{}/31", address(rng)).parse().unwrap()];
            let members = WorkloadSet::new(vec![Arc::new(SetPart::new(vec![some(rng)], blocks))]);
            let name = SetName { id: "set".into(), parts: 1 };
            NetworkAsks::Peer(vec![Peers::Set(SetRef { name, members: Some(Arc::new(members)) })])
        }
        5 => {
            let name = SetName { id: "set".into(), parts: 1 };
            NetworkAsks::Peer(vec![Peers::Set(SetRef { name, members: None })])
        }
        _ => NetworkAsks::Peer(vec![set((0..rng.usize(..3)).map(|_| some(rng)).collect())]),
    };
    NetworkCondition { asks, negated: rng.u8(..6) == 0 }
}

#[test]
fn an_index_finds_what_one_rule_after_the_other_finds() {
    let (mut allowed, mut denied) = (0, 0);
    for seed in 0..20_000 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let tiers = (0..rng.usize(1..3)).map(|number| {
            let rules = (0..rng.usize(..24)).map(|place| {
                let actions =
                    [NetworkAction::Allow, NetworkAction::Deny, NetworkAction::Log, NetworkAction::Pass];
                NetworkRule {
                    name: format!("tier {number} rule {place}").into(),
                    action: actions[rng.usize(..4)],
                    conditions: (0..rng.usize(1..3)).map(|_| drawn(&mut rng)).collect(),
                }
            });
            let rules = rules.collect();
            let otherwise = [EndOfTier::Deny, EndOfTier::Pass][rng.usize(..2)];
            NetworkTier { rules, policies: vec![format!("policy {number}").into()], otherwise }
        });
        let indexed = NetworkRules::new(tiers.collect(), None);
        let scanned = NetworkRules { indexes: vec![None; indexed.tiers.len()], ..indexed.clone() };
        let identity = (rng.u8(..3) > 0).then(|| identity(["web", "api", "db", "other"][rng.usize(..4)]));
        let address = (rng.u8(..5) > 0).then(|| ip(&format!("10.0.0.{}", rng.usize(1..6))));
        let party = Party {
            identity: identity.as_ref(),
            address,
            is_told_by_address: rng.bool(),
            port: [80, 8080][rng.usize(..2)],
            is_callee: rng.bool(),
            own_address: rng.bool().then(|| ip("10.0.0.2")),
        };
        let judged = |rules: &NetworkRules| {
            let mut logged = Vec::new();
            let verdict = rules.judge(&party, |rule| logged.push(rule.to_string()));
            (said(verdict), logged)
        };

        let found = judged(&indexed);

        assert_eq!(found, judged(&scanned), "{seed}: {party:?} {indexed:#?}");
        *if is_allowed(&found.0) { &mut allowed } else { &mut denied } += 1;
    }
    assert!(allowed > 1000 && denied > 1000, "{allowed} {denied}");
}

#[test]
fn all_tiers_together_file_no_more_than_is_left() {
    let rule = |number: usize| {
        let peers = set(vec![member(Some(&format!("a{number}")), &[])]);
        rule("one", NetworkAction::Allow, vec![NetworkAsks::Peer(vec![peers])])
    };
    let tier: Vec<NetworkRule> = (0..12).map(rule).collect();
    let identity = identity("other");
    let connection = Connection::new(Source::peer(ip("10.0.0.1"), Some(&identity)), 8080);
    let tried = |left: &mut usize| {
        let index = Index::over(&tier, left)?;
        Some(index.candidates(&Party::incoming(&connection)).count())
    };
    let mut left = 17;

    assert_eq!(tried(&mut left), Some(0), "all are filed");
    assert_eq!(tried(&mut left), Some(7), "five are filed, the others are always tried");
    assert_eq!((tried(&mut left), left), (None, 0));
}
