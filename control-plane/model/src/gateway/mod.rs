//! What a gateway serves: its ports, the listeners on each, and the virtual hosts of each listener.
//!
//! A virtual host is a [`Service`] under a [key of its own](virtual_host): it has the same rules and backends, so what
//! comes after the choice of a virtual host is the same for a gateway as for a sidecar.
//!
//! A connection chooses a listener of its port by the TLS server name, if it has one; a request chooses by its
//! authority, and on TLS only among what its connection has chosen (Gateway API, `Listener` `hostname`; GEP-3567). Of
//! several that fit, the most specific counts, and then no other is tried.

mod certificate;
mod choice;
mod hostname;
mod hosts;
mod users;

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use serde::Serialize;

pub use self::{
    certificate::{CertificateName, CertificateNameError, PrivateKey, ServerCertificate},
    choice::{Chosen, NotServed, host_of},
    hostname::{HostPattern, Hostname, HostnameError},
    hosts::Hosts,
    users::{
        PasswordHash, PasswordHashError, Scheme, UserList, UserListForm, UserListName, UserListNameError,
    },
};
use crate::{Service, ServiceKey};

/// That a workload is a gateway, and where it listens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct GatewayRole {
    /// Its name, `namespace/name`.
    pub name: Arc<str>,
    /// Where it listens, if not on all addresses of its host.
    pub address: Option<IpAddr>,
    /// Where it listens for each port that clients call, if that is another one; 0: anywhere.
    pub ports: BTreeMap<u16, u16>,
}

impl GatewayRole {
    /// Where it listens for what clients send to `port`.
    pub fn listens(&self, port: u16) -> SocketAddr {
        let address = self.address.unwrap_or(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED));
        SocketAddr::new(address, self.ports.get(&port).copied().unwrap_or(port))
    }
}

/// Everything that a gateway serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gateway {
    /// By the port that clients call.
    pub ports: BTreeMap<u16, Arc<GatewayPort>>,
    /// The virtual hosts that the ports name.
    pub virtual_hosts: BTreeMap<ServiceKey, Arc<Service>>,
    /// The certificates that the ports name.
    pub certificates: BTreeMap<CertificateName, Arc<ServerCertificate>>,
    /// The users that rules of the virtual hosts let in.
    pub user_lists: BTreeMap<UserListName, Arc<UserList>>,
}

/// What a gateway serves on one port.
#[derive(Debug, Clone, Serialize)]
pub struct GatewayPort {
    /// The port that clients call.
    pub port: u16,
    /// What clients begin with.
    pub carries: Carries,
    /// In any order; no two for the same host names.
    pub listeners: Vec<Listener>,
    /// What the gateway shows to backends that a `BackendTLSPolicy` is for, if they ask for a certificate. It is the same for
    /// all ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_backends: Option<CertificateName>,
    #[serde(skip)]
    hosts: Hosts,
}

/// What the clients of a port begin with. All listeners of a port agree in that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Carries {
    /// HTTP in plaintext.
    Http,
    /// TLS.
    Tls,
    /// Opaque TCP.
    Tcp,
}

/// One listener: some of the host names of a port.
#[derive(Debug, Clone, Serialize)]
pub struct Listener {
    /// What it is called in logs and errors, such as `Gateway shop/edge https`.
    pub name: Arc<str>,
    /// The names that it is for. On TLS of the server name, on HTTP of the authority.
    pub hostname: Hostname,
    /// What happens to TLS. `None`: there is none.
    pub tls: Option<ListenerTls>,
    /// No two for the same host names. On opaque TCP the one for every name.
    pub virtual_hosts: Vec<VirtualHost>,
    #[serde(skip)]
    hosts: Hosts,
}

/// What a listener does with TLS.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum ListenerTls {
    /// It ends here.
    Terminate(Termination),
    /// It goes on to the backend as it is.
    Passthrough,
}

/// How TLS ends at a listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Termination {
    /// Of those that fit the server name and the client's algorithms, the first is shown; if none fits the name, the
    /// first of all. Empty: no client is served.
    pub certificates: Vec<CertificateName>,
    /// Whom it asks for a certificate. `None`: nobody.
    pub clients: Option<ClientValidation>,
    /// Whether TLS 1.2 is accepted beside 1.3.
    pub tls12: bool,
    /// Whether what is inside is HTTP; otherwise opaque.
    pub http: bool,
}

/// Which certificates clients must show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientValidation {
    /// DER certificates of the authorities. Empty: no client is served.
    pub roots: Vec<Vec<u8>>,
    /// Whether a client without a certificate is served.
    pub optional: bool,
    /// The names of which a certificate must have one (Istio `subjectAltNames`). Empty: any will do.
    pub subject_alt_names: Vec<String>,
}

/// Some of the host names of a listener, and the rules for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VirtualHost {
    /// The names.
    pub hostname: Hostname,
    /// The rules.
    pub service: ServiceKey,
}

impl GatewayPort {
    /// A port with these listeners.
    pub fn new(port: u16, carries: Carries, listeners: Vec<Listener>) -> Self {
        let hosts = Hosts::new(listeners.iter().map(|listener| &listener.hostname));
        Self { port, carries, listeners, to_backends: None, hosts }
    }

    /// The same port of a gateway that shows this certificate to backends.
    #[must_use]
    pub fn showing(self, to_backends: Option<CertificateName>) -> Self {
        Self { to_backends, ..self }
    }

