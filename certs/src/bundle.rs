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
}

impl Bundle {
    /// Reads the roots of `trust_domain` from a PEM file.
    ///
    /// # Errors
    /// If the file cannot be read or holds no certificate.
    pub fn read(path: &Path, trust_domain: TrustDomain) -> Result<Self, FileError> {
        Ok(Self { trust_domain, roots: files::read_certificates(path)? })
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
        self.trust_domain == newer.trust_domain && self.roots.iter().all(|root| newer.roots.contains(root))
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: Vec<String> = self.roots.iter().map(|root| fingerprint(root).to_string()).collect();
        f.debug_struct("Bundle").field("trust_domain", &self.trust_domain).field("roots", &roots).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(roots: &[&'static [u8]]) -> Bundle {
        Bundle {
            trust_domain: TrustDomain::default(),
            roots: roots.iter().map(|root| CertificateDer::from(*root)).collect(),
        }
    }

    #[test]
    fn adding_a_root_keeps_a_bundle_and_withdrawing_one_does_not() {
        let old = bundle(&[b"old"]);
        let both = bundle(&[b"old", b"new"]);
        let new = bundle(&[b"new"]);

        assert!(old.is_kept_by(&both));
        assert!(!both.is_kept_by(&new));
    }
}
