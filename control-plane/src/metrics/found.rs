//! Series that are counted with each delivery. To find one by its labels takes a lock that all streams share, so each is found
//! when it is counted for the first time; before that it is not shown.

use std::sync::{OnceLock, atomic::AtomicU64};

use prometheus_client::metrics::counter::Counter;

/// Each by the number of its label's value.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) transactions: [OnceLock<Counter>; 3],
    pub(super) stages: [OnceLock<Counter<f64, AtomicU64>>; 5],
    pub(super) endpoints_sent: [OnceLock<Counter>; 2],
}
