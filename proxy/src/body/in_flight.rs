//! What is in flight at an endpoint, by which its load and its limits are known.

use std::sync::Arc;

use crate::{
    balance::{Begun, Held, Load},
    bind::BoundEndpoint,
};

/// One request in flight at an endpoint; counted from [`InFlight::new`] until it is dropped.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<BoundEndpoint>,
    /// Whether it is a request that counts against no limit now, but against one that is set later.
    is_unlimited: bool,
    /// What few policies ask for: its place among the requests that the backend's policy allows, and among those that its
    /// balancer compares.
    _more: Option<Box<(Option<Held>, Option<Begun>)>>,
}

impl InFlight {
    /// Counts one more request, which was `admitted` if its backend has limits.
    pub fn new(endpoint: &Arc<BoundEndpoint>, admitted: Option<Held>) -> Self {
        let is_unlimited = admitted.is_none();
        if is_unlimited {
            endpoint.counts.begin_unlimited();
        }
        let mut begun = Self::begun(endpoint, admitted);
        begun.is_unlimited = is_unlimited;
        begun
    }

    /// Counts one more opaque connection.
    pub fn of_connection(endpoint: &Arc<BoundEndpoint>) -> Self {
        Self::begun(endpoint, None)
    }

    fn begun(endpoint: &Arc<BoundEndpoint>, admitted: Option<Held>) -> Self {
        let BoundEndpoint { target, load, .. } = &**endpoint;
        target.flight.begin();
        let begun = load.as_ref().map(Load::begin);
        let more = (admitted.is_some() || begun.is_some()).then(|| Box::new((admitted, begun)));
        Self { endpoint: Arc::clone(endpoint), is_unlimited: false, _more: more }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.target.flight.end();
        if self.is_unlimited {
            self.endpoint.counts.end_unlimited();
        }
    }
}
