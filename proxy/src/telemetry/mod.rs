//! What is reported about requests: metrics for Prometheus, and a line in the access log if asked for.
//!
//! Trace context (W3C `traceparent`, `tracestate`) needs nothing here: it is an end-to-end header and
//! passes through like any other.

pub mod access_log;
mod connections;
mod control;
mod counter;
mod durations;
mod events;
mod finish;
mod labels;
mod latencies;
mod metrics;
mod mirrored;
mod priorities;
mod record;
mod registered;
mod series;
mod sparing;
mod tap;
mod tcp;
mod told;

pub use self::{
    control::ControlMetrics,
    events::{Decision, Dropped},
    labels::Labels,
    metrics::{Metrics, OpenConnection},
    priorities::{GroupHealth, MOST_GROUPS},
    record::{ClientConnection, OnPath, Record},
    series::Series,
    sparing::Sparing,
    tap::{Tap, WentTo},
    tcp::TcpSeries,
    told::TrafficTold,
};
