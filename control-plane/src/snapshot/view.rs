//! What one workload may see: itself, the trust roots, and what it asked for as its namespace sees it.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_api::{
    ResourceName,
    wire::{self, resource::Body},
};
use selvedge_model::{
    Endpoints, Lookup, Service, ServiceKey, Workload,
    gateway::{Gateway, GatewayPort},
    policy::network::SetName,
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
    /// All of it; no name twice. Parts may share resources.
    pub resources: Vec<Encoded>,
}

/// Everything that the proxy of `workload` is to hold, if it asked for `authorities`.
pub fn view(snapshot: &Snapshot, workload: &Arc<Workload>, authorities: &BTreeSet<Arc<str>>) -> Vec<Part> {
    let revocations = &snapshot.mesh().revocations;
    let revocations = (!revocations.is_empty()).then(|| snapshot.encodings().revocations(revocations));
    let resources = [snapshot.encodings().workload(workload), snapshot.bundle().clone()];
    let resources = resources.into_iter().chain(revocations).chain(sets(snapshot, workload));
    let own = Part { subject: Subject::Own, resources: resources.collect() };
    let namespace = workload.name.namespace();
    let asked = authorities.iter().map(|authority| part(snapshot, namespace, authority));
    std::iter::once(own).chain(gateway(snapshot, workload)).chain(asked).collect()
}

/// What the workload serves if it is a gateway: for each port its listeners with their virtual hosts, the endpoints and
/// the users that these name, and the certificates. Nobody asks for it, and nobody else is told.
fn gateway<'s>(snapshot: &'s Snapshot, workload: &Workload) -> impl Iterator<Item = Part> + use<'s> {
    let gateway = snapshot.mesh().gateways.get(&workload.name);
    gateway.into_iter().flat_map(move |gateway| {
        gateway.ports.iter().map(move |(port, served)| gateway_port(snapshot, gateway, *port, served))
    })
}

fn gateway_port(snapshot: &Snapshot, gateway: &Gateway, port: u16, served: &Arc<GatewayPort>) -> Part {
    let encodings = snapshot.encodings();
    let mut resources = vec![encodings.gateway_port(served)];
    for host in served.virtual_hosts().filter_map(|host| gateway.virtual_hosts.get(&host.service)) {
        resources.push(encodings.service(host));
        resources.extend(endpoints(snapshot, host));
        let shown = host.certificates().into_iter().filter_map(|name| gateway.certificates.get(name));
        resources.extend(shown.map(|certificate| encodings.certificate(certificate)));
        let users = host.user_lists().into_iter().filter_map(|name| gateway.user_lists.get(name));
        resources.extend(users.map(|users| encodings.users(users)));
    }
    let certificates = served.certificates().filter_map(|name| gateway.certificates.get(name));
    resources.extend(certificates.map(|certificate| encodings.certificate(certificate)));
    once_each(&mut resources);
    Part { subject: Subject::GatewayPort(port), resources }
}

fn once_each(resources: &mut Vec<Encoded>) {
    let mut seen = BTreeSet::new();
    resources.retain(|resource| seen.insert(resource.name().clone()));
}

/// The parts of the sets that the network policies of `workload` name, once each.
fn sets(snapshot: &Snapshot, workload: &Workload) -> Vec<Encoded> {
    let named: BTreeSet<&SetName> = workload.sets().collect();
    let parts = named.into_iter().flat_map(SetName::each);
    let found = parts.filter_map(|name| {
        let part = snapshot.mesh().sets.get(&name)?;
        Some(snapshot.encodings().set_part(&name, part))
    });
    found.collect()
}

fn part(snapshot: &Snapshot, namespace: &str, authority: &Arc<str>) -> Part {
    let lookup = snapshot.mesh().lookup(namespace, authority);
    let name = ResourceName::Lookup(authority.to_string());
    let mut resources = vec![Encoded::new(name, Body::Lookup(wire::Lookup::new(authority, &lookup)))];
    match &lookup {
        Lookup::Service(key) => resources.extend(service(snapshot, namespace, key)),
        Lookup::Address(address) => {
            for key in address.services.iter().map(|declared| &declared.key) {
                resources.extend(service(snapshot, namespace, key));
                // Its own too, whatever its routes name: they say whether it has one at the address.
                resources.extend(
                    snapshot.mesh().endpoints.get(key).map(|own| snapshot.encodings().endpoints(own)),
                );
            }
            if address.named
                && let Some(port) = port(authority)
            {
                resources.push(encode_endpoints(&snapshot.mesh().named_at(port)));
            }
            once_each(&mut resources);
        }
        Lookup::None => {}
    }
    Part { subject: Subject::Authority(Arc::clone(authority)), resources }
}

/// The port of an authority that is an address.
fn port(authority: &str) -> Option<u16> {
    selvedge_model::snapshot::address(authority).map(|address| address.port())
}

/// A service's port and all endpoints that it names.
fn service(snapshot: &Snapshot, namespace: &str, key: &ServiceKey) -> Vec<Encoded> {
    let views = snapshot.mesh().services.get(key).expect("the mesh found it by its own keys");
    let service = views.for_namespace(namespace);
    let mut resources = vec![snapshot.encodings().service(service)];
    resources.extend(endpoints(snapshot, service));
    resources
}

/// The endpoints of every backend, once each; an empty list where a backend that can be used has none.
fn endpoints(snapshot: &Snapshot, service: &Service) -> Vec<Encoded> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for backend in service.backends.iter().filter(|backend| seen.insert(&backend.name.service)) {
        let key = &backend.name.service;
        match snapshot.mesh().endpoints.get(key) {
            Some(endpoints) => found.push(snapshot.encodings().endpoints(endpoints)),
            None if backend.broken.is_some() => {}
            None => found.push(encode_endpoints(&Endpoints::new(key.clone(), Vec::new()))),
        }
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
        parts.iter().flat_map(|part| &part.resources).map(|resource| resource.name().to_string()).collect()
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
