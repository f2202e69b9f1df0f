//! What a pass over the configuration binds, keeps and lets go.

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
    let facts = PickFacts { tried: &[], now: fixture.now, hash: None, dialled: None, ejection: None };
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
        let facts = PickFacts { tried: &[], now: Instant::now(), hash: None, dialled: None, ejection: None };
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
fn endpoints_that_several_names_lead_to_each_have_their_own_state() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[90, 10]);
    service.backends[0].policy.outlier_detection.as_mut().unwrap().max_ejection_percent = 100;
    // With another weight nothing is known by its place in the list.
    let list = |places: &[usize], weight: u32| {
        let endpoint = |place: &usize| Endpoint { weight, ..fixtures::model_endpoint(*place) };
        Endpoints::new(fixtures::key(), places.iter().map(endpoint).collect())
    };
    let twice = fixtures::endpoints_of("2", &list(&[0, 0], 1));
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service), twice]);
    let before = Arc::clone(&bound(&table).backends[0]);
    assert_eq!(before.endpoints.len(), 2);
    before.endpoints.iter().for_each(|endpoint| eject(&before, endpoint, fixture.now));

    let (table, _) = fixture.change(vec![fixtures::endpoints_of("3", &list(&[0, 0], 2))]);
    let after = Arc::clone(&bound(&table).backends[0]);
    for (old, new) in before.endpoints.iter().zip(&after.endpoints) {
        assert!(Arc::ptr_eq(&old.health, &new.health), "each goes on as it was");
    }

    let (table, _) = fixture.change(vec![fixtures::endpoints_of("4", &list(&[2], 1))]);
    let ejection = bound(&table).backends[0].ejection.clone().unwrap();
    assert_eq!(ejection.ejected(), 0, "both have left");
}

#[test]
fn two_services_that_see_one_backend_differently_each_keep_what_they_know_of_it() {
    let (mut fixture, _) = Fixture::new();
    // Another service whose rule leads to the same subsets, which it treats in its own way.
    let other = |version: &str, interval: u64| {
        let mut service = fixtures::model_service(&[50, 50]);
        service.key = ServiceKey::new("other.shop.svc.cluster.local", 9080);
        for backend in &mut service.backends {
            let detection = backend.policy.outlier_detection.as_mut().unwrap();
            detection.interval = Duration::from_secs(interval);
        }
        fixtures::service_of(version, &service)
    };
    let lookup = Lookup::Service(ServiceKey::new("other.shop.svc.cluster.local", 9080));
    let lookup = fixtures::lookup_of("other:9080", "1", &lookup);
    let (table, _) = fixture.change(vec![other("1", 60), lookup]);
    let of_other = |table: &Table| Arc::clone(table.destinations["other:9080"].bound.as_ref().unwrap());
    let before = [bound(&table), of_other(&table)];
    assert!(!Arc::ptr_eq(&before[0].backends[0], &before[1].backends[0]));
    eject(&before[1].backends[0], &before[1].backends[0].endpoints[0], fixture.now);

    for change in 2..6 {
        let version = change.to_string();
        let changes = vec![other(&version, 60 + change), fixtures::service(&version, &[1, 1])];
        let (table, _) = fixture.change(changes);
        let after = [bound(&table), of_other(&table)];
        let ejected = after.each_ref().map(|bound| bound.backends[0].ejection.as_ref().unwrap().ejected());
        assert_eq!(ejected, [0, 1], "change {version}");
        for (before, after) in before.iter().zip(&after) {
            let [before, after] = [before, after].map(|bound| &bound.backends[0].endpoints[0].health);
            assert!(Arc::ptr_eq(before, after), "change {version}");
        }
    }
}

