//! A request that is over, as the access log and a trace's collector tell it, and its line in the two formats.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Method;
use selvedge_model::{
    SpiffeId,
    telemetry::{LONGEST_TAG, Logged},
};

use super::{
    compat::{BLACK_HOLE, PASSTHROUGH},
    line::{Json, Text, key, millis},
    record::Head,
    said::Said,
    tap::WentTo,
    trace::{self, AttemptSpan, Trace},
};
use crate::{arrival::Direction, error::Reason};

/// What clusters are called through which requests come in.
const INBOUND: &str = "inbound";
/// What the names of those begin with through which they go out.
const OUTBOUND: &str = "outbound|";

/// A request that is over.
#[derive(Debug)]
pub struct Finished {
    /// Which way it went.
    pub direction: Direction,
    /// Whether it came to a gateway.
    pub at_gateway: bool,
    /// When it came.
    pub began: SystemTime,
    /// When it came, by the clock that attempts are timed by.
    pub came: std::time::Instant,
    /// How long it took, the answer's body included.
    pub duration: Duration,
    /// The answer's status; `None`: there was no answer.
    pub status: Option<u16>,
    /// How a gRPC call ended.
    pub grpc_status: Option<u8>,
    /// Why a proxy made the answer itself, or broke it off.
    pub reason: Option<Reason>,
    /// The failure in all its words.
    pub error: Option<Box<str>>,
    /// Attempts after the first.
    pub retries: u32,
    /// Bytes of the request's body.
    pub received: u64,
    /// Bytes of the answer's body.
    pub sent: u64,
    /// The client.
    pub peer: SocketAddr,
    /// Who it has proven to be.
    pub identity: Option<SpiffeId>,
    /// Whether the client speaks HTTP/2.
    pub is_http2: bool,
    /// Whether the client speaks TLS with us.
    pub is_tls: bool,
    pub(super) head: Box<Head>,
}

/// What a trace's collector is told of a request that is sampled.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) trace: Arc<Trace>,
    /// Tags from its headers.
    pub(super) tags: Vec<(Arc<str>, String)>,
    /// Tags that all requests have.
    pub(super) fixed: Arc<[(Arc<str>, String)]>,
}

impl Finished {
    /// The method.
    pub fn method(&self) -> &str {
        self.head.method()
    }

    /// The path, without its query.
    pub fn path(&self) -> &str {
        self.head.path.as_str()
    }

    /// `Host`, or `:authority`.
    pub fn authority(&self) -> &str {
        self.head.authority.as_str()
    }

    /// `User-Agent`.
    pub fn user_agent(&self) -> Option<&str> {
        self.head.user_agent.get()
    }

    /// `x-request-id`.
    pub fn request_id(&self) -> Option<&str> {
        self.head.request_id.get()
    }

    /// Whether it is a gRPC call.
    pub fn is_grpc(&self) -> bool {
        self.head.is_grpc
    }

    /// Where it went.
    pub fn place(&self) -> Option<&WentTo> {
        self.head.place.as_ref()
    }

    /// The service that was called, as configuration calls it.
    pub fn service(&self) -> Option<(&str, u16)> {
        let (host, port) = self.place()?.service.as_ref()?;
        Some((host, *port))
    }

    /// Its trace, if it is sampled.
    pub fn trace(&self) -> Option<&Arc<Trace>> {
        self.head.traced.as_ref().map(|traced| &traced.trace)
    }

    /// The trace that it belongs to, sampled or not, in hexadecimal.
    pub fn trace_id(&self) -> Option<&str> {
        self.head.trace_id.as_deref()
    }

    /// The tags that configuration adds to its spans.
    pub fn tags(&self) -> impl Iterator<Item = (&str, &str)> {
        let traced = self.head.traced.as_ref();
        let all = traced.into_iter().flat_map(|traced| traced.fixed.iter().chain(&traced.tags));
        all.map(|(name, value)| (&**name, value.as_str()))
    }

    /// Whether it came, or went, over the mesh's mutual TLS.
    pub fn is_mtls(&self) -> bool {
        if let Some(mtls) = self.head.mtls {
            return mtls;
        }
        match self.direction {
            Direction::Inbound => self.identity.is_some(),
            Direction::Outbound => self.place().is_some_and(|place| place.identity.is_some()),
        }
    }

