use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::*;

const ROOT: [u8; 32] = [7; 32];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn grant() -> Grant {
    Grant {
        identity: "spiffe://cluster.local/ns/shop/sa/reviews".parse().unwrap(),
        workload: None,
        ttl: Duration::from_secs(60),
        once: false,
    }
}

struct Fixture {
    directory: tempfile::TempDir,
    attestor: Attestor,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let attestor = Attestor::open(directory.path(), &TrustDomain::default()).unwrap();
        Self { directory, attestor }
    }

    fn token(&self, grant: &Grant) -> Result<String, TokenError> {
        let key = TokenKey::load_or_create(self.directory.path()).unwrap();
        create(&key, grant, ROOT, now()).map(|(token, _)| token)
    }
}

#[test]
fn a_token_proves_what_it_was_made_for_until_it_expires() {
    let f = Fixture::new();
    let workload: WorkloadName = "shop/reviews-1".parse().unwrap();
    let token = f.token(&Grant { workload: Some(workload.clone()), ..grant() }).unwrap();

    let proof = f.attestor.verify(&token, now() + Duration::from_secs(59)).unwrap();
    assert_eq!((proof.identity, proof.workload), (grant().identity, Some(workload)));

    let expired = f.attestor.verify(&token, now() + Duration::from_secs(60)).unwrap_err();
    assert!(matches!(expired, TokenError::Expired(_)), "{expired}");
}

#[test]
fn its_holder_can_read_the_root_without_our_key() {
    let token = Fixture::new().token(&grant()).unwrap();

    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();

    assert_eq!(claims["root"], "07".repeat(32));
    assert_eq!(
        (&claims["td"], &claims["ns"], &claims["sa"]),
        (&"cluster.local".into(), &"shop".into(), &"reviews".into())
    );
}

#[test]
fn an_altered_token_proves_nothing() {
    let f = Fixture::new();
    let token = f.token(&grant()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let claims = String::from_utf8(URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    let other = URL_SAFE_NO_PAD.encode(claims.replace("reviews", "payment"));
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);

    let altered = f.attestor.verify(&format!("{}.{other}.{}", parts[0], parts[2]), now());
    assert!(matches!(altered, Err(TokenError::Altered)), "{altered:?}");
    for token in [format!("{unsigned}.{}.", parts[1]), "rubbish".into(), String::new()] {
        let refused = f.attestor.verify(&token, now());
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{refused:?}");
    }
}

#[test]
fn a_token_of_another_control_plane_or_trust_domain_proves_nothing() {
    let f = Fixture::new();
    let theirs = Fixture::new().token(&grant()).unwrap();
    let elsewhere =
        Grant { identity: "spiffe://other.example/ns/shop/sa/reviews".parse().unwrap(), ..grant() };

    assert!(matches!(f.attestor.verify(&theirs, now()), Err(TokenError::Altered)));
    let token = f.token(&elsewhere).unwrap();
    assert!(matches!(f.attestor.verify(&token, now()), Err(TokenError::OtherTrustDomain { .. })));
}

#[test]
fn nobody_becomes_the_control_plane() {
    let f = Fixture::new();
    let own = Grant { identity: control_plane_identity(&TrustDomain::default()), ..grant() };

    assert!(matches!(f.token(&own), Err(TokenError::Reserved(_))));
}

#[test]
fn a_token_names_a_workload_of_its_own_namespace_and_lasts_for_some_time() {
    let f = Fixture::new();
    let foreign = Grant { workload: Some("other/reviews".parse().unwrap()), ..grant() };

    assert!(matches!(f.token(&foreign), Err(TokenError::OtherNamespace { .. })));
    assert!(matches!(f.token(&Grant { ttl: Duration::ZERO, ..grant() }), Err(TokenError::Life(_))));
    assert!(matches!(f.token(&Grant { ttl: Duration::MAX, ..grant() }), Err(TokenError::Life(_))));
}

#[test]
fn a_token_for_one_use_is_used_once_even_across_a_restart() {
    let f = Fixture::new();
    let token = f.token(&Grant { once: true, ..grant() }).unwrap();
    let first = f.attestor.verify(&token, now()).unwrap();
    let second = f.attestor.verify(&token, now()).unwrap();

    f.attestor.redeem(&first, now(), || Ok::<_, TokenError>(())).unwrap();

    let again = f.attestor.redeem(&second, now(), || Ok::<_, TokenError>(()));
    assert!(matches!(again, Err(TokenError::Spent)), "{again:?}");
    let restarted = Attestor::open(f.directory.path(), &TrustDomain::default()).unwrap();
    assert!(matches!(restarted.verify(&token, now()), Err(TokenError::Spent)));
}

#[test]
fn what_fails_does_not_use_a_token_up() {
    let f = Fixture::new();
    let token = f.token(&Grant { once: true, ..grant() }).unwrap();
    let proof = f.attestor.verify(&token, now()).unwrap();

    f.attestor.redeem(&proof, now(), || Err::<(), _>(TokenError::Random)).unwrap_err();

    f.attestor.redeem(&proof, now(), || Ok::<_, TokenError>(())).unwrap();
}

#[test]
fn a_token_that_says_nothing_of_it_can_be_used_again() {
    let f = Fixture::new();
    let proof = f.attestor.verify(&f.token(&grant()).unwrap(), now()).unwrap();

    for _ in 0..2 {
        f.attestor.redeem(&proof, now(), || Ok::<_, TokenError>(())).unwrap();
    }
}
