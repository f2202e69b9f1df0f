//! Who may call from a page of another origin (Gateway API `CORS`; `VirtualService` `corsPolicy`).

use std::time::Duration;

use serde::Serialize;

use crate::FullRegex;

/// The Fetch standard's CORS protocol, as a proxy answers it for the app.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cors {
    /// The origins that may call; any of these.
    pub allow_origins: Vec<OriginMatch>,
    /// `Access-Control-Allow-Methods`; `*` alone = any.
    pub allow_methods: Vec<String>,
    /// `Access-Control-Allow-Headers`; `*` alone = any.
    pub allow_headers: Vec<String>,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: Vec<String>,
    /// `Access-Control-Max-Age`, in whole seconds; `None` = not said.
    pub max_age: Option<Duration>,
    /// `Access-Control-Allow-Credentials: true`.
    pub allow_credentials: bool,
    /// What becomes of a preflight from an origin that may not call.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What an origin must look like.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum OriginMatch {
    /// Any.
    Any,
    /// Equal, ignoring the case of scheme and host.
    Exact(String),
    /// Begins with this.
    Prefix(String),
    /// The whole origin matches.
    Regex(FullRegex),
}

/// `corsPolicy.unmatchedPreflights`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub enum UnmatchedPreflights {
    /// It goes to the app, as any request (Istio's default).
    #[default]
    Forward,
    /// It is answered 200 without the headers that would allow the call.
    Ignore,
}
