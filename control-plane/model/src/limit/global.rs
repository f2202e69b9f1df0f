//! Limits that a server counts for all proxies together: Envoy's rate limit service (RLS).
//!
//! A proxy tells the server descriptors, each a list of keys and values, and the server knows the limits. As with Envoy, a
//! descriptor is left out of which the request does not have every value, and without descriptors nobody is asked.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

use http::HeaderName;
use serde::Serialize;

use super::{Asker, name, only_value};

/// How long an answer is waited for where a document does not say it (Envoy's default).
pub const TIMEOUT: Duration = Duration::from_millis(20);
/// The longest that an answer may be waited for.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// The most descriptors that one document may have, and the most entries of one descriptor.
pub const MOST_DESCRIPTORS: usize = 16;
/// The longest domain, key or fixed value, in bytes.
pub const LONGEST_WORD: usize = 256;
/// The longest value of a header that a server is told, in bytes: of a longer one it is told nothing.
pub const LONGEST_VALUE: usize = 1024;

/// What a server is asked, and what holds if it does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Global {
    /// The host and port of the server, as requests name it. `None`: the document may not name it, so nobody is asked, and
    /// what holds is what `on_failure` says.
    pub server: Option<Arc<str>>,
    /// Which of its limits are meant.
    pub domain: Arc<str>,
    /// How long its answer is waited for, at most [`LONGEST_WAIT`].
    pub timeout: Duration,
    /// What holds if there is none.
    pub on_failure: OnFailure,
    /// What it is told of a request, at most [`MOST_DESCRIPTORS`].
    pub descriptors: Vec<Descriptor>,
}

/// What becomes of a request whose server does not answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum OnFailure {
    /// It goes on (Envoy's default).
    #[default]
    Open,
    /// It is refused.
    Closed,
}

/// What a server counts by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Descriptor {
    /// At least one, at most [`MOST_DESCRIPTORS`]. Servers compare them in this order.
    pub entries: Vec<Entry>,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// What the server calls it.
    pub key: Arc<str>,
    /// What the value is.
    pub value: Value,
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Value {
    /// The document says it.
    Fixed(Arc<str>),
    /// A header of the request.
    Header(#[serde(serialize_with = "name")] HeaderName),
    /// The client's address.
    ClientAddress,
    /// The identity that the client has proven by a certificate of the mesh.
    ClientIdentity,
    /// The name of the rule that the request follows. Only where the document is for routes.
    Route,
}

impl Global {
    /// What the server is told of a request of `asker`; empty: it is not asked.
    pub fn descriptors<'a>(&'a self, asker: Asker<'a>) -> Vec<Vec<(&'a str, Cow<'a, str>)>> {
        self.descriptors.iter().filter_map(|one| one.of(asker)).collect()
    }

    /// What it is asked of a request of `asker`, in words; `None`: nothing.
    pub(super) fn for_request(&self, asker: Asker<'_>) -> Option<String> {
        let told = self.descriptors(asker);
        if told.is_empty() {
            return None;
        }
        let entry = |(key, value): &(&str, Cow<'_, str>)| format!("{key}={value}");
        let descriptor = |one: &Vec<_>| one.iter().map(entry).collect::<Vec<_>>().join(", ");
        let told = told.iter().map(descriptor).collect::<Vec<_>>().join("; ");
        let Self { domain, timeout, on_failure, .. } = self;
        let (goes, refused) = ("it goes on", "it is refused");
        let otherwise = if *on_failure == OnFailure::Open { goes } else { refused };
        Some(match &self.server {
            Some(server) => {
                format!(
                    "what {server} says of {told} in its domain {domain}; without an answer in {timeout:?} {otherwise}"
                )
            }
            None => format!("a server that the document may not name, so {otherwise}"),
        })
    }
}

impl Descriptor {
    /// Its keys and values for a request of `asker`; `None`: the request does not have them all.
    fn of<'a>(&'a self, asker: Asker<'a>) -> Option<Vec<(&'a str, Cow<'a, str>)>> {
        self.entries.iter().map(|entry| Some((&*entry.key, entry.value.of(asker)?))).collect()
    }
}

impl Value {
    fn of<'a>(&'a self, asker: Asker<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Fixed(value) => Some(Cow::Borrowed(value)),
            // Of an app that reads another spelling of it, nobody knows which of them counts.
            Self::Header(name) => {
                let value = only_value(asker.headers, name)?.to_str().ok()?;
                (!value.is_empty() && value.len() <= LONGEST_VALUE).then_some(Cow::Borrowed(value))
            }
            // The whole address, as Envoy tells it: the server decides what belongs together.
            Self::ClientAddress => Some(asker.address?.to_canonical().to_string().into()),
            Self::ClientIdentity => Some(asker.identity?.to_string().into()),
            Self::Route => asker.route.map(Cow::Borrowed),
        }
    }

    /// The key where a document gives none: Envoy's, if Envoy has one.
    pub fn usual_key(&self) -> &str {
        match self {
            Self::Fixed(_) => "generic_key",
            Self::Header(name) => name.as_str(),
            Self::ClientAddress => "remote_address",
            Self::ClientIdentity => "client_identity",
            Self::Route => "route",
        }
    }
}

impl fmt::Display for OnFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "Open",
            Self::Closed => "Closed",
        })
    }
}
