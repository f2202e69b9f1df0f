//! What a change of one endpoint costs by the number of its service's endpoints: on the control thread, and on a worker.
//!
//! `cargo bench -p selvedge-proxy --bench changes` tells, for each balancer, how long the control thread takes from the bytes
//! of a transaction to the new table, and how long a worker takes to let go of the table before. The goals are 2 ms and 1 ms
//! with 10,000 endpoints.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use prost::Message as _;
use selvedge_api::{
    ResourceName,
    delta::{self, Fingerprints},
    wire::{self, resource::Body},
};
use selvedge_model::{
    Backend, BackendName, ConsistentHash, Endpoint, Endpoints, HashKey, HashTable, InboundPolicy,
    LoadBalancer, Lookup, Order, OutlierDetection, Protocol, RouteTable, Rule, Service, ServiceKey, SpiffeId,
    TcpTable, TrafficPolicy, TrustDomain, WeightedBackend, Workload, WorkloadName,
};
use selvedge_ops::{Resolver, ResolverArgs};
use selvedge_proxy::{
    bind::Table,
    discovery::{
        binder::Binder,
        held::{Draft, Recipient, Resources},
    },
    dns::Names,
    telemetry::Metrics,
};

/// Changes of each kind.
const CHANGES: usize = 21;

fn main() {
    for endpoints in [100, 1_000, 10_000] {
        for (name, load_balancer) in balancers() {
            for ejects in [false, true] {
                for takes_deltas in [true, false] {
                    let mut proxy = Proxy::new(endpoints, load_balancer.clone(), ejects);
                    let mut times: Vec<_> =
                        (0..CHANGES).map(|turn| proxy.change(turn, takes_deltas)).collect();
                    let mut control = middle_and_last(&mut times, |time| time.control);
                    let worker = middle_and_last(&mut times, |time| time.worker);
                    let bytes = times[0].bytes;
                    control.push_str(if ejects { ", with ejections" } else { "" });
                    println!(
                        "{endpoints} endpoints, {name}: {bytes} bytes, control thread {control}, worker {worker}"
                    );
                }
            }
        }
    }
}

