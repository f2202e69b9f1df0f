//! `hosts` of a server: the names that it is for, and whose `VirtualService`s may serve them.

use selvedge_model::gateway::Hostname;

use crate::resources::{document::wrong, typed::FieldError};

/// One of a server's `hosts`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerHost {
    /// Of which namespaces a `VirtualService` may serve it.
    pub of: HostsOf,
    /// The names.
    pub hostname: Hostname,
}

/// Of which namespaces a `VirtualService` may serve a host of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostsOf {
    /// Of all.
    Everywhere,
    /// Of the `Gateway`'s own.
    Own,
    /// Of this one.
    Namespace(String),
}

impl ServerHost {
    /// Whether a `VirtualService` in `namespace` may serve it, of a `Gateway` in the namespace `own`.
    pub fn is_for(&self, namespace: &str, own: &str) -> bool {
        match &self.of {
            HostsOf::Everywhere => true,
            HostsOf::Own => namespace == own,
            HostsOf::Namespace(only) => namespace == only,
        }
    }
}

/// The entry `text` of `hosts`, which stands at `field`.
pub(super) fn read(text: &str, field: &str) -> Result<ServerHost, FieldError> {
    let (of, host) = match text.split_once('/') {
        None => (HostsOf::Everywhere, text),
        Some(("*", host)) => (HostsOf::Everywhere, host),
        Some((".", host)) => (HostsOf::Own, host),
        Some((namespace, host)) if is_namespace(namespace) => {
            (HostsOf::Namespace(namespace.to_owned()), host)
        }
        Some((namespace, _)) => {
            return Err(wrong(field, format!("{namespace:?} is no namespace; write one, or . or *")));
        }
    };
    if host != "*" && !host.contains('.') {
        let message = format!(
            "{host:?} is a short name, which no client asks a gateway for; write the whole name, or *"
        );
        return Err(wrong(field, message));
    }
    let hostname = host.parse().ok().filter(|_| !host.is_empty());
    let hostname = hostname.ok_or_else(|| {
        wrong(field, format!("{host:?} is no host; write a DNS name, *. before one, or * for all"))
    })?;
    Ok(ServerHost { of, hostname })
}

fn is_namespace(text: &str) -> bool {
    selvedge_model::WorkloadName::new(text, "a").is_ok()
}
