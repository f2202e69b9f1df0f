//! What each gateway serves, whichever kinds of documents say it.
//!
//! The workloads that are one gateway have a [`Seat`]. For each seat a [`Draft`] is made, to which every kind of
//! documents adds listeners, and to these the rules of their host names: the Gateway API in `gateway_api`, `Ingress`es in
//! `ingress`, Istio's `Gateway`s in `istio`. The end of a draft is the same for all: it finds listeners that exclude each
//! other, and makes the [`Gateway`](selvedge_model::gateway::Gateway).

mod ancestors;
mod attach;
mod copies;
mod credentials;
mod distinct;
mod draft;
mod gateway_api;
mod holders;
mod ingress;
mod istio;
mod loopback;
mod overlaps;
mod seats;
mod shared;
mod terminate;

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
};

use http::HeaderName;
use selvedge_model::{HeaderField, Match, StringMatch, WorkloadName, gateway::Gateway};
use serde_json::Value;

pub(super) use self::{credentials::names_secrets, loopback::leads_home};
use self::{
    draft::Draft, gateway_api::GatewayApi, ingress::Ingresses, istio::IstioGateways, seats::seats,
    shared::SharedRules,
};
pub use self::{overlaps::Overlap, terminate::WantedObject};
use super::{
    MeshSettings, Problems, candidates::Candidates, certificates::Certificates, clients::Selected,
    grants::Grants, keep, rate_limits::RateLimits, routes::Routing, workloads::Workloads,
};
use crate::{
    problem::DocumentName,
    resources::{Document, GatewaySpec, IngressSpec, Resources, gateway::ListenerSpec},
};

/// What is attached to a document that has listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HolderFacts {
    /// The namespace and the name of the `Gateway` that it has a part in.
    pub gateway: (Arc<str>, Arc<str>),
    /// How many routes each of its listeners has. `None`: the gateway does not allow it.
    pub routes: Option<Vec<usize>>,
    /// What the TLS of each of its listeners overlaps with. Empty: the gateway does not allow it.
    pub overlaps: Vec<Option<Overlap>>,
}

/// The hosts of all backends that documents for gateways name, whether anybody serves these or not.
pub(super) type LedTo = HashSet<Arc<str>>;

/// What a gateway tells apps of how its client spoke with it, or with the proxies before it that it trusts. No other client can
/// say it.
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Asks that no TLS has carried a request: neither here nor to a trusted proxy.
fn spoken_in_plaintext() -> Match {
    let https = StringMatch::Exact("https".to_owned());
    Match { without_headers: vec![(HeaderField::Header(FORWARDED_PROTO), https)], ..Match::default() }
}

/// What the status of documents of the Gateway API tells of other documents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attached {
    /// What is attached to each `Gateway` that is ours, and to each `ListenerSet` that asks for one of them.
    pub holders: BTreeMap<DocumentName, HolderFacts>,
    /// Of each policy with Services as targets, the references to what it has its effect through.
    pub ancestors: BTreeMap<DocumentName, Vec<Value>>,
}

impl Attached {
    /// By all documents. What is wrong with routes is said elsewhere.
    pub fn new(resources: &Resources) -> Self {
        let api = GatewayApi::new(resources, &mut Problems::default());
        Self { holders: api.attached(resources), ancestors: ancestors::ancestors(resources, &api) }
    }
}

/// What the gateway of all `Ingress`es is called, in the control plane's namespace.
pub const INGRESS_GATEWAY: &str = ingress::NAME;

/// Every `Gateway` of the Gateway API that is ours.
pub fn our_gateways(resources: &Resources) -> impl Iterator<Item = &Document<GatewaySpec>> {
    gateway_api::ours(resources)
}

/// The same, each with its listeners and those of its `ListenerSet`s.
pub(crate) fn our_listeners(resources: &Resources) -> Vec<(&Document<GatewaySpec>, Vec<&ListenerSpec>)> {
    gateway_api::ours_with_listeners(resources)
}

/// Every `Ingress` that is ours.
pub fn our_ingresses(resources: &Resources) -> impl Iterator<Item = &Document<IngressSpec>> {
    ingress::ours(resources).into_iter()
}

