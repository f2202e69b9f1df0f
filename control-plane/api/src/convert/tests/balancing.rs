//! Any way of balancing, and any session.

use proptest::{collection::vec, option, prelude::*};
use selvedge_model::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, SessionCarrier, SessionKey,
    SessionPersistence, Warmup, filter::Fraction,
};

use super::time;

prop_compose! {
    fn hash_cookie()(
        name in "[a-z]{1,8}", ttl in option::of(time()), path in option::of("/[a-z]{0,8}"),
        attributes in vec("[a-z]{1,8}", 0..3), renewed_on_failure: bool, key in option::of(any::<[u8; 32]>()),
    ) -> HashCookie {
        HashCookie { name, ttl, path, attributes, renewed_on_failure, key: key.map(SessionKey) }
    }
}

pub(super) fn balancer() -> impl Strategy<Value = LoadBalancer> {
    let key = prop_oneof![
        "[a-z]{1,8}".prop_map(HashKey::Header),
        hash_cookie().prop_map(HashKey::Cookie),
        Just(HashKey::SourceAddress),
        "[a-z]{1,8}".prop_map(HashKey::Query),
    ];
    let table = prop_oneof![
        (0..=HashTable::LARGEST_RING).prop_map(|minimum| HashTable::Ring { minimum }),
        prop_oneof![Just(2), Just(65_537), Just(5_000_011)].prop_map(|size| HashTable::Maglev { size }),
    ];
    let hash = (key, table, option::of(100_u32..1_000)).prop_map(|(key, table, load_bound)| ConsistentHash {
        key,
        table,
        load_bound,
    });
    prop_oneof![
        Just(LoadBalancer::LeastRequest),
        Just(LoadBalancer::RoundRobin),
        Just(LoadBalancer::Random),
        Just(LoadBalancer::Passthrough),
        Just(LoadBalancer::PeakEwma),
        hash.prop_map(LoadBalancer::ConsistentHash),
    ]
}

prop_compose! {
    pub(super) fn warmup()(
        duration in time(), parts in 0_u32..=1_000_000, aggression_thousandths: u32,
    ) -> Warmup {
        let minimum = Fraction::of_million(parts).expect("a part of a million");
        Warmup { duration, minimum, aggression_thousandths }
    }
}

prop_compose! {
    pub(super) fn session()(
        name in "[a-z]{1,8}", cookie in option::of(("/[a-z]{0,8}", option::of(time()), vec("[a-z]{1,8}", 0..3))),
        absolute_timeout in option::of(time()), idle_timeout in option::of(time()), moves_on_failure: bool,
        key: [u8; 32],
    ) -> SessionPersistence {
        let carrier = cookie.map_or(SessionCarrier::Header, |(path, max_age, attributes)| {
            SessionCarrier::Cookie { path, max_age, attributes }
        });
        SessionPersistence {
            name, carrier, absolute_timeout, idle_timeout, moves_on_failure, key: SessionKey(key),
        }
    }
}
