//! Joining the mesh: our own certificate, and the way to the control plane that signs it.
//!
//! With `--workload-api`, peers see an SVID that a SPIFFE agent gives, and the control plane's certificate is for its
//! streams alone: see [`svid`].

mod bundle;
mod clocks;
pub mod complaint;
pub mod connect;
pub mod own;
pub mod svid;
pub mod token;
pub mod traffic;
pub mod workload_api;

pub use self::{
    bundle::{UnusableBundle, bundle},
    complaint::Complaint,
    connect::{Address, ConnectError, ControlPlane},
    own::Joined,
};
