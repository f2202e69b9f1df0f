//! What is reported about requests: metrics for Prometheus; and if asked for, a line in the access log, and spans of a
//! trace.

pub mod access_log;
mod compat;
mod connections;
mod control;
mod counter;
mod durations;
mod events;
mod finish;
mod finished;
mod in_progress;
mod labels;
mod latencies;
mod line;
mod lines;
mod measured;
mod method;
mod metrics;
mod mirrored;
mod outbox;
mod own;
mod page;
mod priorities;
mod record;
mod registered;
mod said;
mod series;
mod tap;
mod tcp;
mod told;
pub mod trace;
mod trace_id;
mod underway;
mod unknown;
mod watched;

pub use self::{
    control::ControlMetrics,
    events::{Decision, Dropped},
    finished::Finished,
    in_progress::InProgress,
    labels::Labels,
    metrics::{Metrics, MetricsCompat, OpenConnection},
    outbox::{Outbox, Told},
    own::Peer,
    priorities::{GroupHealth, MOST_GROUPS},
    record::{BodySize, ClientConnection, Coming, OnPath, Passed, Received, Record},
    series::Series,
    tap::{Tap, WentTo},
    tcp::TcpSeries,
    told::TrafficTold,
    underway::Underway,
    unknown::Unknown,
    watched::{LineFormat, RouteLog, Watched},
};

#[cfg(test)]
pub(crate) use self::finish::tests as records;
