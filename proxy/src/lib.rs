//! The sidecar: the story of a request.

pub mod balance;
pub mod error;
pub mod retry;
pub mod telemetry;
