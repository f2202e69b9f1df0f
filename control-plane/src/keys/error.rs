//! Why keys cannot be fetched. No words repeat what came in an answer: who wrote the document may not be allowed to see it.

use std::{io, net::IpAddr, time::Duration};

use http::StatusCode;
use selvedge_certs::{tls::OutsideError, token::KeySetError};
use selvedge_model::token::MOST_KEYS;
use selvedge_ops::ResolveError;

use crate::resources::BadUrl;

/// Why one fetch failed. The words follow "cannot be fetched: ".
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// There is no such URL.
    #[error("it {0}")]
    Url(#[from] BadUrl),
    /// Its host has no address.
    #[error("its host {0}")]
    Name(#[from] ResolveError),
    /// Its host has only addresses that are not asked.
    #[error("its host has the address {address}, and nothing is fetched from {why}")]
    Refused { address: IpAddr, why: &'static str },
    /// Nobody listens there, or nobody answers.
    #[error("no connection to {address}: {source}")]
    Connect { address: IpAddr, source: io::Error },
    /// Nobody's certificate could be trusted here.
    #[error("no certificate authorities are known here")]
    NoAuthorities,
    /// TLS cannot be set up here.
    #[error("TLS cannot be used: {0}")]
    Tls(OutsideError),
    /// The server does not prove that it is the host.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// What comes back is not an answer.
    #[error("there is no HTTP answer: {0}")]
    Http(#[from] hyper::Error),
    /// The answer came not, or not all of it.
    #[error("the answer broke off")]
    BrokeOff,
    /// It took too long.
    #[error("it took longer than {0:?} (timeout)")]
    Timeout(Duration),
    /// The server has something else to say.
    #[error("the server answered with status {}", .0.as_u16())]
    Status(StatusCode),
    /// The answer is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    /// One redirect after another.
    #[error("the server redirects more than {0} times")]
    Redirects(usize),
    /// A redirect that cannot be followed.
    #[error("the server redirects to a place whose URL {0}")]
    Redirect(BadUrl),
    /// A redirect that says not where to.
    #[error("the server redirects to nowhere")]
    Nowhere,
    /// What was asked for over TLS would come in plaintext.
    #[error("the server leads from https to http")]
    Downgrade,
    /// The answer is not a set of keys.
    #[error("the answer is not a JSON Web Key Set")]
    NotKeys,
    /// The set has too many.
    #[error("the answer has more than {MOST_KEYS} keys")]
    TooManyKeys,
    /// It has none that can be used.
    #[error("the answer has no public key that can verify signatures")]
    NoUsableKey,
    /// What the issuer says of itself cannot be read.
    #[error("the issuer's OpenID configuration is not JSON with a jwks_uri")]
    NotConfiguration,
    /// It is another's.
    #[error("the OpenID configuration is that of another issuer")]
    OtherIssuer,
    /// It names keys that cannot be fetched.
    #[error("the jwks_uri of the issuer's OpenID configuration {0}")]
    JwksUri(BadUrl),
}

impl FetchError {
    /// What to do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Url(_) => "Correct the URL",
            Self::Name(_) => "Correct the host, or let the control plane's DNS know it",
            Self::Refused { .. } => "Name a host of the issuer's, or write the keys into jwks",
            Self::Connect { .. } | Self::BrokeOff | Self::Timeout(_) => {
                "Let the control plane reach the server, or write the keys into jwks"
            }
            Self::NoAuthorities | Self::Tls(_) => {
                "Give the control plane certificate authorities (--jwks-ca)"
            }
            Self::Handshake(_) => {
                "Let the control plane trust the server's authority (--jwks-ca), or write the keys into jwks"
            }
            Self::OtherIssuer | Self::NotConfiguration | Self::JwksUri(_) => {
                "Write the issuer as its own configuration has it, or add jwksUri or jwks"
            }
            _ => "Let the URL lead to the issuer's keys, or write them into jwks",
        }
    }
}

impl From<OutsideError> for FetchError {
    fn from(error: OutsideError) -> Self {
        match error {
            OutsideError::NoSystemRoots { .. } => Self::NoAuthorities,
            error => Self::Tls(error),
        }
    }
}

impl From<KeySetError> for FetchError {
    /// Without its words: they repeat what was read.
    fn from(error: KeySetError) -> Self {
        match error {
            KeySetError::TooLong(_) => Self::TooLong(selvedge_model::token::LONGEST_KEY_SET),
            KeySetError::Malformed(_) => Self::NotKeys,
            KeySetError::TooMany(_) => Self::TooManyKeys,
            KeySetError::NoneUsable(_) => Self::NoUsableKey,
        }
    }
}
