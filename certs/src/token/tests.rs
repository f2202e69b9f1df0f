//! Tokens of every algorithm, and what must not pass for one.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RsaKeyPair,
    },
};
use jsonwebtoken::{Algorithm, EncodingKey, Header as Written};
use selvedge_model::token::{LONGEST_KEY_SET, MOST_KEYS};
use serde_json::json;

use super::*;

/// A key pair: its public half, and a way to sign.
struct Pair {
    jwk: Value,
    signing: EncodingKey,
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn rsa() -> Pair {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let public = pair.public_key();
    let (n, e) = (
        public.modulus().big_endian_without_leading_zero(),
        public.exponent().big_endian_without_leading_zero(),
    );
    let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).unwrap();
    // PKCS #8 holds what PKCS #1 is behind a header of 26 bytes.
    let der = &der.as_ref()[26..];
    Pair {
        jwk: json!({ "kty": "RSA", "kid": "rsa", "n": base64(n), "e": base64(e) }),
        signing: EncodingKey::from_rsa_der(der),
    }
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm, curve: &str, size: usize) -> Pair {
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).unwrap();
    let (x, y) = pair.public_key().as_ref()[1..].split_at(size);
    Pair {
        jwk: json!({ "kty": "EC", "crv": curve, "kid": curve, "x": base64(x), "y": base64(y) }),
        signing: EncodingKey::from_ec_der(pkcs8.as_ref()),
    }
}

fn p256() -> Pair {
    ec(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", 32)
}

fn ed25519() -> Pair {
    let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
    Pair {
        jwk: json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64(pair.public_key().as_ref()) }),
        signing: EncodingKey::from_ed_der(pkcs8.as_ref()),
    }
}

impl Pair {
    fn sign_as(&self, algorithm: Algorithm, kid: Option<&str>) -> String {
        let header = Written { kid: kid.map(str::to_owned), ..Written::new(algorithm) };
        jsonwebtoken::encode(&header, &json!({ "iss": "a", "sub": "b" }), &self.signing).unwrap()
    }

    fn kid(&self) -> Option<&str> {
        self.jwk["kid"].as_str()
    }
}

fn set(keys: &[&Value]) -> KeySet {
    KeySet::read(&json!({ "keys": keys }).to_string()).unwrap()
}

fn verified(text: &str, keys: &KeySet) -> Result<Token, TokenError> {
    Unverified::read(text)?.signed_by(keys)
}

/// A token with this header, these claims and this signature.
fn raw(header: &Value, claims: &Value, signature: &str) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    format!("{}.{}.{signature}", part(header), part(claims))
}

#[test]
fn every_algorithm_with_two_keys_is_verified() {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let p384 = ec(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", 48);
    let rsa_algorithms = vec![RS256, RS384, RS512, PS256, PS384, PS512];
    for (pair, algorithms) in
        [(rsa(), rsa_algorithms), (p256(), vec![ES256]), (p384, vec![ES384]), (ed25519(), vec![EdDSA])]
    {
        let (keys, other) = (set(&[&pair.jwk]), set(&[&p256().jwk]));
        for algorithm in algorithms {
            let token = pair.sign_as(algorithm, pair.kid());
            assert_eq!(verified(&token, &keys).unwrap().principal(), Some("a/b"), "{algorithm:?}");
            assert_eq!(verified(&pair.sign_as(algorithm, None), &keys).unwrap().issuer(), "a");
            assert!(verified(&token, &other).is_err(), "{algorithm:?}");
        }
    }
}

#[test]
fn no_algorithm_and_no_public_key_as_a_secret() {
    let pair = rsa();
    let keys = set(&[&pair.jwk]);
    let claims = json!({ "iss": "a", "sub": "b" });
    for alg in ["none", "None", "", "HS256", "hs256", "RS1", "rs256"] {
        for signature in ["", "AAAA"] {
            let token = raw(&json!({ "alg": alg }), &claims, signature);
            assert_eq!(verified(&token, &keys), Err(TokenError::Algorithm), "{alg}");
        }
    }
    // Whoever knows the public key signs with it, in each of its forms, as if it were a secret.
    for secret in
        [pair.jwk.to_string(), pair.jwk["n"].to_string(), pair.jwk["n"].as_str().unwrap().to_owned()]
    {
        for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
            let key = EncodingKey::from_secret(secret.as_bytes());
            let header = Written { kid: Some("rsa".to_owned()), ..Written::new(algorithm) };
            let token = jsonwebtoken::encode(&header, &claims, &key).unwrap();
            assert_eq!(verified(&token, &keys), Err(TokenError::Algorithm));
        }
    }
}

