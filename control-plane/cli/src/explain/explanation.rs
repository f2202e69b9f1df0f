//! What is said of a request: the data that is printed as a tree or as JSON.

use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use selvedge_control_plane::compile::Written;
use selvedge_proxy::error::{Failure, Reason};
use serde::Serialize;

use super::gateway::GatewayView;

/// What would become of a request.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    /// Whether it would be sent to some endpoint, or let out.
    pub(super) sent: bool,
    /// What the mesh answers, if it is not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// How a gateway refuses its connection, so that there is no request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<Refusal>,
    /// Whether it is a connection, and only its requests say what becomes of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) depends_on_the_request: bool,
    /// How many errors there are in the documents; `selvedge check` names them.
    pub(super) errors: usize,
    /// Who sends it.
    pub(super) from: Sender,
    /// The request, in normal form.
    pub(super) request: RequestView,
    /// The gateway that it comes to. `None`: a sidecar's app sends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) gateway: Option<GatewayView>,
    /// What its name means to a sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// What it follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rule: Option<RuleView>,
    /// The matches that were tried before, and missed.
    pub(super) missed: Vec<MissedMatch>,
    /// What the rule's filters do, in order.
    pub(super) filters: Vec<FilterStep>,
    /// The rule's time limits and retries.
    pub(super) limits: Vec<String>,
    /// Where it may go.
    pub(super) backends: Vec<BackendView>,
}

impl Explanation {
    /// Of a request of which nothing is said yet.
    pub(super) fn new(from: Sender, errors: usize, request: RequestView) -> Self {
        Self {
            sent: true,
            answer: None,
            refused: None,
            depends_on_the_request: false,
            errors,
            from,
            request,
            gateway: None,
            name: None,
            rule: None,
            missed: Vec::new(),
            filters: Vec::new(),
            limits: Vec::new(),
            backends: Vec::new(),
        }
    }

    /// With its answer as its caller gets it.
    pub(super) fn finished(mut self, is_grpc: bool) -> Self {
        self.answer = self.answer.take().map(|answer| answer.for_caller(is_grpc));
        self.sent = self.answer.is_none() && self.refused.is_none() && !self.depends_on_the_request;
        self
    }
}

/// How a gateway refuses a connection.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Refusal {
    /// What the client sees of it.
    pub(super) how: &'static str,
    /// The reason, as the gateway counts and logs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'static str>,
    /// Why.
    pub(super) why: String,
}

impl Refusal {
    /// The connection is reset.
    pub(super) fn reset(reason: Reason, why: impl Into<String>) -> Self {
        Self::alert("the connection is reset", reason, why)
    }

    /// The client is told by this alert of TLS.
    pub(super) fn alert(how: &'static str, reason: Reason, why: impl Into<String>) -> Self {
        Self { how, error: Some(reason.word()), why: why.into() }
    }

    /// In a few words.
    pub(super) fn words(&self) -> String {
        let error = self.error.map(|error| format!(", {error}")).unwrap_or_default();
        format!("{}{error} ({})", self.how, self.why)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::reset(failure.reason, failure.what)
    }
}

/// Who sends a request.
#[derive(Debug, Serialize)]
pub(super) struct Sender {
    pub(super) name: String,
    /// What it proves to be. `None`: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) identity: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remark: Option<String>,
}

/// An answer that a sidecar or a gateway gives itself.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Answer {
    /// The HTTP status, for a caller that does not speak gRPC.
    pub(super) status: u16,
    /// The gRPC status, for one that does; its HTTP status is 200 then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) grpc_status: Option<u8>,
    /// The word in its header `selvedge-error`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<&'static str>,
    /// Its header `Location`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) location: Option<String>,
    /// Why.
    pub(super) why: String,
}

/// A request, as somebody gets to see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct RequestView {
    pub(super) method: String,
    pub(super) scheme: String,
    pub(super) authority: String,
    /// With the query.
    pub(super) path: String,
    /// All headers but the host, in the order of their names.
    pub(super) headers: Vec<(String, String)>,
}

/// The rule that a request follows.
#[derive(Debug, Serialize)]
pub(super) struct RuleView {
    pub(super) name: String,
    /// Where it is written; `None`: no document has written it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<Written>,
    /// The match that holds; `None`: it is for every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) matched: Option<MatchView>,
    /// What is special about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) remark: Option<&'static str>,
}

