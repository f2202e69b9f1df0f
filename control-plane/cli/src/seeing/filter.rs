//! Of which clients and servers.

use std::{
    fmt::{Display, Formatter},
    str::FromStr,
};

use selvedge_model::{
    WorkloadName,
    traffic::{Edge, Way},
};

use super::known::{Kinds, Known, NotKnown};

/// Of whom a command tells.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct FilterArgs {
    /// Only what is sent by this workload, or all of a namespace; where servers tell, by this ServiceAccount
    #[arg(long, value_name = "NAMESPACE/NAME|NAMESPACE/*")]
    from: Option<Party>,

    /// Only what goes to this service, such as reviews, reviews.default or reviews.default.svc.cluster.local:9080, or to
    /// this workload
    #[arg(long, value_name = "HOST[:PORT]|NAMESPACE/NAME|NAMESPACE/*")]
    to: Option<Party>,
}

/// A client or a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Party {
    /// Of a namespace: one, or all.
    Named { namespace: String, name: Option<String> },
    /// A service by its host, or the first parts of it.
    Host { host: String, port: Option<u16> },
}

impl FromStr for Party {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((namespace, name)) = text.split_once('/') {
            let name = if name == "*" { None } else { Some(name) };
            WorkloadName::new(namespace, name.unwrap_or("any")).map_err(|error| error.to_string())?;
            return Ok(Self::Named { namespace: namespace.to_owned(), name: name.map(str::to_owned) });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => {
                let port = port.parse().map_err(|_| format!("{port:?} is not a port"))?;
                (host, Some(port))
            }
            None => (text, None),
        };
        if host.is_empty() {
            return Err("it names nothing".to_owned());
        }
        Ok(Self::Host { host: host.to_ascii_lowercase(), port })
    }
}

impl Display for Party {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named { namespace, name } => write!(f, "{namespace}/{}", name.as_deref().unwrap_or("*")),
            Self::Host { host, port: None } => f.write_str(host),
            Self::Host { host, port: Some(port) } => write!(f, "{host}:{port}"),
        }
    }
}

impl Party {
    /// Whether it is what has this name, or runs as it.
    pub(super) fn is_named(&self, namespace: &str, name: &str) -> bool {
        match self {
            Self::Named { namespace: wanted, name: one } => {
                wanted == namespace && one.as_deref().is_none_or(|one| one == name)
            }
            Self::Host { host, .. } => host == name,
        }
    }

    /// Whether it is this port of a service.
    pub(crate) fn is_service(&self, host: &str, port: u16) -> bool {
        match self {
            Self::Host { host: wanted, port: one } => {
                one.is_none_or(|one| one == port)
                    && host
                        .strip_prefix(wanted.as_str())
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            }
            Self::Named { namespace, name } => {
                let mut parts = host.split('.');
                let (first, second) = (parts.next(), parts.next());
                second == Some(namespace) && name.as_deref().is_none_or(|name| first == Some(name))
            }
        }
    }
}

impl Party {
    /// Whether it is what `edge` calls, or where its route leads instead.
    fn is_called_by(&self, edge: &Edge) -> bool {
        let backend = edge.backend.rsplit_once(':');
        self.is_service(&edge.host, edge.port)
            || backend.is_some_and(|(host, port)| self.is_service(host, port.parse().unwrap_or_default()))
    }
}

impl FilterArgs {
    /// Whether it leaves something out.
    pub(crate) fn is_set(&self) -> bool {
        self.from.is_some() || self.to.is_some()
    }

    /// What it names that is not among what is `known`; `to`: what servers are told by.
    pub(crate) fn not_known(&self, known: &Known, to: Kinds) -> Vec<NotKnown> {
        let from = self.from.as_ref().and_then(|from| known.not_known(from, Kinds::Workloads));
        let to = self.to.as_ref().and_then(|party| known.not_known(party, to));
        from.into_iter().chain(to).collect()
    }

    /// Whether a command tells of `edge`, of which the sidecar of `teller` has told.
    pub(crate) fn admits(&self, teller: &WorkloadName, edge: &Edge) -> bool {
        let is_teller = |party: &Party| party.is_named(teller.namespace(), teller.name());
        match edge.way {
            Way::Outbound => {
                self.from.as_ref().is_none_or(is_teller)
                    && self.to.as_ref().is_none_or(|to| to.is_called_by(edge))
            }
            Way::Inbound => {
                let client = edge.client.as_ref();
                let is_client = |from: &Party| {
                    client.is_some_and(|client| from.is_named(client.namespace(), client.service_account()))
                };
                self.from.as_ref().is_none_or(is_client) && self.to.as_ref().is_none_or(is_teller)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(text: &str) -> Party {
        text.parse().unwrap()
    }

    #[test]
    fn a_service_is_named_by_its_host_or_the_begin_of_it() {
        let host = "reviews.shop.svc.cluster.local";
        for (text, is_meant) in [
            ("reviews", true),
            ("reviews.shop", true),
            ("Reviews.shop.svc.cluster.local:80", true),
            ("reviews:81", false),
            ("review", false),
            ("reviews.other", false),
            ("shop/reviews", true),
            ("shop/*", true),
            ("other/*", false),
        ] {
            assert_eq!(party(text).is_service(host, 80), is_meant, "{text}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for text in ["", ":80", "a:b", "a/b/c", "/", "A/*"] {
            assert!(text.parse::<Party>().is_err(), "{text:?}");
        }
    }
}
