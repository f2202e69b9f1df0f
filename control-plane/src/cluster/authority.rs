//! The CA's key and the key of join tokens, in Secrets that all replicas share.
//!
//! Whoever comes first makes them; two who come together are told apart by the API server, and the slower
//! one takes what the faster one made. cert-manager may make the CA instead: the names are its own.

use std::{collections::BTreeMap, path::Path, time::SystemTime};

use aws_lc_rs::rand;
use selvedge_certs::{
    ca::{Authority, AuthorityError, CaPem},
    files::{self, FileError},
};
use selvedge_kubernetes::{Error, Secret};
use selvedge_model::TrustDomain;

use super::{Cluster, patiently};
use crate::serve::attestation::{KEY, KEY_LENGTH, TokenKey};

/// The Secret with the CA: `tls.crt`, `tls.key`, `ca.crt`.
pub const CA_SECRET: &str = "selvedge-ca";
/// The Secret with the key of join tokens: `token-key`.
pub const TOKEN_KEY_SECRET: &str = "selvedge-join-token-key";

const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";
const CERTIFICATE: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const ROOT: &str = "ca.crt";

/// Why there is no CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The API server cannot be asked, or refuses.
    #[error("the Secret {namespace}/{name}: {source}")]
    Secret {
        /// Our namespace.
        namespace: String,
        /// Which Secret.
        name: &'static str,
        /// What the API server says.
        source: Error,
    },
    /// The Secret is there and holds no CA that can be used.
    #[error(
        "the Secret {namespace}/{CA_SECRET}: {source}; repair it, or delete it for a new CA, which every \
         proxy must then be told of"
    )]
    Unusable {
        /// Our namespace.
        namespace: String,
        /// What is wrong.
        source: AuthorityError,
    },
    /// The Secret lacks a part.
    #[error("the Secret {namespace}/{name} has no {key}; repair it, or delete it for a new one")]
    Incomplete {
        /// Our namespace.
        namespace: String,
        /// Which Secret.
        name: &'static str,
        /// Which part.
        key: &'static str,
    },
    /// The token key cannot be put into the data directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The system gives no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl Cluster {
    /// The authority that the Secret holds; made first if there is none.
    ///
    /// # Errors
    /// If the Secret cannot be read or made, or what it holds cannot be used.
    pub async fn authority(&self, trust_domain: &TrustDomain) -> Result<Authority, CaError> {
        let unusable = |source| CaError::Unusable { namespace: self.namespace.clone(), source };
        let now = SystemTime::now();
        let secret = self
            .secret_or_new(CA_SECRET, || {
                let root = CaPem::new_root(trust_domain, now).map_err(unusable)?;
                let data = BTreeMap::from([
                    (CERTIFICATE.to_owned(), root.certificate),
                    (PRIVATE_KEY.to_owned(), root.key),
                    (ROOT.to_owned(), root.root.unwrap_or_default()),
                ]);
                Ok(Secret::new(TLS, data))
            })
            .await?;
        Authority::from_pem(&self.ca_pem(secret)?, trust_domain, now).map_err(unusable)
    }

    /// Puts the key that join tokens are signed with into `directory`; all replicas have the same.
    ///
    /// # Errors
    /// If the Secret cannot be read or made, or the file cannot be written.
    pub async fn fetch_token_key(&self, directory: &Path) -> Result<(), CaError> {
        Ok(files::write_secret(&directory.join(KEY), &self.token_key_bytes().await?)?)
    }

    /// The key that join tokens are signed with.
    ///
    /// # Errors
    /// If the Secret cannot be read or made, or holds something else.
    pub async fn token_key(&self) -> Result<TokenKey, CaError> {
        let key = TokenKey::from_bytes(&self.token_key_bytes().await?);
        key.ok_or_else(|| self.incomplete(TOKEN_KEY_SECRET, KEY))
    }

    async fn token_key_bytes(&self) -> Result<Vec<u8>, CaError> {
        let mut secret = self
            .secret_or_new(TOKEN_KEY_SECRET, || {
                let mut key = vec![0; KEY_LENGTH];
                rand::fill(&mut key).map_err(|_| CaError::Random)?;
                Ok(Secret::new(OPAQUE, BTreeMap::from([(KEY.to_owned(), key)])))
            })
            .await?;
        secret.data.remove(KEY).ok_or_else(|| self.incomplete(TOKEN_KEY_SECRET, KEY))
    }

    /// Whether the Secret still holds the CA that `authority` was made of; `None` if it cannot be told now.
    pub(super) async fn still_holds(&self, authority: &Authority) -> Option<bool> {
        let secret = self.client.secret(&self.namespace, CA_SECRET).await.ok()?;
        let Some(secret) = secret else { return Some(false) };
        let pem = self.ca_pem(secret).ok()?;
        let found = Authority::from_pem(&pem, authority.trust_domain(), SystemTime::now());
        Some(found.is_ok_and(|found| found.root_sha256() == authority.root_sha256()))
    }

    fn ca_pem(&self, mut secret: Secret) -> Result<CaPem, CaError> {
        let mut part = |key| secret.data.remove(key).ok_or_else(|| self.incomplete(CA_SECRET, key));
        Ok(CaPem { certificate: part(CERTIFICATE)?, key: part(PRIVATE_KEY)?, root: part(ROOT).ok() })
    }

    async fn secret_or_new(
        &self,
        name: &'static str,
        make: impl Fn() -> Result<Secret, CaError>,
    ) -> Result<Secret, CaError> {
        let failed = |source| CaError::Secret { namespace: self.namespace.clone(), name, source };
        let read = || self.client.secret(&self.namespace, name);
        if let Some(secret) = patiently(read).await.map_err(failed)? {
            return Ok(secret);
        }
        let new = make()?;
        match self.client.create_secret(&self.namespace, name, &new).await {
            Ok(secret) => {
                tracing::info!(namespace = self.namespace, name, "made the Secret");
                Ok(secret)
            }
            // Another replica was faster.
            Err(Error::AlreadyExists(why)) => {
                let found = patiently(read).await.map_err(failed)?;
                found.ok_or_else(|| failed(Error::NotFound(why)))
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn incomplete(&self, name: &'static str, key: &'static str) -> CaError {
        CaError::Incomplete { namespace: self.namespace.clone(), name, key }
    }
}
