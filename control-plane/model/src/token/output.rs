//! What an app is told of an accepted token, in headers that no client can write.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Token, TokenRule};

/// A header that carries a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimHeader {
    /// Its name.
    pub name: HeaderName,
    /// The names that lead from claim to claim.
    pub claim: Vec<Box<str>>,
}

impl Serialize for ClaimHeader {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}: {}", self.name, self.claim.join(".")))
    }
}

impl TokenRule {
    /// The headers that it writes.
    pub fn outputs(&self) -> impl Iterator<Item = &HeaderName> {
        self.payload_header.iter().chain(self.claim_headers.iter().map(|header| &header.name))
    }

    /// Writes its headers of `token`. What clients have written there has been removed before.
    pub(super) fn write(&self, token: &Token, headers: &mut HeaderMap) {
        if let Some(name) = &self.payload_header
            && let Ok(value) = HeaderValue::try_from(token.payload())
        {
            headers.insert(name, value);
        }
        for ClaimHeader { name, claim } in &self.claim_headers {
            let value = token.claim(claim).and_then(words).map(HeaderValue::try_from);
            if let Some(Ok(value)) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// A claim as a header has it, as in Envoy: a list or a map as JSON in Base64. `None`: there is nothing to say.
fn words(claim: &Value) -> Option<String> {
    Some(match claim {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => claim.to_string(),
        Value::Array(_) | Value::Object(_) => base64(claim.to_string().as_bytes()),
    })
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let group = three.iter().fold(0_u32, |group, byte| group << 8 | u32::from(*byte));
        let group = group << (8 * (3 - three.len()));
        for place in 0..4 {
            let index = usize::try_from(group >> (18 - 6 * place) & 63).unwrap_or_default();
            text.push(if place > three.len() { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

/// Whether an app may take a header called `name` for one called `ours`: to CGI, WSGI, Rack and PHP all marks are `_`.
pub fn reads_as(name: &HeaderName, ours: &HeaderName) -> bool {
    let (name, ours) = (name.as_str().as_bytes(), ours.as_str().as_bytes());
    let same = |(one, other): (&u8, &u8)| {
        one == other || (!one.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric())
    };
    name.len() == ours.len() && name.iter().zip(ours).all(same)
}
