//! What a pass over the configuration binds, keeps and lets go.

mod lists;
mod policies;
mod state;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use selvedge_api::wire;
use selvedge_model::{
    Called, ClientMatch, ConsistentHash, Endpoints, HashKey, HashTable, HealthCheck, HealthQuestion,
    LoadBalancer, Match, Order, RetryPolicy, RouteTable, Rule, Service, snapshot::Address,
};

use super::*;
use crate::{
    balance::{Outcome, PickFacts},
    bind::{Bound, BoundBackend, BoundEndpoint, BoundShare, Slot},
    body::InFlight,
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
        draft.add(wire::Transaction {
            nonce: 1,
            upserts,
            removals: Vec::new(),
            more: false,
            taps: None,
            log_level: None,
        });
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
    ejection.record(&endpoint.health, Outcome::Failure5xx, now, &mut fastrand::Rng::new()).unwrap();
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
    let rule = Rule::clone(&service.routes.rules()[0]);
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
fn a_change_that_concerns_no_backend_that_is_looked_after_leaves_their_list_alone() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[90, 10]);
    service.backends[0].policy.health_check = Some(HealthCheck::new(HealthQuestion::Tcp));
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service)]);
    assert_eq!(table.looked_after.len(), 1, "the one of two that has checks");

    service.routes = fixtures::model_service(&[50, 50]).routes;
    let (same, _) = fixture.change(vec![fixtures::service_of("3", &service)]);
    assert!(!Arc::ptr_eq(&table, &same) && Arc::ptr_eq(&table.looked_after, &same.looked_after));

    let (other, _) = fixture.change(vec![fixtures::endpoints("2", 5)]);
    assert!(!Arc::ptr_eq(&table.looked_after, &other.looked_after));
    assert!(Arc::ptr_eq(&other.looked_after[0], &bound(&other).backends[0]));
}

#[test]
fn what_nobody_asks_for_is_not_in_the_table() {
    let (mut fixture, _) = Fixture::new();

    let (table, _) = fixture.binder.bind(&fixture.held, |_| false, fixture.now);

    assert!(table.destinations.is_empty());
}
