//! Who a workload is: `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`, as in Istio.
//!
//! Identities are compared on every handshake, so a [`SpiffeId`] keeps its canonical text and compares
//! by it. Parsing accepts only that canonical form: two spellings of one identity cannot exist.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// The longest SPIFFE ID that we accept, in bytes (SPIFFE-ID specification, section 2.3).
const MAX_SPIFFE_ID: usize = 2048;

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is not of the form `spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>`.
    #[error(
        "{} is not an identity; expected spiffe://<trust-domain>/ns/<namespace>/sa/<service-account>",
        shown(text)
    )]
    SpiffeId {
        /// What was given.
        text: String,
    },
    /// A trust domain is a lower-case DNS name of letters, digits, `.`, `-` and `_`.
    #[error("{} is not a trust domain; use lower-case letters, digits, '.', '-' and '_'", shown(text))]
    TrustDomain {
        /// What was given.
        text: String,
    },
    /// A workload name is `<namespace>/<name>`, each part a Kubernetes object name.
    #[error("{} is not a workload name; expected <namespace>/<name>", shown(text))]
    WorkloadName {
        /// What was given.
        text: String,
    },
}

/// How many bytes are shown of what was to be a name: anybody may have sent it, and errors are logged.
const MOST_SHOWN: usize = 256;

fn shown(text: &str) -> String {
    match text.len() > MOST_SHOWN {
        true => format!(
            "{:?} and {} bytes more",
            &text[..text.floor_char_boundary(MOST_SHOWN)],
            text.len() - MOST_SHOWN
        ),
        false => format!("{text:?}"),
    }
}

/// The name of one set of trust roots, such as `cluster.local`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// `cluster.local`, as in Istio and Linkerd.
    fn default() -> Self {
        Self(Arc::from("cluster.local"))
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let valid = !text.is_empty()
            && text.len() <= 255
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
        if valid {
            Ok(Self(Arc::from(text)))
        } else {
            Err(IdentityError::TrustDomain { text: text.to_owned() })
        }
    }
}

/// A workload's identity, proven by its certificate's one URI name.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// The identity of a service account.
    ///
    /// # Errors
    /// If `namespace` or `service_account` is not a Kubernetes object name.
    pub fn new(
        trust_domain: &TrustDomain,
        namespace: &str,
        service_account: &str,
    ) -> Result<Self, IdentityError> {
        format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}").parse()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.parts().0
    }

    /// The namespace of the service account.
    pub fn namespace(&self) -> &str {
        self.parts().1
    }

    /// The service account's name.
    pub fn service_account(&self) -> &str {
        self.parts().2
    }

    fn parts(&self) -> (&str, &str, &str) {
        split(&self.0).expect("checked when it was parsed")
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let valid = text.len() <= MAX_SPIFFE_ID
            && split(text).is_some_and(|(trust_domain, namespace, account)| {
                trust_domain.parse::<TrustDomain>().is_ok() && object_name(namespace) && object_name(account)
            });
        if valid { Ok(Self(Arc::from(text))) } else { Err(IdentityError::SpiffeId { text: text.to_owned() }) }
    }
}

fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (trust_domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
    // By single characters, which are found sooner than words: rules ask for this with each request.
    let (namespace, account) = path.strip_prefix("ns/")?.split_once('/')?;
    Some((trust_domain, namespace, account.strip_prefix("sa/")?))
}

/// Whether `name` can name a Kubernetes object (RFC 1123 subdomain).
fn object_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'))
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'))
}

/// One workload: a pod on Kubernetes, a `WorkloadEntry` elsewhere. Written `<namespace>/<name>`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadName {
    namespace: Arc<str>,
    name: Arc<str>,
}

impl WorkloadName {
    /// The workload `name` in `namespace`.
    ///
    /// # Errors
    /// If either is not a Kubernetes object name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, IdentityError> {
        if object_name(namespace) && object_name(name) {
            Ok(Self { namespace: Arc::from(namespace), name: Arc::from(name) })
        } else {
            Err(IdentityError::WorkloadName { text: format!("{namespace}/{name}") })
        }
    }

    /// The namespace it lives in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its name inside the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for WorkloadName {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(IdentityError::WorkloadName { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<WorkloadName> for String {
    fn from(name: WorkloadName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for WorkloadName {
    type Error = IdentityError;

    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

macro_rules! text_newtype {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.as_ref().to_owned()
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentityError;

            fn try_from(text: String) -> Result<Self, IdentityError> {
                text.parse()
            }
        }
    )*};
}

text_newtype!(SpiffeId, TrustDomain);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_keeps_its_parts_and_its_text() {
        let id = SpiffeId::new(&TrustDomain::default(), "shop", "reviews").unwrap();

        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/shop/sa/reviews");
        assert_eq!(
            (id.trust_domain(), id.namespace(), id.service_account()),
            ("cluster.local", "shop", "reviews")
        );
        assert_eq!(id.as_str().parse::<SpiffeId>().unwrap(), id);
    }

    #[test]
    fn only_the_canonical_form_is_an_identity() {
        for text in [
            "",
            "spiffe://cluster.local",
            "spiffe://cluster.local/ns/a/sa/",
            "spiffe://cluster.local/ns//sa/b",
            "spiffe://cluster.local/ns/a/sa/b/c",
            "spiffe://cluster.local/ns/a/sa/b?x",
            "spiffe://Cluster.local/ns/a/sa/b",
            "spiffe://cluster.local:80/ns/a/sa/b",
            "SPIFFE://cluster.local/ns/a/sa/b",
            "https://cluster.local/ns/a/sa/b",
        ] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_workload_name_needs_both_parts() {
        assert_eq!("a/b-1".parse::<WorkloadName>().unwrap().to_string(), "a/b-1");
        for text in ["", "a", "a/", "/b", "a/b/c", "A/b"] {
            assert!(text.parse::<WorkloadName>().is_err(), "{text}");
        }
    }
}
