//! Against a server that publishes keys as the API server does.

use std::time::UNIX_EPOCH;

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};

use super::*;
use crate::cluster::canned::Canned;

const ISSUER: &str = "https://kubernetes.default.svc";

/// A key of the cluster's.
struct Key {
    name: &'static str,
    signing: EncodingKey,
    jwk: Value,
}

impl Key {
    fn new(name: &'static str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
        // Uncompressed: a byte that says so, then both coordinates.
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let jwk = json!({
            "kty": "EC", "crv": "P-256", "kid": name, "use": "sig", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        });
        Self { name, signing: EncodingKey::from_ec_der(pkcs8.as_ref()), jwk }
    }

    fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.name.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &self.signing).unwrap()
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// What the API server says of a pod's token, good from now on for an hour.
fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": [AUDIENCE], "sub": "system:serviceaccount:shop:reviews",
        "iat": 1_800_000_000_u64, "nbf": 1_800_000_000_u64, "exp": 1_800_003_600_u64,
        "kubernetes.io": {
            "namespace": "shop",
            "serviceaccount": { "name": "reviews", "uid": "1" },
            "pod": { "name": "reviews-1", "uid": "2" },
        },
    })
}

async fn publishing(keys: &[&Key]) -> (Canned, Keys) {
    let server = Canned::start().await;
    publish(&server, keys);
    let keys = Keys::new(server.client().await);
    (server, keys)
}

fn publish(server: &Canned, keys: &[&Key]) {
    let keys: Vec<_> = keys.iter().map(|key| key.jwk.clone()).collect();
    server.say(DISCOVERY, json!({ "issuer": ISSUER, "jwks_uri": format!("{ISSUER}{JWKS}") }));
    server.say(JWKS, json!({ "keys": keys }));
}

#[tokio::test]
async fn what_the_cluster_has_signed_for_us_is_believed() {
    let key = Key::new("a");
    let (_server, keys) = publishing(&[&Key::new("b"), &key]).await;

    let found = keys.verify(&key.sign(&claims()), now()).await.unwrap();

    let pod = found.kubernetes.pod.map(|pod| pod.name);
    assert_eq!((found.kubernetes.namespace.as_str(), pod.as_deref()), ("shop", Some("reviews-1")));
}

#[tokio::test]
async fn what_is_not_for_us_or_not_for_now_is_not() {
    let key = Key::new("a");
    let (_server, keys) = publishing(&[&key]).await;
    let with = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        key.sign(&claims)
    };
    let refused = async |token: String| keys.verify(&token, now()).await.unwrap_err();

    let elsewhere = refused(with("iss", "https://other.example".into())).await;
    assert!(matches!(elsewhere, TokenError::Issuer { .. }), "{elsewhere}");
    let other = refused(with("aud", json!([ISSUER]))).await;
    assert!(matches!(other, TokenError::Audience(_)), "{other}");
    let late = refused(with("exp", 1_800_000_000_u64.into())).await;
    assert!(matches!(late, TokenError::ExpiredServiceAccount(_)), "{late}");
    let early = refused(with("nbf", 1_800_000_061_u64.into())).await;
    assert!(matches!(early, TokenError::NotYet(_)), "{early}");
    // Our clock may be a minute late.
    keys.verify(&with("nbf", 1_800_000_060_u64.into()), now()).await.unwrap();
    // The kind that is kept in Secrets, for ever and for everybody.
    let old = json!({ "iss": "kubernetes/serviceaccount", "sub": "system:serviceaccount:shop:reviews" });
    let old = refused(key.sign(&old)).await;
    assert!(matches!(old, TokenError::Malformed(_)), "{old}");
}

#[tokio::test]
async fn a_key_that_is_published_for_something_else_signs_nothing() {
    for (field, value) in [
        ("use", json!("enc")),
        ("use", json!("tls")),
        ("key_ops", json!(["encrypt", "wrapKey"])),
        ("alg", json!("ES384")),
        ("alg", json!("RSA-OAEP")),
        ("alg", json!("HS256")),
    ] {
        let mut key = Key::new("a");
        key.jwk[field] = value.clone();
        let (_server, keys) = publishing(&[&Key::new("b"), &key]).await;

        let refused = keys.verify(&key.sign(&claims()), now()).await;

        assert!(matches!(refused, Err(TokenError::Signature(_))), "{field} {value}: {refused:?}");
    }
}

