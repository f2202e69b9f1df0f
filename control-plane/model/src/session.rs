//! Sessions that stay at the endpoint that their first request met (Gateway API `sessionPersistence`).
//!
//! Unlike a [consistent hash](crate::balancing::ConsistentHash), the session names its endpoint, so it stays there
//! whichever other endpoints come or leave. What names it is encrypted with a key that all proxies of the rule have, so a
//! client can neither read an address from it nor choose one.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

/// What a rule's `sessionPersistence` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SessionPersistence {
    /// The name of the cookie, or of the header in lower case.
    pub name: String,
    /// What carries it.
    pub carrier: SessionCarrier,
    /// How long a session lasts, however much it is used; `None`: no limit.
    pub absolute_timeout: Option<Duration>,
    /// How long it lasts without a request; `None`: no limit.
    pub idle_timeout: Option<Duration>,
    /// Whether a session whose endpoint fails goes on at the one that answered instead. If not, it comes back.
    pub moves_on_failure: bool,
    /// What its tokens are encrypted with.
    pub key: SessionKey,
}

/// What carries a session's token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum SessionCarrier {
    /// A header of answers, which the client sends back in requests.
    Header,
    /// A cookie.
    Cookie {
        /// Its `Path`.
        path: String,
        /// Its `Max-Age`; `None`: until the browser is closed.
        max_age: Option<Duration>,
        /// Further attributes, as they are sent. `Secure` is added where the client's connection is encrypted.
        attributes: Vec<String>,
    },
}

/// A key of 256 bits. It is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(hidden)")
    }
}

impl Serialize for SessionKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("hidden")
    }
}
