//! Orders of places, as Istio and kube-proxy say them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn place(locality: &str, node: &str) -> Place {
    let node = (!node.is_empty()).then(|| node.to_owned());
    Place { locality: Locality::of(locality), node, ..Place::default() }
}

fn hinted(locality: &str, zones: &[&str], nodes: &[&str]) -> Place {
    let owned = |list: &[&str]| list.iter().map(|&name| name.to_owned()).collect();
    Place { for_zones: owned(zones), for_nodes: owned(nodes), ..place(locality, "") }
}

fn pattern(text: &str) -> LocalityPattern {
    LocalityPattern(Locality::of(text))
}

/// By what endpoints are grouped, each group's key and members, and who is left out.
type Grouped = (By, Vec<(u32, Vec<usize>)>, Vec<usize>);

/// The groups of endpoints at `places` for a client at `client`: each one's key and members.
fn groups(policy: &LocalityPolicy, client: &Place, places: &[Place]) -> Grouped {
    let labels = BTreeMap::new();
    let located = |place| Located { place: Some(place), labels: &labels };
    let endpoints: Vec<_> = places.iter().map(located).collect();
    let Arrangement { by, groups, left_out, .. } = arrange(policy, located(client), &endpoints);
    (by, groups.into_iter().map(|group| (group.key, group.members)).collect(), left_out)
}

fn failover(failover: Failover) -> LocalityPolicy {
    LocalityPolicy { order: LocalityOrder::Failover(failover), ..LocalityPolicy::default() }
}

#[test]
fn the_nearest_come_first() {
    let places = ["us/b/1", "eu/a/1", "us/a/2", "us/a/1", "us/a/1"].map(|locality| place(locality, ""));

    let (by, groups, left_out) = groups(&failover(Failover::nearest()), &place("us/a/1", ""), &places);

    assert_eq!(by, By::Priority);
    assert_eq!(groups, [(0, vec![3, 4]), (1, vec![2]), (2, vec![0]), (3, vec![1])]);
    assert!(left_out.is_empty());
}

#[test]
fn a_client_or_endpoints_whose_place_is_not_known_make_all_alike() {
    let places = ["us/b/1", "eu/a/1"].map(|locality| place(locality, ""));
    let policy = failover(Failover::nearest());

    let of_nowhere = groups(&policy, &Place::default(), &places);
    let to_nowhere = groups(&policy, &place("us/a/1", ""), &[Place::default(), Place::default()]);

    assert_eq!(of_nowhere, (By::Nothing, vec![(3, vec![0, 1])], vec![]));
    assert_eq!(to_nowhere, (By::Nothing, vec![(3, vec![0, 1])], vec![]));
}

#[test]
fn failover_names_the_region_that_comes_next() {
    let places = ["asia/a/1", "eu/a/1", "us/a/1"].map(|locality| place(locality, ""));
    let regions = vec![("us".to_owned(), "eu".to_owned())];
    let policy = failover(Failover { regions, ..Failover::nearest() });

    let of_us = groups(&policy, &place("us/a/1", ""), &places).1;
    let of_asia = groups(&policy, &place("asia/a/1", ""), &places).1;

    assert_eq!(of_us, [(0, vec![2]), (3, vec![1]), (4, vec![0])]);
    assert_eq!(of_asia, [(0, vec![0]), (3, vec![1, 2])], "nothing is said of asia");
}

#[test]
fn labels_count_as_long_as_all_before_them_agree() {
    let label = |version: &str, tier: &str| {
        BTreeMap::from([("version".to_owned(), version.to_owned()), ("tier".to_owned(), tier.to_owned())])
    };
    let client = label("v1", "web");
    let all = [label("v1", "web"), label("v1", "db"), label("v2", "web"), label("v9", "web")];
    let endpoints: Vec<_> = all.iter().map(|labels| Located { place: None, labels }).collect();
    let keys = |labels: &[&str]| -> Vec<(u32, Vec<usize>)> {
        let labels = labels.iter().map(|text| PriorityLabel::of(text)).collect();
        let policy = failover(Failover { labels, ..Failover::default() });
        let arranged = arrange(&policy, Located { place: None, labels: &client }, &endpoints);
        arranged.groups.into_iter().map(|group| (group.key, group.members)).collect()
    };

    assert_eq!(keys(&["version", "tier"]), [(0, vec![0]), (5, vec![1]), (10, vec![2, 3])]);
    assert_eq!(keys(&["tier=db", "version=v1"]), [(0, vec![1]), (10, vec![0, 2, 3])]);
    assert_eq!(keys(&["version=v9"]), [(0, vec![3]), (5, vec![0, 1, 2])]);
}

