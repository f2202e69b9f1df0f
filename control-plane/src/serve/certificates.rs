//! The certificates service: signs a request for exactly the identity that was proven.
//!
//! Proof is a join token, in a cluster a ServiceAccount token, or for renewal the client certificate. Each
//! certificate says which workload it was issued to, and is renewed for no other.
//!
//! A workload that no document names yet is served too, since a proxy may start before its `WorkloadEntry`; but its
//! certificates are short ([`Certificates::grace`]), and so are those of one that no document names any more, until
//! it gets none. Who is revoked gets none at all.

mod refusal;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use selvedge_api::{
    TIME_METADATA,
    wire::{self, certificates_server},
};
use selvedge_certs::{
    ca::Authority,
    control_plane_identity,
    facts::Facts,
    holder::{Basis, Workload},
    verify::Peer,
};
use selvedge_model::{Holder, SpiffeId, WorkloadName};
use selvedge_ops::sparing::Sparing;
use tonic::{Request, Response, Status};

use super::{
    allowance::Allowance,
    attestation::{Attestor, Proof, TokenError, is_join_token, seconds, service_account::ServiceAccounts},
    audit::{Audit, ProofKind},
    connection::Client,
};
use crate::{
    metrics::Metrics,
    snapshot::{Membership, Snapshot, Store, bundle_to_wire},
};
pub use refusal::Refusal;

/// Shorter than this no certificate is worth while: X.509 dates have whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long who shows what proves nothing keeps his turn at the API server: so often an address can have it asked in vain.
const AFTER_REFUSED: Duration = Duration::from_millis(250);
/// How many bytes of a name that anybody may send are written into the log.
const MOST_OF_NAME: usize = 128;

/// Signs certificates.
#[derive(Debug)]
pub struct Certificates {
    /// Who signs.
    pub authority: Arc<Authority>,
    /// Who checks tokens.
    pub attestor: Arc<Attestor>,
    /// Who has ServiceAccount tokens checked, in a cluster.
    pub service_accounts: Option<ServiceAccounts>,
    /// Where the workloads' identities are.
    pub store: Arc<Store>,
    /// The longest lifetime of a certificate, and the one that is given when none is asked for.
    pub max_ttl: Duration,
    /// How long a workload that is in no document still gets certificates, and the longest lifetime of these.
    pub grace: Duration,
    /// How many each identity may get.
    pub allowance: Allowance,
    /// Where each is written down.
    pub audit: Arc<Audit>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Which refusals were logged lately: anybody may ask without end.
    pub said: Mutex<Sparing>,
}

/// Proven, by one way or the other.
enum Proven {
    Token(Proof),
    Certificate(Box<Peer>),
}

impl Proven {
    fn identity(&self) -> &SpiffeId {
        match self {
            Self::Token(proof) => &proof.identity,
            Self::Certificate(peer) => &peer.identity,
        }
    }

    /// The only workload that it is good for.
    fn workload(&self) -> Option<&WorkloadName> {
        match self {
            Self::Token(proof) => proof.workload.as_ref(),
            Self::Certificate(peer) => peer.workload.as_ref().map(|workload| &workload.name),
        }
    }

    /// How it is known that its bearer is that workload.
    fn basis(&self) -> Basis {
        match self {
            Self::Token(Proof { workload: Some(_), .. }) => Basis::Proven,
            Self::Certificate(peer) => {
                peer.workload.as_ref().map_or(Basis::Claimed, |workload| workload.basis)
            }
            Self::Token(_) => Basis::Claimed,
        }
    }

    fn word(&self) -> &'static str {
        match self {
            Self::Token(_) => "token",
            Self::Certificate(_) => "certificate",
        }
    }

    fn kind(&self) -> ProofKind<'_> {
        match self {
            Self::Token(Proof { join_token: Some(token), .. }) => ProofKind::JoinToken(&token.id),
            Self::Token(_) => ProofKind::KubernetesToken,
            Self::Certificate(_) => ProofKind::Certificate,
        }
    }
}

