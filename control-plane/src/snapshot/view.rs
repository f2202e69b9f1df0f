//! What one workload may see: itself, the trust roots, and what it asked for as clients see it to whom it belongs.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use selvedge_api::{
    ResourceName,
    wire::{self, resource::Body},
};
use selvedge_model::{
    Endpoints, Lookup, Service, ServiceKey, Workload, WorkloadName,
    gateway::{Gateway, GatewayPort},
    policy::network::{PartName, SetName},
    snapshot::Clients,
};

use super::{Encoded, Snapshot, encoding::encode_endpoints};

/// What a part of a view is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The workload itself; comes first.
    Own,
    /// A port of its own, if it is a gateway.
    GatewayPort(u16),
    /// One authority that it asked for.
    Authority(Arc<str>),
}

/// Resources that make sense only together: a lookup with its service and all endpoints that this names.
#[derive(Debug, Clone)]
pub struct Part {
    /// What for.
    pub subject: Subject,
    /// All of it; no name twice. Parts may share resources, and streams share parts.
    pub resources: Arc<[Encoded]>,
}

impl Part {
    /// Whether it has resources of the same names, in the same order, whatever is in them.
    pub(super) fn has_names_of(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Encoded, &Encoded)| {
            Arc::ptr_eq(one.stamp(), other.stamp()) || one.name() == other.name()
        };
        self.resources.len() == other.resources.len()
            && self.resources.iter().zip(&*other.resources).all(is_same)
    }
}

/// Something that parts of views are made from. What none of a view's inputs has changed is what it was.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Input {
    /// A workload, what it serves as a gateway, and to which clients it belongs.
    Workload(WorkloadName),
    /// The part of a set that network policies name.
    SetPart(PartName),
    /// A service's port, as every class of clients sees it.
    Service(ServiceKey),
    /// A service port's endpoints.
    Endpoints(ServiceKey),
    /// Whose an address is, at any port.
    Address(IpAddr),
    /// Services that may be at addresses that nobody declares, by their port: those with ranges, and those with names.
    Port(u16),
    /// Workloads whose addresses only the proxies know.
    NamedWorkloads,
    /// Which namespaces know of which services.
    Exports,
}

/// Everything that the proxy of `workload` is to hold, if it asked for `authorities`: made anew, from nothing but the
/// snapshot. [`super::Watcher::parts`] gives the same, of what streams share.
pub fn view(snapshot: &Snapshot, workload: &Arc<Workload>, authorities: &BTreeSet<Arc<str>>) -> Vec<Part> {
    let clients = snapshot.mesh().clients(&workload.name);
    let asked = authorities.iter().map(|authority| part(snapshot, &clients, authority).0);
    own(snapshot, workload).0.into_iter().chain(asked).collect()
}

/// What the proxy of `workload` is to hold whatever it asks for, and what that is made from besides the trust roots and the
/// revocations.
pub(super) fn own(snapshot: &Snapshot, workload: &Arc<Workload>) -> (Vec<Part>, Vec<Input>) {
    let mut inputs = vec![Input::Workload(workload.name.clone())];
    let revocations = &snapshot.mesh().revocations;
    let revocations = (!revocations.is_empty()).then(|| snapshot.encodings().revocations(revocations));
    let resources = [snapshot.encodings().workload(workload), snapshot.bundle().clone()];
    let sets = sets(snapshot, workload, &mut inputs);
    let resources = resources.into_iter().chain(revocations).chain(sets).collect();
    let mut parts = vec![Part { subject: Subject::Own, resources }];
    if let Some(gateway) = snapshot.mesh().gateways.get(&workload.name) {
        let ports = gateway.ports.iter();
        let namespace = workload.name.namespace();
        parts.extend(ports.map(|(port, served)| {
            gateway_port(snapshot, (&**gateway, namespace), *port, served, &mut inputs)
        }));
    }
    (parts, inputs)
}