#[tokio::test]
async fn a_key_that_says_that_it_verifies_does_so() {
    let mut key = Key::new("a");
    let jwk = key.jwk.as_object_mut().unwrap();
    jwk.remove("use");
    jwk.insert("key_ops".into(), json!(["verify"]));
    let (_server, keys) = publishing(&[&key]).await;

    keys.verify(&key.sign(&claims()), now()).await.unwrap();
}

#[tokio::test]
async fn a_forged_token_proves_nothing() {
    let (real, forger) = (Key::new("a"), Key::new("a"));
    let (_server, keys) = publishing(&[&real]).await;
    let hmac = jsonwebtoken::encode(
        &Header { kid: Some("a".to_owned()), ..Header::new(Algorithm::HS256) },
        &claims(),
        // What everybody can read.
        &EncodingKey::from_secret(real.jwk["x"].as_str().unwrap().as_bytes()),
    );
    let token = real.sign(&claims());
    let (head, rest) = token.split_once('.').unwrap();
    let (_, signature) = rest.split_once('.').unwrap();
    let mut other = claims();
    other["sub"] = "system:serviceaccount:shop:payment".into();
    let altered = format!("{head}.{}.{signature}", URL_SAFE_NO_PAD.encode(other.to_string()));
    let unsigned = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","kid":"a"}"#);

    for token in [forger.sign(&claims()), hmac.unwrap(), altered] {
        let refused = keys.verify(&token, now()).await;
        assert!(matches!(refused, Err(TokenError::Signature(_))), "{refused:?}");
    }
    for token in [format!("{unsigned}.{}.", rest.split('.').next().unwrap()), "rubbish".to_owned()] {
        let refused = keys.verify(&token, now()).await;
        assert!(matches!(refused, Err(TokenError::Malformed(_))), "{refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_asked_for_but_not_at_every_strangers_word() {
    let (old, new) = (Key::new("a"), Key::new("b"));
    let (server, keys) = publishing(&[&old]).await;
    keys.verify(&old.sign(&claims()), now()).await.unwrap();
    publish(&server, &[&old, &new]);

    // Asked for a moment ago: what strangers name is not looked for.
    let refused = keys.verify(&new.sign(&claims()), now()).await;
    assert!(matches!(refused, Err(TokenError::Signature(_))), "{refused:?}");
    assert_eq!(server.asked(JWKS), 1);

    tokio::time::advance(PAUSE).await;
    keys.verify(&new.sign(&claims()), now()).await.unwrap();
    keys.verify(&old.sign(&claims()), now()).await.unwrap();
    assert_eq!(server.asked(JWKS), 2);
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_key_is_forgotten_unless_nobody_answers() {
    let (old, new) = (Key::new("a"), Key::new("b"));
    let (server, keys) = publishing(&[&old]).await;
    keys.verify(&old.sign(&claims()), now()).await.unwrap();

    server.say_nothing(JWKS);
    tokio::time::advance(OLD).await;
    keys.verify(&old.sign(&claims()), now()).await.unwrap();

    publish(&server, &[&new]);
    tokio::time::advance(PAUSE).await;
    let refused = keys.verify(&old.sign(&claims()), now()).await;
    assert!(matches!(refused, Err(TokenError::Signature(_))), "{refused:?}");
}

#[tokio::test]
async fn without_keys_nothing_is_believed_and_it_is_said_why() {
    let server = Canned::start().await;
    let keys = Keys::new(server.client().await);

    let error = keys.verify(&Key::new("a").sign(&claims()), now()).await.unwrap_err();

    assert!(matches!(&error, TokenError::Keys(_)), "{error}");
    assert!(error.to_string().contains("system:service-account-issuer-discovery"), "{error}");
}
