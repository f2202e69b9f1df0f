//! Configuration from the control plane.

pub mod store;
