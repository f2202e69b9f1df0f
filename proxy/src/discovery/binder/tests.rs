//! What a pass over the configuration binds, keeps and lets go.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use selvedge_api::wire;
use selvedge_model::{
    Called, ClientMatch, LoadBalancer, Match, Order, RetryPolicy, RouteTable, Rule, Service,
    snapshot::Address,
};

use super::*;
use crate::{
    balance::{Outcome, PickFacts},
    bind::{Bound, BoundBackend, BoundEndpoint, BoundShare, Slot},
    discovery::{
        fixtures::{self, AUTHORITY},
        held::Draft,
    },
};

struct Fixture {
    held: Resources,
    binder: Binder,
    now: Instant,
}

impl Fixture {
    /// Two subsets at 90/10, three endpoints: two of `v1`, one of `v2`.
    fn new() -> (Self, Arc<Table>) {
        let binder = fixtures::binder(&Arc::new(Metrics::new(1)));
        let mut fixture = Self { held: Resources::default(), binder, now: Instant::now() };
        let (table, _) = fixture.change(vec![
            fixtures::lookup("1"),
            fixtures::service("1", &[90, 10]),
            fixtures::endpoints("1", 3),
        ]);
        (fixture, table)
    }

    fn change(&mut self, mut upserts: Vec<wire::Resource>) -> (Arc<Table>, Work) {
        let mut draft = Draft::default();
        if self.held.own().is_none() {
            upserts.push(fixtures::own("0", &fixtures::us().workload.to_string()));
        }
        draft.add(wire::Transaction { nonce: 1, upserts, removals: Vec::new(), more: false });
        self.held.take_in(draft, &fixtures::us(), |_| true).unwrap();
        self.binder.bind(&self.held, |_| true, self.now)
    }
}

/// That `endpoint` is at the address that was asked for.
fn at(endpoint: Endpoint) -> Lookup {
    Lookup::Address(Box::new(Address { endpoint: Some(endpoint), ..Address::default() }))
}

fn bound(table: &Table) -> Arc<Bound> {
    Arc::clone(table.destinations[AUTHORITY].bound.as_ref().unwrap())
}

/// The shares of its only rule.
fn shares(bound: &Bound) -> &[Arc<BoundShare>] {
    let [rule] = bound.http.rules() else { panic!("one rule") };
    &rule.shares
}

fn eject(backend: &BoundBackend, endpoint: &BoundEndpoint, now: Instant) {
    let ejection = backend.ejection.as_ref().unwrap();
    ejection.record(&endpoint.health, Outcome::Failure5xx, backend.endpoints.len(), now).unwrap();
}

#[test]
fn a_subset_has_the_endpoints_with_all_its_labels() {
    let (_, table) = Fixture::new();

    let bound = bound(&table);

    let counts: Vec<_> = bound.backends.iter().map(|backend| backend.endpoints.len()).collect();
    assert_eq!(counts, [2, 1]);
    assert_eq!(shares(&bound).len(), 2);
    let labels = shares(&bound)[1].series.mtls.labels().unwrap();
    assert_eq!((&*labels.destination_subset, labels.mtls), ("v2", true));
}

#[test]
fn rules_for_certain_clients_follow_our_own_labels() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[90, 10]);
    let rule = service.routes.rules()[0].clone();
    let client = ClientMatch { labels: [("app".to_owned(), "web".to_owned())].into(), namespace: None };
    let matches = vec![Match { client, ..Match::default() }];
    service.routes = RouteTable::new(Order::Listed, vec![Rule { matches, ..rule.clone() }, rule]);
    let own = |version: &str, label: Option<&str>| {
        let mut own = fixtures::own(version, "shop/frontend-1");
        let Some(wire::resource::Body::Self_(workload)) = &mut own.body else { panic!("a workload") };
        workload.labels.extend(label.map(|label| ("app".to_owned(), label.to_owned())));
        own
    };
    let rules = |table: &Table| bound(table).http.rules().len();

    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service), own("1", Some("web"))]);
    assert_eq!(rules(&table), 2);
    let (table, work) = fixture.change(vec![own("2", Some("batch"))]);
    assert_eq!((rules(&table), work.services), (1, 1));
    let (table, work) = fixture.change(vec![own("3", Some("batch"))]);
    assert_eq!((rules(&table), work.services), (1, 0), "nothing has changed");
    let (table, _) = fixture.change(vec![own("4", None)]);
    assert_eq!(rules(&table), 1);
}

