//! The CA's key and the key of join tokens, in Secrets that all replicas share.
//!
//! The first replica makes them. If two replicas start together, the API server accepts the Secret of one, and the other
//! replica uses that. cert-manager can make the CA instead: the names in the Secret are cert-manager's.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

use aws_lc_rs::rand;
use selvedge_certs::{
    ca::{Authority, AuthorityError, CaPem, OtherRoot},
    files::{self, FileError},
};
use selvedge_kubernetes::{Error, Secret};
use selvedge_model::TrustDomain;

use super::{Cluster, patiently};
use crate::serve::attestation::{KEY, KEY_LENGTH, TokenKey};
pub use crate::{compile::CA_SECRET, serve::attestation::records::SECRET as TOKEN_KEY_SECRET};

/// How much longer a root's new issuer must last than the one in use.
const WORTH_RENEWING: Duration = Duration::from_secs(86_400);

const TLS: &str = "kubernetes.io/tls";
const OPAQUE: &str = "Opaque";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const PRIVATE_KEY: &str = "tls.key";
pub(super) const ROOT: &str = "ca.crt";
pub(super) const CROSS: &str = "cross.crt";

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
        "the Secret {namespace}/{CA_SECRET}: {source}; repair it, or delete it for a new CA, whose root \
         every proxy must then trust"
    )]
    Unusable {
        /// Our namespace.
        namespace: String,
        /// What is wrong.
        source: AuthorityError,
    },
    /// The Secret lacks a part.
    #[error(
        "the Secret {namespace}/{name} has no {key}; repair the Secret, or delete it so that a new one is made"
    )]
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

/// Why what signs is not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RenewalError {
    /// The API server does not say.
    #[error(transparent)]
    Unknown(#[from] Error),
    /// Somebody has deleted it.
    #[error("it is gone")]
    Gone,
    /// It lacks a part.
    #[error(transparent)]
    Incomplete(#[from] CaError),
    /// What it holds is not a CA, or another trust domain's.
    #[error(transparent)]
    Unusable(#[from] AuthorityError),
    /// Proxies must be told of a new root before anything is signed below it.
    #[error(transparent)]
    OtherRoot(#[from] OtherRoot),
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

    /// Signs by what the Secret holds now, and trusts whom it trusts, if that is new: cert-manager's next CA, a new
    /// issuer of a root's, a further root. Says whether it was.
    ///
    /// # Errors
    /// If the Secret cannot be read, or what it holds cannot be used or has a root that is not trusted yet.
    pub(super) async fn renew(&self, authority: &Authority, now: SystemTime) -> Result<bool, RenewalError> {
        let secret = self.client.secret(&self.namespace, CA_SECRET).await?.ok_or(RenewalError::Gone)?;
        let pem = self.ca_pem(secret)?;
        let found = Authority::from_pem(&pem, authority.trust_domain(), now)?;
        let due = match pem.is_root() {
            // It makes another each time, which near the root's own end lasts no longer.
            true => {
                authority.issuer_ends_soon(now)
                    && found.issuer_ends() > authority.issuer_ends() + WORTH_RENEWING
            }
            false => found.issuer() != authority.issuer(),
        };
        let due = due || found.bundle().roots != authority.bundle().roots;
        if due {
            authority.sign_by(&found)?;
        }
        Ok(due)
    }

    pub(super) fn ca_pem(&self, mut secret: Secret) -> Result<CaPem, CaError> {
        let mut part = |key| secret.data.remove(key).ok_or_else(|| self.incomplete(CA_SECRET, key));
        let (certificate, key) = (part(CERTIFICATE)?, part(PRIVATE_KEY)?);
        Ok(CaPem { certificate, key, root: part(ROOT).ok(), cross: part(CROSS).ok() })
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

#[cfg(test)]
mod tests {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::canned::Canned;

    const PATH: &str = "/api/v1/namespaces/selvedge/secrets/selvedge-ca";

    fn secret(pem: &CaPem) -> Value {
        let text = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": TLS, "metadata": { "name": CA_SECRET },
            "data": { CERTIFICATE: text(&pem.certificate), PRIVATE_KEY: text(&pem.key) },
        })
    }

    #[tokio::test]
    async fn a_roots_issuer_is_made_anew_in_time_and_another_root_is_not_taken() {
        let (server, trust_domain) = (Canned::start().await, TrustDomain::default());
        let cluster = Cluster::open(Some(&server.kubeconfig()), "selvedge", Some("one")).await.unwrap();
        let pem = CaPem::new_root(&trust_domain, SystemTime::now()).unwrap();
        server.say(PATH, secret(&pem));
        let authority = cluster.authority(&trust_domain).await.unwrap();
        let first = authority.issuer();

        assert!(!cluster.renew(&authority, SystemTime::now()).await.unwrap());
        assert_eq!(authority.issuer(), first, "which is good for long");
        let later = SystemTime::now() + Duration::from_secs(300 * 86_400);
        assert!(cluster.renew(&authority, later).await.unwrap());
        let second = authority.issuer();
        assert_ne!(second, first);
        assert!(!cluster.renew(&authority, later).await.unwrap());

        server.say(PATH, secret(&CaPem::new_root(&trust_domain, SystemTime::now()).unwrap()));
        let other = cluster.renew(&authority, SystemTime::now()).await;
        assert!(matches!(other, Err(RenewalError::OtherRoot(_))), "{other:?}");
        server.say_nothing(PATH);
        let gone = cluster.renew(&authority, SystemTime::now()).await;
        assert!(matches!(gone, Err(RenewalError::Gone)), "{gone:?}");
        assert_eq!(authority.issuer(), second);
    }
}
