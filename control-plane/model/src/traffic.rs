//! What sidecars tell of the traffic that they carry: how many requests and connections there were between whom, how they
//! ended, and how long they took.
//!
//! What is told is what has happened since the last time, and it is added up from there. What is said of a workload's
//! traffic is only as true as its own sidecar is.

mod failure;
mod latency;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::{
    failure::FailureKind,
    latency::{BUCKETS, Latencies, bucket_of},
};
use crate::{BackendName, SpiffeId};

/// The most edges that one sidecar tells of at a time. What there is of others is counted, and not told apart.
pub const MOST_EDGES: usize = 1_000;
/// The most outcomes that are told apart of one edge.
pub const MOST_OUTCOMES: usize = 64;
/// The longest name of a host, a route or a subset, in bytes; the rest of a longer one is left out.
pub const LONGEST_NAME: usize = 512;
/// The longest reason, in bytes.
pub const LONGEST_REASON: usize = 64;
/// The most of something that one report tells of one edge; of bytes, 4,096 times as many.
pub const MOST_AT_ONCE: u64 = 1 << 40;
/// For how long an endpoint can be told to get no requests, at most: longer than any ejection.
pub const LONGEST_OUT: Duration = Duration::from_secs(24 * 3_600);
/// The most endpoints that one sidecar tells of that get no requests.
pub const MOST_OUT: usize = 256;
/// The most endpoints with failures that one report tells of.
pub const MOST_FAILING: usize = 64;
/// The most of them of one backend.
pub const MOST_FAILING_OF_ONE: usize = 32;
/// The longest words about why an endpoint gets none, in bytes.
pub const LONGEST_WHY: usize = 256;

/// Whose traffic it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// What the workload's own app sends.
    Outbound,
    /// What comes to the workload.
    Inbound,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carried {
    /// Requests, HTTP and gRPC.
    Http,
    /// Opaque connections.
    Tcp,
    /// What requests have become.
    WebSocket,
}

/// Between whom traffic goes, as one end's sidecar tells it apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// Whether the workload is the client or the server.
    pub way: Way,
    /// What is counted.
    pub carried: Carried,
    /// The service's host; `unknown`: what is in no configuration. Inbound: empty, because it is the workload itself.
    pub host: Arc<str>,
    /// The service's port, or the workload's; 0: not known.
    pub port: u16,
    /// The route's name. Empty: none was followed.
    pub route: Arc<str>,
    /// The subset that the route names. Empty: none.
    pub subset: Arc<str>,
    /// The service that the route leads to, as `host:port`. Empty: the one that was called.
    #[serde(default)]
    pub backend: Arc<str>,
    /// Whether mutual TLS carries it.
    pub mtls: bool,
    /// Inbound: who the client has proven to be. `None`: plaintext.
    pub client: Option<SpiffeId>,
}

/// Reasons of a proxy's that speak of a connection which there was.
const AFTER_CONNECTING: [&str; 2] = ["reset", "protocol"];
/// Those of an answer that has begun and has broken off by no doing of its client's: the server, or what is between, has not
/// brought it to its end. Dashboards, rules and alerts have the same.
pub const BROKEN_OFF: [&str; 5] = ["certificate", "draining", "identity", "reset", "timeout"];
/// Those of an answer that a proxy has made itself because the mesh did not bring the request anywhere, although its status, or
/// gRPC's, does not say that: there is no route (404), or a limit of connections or requests is reached (RESOURCE_EXHAUSTED).
/// Dashboards, rules and alerts have the same.
pub const UNSERVED: [&str; 2] = ["no-route", "overflow"];

impl Edge {
    /// How many of `counts` have gone in plaintext for certain. What a client's proxy has answered itself, or has given up, may
    /// have gone nowhere.
    pub fn in_plaintext(&self, counts: &Counts) -> u64 {
        let came = counts.came(self.carried);
        if self.mtls {
            return 0;
        }
        if self.way == Way::Inbound {
            return came;
        }
        let is_unsent = |one: &&OutcomeCount| {
            let Outcome { status, grpc_status, reason } = &one.outcome;
            let has_begun = match self.carried {
                // What a proxy answers itself has another status, or gRPC's.
                Carried::Http => grpc_status.is_none() && status.is_some_and(|status| status < 400),
                // It was carried, and then silent for too long, or broken off by its client.
                Carried::Tcp | Carried::WebSocket => {
                    matches!(reason.as_deref(), Some("timeout" | "canceled"))
                }
            };
            !has_begun && reason.as_deref().is_some_and(|reason| !AFTER_CONNECTING.contains(&reason))
        };
        let unsent = counts.outcomes.iter().filter(is_unsent);
        came.saturating_sub(unsent.fold(0_u64, |sum, one| sum.saturating_add(one.count)))
    }
}

