//! The roots that a trust domain's certificates lead to.
//!
//! Usually one root; two while a new one takes over, so that leaves of both are accepted meanwhile.

use std::{fmt, path::Path};

use rustls_pki_types::CertificateDer;
use selvedge_model::TrustDomain;

use crate::{
    facts::{fingerprint, is_signed_by},
    files::{self, FileError},
};

/// The trust roots of one trust domain.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    /// Whose certificates these roots vouch for.
    pub trust_domain: TrustDomain,
    /// The root certificates; more than one while a root is replaced.
    pub roots: Vec<CertificateDer<'static>>,
    /// Further roots that vouch for workloads among each other: those of a SPIRE server. Never for the control plane, nor
    /// for a workload to the control plane.
    pub workload_roots: Vec<CertificateDer<'static>>,
}

impl Bundle {
    /// The `roots` of `trust_domain`, and no others.
    pub fn new(trust_domain: TrustDomain, roots: Vec<CertificateDer<'static>>) -> Self {
        Self { trust_domain, roots, workload_roots: Vec::new() }
    }

    /// Reads the roots of `trust_domain` from a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn read(path: &Path, trust_domain: TrustDomain) -> Result<Self, FileError> {
        Ok(Self::new(trust_domain, files::read_certificates(path)?))
    }

    /// The root that a workload's chain leads to; `None` if the last certificate of the chain leads to none of them.
    pub fn root_of(&self, chain: &[CertificateDer<'_>]) -> Option<&CertificateDer<'static>> {
        let last = chain.last()?;
        self.roots.iter().find(|root| **root == *last || is_signed_by(last, root))
    }

    /// Whether every root of this bundle is still trusted by `newer`.
    ///
    /// If not, connections that were verified with the missing root must end.
    pub fn is_kept_by(&self, newer: &Self) -> bool {
        let is_kept = |root| newer.roots.contains(root) || newer.workload_roots.contains(root);
        self.trust_domain == newer.trust_domain
            && self.roots.iter().all(|root| newer.roots.contains(root))
            && self.workload_roots.iter().all(is_kept)
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = |roots: &[CertificateDer<'_>]| -> Vec<String> {
            roots.iter().map(|root| fingerprint(root).to_string()).collect()
        };
        f.debug_struct("Bundle")
            .field("trust_domain", &self.trust_domain)
            .field("roots", &names(&self.roots))
            .field("workload_roots", &names(&self.workload_roots))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(roots: &[&'static [u8]]) -> Bundle {
        let roots = roots.iter().map(|root| CertificateDer::from(*root)).collect();
        Bundle::new(TrustDomain::default(), roots)
    }

    #[test]
    fn adding_a_root_keeps_a_bundle_and_withdrawing_one_does_not() {
        let old = bundle(&[b"old"]);
        let both = bundle(&[b"old", b"new"]);
        let new = bundle(&[b"new"]);

        assert!(old.is_kept_by(&both));
        assert!(!both.is_kept_by(&new));
    }

    #[test]
    fn a_root_for_workloads_alone_is_missed_when_it_is_withdrawn() {
        let mesh = bundle(&[b"mesh"]);
        let with_spire = Bundle { workload_roots: bundle(&[b"spire"]).roots, ..mesh.clone() };

        assert!(mesh.is_kept_by(&with_spire));
        assert!(!with_spire.is_kept_by(&mesh));
        let swapped = Bundle { workload_roots: bundle(&[b"mesh"]).roots, ..bundle(&[b"spire"]) };
        assert!(!mesh.is_kept_by(&swapped), "what vouched for everybody vouches for workloads alone");
    }
}