/// What every workload serves that is a gateway, and the hosts to which their documents lead. What is equal to `previous` is the
/// same `Arc`s, and the workloads of one gateway share theirs.
pub(super) fn gateways(
    resources: &Resources,
    settings: &MeshSettings,
    (routing, certificates, limits): (&Routing<'_>, &Certificates<'_>, &RateLimits<'_>),
    (workloads, selected, candidates): (&Workloads<'_>, &Selected, &Candidates<'_>),
    previous: &BTreeMap<WorkloadName, Arc<Gateway>>,
    problems: &mut Problems,
) -> (BTreeMap<WorkloadName, Arc<Gateway>>, LedTo) {
    let grants = Grants::new(resources);
    let api = GatewayApi::new(resources, problems);
    let ingresses = Ingresses::new(resources, settings, certificates, problems);
    let istio = IstioGateways::new(resources, routing, problems);
    let (mut gateways, mut led_to) = (BTreeMap::new(), LedTo::new());
    let shared = SharedRules::default();
    let named = api.names().chain(ingresses.name());
    let seats = seats((workloads, selected), &istio.labels_asked(routing), named);
    let gateway_hosts = workloads.gateway_hosts();
    for seat in &seats {
        let mut draft = Draft::new(seat, (routing, limits, &shared), &grants, certificates);
        api.add_to(&mut draft, problems);
        ingresses.add_to(&mut draft, problems);
        let owned = api.has(seat).then_some(&*settings.root_namespace);
        istio.add_to(&mut draft, owned, routing, problems);
        led_to.extend(draft.hosts_of_backends());
        let before = seat.workloads.iter().find_map(|workload| previous.get(*workload));
        let gateway = kept(draft.finish(problems), before);
        loopback::report(seat, &gateway, routing, (workloads, &gateway_hosts, candidates), problems);
        gateways.extend(seat.workloads.iter().map(|name| (WorkloadName::clone(name), Arc::clone(&gateway))));
    }
    for (seat, alone) in &istio.unserved(&seats, problems) {
        let mut draft = Draft::new(seat, (routing, limits, &shared), &grants, certificates);
        alone.add_all_to(&mut draft, routing, problems);
        led_to.extend(draft.hosts_of_backends());
        draft.finish(problems);
    }
    (gateways, led_to)
}

/// The objects that documents name, by the namespace of the documents. Those of Istio name what is in the namespace of a
/// gateway's workload, and others what a grant permits.
type WantedFrom<'a> = BTreeMap<&'a str, BTreeSet<WantedObject>>;

/// The Secrets and ConfigMaps that gateways, `Ingress`es and policies name, each once, without those that they are not
/// permitted to name. Where nobody lists them (in a cluster), they are to be fetched by name and [put](Resources::put)
/// into the resources; one that is not there is reported by [`compile`](super::compile).
///
/// If they are too many, the first count: those that documents of their own namespace name, and then those that documents of
/// other namespaces name, one of each namespace after the other. So nobody takes the places of others by naming much.
pub fn wanted_objects(resources: &Resources, root_namespace: &str) -> Vec<WantedObject> {
    let mut known = ingress::wanted(resources);
    known.extend(terminate::of_backend_policies(resources));
    let mut named = WantedFrom::new();
    gateway_api::add_wanted(resources, &mut named);
    istio::add_wanted(resources, &mut named);
    credentials::add_wanted(resources, root_namespace, &mut named);
    let mut from_elsewhere = Vec::new();
    for (namespace, objects) in named {
        let (own, others): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| *object.namespace == *namespace);
        known.extend(own);
        from_elsewhere.extend(others.into_iter().enumerate());
    }
    from_elsewhere.sort_unstable();
    let mut wanted: Vec<WantedObject> = known.iter().cloned().collect();
    let from_elsewhere = from_elsewhere.into_iter().map(|(_, object)| object);
    wanted.extend(from_elsewhere.filter(|object| known.insert(object.clone())));
    wanted
}

/// `gateway`, of which all that is as `before` is the same `Arc`s.
fn kept(mut gateway: Gateway, before: Option<&Arc<Gateway>>) -> Arc<Gateway> {
    if let Some(before) = before {
        keep_equal(&mut gateway.ports, &before.ports);
        keep_equal(&mut gateway.virtual_hosts, &before.virtual_hosts);
        keep_equal(&mut gateway.certificates, &before.certificates);
        keep_equal(&mut gateway.user_lists, &before.user_lists);
    }
    keep(gateway, before)
}

fn keep_equal<K: Ord, V: PartialEq>(new: &mut BTreeMap<K, Arc<V>>, before: &BTreeMap<K, Arc<V>>) {
    for (key, value) in new {
        if let Some(before) = before.get(key).filter(|before| *before == value) {
            *value = Arc::clone(before);
        }
    }
}
