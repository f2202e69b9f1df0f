//! Every failure that the proxy answers itself: a reason, and what failed in words.
//!
//! The reasons (`Reason`) are a closed set with one table. The header `selvedge-error`, metrics and logs use the same
//! words. A failure that a mesh peer's sidecar names in that header counts here as the failure that it names.

mod reason;

use std::{borrow::Cow, fmt};

use http::StatusCode;
use selvedge_model::traffic::FailureKind;

pub use reason::{Reason, SaidBy};

/// The header that names what made an answer: `selvedge-error: <reason>: <what>`.
pub const SELVEDGE_ERROR: http::HeaderName = http::HeaderName::from_static("selvedge-error");

/// The method of the request that stands for a refused one; see [`crate::serve`]. No client may use it, and nobody is shown it.
pub(crate) const REFUSED: &str = "SELVEDGE-REFUSED";

/// Why a request is not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The kind of failure.
    pub reason: Reason,
    /// What is wrong, in words for the client.
    pub what: &'static str,
}

/// How a connection was not made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unconnected {
    /// There was one, or it is not known.
    #[default]
    Otherwise,
    /// Nobody listens there.
    Refused,
    /// It took too long.
    TimedOut,
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
    /// Whether it ended what was in progress, so that this is tried again as what breaks off by itself.
    pub broke_off: bool,
    /// How a connection was not made, where that is known.
    pub unconnected: Unconnected,
    /// The gRPC status, if it is another than the reason's.
    grpc: Option<u8>,
    /// The HTTP status, if it is another than the reason's.
    status: Option<StatusCode>,
    /// Where in `what` begins what the client is told.
    told_from: usize,
}

impl Failure {
    /// A failure with its reason's own judgement of whether the app was reached.
    pub fn new(reason: Reason, what: impl Into<Cow<'static, str>>) -> Self {
        let (what, told_from) = (what.into(), 0);
        let undelivered = reason.proves_undelivered();
        let unconnected = Unconnected::Otherwise;
        Self { reason, what, undelivered, broke_off: false, unconnected, grpc: None, status: None, told_from }
    }

    /// The same failure to connect, of which it is known how.
    #[must_use]
    pub fn unconnected(self, unconnected: Unconnected) -> Self {
        Self { unconnected, ..self }
    }

    /// What it is as one of an attempt at an endpoint.
    pub fn kind(&self) -> FailureKind {
        match (self.reason, self.unconnected) {
            (Reason::ConnectFailure, Unconnected::Refused) => FailureKind::ConnectRefused,
            (Reason::ConnectFailure, Unconnected::TimedOut) => FailureKind::ConnectTimeout,
            (reason, _) => reason.kind(),
        }
    }

    /// The same failure, of which the client is told only what ends `what`: the last `told` bytes. Logs have all of it.
    #[must_use]
    pub fn told_only_the_last(self, told: usize) -> Self {
        Self { told_from: self.what.len().saturating_sub(told), ..self }
    }

    /// The same failure as a caller without a certificate of the mesh is told of it: in fixed words of ours or by its reason
    /// alone. Words that were put together name the app's address, a policy, or what a library says.
    #[must_use]
    pub fn for_a_stranger(self) -> Self {
        match (&self.what, self.told_from) {
            (Cow::Owned(_), 0) => self.told_only_the_last(0),
            _ => self,
        }
    }

    /// What the client is told.
    pub fn told(&self) -> String {
        match self.what.get(self.told_from..).unwrap_or_default() {
            "" if self.told_from > 0 => self.reason.to_string(),
            what => format!("{}: {what}", self.reason),
        }
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status.unwrap_or(self.reason.status())
    }

    /// The same failure, answered with `status` where HTTP is spoken.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }

    /// The same failure, answered with `status`, and with `grpc` to callers that speak gRPC.
    #[must_use]
    pub fn answered(self, status: StatusCode, grpc: u8) -> Self {
        Self { grpc: Some(grpc), ..self.with_status(status) }
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

    /// The same failure, for which we have ended what was in progress: an app may have seen it.
    #[must_use]
    pub fn breaking_off(self) -> Self {
        Self { undelivered: false, broke_off: true, ..self }
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
