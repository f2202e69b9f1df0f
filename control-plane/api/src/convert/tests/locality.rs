//! Any place, and any order of places.

use std::sync::Arc;

use proptest::{collection::vec, option, prelude::*};
use selvedge_model::{
    Locality, LocalityPolicy, Place,
    locality::{Distribution, Failover, LocalityOrder, LocalityPattern, PriorityLabel},
};

prop_compose! {
    pub(super) fn place()(
        region in "[a-z]{0,4}", zone in "[a-z]{0,4}", subzone in "[a-z]{0,4}", node in option::of("[a-z]{1,4}"),
        for_zones in vec("[a-z]{1,4}", 0..2), for_nodes in vec("[a-z]{1,4}", 0..2),
    ) -> Arc<Place> {
        Arc::new(Place { locality: Locality { region, zone, subzone }, node, for_zones, for_nodes })
    }
}

fn pattern() -> impl Strategy<Value = LocalityPattern> {
    "([*]|[a-z]{1,4}(/([*]|[a-z]{1,4}(/([*]|[a-z]{1,4}))?))?)"
        .prop_map(|text| LocalityPattern(Locality::of(&text)))
}

pub(super) fn policy() -> impl Strategy<Value = LocalityPolicy> {
    let labels = vec("[a-z./]{1,8}(=[a-z]{0,3})?".prop_map(|text| PriorityLabel::of(&text)), 0..3);
    let regions = vec(("[a-z]{1,4}", "[a-z]{1,4}"), 0..2);
    let failover = (labels, any::<bool>(), regions).prop_map(|(labels, by_place, regions)| {
        LocalityOrder::Failover(Failover { labels, by_place, regions })
    });
    let distribution = (pattern(), vec((pattern(), 1_u32..=100), 0..3));
    let distribution = distribution.prop_map(|(from, to)| Distribution { from, to });
    let order = prop_oneof![
        Just(LocalityOrder::Alike),
        failover,
        vec(distribution, 1..3).prop_map(LocalityOrder::Distribute),
    ];
    (any::<bool>(), any::<bool>(), order).prop_map(|(own_node, hints, order)| LocalityPolicy {
        own_node,
        hints,
        order,
    })
}
