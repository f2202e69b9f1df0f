//! Calico's policies of networks, their tiers, and the sets of addresses that they select.
//!
//! Each kind has two groups: `projectcalico.org/v3`, as people write it, and `crd.projectcalico.org/v1`, as clusters
//! without Calico's API server keep it.

mod expression;
pub mod network_set;
pub mod policy;
mod read;
#[cfg(test)]
mod tests;
pub mod tier;

pub use self::expression::Expression;

/// The versions that people write.
const WRITTEN: &[&str] = &["projectcalico.org/v3"];
/// The versions that clusters keep.
const KEPT: &[&str] = &["crd.projectcalico.org/v1"];
