//! Where a request has gone so far, and what a gateway calls it, for those who see it although its client leaves before there
//! is an answer.
//!
//! It travels with the request, and only with one that somebody sees: all others carry nothing.

use std::sync::{Arc, Mutex};

use http::{Extensions, HeaderValue};

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
    /// That of the request with these extensions; `None`: nobody sees it.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        if extensions.is_empty() { None } else { extensions.get() }
    }

    /// Has attempts at `request`, which is a copy of another, say nothing of that other one.
    pub fn forget<B>(request: &mut http::Request<B>) {
        if Self::of(request.extensions()).is_some() {
            request.extensions_mut().remove::<Self>();
        }
    }

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
