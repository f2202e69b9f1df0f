//! How requests to one backend are sent, and over what connections.

use std::time::Duration;

use selvedge_model::{ConnectionLimits, ConnectionPool};

use super::tls;
use crate::{
    balance::{Circuit, Held, Limit},
    bind::Target,
    error::{Failure, Reason},
};

/// How requests to one backend are sent, and over what connections.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// Time for TCP and TLS together.
    pub connect_timeout: Duration,
    /// Limits on connections.
    pub limits: &'a ConnectionLimits,
    /// Limits on requests, and how connections are kept.
    pub pool: &'a ConnectionPool,
    /// What counts against those limits; `None`: there are none.
    pub circuit: Option<&'a Circuit>,
    /// Whether the request is sent again because its connection broke. It is then sent to the app on a new connection,
    /// because other pooled ones may be dead as well. Otherwise a server that closes many connections at once could use
    /// up all attempts.
    pub fresh: bool,
}

impl Terms<'static> {
    /// Those of a destination without a policy: nothing is limited but the time to connect.
    pub const fn unlimited(connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            limits: &ConnectionLimits::NONE,
            pool: &ConnectionPool::UNLIMITED,
            circuit: None,
            fresh: false,
        }
    }
}

impl Terms<'_> {
    /// The longest that a connection is used.
    pub(super) fn max_age(&self) -> Duration {
        self.limits.max_duration.unwrap_or(tls::MAX_AGE)
    }

    /// Whether connections are counted, or requests on one: such limits are meant for HTTP/1.1, where a
    /// connection carries one request at a time.
    pub(super) fn limits_connections(&self) -> bool {
        self.limits.max_connections.is_some() || self.pool.max_requests_per_connection.is_some()
    }

    /// Counts one more request that waits for a connection.
    ///
    /// # Errors
    /// [`Reason::Overflow`]: there are too many.
    pub(super) fn pending(&self, target: &Target) -> Result<Option<Held>, Failure> {
        let Some(circuit) = self.circuit else { return Ok(None) };
        circuit.enter(Limit::Pending).map(Some).ok_or_else(|| {
            let what = format!(
                "no connection to {} is free, and as many requests wait for one as {} allows",
                target.dial,
                Limit::Pending.word()
            );
            Failure::new(Reason::Overflow, what)
        })
    }

    /// Counts one more connection. The `first` of a worker to a target is always allowed. `None`: there is no room.
    pub(super) fn connection(&self, first: bool) -> Option<Option<Held>> {
        let Some(circuit) = self.circuit else { return Some(None) };
        if first {
            return Some(Some(circuit.enter_anyway(Limit::Connections)));
        }
        circuit.enter(Limit::Connections).map(Some)
    }
}