#[test]
fn who_is_asked_no_more_whether_it_is_well_no_longer_counts_as_failing() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[100]);
    service.backends[0].policy.health_check = Some(HealthCheck {
        question: HealthQuestion::Tcp,
        port: None,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(1),
        unhealthy_threshold: 2,
        healthy_threshold: 1,
    });
    let endpoints = |version: &str, joined: bool| {
        let plain = |mut endpoint: Endpoint| {
            endpoint.identity = endpoint.identity.filter(|_| joined);
            endpoint
        };
        let list = fixtures::model_endpoints(1).list.into_iter().map(plain).collect();
        fixtures::endpoints_of(version, &Endpoints::new(service.key.clone(), list))
    };
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service), endpoints("2", false)]);
    let backend = Arc::clone(&bound(&table).backends[0]);
    let (ejection, health) = (backend.ejection.as_ref().unwrap(), &backend.endpoints[0].health);
    ejection.checked(health, Some(false), None);
    let (table, _) = fixture.change(vec![endpoints("3", false)]);
    assert_eq!(bound(&table).backends[0].ejection.as_ref().unwrap().failing(), 1);

    let (table, _) = fixture.change(vec![endpoints("4", true)]);

    let backend = &bound(&table).backends[0];
    assert!(Arc::ptr_eq(&backend.endpoints[0].health, health));
    assert_eq!(backend.ejection.as_ref().unwrap().failing(), 0);
    assert!(!health.fails_checks());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(8))]
    /// 8 times 125 changes.
    #[test]
    fn a_thousand_changes_of_single_fields_forget_nothing_that_they_do_not_name(
        changes in proptest::collection::vec((0_u8..9, 1_u64..1_000), 125),
    ) {
        let (mut fixture, _) = Fixture::new();
        let mut service = fixtures::model_service(&[90, 10]);
        let (table, _) = fixture.change(vec![fixtures::endpoints("e", 6)]);
        let before = bound(&table);
        let first = |bound: &Bound| Arc::clone(&bound.backends[0].endpoints[0]);
        eject(&before.backends[0], &first(&before), fixture.now);
        let _request = before.backends[0].counts.enter(crate::balance::Limit::Requests);
        for (step, (field, value)) in changes.into_iter().enumerate() {
            let mut rules: Vec<_> = service.routes.rules().iter().map(|rule| (**rule).clone()).collect();
            let policy = &mut service.backends[0].policy;
            let small = u32::try_from(value).unwrap();
            let time = Duration::from_secs(value);
            let mut endpoints = 6;
            match field {
                0 => rules[0].timeout = Some(time),
                1 => rules[0].retry.attempts = small,
                2 => rules[0].backends[1].weight = small,
                3 => policy.connect_timeout = time,
                4 => policy.connection_pool.max_requests = Some(small),
                5 => policy.connections.max_connections = Some(small),
                6 => policy.outlier_detection.as_mut().unwrap().base_ejection_time = time,
                7 => {
                    policy.load_balancer =
                        if value % 2 == 0 { LoadBalancer::RoundRobin } else { LoadBalancer::LeastRequest };
                }
                _ => endpoints += usize::try_from(value % 5).unwrap(),
            }
            service.routes = RouteTable::new(Order::Listed, rules);
            let version = step.to_string();
            let changed = vec![fixtures::service_of(&version, &service), fixtures::endpoints(&version, endpoints)];
            let (table, _) = fixture.change(changed);

            let after = bound(&table);
            proptest::prop_assert!(Arc::ptr_eq(&before.budget, &after.budget));
            for (before, after) in before.backends.iter().zip(&after.backends) {
                proptest::prop_assert!(Arc::ptr_eq(&before.counts, &after.counts));
                for (before, after) in before.endpoints.iter().zip(&after.endpoints) {
                    proptest::prop_assert!(Arc::ptr_eq(&before.target, &after.target), "its connections");
                    proptest::prop_assert!(Arc::ptr_eq(&before.health, &after.health), "its failures");
                }
            }
            let ejection = after.backends[0].ejection.as_ref().unwrap();
            proptest::prop_assert_eq!(ejection.ejected(), 1);
            proptest::prop_assert!(ejection.is_ejected(&first(&after).health, fixture.now));
            proptest::prop_assert_eq!(after.backends[0].counts.of(crate::balance::Limit::Requests), 1);
        }
    }
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
fn what_is_known_of_our_own_endpoint_goes_on_where_connections_are_redirected() {
    let (mut fixture, _) = Fixture::new();
    let own = fixtures::model_endpoint(0).workload.unwrap();
    fixture.binder = fixtures::binder_of(own, &Arc::new(Metrics::new(1))).redirected(4999);
    let mut service = fixtures::model_service(&[90, 10]);
    service.backends[0].policy.load_balancer = LoadBalancer::PeakEwma;
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service)]);
    let before = bound(&table);
    let old = &before.backends[0].endpoints[0];
    assert_eq!(old.target.dial.port(), 4999, "it is our own");
    eject(&before.backends[0], old, fixture.now);

    let (table, _) = fixture.change(vec![fixtures::endpoints("2", 5)]);

    let after = bound(&table);
    let new = &after.backends[0].endpoints[0];
    assert!(Arc::ptr_eq(&old.health, &new.health));
    assert!(Arc::ptr_eq(old.latency.as_ref().unwrap(), new.latency.as_ref().unwrap()));
    assert!(new.ejection.as_ref().unwrap().is_ejected(&new.health, fixture.now));
}