/// What a gateway serves on a port: its listeners with their virtual hosts, the endpoints and the users that these name, and
/// the certificates. Nobody asks for it, and nobody else is told.
fn gateway_port(
    snapshot: &Snapshot,
    (gateway, namespace): (&Gateway, &str),
    port: u16,
    served: &Arc<GatewayPort>,
    inputs: &mut Vec<Input>,
) -> Part {
    let encodings = snapshot.encodings();
    let mut resources = vec![encodings.gateway_port(served)];
    for host in served.virtual_hosts().filter_map(|host| gateway.virtual_hosts.get(&host.service)) {
        resources.push(encodings.service(host));
        resources.extend(endpoints(snapshot, host, namespace, inputs));
        let shown = host.certificates().into_iter().filter_map(|name| gateway.certificates.get(name));
        resources.extend(shown.map(|certificate| encodings.certificate(certificate)));
        let users = host.user_lists().into_iter().filter_map(|name| gateway.user_lists.get(name));
        resources.extend(users.map(|users| encodings.users(users)));
    }
    let certificates = served.certificates().filter_map(|name| gateway.certificates.get(name));
    resources.extend(certificates.map(|certificate| encodings.certificate(certificate)));
    once_each(&mut resources);
    Part { subject: Subject::GatewayPort(port), resources: resources.into() }
}

fn once_each(resources: &mut Vec<Encoded>) {
    let mut seen = BTreeSet::new();
    resources.retain(|resource| seen.insert(resource.name().clone()));
}

/// The parts of the sets that the network policies of `workload` name, once each.
fn sets(snapshot: &Snapshot, workload: &Workload, inputs: &mut Vec<Input>) -> Vec<Encoded> {
    let named: BTreeSet<&SetName> = workload.sets().collect();
    let parts = named.into_iter().flat_map(SetName::each);
    let found = parts.filter_map(|name| {
        inputs.push(Input::SetPart(name.clone()));
        let part = snapshot.mesh().sets.get(&name)?;
        Some(snapshot.encodings().set_part(&name, part))
    });
    found.collect()
}

/// What `authority` means to `clients`, with all that this names; and what that is made from besides the hosts
/// that decide on it ([`Mesh::is_decided_by`](selvedge_model::Mesh::is_decided_by)).
pub(super) fn part(snapshot: &Snapshot, clients: &Clients, authority: &Arc<str>) -> (Part, Vec<Input>) {
    let lookup = snapshot.mesh().lookup(&clients.namespace, authority);
    let name = ResourceName::Lookup(Arc::clone(authority));
    let mut inputs = Vec::new();
    if let Some(address) = selvedge_model::snapshot::address(authority) {
        let of_address = [Input::Address(address.ip()), Input::Port(address.port())];
        inputs.extend(of_address.into_iter().chain([Input::NamedWorkloads, Input::Exports]));
    }
    let mut resources = vec![Encoded::new(name, Body::Lookup(wire::Lookup::new(authority, &lookup)))];
    match &lookup {
        Lookup::Service(key) => resources.extend(service(snapshot, clients, key, &mut inputs)),
        Lookup::Address(address) => {
            for key in address.services.iter().map(|declared| &declared.key) {
                resources.extend(service(snapshot, clients, key, &mut inputs));
                // Its own too, whatever its routes name: they say whether it has one at the address.
                inputs.push(Input::Endpoints(key.clone()));
                resources.extend(
                    snapshot.mesh().endpoints.get(key).map(|own| snapshot.encodings().endpoints(own)),
                );
            }
            if address.named
                && let Some(port) = port(authority)
            {
                resources.push(snapshot.encodings().named(&snapshot.mesh().named, port));
            }
            once_each(&mut resources);
        }
        Lookup::None => {}
    }
    inputs.sort_unstable();
    inputs.dedup();
    (Part { subject: Subject::Authority(Arc::clone(authority)), resources: resources.into() }, inputs)
}

/// The port of an authority that is an address.
fn port(authority: &str) -> Option<u16> {
    selvedge_model::snapshot::address(authority).map(|address| address.port())
}

/// A service's port and all endpoints that it names.
fn service(
    snapshot: &Snapshot,
    clients: &Clients,
    key: &ServiceKey,
    inputs: &mut Vec<Input>,
) -> Vec<Encoded> {
    inputs.push(Input::Service(key.clone()));
    let views = snapshot.mesh().services.get(key).expect("the mesh found it by its own keys");
    let service = views.for_clients(clients);
    let mut resources = vec![snapshot.encodings().service(service)];
    resources.extend(endpoints(snapshot, service, &clients.namespace, inputs));
    resources
}

