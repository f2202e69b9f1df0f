//! A workload's TLS configurations, replaced while connections go on.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use rustls::{ClientConfig, ServerConfig, client::Resumption, crypto::aws_lc_rs::Ticketer};
use selvedge_model::{Holder, Revocation, Revocations, SpiffeId, TrustDomain};
use tokio::sync::watch;

use super::{
    ALPN_MESH, REMEMBERED_SERVERS, Shown, client_config, provider, server_config, verifier::Workloads,
};
use crate::{
    bundle::Bundle,
    facts::Utc,
    leaf::{Leaf, LeafError},
    verify::{Anchors, BundleError, Peer, PeerError},
};

/// What a workload holds: who it is, and whom it trusts.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Its own certificate and key.
    pub leaf: Leaf,
    /// The roots that its peers' certificates must lead to.
    pub bundle: Bundle,
}

impl Credentials {
    /// A leaf of one trust domain and the roots of another would accept nobody who accepts us.
    pub(super) fn check(&self) -> Result<(), CredentialsError> {
        if self.leaf.identity.trust_domain() == self.bundle.trust_domain.as_str() {
            return Ok(());
        }
        let (identity, trust_domain) = (self.leaf.identity.clone(), self.bundle.trust_domain.clone());
        Err(CredentialsError::OtherTrustDomain { identity, trust_domain })
    }
}

/// Why a leaf and a bundle cannot be used together.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The bundle has no usable root.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The leaf has no usable key.
    #[error(transparent)]
    Leaf(#[from] LeafError),
    /// The two come from different meshes.
    #[error("the certificate is for {identity}, but the roots are of trust domain {trust_domain}")]
    OtherTrustDomain {
        /// Whose certificate it is.
        identity: SpiffeId,
        /// Whose roots they are.
        trust_domain: TrustDomain,
    },
    /// The system has no random numbers to give.
    #[error("cannot make a key for session tickets: {0}")]
    Tickets(#[source] rustls::Error),
}

/// Our own certificate cannot be used now. Connections are refused rather than made without proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Renewal did not succeed in time.
    #[error(
        "our own certificate for {identity} expired at {}; it was not renewed in time, and this proxy's log says why",
        Utc(*not_after)
    )]
    Expired {
        /// Who we are.
        identity: SpiffeId,
        /// When it expired.
        not_after: SystemTime,
    },
    /// Our clock is late.
    #[error("our own certificate for {identity} is valid only from {}; check this machine's clock", Utc(*not_before))]
    NotYetValid {
        /// Who we are.
        identity: SpiffeId,
        /// From when on it is valid.
        not_before: SystemTime,
    },
    /// Whoever issued it has taken it back.
    #[error("our own certificate for {identity} was taken back; this proxy's log says by whom")]
    Withdrawn {
        /// Who we were.
        identity: SpiffeId,
    },
}

/// The TLS configurations of one leaf and one bundle, with session stores of their own.
pub struct Current {
    /// Counts the changes, from 1.
    pub generation: u64,
    /// Who we are.
    pub identity: SpiffeId,
    /// The first moment at which our certificate is valid.
    pub not_before: SystemTime,
    /// The last moment at which our certificate is valid.
    pub not_after: SystemTime,
    /// Whom we trust.
    pub bundle: Bundle,
    /// For connections that we make; the caller compares the peer's identity with the expected one.
    pub client: Arc<ClientConfig>,
    /// For connections that we accept; the client must show a certificate.
    pub server: Arc<ServerConfig>,
    /// The same, ready to verify with.
    anchors: Anchors,
    /// Shared by all generations since a root was last withdrawn.
    retired: Arc<AtomicBool>,
    withdrawn: AtomicBool,
}

impl Current {
    /// Whether our certificate is valid `now`; if not, nothing may be connected or accepted with it.
    ///
    /// # Errors
    /// If it has expired, is not valid yet, or was taken back.
    pub fn usable(&self, now: SystemTime) -> Result<(), Unusable> {
        let identity = || self.identity.clone();
        if now > self.not_after {
            return Err(Unusable::Expired { identity: identity(), not_after: self.not_after });
        }
        if self.withdrawn.load(Ordering::Relaxed) {
            return Err(Unusable::Withdrawn { identity: identity() });
        }
        if now < self.not_before {
            return Err(Unusable::NotYetValid { identity: identity(), not_before: self.not_before });
        }
        Ok(())
    }

    /// Whether a root of this bundle has been withdrawn since. Connections that were verified with it
    /// must drain; one relaxed load, so it may be asked often.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    /// Whether a peer that was trusted when its connection began would have been trusted by these roots, too.
    ///
    /// # Errors
    /// If its certificates do not lead to one of them. Their dates are those of the handshake: what was proven
    /// then stays proven when a certificate is renewed.
    pub fn vouches_for(&self, shown: &Shown) -> Result<(), PeerError> {
        self.anchors.peer(&shown.chain, shown.at, shown.role).map(drop)
    }

