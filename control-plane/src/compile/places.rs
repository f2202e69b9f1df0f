//! Where workloads and endpoints are, and what rules ask of it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{
    Endpoints, Locality, LocalityPolicy, Place, ServiceKey,
    locality::{Failover, LocalityOrder, NODE_LABEL},
};

use super::{
    Problems,
    services::{Catalog, KnownHost},
};
use crate::resources::{
    Resources, SliceAddress, WorkloadEntrySpec,
    locality_setting::{LocalitySetting, TrafficDistribution},
};

/// Istio's label of workloads that says where they are, with dots for slashes.
const LOCALITY_LABEL: &str = "istio-locality";

/// Where nodes are, and the places that were made of it.
#[derive(Debug, Default)]
pub(super) struct Places<'a> {
    nodes: HashMap<&'a str, &'a Locality>,
    /// The region of each zone, if nodes agree on it.
    regions: HashMap<&'a str, Option<&'a str>>,
    made: RefCell<HashSet<Arc<Place>>>,
}

impl<'a> Places<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let mut places = Self::default();
        for node in &resources.nodes {
            let locality = &node.spec.locality;
            places.nodes.insert(&node.name.name, locality);
            let region =
                places.regions.entry(locality.zone.as_str()).or_insert(Some(locality.region.as_str()));
            if *region != Some(locality.region.as_str()) {
                *region = None;
            }
        }
        places
    }

    /// Where a workload with these `labels` is, which runs on `node` or says itself where it is. Istio's label goes before
    /// the node.
    pub(super) fn of_workload(
        &self,
        labels: &BTreeMap<String, String>,
        node: Option<&str>,
        said: Option<&Locality>,
    ) -> Option<Arc<Place>> {
        let said = said.filter(|said| !said.is_empty()).cloned();
        let labelled = || labels.get(LOCALITY_LABEL).filter(|label| !label.is_empty());
        let labelled = || {
            let label = labelled()?;
            // Where it has slashes, dots are part of names.
            Some(Locality::of(&if label.contains('/') { label.clone() } else { label.replace('.', "/") }))
        };
        let of_node = || node.and_then(|node| self.nodes.get(node)).map(|found| (*found).clone());
        let locality = said.or_else(labelled).or_else(of_node).unwrap_or_default();
        let node = node.or_else(|| labels.get(NODE_LABEL).map(String::as_str)).map(str::to_owned);
        self.made(Place { locality, node, ..Place::default() })
    }

    /// Where an endpoint is that a `ServiceEntry` lists, or the place of the workload that it is.
    pub(super) fn of_inline(
        &self,
        inline: &WorkloadEntrySpec,
        known: Option<Arc<Place>>,
    ) -> Option<Arc<Place>> {
        let said = self.of_workload(&inline.labels, None, Some(&inline.locality));
        match (said, known) {
            (Some(said), Some(known)) if said.locality.is_empty() => Some(known),
            (said, known) => said.or(known),
        }
    }

    /// Where the `address` of an `EndpointSlice` is, and whom it is meant for. What is known of its workload goes before
    /// what the slice says.
    pub(super) fn of_slice(&self, address: &SliceAddress, known: Option<&Arc<Place>>) -> Option<Arc<Place>> {
        let SliceAddress { zone, node, for_zones, for_nodes, .. } = address;
        let mut place = known.map(|known| Place::clone(known)).unwrap_or_default();
        if place.node.is_none() {
            place.node.clone_from(node);
        }
        if place.locality.is_empty() {
            let of_node = place.node.as_deref().and_then(|node| self.nodes.get(node));
            place.locality = of_node.map(|found| (*found).clone()).unwrap_or_default();
        }
        if let Some(zone) = zone.as_ref().filter(|_| place.locality.zone.is_empty()) {
            place.locality.zone.clone_from(zone);
            let region = self.regions.get(zone.as_str()).copied().flatten();
            if let Some(region) = region.filter(|_| place.locality.region.is_empty()) {
                region.clone_into(&mut place.locality.region);
            }
        }
        place.for_zones.clone_from(for_zones);
        place.for_nodes.clone_from(for_nodes);
        self.made(place)
    }

    /// `place`, the same one for all who are there. `None`: nothing is known.
    fn made(&self, place: Place) -> Option<Arc<Place>> {
        if place.is_empty() {
            return None;
        }
        let mut made = self.made.borrow_mut();
        if let Some(found) = made.get(&place) {
            return Some(Arc::clone(found));
        }
        let place = Arc::new(place);
        made.insert(Arc::clone(&place));
        Some(place)
    }
}