/// How a request or a connection ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Outcome {
    /// The answer's status. `None`: no answer was sent, or there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The gRPC status, where one was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u8>,
    /// Why a proxy made the answer, or why it broke off: a word of `proxy/errors.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Arc<str>>,
}

impl Outcome {
    /// Whether it speaks against the server, or what is between.
    ///
    /// A request fails if it gets no answer, a status of 500 or more, an answer that breaks off ([`BROKEN_OFF`]), one that a proxy
    /// has made itself because the request went nowhere ([`UNSERVED`]), or a gRPC status that says that the call did not work
    /// (UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS). As Linkerd has it, an app's own answer of 404 is a success.
    /// A request that its own client gives up before the answer is over does not fail, and neither does one that a policy or a
    /// rate limit refuses or breaks off. A connection fails if a proxy refuses it or breaks it off.
    pub fn is_failure(&self, carried: Carried) -> bool {
        let reason = self.reason.as_deref();
        if carried != Carried::Http {
            return reason.is_some_and(|reason| reason != "canceled");
        }
        match self.status {
            None => reason != Some("canceled"),
            Some(status) if status >= 500 => true,
            Some(_) => {
                matches!(self.grpc_status, Some(2 | 4 | 13 | 14 | 15))
                    || reason.is_some_and(|reason| BROKEN_OFF.contains(&reason) || UNSERVED.contains(&reason))
            }
        }
    }
}

/// How often something ended like this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeCount {
    /// Like this.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How often.
    pub count: u64,
}

/// What has happened on an edge in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Connections that have come, those that were refused included. Of requests: 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub connections: u64,
    /// What has ended, by how; each outcome once, in their order.
    pub outcomes: Vec<OutcomeCount>,
    /// How long requests took, from the first byte to the last of the answer.
    pub latencies: Latencies,
    /// Bytes from the client. Of requests: not counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub received: u64,
    /// Bytes to the client: of requests, those of answers' bodies.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sent: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks so
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Counts {
    /// Adds what has happened in another time, or on another edge.
    pub fn add(&mut self, other: &Self) {
        self.connections = self.connections.saturating_add(other.connections);
        self.received = self.received.saturating_add(other.received);
        self.sent = self.sent.saturating_add(other.sent);
        for OutcomeCount { outcome, count } in &other.outcomes {
            self.ended(outcome, *count);
        }
        self.latencies.add(&other.latencies);
    }

    /// So many more have ended like this.
    pub fn ended(&mut self, outcome: &Outcome, count: u64) {
        match self.outcomes.binary_search_by(|known| known.outcome.cmp(outcome)) {
            Ok(place) => {
                let known = &mut self.outcomes[place].count;
                *known = known.saturating_add(count);
            }
            Err(place) => {
                self.outcomes.insert(place, OutcomeCount { outcome: outcome.clone(), count });
            }
        }
    }

    /// How many there were, each once: requests count when they have ended, connections when they come.
    pub fn came(&self, carried: Carried) -> u64 {
        if carried == Carried::Http { self.ends() } else { self.connections }
    }

    /// How many have ended.
    pub fn ends(&self) -> u64 {
        self.outcomes.iter().fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// How many of those speak against the server, or what is between.
    pub fn failures(&self, carried: Carried) -> u64 {
        let failed = self.outcomes.iter().filter(|one| one.outcome.is_failure(carried));
        failed.fold(0, |sum, one| sum.saturating_add(one.count))
    }

    /// Whether nothing has happened.
    pub fn is_empty(&self) -> bool {
        self.connections == 0 && self.outcomes.is_empty() && self.received == 0 && self.sent == 0
    }
}

/// An endpoint that gets no requests from the workload, although its backend has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// The backend that has it.
    pub backend: BackendName,
    /// Where its app listens.
    pub address: SocketAddr,
    /// How much longer that lasts. `None`: until its health checks pass.
    pub left: Option<Duration>,
    /// Why: a word such as `consecutive-5xx` or `health-check`.
    pub why: Arc<str>,
    /// The last failure, in words.
    pub last_failure: Arc<str>,
}

/// What attempts at one endpoint have come to, as its client's sidecar sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtEndpoint {
    /// The backend that has it.
    pub backend: BackendName,
    /// Where its app listens.
    pub address: SocketAddr,
    /// How many have begun, through whichever backend: one for each request, retry and opaque connection.
    pub attempts: u64,
    /// How many of this backend's have failed, and how.
    pub failures: Vec<(FailureKind, u64)>,
}

impl AtEndpoint {
    /// How many have failed.
    pub fn failed(&self) -> u64 {
        self.failures.iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }
}

