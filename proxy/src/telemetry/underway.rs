//! Where a request has gone so far, and what a gateway calls it, for those who see it although its client leaves before there
//! is an answer.
//!
//! It travels with the request, and only with one that somebody sees: all others carry nothing.

use std::sync::{Arc, Mutex};

use http::HeaderValue;

use super::{registered::lock, tap::WentTo, watched::RouteLog};

/// See the module. Each attempt overwrites what the one before it has noted.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<Mutex<Noted>>);

/// What is noted.
#[derive(Debug, Default)]
pub(super) struct Noted {
    /// Where it went, and where its rule has lines about it go; `None`: nowhere yet.
    pub(super) place: Option<(WentTo, Option<Arc<RouteLog>>)>,
    /// What a gateway calls it.
    pub(super) request_id: Option<HeaderValue>,
    /// What a gateway says of the addresses that it came by.
    pub(super) forwarded_for: Option<HeaderValue>,
}

impl Underway {
    /// Notes that it goes there now.
    pub fn note(&self, place: WentTo, log: Option<Arc<RouteLog>>) {
        lock(&self.0).place = Some((place, log));
    }

    /// Notes what a gateway has told whoever is behind it.
    pub fn settled(&self, request_id: Option<HeaderValue>, forwarded_for: Option<HeaderValue>) {
        let mut noted = lock(&self.0);
        (noted.request_id, noted.forwarded_for) = (request_id, forwarded_for);
    }

    /// What was noted last.
    pub(super) fn take(&self) -> Noted {
        std::mem::take(&mut *lock(&self.0))
    }
}