    /// What is spoken with the client.
    pub fn protocol(&self) -> &'static str {
        if self.is_http2 { "HTTP/2" } else { "HTTP/1.1" }
    }

    /// What an expression may ask of it.
    pub(super) fn logged(&self) -> Logged<'_> {
        Logged {
            status: self.status.unwrap_or_default(),
            grpc_status: self.grpc_status,
            duration: self.duration,
            mtls: self.is_mtls(),
            method: self.method(),
            path: self.path(),
            host: self.authority(),
            user_agent: self.user_agent(),
            protocol: self.protocol(),
            reason: self.reason.map(Reason::word),
            principal: self.identity.as_ref().map(SpiffeId::as_str),
            route: self.place().and_then(|place| place.route.as_deref()),
            received: self.received,
            sent: self.sent,
            retries: self.retries,
        }
    }

    /// Cuts off what a client or a peer has made longer than a tag may be, and lets go of what only others need, and of the
    /// buffers that the request was read into: many requests wait for a collector, and are sent together.
    pub(super) fn shorten(&mut self) {
        let Head { method, authority, path, user_agent, forwarded_for, request_id, tapped, .. } =
            &mut *self.head;
        *tapped = None;
        for text in [user_agent, forwarded_for, request_id, authority, path] {
            *text = Said::own(text.get().map(trace::cut));
        }
        if let Some(method) = method
            && let Some(begin) = method.as_str().as_bytes().get(..LONGEST_TAG)
            && let Ok(shorter) = Method::from_bytes(begin)
        {
            *method = shorter;
        }
        if let Some(error) = &mut self.error
            && error.len() > LONGEST_TAG
        {
            *error = trace::cut(error).into();
        }
    }

    /// How many bytes it holds, nearly.
    pub(super) fn bytes(&self) -> usize {
        let Head { method, authority, path, request_id, trace_id, user_agent, forwarded_for, .. } =
            &*self.head;
        let texts = [authority, path, request_id, user_agent, forwarded_for].map(|text| text.as_str().len());
        let texts = texts.iter().sum::<usize>() + trace_id.as_ref().map_or(0, String::len);
        let method = method.as_ref().map_or(0, |method| method.as_str().len());
        let tags = self.head.traced.iter().flat_map(|traced| &traced.tags).map(|(_, value)| value.len());
        let attempts = self.trace().map_or(0, |trace| trace.tried());
        let state = self.trace().and_then(|trace| trace.state.as_ref()).map_or(0, String::len);
        let error = self.error.as_ref().map_or(0, |error| error.len());
        let fixed = size_of::<Self>() + size_of::<Head>() + attempts * size_of::<AttemptSpan>();
        fixed + texts + method + tags.sum::<usize>() + state + error
    }

    /// Writes its line in Istio's text format. What is not known is `-`.
    pub(super) fn write_text(&self, out: &mut Vec<u8>) {
        let mut line = Text(out);
        line.time(self.began);
        line.0.extend_from_slice(b" \"");
        line.bare(Some(self.method()));
        line.0.push(b' ');
        line.bare(Some(self.path()));
        line.0.push(b' ');
        line.bare(Some(self.protocol()));
        line.0.extend_from_slice(b"\" ");
        line.number(self.status.unwrap_or_default().into());
        line.word(Some(self.flags()));
        line.word(Some(self.details()));
        line.word(None);
        line.quoted(self.error.as_deref());
        line.0.push(b' ');
        line.number(self.received);
        line.0.push(b' ');
        line.number(self.sent);
        line.0.push(b' ');
        line.number(millis(self.duration));
        line.word(None);
        line.quoted(self.head.forwarded_for.get());
        line.quoted(self.user_agent());
        line.quoted(self.request_id());
        line.quoted(Some(self.authority()));
        line.quoted_address(self.place().and_then(|place| place.endpoint));
        line.word(Some(&self.cluster()));
        line.word(None);
        line.word(None);
        line.address(self.peer);
        line.word(None);
        // A name of ours has spaces in it.
        let route =
            self.place().and_then(|place| place.route.as_deref()).map(|route| route.replace(' ', "_"));
        line.word(route.as_deref());
        line.0.push(b'\n');
    }

    /// Writes its line as JSON, with Istio's names of fields. What is not known is left out.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        let mut line = Json::beginning(out, self.began);
        line.word(key!("direction"), self.direction.word());
        line.text(key!("method"), Some(self.method()));
        line.text(key!("path"), Some(self.path()));
        line.word(key!("protocol"), self.protocol());
        line.number(key!("response_code"), Some(self.status.unwrap_or_default().into()));
        line.number(key!("grpc_status"), self.grpc_status.map(Into::into));
        line.word(key!("response_flags"), self.flags());
        line.word(key!("response_code_details"), self.details());
        line.text(key!("upstream_transport_failure_reason"), self.error.as_deref());
        line.number(key!("bytes_received"), Some(self.received));
        line.number(key!("bytes_sent"), Some(self.sent));
        line.number(key!("duration"), Some(millis(self.duration)));
        line.number(key!("duration_us"), Some(u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX)));
        line.number(key!("retries"), Some(self.retries.into()).filter(|retries| *retries > 0));
        line.text(key!("x_forwarded_for"), self.head.forwarded_for.get());
        line.text(key!("user_agent"), self.user_agent());
        line.text(key!("request_id"), self.request_id());
        line.text(key!("authority"), Some(self.authority()));
        if let Some(place) = self.place() {
            line.address(key!("upstream_host"), place.endpoint);
            if let Some((host, port)) = &place.service {
                match self.direction {
                    Direction::Inbound => line.word(key!("upstream_cluster"), INBOUND),
                    Direction::Outbound => {
                        let mut number = itoa::Buffer::new();
                        line.pieces(
                            key!("upstream_cluster"),
                            [OUTBOUND, number.format(*port), "||", &**host],
                        );
                    }
                }
            }
            if let Some(workload) = &place.workload {
                line.pieces(key!("upstream_workload"), [workload.namespace(), "/", workload.name()]);
            }
            line.text(key!("upstream_identity"), place.identity.as_ref().map(SpiffeId::as_str));
            line.text(key!("route_name"), place.route.as_deref());
        }
        line.address(key!("downstream_remote_address"), Some(self.peer));
        line.text(key!("downstream_identity"), self.identity.as_ref().map(SpiffeId::as_str));
        line.flag(key!("mtls"), self.is_mtls());
        line.text(key!("reason"), self.reason.map(Reason::word));
        line.text(key!("trace_id"), self.trace_id());
        if let Some(trace) = self.trace() {
            let mut span = String::with_capacity(16);
            trace::write_hex(&mut span, &trace.span);
            line.text(key!("span_id"), Some(&span));
        }
        line.end();
    }

    /// What Envoy calls the way in which it failed; `-`: it did not, as far as proxies know.
    fn flags(&self) -> &'static str {
        self.reason.map_or("-", Reason::response_flags)
    }

    fn details(&self) -> &'static str {
        match (self.reason, self.status) {
            (Some(reason), _) => reason.word(),
            (None, Some(_)) => "via_upstream",
            (None, None) => "-",
        }
    }

    /// Where it went, as Envoy calls it.
    fn cluster(&self) -> Cow<'static, str> {
        match (self.direction, self.service()) {
            (Direction::Inbound, _) => INBOUND.into(),
            (Direction::Outbound, Some((host, port))) => {
                [OUTBOUND, itoa::Buffer::new().format(port), "||", host].concat().into()
            }
            (Direction::Outbound, None) if self.reason == Some(Reason::RegistryOnly) => BLACK_HOLE.into(),
            (Direction::Outbound, None) => PASSTHROUGH.into(),
        }
    }
}

