//! Connections of opaque TCP: one session at a time, idle ones of the mesh kept in a stack.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use selvedge_api::wire;

use super::{Pool, http1::IDLE_MESH, open, settings::PoolSettings, terms::Opening, tls::Lifetime};
use crate::{
    bind::Target,
    error::Failure,
    io::{Framed, Liveness, Stream},
    telemetry::OpenConnection,
};

/// After this time without use, the peer may have gone silently.
const DOUBTFUL: Duration = Duration::from_secs(1);

/// The most connections of a worker to one target that wait for another session. More were only needed for a burst.
const MOST_IDLE: usize = 64;

/// A connection that carries a session of opaque TCP.
#[derive(Debug)]
pub struct Tunnel {
    /// The session's bytes.
    pub(crate) stream: Framed<Stream>,
    /// The connection's place in the pool, for the caller that opened it.
    pub(crate) hold: Hold,
    /// How the connection is watched again once its peer has answered.
    pub(crate) doubted: Option<Liveness>,
    /// What the server has said already.
    pub(crate) said: BytesMut,
}

/// A connection's place, while its bytes are elsewhere. Dropped: the connection counts as closed.
#[derive(Debug)]
pub struct Hold {
    /// Until when the connection may be used.
    pub(crate) lifetime: Lifetime,
    pool: Weak<Pool>,
    _open: Option<OpenConnection>,
}

/// A worker's idle connections to one target, the one used last on top.
#[derive(Debug, Default)]
pub(super) struct Connections(RefCell<Vec<Kept>>);

#[derive(Debug)]
struct Kept {
    tunnel: Tunnel,
    idle_since: Instant,
}

impl Kept {
    fn is_usable(&mut self, now: Instant) -> bool {
        now.duration_since(self.idle_since) < IDLE_MESH
            && self.tunnel.hold.lifetime.lasts(now)
            && self.tunnel.hold.lifetime.is_allowed()
            && self.tunnel.stream.is_awaited()
    }
}

impl Hold {
    /// Keeps the connection for another session, now that `stream` has carried one to its end. Otherwise it is
    /// closed.
    pub(crate) fn give_back(self, stream: Framed<Stream>, now: Instant) {
        if let Some(pool) = self.pool.upgrade()
            && stream.is_free()
        {
            let mut idle = pool.tunnels.0.borrow_mut();
            if idle.len() < MOST_IDLE {
                idle.push(Kept {
                    tunnel: Tunnel { stream, hold: self, doubted: None, said: BytesMut::new() },
                    idle_since: now,
                });
            }
        }
    }
}

impl Connections {
    pub(super) fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain_mut(|kept| kept.is_usable(now));
    }

    /// A connection that its sidecar still waits on, with a session begun.
    pub(super) fn take(&self, now: Instant, liveness: Liveness) -> Option<Tunnel> {
        loop {
            let mut kept = self.0.borrow_mut().pop()?;
            if kept.is_usable(now) {
                let Kept { mut tunnel, idle_since } = kept;
                tunnel.stream.begin();
                if now.duration_since(idle_since) >= DOUBTFUL {
                    liveness.doubt(tunnel.stream.get_ref().tcp());
                    tunnel.doubted = Some(liveness);
                }
                return Some(tunnel);
            }
        }
    }
}

/// Opens one to `target`; afterwards it is kept in `pool`, if there is one.
pub(super) async fn open(
    pool: Option<&Rc<Pool>>,
    target: &Target,
    settings: &PoolSettings,
    opening: Opening,
) -> Result<Tunnel, Failure> {
    let (carrier, app) = (wire::Carrier::Tcp, wire::AppProtocol::Unspecified);
    let mut opened = open::open(target, settings, carrier, app, opening).await?;
    opened.stream.read_ahead();
    let stream = match pool {
        Some(_) => Framed::new(opened.stream),
        None => Framed::raw(opened.stream),
    };
    let hold = Hold {
        lifetime: opened.lifetime,
        pool: pool.map(Rc::downgrade).unwrap_or_default(),
        _open: open::counted(target, settings),
    };
    Ok(Tunnel { stream, hold, doubted: None, said: BytesMut::new() })
}