#[test]
fn a_change_of_weights_forgets_nothing() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    eject(&before.backends[0], &before.backends[0].endpoints[0], fixture.now);
    before.backends[0].endpoints[0].target.in_flight.store(7, Ordering::Relaxed);

    let (table, work) = fixture.change(vec![fixtures::service("2", &[50, 50])]);

    let after = bound(&table);
    assert_eq!(shares(&after)[1].weight, 50);
    assert!(Arc::ptr_eq(&before.budget, &after.budget));
    assert!(Arc::ptr_eq(&before.backends[0], &after.backends[0]), "the backends have not changed");
    assert!(Arc::ptr_eq(&shares(&before)[0].series.plain, &shares(&after)[0].series.plain));
    assert_eq!(work, Work { services: 1, endpoints: 0, targets: 0 });
}

#[test]
fn a_change_of_endpoints_keeps_the_state_of_those_that_stay() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    eject(&before.backends[0], &before.backends[0].endpoints[0], fixture.now);

    let (table, work) = fixture.change(vec![fixtures::endpoints("2", 5)]);

    let after = bound(&table);
    assert_eq!(work.targets, 2);
    assert_eq!(after.backends[0].endpoints.len(), 3);
    let (old, new) = (&before.backends[0].endpoints[0], &after.backends[0].endpoints[0]);
    assert!(Arc::ptr_eq(&old.health, &new.health) && Arc::ptr_eq(&old.target, &new.target));
    assert!(new.ejection.as_ref().unwrap().is_ejected(&new.health, fixture.now));
}

#[test]
fn requests_go_to_a_part_of_very_many_endpoints_which_a_change_leaves_in_use() {
    let (mut fixture, few) = Fixture::new();
    let facts = PickFacts { tried: &[], now: fixture.now, hash: None };
    let used = |table: &Table| -> BTreeSet<SocketAddr> {
        let bound = bound(table);
        let backend = &bound.backends[0];
        let mut rng = fastrand::Rng::with_seed(3);
        let mut pick = || backend.balancer.pick(&backend.endpoints, &facts, &mut rng).unwrap();
        (0..4_000).map(|_| backend.endpoints[pick()].address).collect()
    };

    let (table, _) = fixture.change(vec![fixtures::endpoints("2", 600)]);
    let before = used(&table);
    let (table, _) = fixture.change(vec![fixtures::endpoints("3", 606)]);
    let after = used(&table);

    assert_eq!((used(&few).len(), before.len(), after.len()), (2, 128, 128));
    assert!(after.intersection(&before).count() >= 128 - 6);
}

#[test]
fn a_change_of_endpoints_goes_on_with_the_next_in_turn() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[90, 10]);
    service.backends[0].policy.load_balancer = LoadBalancer::RoundRobin;
    let next = |table: &Table| {
        let facts = PickFacts { tried: &[], now: Instant::now(), hash: None };
        let backend = &bound(table).backends[0];
        backend.balancer.pick(&backend.endpoints, &facts, &mut fastrand::Rng::with_seed(1))
    };
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service), fixtures::endpoints("2", 6)]);
    assert_eq!([next(&table), next(&table)], [Some(0), Some(1)]);

    let (table, _) = fixture.change(vec![fixtures::endpoints("3", 8)]);

    assert_eq!(next(&table), Some(2));
}

#[test]
fn a_change_of_the_ejection_settings_keeps_who_is_ejected() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    eject(&before.backends[0], &before.backends[0].endpoints[0], fixture.now);
    let mut changed = fixtures::model_service(&[90, 10]);
    changed.backends[0].policy.outlier_detection.as_mut().unwrap().base_ejection_time =
        Duration::from_secs(1);

    let (table, _) = fixture.change(vec![fixtures::service_of("2", &changed)]);

    let after = bound(&table);
    let ejection = after.backends[0].ejection.as_ref().unwrap();
    assert_eq!(ejection.settings().base_ejection_time, Duration::from_secs(1));
    assert_eq!(ejection.ejected(), 1);
    assert!(ejection.is_ejected(&after.backends[0].endpoints[0].health, fixture.now));
    assert!(Arc::ptr_eq(&before.backends[1], &after.backends[1]));
}

