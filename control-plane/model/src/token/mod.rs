//! Tokens of requests (JWT, RFC 7519): where they are looked for, whose are accepted, and what an accepted one says.
//!
//! Everything but the signature is decided here. Who asks brings the check of signatures along, so that this stays
//! pure: see [`Authentication::authenticate`].

mod claims;
mod output;
mod places;
mod rule;

use std::{fmt, sync::Arc};

pub use self::{
    claims::Token,
    output::{ClaimHeader, reads_as},
    places::{HeaderPlace, Places},
    rule::{Accepted, Authentication, Keys, Refused, TokenRule},
};

/// The longest token that is read, in bytes; a longer one is refused.
pub const LONGEST_TOKEN: usize = 16 * 1024;
/// The most tokens that one request may have in the places of one rule; with more it is refused.
pub const MOST_TOKENS: usize = 8;
/// The longest set of keys (JWKS), in bytes.
pub const LONGEST_KEY_SET: usize = 128 * 1024;
/// The most keys in one set.
pub const MOST_KEYS: usize = 100;
/// The most rules about tokens that one workload may have.
pub const MOST_TOKEN_RULES: usize = 100;
/// The most audiences, places or headers that one rule may list.
pub const MOST_LISTED: usize = 100;
/// How far the clock of an issuer may be off, in seconds: as in Envoy.
pub const CLOCK_SKEW: u64 = 60;

/// Why a token is not accepted. None of the words name a document, or repeat what is in the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenError {
    /// It is no JWT that is signed; why not.
    Malformed(&'static str),
    /// It is longer than [`LONGEST_TOKEN`].
    TooLong,
    /// The request has more than [`MOST_TOKENS`].
    TooMany,
    /// No rule is about tokens of its issuer.
    Issuer,
    /// It is for another audience.
    Audience,
    /// Its time is over.
    Expired,
    /// Its time has not come.
    NotYet,
    /// It is signed in a way that is not accepted: with a secret, not at all, or unknown here.
    Algorithm,
    /// It names a key that its issuer does not have, or not for its algorithm.
    UnknownKey,
    /// None of its issuer's keys has signed it.
    Signature,
    /// The keys of its issuer are not known; why not, for operators.
    NoKeys(Arc<str>),
}

impl TokenError {
    /// Whether newer keys of its issuer could make it acceptable: it names a key that is not among those that are known.
    pub fn asks_for_newer_keys(&self) -> bool {
        matches!(self, Self::UnknownKey)
    }

    /// How much is known of the token: of several failures, the one with the highest rank says most.
    pub(self) fn rank(&self) -> u8 {
        match self {
            Self::Issuer => 0,
            Self::Malformed(_) => 1,
            _ => 2,
        }
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(why) => write!(f, "the token is not a signed JWT: {why}"),
            Self::TooLong => write!(f, "the token is longer than {LONGEST_TOKEN} bytes"),
            Self::TooMany => write!(f, "the request has more than {MOST_TOKENS} tokens"),
            Self::Issuer => f.write_str("the token is of an issuer that is not accepted"),
            Self::Audience => f.write_str("the token is for another audience"),
            Self::Expired => f.write_str("the token has expired"),
            Self::NotYet => f.write_str("the token is not valid yet"),
            Self::Algorithm => f.write_str(
                "the token is not signed with an accepted algorithm (RS, PS, ES256, ES384 or EdDSA)",
            ),
            Self::UnknownKey => f.write_str("the token is signed with a key that its issuer does not have"),
            Self::Signature => f.write_str("the token's signature is wrong"),
            Self::NoKeys(_) => f.write_str("the keys of the token's issuer are not known"),
        }
    }
}

impl std::error::Error for TokenError {}

#[cfg(test)]
mod tests;
