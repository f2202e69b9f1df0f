//! A Kubernetes API server of a test's own: the real kube-apiserver over the real etcd, on an address that nobody
//! else has.
//!
//! The binaries come from the directory that `KUBEBUILDER_ASSETS` names, as everywhere in the ecosystem
//! (`tests/kubernetes/assets` makes them). Of a cluster there is the API server alone: what controllers and
//! kubelets would do, a test does itself. What cannot be had here panics: only tests ask for it.

mod api;
mod assets;
mod certificates;
pub mod kinds;
mod server;

pub use api::{Api, Refused};
pub(crate) use assets::assets_directory;
pub use assets::{Assets, assets};
pub use server::{AUDIENCE, ApiServer, SeenRequest};
