//! Our own certificate: obtained with the join token, renewed with itself, put into use without a pause.
//!
//! Runs beside traffic, and does not delay it. A renewal that fails is tried again while the certificate lives. When
//! the certificate has expired, only the join token is a proof, if it is still valid.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::ClientConfig;
use selvedge_api::wire::{self, certificates_client::CertificatesClient};
use selvedge_certs::{
    bundle::Bundle,
    csr::KeyAndCsr,
    facts::{Utc, fingerprint},
    leaf::{Leaf, LeafError},
    renewal,
    tls::{self, Credentials, CredentialsError},
};
use selvedge_model::{SpiffeId, WorkloadName};
use tokio::sync::watch;
use tokio_rustls::rustls::{self, pki_types::CertificateDer};

use super::{
    bundle::{self, UnusableBundle},
    clocks::Clocks,
    complaint::Complaint,
    connect::{Address, ConnectError, ControlPlane},
    token::{TokenError, TokenSource, Trust},
    traffic::Traffic,
};
use crate::telemetry::Metrics;

/// How long connecting and signing may take; less if the certificate has little life left.
const SIGN_TIMEOUT: Duration = Duration::from_secs(20);
/// The least that they may take even then.
const SHORTEST_SIGN_TIMEOUT: Duration = Duration::from_secs(2);
/// Within this time all proxies renew when another root takes over, each at a moment of its own.
const SPREAD: Duration = Duration::from_secs(10);
/// The longest sleep before the clock is read again: it may have been set meanwhile.
pub(super) const LOOK_AT_CLOCK: Duration = Duration::from_secs(30);

/// What we prove ourselves to the control plane with.
#[derive(Debug)]
pub struct Joined {
    /// For connections to the control plane.
    pub tls: Arc<ClientConfig>,
    /// Who we are.
    pub identity: SpiffeId,
    /// Whom the mesh trusts.
    pub bundle: Bundle,
    /// From when on the certificate is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
    /// The SHA-256 of the trust root that it leads to.
    pub root: Option<[u8; 32]>,
}

/// What obtaining certificates needs from the rest of the control thread.
#[derive(Debug)]
pub struct Own {
    /// Who signs.
    pub control_plane: ControlPlane,
    /// Whose sidecar this is.
    pub workload: WorkloadName,
    /// The first proof.
    pub token: TokenSource,
    /// What the control plane is first known by, besides what a join token says.
    pub trust: Trust,
    /// The lifetime to ask for.
    pub ttl: Duration,
    /// Where certificates are put into use for traffic; `None`: another source has those, and the control plane's are
    /// for its streams alone.
    pub traffic: Option<Traffic>,
    /// Where they are put into use for the control plane's streams.
    pub joined: watch::Sender<Option<Arc<Joined>>>,
    /// New trust roots.
    pub bundle: watch::Receiver<Option<Arc<Bundle>>>,
    /// Renewals and failures are counted here.
    pub metrics: Arc<Metrics>,
}