    /// Our trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.bundle.trust_domain
    }

    fn new(own: Credentials, generation: u64, retired: Arc<AtomicBool>) -> Result<Self, CredentialsError> {
        own.check()?;
        let key = own.leaf.certified_key()?;
        let anchors = Anchors::among_workloads(&own.bundle)?;
        let verifier = Arc::new(Workloads::any(anchors.clone()));
        let mut client = client_config(Arc::clone(&verifier) as _, Some(key.clone()), ALPN_MESH);
        client.resumption = Resumption::in_memory_sessions(REMEMBERED_SERVERS);
        let mut server = server_config(verifier, key, ALPN_MESH, provider());
        // The key of the tickets is as new as the store is empty: no older session can be resumed.
        server.ticketer = Ticketer::new().map_err(CredentialsError::Tickets)?;
        server.send_tls13_tickets = 2;
        Ok(Self {
            generation,
            identity: own.leaf.identity,
            not_before: own.leaf.not_before,
            not_after: own.leaf.not_after,
            bundle: own.bundle,
            anchors,
            client: Arc::new(client),
            server: Arc::new(server),
            retired,
            withdrawn: AtomicBool::new(false),
        })
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Current")
            .field("generation", &self.generation)
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .field("bundle", &self.bundle)
            .field("retired", &self.is_retired())
            .finish_non_exhaustive()
    }
}

/// A workload's TLS configurations as they are now, and who is refused all the same. Cheap to clone; all clones see a
/// change at once.
#[derive(Debug, Clone, Default)]
pub struct Live {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    current: ArcSwapOption<Current>,
    /// The generation in use; 0 before the first.
    generation: watch::Sender<u64>,
    /// Held while a change is made; readers never take it.
    changing: Mutex<()>,
    /// Who is refused although its certificate is still valid.
    revocations: watch::Sender<Arc<Revocations>>,
}

impl Live {
    /// No certificate yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a leaf and a bundle into use for every connection made from now on.
    ///
    /// # Errors
    /// If they cannot be used; then those in use stay.
    pub fn set(&self, own: Credentials) -> Result<Arc<Current>, CredentialsError> {
        let _changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = self.current();
        let kept = previous.as_ref().filter(|previous| previous.bundle.is_kept_by(&own.bundle));
        let retired = kept.map_or_else(Arc::default, |previous| Arc::clone(&previous.retired));
        let generation = previous.as_ref().map_or(1, |previous| previous.generation + 1);
        let current = Arc::new(Current::new(own, generation, Arc::clone(&retired))?);
        self.shared.current.store(Some(Arc::clone(&current)));
        if let Some(previous) = previous.filter(|previous| !Arc::ptr_eq(&previous.retired, &retired)) {
            previous.retired.store(true, Ordering::Relaxed);
        }
        self.shared.generation.send_replace(generation);
        Ok(current)
    }

    /// Makes no further connection with the leaf in use, until there is another. Open connections go on.
    pub fn withdraw(&self) {
        let _changing = self.shared.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = self.current() {
            current.withdrawn.store(true, Ordering::Relaxed);
        }
    }

    /// The configurations in use, if there is a certificate yet.
    pub fn current(&self) -> Option<Arc<Current>> {
        self.shared.current.load_full()
    }

    /// Refuses from now on whoever is on this list, and nobody else who has a valid certificate.
    pub fn revoke(&self, revocations: &Arc<Revocations>) {
        self.shared.revocations.send_if_modified(|current| {
            let is_new = !Arc::ptr_eq(current, revocations) && current != revocations;
            *current = Arc::clone(revocations);
            is_new
        });
    }

    /// What revokes `holder`, if anything does.
    pub fn revocation(&self, holder: Holder<'_>) -> Option<Revocation> {
        let revocations = self.shared.revocations.borrow();
        if revocations.is_empty() {
            return None;
        }
        revocations.find(holder, SystemTime::now()).cloned()
    }

    /// Completes when `peer` is revoked, and says by what.
    pub async fn revoked(&self, peer: &Peer) -> Revocation {
        let mut changes = self.shared.revocations.subscribe();
        loop {
            // Seen before it is looked at: a change in between is found again.
            changes.borrow_and_update();
            if let Some(found) = self.revocation(peer.holder()) {
                return found;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Wakes whenever the list of who is refused has changed.
    pub fn revocations(&self) -> watch::Receiver<Arc<Revocations>> {
        self.shared.revocations.subscribe()
    }

    /// Tells of every change by its generation; 0 stands for no certificate yet.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.generation.subscribe()
    }
}
