use futures_util::FutureExt;
use selvedge_certs::{ca::SignError, csr::KeyAndCsr};
use selvedge_model::{Mesh, Revocation, Revocations, Revoked};

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
            said: Mutex::default(),
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
        let other = f.sign(Some(&holder(&leaf)), &request("reviews", "shop/reviews-2", None)).unwrap_err();
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
    let grant = Grant { identity: identity("shop", "reviews"), workload: None, ttl: 2 * GRACE, once: false };
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
    let certificates = Certificates { allowance: Allowance::new(2.try_into().unwrap()), ..f.certificates };
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
    let refused = starting.sign(Some(&peer("reviews")), &renewal, SystemTime::now()).now_or_never().unwrap();

    assert!(matches!(refused, Err(Refusal::Starting)));
}