/// Why there is no (new) certificate.
#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A control plane that is overloaded, or stopped.
    #[error("the control plane at {address} did not sign in time; check whether it is overloaded or stopped")]
    Timeout { address: Address },
    /// It says why.
    #[error("the control plane does not sign: {message} ({code:?}){}", clocks.map(|both| format!("; {both}")).unwrap_or_default())]
    Refused { message: String, code: tonic::Code, clocks: Option<Clocks> },
    /// Our clock is far ahead.
    #[error("the new certificate is not valid by this host's clock: it ends at {}, and the clock says {}", Utc(*not_after), Utc(*now))]
    Clock { not_after: SystemTime, now: SystemTime },
    /// The system has no random numbers to give.
    #[error("no key can be made: {reason}")]
    Key { reason: String },
    /// A control plane gone wrong.
    #[error("the control plane signed a certificate for {found}, but the request was for {asked}")]
    OtherIdentity { asked: SpiffeId, found: SpiffeId },
    #[error("the new certificate cannot be used: {0}")]
    Leaf(#[from] LeafError),
    #[error("the trust roots cannot be used: {0}")]
    Bundle(#[from] UnusableBundle),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("the control plane sent no trust roots with the certificate")]
    NoBundle,
}

impl OwnError {
    /// What tells one failure from another: without what the clocks say.
    fn timeless(&self) -> String {
        match self {
            Self::Connect(error) => error.timeless(),
            Self::Refused { message, code, .. } => {
                Self::Refused { message: message.clone(), code: *code, clocks: None }.to_string()
            }
            Self::Clock { .. } => "clock".to_owned(),
            Self::Token(TokenError::Expired { at, .. }) => format!("expired at {}", Utc(*at)),
            other => other.to_string(),
        }
    }
}

/// What a request for a certificate is made with.
struct Proof {
    tls: Arc<ClientConfig>,
    identity: SpiffeId,
    token: Option<String>,
}

/// Obtains a certificate and keeps it fresh, for as long as it is polled.
pub async fn run(own: Own) {
    let clocks = Complaint::new("certificates may not be valid where they are checked");
    let mut keeper = Keeper { own, credentials: None, clocks };
    let mut complaint = Complaint::new("no new certificate from the control plane");
    let mut failures = 0;
    loop {
        let obtained = tokio::time::timeout(keeper.patience(SystemTime::now()), keeper.obtain())
            .await
            .unwrap_or_else(|_| Err(keeper.timed_out()))
            .and_then(|credentials| keeper.put_into_use(credentials));
        let next = match obtained {
            Ok(renew_at) => {
                failures = 0;
                keeper.own.metrics.control.certificates_obtained.inc();
                complaint.settle();
                renew_at
            }
            Err(error) => {
                keeper.own.metrics.control.certificate_failures.inc();
                complaint.raise_as(error.timeless(), &error);
                let now = SystemTime::now();
                let pause = renewal::retry_delay(failures, keeper.remaining(now), fastrand::f64());
                failures = failures.saturating_add(1);
                now + pause
            }
        };
        keeper.wait_until(next).await;
    }
}

struct Keeper {
    own: Own,
    /// In use.
    credentials: Option<Credentials>,
    /// Of a clock that is wrong.
    clocks: Complaint,
}

impl Keeper {
    /// How long one attempt may take, so that there is time for another before the certificate expires.
    fn patience(&self, now: SystemTime) -> Duration {
        let remaining = self.remaining(now);
        if remaining.is_zero() {
            SIGN_TIMEOUT
        } else {
            (remaining / 3).clamp(SHORTEST_SIGN_TIMEOUT, SIGN_TIMEOUT)
        }
    }

    fn timed_out(&self) -> OwnError {
        OwnError::Timeout { address: self.own.control_plane.address().clone() }
    }

    async fn obtain(&mut self) -> Result<Credentials, OwnError> {
        let Proof { tls, identity, token } = self.proof(SystemTime::now())?;
        let request =
            KeyAndCsr::generate(&identity).map_err(|error| OwnError::Key { reason: error.to_string() })?;
        let channel = self.own.control_plane.connect(&tls).await?;
        let answer = CertificatesClient::new(channel)
            .sign(wire::SignRequest {
                csr: request.der.into(),
                workload: self.own.workload.to_string(),
                token,
                ttl_seconds: Some(self.own.ttl.as_secs().max(1)),
            })
            .await
            .map_err(|status| OwnError::Refused {
                message: status.message().to_owned(),
                code: status.code(),
                clocks: Clocks::of(&status, SystemTime::now()),
            })?
            .into_inner();
        let now = SystemTime::now();
        match Clocks::differing(answer.time, now) {
            // Once, and not again for every second by which they differ.
            Some(clocks) => self.clocks.raise_as("differ".to_owned(), &clocks),
            None => self.clocks.settle(),
        };
        let chain = answer.chain.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect();
        let leaf = Leaf::new(chain, request.key)?;
        if leaf.identity != identity {
            return Err(OwnError::OtherIdentity { asked: identity, found: leaf.identity });
        }
        if leaf.not_after <= now {
            return Err(OwnError::Clock { not_after: leaf.not_after, now });
        }
        let bundle = bundle::bundle(answer.bundle.ok_or(OwnError::NoBundle)?)?;
        Ok(Credentials { leaf, bundle })
    }

    /// The current certificate while it is valid, else the token.
    fn proof(&self, now: SystemTime) -> Result<Proof, OwnError> {
        if let Some(credentials) = self.credentials.as_ref().filter(|held| now < held.leaf.not_after) {
            let tls = tls::grpc_client(credentials)?;
            return Ok(Proof { tls, identity: credentials.leaf.identity.clone(), token: None });
        }
        let token = self.own.token.read(&self.own.workload, &self.own.trust, now)?;
        let tls = tls::bootstrap_client(&token.root_sha256, &token.trust_domain);
        Ok(Proof { tls, identity: token.identity, token: Some(token.text) })
    }

    /// Returns when to renew.
    fn put_into_use(&mut self, credentials: Credentials) -> Result<SystemTime, OwnError> {
        let joined = Joined {
            tls: tls::grpc_client(&credentials)?,
            identity: credentials.leaf.identity.clone(),
            bundle: credentials.bundle.clone(),
            not_before: credentials.leaf.not_before,
            not_after: credentials.leaf.not_after,
            root: root_of(&credentials),
        };
        match &self.own.traffic {
            Some(traffic) => traffic.put_into_use(credentials.clone())?,
            None => {
                tracing::info!(not_after = %Utc(joined.not_after), "certificate for the control plane in use")
            }
        }
        self.credentials = Some(credentials);
        let Joined { not_before, not_after, .. } = joined;
        self.own.joined.send_replace(Some(Arc::new(joined)));
        // From now on and not from `not_before`, which the signer sets back for clocks that are late.
        let from = not_before.max(SystemTime::now()).min(not_after);
        Ok(renewal::renew_at(from, not_after, fastrand::f64()))
    }

    /// Takes up trust roots that the stream has brought. Says when to renew if they make that necessary: the first root
    /// is the one that certificates are to lead to.
    fn take_up(&mut self, bundle: &Bundle) -> Option<SystemTime> {
        let credentials = self.credentials.as_ref().filter(|held| held.bundle != *bundle)?;
        let newer = Credentials { leaf: credentials.leaf.clone(), bundle: bundle.clone() };
        match self.put_into_use(newer) {
            Ok(_) => tracing::info!(?bundle, "trust roots changed"),
            Err(error) => {
                tracing::warn!(%error, "the new trust roots cannot be used; the last ones stay in force");
                return None;
            }
        }
        let first = bundle.roots.first().map(|root| fingerprint(root).0);
        let leads_there = self.credentials.as_ref().and_then(root_of) == first;
        (!leads_there).then(|| SystemTime::now() + SPREAD.mul_f64(fastrand::f64()))
    }

    fn remaining(&self, now: SystemTime) -> Duration {
        let not_after = self.credentials.as_ref().map(|held| held.leaf.not_after);
        not_after.and_then(|not_after| not_after.duration_since(now).ok()).unwrap_or_default()
    }

    async fn wait_until(&mut self, mut at: SystemTime) {
        loop {
            let now = SystemTime::now();
            let remaining = self.remaining(now);
            if let Some(traffic) = self.own.traffic.as_ref().filter(|_| self.credentials.is_some()) {
                traffic.certificate.set(!remaining.is_zero());
            }
            let Ok(left) = at.duration_since(now) else { return };
            let until_expiry = if remaining.is_zero() { left } else { remaining };
            tokio::select! {
                changed = self.own.bundle.changed() => {
                    let bundle = self.own.bundle.borrow_and_update().clone();
                    match bundle {
                        Some(bundle) => at = self.take_up(&bundle).map_or(at, |sooner| sooner.min(at)),
                        // Its sender is gone: the process is ending.
                        None if changed.is_err() => tokio::time::sleep(left).await,
                        None => {}
                    }
                }
                () = tokio::time::sleep(left.min(until_expiry).min(LOOK_AT_CLOCK)) => {}
            }
        }
    }
}

/// The SHA-256 of the trust root that our certificate leads to.
fn root_of(credentials: &Credentials) -> Option<[u8; 32]> {
    credentials.bundle.root_of(&credentials.leaf.chain).map(|root| fingerprint(root).0)
}

#[cfg(test)]
mod tests;
