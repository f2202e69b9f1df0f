//! The trust roots that the control plane sends.

use selvedge_api::wire;
use selvedge_certs::{
    bundle::Bundle,
    verify::{Anchors, BundleError},
};
use selvedge_model::identity::IdentityError;
use tokio_rustls::rustls::pki_types::CertificateDer;

/// Why trust roots cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnusableBundle {
    /// They are not of any trust domain.
    #[error(transparent)]
    TrustDomain(#[from] IdentityError),
    /// There is none, or one is damaged.
    #[error(transparent)]
    Roots(#[from] BundleError),
}

/// The trust roots in `bundle`, if peers can be verified with them.
///
/// # Errors
/// If they cannot.
pub fn bundle(bundle: wire::Bundle) -> Result<Bundle, UnusableBundle> {
    let bundle = Bundle {
        workload_roots: certificates(bundle.workload_roots),
        ..Bundle::new(bundle.trust_domain.parse()?, certificates(bundle.roots))
    };
    Anchors::among_workloads(&bundle)?;
    Ok(bundle)
}

fn certificates(ders: Vec<bytes::Bytes>) -> Vec<CertificateDer<'static>> {
    ders.into_iter().map(|der| CertificateDer::from(Vec::from(der))).collect()
}
