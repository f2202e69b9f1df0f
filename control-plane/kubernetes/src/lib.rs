//! The Kubernetes API server, as far as a mesh needs it: the only crate that knows `kube`.
//!
//! Everything here speaks of documents as JSON and of what the API server says of them; what they mean is
//! the control plane's business. A crate of its own, because `k8s-openapi` takes long to build.

pub mod client;
pub mod error;
pub mod forward;
pub mod kind;
pub mod lease;
pub mod objects;
pub mod review;
pub mod secret;
pub mod version;
pub mod watch;

pub use self::{
    client::{Client, Connect},
    error::Error,
    kind::Kind,
    lease::Election,
    review::{Access, Reviewed},
    secret::Secret,
    version::Version,
    watch::Event,
};