/// The endpoints of every backend, once each; an empty list where a backend that can be used has none, or `namespace`, where the
/// clients are, does not know of it, as in Istio. With them the workloads to which names may lead that are called in plaintext.
fn endpoints(
    snapshot: &Snapshot,
    service: &Service,
    namespace: &str,
    inputs: &mut Vec<Input>,
) -> Vec<Encoded> {
    let (mut seen, mut unproven) = (BTreeSet::new(), BTreeSet::new());
    let mesh = snapshot.mesh();
    let mut found = Vec::new();
    for backend in service.backends.iter().filter(|backend| seen.insert(&backend.name.service)) {
        let key = &backend.name.service;
        inputs.push(Input::Endpoints(key.clone()));
        let is_known = *key == service.key || mesh.is_known_to(namespace, key);
        match mesh.endpoints.get(key).filter(|_| is_known) {
            Some(endpoints) => {
                unproven.append(&mut endpoints.unproven_ports());
                found.push(snapshot.encodings().endpoints(endpoints));
            }
            None if backend.broken.is_some() => {}
            None => found.push(encode_endpoints(&Endpoints::new(key.clone(), Vec::new()))),
        }
    }
    for key in unproven.into_iter().map(ServiceKey::beside_sidecars) {
        let beside = mesh.endpoints.get(&key);
        found.extend(beside.map(|beside| snapshot.encodings().endpoints(beside)));
        inputs.push(Input::Endpoints(key));
    }
    found
}

#[cfg(test)]
mod tests {
    use selvedge_model::{
        Mesh, Revocation, Revocations, Revoked,
        gateway::{
            Carries, CertificateName, Hostname, Listener, ListenerTls, PrivateKey, ServerCertificate,
            Termination, VirtualHost, virtual_host,
        },
    };

    use super::*;
    use crate::{
        snapshot::Store,
        testing::{self, add_route, add_service, add_workload},
    };

    fn names(mesh: Mesh, workload: &str, authority: &str) -> Vec<String> {
        let store = Store::new(&testing::bundle());
        store.publish(mesh);
        let snapshot = store.current().unwrap();
        let workload = &snapshot.mesh().workloads[&workload.parse().unwrap()];
        let parts = view(&snapshot, workload, &BTreeSet::from([Arc::from(authority)]));
        parts
            .iter()
            .flat_map(|part| part.resources.iter())
            .map(|resource| resource.name().to_string())
            .collect()
    }

    fn mesh() -> Mesh {
        let mut mesh = Mesh { cluster_domain: "cluster.local".into(), ..Mesh::default() };
        add_workload(&mut mesh, "shop/frontend", "frontend");
        add_workload(&mut mesh, "other/frontend", "frontend");
        add_service(&mut mesh, "reviews.shop.svc.cluster.local", &["127.0.0.2:80"]);
        mesh
    }

    #[test]
    fn the_workload_and_the_roots_come_first() {
        let names = names(mesh(), "shop/frontend", "nobody");

        assert_eq!(names, ["self", "bundle", "lookup/nobody"]);
    }

    #[test]
    fn who_is_revoked_is_told_to_everybody_and_nothing_where_nobody_is() {
        let mut mesh = mesh();
        let revoked = Revoked::Identity(testing::identity("shop", "thief"));
        let entry = Revocation { revoked, document: "Revocation a/b".into(), reason: None, until: None };
        mesh.revocations = Arc::new(Revocations::new(vec![entry]));

        for workload in ["shop/frontend", "other/frontend"] {
            assert_eq!(names(mesh.clone(), workload, "nobody")[..3], ["self", "bundle", "revocations"]);
        }
    }

