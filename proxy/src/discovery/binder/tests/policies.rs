//! Nobody is bound whom policies deny, and policies do not wait for what is bound.

use super::*;

/// Our own workload, which may call only the endpoint at this address.
fn allowed_to_call(version: &str, address: &str) -> wire::Resource {
    let within = wire::AddressSet { blocks: vec![address.to_owned()] };
    let block = wire::AddressBlock { within: Some(within), except: Some(wire::AddressSet::default()) };
    let peer = wire::NetworkPeer { kind: Some(wire::network_peer::Kind::Block(block)) };
    let asks = wire::network_condition::Asks::Peers(wire::NetworkPeers { list: vec![peer] });
    let rule = wire::NetworkRule {
        name: "rule".into(),
        action: wire::NetworkAction::Allow.into(),
        conditions: vec![wire::NetworkCondition { negated: false, asks: Some(asks) }],
    };
    let egress =
        wire::NetworkRules { rules: vec![rule], policies: vec!["policy".into()], ..Default::default() };
    let mut own = fixtures::own(version, &fixtures::us().workload.to_string());
    if let Some(wire::resource::Body::Self_(workload)) = &mut own.body {
        workload.egress = Some(egress);
    }
    own
}

#[test]
fn endpoints_that_policies_deny_are_not_bound_and_the_others_keep_their_state() {
    let (mut fixture, before) = Fixture::new();
    let first = fixtures::model_endpoint(0).address.ip().to_string();
    let health = |table: &Table| Arc::clone(&bound(table).backends[0].endpoints[0].health);

    let (table, _) = fixture.change(vec![allowed_to_call("2", &first)]);

    let now = bound(&table);
    assert_eq!(now.backends[0].endpoints.len(), 1);
    assert!(Arc::ptr_eq(&health(&before), &health(&table)));
    assert_eq!(now.backends[1].endpoints.len(), 0);
    let denied = now.backends[1].denied.as_ref().unwrap();
    assert!(denied.failure().to_string().contains("policy: "), "{denied:?}");
    let (table, _) = fixture.change(vec![fixtures::own("3", &fixtures::us().workload.to_string())]);
    assert_eq!(bound(&table).backends[0].endpoints.len(), 2);
}

#[test]
fn nobody_is_called_before_our_own_policy_has_arrived() {
    let mut held = Resources::default();
    let mut draft = Draft::default();
    let upserts = vec![fixtures::lookup("1"), fixtures::service("1", &[1]), fixtures::endpoints("1", 1)];
    draft.add(wire::Transaction {
        nonce: 1,
        upserts,
        removals: Vec::new(),
        more: false,
        taps: None,
        log_level: None,
    });
    held.take_in(draft, &fixtures::us(), |_| true).unwrap();

    let (table, _) = fixtures::binder(&Arc::new(Metrics::new(1))).bind(&held, |_| true, Instant::now());

    let backend = Arc::clone(&bound(&table).backends[0]);
    assert!(backend.endpoints.is_empty());
    assert!(backend.denied.as_ref().unwrap().failure().to_string().contains("not known yet"));
}

#[test]
fn policies_are_in_force_before_anything_is_bound() {
    let (mut fixture, _) = Fixture::new();
    let mut own = fixtures::own("2", &fixtures::us().workload.to_string());
    if let Some(wire::resource::Body::Self_(workload)) = &mut own.body {
        workload.ports = vec![8081];
    }
    let before = fixture.change(vec![]).0;
    let transaction =
        wire::Transaction { upserts: vec![own, fixtures::endpoints("2", 7)], ..Default::default() };
    let mut draft = Draft::default();
    draft.add(transaction);
    fixture.held.take_in(draft, &fixtures::us(), |_| true).unwrap();

    let first = fixture.binder.policies(&fixture.held).expect("the policy has changed");

    assert_eq!(first.own.as_ref().unwrap().ports, [8081]);
    assert!(Arc::ptr_eq(&bound(&first), &bound(&before)), "nothing is bound yet");
    assert!(fixture.binder.policies(&fixture.held).is_none(), "they are in force");
    let (after, work) = fixture.change(vec![]);
    assert!(work.services > 0 && !Arc::ptr_eq(&bound(&after), &bound(&before)));
    assert_eq!(after.own.as_ref().unwrap().ports, [8081]);
}