#[test]
fn an_endpoint_that_left_no_longer_counts_as_ejected() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    let leaving = Arc::clone(&before.backends[0].endpoints[1]);
    eject(&before.backends[0], &leaving, fixture.now);

    // Only the first endpoint stays.
    let (table, _) = fixture.change(vec![fixtures::endpoints("2", 1)]);

    let backend = &bound(&table).backends[0];
    let ejection = backend.ejection.as_ref().unwrap();
    assert_eq!(ejection.ejected(), 0);
    eject(backend, &backend.endpoints[0], fixture.now);
    assert_eq!(ejection.ejected(), 1);
}

#[test]
fn what_a_change_did_not_touch_keeps_its_arc() {
    let (mut fixture, table) = Fixture::new();
    let before = Arc::clone(&table.destinations[AUTHORITY]);

    let (table, work) = fixture.change(vec![
        fixtures::own("1", "shop/frontend-1"),
        fixtures::lookup_of("elsewhere", "1", &Lookup::None),
    ]);

    assert_eq!(work, Work::default());
    assert!(Arc::ptr_eq(&before, &table.destinations[AUTHORITY]));
    assert!(table.destinations["elsewhere"].bound.is_none());
    assert!(table.own.is_some());
}

#[test]
fn two_names_of_one_service_are_one_service() {
    let (mut fixture, _) = Fixture::new();

    let other = fixtures::lookup_of("reviews.shop:9080", "1", &Lookup::Service(fixtures::key()));
    let (table, work) = fixture.change(vec![other]);

    assert_eq!(work.services, 0);
    let other = table.destinations["reviews.shop:9080"].bound.as_ref().unwrap();
    assert!(Arc::ptr_eq(&bound(&table), other));
}

#[test]
fn a_workloads_own_address_is_one_endpoint_with_the_default_rule() {
    let (mut fixture, _) = Fixture::new();
    let endpoint = fixtures::model_endpoint(0);
    let lookup = |version| {
        let lookup = at(fixtures::model_endpoint(0));
        fixtures::lookup_of("10.0.0.1:8080", version, &lookup)
    };

    let (table, _) = fixture.change(vec![lookup("1")]);

    let direct = table.destinations["10.0.0.1:8080"].bound.as_ref().unwrap();
    assert_eq!(direct.http.rules()[0].retry, Some(RetryPolicy::default()));
    assert_eq!(direct.backends[0].endpoints[0].address, endpoint.address);
    let shared = &bound(&table).backends[0].endpoints[0].target;
    assert!(Arc::ptr_eq(&direct.backends[0].endpoints[0].target, shared), "one target, one pool");

    let (again, work) = fixture.change(vec![lookup("2")]);
    assert_eq!(work, Work::default());
    assert!(Arc::ptr_eq(direct, again.destinations["10.0.0.1:8080"].bound.as_ref().unwrap()));
}

#[test]
fn an_address_is_found_by_itself_and_one_that_is_nothing_is_its_own_way_through() {
    let (mut fixture, _) = Fixture::new();
    let none = fixtures::lookup_of("192.0.2.1:443", "1", &Lookup::None);
    let endpoint = at(fixtures::model_endpoint(0));
    let endpoint = fixtures::lookup_of("10.0.0.1:8080", "1", &endpoint);

    let (table, _) = fixture.change(vec![none, endpoint]);

    let nothing = &table.addresses[&"192.0.2.1:443".parse().unwrap()];
    assert!(nothing.bound.is_none());
    assert_eq!(
        nothing.through.as_ref().unwrap().backends[0].endpoints[0].target.dial,
        "192.0.2.1:443".parse().unwrap()
    );
    let workload = &table.addresses[&"10.0.0.1:8080".parse().unwrap()];
    assert_eq!(workload.bound.as_ref().unwrap().called, Called::Itself);
    assert!(workload.through.is_none());
    assert!(table.destinations[AUTHORITY].through.is_none());
}

#[test]
fn a_service_with_addresses_of_its_own_is_called_by_them() {
    let (mut fixture, table) = Fixture::new();
    assert_eq!(bound(&table).called, Called::ByName);

    let addresses = vec!["10.96.0.1".parse().unwrap()];
    let service = Service { addresses, ..fixtures::model_service(&[90, 10]) };
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service)]);

    assert_eq!(bound(&table).called, Called::ByAddress);
}

