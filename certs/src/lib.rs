//! Who a workload is, and how two of them prove it.
//!
//! The story of an identity: a workload makes a key and a request ([`csr`]), the authority signs it for
//! the identity that was proven and for no other ([`ca`]), the workload uses the result ([`leaf`])
//! with the roots it trusts ([`bundle`]) in its TLS connections ([`tls`]), checks who is at the
//! other end ([`verify`]), and asks again in good time ([`renewal`]).

use selvedge_model::{SpiffeId, TrustDomain};

/// The types of `rustls-pki-types` that this crate's functions take and give.
pub use rustls_pki_types::{CertificateDer, DnsName, PrivateKeyDer, ServerName};

pub mod bundle;
pub mod ca;
mod crypto;
pub mod csr;
pub mod facts;
pub mod files;
#[cfg(test)]
mod forge;
pub mod holder;
pub mod leaf;
pub mod renewal;
pub mod server;
pub mod tls;
pub mod token;
pub mod verify;

/// The control plane's own identity, which every proxy expects when it connects.
pub fn control_plane_identity(trust_domain: &TrustDomain) -> SpiffeId {
    SpiffeId::new(trust_domain, "selvedge", "control-plane").expect("both parts are valid object names")
}
