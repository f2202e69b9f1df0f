//! The access log: one line for each request and each opaque connection, through the log's target `access`.
//!
//! Off until the log's filter names it (`--log info,access=debug`, or `/log-level` while running), in the
//! format that the log has. Off, it costs one look at a flag per request. On, it leaves out the query,
//! which often holds what should not be in logs.

use std::{net::SocketAddr, time::Duration};

use http::{HeaderMap, Method, header};
use selvedge_model::SpiffeId;

use crate::{arrival::Direction, error::Reason};

/// The log's target.
const TARGET: &str = "access";

/// Whether lines are to be written. Ask first, so that no [`Line`] is made for nothing.
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// What is written about a request, as far as it is known when it comes.
#[derive(Debug, Clone)]
pub struct Line {
    direction: Direction,
    peer: SocketAddr,
    identity: Option<SpiffeId>,
    method: Method,
    authority: String,
    path: String,
    request_id: Option<String>,
    trace_id: Option<String>,
}

impl Line {
    /// The line of a request that came from `peer`, who has proven to be `identity`.
    pub fn of<B>(
        direction: Direction,
        request: &http::Request<B>,
        peer: SocketAddr,
        identity: Option<&SpiffeId>,
    ) -> Self {
        let headers = request.headers();
        let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
        Self {
            direction,
            peer,
            identity: identity.cloned(),
            method: request.method().clone(),
            authority: authority.or_else(|| text(headers, header::HOST.as_str())).unwrap_or_default(),
            path: request.uri().path().to_owned(),
            request_id: text(headers, "x-request-id"),
            trace_id: text(headers, "traceparent").and_then(|parent| trace_id(&parent).map(str::to_owned)),
        }
    }

    /// Writes it, now that the request is over; without a `status` there was no answer. `reason` says why not, or
    /// why a proxy made it.
    pub fn write(self, status: Option<u16>, reason: Option<&'static str>, duration: Duration, retries: u32) {
        tracing::debug!(
            target: TARGET,
            direction = self.direction.word(),
            method = self.method.as_str(),
            authority = self.authority,
            path = self.path,
            status,
            reason,
            duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            retries,
            peer = %self.peer,
            identity = self.identity.as_ref().map(SpiffeId::as_str),
            request_id = self.request_id,
            trace_id = self.trace_id,
        );
    }
}

/// What is written about an opaque connection when it is over, or was refused.
#[derive(Debug, Clone, Copy)]
pub struct Connection<'a> {
    /// Which way.
    pub direction: Direction,
    /// The client.
    pub peer: SocketAddr,
    /// Who it has proven to be.
    pub identity: Option<&'a SpiffeId>,
    /// What it was for: a service, or an address.
    pub destination: std::fmt::Arguments<'a>,
    /// Where it went; `None`: nowhere.
    pub endpoint: Option<SocketAddr>,
    /// Why it did not come to its own end.
    pub reason: Option<Reason>,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
    /// How long it lasted.
    pub duration: Duration,
}

impl Connection<'_> {
    /// Writes it, if lines are to be written.
    pub fn write(&self) {
        tracing::debug!(
            target: TARGET,
            direction = self.direction.word(),
            protocol = "tcp",
            destination = %self.destination,
            endpoint = self.endpoint.map(tracing::field::display),
            reason = self.reason.map(Reason::word),
            received_bytes = self.received,
            sent_bytes = self.sent,
            duration_us = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            peer = %self.peer,
            identity = self.identity.map(SpiffeId::as_str),
        );
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// The trace's id in a W3C `traceparent`: `<version>-<trace id>-<parent id>-<flags>`.
fn trace_id(traceparent: &str) -> Option<&str> {
    let id = traceparent.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{filter::Targets, fmt::MakeWriter, layer::SubscriberExt};

    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panics").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Captured {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("logs are text")
        }
    }

    fn request() -> http::Request<()> {
        http::Request::get("/reviews/0?token=secret")
            .header("host", "reviews:9080")
            .header("x-request-id", "one-two")
            .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .body(())
            .expect("a valid request")
    }

    fn write_if_enabled(request: &http::Request<()>) {
        if enabled() {
            let peer = "127.0.0.1:5000".parse().expect("an address");
            let identity = "spiffe://cluster.local/ns/default/sa/frontend".parse().expect("an identity");
            let line = Line::of(Direction::Inbound, request, peer, Some(&identity));
            line.write(Some(503), Some("no-endpoint"), Duration::from_millis(2), 1);
        }
    }

    #[test]
    fn a_request_is_one_line_of_json_without_its_query() {
        let captured = Captured::default();
        let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(captured.clone());
        let filter: Targets = "info,access=debug".parse().expect("a filter");
        let subscriber = tracing_subscriber::registry().with(filter).with(json);

        tracing::subscriber::with_default(subscriber, || write_if_enabled(&request()));

        let mut line: serde_json::Value = serde_json::from_str(&captured.text()).expect("one object");
        let timestamp = line.as_object_mut().and_then(|line| line.remove("timestamp"));
        assert!(timestamp.is_some());
        let expected = serde_json::json!({
            "level": "DEBUG",
            "target": "access",
            "direction": "inbound",
            "method": "GET",
            "authority": "reviews:9080",
            "path": "/reviews/0",
            "status": 503,
            "reason": "no-endpoint",
            "duration_us": 2000,
            "retries": 1,
            "peer": "127.0.0.1:5000",
            "identity": "spiffe://cluster.local/ns/default/sa/frontend",
            "request_id": "one-two",
            "trace_id": "0af7651916cd43dd8448eb211c80319c",
        });
        assert_eq!(line, expected);
    }

    #[test]
    fn nothing_is_written_unless_the_filter_names_it() {
        let captured = Captured::default();
        let text = tracing_subscriber::fmt::layer().with_writer(captured.clone());
        let filter: Targets = "info".parse().expect("a filter");
        let subscriber = tracing_subscriber::registry().with(filter).with(text);

        tracing::subscriber::with_default(subscriber, || {
            assert!(!enabled());
            write_if_enabled(&request());
        });

        assert_eq!(captured.text(), "");
    }

    #[test]
    fn what_is_no_trace_id_is_left_out() {
        assert_eq!(trace_id("00-short-b7ad6b7169203331-01"), None);
        assert_eq!(trace_id("nonsense"), None);
    }
}
