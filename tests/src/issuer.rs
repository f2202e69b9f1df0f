//! An issuer of tokens (JWT): its keys, and tokens that they sign.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::KeySize,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

/// A key pair of an issuer.
#[derive(Clone)]
pub struct IssuerKey {
    /// The public half.
    pub jwk: Value,
    algorithm: Algorithm,
    signing: EncodingKey,
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("IssuerKey").field(&self.jwk).finish()
    }
}

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

impl IssuerKey {
    /// An ECDSA key called `id`, for ES256.
    pub fn p256(id: &str) -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).expect("that key");
        // Uncompressed: a byte that says so, then both coordinates.
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        Self {
            jwk: json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": base64(x), "y": base64(y) }),
            algorithm: Algorithm::ES256,
            signing: EncodingKey::from_ec_der(pkcs8.as_ref()),
        }
    }

    /// An Ed25519 key called `id`.
    pub fn ed25519(id: &str) -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("that key");
        Self {
            jwk: json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64(pair.public_key().as_ref()) }),
            algorithm: Algorithm::EdDSA,
            signing: EncodingKey::from_ed_der(pkcs8.as_ref()),
        }
    }

    /// An RSA key called `id`, for RS256.
    pub fn rsa(id: &str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let public = pair.public_key();
        let n = public.modulus().big_endian_without_leading_zero();
        let e = public.exponent().big_endian_without_leading_zero();
        let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).expect("that key");
        Self {
            jwk: json!({ "kty": "RSA", "kid": id, "n": base64(n), "e": base64(e) }),
            algorithm: Algorithm::RS256,
            // PKCS #8 holds what PKCS #1 is behind a header of 26 bytes.
            signing: EncodingKey::from_rsa_der(&pkcs8.as_ref()[26..]),
        }
    }

    /// A token that says `claims`.
    pub fn sign(&self, claims: &Value) -> String {
        let kid = self.jwk["kid"].as_str().map(str::to_owned);
        let header = Header { kid, ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.signing).expect("claims are JSON")
    }

    /// A token that says `claims`, signed with HMAC and `secret`, as if that were this key.
    pub fn sign_with_secret(&self, claims: &Value, secret: &[u8]) -> String {
        let kid = self.jwk["kid"].as_str().map(str::to_owned);
        let header = Header { kid, ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(secret)).expect("claims are JSON")
    }
}

/// A token without a signature, whose header says `alg`.
pub fn unsigned(alg: &str, claims: &Value) -> String {
    let part = |value: &Value| base64(value.to_string().as_bytes());
    format!("{}.{}.", part(&json!({ "alg": alg, "typ": "JWT" })), part(claims))
}

/// A set of public keys.
pub fn key_set(keys: &[&IssuerKey]) -> String {
    let keys: Vec<_> = keys.iter().map(|key| &key.jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// `part` of a token as JSON: 0 is its header, 1 its claims.
pub fn part(token: &str, part: usize) -> Value {
    let text = token.split('.').nth(part).expect("three parts");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("Base64")).expect("JSON")
}
