//! Sets of public keys (JWKS).

use jsonwebtoken::{
    Algorithm, DecodingKey, crypto,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use selvedge_model::token::{LONGEST_KEY_SET, MOST_KEYS, TokenError};
use serde::Deserialize;
use serde_json::Value;

const RSA: [(&str, Algorithm); 6] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
];
const P256: [(&str, Algorithm); 1] = [("ES256", Algorithm::ES256)];
const P384: [(&str, Algorithm); 1] = [("ES384", Algorithm::ES384)];
const ED25519: [(&str, Algorithm); 1] = [("EdDSA", Algorithm::EdDSA)];

/// The keys of one issuer.
#[derive(Debug, Clone)]
pub struct KeySet {
    keys: Vec<Key>,
    unusable: Vec<String>,
}

/// A public key.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    /// What it may be used with: never an algorithm of another kind of keys.
    algorithms: Vec<(&'static str, Algorithm)>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

/// Why a text is no set of keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is too long.
    #[error("is {0} bytes long; {LONGEST_KEY_SET} are allowed")]
    TooLong(usize),
    /// It is something else.
    #[error("is not a JSON Web Key Set: {0}; write {{\"keys\": [...]}} with the public keys of the issuer")]
    Malformed(String),
    /// It has too many.
    #[error("has {0} keys; {MOST_KEYS} are allowed")]
    TooMany(usize),
    /// None of its keys can be used.
    #[error(
        "has no key that can verify signatures{0}; use public RSA keys of at least 2048 bits, P-256, P-384 or Ed25519 keys"
    )]
    NoneUsable(String),
}

#[derive(Deserialize)]
struct Written {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JSON Web Key Set.
    ///
    /// # Errors
    /// If it is none, or has no key that can be used.
    pub fn read(text: &str) -> Result<Self, KeySetError> {
        if text.len() > LONGEST_KEY_SET {
            return Err(KeySetError::TooLong(text.len()));
        }
        let written: Written =
            serde_json::from_str(text).map_err(|error| KeySetError::Malformed(error.to_string()))?;
        if written.keys.len() > MOST_KEYS {
            return Err(KeySetError::TooMany(written.keys.len()));
        }
        let (mut keys, mut unusable) = (Vec::new(), Vec::new());
        for (place, key) in written.keys.into_iter().enumerate() {
            let id = key.get("kid").and_then(Value::as_str).map(|id| format!(" ({id})")).unwrap_or_default();
            match Key::read(key) {
                Ok(key) => keys.push(key),
                Err(why) => unusable.push(format!("key {}{id} {why}", place + 1)),
            }
        }
        if keys.is_empty() {
            let why = unusable.first().map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(KeySetError::NoneUsable(why));
        }
        Ok(Self { keys, unusable })
    }

    /// Which of its keys are not used, each with the reason.
    pub fn unusable(&self) -> &[String] {
        &self.unusable
    }

    /// Checks that a key called `id` has signed `signed` with the algorithm `named`. Keys without a name are tried for
    /// every name.
    pub(super) fn verify(
        &self,
        named: &str,
        id: Option<&str>,
        signed: &[u8],
        signature: &str,
    ) -> Result<(), TokenError> {
        if ![&RSA[..], &P256, &P384, &ED25519].concat().iter().any(|(word, _)| *word == named) {
            return Err(TokenError::Algorithm);
        }
        let is_called_so = |key: &&Key| id.is_none() || key.id.is_none() || key.id.as_deref() == id;
        let called_so = self.keys.iter().filter(is_called_so);
        let fitting = called_so.filter_map(|key| Some((key, key.algorithm(named)?)));
        let mut failed = TokenError::UnknownKey;
        for (key, algorithm) in fitting {
            if crypto::verify(signature, signed, &key.key, algorithm).unwrap_or(false) {
                return Ok(());
            }
            failed = TokenError::Signature;
        }
        Err(failed)
    }
}

impl Key {
    fn read(written: Value) -> Result<Self, String> {
        let jwk: Jwk = serde_json::from_value(written).map_err(|error| format!("cannot be read: {error}"))?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return Err("is not for signatures (use)".to_owned());
        }
        let operations = jwk.common.key_operations.as_ref();
        if !operations.is_none_or(|allowed| allowed.contains(&KeyOperations::Verify)) {
            return Err("is not for verifying (key_ops)".to_owned());
        }
        let mut algorithms = algorithms(&jwk.algorithm)?.to_vec();
        if let Some(only) = jwk.common.key_algorithm {
            let only = only.to_string();
            algorithms.retain(|(word, _)| *word == only);
            if algorithms.is_empty() {
                return Err(format!("is for {only}, which such a key cannot do or which is not accepted"));
            }
        }
        let key = DecodingKey::from_jwk(&jwk).map_err(|error| format!("cannot be read: {error}"))?;
        Ok(Self { id: jwk.common.key_id, algorithms, key })
    }

    fn algorithm(&self, named: &str) -> Option<Algorithm> {
        self.algorithms.iter().find(|(word, _)| *word == named).map(|(_, algorithm)| *algorithm)
    }
}

/// What such a key may be used with.
fn algorithms(parameters: &AlgorithmParameters) -> Result<&'static [(&'static str, Algorithm)], String> {
    match parameters {
        AlgorithmParameters::RSA(_) => Ok(&RSA),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Ok(&P256),
            EllipticCurve::P384 => Ok(&P384),
            ref curve => Err(format!("is on the curve {curve:?}, which is not accepted")),
        },
        AlgorithmParameters::OctetKeyPair(key) => match key.curve {
            EllipticCurve::Ed25519 => Ok(&ED25519),
            ref curve => Err(format!("is on the curve {curve:?}, which is not accepted")),
        },
        AlgorithmParameters::OctetKey(_) => {
            Err("is a secret (oct): whoever verifies with it could sign, too".to_owned())
        }
    }
}