#[test]
fn a_changed_token_is_refused() {
    let pair = p256();
    let keys = set(&[&pair.jwk]);
    let token = pair.sign_as(Algorithm::ES256, pair.kid());
    let parts: Vec<&str> = token.split('.').collect();
    let other = base64(json!({ "iss": "a", "sub": "admin" }).to_string().as_bytes());

    assert_eq!(verified(&format!("{}.{other}.{}", parts[0], parts[2]), &keys), Err(TokenError::Signature));
    assert_eq!(verified(&format!("{}.{}.AAAA", parts[0], parts[1]), &keys), Err(TokenError::Signature));
    assert_eq!(verified(&pair.sign_as(Algorithm::ES256, Some("other")), &keys), Err(TokenError::UnknownKey));
    for odd in [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c.d",
        &format!("{}.", parts[0]),
        &format!("{token}="),
        &format!("{token}."),
    ] {
        let refused = verified(odd, &keys);
        assert!(
            matches!(refused, Err(TokenError::Malformed(_) | TokenError::Signature)),
            "{odd}: {refused:?}"
        );
    }
    let critical = raw(&json!({ "alg": "ES256", "crit": ["b64"] }), &json!({}), "AAAA");
    assert!(matches!(verified(&critical, &keys), Err(TokenError::Malformed(_))));
    let long = format!("{}.{}", "a".repeat(LONGEST_TOKEN), token);
    assert_eq!(verified(&long, &keys), Err(TokenError::TooLong));
}

#[test]
fn a_key_is_used_only_for_what_it_says() {
    let pair = rsa();
    let with = |field: &str, value: Value| {
        let mut jwk = pair.jwk.clone();
        jwk[field] = value;
        jwk
    };
    let token = pair.sign_as(Algorithm::RS256, pair.kid());

    let only = set(&[&with("alg", json!("PS256"))]);
    assert_eq!(verified(&token, &only), Err(TokenError::UnknownKey));
    assert!(verified(&pair.sign_as(Algorithm::PS256, pair.kid()), &only).is_ok());
    for odd in [
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("HS256")),
        with("alg", json!("RSA-OAEP")),
        with("kty", json!("oct")),
        json!({ "kty": "oct", "k": base64(b"secret") }),
        json!({ "kty": "EC", "crv": "P-521", "x": "AA", "y": "AA" }),
        json!(7),
    ] {
        let read = KeySet::read(&json!({ "keys": [odd] }).to_string());
        assert!(matches!(read, Err(KeySetError::NoneUsable(_))), "{odd}");
        let beside = set(&[&odd, &pair.jwk]);
        assert_eq!(beside.unusable().len(), 1);
        assert!(verified(&token, &beside).is_ok());
    }
}

#[test]
fn what_is_no_set_of_keys_says_why() {
    let read = |text: &str| KeySet::read(text).unwrap_err().to_string();

    assert!(read("{").contains("is not a JSON Web Key Set"));
    assert!(read("[]").contains("is not a JSON Web Key Set"));
    assert!(read(r#"{"keys": {}}"#).contains("write {\"keys\": [...]}"));
    assert!(read(r#"{"keys": []}"#).contains("has no key"));
    assert!(read(&json!({ "keys": vec![1; MOST_KEYS + 1] }).to_string()).contains("are allowed"));
    assert!(read(&" ".repeat(LONGEST_KEY_SET + 1)).contains("are allowed"));
}
