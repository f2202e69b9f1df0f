//! The sidecar: the story of a request.

pub mod balance;
