//! The story of a configuration change: YAML in, certificates and configuration out.

pub mod compile;
pub mod problem;
pub mod resources;
pub mod sources;