/// Which endpoints of `host` come first where a rule says `setting`. As in Istio a rule goes before the service, and
/// outlier detection alone prefers the nearest.
pub(super) fn policy(
    setting: Option<&LocalitySetting>,
    host: &KnownHost<'_>,
    detects_outliers: bool,
) -> LocalityPolicy {
    let order = match (setting, host.distribution()) {
        (Some(LocalitySetting::Off), _) => LocalityOrder::Alike,
        (Some(LocalitySetting::Distribute(list)), _) => LocalityOrder::Distribute(list.clone()),
        (Some(LocalitySetting::Failover(failover)), _) if detects_outliers => {
            LocalityOrder::Failover(failover.clone())
        }
        (Some(LocalitySetting::Failover(_)), _) => LocalityOrder::Alike,
        (None, Some(TrafficDistribution::SameZone)) => LocalityOrder::Failover(Failover::same_zone()),
        (None, Some(TrafficDistribution::SameNode)) => LocalityOrder::Failover(Failover::same_node()),
        (None, None) if detects_outliers => LocalityOrder::Failover(Failover::nearest()),
        (None, None) => LocalityOrder::Alike,
    };
    let own_node = host.is_node_local();
    let hints = setting.is_none() && host.distribution().is_none() && !own_node;
    LocalityPolicy { own_node, hints, order }
}

/// What is missing of `endpoints` for `setting` to have any effect.
pub(super) fn missing(setting: &LocalitySetting, endpoints: &Endpoints) -> Option<&'static str> {
    let needs_places = match setting {
        LocalitySetting::Off => false,
        LocalitySetting::Distribute(_) => true,
        LocalitySetting::Failover(failover) => failover.by_place,
    };
    let is_placed = |place: &Place| !place.locality.is_empty();
    (needs_places && is_nowhere(endpoints, is_placed)).then_some(
        "it is not known where any of its endpoints is; label nodes with topology.kubernetes.io/region and zone, or \
         give the endpoints a locality",
    )
}

/// Whether there are endpoints, and none of them `is_known`.
fn is_nowhere(endpoints: &Endpoints, is_known: impl Fn(&Place) -> bool) -> bool {
    let fixed = endpoints.list.iter().map(|one| one.place.as_deref());
    let named = endpoints.named.iter().map(|one| one.place.as_deref());
    let mut all = fixed.chain(named).peekable();
    all.peek().is_some() && !all.any(|place| place.is_some_and(&is_known))
}

/// Reports services that ask for what nobody knows: where their endpoints are.
pub(super) fn report(
    catalog: &Catalog<'_>,
    endpoints: &BTreeMap<ServiceKey, Endpoints>,
    problems: &mut Problems,
) {
    for host in catalog.hosts() {
        let asks = host.distribution().is_some() || host.is_node_local();
        for port in host.ports.keys().filter(|_| asks) {
            let key = host.service(*port);
            let Some(endpoints) = endpoints.get(&key) else { continue };
            if host.is_node_local() && is_nowhere(endpoints, |place| place.node.is_some()) {
                let message = "is Local, and the node of no endpoint is known: calls are answered 503; remove it, or label \
                               the workloads with kubernetes.io/hostname";
                host.report_places("spec.internalTrafficPolicy", message.to_owned(), problems);
            }
            if host.distribution().is_some() && is_nowhere(endpoints, |place| !place.locality.is_empty()) {
                let message = "has no effect: it is not known where any endpoint is; label nodes with \
                               topology.kubernetes.io/zone, or give the endpoints a locality";
                host.report_places("spec.trafficDistribution", message.to_owned(), problems);
            }
        }
    }
}
