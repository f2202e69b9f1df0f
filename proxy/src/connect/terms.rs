//! How requests to one backend are sent, and over what connections.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_model::{ConnectionLimits, ConnectionPool, Protocol, TcpKeepalive, TrafficPolicy};

use super::tls;
use crate::{
    balance::{Circuit, Counts, Held, Limit},
    bind::Target,
    body::Body,
    error::{Failure, Reason},
    fields::is_grpc,
    step::{Conn, HttpVersion},
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
    /// What is in progress, with limits or without; `None`: nobody ever asks.
    pub counts: Option<&'a Arc<Counts>>,
    /// What the app is spoken to in; `None`: as its client speaks.
    pub spoken: Option<Protocol>,
    /// Whether the request is sent again because its connection broke. It is then sent to the app on a new connection,
    /// because other pooled ones may be dead as well. Otherwise a server that closes many connections at once could use
    /// up all attempts.
    pub fresh: bool,
}

/// How a connection is opened, whatever it is to carry.
#[derive(Debug, Clone, Copy)]
pub struct Opening {
    /// Time for TCP and TLS together.
    pub connect_timeout: Duration,
    /// The longest that it is used.
    pub max_age: Duration,
    /// How the kernel asks whether the other end is still there; `None`: as our settings say.
    pub keepalive: Option<TcpKeepalive>,
    /// Whose connection it is, should its target be told by the PROXY protocol.
    pub named: Option<Named>,
}

/// Whose connection one is, as the PROXY protocol says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    /// Who connected to us.
    pub client: SocketAddr,
    /// Where it was connecting to.
    pub called: SocketAddr,
}

impl Opening {
    /// For an opaque connection, by this `policy`. A session ends by itself, not by its connection's age.
    pub fn opaque(policy: &TrafficPolicy, named: Named) -> Self {
        let (connect_timeout, keepalive) = (policy.connect_timeout, policy.connections.keepalive);
        Self { connect_timeout, max_age: tls::MAX_AGE, keepalive, named: Some(named) }
    }
}

impl Terms<'static> {
    /// Those of a destination without a policy: nothing is limited but the time to connect.
    pub const fn unlimited(connect_timeout: Duration) -> Self {
        Self {
            connect_timeout,
            limits: &ConnectionLimits::NONE,
            pool: &ConnectionPool::UNLIMITED,
            circuit: None,
            counts: None,
            spoken: None,
            fresh: false,
        }
    }
}

impl Terms<'_> {
    /// The version of HTTP in which the app gets `request`, which came on `conn`.
    pub(super) fn version(&self, conn: &Conn, request: &http::Request<Body>) -> HttpVersion {
        match self.spoken {
            None => conn.version,
            Some(Protocol::Http2) => HttpVersion::Http2,
            Some(_) if conn.version == HttpVersion::Http2 && is_grpc(request.headers()) => HttpVersion::Http2,
            Some(_) => HttpVersion::Http1,
        }
    }

    /// How a connection for requests is opened, which is one of the client that is `named`, if any is.
    pub(super) fn opening(&self, named: Option<Named>) -> Opening {
        Opening {
            connect_timeout: self.connect_timeout,
            max_age: self.limits.max_duration.unwrap_or(tls::MAX_AGE),
            keepalive: self.limits.keepalive,
            named,
        }
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
        let Some(circuit) = self.circuit else {
            return Ok(self.counts.map(|counts| counts.enter(Limit::Pending)));
        };
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
        match (self.circuit, self.counts) {
            (Some(circuit), _) if first => Some(Some(circuit.enter_anyway(Limit::Connections))),
            (Some(circuit), _) => circuit.enter(Limit::Connections).map(Some),
            (None, counts) => Some(counts.map(|counts| counts.enter(Limit::Connections))),
        }
    }

    /// Whether a connection that was `opened` then and has taken so many requests may take one more.
    pub(super) fn keep(&self, opened: Instant, taken: u32, now: Instant) -> bool {
        self.pool.max_requests_per_connection.is_none_or(|most| taken < most)
            && self.limits.max_duration.is_none_or(|longest| now.duration_since(opened) < longest)
    }
}
