//! A number that only one thread writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Adds to a number that only this thread writes.
pub(super) fn add(number: &AtomicU64, by: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}