/// One of a rule's matches.
#[derive(Debug, Serialize)]
pub(super) struct MatchView {
    /// Its place in the rule, from 0.
    pub(super) index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<Written>,
}

/// A match that a request misses.
#[derive(Debug, Serialize)]
pub(super) struct MissedMatch {
    pub(super) rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) written: Option<Written>,
    /// The condition that does not hold.
    pub(super) why: String,
}

/// What one filter does.
#[derive(Debug, Clone, Serialize)]
pub(super) struct FilterStep {
    pub(super) filter: &'static str,
    pub(super) does: String,
    /// The request after it, if it changes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<RequestView>,
}

/// Where a share of the requests goes.
#[derive(Debug, Serialize)]
pub(super) struct BackendView {
    pub(super) name: String,
    pub(super) weight: u32,
    /// Its share of the requests.
    pub(super) percent: f64,
    /// Whether it is the one that the seed draws; `None`: nothing is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) drawn: Option<bool>,
    /// What the filters do that it alone has.
    pub(super) filters: Vec<FilterStep>,
    /// The request as it is sent there; `None`: it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request: Option<RequestView>,
    /// What is answered instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answer: Option<Answer>,
    /// How endpoints are picked, and what limits requests to them.
    pub(super) policy: Vec<String>,
    pub(super) endpoints: Vec<EndpointView>,
}

/// One of a backend's endpoints.
#[derive(Debug, Serialize)]
pub(super) struct EndpointView {
    pub(super) address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) workload: Option<String>,
    /// Where it is: region, zone and subzone, and its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) locality: Option<String>,
    /// Its group, from 0: the highest priority comes first. `None`: all endpoints are alike, or it is not called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priority: Option<usize>,
    pub(super) mutual_tls: bool,
    /// How it is called, and why so.
    pub(super) how: String,
    /// What its own sidecar says of the request, by which document.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) verdict: Option<String>,
    /// Why it would not serve the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<Answer>,
}

impl Answer {
    /// A failure for `reason`.
    pub(super) fn failure(reason: Reason, why: impl Into<String>) -> Self {
        Self {
            status: reason.status().as_u16(),
            grpc_status: Some(reason.grpc()),
            error: Some(reason.word()),
            location: None,
            why: why.into(),
        }
    }

    /// An answer with `status` that is no failure.
    pub(super) fn own(status: StatusCode, why: impl Into<String>) -> Self {
        Self { status: status.as_u16(), grpc_status: None, error: None, location: None, why: why.into() }
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// The same, as this caller gets it.
    pub(super) fn for_caller(self, is_grpc: bool) -> Self {
        match self.grpc_status {
            Some(_) if is_grpc => Self { status: 200, ..self },
            _ => Self { grpc_status: None, ..self },
        }
    }

    /// In a few words.
    pub(super) fn words(&self) -> String {
        let mut words = self.status.to_string();
        if let Some(grpc) = self.grpc_status {
            words += &format!(" with grpc-status {grpc}");
        }
        if let Some(error) = self.error {
            words += &format!(", selvedge-error: {error}");
        }
        if let Some(location) = &self.location {
            words += &format!(", Location: {location}");
        }
        format!("{words} ({})", self.why)
    }
}

impl RequestView {
    /// What there is to see of `request`.
    pub(super) fn of(request: &Request<()>) -> Self {
        let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let shown = |name: &HeaderName, value: &HeaderValue| match *name == header::AUTHORIZATION {
            true => without_secret(&text(value)),
            false => text(value),
        };
        let uri = request.uri();
        let host = request.headers().get(header::HOST).map(text);
        let headers = request.headers().iter().filter(|(name, _)| *name != header::HOST);
        let mut headers: Vec<_> =
            headers.map(|(name, value)| (name.to_string(), shown(name, value))).collect();
        headers.sort();
        Self {
            method: request.method().to_string(),
            scheme: uri.scheme_str().unwrap_or("http").to_owned(),
            authority: uri.authority().map(ToString::to_string).or(host).unwrap_or_default(),
            path: uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            headers,
        }
    }
}

/// A value of `Authorization` as it may come to a log: its scheme, and how long the rest is.
fn without_secret(value: &str) -> String {
    match value.split_once(' ') {
        Some((scheme, secret)) => format!("{scheme} (not shown, {} bytes)", secret.len()),
        None => format!("(not shown, {} bytes)", value.len()),
    }
}
