//! What is known of backends and endpoints goes on when configuration changes.

use super::*;

#[test]
fn a_change_of_weights_forgets_nothing() {
    let (mut fixture, table) = Fixture::new();
    let before = bound(&table);
    eject(&before.backends[0], &before.backends[0].endpoints[0], fixture.now);
    before.backends[0].endpoints[0].target.flight.begin();

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
