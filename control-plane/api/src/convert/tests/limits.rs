//! Rate limits at random.

use std::{sync::Arc, time::Duration};

use proptest::{collection::btree_set, collection::vec, option, prelude::*};
use selvedge_model::{
    limit::{
        By, Descriptor, Entry, Exception, Global, Limit, MOST_REQUESTS, OnFailure, Quota, RateLimit, Value,
    },
    policy::AddressSet,
};

use super::{identity, port_number, shared_text};

pub(super) fn rate_limit() -> impl Strategy<Value = RateLimit> {
    let ports = option::of(btree_set(port_number(), 0..3));
    let told = (any::<bool>(), any::<bool>());
    (shared_text(), ports, told, vec(limit(), 0..3), option::of(global())).prop_map(
        |(name, ports, (dry_run, tells_all), limits, global)| {
            RateLimit::new(name, ports, dry_run, limits).with_global(global).telling(tells_all)
        },
    )
}

fn global() -> impl Strategy<Value = Global> {
    let value = prop_oneof![
        shared_text().prop_map(Value::Fixed),
        "[a-z]([a-z0-9-]{0,8})".prop_map(|name| Value::Header(name.parse().expect("a header name"))),
        Just(Value::ClientAddress),
        Just(Value::ClientIdentity),
        Just(Value::Route),
    ];
    let entry = (shared_text(), value).prop_map(|(key, value)| Entry { key, value });
    let descriptor = vec(entry, 0..3).prop_map(|entries| Descriptor { entries });
    let on_failure = prop_oneof![Just(OnFailure::Open), Just(OnFailure::Closed)];
    let server = option::of("[a-z]{1,8}:[1-9]".prop_map(Arc::from));
    (server, shared_text(), 1..=10_000_u64, on_failure, vec(descriptor, 0..3)).prop_map(
        |(server, domain, timeout, on_failure, descriptors)| Global {
            server,
            domain,
            timeout: Duration::from_millis(timeout),
            on_failure,
            descriptors,
        },
    )
}

fn quota() -> impl Strategy<Value = Quota> {
    (1..=MOST_REQUESTS, 1..=86_400_000_u64, 1..=MOST_REQUESTS).prop_map(|(requests, per, burst)| Quota {
        requests,
        per: Duration::from_millis(per),
        burst,
    })
}

fn limit() -> impl Strategy<Value = Limit> {
    let by = prop_oneof![
        Just(By::Everyone),
        Just(By::ClientAddress),
        Just(By::ClientIdentity),
        Just(By::ExceptionAlone),
        "[a-z]([a-z0-9-]{0,8})".prop_map(|name| By::Header(name.parse().expect("a header name"))),
    ];
    let exception = (btree_set(identity(), 0..3), quota())
        .prop_map(|(identities, quota)| Exception { identities, quota });
    let block = "10\\.[0-9]\\.0\\.0/16".prop_map(|text| text.parse().expect("a block"));
    (by, quota(), vec(exception, 0..3), vec(block, 0..3)).prop_map(|(by, quota, exceptions, exempt)| Limit {
        by,
        quota,
        exceptions,
        exempt: AddressSet::new(exempt),
    })
}
