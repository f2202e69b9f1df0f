//! The certificates that a gateway shows to its clients, with their keys.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Serialize, Serializer};

/// What a certificate is called: the `Secret` that it comes from, as `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CertificateName(Arc<str>);

/// A text is no `namespace/name`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no NAMESPACE/NAME")]
pub struct CertificateNameError;

impl CertificateName {
    /// Of the Secret `name` in `namespace`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self(format!("{namespace}/{name}").into())
    }
}

impl FromStr for CertificateName {
    type Err = CertificateNameError;

    fn from_str(text: &str) -> Result<Self, CertificateNameError> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self(text.into()))
            }
            _ => Err(CertificateNameError),
        }
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for CertificateName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// A certificate chain and its key, in DER. The key is never shown: neither by `Debug` nor by `Serialize`.
#[derive(Clone, PartialEq, Eq)]
pub struct ServerCertificate {
    /// What it is called.
    pub name: CertificateName,
    /// The leaf first.
    pub chain: Vec<Vec<u8>>,
    /// PKCS #8, PKCS #1 or SEC 1.
    pub key: PrivateKey,
}

/// A private key, in DER. It cannot be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateKey(Vec<u8>);

impl PrivateKey {
    /// The key `der`.
    pub fn new(der: Vec<u8>) -> Self {
        Self(der)
    }

    /// The key itself, for whoever signs with it or sends it to the gateway that does.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = PrivateKey::new(b"secret".to_vec());
        let certificate =
            ServerCertificate { name: CertificateName::new("shop", "tls"), chain: Vec::new(), key };

        let shown = format!("{certificate:?} {:?}", certificate.key);

        assert!(shown.contains("shop/tls"), "{shown}");
        assert!(!shown.contains("secret") && !shown.contains("115"), "{shown}");
    }

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let name = CertificateName::new("shop", "tls");
        assert_eq!(name.to_string().parse(), Ok(name));
        for text in ["", "tls", "/tls", "shop/", "a/b/c"] {
            assert!(text.parse::<CertificateName>().is_err(), "{text}");
        }
    }
}
