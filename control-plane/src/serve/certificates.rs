//! The certificates service: signs a request for exactly the identity that was proven.
//!
//! Proof is a join token, in a cluster a ServiceAccount token, or for renewal the client certificate. Each
//! certificate says which workload it was issued to, and is renewed for no other.
//!
//! A workload that no document names yet is served too, since a proxy may start before its `WorkloadEntry`; but its
//! certificates are short ([`Certificates::grace`]), and so are those of one that no document names any more, until
//! it gets none. Who is revoked gets none at all.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use selvedge_api::{
    TIME_METADATA,
    wire::{self, certificates_server},
};
use selvedge_certs::{
    ca::{Authority, SignError},
    control_plane_identity,
    facts::Facts,
    holder::{Basis, Workload},
    verify::Peer,
};
use selvedge_model::{Holder, Revocation, SpiffeId, WorkloadName, identity::IdentityError};
use tonic::{Request, Response, Status};

use super::{
    allowance::{Allowance, UsedUp},
    attestation::{Attestor, Proof, TokenError, is_join_token, seconds, service_account::ServiceAccounts},
    audit::{Audit, AuditError, ProofKind},
    connection::Client,
};
use crate::{
    metrics::Metrics,
    snapshot::{Membership, Snapshot, Store, bundle_to_wire},
};

/// Shorter than this no certificate is worth while: X.509 dates have whole seconds.
const SHORTEST: Duration = Duration::from_secs(1);