#[test]
fn what_is_in_flight_is_compared_with_what_the_endpoints_have_that_are_there() {
    let (mut fixture, _) = Fixture::new();
    let mut service = fixtures::model_service(&[90, 10]);
    let hash =
        ConsistentHash { key: HashKey::SourceAddress, table: HashTable::MAGLEV, load_bound: Some(125) };
    service.backends[0].policy.load_balancer = LoadBalancer::ConsistentHash(hash);
    let (table, _) = fixture.change(vec![fixtures::service_of("2", &service)]);
    let backend = |table: &Table| Arc::clone(&bound(table).backends[0]);
    let total = |table: &Table| Arc::clone(backend(table).balancer.total_of(0).unwrap());
    let begin = |table: &Table, place: usize| InFlight::new(&backend(table).endpoints[place], None);
    let begun = [begin(&table, 0), begin(&table, 1), begin(&table, 1)];
    let own = |table: &Table, place: usize| backend(table).endpoints[place].load.as_ref().unwrap().own();

    let (more, _) = fixture.change(vec![fixtures::endpoints("2", 5)]);
    assert_eq!((own(&more, 0), own(&more, 1), own(&more, 2)), (1, 2, 0));
    assert!(Arc::ptr_eq(&total(&table), &total(&more)));
    assert_eq!(total(&more).all(), 3);

    let (fewer, _) = fixture.change(vec![fixtures::endpoints("3", 1)]);
    assert_eq!((own(&fewer, 0), total(&fewer).all()), (1, 1), "the other has left");
    drop(begun);
    assert_eq!((own(&fewer, 0), total(&fewer).all()), (0, 0));
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
fn another_workload_at_the_same_address_is_not_ejected_for_the_one_before() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    eject(&before.backends[0], &before.backends[0].endpoints[0], fixture.now);
    let mut endpoints = fixtures::model_endpoints(3);
    endpoints.list[0].workload = Some(WorkloadName::new("shop", "successor").unwrap());

    let (table, _) = fixture.change(vec![fixtures::endpoints_of("2", &endpoints)]);

    let after = bound(&table);
    let (old, new) = (&before.backends[0].endpoints[0], &after.backends[0].endpoints[0]);
    assert_eq!(old.address, new.address);
    let ejection = after.backends[0].ejection.as_ref().unwrap();
    assert!(!ejection.is_ejected(&new.health, fixture.now) && ejection.none_ejected());
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
    assert_eq!(work, Work { services: 1, endpoints: 2 * 9_997, targets: 9_997 });
    assert_eq!(bound(&table).backends[0].endpoints.len(), 5_000);

    let (_, work) = fixture.change(vec![fixtures::service("2", &[50, 50])]);
    assert_eq!(work, Work { services: 1, endpoints: 0, targets: 0 });
}

