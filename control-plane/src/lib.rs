//! The story of a configuration change: YAML in, certificates and configuration out.
//!
//! A change passes these rooms in this order, and each imports only those before it: [`resources`] (what a document can
//! say), [`sources`] (where documents come from), [`compile`], [`snapshot`], [`status`] (what became of it), [`serve`],
//! [`inject`]. [`cluster`] does what is asked for in a cluster only, and [`app`] puts all of it together.

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
#[cfg(test)]
mod testing;

pub use app::run;