    /// The place of the listener for `name`: a TLS server name, or the host of an authority. In lower case, without a
    /// port or a dot at its end.
    pub fn listener(&self, name: Option<&str>) -> Option<usize> {
        self.hosts.find(name)
    }

    /// The virtual hosts of all listeners.
    pub fn virtual_hosts(&self) -> impl Iterator<Item = &VirtualHost> {
        self.listeners.iter().flat_map(|listener| &listener.virtual_hosts)
    }

    /// The certificates of all listeners, and the one for backends; one may come several times.
    pub fn certificates(&self) -> impl Iterator<Item = &CertificateName> {
        let of_listeners = self.listeners.iter().flat_map(|listener| match &listener.tls {
            Some(ListenerTls::Terminate(termination)) => termination.certificates.as_slice(),
            Some(ListenerTls::Passthrough) | None => &[],
        });
        of_listeners.chain(&self.to_backends)
    }
}

impl PartialEq for GatewayPort {
    /// What it finds follows from its listeners.
    fn eq(&self, other: &Self) -> bool {
        (self.port, self.carries, &self.listeners, &self.to_backends)
            == (other.port, other.carries, &other.listeners, &other.to_backends)
    }
}

impl Listener {
    /// A listener with these virtual hosts.
    pub fn new(
        name: Arc<str>,
        hostname: Hostname,
        tls: Option<ListenerTls>,
        virtual_hosts: Vec<VirtualHost>,
    ) -> Self {
        let hosts = Hosts::new(virtual_hosts.iter().map(|host| &host.hostname));
        Self { name, hostname, tls, virtual_hosts, hosts }
    }

    /// The place of the virtual host for `name`, as [`GatewayPort::listener`] takes it.
    pub fn virtual_host(&self, name: Option<&str>) -> Option<usize> {
        self.hosts.find(name)
    }

    /// Whether a connection that chose this listener may carry requests for `other`: the two are one server of an Istio
    /// `Gateway`, which has one name and several hosts, and both show and ask for the same.
    pub fn shares(&self, other: &Self) -> bool {
        self.name == other.name && self.tls == other.tls
    }
}

impl PartialEq for Listener {
    /// What it finds follows from its virtual hosts.
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.hostname, &self.tls, &self.virtual_hosts)
            == (&other.name, &other.hostname, &other.tls, &other.virtual_hosts)
    }
}

/// The key of a virtual host: of the names `hostname` at `listener`, which is `namespace/gateway/section`. No service's
/// host has an `@` in it.
pub fn virtual_host(hostname: &Hostname, listener: &str, port: u16) -> ServiceKey {
    ServiceKey { host: format!("{hostname}@{listener}").into(), port }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(name: &str, hosts: &[&str]) -> Listener {
        let hostname: Hostname = name.parse().unwrap();
        let virtual_hosts = hosts.iter().map(|host| {
            let hostname = host.parse().unwrap();
            VirtualHost { service: virtual_host(&hostname, "shop/edge/http", 80), hostname }
        });
        Listener::new(name.into(), hostname, None, virtual_hosts.collect())
    }

    #[test]
    fn a_request_belongs_to_one_listener_whatever_the_others_have() {
        let listeners = vec![listener("", &["a.example.com"]), listener("*.example.com", &["b.example.com"])];
        let port = GatewayPort::new(80, Carries::Http, listeners);
        let served = |name: &str| {
            let listener = &port.listeners[port.listener(Some(name))?];
            let place = listener.virtual_host(Some(name))?;
            Some(listener.virtual_hosts[place].hostname.to_string())
        };

        assert_eq!(served("b.example.com").as_deref(), Some("b.example.com"));
        assert_eq!(served("a.example.com"), None, "the closer listener has no route for it");
        assert_eq!(served("a.example.org"), None);
    }

    #[test]
    fn connections_are_shared_by_the_listeners_of_one_server() {
        let of = |name: &str, tls: ListenerTls| {
            Listener::new(name.into(), "a.example.com".parse().unwrap(), Some(tls), Vec::new())
        };
        let ends = |optional| {
            let clients =
                Some(ClientValidation { roots: Vec::new(), optional, subject_alt_names: Vec::new() });
            ListenerTls::Terminate(Termination { certificates: Vec::new(), clients, tls12: true, http: true })
        };
        let one = of("gw servers[0]", ends(true));

        assert!(one.shares(&of("gw servers[0]", ends(true))));
        assert!(!one.shares(&of("gw servers[1]", ends(true))), "another server");
        assert!(!one.shares(&of("gw servers[0]", ends(false))), "it asks clients for more");
    }

    #[test]
    fn a_gateway_listens_where_its_workload_says() {
        let role = GatewayRole {
            name: "shop/edge".into(),
            address: Some("127.0.0.1".parse().unwrap()),
            ports: BTreeMap::from([(80, 8080)]),
        };

        assert_eq!(role.listens(80), "127.0.0.1:8080".parse().unwrap());
        assert_eq!(role.listens(443), "127.0.0.1:443".parse().unwrap());
        assert_eq!(GatewayRole::default().listens(80), "[::]:80".parse().unwrap());
    }

    #[test]
    fn a_virtual_host_has_a_key_that_no_service_has() {
        let key = virtual_host(&"*.example.com".parse().unwrap(), "shop/edge/https", 443);

        assert_eq!(key.to_string(), "*.example.com@shop/edge/https:443");
    }
}
