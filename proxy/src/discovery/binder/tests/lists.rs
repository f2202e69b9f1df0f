//! Long lists of endpoints, and lists of any endpoints in any order.

use super::*;

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
