use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt, path::Path};

use rustls_pki_types::PrivateKeyDer;

use super::{
    directory::{Files, ISSUER, ISSUER_KEY, ROOT, ROOT_KEY},
    *,
};
use crate::{
    csr::KeyAndCsr,
    facts::{Facts, Fingerprint},
    verify::{self, Role},
};

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = ISSUER_LIFE;

fn reviews() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap()
}

fn domain() -> TrustDomain {
    TrustDomain::default()
}

fn authority() -> (tempfile::TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(directory.path(), &domain()).unwrap();
    (directory, authority)
}

fn names(directory: &Path) -> BTreeSet<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_signed_leaf_is_believed_for_the_proven_identity() {
    let (_directory, authority) = authority();
    let made = KeyAndCsr::generate(&reviews()).unwrap();
    let now = SystemTime::now();

    let chain = authority.sign(&made.der, &reviews(), 24 * HOUR, now).unwrap();

    for role in [Role::Client, Role::Server] {
        let peer = verify::peer(&chain, &authority.bundle(), now, role).unwrap();
        assert_eq!(peer.identity, reviews());
    }
    let leaf = Leaf::new(chain, made.key).unwrap();
    assert!(leaf.not_after <= now + 24 * HOUR && leaf.not_after > now + 24 * HOUR - Duration::from_secs(2));
    assert!(leaf.not_before <= now - Duration::from_secs(60));
}

#[test]
fn a_request_for_someone_else_is_refused() {
    let (_directory, authority) = authority();
    let admin = KeyAndCsr::generate(&"spiffe://cluster.local/ns/shop/sa/admin".parse().unwrap()).unwrap();

    let error = authority.sign(&admin.der, &reviews(), HOUR, SystemTime::now()).unwrap_err();

    assert!(matches!(error, SignError::Request(CsrError::OtherName { .. })), "{error}");
}

#[test]
fn another_trust_domain_is_not_signed_for() {
    let (_directory, authority) = authority();
    let elsewhere: SpiffeId = "spiffe://elsewhere/ns/shop/sa/reviews".parse().unwrap();
    let made = KeyAndCsr::generate(&elsewhere).unwrap();

    let error = authority.sign(&made.der, &elsewhere, HOUR, SystemTime::now()).unwrap_err();

    assert!(matches!(error, SignError::OtherTrustDomain { .. }), "{error}");
}

#[test]
fn a_leaf_never_outlives_its_issuer() {
    let (_directory, authority) = authority();
    let now = SystemTime::now();

    for ttl in [2 * YEAR, Duration::MAX] {
        let leaf = authority.issue(&reviews(), &[], ttl, now).unwrap();
        let issuer = Facts::parse(&leaf.chain[1]).unwrap();
        assert_eq!(leaf.not_after, issuer.not_after);
    }
    let late = authority.issue(&reviews(), &[], HOUR, now + YEAR).unwrap_err();
    assert!(matches!(late, SignError::IssuerExpired { .. }), "{late}");
}

#[test]
fn a_short_lived_leaf_is_born_before_its_renewal_is_due() {
    let (_directory, authority) = authority();
    let now = SystemTime::now();

    let leaf = authority.issue(&reviews(), &[], Duration::from_secs(10), now).unwrap();

    assert!(crate::renewal::renew_at(leaf.not_before, leaf.not_after, 0.0) > now + Duration::from_secs(3));
    let none = authority.issue(&reviews(), &[], Duration::ZERO, now).unwrap_err();
    assert!(matches!(none, SignError::Lifetime { .. }), "{none}");
}

#[test]
fn host_names_stand_beside_the_identity() {
    let (_directory, authority) = authority();
    let hosts = ["localhost", "127.0.0.1", "::1"].map(|name| ServerName::try_from(name).unwrap());

    let leaf = authority.issue(&reviews(), &hosts, HOUR, SystemTime::now()).unwrap();

    let facts = Facts::parse(&leaf.chain[0]).unwrap();
    assert_eq!(facts.dns, ["localhost"]);
    assert_eq!(facts.ips, ["127.0.0.1", "::1"].map(|ip| ip.parse::<IpAddr>().unwrap()));
    assert_eq!(facts.identity().unwrap(), reviews());
    assert!(!facts.is_authority);
}

#[test]
fn every_certificate_has_its_own_serial_number() {
    let (_directory, authority) = authority();
    let made = KeyAndCsr::generate(&reviews()).unwrap();
    let serial = || {
        let chain = authority.sign(&made.der, &reviews(), HOUR, SystemTime::now()).unwrap();
        X509Certificate::from_der(&chain[0]).unwrap().1.serial.clone()
    };

    assert_ne!(serial(), serial());
}

#[test]
fn keys_are_for_their_owner_only_and_no_other_file_is_left() {
    let (directory, _) = authority();
    let mode = |name| fs::metadata(directory.path().join(name)).unwrap().permissions().mode() & 0o777;

    assert_eq!((mode(ROOT_KEY), mode(ISSUER_KEY)), (0o600, 0o600));
    assert_eq!(names(directory.path()), [ROOT, ROOT_KEY, ISSUER, ISSUER_KEY].map(String::from).into());
}

#[test]
fn after_a_restart_it_is_the_same_authority() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");

    let first = Authority::load_or_create(&path, &domain()).unwrap();
    let second = Authority::load_or_create(&path, &domain()).unwrap();
    let third = Authority::load(&path).unwrap();

    assert_eq!(first.bundle(), second.bundle());
    assert_eq!(first.root_sha256(), third.root_sha256());
    assert_eq!(first.issuer(), third.issuer());
    assert_eq!(third.trust_domain(), &domain());
    let leaf = third.issue(&reviews(), &[], HOUR, SystemTime::now()).unwrap();
    assert!(verify::peer(&leaf.chain, &first.bundle(), SystemTime::now(), Role::Server).is_ok());
}

