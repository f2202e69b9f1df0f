//! Every failure that the proxy answers itself: status, gRPC code, reason, whose fault, may-retry.
//!
//! The reasons are a closed set, and the one table below gives each its meaning: the header
//! `selvedge-error`, metrics and logs use the same words. A mesh peer's sidecar that answers with such a
//! header is taken at its word: its failure counts here as the failure that it names.

use std::{borrow::Cow, fmt};

use http::StatusCode;

/// The header that names what made an answer: `selvedge-error: <reason>: <what>`.
pub const SELVEDGE_ERROR: http::HeaderName = http::HeaderName::from_static("selvedge-error");

/// Why the proxy answered itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The request is not one that HTTP allows, or names no authority.
    BadRequest,
    /// The request's head has more bytes or fields than the limit.
    HeadTooLarge,
    /// The rest of the request's head did not come in time, or its body came too slowly.
    RequestTimeout,
    /// The app beside the answering sidecar does not accept connections.
    AppUnreachable,
    /// The client left before its answer came. Nobody is told but metrics and logs.
    Canceled,
    /// Our own certificate is missing or has expired.
    Certificate,
    /// No connection to the endpoint: refused, unreachable, or not within the connect timeout.
    ConnectFailure,
    /// The control plane has not said in time what the authority means, or DNS whose the address is.
    Discovery,
    /// The proxy is shutting down.
    Draining,
    /// The endpoint proved to be another workload than the one expected at its address.
    Identity,
    /// The destination is a sidecar's own listener, or the request came back to the proxy that sent it.
    Loop,
    /// The rule's backend cannot be used: an unknown host or subset, or weights that sum to nothing.
    NoBackend,
    /// The backend has no endpoint that could be called: none at all, or all are ejected.
    NoEndpoint,
    /// The service has rules, and none matches the request.
    NoRoute,
    /// A limit is reached: of the backend's connectionPool, of connections, or of what is held.
    Overflow,
    /// A policy refuses the connection or request.
    Policy,
    /// The other side did not speak the protocol that was agreed on.
    Protocol,
    /// The destination is in no configuration, and the outbound traffic policy lets only those out.
    RegistryOnly,
    /// The connection broke before the answer came.
    Reset,
    /// The route's time, or the attempt's, is over.
    Timeout,
    /// No mutual TLS with the endpoint, or no TLS with a server outside the mesh.
    Tls,
}

/// What a [`Reason`] means to clients and operators.
struct Meaning {
    word: &'static str,
    status: StatusCode,
    grpc: u8,
}

impl Reason {
    /// All of them, in the order of [`Self::index`].
    pub const ALL: [Self; 21] = [
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::RequestTimeout,
        Self::AppUnreachable,
        Self::Canceled,
        Self::Certificate,
        Self::ConnectFailure,
        Self::Discovery,
        Self::Draining,
        Self::Identity,
        Self::Loop,
        Self::NoBackend,
        Self::NoEndpoint,
        Self::NoRoute,
        Self::Overflow,
        Self::Policy,
        Self::Protocol,
        Self::RegistryOnly,
        Self::Reset,
        Self::Timeout,
        Self::Tls,
    ];

