//! What is reported about requests: metrics for Prometheus; and if asked for, a line in the access log, and spans of a
//! trace.

pub mod access_log;
mod connections;
mod control;
mod counter;
mod durations;
mod events;
mod finish;
mod finished;
mod labels;
mod latencies;
mod lines;
mod metrics;
mod mirrored;
mod outbox;
mod priorities;
mod record;
mod registered;
mod series;
mod sparing;
mod tap;
mod tcp;
mod told;
pub mod trace;
mod watched;

pub use self::{
    control::ControlMetrics,
    events::{Decision, Dropped},
    finished::Finished,
    labels::Labels,
    metrics::{Metrics, OpenConnection},
    outbox::{Outbox, Told},
    priorities::{GroupHealth, MOST_GROUPS},
    record::{ClientConnection, OnPath, Record},
    series::Series,
    sparing::Sparing,
    tap::{Tap, WentTo},
    tcp::TcpSeries,
    told::TrafficTold,
    watched::{LineFormat, RouteLog, Watched},
};
