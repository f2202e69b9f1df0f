//! The contract between control plane and proxies.
//!
//! [`wire`] is generated from `proto/`; [`convert`] turns it into the model's types and back, refusing
//! (never crashing on) what this version does not know. A proxy one minor version older is supported.

pub mod convert;
pub mod encoded;
pub mod preamble;
pub mod resource;

pub use convert::ConvertError;
pub use resource::ResourceName;

/// The generated messages, clients and servers of the protobuf package `selvedge.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)] // generated
pub mod wire {
    tonic::include_proto!("selvedge.v1");
}
