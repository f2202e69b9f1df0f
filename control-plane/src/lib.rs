//! The story of a configuration change: YAML in, certificates and configuration out.

pub mod app;
pub mod cli;
pub mod cluster;
pub mod compile;
pub mod data_dir;
pub mod inject;
pub mod metrics;
pub mod problem;
pub mod resources;
pub mod serve;
pub mod snapshot;
pub mod sources;
pub mod status;

pub use app::run;
