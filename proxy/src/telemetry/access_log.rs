//! The access log: one line for each request and each opaque connection, through the log's target `access`.
//!
//! This is the one that the log's filter turns on (`--log info,access=debug`, or `/log-level` while running), in the
//! format that the log has; what configuration turns on is [`Watched`](super::Watched)'s. Off, it costs one look at a
//! flag per request. On, it leaves out the query, which often holds what should not be in logs.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use selvedge_model::{SpiffeId, telemetry::Logged};

use super::Record;
use crate::{arrival::Direction, error::Reason};

/// The log's target.
const TARGET: &str = "access";

/// Whether configuration asks for lines ([`Watched`](super::Watched)).
static WATCHED: AtomicBool = AtomicBool::new(false);

/// Whether lines may be written, by the log's filter or by configuration. Check this first, so that nothing of a request is
/// copied for nothing.
pub fn enabled() -> bool {
    WATCHED.load(Ordering::Relaxed) || by_filter()
}

/// Whether the log's filter names them.
pub fn by_filter() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::DEBUG)
}

/// Whether configuration asks for lines.
pub(super) fn set_watched(is_on: bool) {
    WATCHED.store(is_on, Ordering::Relaxed);
}

/// Writes what happened to a request, now that it is over.
pub(super) fn write(record: &Record) {
    let Some(head) = &record.head else { return };
    tracing::debug!(
        target: TARGET,
        direction = record.direction().word(),
        method = head.method(),
        authority = head.authority.as_str(),
        path = head.path.as_str(),
        status = record.status,
        reason = record.reason.map(Reason::word),
        error = record.error.as_deref(),
        duration_us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        retries = record.retries,
        peer = %record.client.peer(),
        identity = record.client.identity().map(SpiffeId::as_str),
        request_id = head.request_id.get(),
        trace_id = head.trace_id,
    );
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
    /// Whether it came, or went, over the mesh's mutual TLS.
    pub mtls: bool,
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
    /// What an expression may ask of it.
    pub(super) fn logged(&self) -> Logged<'_> {
        Logged {
            duration: self.duration,
            mtls: self.mtls,
            protocol: "TCP",
            reason: self.reason.map(Reason::word),
            principal: self.identity.map(SpiffeId::as_str),
            received: self.received,
            sent: self.sent,
            ..Logged::default()
        }
    }

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

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use http::HeaderValue;
    use tracing_subscriber::{filter::Targets, fmt::MakeWriter, layer::SubscriberExt};

    use super::*;
    use crate::telemetry::finish::tests::{begun, begun_at_gateway, series};

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

    fn one_request() {
        let mut record = begun(&series());
        let answer = http::Response::builder().status(503).body(()).expect("an answer");
        record.answered(&answer, Some(Reason::NoEndpoint), 1, None);
        let over = record.began + Duration::from_millis(2);
        record.finish(true, over);
    }

    #[test]
    fn a_request_is_one_line_of_json_without_its_query() {
        let captured = Captured::default();
        let json = tracing_subscriber::fmt::layer().json().flatten_event(true).with_writer(captured.clone());
        let filter: Targets = "info,access=debug".parse().expect("a filter");
        let subscriber = tracing_subscriber::registry().with(filter).with(json);

        tracing::subscriber::with_default(subscriber, one_request);

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
    fn a_gateway_says_what_it_has_called_a_request_itself_and_repeats_no_claim() {
        let filter: Targets = "info,access=debug".parse().expect("a filter");
        let text = tracing_subscriber::fmt::layer().with_writer(Captured::default());
        let subscriber = tracing_subscriber::registry().with(filter).with(text);
        let said = |record: &Record| {
            let head = record.head.as_ref().expect("the filter asks for it");
            [&head.request_id, &head.forwarded_for].map(|said| said.get().map(str::to_owned))
        };

        tracing::subscriber::with_default(subscriber, || {
            assert_eq!(said(&begun(&series())), ["one-two", "10.0.0.1"].map(|text| Some(text.to_owned())));
            let mut record = begun_at_gateway();
            assert_eq!(said(&record), [None, None]);

            let ours = ["ours", "192.0.2.7"].map(HeaderValue::from_static);
            record.explained(None, Some(&ours[0]), Some(&ours[1]));

            assert_eq!(said(&record), ["ours", "192.0.2.7"].map(|text| Some(text.to_owned())));
        });
    }

    #[test]
    fn nothing_is_written_unless_the_filter_names_it() {
        let captured = Captured::default();
        let text = tracing_subscriber::fmt::layer().with_writer(captured.clone());
        let filter: Targets = "info".parse().expect("a filter");
        let subscriber = tracing_subscriber::registry().with(filter).with(text);

        tracing::subscriber::with_default(subscriber, || {
            assert!(!by_filter());
            one_request();
        });

        assert_eq!(captured.text(), "");
    }
}