#[test]
fn two_that_start_together_make_one_authority() {
    let directory = tempfile::tempdir().unwrap();

    let roots: BTreeSet<String> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| Authority::load_or_create(directory.path(), &domain()).unwrap().root_sha256())
            })
            .collect();
        started.into_iter().map(|thread| Fingerprint(thread.join().unwrap()).to_string()).collect()
    });

    assert_eq!(roots.len(), 1);
}

#[test]
fn an_authority_is_never_overwritten() {
    let (directory, first) = authority();

    let error = Authority::create(directory.path(), &domain()).unwrap_err();

    assert!(error.to_string().contains("ca-key.pem exists already"), "{error}");
    assert_eq!(Authority::load(directory.path()).unwrap().root_sha256(), first.root_sha256());
}

#[test]
fn the_authority_of_another_trust_domain_is_not_used() {
    let (directory, _) = authority();

    let error = Authority::load_or_create(directory.path(), &"elsewhere".parse().unwrap()).unwrap_err();

    assert!(error.to_string().contains("use --trust-domain cluster.local"), "{error}");
}

#[test]
fn an_exposed_key_is_not_loaded() {
    let (directory, _) = authority();
    let key = directory.path().join(ISSUER_KEY);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();

    let error = Authority::load(directory.path()).unwrap_err().to_string();

    assert!(error.contains("issuer-key.pem can be read by others") && error.contains("chmod 600"), "{error}");
}

#[test]
fn files_that_do_not_belong_together_are_not_loaded() {
    for (name, expected) in [
        (ROOT, "issuer.pem: "),
        (ISSUER, "issuer-key.pem: not the key of "),
        (ISSUER_KEY, "issuer-key.pem: not the key of "),
    ] {
        let ((mine, _), (theirs, _)) = (authority(), authority());
        fs::copy(theirs.path().join(name), mine.path().join(name)).unwrap();

        let error = Authority::load(mine.path()).unwrap_err().to_string();

        assert!(error.contains(expected), "{name}: {error}");
    }
}

#[test]
fn a_missing_authority_is_named_and_nothing_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");

    let error = Authority::load(&missing).unwrap_err().to_string();

    assert!(error.contains("missing: No such file"), "{error}");
    assert!(!missing.exists());
    let error = Authority::load(directory.path()).unwrap_err().to_string();
    assert!(error.contains("ca.pem: No such file"), "{error}");
    assert_eq!(names(directory.path()), BTreeSet::new());
}

#[test]
fn a_leaf_file_is_no_authority() {
    let (directory, authority) = authority();
    let leaf = authority.issue(&reviews(), &[], HOUR, SystemTime::now()).unwrap();
    files::write_public(
        &directory.path().join(ROOT),
        files::certificates_to_pem(&leaf.chain[..1]).as_bytes(),
    )
    .unwrap();

    let error = Authority::load(directory.path()).unwrap_err().to_string();

    assert!(error.contains("not the CA of a trust domain"), "{error}");
}

#[test]
fn an_issuer_near_its_end_is_replaced_under_the_same_root() {
    let (directory, first) = authority();
    let files = Files::of(directory.path());
    let later = SystemTime::now() + YEAR - ISSUER_RESERVE / 2;

    let renewed = files.load(later).unwrap();

    assert_eq!(renewed.root_sha256(), first.root_sha256());
    assert!(renewed.issuer_ends() > first.issuer_ends());
    let leaf = renewed.issue(&reviews(), &[], HOUR, later).unwrap();
    assert!(verify::peer(&leaf.chain, &first.bundle(), later, Role::Client).is_ok());
    assert_eq!(files.load(later).unwrap().issuer(), renewed.issuer());
}

#[test]
fn without_the_roots_key_an_issuer_serves_to_its_last_day() {
    let (directory, first) = authority();
    let files = Files::of(directory.path());
    fs::remove_file(directory.path().join(ROOT_KEY)).unwrap();

    let late = files.load(SystemTime::now() + YEAR - HOUR).unwrap();
    let too_late = files.load(SystemTime::now() + YEAR + HOUR).unwrap_err().to_string();

    assert_eq!(late.issuer(), first.issuer());
    assert!(too_late.contains("cannot read") && too_late.contains(ROOT_KEY), "{too_late}");
}

#[test]
fn only_root_and_key_are_needed_to_go_on() {
    let (directory, first) = authority();
    fs::remove_file(directory.path().join(ISSUER)).unwrap();
    fs::remove_file(directory.path().join(ISSUER_KEY)).unwrap();

    let again = Authority::load(directory.path()).unwrap();

    assert_eq!(again.root_sha256(), first.root_sha256());
    assert!(again.issue(&reviews(), &[], HOUR, SystemTime::now()).is_ok());
}

#[test]
fn an_expired_root_says_what_to_do() {
    let (directory, _) = authority();

    let error =
        Files::of(directory.path()).load(SystemTime::now() + ROOT_LIFE + HOUR).unwrap_err().to_string();

    assert!(error.contains("ca.pem expired at") && error.contains("make a new CA"), "{error}");
}

#[test]
fn a_key_that_is_made_for_a_leaf_is_pkcs8() {
    let (_directory, authority) = authority();

    let leaf = authority.issue(&reviews(), &[], HOUR, SystemTime::now()).unwrap();

    assert!(matches!(leaf.key, PrivateKeyDer::Pkcs8(_)));
    assert!(files::key_to_pem(&leaf.key).starts_with("-----BEGIN PRIVATE KEY-----\n"));
}