#[test]
fn of_ten_thousand_endpoints_only_those_that_change_are_looked_at() {
    let (mut fixture, _) = Fixture::new();
    let (table, _) = fixture.change(vec![fixtures::endpoints("2", 10_000)]);
    let before = bound(&table);
    let mut list = fixtures::model_endpoints(10_000);
    list.list[4_000].weight = 2;
    list.list.remove(6_000);

    let (table, work) = fixture.change(vec![fixtures::endpoints_of("3", &list)]);

    let after = bound(&table);
    assert_eq!(work, Work { services: 1, endpoints: 2, targets: 0 });
    let [old, new] = [&before, &after].map(|bound| &bound.backends[0]);
    assert_eq!(new.endpoints.len(), 4_999);
    let kept = |one: &&Arc<BoundEndpoint>| old.endpoints.iter().any(|old| Arc::ptr_eq(old, one));
    assert_eq!(new.endpoints.iter().rev().take(10).filter(kept).count(), 10);
    let changed = new.at(list.list[4_000].address).unwrap();
    let as_before = old.at(changed.address).unwrap();
    assert!(!Arc::ptr_eq(changed, as_before));
    assert!(
        Arc::ptr_eq(&changed.health, &as_before.health) && Arc::ptr_eq(&changed.target, &as_before.target)
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Of lists of any endpoints in any order, after any others: what is bound is what a new binder binds, and all state
    /// belongs to whom it belonged to.
    #[test]
    fn whatever_changes_in_a_list_what_is_bound_is_what_it_says(
        lists in proptest::collection::vec(
            (proptest::collection::vec((0_usize..24, 1_u32..3, 0_u8..8), 0..24), proptest::prelude::any::<bool>()),
            1..6,
        ),
        balancer in 0_usize..4,
        ejects in proptest::prelude::any::<bool>(),
    ) {
        let bounded = |load_bound| ConsistentHash {
            key: HashKey::SourceAddress,
            table: HashTable::Maglev { size: 101 },
            load_bound,
        };
        let balancers = [
            LoadBalancer::LeastRequest,
            LoadBalancer::PeakEwma,
            LoadBalancer::ConsistentHash(bounded(Some(125))),
            LoadBalancer::ConsistentHash(bounded(None)),
        ];
        let mut service = fixtures::model_service(&[90, 10]);
        service.backends[0].policy.load_balancer = balancers[balancer].clone();
        if !ejects {
            service.backends[0].policy.outlier_detection = None;
        }
        let (mut fixture, _) = Fixture::new();
        let (mut table, _) = fixture.change(vec![fixtures::service_of("s", &service)]);
        for (version, (list, is_sorted)) in lists.into_iter().enumerate() {
            let mut list = list;
            list.sort_unstable();
            list.dedup_by_key(|(place, ..)| *place);
            if !is_sorted {
                list.reverse();
            }
            let endpoint = |(place, weight, other): &(usize, u32, u8)| {
                let mut endpoint = Endpoint { weight: *weight, ..fixtures::model_endpoint(*place) };
                if *other == 0 {
                    endpoint.workload = Some(format!("shop/other-{place}").parse().unwrap());
                }
                endpoint
            };
            let list = Endpoints::new(fixtures::key(), list.iter().map(endpoint).collect());
            let version = format!("list {version}");
            let before = bound(&table);
            let resources = vec![fixtures::endpoints_of(&version, &list)];
            (table, _) = fixture.change(resources.clone());
            let after = bound(&table);

            let (mut other, _) = Fixture::new();
            let (new, _) = other.change([vec![fixtures::service_of("s", &service)], resources].concat());
            for (((now, anew), old), version) in
                after.backends.iter().zip(&bound(&new).backends).zip(&before.backends).zip(["v1", "v2"])
            {
                let what = |one: &Arc<BoundEndpoint>| (one.address, one.target.dial, one.workload.clone());
                let listed: Vec<_> = now.endpoints.iter().map(what).collect();
                proptest::prop_assert_eq!(&listed, &anew.endpoints.iter().map(what).collect::<Vec<_>>());
                proptest::prop_assert_eq!(&now.listed, &anew.listed);
                let of_subset = list.list.iter().filter(|one| one.labels["version"] == version);
                let addresses: Vec<_> = of_subset.map(|one| one.address).collect();
                proptest::prop_assert_eq!(now.endpoints.iter().map(|one| one.address).collect::<Vec<_>>(), addresses);
                for one in &now.endpoints {
                    proptest::prop_assert!(Arc::ptr_eq(now.at(one.address).unwrap(), one));
                    let known = old.endpoints.iter().find(|old| what(old) == what(one));
                    let Some(known) = known else { continue };
                    proptest::prop_assert!(Arc::ptr_eq(&known.target, &one.target));
                    proptest::prop_assert!(now.ejection.is_none() || Arc::ptr_eq(&known.health, &one.health));
                    let same = |a: Option<*const ()>, b: Option<*const ()>| a == b;
                    let latency = |one: &BoundEndpoint| one.latency.as_ref().map(|it| Arc::as_ptr(it).cast());
                    let load = |one: &BoundEndpoint| one.load.as_ref().map(|it| Arc::as_ptr(it).cast());
                    proptest::prop_assert!(same(latency(known), latency(one)) && same(load(known), load(one)));
                }
                let gone = old.endpoints.iter().filter(|old| !now.endpoints.iter().any(|one| what(one) == what(old)));
                for gone in gone.filter(|_| now.ejection.is_some()) {
                    let ejection = now.ejection.as_ref().unwrap();
                    let again = ejection.record(&gone.health, Outcome::Failure5xx, fixture.now, &mut fastrand::Rng::new());
                    proptest::prop_assert!(again.is_none(), "it has left");
                }
            }
        }
    }
}

#[test]
fn a_large_backend_that_was_replaced_is_kept_until_nobody_uses_it() {
    let (mut fixture, _) = Fixture::new();
    let (before, _) = fixture.change(vec![fixtures::endpoints("2", 1_000)]);
    let (backend, endpoint) = {
        let backend = &bound(&before).backends[0];
        (Arc::downgrade(backend), Arc::downgrade(&backend.endpoints[0]))
    };
    let (_after, _) = fixture.change(vec![fixtures::endpoints("3", 2)]);
    drop(before);
    assert!(
        backend.upgrade().is_some() && endpoint.upgrade().is_some(),
        "the last to use it did not drop it"
    );

    fixture.binder.tidy();

    assert!(backend.upgrade().is_none());
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
