//! The control plane's own certificate: made by its own authority, renewed in good time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use selvedge_certs::{
    CertificateDer, ServerName,
    bundle::Bundle,
    ca::{Authority, SignError},
    control_plane_identity,
    facts::fingerprint,
    renewal,
    tls::{ClientCa, Credentials, CredentialsError, NotAllowed, TicketSecret, grpc_server, https_server},
    verify::{self, Peer, PeerError},
};
use selvedge_model::TrustDomain;
use tokio_rustls::{rustls::ServerConfig, server::TlsStream};

use super::audit::{Audit, AuditError, ProofKind};
use crate::status::{self, Life, OwnCertificates};

/// Why the control plane has no certificate for itself.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The authority does not sign.
    #[error("cannot make the control plane's own certificate: {0}")]
    Sign(#[from] SignError),
    /// It cannot be written down.
    #[error("cannot make the control plane's own certificate: {0}")]
    Audit(#[from] AuditError),
    /// What it signed cannot be used.
    #[error("cannot use the control plane's own certificate: {0}")]
    Credentials(#[from] CredentialsError),
}

/// Who calls.
#[derive(Debug)]
pub(crate) enum Caller {
    /// It has proven nothing.
    Stranger,
    /// A client outside the mesh that may call.
    Client,
    /// A workload, and the SHA-256 of the root that its certificate leads to.
    Workload(Peer, Option<Arc<str>>),
}

/// A certificate was shown, and not of anybody who is trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownClient {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error(transparent)]
    Name(#[from] NotAllowed),
}

/// What the control plane's own certificates are made with.
#[derive(Debug, Clone)]
pub struct OwnIssuing {
    /// Who signs them.
    pub authority: Arc<Authority>,
    /// How long each lasts.
    pub ttl: Duration,
    /// What workloads resume their sessions by.
    pub tickets: TicketSecret,
    /// Where each is written down.
    pub audit: Arc<Audit>,
    /// Where people see how long it lasts.
    pub shown: Arc<OwnCertificates>,
}

/// The certificate in use, swapped live: each new connection takes the newest.
#[derive(Debug)]
pub struct OwnCertificate {
    issuing: OwnIssuing,
    purpose: Purpose,
    tls: ArcSwap<ServerConfig>,
    roots: RootsOfChains,
}

/// What a certificate is shown for.
#[derive(Debug)]
enum Purpose {
    /// The gRPC port, where proxies expect our identity.
    Grpc,
    /// A port that others call by one of these names.
    Https(Vec<ServerName<'static>>, Option<ClientCa>),
}

impl Purpose {
    fn shown(&self) -> status::Purpose {
        match self {
            Self::Grpc => status::Purpose::Grpc,
            Self::Https(..) => status::Purpose::Webhook,
        }
    }
}

impl OwnCertificate {
    /// Makes the first certificate. The future renews it, and never ends.
    ///
    /// # Errors
    /// If the authority does not sign it, or it cannot be written down.
    pub fn make(issuing: OwnIssuing) -> Result<(Arc<Self>, impl Future<Output = ()>), OwnError> {
        Self::with(issuing, Purpose::Grpc)
    }

    /// The same, for clients outside the mesh that call us by one of `names`, over HTTPS; only for `clients`, if they
    /// are given.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn for_names(
        issuing: OwnIssuing,
        names: Vec<ServerName<'static>>,
        clients: Option<ClientCa>,
    ) -> Result<(Arc<Self>, impl Future<Output = ()>), OwnError> {
        Self::with(issuing, Purpose::Https(names, clients))
    }

    fn with(
        issuing: OwnIssuing,
        purpose: Purpose,
    ) -> Result<(Arc<Self>, impl Future<Output = ()>), OwnError> {
        let (tls, life) = issue(&issuing, &purpose)?;
        issuing.shown.use_now(purpose.shown(), life);
        let own =
            Arc::new(Self { issuing, purpose, tls: ArcSwap::new(tls), roots: RootsOfChains::default() });
        let renewing = Arc::clone(&own);
        Ok((own, async move { renewing.renew(life).await }))
    }

    /// What the next connection is accepted with.
    pub fn tls(&self) -> Arc<ServerConfig> {
        self.tls.load_full()
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// If its certificate is not one that is trusted.
    pub(crate) fn caller<S>(&self, stream: &TlsStream<S>) -> Result<Caller, UnknownClient> {
        let chain = stream.get_ref().1.peer_certificates();
        match (&self.purpose, chain) {
            (Purpose::Https(_, None), _) | (Purpose::Grpc, None) => Ok(Caller::Stranger),
            (Purpose::Https(_, Some(clients)), chain) => {
                clients.check(chain.unwrap_or_default())?;
                Ok(Caller::Client)
            }
            (Purpose::Grpc, Some(chain)) => {
                let peer = verify::established(chain, self.trust_domain(), SystemTime::now())?;
                Ok(Caller::Workload(peer, self.roots.of(chain, self.issuing.authority.bundle())))
            }
        }
    }

    /// The trust domain whose workloads are trusted.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.issuing.authority.trust_domain()
    }

    async fn renew(&self, mut life: Life) {
        let mut changes = self.issuing.authority.changes();
        loop {
            tokio::select! {
                () = sleep_by_clock(renewal::renew_at(life.not_before, life.not_after, fastrand::f64()), SystemTime::now) => {}
                // Of what signs, or of who is trusted.
                Ok(()) = changes.changed() => {}
            }
            let mut attempt = 0;
            life = loop {
                match issue(&self.issuing, &self.purpose) {
                    Ok((tls, life)) => {
                        self.tls.store(tls);
                        self.issuing.shown.use_now(self.purpose.shown(), life);
                        tracing::info!("the control plane's own certificate is renewed");
                        break life;
                    }
                    Err(error) => {
                        tracing::error!(%error, "the control plane's own certificate is not renewed");
                        let left = life.not_after.duration_since(SystemTime::now()).unwrap_or_default();
                        tokio::time::sleep(renewal::retry_delay(attempt, left, fastrand::f64())).await;
                        attempt = attempt.saturating_add(1);
                    }
                }
            };
        }
    }
}

/// The roots that chains lead to. To find one out takes as long as a part of a handshake, and nearly all chains end with the same
/// certificate: that of our issuer.
#[derive(Debug, Default)]
struct RootsOfChains(Mutex<KnownRoots>);

#[derive(Debug, Default)]
struct KnownRoots {
    bundle: Option<Bundle>,
    /// By the last certificate of a chain, the SHA-256 of its root.
    by_end: Vec<(CertificateDer<'static>, Arc<str>)>,
}

/// There are two issuers at once while one takes over from another, and as many roots.
const MOST_ENDS: usize = 4;

impl RootsOfChains {
    /// The SHA-256 of the root of `bundle` that `chain` leads to; all chains that end alike share the text.
    fn of(&self, chain: &[CertificateDer<'_>], bundle: Bundle) -> Option<Arc<str>> {
        let end = chain.last()?;
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = {
            let known = lock();
            let is_of_bundle = known.bundle.as_ref() == Some(&bundle);
            known
                .by_end
                .iter()
                .find(|(known, _)| is_of_bundle && known == end)
                .map(|(_, root)| Arc::clone(root))
        };
        if found.is_some() {
            return found;
        }
        let root: Arc<str> = fingerprint(bundle.root_of(chain)?).to_string().into();
        let mut known = lock();
        if known.by_end.len() >= MOST_ENDS || known.bundle.as_ref() != Some(&bundle) {
            *known = KnownRoots { bundle: Some(bundle), by_end: Vec::new() };
        }
        known.by_end.push((end.clone().into_owned(), Arc::clone(&root)));
        Some(root)
    }
}

fn issue(issuing: &OwnIssuing, purpose: &Purpose) -> Result<(Arc<ServerConfig>, Life), OwnError> {
    let authority = &issuing.authority;
    let identity = control_plane_identity(authority.trust_domain());
    let names: &[ServerName<'_>] = if let Purpose::Https(names, _) = purpose { names } else { &[] };
    let now = SystemTime::now();
    let mut leaf = authority.issue(&identity, names, issuing.ttl, now)?;
    issuing.audit.record(&leaf.chain[0], ProofKind::Own, now)?;
    let life = Life { not_before: leaf.not_before, not_after: leaf.not_after };
    // While a root takes over from another, for who knows only the old one.
    leaf.chain.extend(authority.cross());
    let own = Credentials { leaf, bundle: authority.bundle() };
    let tls = match purpose {
        Purpose::Grpc => grpc_server(&own, Some(&issuing.tickets))?,
        Purpose::Https(_, clients) => https_server(&own, clients.as_ref())?,
    };
    Ok((tls, life))
}

/// By the wall clock `now`, looked at again every minute: it may be set, and a host may sleep.
pub(super) async fn sleep_by_clock(at: SystemTime, now: impl Fn() -> SystemTime) {
    const LOOK: Duration = Duration::from_secs(60);
    while let Ok(left) = at.duration_since(now())
        && !left.is_zero()
    {
        tokio::time::sleep(left.min(LOOK)).await;
    }
}

#[cfg(test)]
mod tests {
    use selvedge_certs::tls::GRPC_RECORD;
    use selvedge_ops::memory;

    use super::*;
    use crate::testing::{self, identity};

    #[test]
    fn a_record_takes_no_pages_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let authority = testing::authority(directory.path());
        let identity = control_plane_identity(authority.trust_domain());
        let leaf = authority.issue(&identity, &[], Duration::from_secs(60), SystemTime::now()).unwrap();
        let own = Credentials { leaf, bundle: authority.bundle() };

        let config = grpc_server(&own, None).unwrap();

        assert_eq!(config.max_fragment_size, Some(GRPC_RECORD));
        // With what encryption adds.
        assert!(i32::try_from(GRPC_RECORD).unwrap() + 64 < memory::OWN_PAGES);
    }

    #[test]
    fn chains_that_end_alike_share_their_root_until_roots_change() {
        let directory = tempfile::tempdir().unwrap();
        let authority = testing::authority(directory.path());
        let now = SystemTime::now();
        let chain = |account: &str| {
            authority.issue(&identity("shop", account), &[], Duration::from_secs(60), now).unwrap().chain
        };
        let root: String = fingerprint(&authority.bundle().roots[0]).to_string();
        let roots = RootsOfChains::default();

        let one = roots.of(&chain("frontend"), authority.bundle()).unwrap();
        let other = roots.of(&chain("reviews"), authority.bundle()).unwrap();

        assert_eq!(*one, *root);
        assert!(Arc::ptr_eq(&one, &other), "it was found once");
        assert_eq!(roots.of(&chain("frontend"), testing::bundle()), None, "another authority's");
        assert_eq!(roots.of(&[], authority.bundle()), None);
        assert_eq!(roots.of(&chain("frontend"), authority.bundle()), Some(one));
    }
}
