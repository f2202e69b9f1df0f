//! The control plane: the story of a configuration change. YAML comes in; certificates and configuration go out.
//!
//! Each module is one room, and this is their order: a room imports only rooms that stand above it. So a change passes
//! each of them once, from the top to the bottom. (A source hands over documents that are understood already, so
//! [`resources`] stands above [`sources`].) A test (`tests/e2e/dependencies.rs`) holds the order, and that the README has
//! the same.

/// What is wrong with a document, where it stands, and what to change.
pub mod problem;

/// What is counted, for Prometheus.
pub mod metrics;

/// The directory that keeps what must survive a restart.
pub mod data_dir;

/// The documents: what each kind can say, and what it means.
pub mod resources;

/// Where documents come from: a directory, or an API server.
pub mod sources;

/// The keys of issuers that documents only name: fetched, fetched again, and kept.
pub mod keys;

/// All documents together become one mesh, and a list of problems.
pub mod compile;

/// The mesh in force: what each proxy may see of it, and what is new to that proxy.
pub mod snapshot;

/// What became of the change: what is wrong with documents, and what each proxy holds.
pub mod status;

/// The port for proxies: certificates, and a stream of configuration for each.
pub mod serve;

/// The webhooks: sidecars into pods, and a check of documents when they are written.
pub mod inject;

/// What only a cluster asks for: its CA in a Secret, its Lease, the status of objects.
pub mod cluster;

/// The settings as flags and environment variables.
pub mod cli;

/// Starts everything, and puts the rooms together.
pub mod app;

#[cfg(test)]
mod testing;

pub use app::{Pages, run};
