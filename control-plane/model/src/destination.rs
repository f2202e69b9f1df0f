//! What a request on a redirected connection is for: the address that its client dialled, and where that is not
//! enough, the request's authority.
//!
//! An address that is a service's own says it all. At any other address, HTTP is for the service that its
//! authority names, if that service is called by name; otherwise it is for whoever was dialled: a workload
//! (which keeps its mutual TLS, and has no routes), or an address that the mesh does not know.
//!
//! An ingress controller dials pods, whatever service they are of, and says by the authority what it means:
//! beside one (`--ingress`) the authority of any service beats any address.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use serde::Serialize;

use crate::{Lookup, Mesh, Service};

/// How redirected connections find a service, or a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Called {
    /// By requests' authority, whichever address was dialled.
    ByName,
    /// By addresses of its own alone; then whatever the authority is.
    ByAddress,
    /// It is the workload that was dialled.
    Itself,
}

impl Called {
    /// How `service` is found.
    pub fn service(service: &Service) -> Self {
        if service.addresses.is_empty() { Self::ByName } else { Self::ByAddress }
    }

    /// Whether the authority of a request says anything more, where `dialled` is what its client dialled (`None`:
    /// nothing that the mesh knows).
    pub fn authority_matters(dialled: Option<Self>, ingress: bool) -> bool {
        ingress || dialled != Some(Self::ByAddress)
    }

    /// Whether a request is for what its authority names, and not for what its client dialled. `named` is what the
    /// authority names; `None`: nothing that the mesh knows.
    pub fn name_wins(named: Option<Self>, ingress: bool) -> bool {
        named == Some(Self::ByName) || (ingress && named.is_some())
    }
}

/// The name that `authority` is, with its port: `dialled` if it says none. `None`: it is an IP address, which says
/// nothing more than the one that was dialled.
pub fn name(authority: &str, dialled: u16) -> Option<Cow<'_, str>> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if bare.parse::<IpAddr>().is_ok() {
        return None;
    }
    match (port, dialled) {
        (Some(_), _) | (None, 80) => Some(Cow::Borrowed(authority)),
        (None, dialled) => Some(Cow::Owned(format!("{authority}:{dialled}"))),
    }
}

impl Mesh {
    /// What a request for `authority` means that a client in `namespace` sends on a connection to `dialled`. What
    /// only DNS knows (which names lead to `dialled`) is not known here.
    pub fn lookup_dialled(
        &self,
        namespace: &str,
        dialled: SocketAddr,
        authority: &str,
        ingress: bool,
    ) -> Lookup {
        let called = |lookup: &Lookup| match lookup {
            Lookup::Service(key) => {
                self.services.get(key).map(|views| Called::service(views.for_namespace(namespace)))
            }
            Lookup::Address(found) => found.endpoint.is_some().then_some(Called::Itself),
            Lookup::None => None,
        };
        let at_address = self.lookup(namespace, &dialled.to_string());
        if !Called::authority_matters(called(&at_address), ingress) {
            return at_address;
        }
        let Some(name) = name(authority, dialled.port()) else { return at_address };
        let named = self.lookup(namespace, &name);
        if Called::name_wins(called(&named), ingress) { named } else { at_address }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use super::*;
    use crate::{
        Endpoint, Order, Protocol, RouteTable, ServiceKey, TcpTable,
        snapshot::{Declared, ServiceViews},
    };

    #[test]
    fn an_authority_without_a_port_has_the_one_that_was_dialled() {
        assert_eq!(name("reviews", 80).unwrap(), "reviews");
        assert_eq!(name("reviews", 9080).unwrap(), "reviews:9080");
        assert_eq!(name("reviews:81", 9080).unwrap(), "reviews:81");
    }

    #[test]
    fn an_address_names_nothing() {
        for authority in ["10.0.0.5", "10.0.0.5:80", "[fd00::5]", "[fd00::5]:80", "[::1]:8080"] {
            assert_eq!(name(authority, 80), None, "{authority}");
        }
    }

    fn service(host: &str, addresses: &[&str]) -> (ServiceKey, ServiceViews) {
        let key = ServiceKey::new(host, 80);
        let service = Service {
            key: key.clone(),
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            protocol: Protocol::Http,
            routes: RouteTable::new(Order::Listed, Vec::new()),
            tcp: TcpTable::default(),
            backends: Vec::new(),
        };
        (key, ServiceViews { default: Arc::new(service), by_namespace: BTreeMap::new(), selected: None })
    }

    /// A headless service and one that has the address 10.96.0.1, and an endpoint at 10.0.0.5.
    fn mesh() -> Mesh {
        let at = |address: &str| -> SocketAddr { address.parse().unwrap() };
        let (own, endpoint) = (at("10.96.0.1:80"), at("10.0.0.5:80"));
        let with_address = service("web.shop.svc.cluster.local", &["10.96.0.1"]);
        let declared = Declared { namespace: "shop".into(), key: with_address.0.clone() };
        let found = Endpoint {
            address: endpoint,
            dial: endpoint,
            identity: None,
            workload: None,
            labels: Arc::default(),
            weight: 1,
            place: None,
        };
        Mesh {
            services: BTreeMap::from([with_address, service("db.shop.svc.cluster.local", &[])]).into(),
            service_addresses: BTreeMap::from([(own, declared)]).into(),
            addresses: BTreeMap::from([(endpoint, found)]).into(),
            cluster_domain: "cluster.local".into(),
            ..Mesh::default()
        }
    }

    /// The host of the service that a request means; `None`: it means the address itself, or nothing.
    fn meant(dialled: &str, authority: &str, ingress: bool) -> Option<String> {
        match mesh().lookup_dialled("shop", dialled.parse().unwrap(), authority, ingress) {
            Lookup::Service(key) => Some(key.host.trim_end_matches(".shop.svc.cluster.local").to_owned()),
            Lookup::Address(_) | Lookup::None => None,
        }
    }

    #[test]
    fn an_address_of_a_services_own_says_it_all() {
        for authority in ["web", "db", "elsewhere.example", "10.0.0.5"] {
            assert_eq!(meant("10.96.0.1:80", authority, false).as_deref(), Some("web"), "{authority}");
        }
    }

    #[test]
    fn at_any_other_address_the_authority_counts_if_its_service_has_no_address_of_its_own() {
        for dialled in ["10.0.0.5:80", "192.0.2.1:80"] {
            assert_eq!(meant(dialled, "db", false).as_deref(), Some("db"), "{dialled}");
            assert_eq!(meant(dialled, "web", false), None, "{dialled}");
            assert_eq!(meant(dialled, "elsewhere.example", false), None, "{dialled}");
            assert_eq!(meant(dialled, "10.96.0.1", false), None, "{dialled}");
        }
        assert_eq!(meant("10.0.0.5:81", "db", false), None, "db has no port 81");
    }

    #[test]
    fn beside_an_ingress_controller_the_authority_of_any_service_beats_any_address() {
        assert_eq!(meant("10.0.0.5:80", "web", true).as_deref(), Some("web"));
        assert_eq!(meant("10.96.0.1:80", "db", true).as_deref(), Some("db"));
        assert_eq!(meant("10.96.0.1:80", "elsewhere.example", true).as_deref(), Some("web"));
    }
}