/// What one sidecar tells at a time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// What the numbers of `counts` stand for from now on, on this stream; each below [`MOST_EDGES`].
    pub named: Vec<(u32, Edge)>,
    /// The numbers that from now on stand for something that only a newer version knows.
    pub not_understood: Vec<u32>,
    /// What has happened since the last time.
    pub counts: Vec<(u32, Counts)>,
    /// Requests and connections that are in none of it, because there are too many edges.
    pub left_out: u64,
    /// All endpoints that get no requests. `None`: the same as last time.
    pub out: Option<Vec<Out>>,
    /// What attempts at endpoints with failures have come to since they were last told of; at most [`MOST_FAILING`].
    pub at_endpoints: Vec<AtEndpoint>,
    /// How many more endpoints have failures, which are told later.
    pub endpoints_left_out: u32,
}

impl Told {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.left_out == 0 && self.out.is_none() && self.at_endpoints.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Option<u16>, grpc_status: Option<u8>, reason: Option<&str>) -> Outcome {
        Outcome { status, grpc_status, reason: reason.map(Arc::from) }
    }

    #[test]
    fn what_speaks_against_a_server_is_a_failure() {
        for (status, grpc, reason, failure) in [
            (Some(200), None, None, false),
            (Some(404), None, None, false),
            (Some(404), None, Some("no-route"), true),
            (Some(200), Some(12), None, false),
            (Some(200), Some(12), Some("no-route"), true),
            (Some(200), Some(8), None, false),
            (Some(200), Some(8), Some("overflow"), true),
            (Some(200), Some(8), Some("rate-limit"), false),
            (Some(500), None, None, true),
            (Some(503), None, Some("no-endpoint"), true),
            (Some(403), None, Some("policy"), false),
            (Some(200), None, Some("reset"), true),
            (Some(404), None, Some("reset"), true),
            (Some(200), None, Some("timeout"), true),
            (Some(200), None, Some("draining"), true),
            (Some(200), None, Some("policy"), false),
            (Some(200), None, Some("request-timeout"), false),
            (Some(200), Some(0), Some("reset"), true),
            (Some(200), None, Some("canceled"), false),
            (None, None, Some("canceled"), false),
            (None, None, None, true),
            (Some(200), Some(0), None, false),
            (Some(200), Some(5), None, false),
            (Some(200), Some(14), None, true),
            (Some(200), Some(7), Some("policy"), false),
        ] {
            let one = outcome(status, grpc, reason);
            assert_eq!(one.is_failure(Carried::Http), failure, "{one:?}");
        }
        assert!(!outcome(None, None, None).is_failure(Carried::Tcp));
        assert!(outcome(None, None, Some("policy")).is_failure(Carried::Tcp));
    }

    #[test]
    fn what_was_sent_nowhere_did_not_go_in_plaintext() {
        let edge = |way, carried, mtls| Edge {
            way,
            carried,
            host: "a".into(),
            port: 80,
            route: "".into(),
            subset: "".into(),
            backend: "".into(),
            mtls,
            client: None,
        };
        let counts = |connections, reasons: &[Option<&str>]| {
            let mut counts = Counts { connections, ..Counts::default() };
            for reason in reasons {
                counts.ended(&outcome(None, None, *reason), 1);
            }
            counts
        };
        let all = [None, Some("no-endpoint"), Some("timeout"), Some("canceled"), Some("reset")];
        for (way, carried, mtls, plain) in [
            (Way::Outbound, Carried::Http, false, 2),
            (Way::Outbound, Carried::Http, true, 0),
            (Way::Inbound, Carried::Http, false, 5),
            (Way::Outbound, Carried::Tcp, false, 5),
            (Way::Inbound, Carried::Tcp, false, 6),
        ] {
            let edge = edge(way, carried, mtls);
            assert_eq!(edge.in_plaintext(&counts(6, &all)), plain, "{edge:?}");
        }
        // What has begun to be answered was sent, whatever has ended it.
        let mut begun = Counts::default();
        begun.ended(&outcome(Some(200), None, Some("timeout")), 3);
        begun.ended(&outcome(Some(504), None, Some("timeout")), 4);
        assert_eq!(edge(Way::Outbound, Carried::Http, false).in_plaintext(&begun), 3);
    }

    #[test]
    fn counts_are_added_up_by_outcome() {
        let (ok, bad) = (outcome(Some(200), None, None), outcome(Some(503), None, None));
        let mut sum = Counts::default();
        let mut other = Counts::default();
        sum.ended(&bad, 1);
        other.ended(&ok, 5);
        other.ended(&bad, 2);
        other.latencies.note(bucket_of(Duration::from_millis(3)), 7);
        sum.add(&other);

        assert_eq!((sum.ends(), sum.failures(Carried::Http)), (8, 3));
        assert_eq!(sum.outcomes[0], OutcomeCount { outcome: ok, count: 5 });
        let text = serde_json::to_string(&sum).expect("it is written");
        assert_eq!(serde_json::from_str::<Counts>(&text).expect("it is read"), sum);
    }
}
