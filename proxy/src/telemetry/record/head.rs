//! What is kept of a request's head, where something needs it.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::{
    error::REFUSED,
    fields::is_grpc,
    telemetry::{
        finished::Traced,
        said::Said,
        tap::{Tapped, WentTo},
        trace::Parent,
        underway::Underway,
        watched::{Noted, RouteLog},
    },
};

/// The first values of the fields that lines show: `host`, `x-request-id`, `user-agent` and `x-forwarded-for`. Gone through once.
fn fields(headers: &HeaderMap) -> [Option<Said>; 4] {
    let mut found = [const { None }; 4];
    for (name, value) in headers {
        let place = match name.as_str() {
            "host" => 0,
            "x-request-id" => 1,
            "user-agent" => 2,
            "x-forwarded-for" => 3,
            _ => continue,
        };
        found[place].get_or_insert_with(|| Said::value(value));
    }
    found
}

/// The parts of a request's head that the access log shows. The query is left out: it often holds what should not be in
/// logs.
#[derive(Debug)]
pub(in crate::telemetry) struct Head {
    /// `None`: it could not be read.
    pub(in crate::telemetry) method: Option<Method>,
    pub(in crate::telemetry) authority: Said,
    pub(in crate::telemetry) path: Said,
    /// `x-request-id`.
    pub(in crate::telemetry) request_id: Said,
    /// The trace's id in `traceparent`.
    pub(in crate::telemetry) trace_id: Option<String>,
    /// `User-Agent`.
    pub(in crate::telemetry) user_agent: Said,
    /// `X-Forwarded-For`.
    pub(in crate::telemetry) forwarded_for: Said,
    pub(in crate::telemetry) is_grpc: bool,
    /// Where it went; `None`: nowhere yet.
    pub(in crate::telemetry) place: Option<WentTo>,
    /// Where it has gone so far, if it goes out.
    pub(super) underway: Option<Underway>,
    /// What else those see who ask to see requests. `None`: nobody asks.
    pub(in crate::telemetry) tapped: Option<Box<Tapped>>,
    /// `None`: it is not sampled.
    pub(in crate::telemetry) traced: Option<Box<Traced>>,
    /// Where its rule has lines about it go; `None`: the rule does not say it.
    pub(in crate::telemetry) route_log: Option<Arc<RouteLog>>,
    /// Bytes from and to the client on the connection that it has become. `None`: it has become none.
    pub(in crate::telemetry) passed: Option<(u64, u64)>,
    /// Whether that went over the mesh's mutual TLS; `None`: it is known from where the request went.
    pub(in crate::telemetry) mtls: Option<bool>,
}

impl Head {
    /// Has it noted where the request goes.
    pub(in crate::telemetry) fn follow(&mut self) {
        self.underway = Some(Underway::default());
    }

    /// The method. Empty: it could not be read.
    pub(in crate::telemetry) fn method(&self) -> &str {
        self.method.as_ref().map(Method::as_str).unwrap_or_default()
    }

    pub(in crate::telemetry) fn of<B>(
        request: &http::Request<B>,
        tapped: Option<Box<Tapped>>,
        noted: Noted,
    ) -> Self {
        let headers = request.headers();
        // What stands for a request that nobody could read says nothing of it.
        let is_read = *request.method() != REFUSED;
        let (authority, path) = match is_read {
            true => (request.uri().authority().map(Said::authority), Said::path(request.uri())),
            false => (None, Said::default()),
        };
        let [host, request_id, user_agent, forwarded_for] = fields(headers);
        let host = host.filter(|_| is_read).unwrap_or_default();
        Self {
            method: is_read.then(|| request.method().clone()),
            authority: authority.unwrap_or(host),
            path,
            request_id: request_id.unwrap_or_default(),
            user_agent: user_agent.unwrap_or_default(),
            forwarded_for: forwarded_for.unwrap_or_default(),
            is_grpc: is_grpc(headers),
            tapped,
            trace_id: Parent::trace_id(headers),
            place: None,
            underway: None,
            traced: noted.traced,
            route_log: None,
            passed: None,
            mtls: None,
        }
    }

    /// Leaves out what a gateway replaces: until it has said that itself, it is a stranger's claim.
    pub(in crate::telemetry) fn forget_claims(&mut self) {
        (self.request_id, self.forwarded_for) = (Said::default(), Said::default());
    }
}