    #[test]
    fn a_lookup_comes_with_its_service_and_the_endpoints_of_every_backend() {
        let mut mesh = mesh();
        add_service(&mut mesh, "ratings.shop.svc.cluster.local", &["127.0.0.3:80"]);
        let reviews = ServiceKey::new("reviews.shop.svc.cluster.local", 80);
        let ratings = ServiceKey::new("ratings.shop.svc.cluster.local", 80);
        let gone = ServiceKey::new("gone.shop.svc.cluster.local", 80);
        add_route(&mut mesh, &reviews, None, &[&reviews, &ratings, &reviews, &gone]);

        let names = names(mesh, "shop/frontend", "reviews");

        assert_eq!(
            names[2..],
            [
                "lookup/reviews",
                "service/reviews.shop.svc.cluster.local:80",
                "endpoints/reviews.shop.svc.cluster.local:80",
                "endpoints/ratings.shop.svc.cluster.local:80",
                "endpoints/gone.shop.svc.cluster.local:80",
            ]
        );
    }

    #[test]
    fn whoever_does_not_know_of_a_backend_is_not_told_where_it_is_and_hears_when_that_changes() {
        let mut mesh = mesh();
        let (reviews, vault) = (
            ServiceKey::new("reviews.shop.svc.cluster.local", 80),
            ServiceKey::new("vault.shop.internal", 80),
        );
        add_service(&mut mesh, "vault.shop.internal", &["127.0.0.9:80"]);
        add_route(&mut mesh, &reviews, None, &[&vault]);
        let told = |mesh: &Mesh, namespace: &str| {
            let store = Store::new(&testing::bundle());
            store.publish(mesh.clone());
            let snapshot = store.current().unwrap();
            let clients = Clients { namespace: namespace.into(), selected: None };
            let (part, inputs) = part(&snapshot, &clients, &Arc::from("reviews.shop"));
            assert!(inputs.contains(&Input::Endpoints(vault.clone())));
            let of_vault = snapshot.encodings().endpoints(&snapshot.mesh().endpoints[&vault]);
            let name = of_vault.name();
            let told = part.resources.iter().find(|one| one.name() == name).unwrap();
            told.version() == of_vault.version()
        };

        assert!(told(&mesh, "shop") && told(&mesh, "other"));
        mesh.exported.insert(vault.clone(), BTreeSet::from(["shop".to_owned()]));
        assert!(told(&mesh, "shop") && !told(&mesh, "other"));
    }

    #[test]
    fn what_is_known_by_name_at_a_port_is_made_once_for_all_who_ask_for_an_address_there() {
        let mut mesh = mesh();
        let occupant = |mesh: &Mesh, name: &str| {
            let workload = Arc::clone(&mesh.workloads[&name.parse().unwrap()]);
            selvedge_model::snapshot::Occupant { workload, skipped: Vec::new() }
        };
        let (shop, other) = (occupant(&mesh, "shop/frontend"), occupant(&mesh, "other/frontend"));
        mesh.named.occupants.insert("db.example.com".parse().unwrap(), (0, shop));
        let store = Store::new(&testing::bundle());
        let listed = |namespace: &str, address: &str| {
            let snapshot = store.current().unwrap();
            let clients = Clients { namespace: namespace.into(), selected: None };
            part(&snapshot, &clients, &Arc::from(address)).0.resources[1].clone()
        };
        let is_same = |one: &Encoded, other: &Encoded| Arc::ptr_eq(one.stamp(), other.stamp());

        store.publish(mesh.clone());
        let first = listed("shop", "93.184.0.1:443");
        assert_eq!(first.name().to_string(), format!("endpoints/{}", ServiceKey::named(443)));
        assert!(is_same(&first, &listed("other", "93.184.0.2:443")));
        assert_ne!(first.name(), listed("shop", "93.184.0.1:80").name());

        let same = mesh.named.occupants.clone();
        mesh.named.occupants = same;
        store.publish(mesh.clone());
        assert!(is_same(&first, &listed("shop", "93.184.0.3:443")), "it says the same");
        mesh.named.occupants.insert("web.example.com".parse().unwrap(), (1, other));
        store.publish(mesh);
        let next = listed("shop", "93.184.0.4:443");
        assert!(!is_same(&first, &next) && is_same(&next, &listed("other", "93.184.0.1:443")));
    }

