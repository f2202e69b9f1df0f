//! The signatures of tokens (JSON Web Signatures, RFC 7515) and the keys that make them (RFC 7517).
//!
//! Only keys that come in two halves are known here, and each says itself which algorithms it is for: a token chooses
//! among those of the key, and never more. So `none` is no algorithm, and no public key can be taken for a secret.

mod keys;
#[cfg(test)]
mod tests;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use selvedge_model::token::{LONGEST_TOKEN, Token, TokenError};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::keys::{Key, KeySet, KeySetError};

/// A token as it is written, of which nobody knows yet who signed it.
#[derive(Debug, Clone)]
pub struct Unverified<'t> {
    /// What it says.
    pub token: Token,
    header: Header,
    /// What is signed.
    signed: &'t str,
    signature: &'t str,
}

/// The part of a token's header that counts.
#[derive(Debug, Clone, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood: none are.
    crit: Option<Value>,
}

impl<'t> Unverified<'t> {
    /// Reads `text`.
    ///
    /// # Errors
    /// If it is no JWT that is signed.
    pub fn read(text: &'t str) -> Result<Self, TokenError> {
        if text.len() > LONGEST_TOKEN {
            return Err(TokenError::TooLong);
        }
        let parts = text.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, payload) = signed.split_once('.')?;
            (!payload.contains('.')).then_some((signed, header, payload, signature))
        });
        let (signed, header, payload, signature) =
            parts.ok_or(TokenError::Malformed("it does not have three parts"))?;
        let header: Header = serde_json::from_slice(&bytes(header)?)
            .map_err(|_| TokenError::Malformed("its header is not what it must be"))?;
        if header.crit.is_some() {
            return Err(TokenError::Malformed("it asks for extensions that are not known here"));
        }
        let claims: Map<String, Value> = serde_json::from_slice(&bytes(payload)?)
            .map_err(|_| TokenError::Malformed("its claims are no JSON object"))?;
        Ok(Self { token: Token::new(claims, payload)?, header, signed, signature })
    }

    /// The token, if a key of `keys` has signed it.
    ///
    /// # Errors
    /// If none has.
    pub fn signed_by(self, keys: &KeySet) -> Result<Token, TokenError> {
        let Header { alg, kid, .. } = &self.header;
        keys.verify(alg, kid.as_deref(), self.signed.as_bytes(), self.signature)?;
        Ok(self.token)
    }
}

fn bytes(part: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part of it is not Base64 for URLs"))
}
