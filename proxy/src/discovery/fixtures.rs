//! Valid resources for tests; each test changes one thing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_api::wire;
use selvedge_model::{
    Backend, BackendName, Endpoint, Endpoints, InboundPolicy, Lookup, Order, OutlierDetection, Protocol,
    RouteTable, Rule, Service, ServiceKey, SpiffeId, TcpTable, TrafficPolicy, TrustDomain, WeightedBackend,
    Workload, WorkloadName,
};

use selvedge_ops::{Resolver, ResolverArgs};

use super::{binder::Binder, held::Recipient};
use crate::{dns::Names, joining::ControlPlane, telemetry::Metrics};

/// What apps call the service.
pub(crate) const AUTHORITY: &str = "reviews:9080";

/// The workload whose sidecar is tested.
pub(crate) fn workload() -> WorkloadName {
    "shop/frontend-1".parse().unwrap()
}

/// A binder that knows the names of this machine.
pub(crate) fn binder(metrics: &Arc<Metrics>) -> Binder {
    binder_of(workload(), metrics)
}

pub(crate) fn binder_of(own: WorkloadName, metrics: &Arc<Metrics>) -> Binder {
    let names = Names::new(Arc::new(Resolver::new(ResolverArgs::default())), Arc::clone(metrics));
    Binder::new(own, Arc::clone(metrics), names)
}

/// The control plane at `address`.
pub(crate) fn control_plane(address: SocketAddr) -> ControlPlane {
    let resolver = Resolver::new(ResolverArgs::default());
    ControlPlane::new(address.to_string().parse().unwrap(), Arc::new(resolver))
}

pub(crate) fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", account).unwrap()
}

pub(crate) fn us() -> Recipient {
    Recipient { workload: workload(), trust_domain: TrustDomain::default() }
}

/// The service.
pub(crate) fn key() -> ServiceKey {
    ServiceKey::new("reviews.shop.svc.cluster.local", 9080)
}

/// The service with one subset `v1`, `v2`… for each weight, and one rule that splits by them.
pub(crate) fn model_service(weights: &[u32]) -> Service {
    let backend = |place: usize| Backend {
        name: BackendName { service: key(), subset: Some(Arc::from(format!("v{}", place + 1))) },
        labels: BTreeMap::from([("version".to_owned(), format!("v{}", place + 1))]),
        policy: TrafficPolicy {
            outlier_detection: Some(OutlierDetection {
                consecutive_5xx: Some(1),
                max_ejection_percent: 50,
                ..OutlierDetection::default()
            }),
            ..TrafficPolicy::default()
        },
        broken: None,
    };
    let share = |(backend, weight): (usize, &u32)| WeightedBackend::new(backend, *weight);
    let rule = Rule {
        name: "VirtualService shop/reviews http[0]".into(),
        backends: weights.iter().enumerate().map(share).collect(),
        ..Rule::default()
    };
    Service {
        key: key(),
        addresses: Vec::new(),
        protocol: Protocol::Http,
        routes: RouteTable::new(Order::Listed, vec![rule]),
        tcp: TcpTable::default(),
        backends: (0..weights.len()).map(backend).collect(),
    }
}

/// The `place`-th endpoint; even ones are `v1`, odd ones `v2`.
pub(crate) fn model_endpoint(place: usize) -> Endpoint {
    let place = u32::try_from(place).unwrap();
    let [_, a, b, c] = (place + 1).to_be_bytes();
    let version = if place % 2 == 0 { "v1" } else { "v2" };
    Endpoint {
        address: ([10, a, b, c], 8080).into(),
        dial: ([10, a, b, c], 4143).into(),
        identity: Some(identity("reviews")),
        workload: Some(format!("shop/reviews-{place}").parse().unwrap()),
        labels: BTreeMap::from([("version".to_owned(), version.to_owned())]).into(),
        weight: 1,
        place: None,
    }
}

pub(crate) fn model_endpoints(count: usize) -> Endpoints {
    Endpoints::new(key(), (0..count).map(model_endpoint).collect())
}

fn resource(name: String, version: &str, body: wire::resource::Body) -> wire::Resource {
    wire::Resource { name, version: version.to_owned(), body: Some(body) }
}

pub(crate) fn own(version: &str, name: &str) -> wire::Resource {
    let workload = Workload {
        name: name.parse().unwrap(),
        identity: identity("frontend"),
        meshed: true,
        inbound: None,
        ports: vec![8080],
        policy: InboundPolicy::default(),
        protocols: BTreeMap::new(),
        app_connections: BTreeMap::new(),
        egress: None,
        gateway: None,
        telemetry: None,
        place: None,
        labels: Arc::default(),
        services: BTreeMap::new(),
    };
    resource("self".into(), version, wire::resource::Body::Self_((&workload).into()))
}

pub(crate) fn lookup_of(authority: &str, version: &str, lookup: &Lookup) -> wire::Resource {
    let body = wire::resource::Body::Lookup(wire::Lookup::new(authority, lookup));
    resource(format!("lookup/{authority}"), version, body)
}

pub(crate) fn lookup(version: &str) -> wire::Resource {
    lookup_of(AUTHORITY, version, &Lookup::Service(key()))
}

pub(crate) fn service(version: &str, weights: &[u32]) -> wire::Resource {
    service_of(version, &model_service(weights))
}

pub(crate) fn service_of(version: &str, service: &Service) -> wire::Resource {
    resource(format!("service/{}", service.key), version, wire::resource::Body::Service(service.into()))
}

/// The service with a balancing algorithm that this version does not know.
pub(crate) fn bad_service(version: &str) -> wire::Resource {
    let mut service = wire::Service::from(&model_service(&[1]));
    service.backends[0].policy.as_mut().unwrap().load_balancer = 99;
    resource(format!("service/{}", key()), version, wire::resource::Body::Service(service))
}

pub(crate) fn endpoints(version: &str, count: usize) -> wire::Resource {
    endpoints_of(version, &model_endpoints(count))
}

pub(crate) fn endpoints_of(version: &str, endpoints: &Endpoints) -> wire::Resource {
    resource(format!("endpoints/{}", key()), version, wire::resource::Body::Endpoints(endpoints.into()))
}
