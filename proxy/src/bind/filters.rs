//! A rule's filters, or those of one of its backends, bound to what they act on.

use std::{fs, sync::Arc};

use selvedge_model::{
    Filters, StringMatch,
    filter::{Fraction, Mirror, ReadyFilters},
};

use super::{BoundLimits, BoundShare, Limiters};

/// All filters of a rule, or of one backend of it.
#[derive(Debug)]
pub struct BoundFilters {
    /// Those that need only the request.
    pub ready: ReadyFilters,
    /// How many requests are let in. `None`: all.
    pub limits: Option<BoundLimits>,
    /// Who gets a copy of the request as it is after those.
    pub mirrors: Vec<BoundMirror>,
}

/// Who gets copies.
#[derive(Debug)]
pub struct BoundMirror {
    /// Where they go and where they are counted.
    pub share: Arc<BoundShare>,
    /// Of how many requests.
    pub fraction: Fraction,
}

impl BoundFilters {
    /// `filters` of a rule whose matches ask `matched` of the path; `None` if they do nothing. `mirror` binds each of the
    /// mirrors.
    pub fn bind(
        filters: &Filters,
        limiters: &Limiters,
        matched: impl Iterator<Item = Option<StringMatch>>,
        mirror: impl FnMut(&Mirror) -> BoundMirror,
    ) -> Option<Arc<Self>> {
        let ready = ReadyFilters::new(filters, matched, hostname)?;
        let limits = limiters.bind(&filters.limits);
        Some(Arc::new(Self { ready, limits, mirrors: filters.mirrors.iter().map(mirror).collect() }))
    }
}

/// The name of this host; empty if the system does not say it.
fn hostname() -> Arc<str> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Arc::from(name.trim())
}
