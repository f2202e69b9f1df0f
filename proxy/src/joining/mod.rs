//! Joining the mesh: our own certificate, and the way to the control plane that signs it.

mod bundle;
mod clocks;
pub mod complaint;
pub mod connect;
pub mod own;
pub mod token;

pub use self::{
    bundle::{UnusableBundle, bundle},
    complaint::Complaint,
    connect::{Address, ConnectError, ControlPlane},
    own::Joined,
};
