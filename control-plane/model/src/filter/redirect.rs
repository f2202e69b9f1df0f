//! Answers that need no backend (Gateway API `RequestRedirect`; `VirtualService` `redirect`, `directResponse`).

use bytes::Bytes;
use serde::{Serialize, Serializer};

use super::PathRewrite;

/// An answer with a `Location`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Redirect {
    /// The status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// The scheme; `None` = the request's.
    pub scheme: Option<String>,
    /// The host; `None` = the request's. It holds a port only if the document gave the authority one.
    pub host: Option<String>,
    /// The port.
    pub port: RedirectPort,
    /// The path; `None` = the request's. The query stays.
    pub path: Option<PathRewrite>,
}

/// The port of a [`Redirect`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum RedirectPort {
    /// This one; left out where it is the scheme's own.
    Explicit(u16),
    /// The scheme's own if the redirect names a scheme, and otherwise the port that the request was sent to; left out
    /// where it is the scheme's own (Gateway API `requestRedirect.port`).
    OfScheme,
    /// As the request's authority has it, unless the redirect names an authority; left out where the redirect changes
    /// the scheme and it is the old scheme's own (Envoy; `VirtualService` without `port`).
    OfAuthority,
    /// The port that the request was sent to (`VirtualService` `derivePort: FROM_REQUEST_PORT`).
    OfRequest,
    /// The scheme's own (`VirtualService` `derivePort: FROM_PROTOCOL_DEFAULT`).
    Default,
}

/// A fixed answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DirectResponse {
    /// The status, 200–599.
    pub status: u16,
    /// The body, at most 1 MiB.
    #[serde(serialize_with = "text")]
    pub body: Bytes,
}

fn text<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}