#[test]
fn traffic_distribution_prefers_the_zone_or_the_node() {
    let places = [place("us/a/1", "n1"), place("us/a/1", "n2"), place("us/b/1", "n3"), place("eu/c/1", "n4")];
    let client = place("us/a/1", "n2");

    let zone = groups(&failover(Failover::same_zone()), &client, &places).1;
    let node = groups(&failover(Failover::same_node()), &client, &places).1;

    assert_eq!(zone, [(0, vec![0, 1]), (5, vec![2]), (10, vec![3])]);
    assert_eq!(node, [(0, vec![1]), (5, vec![0]), (15, vec![2]), (20, vec![3])]);
}

#[test]
fn hints_count_only_if_all_have_some_and_some_are_for_the_client() {
    let policy = LocalityPolicy { hints: true, ..LocalityPolicy::default() };
    let here = place("us/a/1", "n1");
    let zones = [hinted("us/a/1", &["a"], &[]), hinted("us/b/1", &["b", "c"], &[])];
    let nodes = [hinted("us/a/1", &["a"], &["n2"]), hinted("us/b/1", &["a"], &["n1"])];
    let alike = (By::Nothing, vec![(0, vec![0, 1])], vec![]);

    assert_eq!(groups(&policy, &here, &zones), (By::Hints, vec![(0, vec![0]), (1, vec![1])], vec![]));
    assert_eq!(groups(&policy, &here, &nodes), (By::Hints, vec![(0, vec![1]), (1, vec![0])], vec![]));
    assert_eq!(groups(&policy, &place("us/z/1", ""), &zones), alike, "none is for it");
    assert_eq!(groups(&policy, &here, &[zones[0].clone(), place("us/a/1", "")]), alike, "one has none");
    assert_eq!(groups(&policy, &Place::default(), &zones), alike, "nobody knows where it is");
}

#[test]
fn a_local_policy_leaves_only_the_clients_own_node() {
    let policy = LocalityPolicy { own_node: true, ..LocalityPolicy::default() };
    let places = [place("us/a/1", "n1"), place("us/a/1", "n2"), place("us/a/1", "")];

    assert_eq!(groups(&policy, &place("", "n2"), &places), (By::Nothing, vec![(0, vec![1])], vec![0, 2]));
    assert_eq!(groups(&policy, &place("us/a/1", ""), &places), (By::Nothing, vec![], vec![0, 1, 2]));
}

#[test]
fn a_distribution_gives_each_place_its_share_and_others_nothing() {
    let to = vec![(pattern("us/a/*"), 80), (pattern("us/b"), 15), (pattern("asia/*"), 5)];
    let distribution = Distribution { from: pattern("us/*"), to };
    let policy =
        LocalityPolicy { order: LocalityOrder::Distribute(vec![distribution]), ..LocalityPolicy::default() };
    let places = ["eu/a/1", "us/b/7", "us/a/1", "us/a/2"].map(|locality| place(locality, ""));

    let (by, of_us, left_out) = groups(&policy, &place("us/x/1", ""), &places);
    let of_eu = groups(&policy, &place("eu/a/1", ""), &places);

    assert_eq!((by, of_us, left_out), (By::Weight, vec![(0, vec![2, 3]), (1, vec![1])], vec![0]));
    assert_eq!(of_eu, (By::Nothing, vec![(0, vec![0, 1, 2, 3])], vec![]), "nothing is said of eu");
}

fn any_locality() -> impl Strategy<Value = String> {
    "(us|eu|)/(a|b|)/(1|2|)"
}

proptest! {
    #[test]
    fn every_endpoint_has_one_place_and_nearer_ones_never_come_later(
        client in any_locality(), localities in prop::collection::vec(any_locality(), 0..12),
    ) {
        let places: Vec<_> = localities.iter().map(|locality| place(locality, "")).collect();
        let (_, groups, left_out) = groups(&failover(Failover::nearest()), &place(&client, ""), &places);

        let mut met: Vec<usize> = groups.iter().flat_map(|(_, members)| members).copied().collect();
        met.sort_unstable();
        prop_assert_eq!(met, (0..places.len()).collect::<Vec<_>>());
        prop_assert!(left_out.is_empty());
        prop_assert!(groups.is_sorted_by_key(|(key, _)| *key));
        // Istio's rule, read naively.
        let own = Locality::of(&client);
        let naive = |locality: &Locality| match locality {
            one if one.region != own.region => 3,
            one if one.zone != own.zone => 2,
            one if one.subzone != own.subzone => 1,
            _ => 0,
        };
        for (key, members) in &groups {
            prop_assert!(members.iter().all(|index| naive(&places[*index].locality) == *key));
        }
    }
}
