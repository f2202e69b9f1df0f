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
    let roots = bundle.roots.into_iter().map(|root| CertificateDer::from(Vec::from(root))).collect();
    let bundle = Bundle { trust_domain: bundle.trust_domain.parse()?, roots };
    Anchors::new(&bundle)?;
    Ok(bundle)
}
