//! What is told about requests: numbers for Prometheus, and a line for each if asked for.
//!
//! Trace context (W3C `traceparent`, `tracestate`) needs nothing here: it is an end-to-end header and
//! passes through like any other.

pub mod access_log;
mod control;
mod metrics;
mod record;
mod series;
mod tcp;

pub use self::{
    control::ControlMetrics,
    metrics::{Metrics, OpenConnection},
    record::{OnPath, Origin, Record},
    series::{Labels, Series},
    tcp::TcpSeries,
};