    const fn meaning(self) -> Meaning {
        const fn of(word: &'static str, status: StatusCode, grpc: u8) -> Meaning {
            Meaning { word, status, grpc }
        }
        match self {
            Self::BadRequest => of("bad-request", StatusCode::BAD_REQUEST, 13),
            Self::HeadTooLarge => of("head-too-large", StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, 8),
            Self::RequestTimeout => of("request-timeout", StatusCode::REQUEST_TIMEOUT, 14),
            Self::AppUnreachable => of("app-unreachable", StatusCode::SERVICE_UNAVAILABLE, 14),
            // There is no answer whose status it could be.
            Self::Canceled => of("canceled", StatusCode::BAD_REQUEST, 1),
            Self::Certificate => of("certificate", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::ConnectFailure => of("connect-failure", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Discovery => of("discovery", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Draining => of("draining", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Identity => of("identity", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::Loop => of("loop", StatusCode::LOOP_DETECTED, 13),
            Self::NoBackend => of("no-backend", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::NoEndpoint => of("no-endpoint", StatusCode::SERVICE_UNAVAILABLE, 14),
            Self::NoRoute => of("no-route", StatusCode::NOT_FOUND, 12),
            Self::Overflow => of("overflow", StatusCode::SERVICE_UNAVAILABLE, 8),
            Self::Policy => of("policy", StatusCode::FORBIDDEN, 7),
            Self::Protocol => of("protocol", StatusCode::BAD_GATEWAY, 14),
            Self::RegistryOnly => of("registry-only", StatusCode::BAD_GATEWAY, 14),
            Self::Reset => of("reset", StatusCode::BAD_GATEWAY, 14),
            Self::Timeout => of("timeout", StatusCode::GATEWAY_TIMEOUT, 4),
            Self::Tls => of("tls", StatusCode::SERVICE_UNAVAILABLE, 14),
        }
    }

    /// The word for headers, metrics and logs.
    pub const fn word(self) -> &'static str {
        self.meaning().word
    }

    /// The HTTP status of the answer.
    pub const fn status(self) -> StatusCode {
        self.meaning().status
    }

    /// The gRPC status of the answer, for callers that speak gRPC.
    pub const fn grpc(self) -> u8 {
        self.meaning().grpc
    }

    /// Its place in [`Self::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Reads the reason out of a peer's `selvedge-error` header.
    pub fn from_header(value: &http::HeaderValue) -> Option<Self> {
        let text = value.to_str().ok()?;
        Self::from_word(text.split(':').next()?.trim())
    }

    /// The reason that `word` names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.word() == word)
    }

    /// Whether the client did not send a request as HTTP requires.
    pub const fn is_clients_fault(self) -> bool {
        matches!(self, Self::BadRequest | Self::HeadTooLarge | Self::RequestTimeout)
    }

    /// Whether the app was certainly not reached, so that any request may be sent again.
    ///
    /// Not so [`Self::Overflow`], although nothing was reached: to try again at once what there was no room
    /// for is how overload spreads.
    pub const fn proves_undelivered(self) -> bool {
        matches!(
            self,
            Self::AppUnreachable
                | Self::Certificate
                | Self::ConnectFailure
                | Self::Draining
                | Self::Identity
                | Self::Tls
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// One failure: its reason, and what failed in words for the person who reads them.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The kind of failure.
    pub reason: Reason,
    /// What failed, with which peer, and what to do.
    pub what: Cow<'static, str>,
    /// Whether the request certainly never reached an app.
    pub undelivered: bool,
    /// The gRPC status, if the endpoint's own end of the stream says another than the reason's.
    grpc: Option<u8>,
}

impl Failure {
    /// A failure with its reason's own judgement of whether the app was reached.
    pub fn new(reason: Reason, what: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, what: what.into(), undelivered: reason.proves_undelivered(), grpc: None }
    }

    /// The gRPC status of the answer, for callers that speak gRPC.
    pub fn grpc(&self) -> u8 {
        self.grpc.unwrap_or(self.reason.grpc())
    }

    /// The same failure, which came of a stream's reset with this error code. Its caller gets the status that the code
    /// means to a gRPC client without a proxy (gRPC over HTTP/2, "HTTP2 Transport Mapping, Errors").
    #[must_use]
    pub fn of_reset(mut self, code: h2::Reason) -> Self {
        self.grpc = Some(match code {
            h2::Reason::REFUSED_STREAM => 14,
            h2::Reason::CANCEL => 1,
            h2::Reason::ENHANCE_YOUR_CALM => 8,
            h2::Reason::INADEQUATE_SECURITY => 7,
            _ => 13,
        });
        self
    }

    /// The same failure, of which it is known that no app saw the request.
    #[must_use]
    pub fn never_delivered(mut self) -> Self {
        self.undelivered = true;
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.what)
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_word_and_its_own_place() {
        for (place, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.index(), place);
            let header = http::HeaderValue::from_str(&format!("{reason}: anything: else")).unwrap();
            assert_eq!(Reason::from_header(&header), Some(reason));
        }
    }

    #[test]
    fn another_word_is_no_reason() {
        assert_eq!(Reason::from_header(&http::HeaderValue::from_static("nonsense: x")), None);
    }
}