/// Why no certificate was signed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Neither a token nor a client certificate.
    #[error("no proof of identity: send a join token, or connect with the current certificate")]
    NoProof,
    /// The connection outlived the certificate that it was made with.
    #[error("the client certificate has expired; connect with a newer one, or send a join token")]
    ExpiredCertificate,
    /// The token proves nothing.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The control plane's own certificate is not renewed here.
    #[error("{0} is the control plane's own identity")]
    Reserved(SpiffeId),
    /// No namespace and name.
    #[error("workload: {0}")]
    WorkloadName(#[from] IdentityError),
    /// The proof is for one workload, and another one asked.
    #[error("the {proof} is for workload {allowed}, not for {asked}")]
    OtherWorkload {
        /// What was shown: a token or a certificate.
        proof: &'static str,
        /// Whom it names.
        allowed: WorkloadName,
        /// Who asked.
        asked: WorkloadName,
    },
    /// The proven identity is not the one that the documents give to this workload.
    #[error(
        "the proof is for {proven}, but {workload} is {expected} by its WorkloadEntry or Pod; \
         make a token for that namespace and service account, or change spec.serviceAccount"
    )]
    OtherIdentity {
        /// What was proven.
        proven: SpiffeId,
        /// Who asked.
        workload: WorkloadName,
        /// Whose identity it has.
        expected: SpiffeId,
    },
    /// The proven identity is of another namespace than the workload.
    #[error("the proof is for {proven}, which cannot be workload {workload}: the namespaces differ")]
    OtherNamespace {
        /// What was proven.
        proven: SpiffeId,
        /// Who asked.
        workload: WorkloadName,
    },
    /// A document says that it is not to be let in.
    #[error("{0}; ask the author of that document")]
    Revoked(Box<Revocation>),
    /// It was in a document, and is not any more.
    #[error(
        "no document declares workload {0} any more, so it is no longer a member of the mesh; to make it a member \
         again, add its WorkloadEntry (in a cluster: start its pod)"
    )]
    Removed(WorkloadName),
    /// It is in no document, and was not since this control plane started.
    #[error(
        "no document declares workload {0}; add a WorkloadEntry with that namespace and name, spec.serviceAccount and \
         spec.address"
    )]
    NoMember(WorkloadName),
    /// Nothing is known about any workload yet.
    #[error("the control plane is starting and has not read its configuration yet; try again")]
    Starting,
    /// The request asks for something else, or is garbage; or the authority cannot sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Its identity has asked too often.
    #[error(transparent)]
    UsedUp(#[from] UsedUp),
    /// The certificate cannot be written down.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

impl Refusal {
    /// The word in metrics and logs.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoProof => "no-proof",
            Self::ExpiredCertificate => "certificate-expired",
            Self::Token(TokenError::Review(_) | TokenError::Keys(_)) => "token-review",
            Self::Token(TokenError::Expired(_) | TokenError::ExpiredServiceAccount(_)) => "token-expired",
            Self::Token(TokenError::Spent) => "token-spent",
            Self::Token(TokenError::Revoked { .. }) => "token-revoked",
            Self::Token(TokenError::Record(_)) => "token-record",
            Self::Token(_) => "token",
            Self::Reserved(_) => "reserved-identity",
            Self::WorkloadName(_) => "workload-name",
            Self::OtherWorkload { .. } => "other-workload",
            Self::OtherIdentity { .. } => "other-identity",
            Self::OtherNamespace { .. } => "other-namespace",
            Self::Revoked(_) => "revoked",
            Self::Removed(_) | Self::NoMember(_) => "no-member",
            Self::Starting => "starting",
            Self::UsedUp(_) => "rate-limited",
            Self::Audit(_) => "audit",
            Self::Sign(SignError::Request(_) | SignError::Lifetime { .. }) => "request",
            Self::Sign(_) => "authority",
        }
    }

    fn status(&self) -> Status {
        let message = self.to_string();
        // What is wrong with our own files is for our own log.
        let internal = || Status::internal("the control plane cannot sign now; its log says why");
        match self {
            Self::NoProof | Self::ExpiredCertificate => Status::unauthenticated(message),
            Self::Token(
                TokenError::File(_)
                | TokenError::Random
                | TokenError::Key { .. }
                | TokenError::SpentList { .. },
            ) => internal(),
            Self::Token(TokenError::Record(_)) => Status::unavailable(
                "whether the join token is revoked cannot be known now; the control plane's log says why",
            ),
            Self::Token(TokenError::Review(_) | TokenError::Keys(_)) => Status::unavailable(message),
            Self::Token(_) => Status::unauthenticated(message),
            Self::WorkloadName(_) => Status::invalid_argument(message),
            Self::Sign(SignError::Request(_) | SignError::Lifetime { .. }) => {
                Status::invalid_argument(message)
            }
            Self::Sign(_) => internal(),
            Self::UsedUp(_) => Status::resource_exhausted(message),
            Self::Audit(_) => Status::unavailable(
                "the control plane cannot write its audit file, so it issues no certificates; its log says why",
            ),
            Self::Starting => Status::unavailable(message),
            Self::Reserved(_)
            | Self::Revoked(_)
            | Self::Removed(_)
            | Self::NoMember(_)
            | Self::OtherWorkload { .. }
            | Self::OtherIdentity { .. }
            | Self::OtherNamespace { .. } => Status::permission_denied(message),
        }
    }
}

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
        let peer = client.as_ref().and_then(|client| client.peer.as_ref());
        let now = SystemTime::now();
        let signed = Self::sign(self, peer, request.get_ref(), now).await;
        signed.map(Response::new).map_err(|refusal| {
            self.metrics.certificate_refused(refusal.reason());
            let address = client.as_ref().map(|client| client.address);
            tracing::warn!(
                workload = request.get_ref().workload,
                ?address,
                reason = refusal.reason(),
                %refusal,
                "certificate refused"
            );
            let mut status = refusal.status();
            // So that a client whose clock is wrong can say so.
            status.metadata_mut().insert(TIME_METADATA, seconds(now).into());
            status
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use selvedge_certs::csr::KeyAndCsr;
    use selvedge_model::{Mesh, Revocations, Revoked};

    use super::*;
    use crate::{
        serve::attestation::{self, Grant, RecordFiles, TokenKey, TokenRecord},
        testing::{self, identity},
    };

    struct Fixture {
        directory: tempfile::TempDir,
        certificates: Certificates,
    }

    impl Fixture {
        /// Knows the workload `shop/reviews-1` of the service account `reviews`.
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let authority = Arc::new(testing::authority(directory.path()));
            let store = Arc::new(Store::new(&authority.bundle()));
            let mut mesh = Mesh::default();
            testing::add_workload(&mut mesh, "shop/reviews-1", "reviews");
            store.publish(mesh);
            let attestor = Attestor::open(directory.path(), authority.trust_domain()).unwrap();
            let certificates = Certificates {
                authority,
                attestor: Arc::new(attestor),
                service_accounts: None,
                store,
                max_ttl: Duration::from_secs(3600),
                grace: GRACE,
                allowance: Allowance::new(600.try_into().unwrap()),
                audit: Arc::new(Audit::new(directory.path())),
                metrics: Arc::default(),
            };
            Self { directory, certificates }
        }

        /// The same with another mesh.
        fn publish(&self, change: impl FnOnce(&mut Mesh)) {
            let mut mesh = Mesh::clone(self.certificates.store.current().unwrap().mesh());
            change(&mut mesh);
            self.certificates.store.publish(mesh);
        }

        fn remove(&self, workload: &str) {
            self.publish(|mesh| drop(mesh.workloads.remove(&workload.parse().unwrap())));
        }

        fn sign_at(
            &self,
            now: SystemTime,
            peer: Option<&Peer>,
            request: &wire::SignRequest,
        ) -> Result<Facts, Refusal> {
            let signed = self.certificates.sign(peer, request, now);
            let response = signed.now_or_never().expect("join tokens are checked without waiting")?;
            Ok(Facts::parse(&response.chain[0]).unwrap())
        }

        fn token(&self, account: &str, workload: Option<&str>, once: bool) -> String {
            let grant = Grant {
                identity: identity("shop", account),
                workload: workload.map(|workload| workload.parse().unwrap()),
                ttl: Duration::from_secs(60),
                once,
            };
            let key = TokenKey::load_or_create(self.directory.path()).unwrap();
            let root = self.certificates.authority.root_sha256();
            attestation::create(&key, &grant, root, SystemTime::now()).unwrap().0
        }

        fn sign(&self, peer: Option<&Peer>, request: &wire::SignRequest) -> Result<Facts, Refusal> {
            self.sign_at(SystemTime::now(), peer, request)
        }
    }

    const GRACE: Duration = Duration::from_secs(600);

    fn request(account: &str, workload: &str, token: Option<String>) -> wire::SignRequest {
        let csr = KeyAndCsr::generate(&identity("shop", account)).unwrap().der;
        wire::SignRequest { csr: csr.into(), workload: workload.into(), token, ttl_seconds: None }
    }

    fn peer(account: &str) -> Peer {
        let now = SystemTime::now();
        let minute = Duration::from_secs(60);
        Peer {
            identity: identity("shop", account),
            not_before: now - minute,
            not_after: now + 60 * minute,
            serial: "4fa0".parse().unwrap(),
            workload: None,
        }
    }

    /// The holder of the certificate `facts`.
    fn holder(facts: &Facts) -> Peer {
        Peer {
            serial: facts.serial.clone(),
            workload: facts.workload.clone(),
            ..peer(facts.identity().unwrap().service_account())
        }
    }

    fn claims(name: &str, basis: Basis) -> Option<Workload> {
        Some(Workload { name: name.parse().unwrap(), basis })
    }

    #[test]
    fn a_token_for_one_workload_stays_good_for_that_one_alone_through_every_renewal() {
        let f = Fixture::new();
        f.publish(|mesh| testing::add_workload(mesh, "shop/reviews-2", "reviews"));
        let token = f.token("reviews", Some("shop/reviews-1"), false);

        let mut leaf = f.sign(None, &request("reviews", "shop/reviews-1", Some(token))).unwrap();
        for _ in 0..2 {
            assert_eq!(leaf.workload, claims("shop/reviews-1", Basis::Proven));
            let other =
                f.sign(Some(&holder(&leaf)), &request("reviews", "shop/reviews-2", None)).unwrap_err();
            assert!(matches!(other, Refusal::OtherWorkload { proof: "certificate", .. }), "{other}");
            leaf = f.sign(Some(&holder(&leaf)), &request("reviews", "shop/reviews-1", None)).unwrap();
        }
    }

    #[test]
    fn who_only_claims_to_be_a_workload_is_held_to_it_and_never_passes_for_proven() {
        let f = Fixture::new();
        f.publish(|mesh| testing::add_workload(mesh, "shop/reviews-2", "reviews"));
        let token = f.token("reviews", None, false);

        let leaf = f.sign(None, &request("reviews", "shop/reviews-1", Some(token))).unwrap();
        assert_eq!(leaf.workload, claims("shop/reviews-1", Basis::Claimed));

        let renewed = f.sign(Some(&holder(&leaf)), &request("reviews", "shop/reviews-1", None)).unwrap();
        assert_eq!(renewed.workload, leaf.workload);
        let other = f.sign(Some(&holder(&leaf)), &request("reviews", "shop/reviews-2", None)).unwrap_err();
        assert!(matches!(other, Refusal::OtherWorkload { .. }), "{other}");
    }

    #[test]
    fn who_is_in_no_document_any_more_is_renewed_for_the_grace_and_then_no_longer() {
        let f = Fixture::new();
        let renewal = request("reviews", "shop/reviews-1", None);
        let token = request("reviews", "shop/reviews-1", Some(f.token("reviews", None, false)));
        f.remove("shop/reviews-1");
        let now = SystemTime::now();

        let short = f.sign_at(now, Some(&peer("reviews")), &renewal).unwrap();
        assert!(short.not_after <= now + GRACE, "{:?}", short.not_after);
        f.sign_at(now, None, &token).unwrap();

        let later = now + GRACE + Duration::from_secs(1);
        let refused = f.sign_at(later, Some(&peer("reviews")), &renewal).unwrap_err();
        assert!(matches!(refused, Refusal::Removed(_)), "{refused}");
        // Nor by a token that is still good, which would begin it all again.
        let key = TokenKey::load_or_create(f.directory.path()).unwrap();
        let grant =
            Grant { identity: identity("shop", "reviews"), workload: None, ttl: 2 * GRACE, once: false };
        let long = attestation::create(&key, &grant, [0; 32], now).unwrap().0;
        let again = request("reviews", "shop/reviews-1", Some(long));
        assert!(matches!(f.sign_at(later, None, &again), Err(Refusal::Removed(_))));

        f.publish(|mesh| testing::add_workload(mesh, "shop/reviews-1", "reviews"));
        f.sign_at(later, Some(&peer("reviews")), &renewal).unwrap();
    }

    #[test]
    fn a_control_plane_that_has_just_started_cuts_nobody_off() {
        let f = Fixture::new();
        let renewal = request("reviews", "shop/reviews-7", None);
        let now = SystemTime::now();

        f.sign_at(now, Some(&peer("reviews")), &renewal).unwrap();

        let later = f.sign_at(now + GRACE + Duration::from_secs(1), Some(&peer("reviews")), &renewal);
        assert!(matches!(later, Err(Refusal::Removed(_))), "{later:?}");
    }

    #[test]
    fn who_is_in_no_document_yet_gets_short_certificates_for_as_long_as_its_token_is_good() {
        let f = Fixture::new();
        let early = request("payment", "shop/payment-1", Some(f.token("payment", None, false)));
        let now = SystemTime::now();

        let leaf = f.sign_at(now, None, &early).unwrap();
        assert!(leaf.not_after <= now + GRACE, "{:?}", leaf.not_after);

        let strict = Certificates { grace: Duration::ZERO, ..f.certificates };
        let refused = strict.sign(None, &early, now).now_or_never().unwrap();
        assert!(matches!(refused, Err(Refusal::NoMember(_))), "{refused:?}");
    }

    #[test]
    fn who_is_revoked_gets_no_certificate_by_whatever_proof() {
        let f = Fixture::new();
        let renewal = request("reviews", "shop/reviews-1", None);
        let token = request("reviews", "shop/reviews-1", Some(f.token("reviews", None, false)));
        let serial = "4fa0".parse().unwrap();
        for (revoked, tokens_too) in [
            (Revoked::Identity(identity("shop", "reviews")), true),
            (Revoked::Workload("shop/reviews-1".parse().unwrap()), true),
            (Revoked::Serial { serial, namespace: None }, false),
        ] {
            let entry = Revocation {
                revoked,
                document: "Revocation selvedge/a".into(),
                reason: Some("stolen".into()),
                until: None,
            };
            f.publish(|mesh| mesh.revocations = Arc::new(Revocations::new(vec![entry])));

            let refused = f.sign(Some(&peer("reviews")), &renewal).unwrap_err();
            assert!(matches!(refused, Refusal::Revoked(_)), "{refused}");
            assert!(refused.to_string().contains("Revocation selvedge/a (stolen)"), "{refused}");
            assert_eq!(f.sign(None, &token).is_err(), tokens_too);
        }
        f.publish(|mesh| mesh.revocations = Arc::default());
        f.sign(Some(&peer("reviews")), &renewal).unwrap();
    }

    #[test]
    fn a_token_is_exchanged_for_a_certificate_of_its_identity() {
        let f = Fixture::new();

        let leaf = f.sign(None, &request("reviews", "shop/reviews-1", Some(f.token("reviews", None, false))));

        assert_eq!(leaf.unwrap().identity().unwrap(), identity("shop", "reviews"));
    }

    #[test]
    fn a_request_for_somebody_else_is_refused() {
        let f = Fixture::new();
        let token = f.token("reviews", None, false);

        let mut other = request("payment", "shop/reviews-1", Some(token.clone()));
        assert!(matches!(f.sign(None, &other), Err(Refusal::Sign(SignError::Request(_)))));
        other.workload = "shop/payment-1".into();
        assert!(matches!(f.sign(None, &other), Err(Refusal::Sign(SignError::Request(_)))));
    }

    #[test]
    fn a_workload_has_the_identity_that_its_document_says() {
        let f = Fixture::new();

        let payment = request("payment", "shop/reviews-1", Some(f.token("payment", None, false)));

        assert!(matches!(f.sign(None, &payment), Err(Refusal::OtherIdentity { .. })));
    }

    #[test]
    fn a_workload_that_is_not_known_yet_is_served_within_its_namespace() {
        let f = Fixture::new();
        let token = f.token("payment", None, false);

        f.sign(None, &request("payment", "shop/payment-1", Some(token.clone()))).unwrap();

        let elsewhere = f.sign(None, &request("payment", "other/payment-1", Some(token)));
        assert!(matches!(elsewhere, Err(Refusal::OtherNamespace { .. })));
    }

    #[test]
    fn a_token_for_one_workload_serves_no_other() {
        let f = Fixture::new();
        let token = f.token("reviews", Some("shop/reviews-2"), false);

        let refused = f.sign(None, &request("reviews", "shop/reviews-1", Some(token.clone())));
        assert!(matches!(refused, Err(Refusal::OtherWorkload { .. })));
        f.sign(None, &request("reviews", "shop/reviews-2", Some(token))).unwrap();
    }

    #[test]
    fn a_revoked_token_is_refused_at_once_and_others_are_not() {
        let f = Fixture::new();
        let key = TokenKey::load_or_create(f.directory.path()).unwrap();
        let [stolen, other] = [(), ()].map(|()| f.token("reviews", None, false));
        let with = |token: &str| f.sign(None, &request("reviews", "shop/reviews-1", Some(token.to_owned())));
        with(&stolen).unwrap();

        // This one has no record, as those that an older version made.
        let record = attestation::record_of(&key, &stolen).unwrap();
        let revoked = TokenRecord { revoked: Some(1_800_000_000), ..record };
        RecordFiles::of(f.directory.path()).write(&revoked).unwrap();

        let refused = with(&stolen).unwrap_err();
        assert!(refused.to_string().contains("was revoked at 2027-"), "{refused}");
        assert_eq!(refused.status().code(), tonic::Code::Unauthenticated);
        with(&other).unwrap();
        // What is damaged may have been a revocation.
        std::fs::write(f.directory.path().join("join-tokens").join(&revoked.id), "").unwrap();
        assert!(matches!(with(&stolen), Err(Refusal::Token(TokenError::Record(_)))));
    }

    #[test]
    fn a_token_for_one_use_is_used_up_by_a_signature_and_not_by_a_bad_request() {
        let f = Fixture::new();
        let token = f.token("reviews", None, true);
        let bad = wire::SignRequest {
            csr: b"garbage".as_slice().into(),
            ..request("reviews", "shop/reviews-1", Some(token.clone()))
        };

        assert!(matches!(f.sign(None, &bad), Err(Refusal::Sign(_))));
        f.sign(None, &request("reviews", "shop/reviews-1", Some(token.clone()))).unwrap();

        let again = f.sign(None, &request("reviews", "shop/reviews-1", Some(token)));
        assert!(matches!(again, Err(Refusal::Token(TokenError::Spent))));
    }

    #[test]
    fn the_current_certificate_is_proof_for_the_next_while_it_is_valid() {
        let f = Fixture::new();
        let renewal = request("reviews", "shop/reviews-1", None);
        let expired = Peer { not_after: SystemTime::now() - Duration::from_secs(1), ..peer("reviews") };

        f.sign(Some(&peer("reviews")), &renewal).unwrap();

        assert!(matches!(f.sign(Some(&expired), &renewal), Err(Refusal::ExpiredCertificate)));
        assert!(matches!(f.sign(Some(&peer("payment")), &renewal), Err(Refusal::OtherIdentity { .. })));
        assert!(matches!(f.sign(None, &renewal), Err(Refusal::NoProof)));
    }

    #[test]
    fn who_asks_too_often_is_refused_and_nobody_else() {
        let f = Fixture::new();
        f.publish(|mesh| testing::add_workload(mesh, "shop/payment-1", "payment"));
        let certificates =
            Certificates { allowance: Allowance::new(2.try_into().unwrap()), ..f.certificates };
        let ask = |account: &str| {
            let request = request(account, &format!("shop/{account}-1"), None);
            certificates.sign(Some(&peer(account)), &request, SystemTime::now()).now_or_never().unwrap()
        };
        ask("reviews").unwrap();
        ask("reviews").unwrap();

        let refused = ask("reviews").unwrap_err();

        assert_eq!(refused.status().code(), tonic::Code::ResourceExhausted);
        assert!(refused.to_string().contains("--certificates-per-minute"), "{refused}");
        ask("payment").unwrap();
    }

    #[test]
    fn what_cannot_be_written_down_is_not_issued_and_uses_no_token_up() {
        let f = Fixture::new();
        let in_the_way = f.directory.path().join(super::super::audit::FILE);
        std::fs::create_dir(&in_the_way).unwrap();
        let once = request("reviews", "shop/reviews-1", Some(f.token("reviews", None, true)));

        let refused = f.sign(None, &once).unwrap_err();
        assert!(matches!(refused, Refusal::Audit(_)), "{refused}");
        assert!(!refused.status().message().contains('/'), "a client need not know our files: {refused}");

        std::fs::remove_dir(&in_the_way).unwrap();
        f.sign(None, &once).unwrap();
    }

    #[test]
    fn nobody_asks_for_more_time_than_the_maximum() {
        let f = Fixture::new();
        let mut long = request("reviews", "shop/reviews-1", None);
        long.ttl_seconds = Some(u64::MAX);

        let leaf = f.sign(Some(&peer("reviews")), &long).unwrap();

        let longest = SystemTime::now() + f.certificates.max_ttl;
        assert!(leaf.not_after <= longest, "{:?}", leaf.not_after);
    }

    #[test]
    fn nothing_is_signed_before_the_configuration_was_read() {
        let f = Fixture::new();
        let authority = Arc::clone(&f.certificates.authority);
        let starting = Certificates { store: Arc::new(Store::new(&authority.bundle())), ..f.certificates };

        let renewal = request("reviews", "shop/reviews-1", None);
        let refused =
            starting.sign(Some(&peer("reviews")), &renewal, SystemTime::now()).now_or_never().unwrap();

        assert!(matches!(refused, Err(Refusal::Starting)));
    }
}
