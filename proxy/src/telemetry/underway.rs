//! Where a request has gone so far, for those who see it although its client leaves before there is an answer.
//!
//! It travels with the request, and only with one that somebody sees: all others carry nothing.

use std::sync::{Arc, Mutex};

use http::Extensions;

use super::{registered::lock, tap::WentTo, watched::RouteLog};

/// See the module. Each attempt overwrites what the one before it has noted.
#[derive(Debug, Clone, Default)]
pub struct Underway(Arc<Mutex<Option<Noted>>>);

/// Where it went, and where its rule has lines about it go.
type Noted = (WentTo, Option<Arc<RouteLog>>);

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
        *lock(&self.0) = Some((place, log));
    }

    /// What was noted last.
    pub(super) fn take(&self) -> Option<Noted> {
        lock(&self.0).take()
    }
}