fn balancers() -> [(&'static str, LoadBalancer); 4] {
    let hash = ConsistentHash { key: HashKey::SourceAddress, table: HashTable::RING, load_bound: None };
    [
        ("least-request", LoadBalancer::LeastRequest),
        ("round-robin", LoadBalancer::RoundRobin),
        ("peak-ewma", LoadBalancer::PeakEwma),
        ("ring", LoadBalancer::ConsistentHash(hash)),
    ]
}

fn middle_and_last(times: &mut [Times], which: impl Fn(&Times) -> Duration) -> String {
    times.sort_by_key(&which);
    format!("{:.2?} (at most {:.2?})", which(&times[times.len() / 2]), which(&times[times.len() - 1]))
}

/// How long one change took.
struct Times {
    bytes: usize,
    control: Duration,
    worker: Duration,
}

/// A proxy's configuration, with one service.
struct Proxy {
    held: Resources,
    binder: Binder,
    endpoints: Endpoints,
    table: Arc<Table>,
}

impl Proxy {
    fn new(endpoints: usize, load_balancer: LoadBalancer, ejects: bool) -> Self {
        let metrics = Arc::new(Metrics::new(1));
        let resolver = Arc::new(Resolver::new(ResolverArgs::default()));
        let binder = Binder::new(workload(), Arc::clone(&metrics), Names::new(resolver, metrics));
        let endpoints = Endpoints::new(key(), (0..endpoints).map(endpoint).collect());
        let mut proxy = Self { held: Resources::default(), binder, endpoints, table: Arc::default() };
        let policy = TrafficPolicy {
            load_balancer,
            outlier_detection: ejects.then(OutlierDetection::default),
            ..TrafficPolicy::default()
        };
        let lookup = wire::Lookup::new("reviews:9080", &Lookup::Service(key()));
        let (list, _) = listed(&proxy.endpoints);
        let upserts = vec![
            resource("self", "1", Body::Self_((&own()).into())),
            resource("lookup/reviews:9080", "1", Body::Lookup(lookup)),
            resource(&format!("service/{}", key()), "1", Body::Service((&service(policy)).into())),
            list,
        ];
        proxy.table = proxy.take_in(upserts);
        proxy
    }

    fn take_in(&mut self, upserts: Vec<wire::Resource>) -> Arc<Table> {
        let mut draft = Draft::default();
        draft.add(wire::Transaction { upserts, ..wire::Transaction::default() });
        let us = Recipient { workload: workload(), trust_domain: TrustDomain::default() };
        self.held.take_in(draft, &us, |_| true).expect("it is complete");
        self.binder.bind(&self.held, |_| true, Instant::now()).0
    }

    /// Gives one endpoint another workload, and takes that over.
    fn change(&mut self, turn: usize, takes_deltas: bool) -> Times {
        let (before, fingerprints) = listed(&self.endpoints);
        let place = turn * 7919 % self.endpoints.list.len();
        self.endpoints.list[place].workload = Some(format!("shop/turn-{turn}").parse().expect("a name"));
        let (mut after, now) = listed(&self.endpoints);
        if takes_deltas && self.endpoints.list.len() >= delta::FEWEST {
            let delta = delta::between(&before.version, &fingerprints, &now, &self.endpoints);
            after.body = delta.map(Body::EndpointsDelta);
        }
        let bytes = after.encode_to_vec();

        let start = Instant::now();
        let resource = wire::Resource::decode(bytes.as_slice()).expect("it was just encoded");
        let table = self.take_in(vec![resource]);
        let control = start.elapsed();

        let start = Instant::now();
        self.table = table;
        Times { bytes: bytes.len(), control, worker: start.elapsed() }
    }
}

fn workload() -> WorkloadName {
    "shop/frontend-1".parse().expect("a name")
}

fn key() -> ServiceKey {
    ServiceKey::new("reviews.shop.svc.cluster.local", 9080)
}

fn identity(account: &str) -> SpiffeId {
    SpiffeId::new(&TrustDomain::default(), "shop", account).expect("an identity")
}

fn endpoint(place: usize) -> Endpoint {
    let [_, a, b, c] = u32::try_from(place + 1).expect("few").to_be_bytes();
    let labels = [("app", "reviews"), ("version", "v1"), ("pod-template-hash", "6c8f5d7b9")];
    Endpoint {
        address: ([10, a, b, c], 8080).into(),
        dial: ([10, a, b, c], 8080).into(),
        identity: Some(identity("reviews")),
        workload: Some(format!("shop/reviews-{place}").parse().expect("a name")),
        labels: labels
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect::<BTreeMap<_, _>>()
            .into(),
        weight: 1,
        place: None,
    }
}

fn own() -> Workload {
    Workload {
        name: workload(),
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
    }
}

fn service(policy: TrafficPolicy) -> Service {
    let name = BackendName { service: key(), subset: None };
    let backend = Backend { name, labels: BTreeMap::new(), policy, broken: None };
    let rule = Rule { name: "rule".into(), backends: vec![WeightedBackend::new(0, 1)], ..Rule::default() };
    Service {
        key: key(),
        addresses: Vec::new(),
        protocol: Protocol::Http,
        routes: RouteTable::new(Order::Listed, vec![rule]),
        tcp: TcpTable::default(),
        backends: vec![backend],
    }
}

fn resource(name: &str, version: &str, body: Body) -> wire::Resource {
    wire::Resource { name: name.to_owned(), version: version.to_owned(), body: Some(body) }
}

fn listed(endpoints: &Endpoints) -> (wire::Resource, Fingerprints) {
    let mut body = wire::Endpoints::from(endpoints);
    let fingerprints = Fingerprints::of(&mut body);
    let name = ResourceName::Endpoints(endpoints.key.clone());
    let version = fingerprints.version(&name);
    (resource(&name.to_string(), &version, Body::Endpoints(body)), fingerprints)
}
