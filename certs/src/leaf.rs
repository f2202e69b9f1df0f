//! A certificate in use: chain, key, identity and how long it lasts.

use std::{fmt, sync::Arc, time::SystemTime};

use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_model::SpiffeId;

use crate::{
    crypto,
    facts::{Facts, NoIdentity, NotACertificate},
};

/// Why a chain and a key do not make a certificate in use.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The chain is empty.
    #[error("no certificate was given; expected the workload's own, then its issuer's")]
    Empty,
    /// The chain's first element is damaged.
    #[error("the first of the chain is {0}")]
    Malformed(#[from] NotACertificate),
    /// The certificate is for something else, such as a web server.
    #[error("the certificate is not a workload's: {0}")]
    Identity(#[from] NoIdentity),
    /// The key is of another kind, damaged, or belongs to another certificate.
    #[error("the private key does not fit the certificate for {identity}: {source}")]
    Key {
        /// Whose certificate it is.
        identity: SpiffeId,
        /// What the TLS library said.
        source: rustls::Error,
    },
}

/// A workload's certificate with its private key.
pub struct Leaf {
    /// The workload's own certificate, then its issuer's; without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key of the first of the chain.
    pub key: PrivateKeyDer<'static>,
    /// Whose certificate it is.
    pub identity: SpiffeId,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
}

impl Leaf {
    /// Reads identity and dates from the chain, and checks that the key belongs to it.
    ///
    /// # Errors
    /// If the first certificate has not exactly one SPIFFE ID, or if the key is another's.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Result<Self, LeafError> {
        let facts = Facts::parse(chain.first().ok_or(LeafError::Empty)?)?;
        let identity = facts.identity()?;
        let leaf = Self { chain, key, identity, not_before: facts.not_before, not_after: facts.not_after };
        leaf.certified_key()?;
        Ok(leaf)
    }

    /// The chain and the key as rustls uses them.
    pub(crate) fn certified_key(&self) -> Result<CertifiedKey, LeafError> {
        let wrong = |source| LeafError::Key { identity: self.identity.clone(), source };
        let key = crypto::provider().key_provider.load_private_key(self.key.clone_key()).map_err(wrong)?;
        let certified = CertifiedKey::new(self.chain.clone(), Arc::clone(&key));
        certified.keys_match().map_err(wrong)?;
        Ok(certified)
    }
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            identity: self.identity.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leaf")
            .field("identity", &self.identity)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{ca::Authority, csr::KeyAndCsr};

    fn leaf() -> Leaf {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), &Default::default()).unwrap();
        let identity = "spiffe://cluster.local/ns/a/sa/b".parse().unwrap();
        authority.issue(&identity, &[], Duration::from_secs(60), SystemTime::now()).unwrap()
    }

    #[test]
    fn a_leaf_knows_its_identity_and_its_dates() {
        let leaf = leaf();

        let again = Leaf::new(leaf.chain.clone(), leaf.key.clone_key()).unwrap();

        assert_eq!(again.identity.as_str(), "spiffe://cluster.local/ns/a/sa/b");
        assert_eq!((again.not_before, again.not_after), (leaf.not_before, leaf.not_after));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let leaf = leaf();
        let other = KeyAndCsr::generate(&leaf.identity).unwrap().key;

        assert!(matches!(Leaf::new(leaf.chain, other), Err(LeafError::Key { .. })));
    }

    #[test]
    fn a_private_key_is_never_printed() {
        let leaf = leaf();

        let shown = format!("{leaf:?}");

        assert!(shown.contains("spiffe://") && !shown.contains("key"), "{shown}");
    }
}