#[cfg(test)]
impl Finished {
    /// `request`, which has come in just now and got no answer.
    pub(crate) fn of<B>(request: &http::Request<B>) -> Self {
        Self {
            direction: Direction::Inbound,
            at_gateway: false,
            began: SystemTime::now(),
            came: std::time::Instant::now(),
            duration: Duration::ZERO,
            status: None,
            grpc_status: None,
            reason: None,
            error: None,
            retries: 0,
            received: 0,
            sent: 0,
            peer: SocketAddr::from(([127, 0, 0, 1], 5000)),
            identity: None,
            is_http2: false,
            is_tls: false,
            head: Box::new(Head::of(request, Some(Box::default()), super::watched::Noted::default())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_waits_for_a_collector_that_is_longer_than_a_tag() {
        let long = "x".repeat(3 * LONGEST_TAG);
        let mut request = http::Request::builder().method(long.as_str()).uri(format!("/{long}"));
        for name in ["host", "user-agent", "x-forwarded-for", "x-request-id"] {
            request = request.header(name, long.as_str());
        }
        let request = request.body(()).expect("a valid request");
        let mut finished = Finished { error: Some(long.as_str().into()), ..Finished::of(&request) };

        finished.shorten();

        let Finished { error, head, .. } = &finished;
        for text in [
            head.method(),
            head.authority.as_str(),
            head.path.as_str(),
            head.user_agent.get().expect("it has one"),
            head.forwarded_for.get().expect("it has one"),
            head.request_id.get().expect("it has one"),
            error.as_deref().expect("it has one"),
        ] {
            assert_eq!(text.len(), LONGEST_TAG, "{text}");
        }
        assert!(head.tapped.is_none());
    }
}