impl Certificates {
    /// Signs `request` of a client that showed the certificate of `peer`, if it showed one.
    ///
    /// # Errors
    /// If nothing is proven, or what is proven is not what is asked for.
    pub async fn sign(
        &self,
        peer: Option<&Peer>,
        request: &wire::SignRequest,
        now: SystemTime,
    ) -> Result<wire::SignResponse, Refusal> {
        let workload: WorkloadName = request.workload.parse()?;
        let proven = self.prove(peer, request.token.as_deref(), now).await?;
        self.allowance.take(proven.identity(), Instant::now())?;
        if let Some(allowed) = proven.workload().filter(|allowed| **allowed != workload) {
            let (proof, allowed) = (proven.word(), allowed.clone());
            return Err(Refusal::OtherWorkload { proof, allowed, asked: workload });
        }
        let identity = proven.identity();
        let snapshot = self.store.current().ok_or(Refusal::Starting)?;
        belongs(&snapshot, identity, &workload)?;
        is_allowed(&snapshot, &proven, &workload, now)?;
        let asked = request.ttl_seconds.map_or(self.max_ttl, Duration::from_secs);
        let ttl = asked.min(self.longest(&snapshot, &proven, &workload, now)?);
        let holder = Workload { name: workload.clone(), basis: proven.basis() };
        let sign = || {
            let chain = self.authority.sign_for(&request.csr, identity, &holder, ttl, now)?;
            self.audit.record(&chain[0], proven.kind(), now)?;
            Ok::<_, Refusal>(chain)
        };
        let chain = match &proven {
            Proven::Token(proof) => self.attestor.redeem(proof, now, sign)?,
            Proven::Certificate(_) => sign()?,
        };
        self.metrics.certificate_signed(proven.word());
        let serial = chain.first().and_then(|leaf| Facts::parse(leaf).ok()).map(|facts| facts.serial);
        let serial = serial.as_ref().map(tracing::field::display);
        tracing::info!(workload = %holder, %identity, serial, ?ttl, proof = proven.word(), "certificate signed");
        Ok(wire::SignResponse {
            chain: chain.iter().map(|certificate| certificate.to_vec().into()).collect(),
            bundle: Some(bundle_to_wire(&self.authority.bundle())),
            time: seconds(now),
        })
    }

    async fn prove(
        &self,
        peer: Option<&Peer>,
        token: Option<&str>,
        now: SystemTime,
    ) -> Result<Proven, Refusal> {
        if let Some(token) = token {
            let proof = match &self.service_accounts {
                _ if is_join_token(token) => {
                    let proof = self.attestor.verify(token, now)?;
                    self.allowance.look(&proof.identity, Instant::now())?;
                    self.attestor.check_revoked(&proof).await?;
                    proof
                }
                Some(service_accounts) => {
                    if let Some(claimed) = service_accounts.claimed(token) {
                        // So that a client that asks too often does not keep the API server busy either.
                        self.allowance.look(&claimed, Instant::now())?;
                    }
                    service_accounts.verify(token, now).await?
                }
                None => return Err(self.no_join_token(token, now).into()),
            };
            return Ok(Proven::Token(proof));
        }
        let peer = peer.ok_or(Refusal::NoProof)?;
        if now > peer.not_after {
            return Err(Refusal::ExpiredCertificate);
        }
        if peer.identity == control_plane_identity(self.authority.trust_domain()) {
            return Err(Refusal::Reserved(peer.identity.clone()));
        }
        Ok(Proven::Certificate(Box::new(peer.clone())))
    }

