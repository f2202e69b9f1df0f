//! A valid mesh for tests, of which each changes one thing.

use std::{path::Path, sync::Arc};

use selvedge_certs::{bundle::Bundle, ca::Authority};
use selvedge_model::{
    Backend, BackendName, Endpoint, Endpoints, InboundPolicy, Mesh, Order, Protocol, RouteTable, Rule,
    Service, ServiceKey, SpiffeId, TcpTable, TrafficPolicy, TrustDomain, WeightedBackend, Workload,
    WorkloadName, snapshot::ServiceViews,
};

pub(crate) fn authority(directory: &Path) -> Authority {
    Authority::load_or_create(directory, &TrustDomain::default()).unwrap()
}

pub(crate) fn bundle() -> Bundle {
    let directory = tempfile::tempdir().unwrap();
    authority(directory.path()).bundle()
}

pub(crate) fn identity(namespace: &str, account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), namespace, account).unwrap()
}

pub(crate) fn mesh() -> Mesh {
    Mesh { cluster_domain: "cluster.local".into(), ..Mesh::default() }
}

pub(crate) fn add_workload(mesh: &mut Mesh, name: &str, account: &str) {
    let name: WorkloadName = name.parse().unwrap();
    let workload = Workload {
        identity: identity(name.namespace(), account),
        name: name.clone(),
        meshed: true,
        inbound: None,
        ports: vec![8080],
        policy: InboundPolicy::default(),
        protocols: Default::default(),
        app_connections: Default::default(),
        egress: None,
        gateway: None,
        telemetry: None,
        place: None,
        services: Default::default(),
        labels: Default::default(),
    };
    mesh.workloads.insert(name, Arc::new(workload));
}

/// Port 80 of `host`, with these endpoints and a route to itself.
pub(crate) fn add_service(mesh: &mut Mesh, host: &str, endpoints: &[&str]) {
    let key = ServiceKey::new(host, 80);
    let endpoint = |address: &&str| {
        let address = address.parse().unwrap();
        Endpoint {
            address,
            dial: address,
            identity: None,
            workload: None,
            labels: Default::default(),
            weight: 1,
            place: None,
        }
    };
    let list = endpoints.iter().map(endpoint).collect();
    mesh.endpoints.insert(key.clone(), Arc::new(Endpoints::new(key.clone(), list)));
    add_route(mesh, &key, None, &[&key]);
}

/// A route from a service to these backends, for all namespaces or for one.
pub(crate) fn add_route(mesh: &mut Mesh, key: &ServiceKey, namespace: Option<&str>, to: &[&ServiceKey]) {
    let backend = |key: &&ServiceKey| Backend {
        name: BackendName { service: (*key).clone(), subset: None },
        labels: Default::default(),
        policy: TrafficPolicy::default(),
        broken: None,
    };
    let rule = Rule {
        name: "rule".into(),
        backends: (0..to.len()).map(|backend| WeightedBackend::new(backend, 1)).collect(),
        ..Rule::default()
    };
    let service = Arc::new(Service {
        key: key.clone(),
        addresses: Vec::new(),
        protocol: Protocol::Http,
        routes: RouteTable::new(Order::Listed, vec![rule]),
        tcp: TcpTable::default(),
        backends: to.iter().map(backend).collect(),
    });
    match namespace {
        None => {
            let views = ServiceViews { default: service, by_namespace: Default::default(), selected: None };
            mesh.services.insert(key.clone(), views);
        }
        Some(namespace) => {
            let views = mesh.services.get_mut(key).expect("the service is there");
            views.by_namespace.insert(namespace.into(), service);
        }
    }
}