#[test]
fn our_own_workload_is_dialled_at_our_own_listener_where_connections_are_redirected() {
    let dialled = |redirected: bool| {
        let (mut fixture, _) = Fixture::new();
        let own = fixtures::model_endpoint(0).workload.unwrap();
        let binder = fixtures::binder_of(own, &Arc::new(Metrics::new(1)));
        fixture.binder = if redirected { binder.redirected(4999) } else { binder };
        let (table, _) = fixture.change(vec![]);
        let endpoints = &bound(&table).backends[0].endpoints;
        let dials = endpoints.iter().map(|endpoint| endpoint.target.dial.to_string());
        (dials.collect::<Vec<_>>(), endpoints[0].target.port)
    };

    let (dials, port) = dialled(true);
    assert_eq!(dials, ["10.0.0.1:4999", "10.0.0.3:4143"], "only our own, at its own address");
    assert_eq!(port, 8080, "the preamble names the workload's port");
    assert_eq!(dialled(false).0, ["10.0.0.1:4143", "10.0.0.3:4143"]);
}

#[test]
fn what_nobody_asks_for_is_not_in_the_table() {
    let (mut fixture, _) = Fixture::new();

    let (table, _) = fixture.binder.bind(&fixture.held, |_| false, fixture.now);

    assert!(table.destinations.is_empty());
}

#[test]
fn a_slot_is_given_again_only_after_its_target_is_gone() {
    let (mut fixture, table) = Fixture::new();
    let pooled = Arc::clone(&bound(&table).backends[0].endpoints[1].target);
    drop(table);

    // Endpoint 2 leaves, but a request still holds its target; then others come.
    fixture.change(vec![fixtures::endpoints("2", 1)]);
    fixture.change(vec![fixtures::own("1", "shop/frontend-1")]);
    let (table, _) = fixture.change(vec![fixtures::endpoints("3", 6)]);

    let mut slots: Vec<usize> = bound(&table)
        .backends
        .iter()
        .flat_map(|backend| &backend.endpoints)
        .map(|endpoint| match endpoint.target.slot {
            Slot::Endpoint(slot) => slot,
            other => panic!("an endpoint has {other:?}"),
        })
        .collect();
    slots.sort_unstable();
    assert_eq!(slots, [0, 1, 2, 3, 4, 5], "small, and each once");
    let again = bound(&table).backends[0].endpoints[1].target.clone();
    assert!(Arc::ptr_eq(&pooled, &again), "it came back while its request was still there");
}

#[test]
fn ten_thousand_endpoints_are_looked_at_once_for_each_backend() {
    let (mut fixture, _) = Fixture::new();

    let (table, work) = fixture.change(vec![fixtures::endpoints("2", 10_000)]);
    assert_eq!(work, Work { services: 1, endpoints: 20_000, targets: 9_997 });
    assert_eq!(bound(&table).backends[0].endpoints.len(), 5_000);

    let (_, work) = fixture.change(vec![fixtures::service("2", &[50, 50])]);
    assert_eq!(work, Work { services: 1, endpoints: 0, targets: 0 });
}

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
    let egress = wire::NetworkRules { rules: vec![rule], policies: vec!["policy".into()], itself: None };
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
    assert!(denied.to_string().contains("policy: "), "{denied}");
    let (table, _) = fixture.change(vec![fixtures::own("3", &fixtures::us().workload.to_string())]);
    assert_eq!(bound(&table).backends[0].endpoints.len(), 2);
}

#[test]
fn nobody_is_called_before_our_own_policy_has_arrived() {
    let mut held = Resources::default();
    let mut draft = Draft::default();
    let upserts = vec![fixtures::lookup("1"), fixtures::service("1", &[1]), fixtures::endpoints("1", 1)];
    draft.add(wire::Transaction { nonce: 1, upserts, removals: Vec::new(), more: false });
    held.take_in(draft, &fixtures::us(), |_| true).unwrap();

    let (table, _) = fixtures::binder(&Arc::new(Metrics::new(1))).bind(&held, |_| true, Instant::now());

    let backend = Arc::clone(&bound(&table).backends[0]);
    assert!(backend.endpoints.is_empty());
    assert!(backend.denied.as_ref().unwrap().to_string().contains("not known yet"));
}
