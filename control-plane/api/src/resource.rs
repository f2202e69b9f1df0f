//! What the resources of a discovery stream are called.

use std::{fmt, str::FromStr, sync::Arc};

use selvedge_model::{
    ServiceKey,
    gateway::{CertificateName, UserListName},
    policy::network::PartName,
};

/// The name of one resource, unique on a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResourceName {
    /// `self`: the proxy's own workload.
    Own,
    /// `bundle`: the trust roots.
    Bundle,
    /// `revocations`: who is refused all the same.
    Revocations,
    /// `lookup/<authority>`.
    Lookup(Arc<str>),
    /// `service/<host>:<port>`.
    Service(ServiceKey),
    /// `endpoints/<host>:<port>`.
    Endpoints(ServiceKey),
    /// `set/<id>/<parts>/<part>`: a part of a set of workloads.
    SetPart(PartName),
    /// `certificate/<namespace>/<name>`: what a gateway shows to its clients.
    Certificate(CertificateName),
    /// `users/<namespace>/<name>/<form>`: whom a gateway lets in by their passwords.
    Users(UserListName),
    /// `gateway/<port>`: what a gateway serves on a port.
    GatewayPort(u16),
}

/// A text that names no resource that this version knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a resource that this version knows")]
pub struct UnknownResource {
    /// What was given.
    pub text: String,
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("self"),
            Self::Bundle => f.write_str("bundle"),
            Self::Revocations => f.write_str("revocations"),
            Self::Lookup(authority) => write!(f, "lookup/{authority}"),
            Self::Service(key) => write!(f, "service/{key}"),
            Self::Endpoints(key) => write!(f, "endpoints/{key}"),
            Self::SetPart(name) => write!(f, "set/{name}"),
            Self::Certificate(name) => write!(f, "certificate/{name}"),
            Self::Users(name) => write!(f, "users/{name}"),
            Self::GatewayPort(port) => write!(f, "gateway/{port}"),
        }
    }
}

impl FromStr for ResourceName {
    type Err = UnknownResource;

    fn from_str(text: &str) -> Result<Self, UnknownResource> {
        let name = match text.split_once('/') {
            None if text == "self" => Some(Self::Own),
            None if text == "bundle" => Some(Self::Bundle),
            None if text == "revocations" => Some(Self::Revocations),
            Some(("lookup", authority)) if !authority.is_empty() => Some(Self::Lookup(authority.into())),
            Some(("service", key)) => service_key(key).map(Self::Service),
            Some(("endpoints", key)) => service_key(key).map(Self::Endpoints),
            Some(("set", part)) => part.parse().ok().map(Self::SetPart),
            Some(("certificate", name)) => name.parse().ok().map(Self::Certificate),
            Some(("users", name)) => name.parse().ok().map(Self::Users),
            Some(("gateway", port)) => port.parse().ok().filter(|port| *port > 0).map(Self::GatewayPort),
            _ => None,
        };
        name.ok_or_else(|| UnknownResource { text: text.to_owned() })
    }
}

fn service_key(text: &str) -> Option<ServiceKey> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then(|| ServiceKey::new(host, port))
}

#[cfg(test)]
mod tests {
    use selvedge_model::gateway::UserListForm;

    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written() {
        let key = ServiceKey::new("reviews.default.svc.cluster.local", 9080);
        for name in [
            ResourceName::Own,
            ResourceName::Bundle,
            ResourceName::Revocations,
            ResourceName::Lookup("reviews:9080".into()),
            ResourceName::Lookup("[::1]:9080".into()),
            ResourceName::Service(key.clone()),
            ResourceName::Endpoints(key),
            ResourceName::SetPart("3f2a/4/0".parse().unwrap()),
            ResourceName::Certificate(CertificateName::new("shop", "tls")),
            ResourceName::Users(UserListName::new("shop", "users", UserListForm::Map)),
            ResourceName::GatewayPort(443),
        ] {
            assert_eq!(name.to_string().parse::<ResourceName>().unwrap(), name);
        }
    }

    #[test]
    fn another_text_is_refused() {
        for text in [
            "",
            "own",
            "lookup/",
            "service/a",
            "service/:80",
            "endpoints/a:0",
            "secret/a:80",
            "set/a/1",
            "certificate/a",
            "users/a/b",
            "gateway/0",
        ] {
            assert!(text.parse::<ResourceName>().is_err(), "{text}");
        }
    }
}
