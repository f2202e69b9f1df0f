//! HTTP/1.1 connections: one request at a time, idle ones kept in a stack.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use http::StatusCode;
use hyper::{
    body::Incoming,
    client::conn::http1::{Builder, SendRequest},
};
use hyper_util::rt::TokioIo;
use selvedge_api::wire;

use super::{
    Failure, FreshConnection, Pool, Reason, SendError, Settings, answer, failed, rewrite, tls::Lifetime,
};
use crate::{bind::Target, body::Body, upgrade::WebSocket};

/// How long an idle connection to an app or an endpoint without a sidecar is kept. Shorter than the
/// keep-alive of common servers (Node.js closes after 5 s), so that it is this side that lets go.
const IDLE_PLAIN: Duration = Duration::from_secs(4);

/// How long an idle connection between sidecars is kept.
const IDLE_MESH: Duration = Duration::from_secs(60);

/// How often a connection that is coming back is looked at again before it is given up.
const READY_LOOKS: usize = 4;

/// Idle connections to one target, the one used last on top.
#[derive(Debug, Default)]
pub(super) struct Idle(RefCell<Vec<Connection>>);

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Body>,
    lifetime: Option<Lifetime>,
    idle_since: Instant,
}

/// A connection that an answer is arriving on. Dropped: closed.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    pool: Weak<Pool>,
}

impl Lease {
    /// Puts the connection back at `now`, to be used for another request.
    pub fn give_back(mut self, now: Instant) {
        if let Some(pool) = self.pool.upgrade()
            && !self.connection.sender.is_closed()
        {
            self.connection.idle_since = now;
            pool.http1.0.borrow_mut().push(self.connection);
        }
    }
}

impl Connection {
    fn usable(&self, now: Instant, idle: Duration) -> bool {
        !self.sender.is_closed()
            && now.duration_since(self.idle_since) < idle
            && self.lifetime.as_ref().is_none_or(|lifetime| lifetime.lasts(now))
    }

    /// Whether it can take a request, after giving its task a few chances to finish with the last one.
    async fn ready(&mut self) -> bool {
        for _ in 0..READY_LOOKS {
            if self.sender.is_ready() {
                return true;
            }
            if self.sender.is_closed() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        self.sender.is_ready()
    }
}

impl Idle {
    pub(super) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|connection| connection.usable(now, IDLE_MESH));
    }

    async fn take(&self, idle: Duration) -> Option<Connection> {
        let now = Instant::now();
        loop {
            let mut connection = self.0.borrow_mut().pop()?;
            if connection.usable(now, idle) && connection.ready().await {
                return Some(connection);
            }
        }
    }
}

/// Sends one request. A pooled connection that turns out to have died is replaced, as long as hyper hands
/// the request back unsent: that is never the caller's concern.
pub(super) async fn send(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &Settings,
    mut request: Box<http::Request<Body>>,
    limit: Duration,
) -> Result<Box<http::Response<Body>>, SendError> {
    rewrite::for_http1(&mut request)?;
    let asked = WebSocket::is_asked_by(&request);
    let fresh = target.identity.is_none() && FreshConnection::is_needed_by(&request);
    let idle = if target.identity.is_some() { IDLE_MESH } else { IDLE_PLAIN };
    loop {
        let kept = if fresh { None } else { pool.http1.take(idle).await };
        let (mut connection, reused) = match kept {
            Some(connection) => (connection, true),
            // Boxed: a handshake is seldom, and its future is much larger than a request's.
            None => match Box::pin(open(target, settings, limit)).await {
                Ok(connection) => (connection, false),
                Err(failure) => return Err(SendError { failure, request: Some(request) }),
            },
        };
        match connection.sender.try_send_request(*request).await {
            Ok(response) => return received(pool, target, connection, response, asked),
            Err(mut error) => {
                let failure = failed(target, error.error());
                match error.take_message() {
                    Some(unsent) if reused => request = Box::new(unsent),
                    Some(unsent) => {
                        return Err(SendError {
                            failure: failure.never_delivered(),
                            request: Some(Box::new(unsent)),
                        });
                    }
                    None => return Err(failure.into()),
                }
            }
        }
    }
}

/// An answer; its connection comes back when it has been read, if it is HTTP still.
fn received(
    pool: &Rc<Pool>,
    target: &Target,
    connection: Connection,
    response: http::Response<Incoming>,
    asked: bool,
) -> Result<Box<http::Response<Body>>, SendError> {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switched && !(asked && WebSocket::is_named_in(response.headers())) {
        let what = format!("{} switched to a protocol that the request did not ask for", target.dial);
        return Err(Failure::new(Reason::Protocol, what).into());
    }
    let mut response = answer(response);
    if switched {
        WebSocket::announce(response.headers_mut());
    } else {
        response.body_mut().end().lease = Some(Lease { connection, pool: Rc::downgrade(pool) });
    }
    Ok(response)
}

async fn open(target: &Target, settings: &Settings, limit: Duration) -> Result<Connection, Failure> {
    let opened = super::open(target, settings, wire::Carrier::Http1, wire::AppProtocol::Http1, limit).await?;
    let dial = target.dial;
    let (sender, connection) = Builder::new()
        .handshake(TokioIo::new(opened.stream))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/1.1 with {dial}: {error}")))?;
    let open = super::opened(target, settings);
    tokio::task::spawn_local(async move {
        let _open = open;
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%dial, %error, "HTTP/1.1 connection ended");
        }
    });
    Ok(Connection { sender, lifetime: opened.lifetime, idle_since: Instant::now() })
}