    #[test]
    fn who_may_be_led_to_workloads_by_a_name_is_told_of_them_and_of_every_change() {
        let mut mesh = mesh();
        let (wild, beside) = (ServiceKey::new("*.example.com", 80), ServiceKey::beside_sidecars(80));
        add_service(&mut mesh, "*.example.com", &[]);
        let requested = Endpoints { requested: Some(80), ..Endpoints::new(wild.clone(), Vec::new()) };
        mesh.endpoints.insert(wild, Arc::new(requested));
        let inputs = |mesh: &Mesh| {
            let store = Store::new(&testing::bundle());
            store.publish(mesh.clone());
            let clients = Clients { namespace: "shop".into(), selected: None };
            part(&store.current().unwrap(), &clients, &Arc::from("a.example.com")).1
        };

        assert!(inputs(&mesh).contains(&Input::Endpoints(beside.clone())), "whether there is one or not");
        mesh.endpoints.insert(beside.clone(), Arc::new(Endpoints::new(beside.clone(), Vec::new())));
        assert!(inputs(&mesh).contains(&Input::Endpoints(beside)));
        assert_eq!(
            names(mesh.clone(), "shop/frontend", "a.example.com")[4..],
            ["endpoints/*.example.com:80", "endpoints/*sidecars:80",]
        );
        assert_eq!(names(mesh, "shop/frontend", "reviews").len(), 5, "nobody else is");
    }

    /// A mesh in which `shop/frontend` is a gateway with two virtual hosts on one port, and one certificate.
    fn mesh_with_gateway() -> Mesh {
        let mut mesh = mesh();
        let reviews = ServiceKey::new("reviews.shop.svc.cluster.local", 80);
        let mut gateway = Gateway::default();
        let mut virtual_hosts = Vec::new();
        for name in ["a.example.com", "b.example.com"] {
            let hostname: Hostname = name.parse().unwrap();
            let key = virtual_host(&hostname, "shop/edge/https", 443);
            let mut service = Service::clone(&mesh.services[&reviews].default);
            service.key = key.clone();
            gateway.virtual_hosts.insert(key.clone(), Arc::new(service));
            virtual_hosts.push(VirtualHost { hostname, service: key });
        }
        let name = CertificateName::new("shop", "tls");
        let certificate =
            ServerCertificate { name: name.clone(), chain: Vec::new(), key: PrivateKey::new(Vec::new()) };
        gateway.certificates.insert(name.clone(), Arc::new(certificate));
        let tls = Termination { certificates: vec![name], clients: None, tls12: true, http: true };
        let tls = Some(ListenerTls::Terminate(tls));
        let listener = Listener::new("Gateway shop/edge https".into(), Hostname::Any, tls, virtual_hosts);
        gateway.ports.insert(443, Arc::new(GatewayPort::new(443, Carries::Tls, vec![listener])));
        mesh.gateways.insert("shop/frontend".parse().unwrap(), Arc::new(gateway));
        mesh
    }

    #[test]
    fn a_gateway_is_told_what_it_serves_and_nobody_else_is() {
        let own = names(mesh_with_gateway(), "shop/frontend", "nobody");
        let other = names(mesh_with_gateway(), "other/frontend", "nobody");

        assert_eq!(
            own[2..],
            [
                "gateway/443",
                "service/a.example.com@shop/edge/https:443",
                "endpoints/reviews.shop.svc.cluster.local:80",
                "service/b.example.com@shop/edge/https:443",
                "certificate/shop/tls",
                "lookup/nobody",
            ]
        );
        assert_eq!(other, ["self", "bundle", "lookup/nobody"]);
    }

    #[test]
    fn a_namespace_sees_its_own_rules() {
        let mut mesh = mesh();
        add_service(&mut mesh, "ratings.shop.svc.cluster.local", &["127.0.0.3:80"]);
        let reviews = ServiceKey::new("reviews.shop.svc.cluster.local", 80);
        let ratings = ServiceKey::new("ratings.shop.svc.cluster.local", 80);
        add_route(&mut mesh, &reviews, Some("other"), &[&ratings]);

        let own = names(mesh.clone(), "shop/frontend", "reviews.shop");
        let other = names(mesh, "other/frontend", "reviews.shop");

        assert!(own.contains(&"endpoints/reviews.shop.svc.cluster.local:80".to_owned()), "{own:?}");
        assert!(!own.contains(&"endpoints/ratings.shop.svc.cluster.local:80".to_owned()), "{own:?}");
        assert!(other.contains(&"endpoints/ratings.shop.svc.cluster.local:80".to_owned()), "{other:?}");
    }
}
