//! Whether the peer of an open mesh connection is still one that the mesh believes.
//!
//! What a certificate proved in the handshake stays proven: what is in progress goes on when a certificate ends or is
//! renewed, the peer's or our own. It ends when the peer is revoked or no longer believed. Every mesh connection checks
//! this here, in both directions, whatever it carries. What policy says of a client that comes in is decided in
//! `authorize`.
//!
//! `revoked` alone says whether a mesh peer is allowed at all. Connections of both directions ask it when they begin,
//! and all open ones ask it whenever the list changes. The connections of a revoked peer are closed at once, whatever
//! is in progress on them.
//!
//! Servers outside the mesh are believed as configuration says: see `outside`.

pub mod outside;

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use selvedge_certs::{
    tls::{self, Current, Live, Shown},
    verify::{Peer, Role},
};
use selvedge_model::{Holder, Revocation};
use tokio_rustls::rustls::CommonState;

use crate::error::{Failure, Reason};

/// How long requests in progress may still take when the root by which their peer was believed is withdrawn. When a
/// root is replaced, peers have certificates below the new one by then, and only older connections are affected.
pub const LAST_REQUESTS: Duration = Duration::from_secs(1);

/// What is known about the peer of a mesh connection.
#[derive(Debug)]
pub struct Standing {
    /// Who it has proven to be, and how.
    pub peer: Peer,
    /// When it did.
    pub since: Instant,
    /// What it is to us.
    part: Part,
    shown: Shown,
    made_with: Arc<Current>,
    live: Live,
}

impl Standing {
    /// Of the `peer` of `connection`, which plays `role` and was believed `now` by the roots of `current`.
    pub fn new(
        connection: &CommonState,
        role: Role,
        peer: Peer,
        current: Arc<Current>,
        live: &Live,
        now: SystemTime,
    ) -> Arc<Self> {
        let shown = tls::shown(connection, role, now);
        let part = match role {
            Role::Client => Part::Client,
            Role::Server => Part::Server,
        };
        Arc::new(Self { peer, since: Instant::now(), part, shown, made_with: current, live: live.clone() })
    }

    /// Whether new requests must use another connection, because a root was withdrawn that this one may depend on.
    pub fn is_retired(&self) -> bool {
        self.made_with.is_retired()
    }

    /// Completes when new requests must use another connection.
    pub async fn retired(&self) {
        let mut changed = self.live.subscribe();
        while !self.is_retired() {
            if changed.changed().await.is_err() {
                pending::<()>().await;
            }
        }
    }

    /// Why nothing may go to the peer or come from it any more: it is revoked, or not believed; `None`: it may.
    pub fn refusal(&self) -> Option<Failure> {
        if let Some(failure) = revoked(&self.live, self.peer.holder(), self.part) {
            return Some(failure);
        }
        if !self.is_retired() {
            return None;
        }
        let error = self.live.current()?.vouches_for(&self.shown).err()?;
        Some(Failure::new(
            Reason::Certificate,
            format!("the root that its certificate was verified by has been withdrawn: {error}"),
        ))
    }

    /// Completes when nothing may go to the peer or come from it any more, and says why.
    pub async fn lost(&self) -> Failure {
        let not_believed = async {
            let mut changed = self.live.subscribe();
            loop {
                if let Some(failure) = self.refusal() {
                    return failure;
                }
                if changed.changed().await.is_err() {
                    pending::<()>().await;
                }
            }
        };
        tokio::select! {
            failure = no_longer_allowed(&self.live, &self.peer, self.part) => failure,
            failure = not_believed => failure,
        }
    }
}

/// The same for a connection that may not be the mesh's: then never.
pub async fn lost(standing: Option<&Standing>) -> Failure {
    match standing {
        Some(standing) => standing.lost().await,
        None => pending().await,
    }
}

/// Why nothing may go to or come from this mesh peer, which is our client or our server; `None`: it may.
pub(crate) fn revoked(live: &Live, holder: Holder<'_>, part: Part) -> Option<Failure> {
    live.revocation(holder).map(|found| refused(part, &found))
}

/// Completes when nothing may go to or come from this mesh peer any longer.
pub(crate) async fn no_longer_allowed(live: &Live, peer: &Peer, part: Part) -> Failure {
    refused(part, &live.revoked(peer).await)
}

/// What a mesh peer is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// It connected to us.
    Client,
    /// We connected to it.
    Server,
}

fn refused(part: Part, found: &Revocation) -> Failure {
    let reason = match part {
        Part::Client => Reason::Policy,
        // Another endpoint of the same service may be who it should be.
        Part::Server => Reason::Identity,
    };
    Failure::new(reason, found.to_string())
}