    /// How long the certificate may last, as far as that depends on the documents.
    fn longest(
        &self,
        snapshot: &Snapshot,
        proven: &Proven,
        workload: &WorkloadName,
        now: SystemTime,
    ) -> Result<Duration, Refusal> {
        let is_over = |since: SystemTime| now.duration_since(since).unwrap_or_default() >= self.grace;
        match snapshot.membership(workload) {
            Membership::Present => return Ok(self.max_ttl),
            Membership::Left(at) if is_over(at) => return Err(Refusal::Removed(workload.clone())),
            // This run does not know it. An earlier one did, or another replica, if it has a certificate.
            Membership::Unknown(since) if is_over(since) && matches!(proven, Proven::Certificate(_)) => {
                return Err(Refusal::Removed(workload.clone()));
            }
            Membership::Left(_) | Membership::Unknown(_) => {}
        }
        if self.grace < SHORTEST {
            return Err(Refusal::NoMember(workload.clone()));
        }
        Ok(self.grace.min(self.max_ttl))
    }

    /// Why something else than a join token proves nothing here.
    fn no_join_token(&self, token: &str, now: SystemTime) -> TokenError {
        match self.attestor.verify(token, now) {
            Err(error @ TokenError::Malformed(_)) if token.split('.').count() != 3 => error,
            _ => TokenError::NoCluster,
        }
    }
}

/// Whether the workload has this identity, or may have it one day.
fn belongs(snapshot: &Snapshot, proven: &SpiffeId, workload: &WorkloadName) -> Result<(), Refusal> {
    match snapshot.mesh().workloads.get(workload) {
        Some(known) if known.identity != *proven => Err(Refusal::OtherIdentity {
            proven: proven.clone(),
            workload: workload.clone(),
            expected: known.identity.clone(),
        }),
        None if workload.namespace() != proven.namespace() => {
            Err(Refusal::OtherNamespace { proven: proven.clone(), workload: workload.clone() })
        }
        _ => Ok(()),
    }
}

/// Whether nothing revokes the identity, the workload, or the certificate that is shown.
fn is_allowed(
    snapshot: &Snapshot,
    proven: &Proven,
    workload: &WorkloadName,
    now: SystemTime,
) -> Result<(), Refusal> {
    let serial = match proven {
        Proven::Certificate(peer) => Some(&peer.serial),
        Proven::Token(_) => None,
    };
    let holder = Holder { identity: proven.identity(), workload: Some(workload), serial };
    let found = snapshot.mesh().revocations.find(holder, now);
    found.map_or(Ok(()), |found| Err(Refusal::Revoked(Box::new(found.clone()))))
}

#[tonic::async_trait]
impl certificates_server::Certificates for Certificates {
    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let peer = client.as_ref().and_then(|client| client.peer.as_deref());
        let now = SystemTime::now();
        let address = client.as_ref().map(|client| client.address);
        let turn = match (&self.service_accounts, address, request.get_ref().token.as_deref()) {
            (Some(accounts), Some(address), Some(token)) if !is_join_token(token) => {
                accounts.turn(address.ip()).await
            }
            _ => None,
        };
        let signed = Self::sign(self, peer, request.get_ref(), now).await;
        if signed.is_err() && turn.is_some() {
            tokio::time::sleep(AFTER_REFUSED).await;
        }
        signed.map(Response::new).map_err(|refusal| {
            self.metrics.certificate_refused(refusal.reason());
            let about =
                (refusal.reason(), address.map(|address| address.ip()), peer.map(|peer| &peer.identity));
            let left_out =
                self.said.lock().unwrap_or_else(PoisonError::into_inner).says(about, Instant::now());
            if let Some(left_out) = left_out {
                let workload = &request.get_ref().workload;
                tracing::warn!(
                    workload = &workload[..workload.floor_char_boundary(MOST_OF_NAME)],
                    ?address,
                    reason = refusal.reason(),
                    left_out,
                    %refusal,
                    "certificate refused"
                );
            }
            let mut status = refusal.status();
            // So that a client whose clock is wrong can say so.
            status.metadata_mut().insert(TIME_METADATA, seconds(now).into());
            status
        })
    }
}

#[cfg(test)]
mod tests;
