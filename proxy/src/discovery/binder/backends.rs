//! Binds backends to the endpoints that they select, and to the state that belongs to their names.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use selvedge_model::{
    Backend, BackendName, Endpoint, LoadBalancer, TlsOrigination, WorkloadName, facts,
    locality::{Arrangement, By, Group, LeftOut, Located, arrange},
    naming::Naming,
};

use super::{
    inputs::{Entry, Here, Inputs, same},
    targets::{Reach, Targets, Tls, Work},
};
use crate::{
    balance::{Balancer, Circuit, Ejection, Health, Latency, Load, Member, MemberGroup, Unmade},
    bind::{self, Affinity, BoundBackend, BoundEndpoint, Target, stands_for},
    budget::RetryBudget,
    dns::{DnsName, Reached},
    telemetry::{Metrics, Peer},
};

/// How many workloads, by what people call them, metrics tell apart behind one backend.
const MOST_PEERS: usize = 16;

/// A backend, and what it was made of.
#[derive(Clone)]
pub(super) struct Place<'a> {
    definition: &'a Backend,
    endpoints: Option<&'a Arc<Reached>>,
    bound: Arc<BoundBackend>,
}

/// The backends of each name. There is one, unless services see it differently.
pub(super) type Places<'a> = HashMap<&'a BackendName, Vec<Place<'a>>>;

/// The backends of `entries`, each once, in their order.
pub(super) fn named<'a>(entries: impl Iterator<Item = &'a Entry>) -> Places<'a> {
    let mut places = Places::new();
    for Entry { inputs, bound } in entries {
        let backends = inputs.service.backends.iter().zip(&inputs.endpoints);
        for ((definition, endpoints), bound) in backends.zip(&bound.backends) {
            let same_name = places.entry(&definition.name).or_default();
            if !same_name.iter().any(|place| Arc::ptr_eq(&place.bound, bound)) {
                let (endpoints, bound) = (endpoints.as_ref(), Arc::clone(bound));
                same_name.push(Place { definition, endpoints, bound });
            }
        }
    }
    places
}

/// Binds the backends of what has changed, in one pass.
pub(super) struct BackendBinder<'a> {
    /// Backends that are in use after this pass. Services that name the same one share it.
    pub(super) shared: Places<'a>,
    /// Backends of what has changed or is gone. Their state goes to the backend that has their name now.
    pub(super) predecessors: Places<'a>,
    pub(super) own: &'a WorkloadName,
    pub(super) metrics: &'a Metrics,
    pub(super) local: Option<u16>,
    pub(super) targets: &'a mut Targets,
    pub(super) work: Work,
    /// Hash tables that are still to be made.
    pub(super) unmade: Vec<Unmade>,
    /// Where we are.
    pub(super) here: &'a Here,
    /// Whether we may call others than before, or are elsewhere, so that everything is bound anew.
    pub(super) everything_changed: bool,
    pub(super) now: Instant,
}

impl<'a> BackendBinder<'a> {
    /// The backends of one service.
    pub(super) fn backends(&mut self, inputs: &'a Inputs) -> Vec<Arc<BoundBackend>> {
        self.work.services += 1;
        let backends = inputs.service.backends.iter().zip(&inputs.endpoints);
        backends.map(|(definition, endpoints)| self.backend(definition, endpoints.as_ref())).collect()
    }

    /// One backend: shared, as it was, or bound anew.
    fn backend(&mut self, definition: &'a Backend, endpoints: Option<&'a Arc<Reached>>) -> Arc<BoundBackend> {
        let is_for = |place: &Place<'_>| same(place.endpoints, endpoints) && place.definition == definition;
        let mut shared = self.shared.get(&definition.name).into_iter().flatten();
        if let Some(place) = shared.find(|place| is_for(place)) {
            return Arc::clone(&place.bound);
        }
        let bound = match self.predecessor(definition) {
            Some(place) if is_for(&place) && !self.everything_changed => place.bound,
            place => self.bind(definition, endpoints, place.map(|place| place.bound).as_deref()),
        };
        let place = Place { definition, endpoints, bound: Arc::clone(&bound) };
        self.shared.entry(&definition.name).or_default().push(place);
        bound
    }

    /// What goes on as `definition`, taken out: the backend of the same name that was most like it. What is in use as it was
    /// goes on as itself: two services that see one backend differently do not share its state.
    fn predecessor(&mut self, definition: &Backend) -> Option<Place<'a>> {
        let in_use = self.shared.get(&definition.name).map_or(&[][..], Vec::as_slice);
        let places = self.predecessors.get_mut(&definition.name)?;
        places.retain(|place| !in_use.iter().any(|used| Arc::ptr_eq(&used.bound, &place.bound)));
        let called_alike = |place: &Place<'_>| {
            let (its, ours) = (&place.definition.policy, &definition.policy);
            (&its.tls, its.spoken, &place.definition.labels) == (&ours.tls, ours.spoken, &definition.labels)
        };
        let same = places.iter().position(|place| place.definition == definition);
        let alike = same.or_else(|| places.iter().position(called_alike)).unwrap_or_default();
        (!places.is_empty()).then(|| places.remove(alike))
    }

    /// What connections to `endpoint` reach. Our own workload is dialled at our own inbound listener: what this host
    /// sends to itself is not redirected, and its app does not speak mesh TLS.
    fn reach(&self, backend: &Backend, endpoint: &Endpoint, dns_name: Option<&Arc<DnsName>>) -> Reach {
        let host = dns_name.map_or(&backend.name.service.host, |dns_name| &dns_name.name);
        let shows = |settings: &TlsOrigination| self.targets.shown_to(settings);
        let (tls, identity) = Tls::of(backend.policy.tls.as_ref(), endpoint.identity.as_ref(), host, shows);
        let local = endpoint.workload.as_ref() == Some(self.own) && identity.is_some();
        let dial = match self.local {
            Some(inbound) if local => SocketAddr::new(endpoint.address.ip(), inbound),
            _ => endpoint.dial,
        };
        // Without an identity to prove, it does not matter which workload it is.
        let workload = endpoint.workload.clone().filter(|_| identity.is_some());
        let name = dns_name.map(|dns_name| Arc::clone(&dns_name.name));
        let proxy_protocol = backend.policy.proxy_protocol.filter(|_| identity.is_none());
        (dial, endpoint.address, identity, workload, (tls, proxy_protocol), name)
    }

    /// A backend bound anew; its state is the `predecessor`'s.
    fn bind(
        &mut self,
        definition: &Backend,
        endpoints: Option<&Arc<Reached>>,
        predecessor: Option<&BoundBackend>,
    ) -> Arc<BoundBackend> {
        let ejection = ejection(definition, predecessor, self.now);
        let mut known = endpoints_with_health(predecessor.filter(|_| ejection.is_some()));
        let unresolved = endpoints.and_then(|endpoints| endpoints.unresolved.clone());
        self.work.endpoints += endpoints.map_or(0, |endpoints| endpoints.len());
        let list = endpoints.into_iter().flat_map(|endpoints| endpoints.list());
        let mut denied = None;
        let reached: Vec<_> = list
            .filter(|(endpoint, _)| facts::selects(&definition.labels, &endpoint.labels))
            .filter_map(|(endpoint, found)| {
                let dns_name = found.map(|found| &found.dns_name);
                let reach = self.reach(definition, endpoint, dns_name);
                let others = found.map_or(&[][..], |found| &*found.others);
                let target = self.targets.reach(reach, others, self.own, &mut self.work);
                let refusal = target.permit.as_ref().and_then(|permit| permit.denied());
                let is_permitted = refusal.is_none();
                denied = denied.take().or(refusal);
                is_permitted.then_some((endpoint, dns_name, target))
            })
            .collect();
        let Arranged { reached, groups, by_weight, left_out } = self.arrange(definition, reached);
        let before = predecessor.map(|before| &before.balancer);
        let balancer = Balancer::of_groups(&definition.policy, groups, by_weight, before, self.now);
        let (tells_peers, mut peers) = (self.metrics.tells_peers(), Vec::new());
        let is_measured = definition.policy.load_balancer == LoadBalancer::PeakEwma;
        let mut measured = is_measured.then(|| latencies(predecessor));
        let mut loads = loads(predecessor);
        let endpoints = reached.into_iter().enumerate().map(|(index, (endpoint, dns_name, target))| {
            let key = (endpoint.address, target.dial, endpoint.workload.as_ref());
            Arc::new(BoundEndpoint {
                peer: tells_peers.then(|| peer(endpoint, &target, &mut peers)).flatten(),
                target,
                address: endpoint.address,
                workload: endpoint.workload.clone(),
                place: endpoint.place.clone(),
                dns_name: dns_name.cloned(),
                health: known.remove(&key).unwrap_or_default(),
                ejection: ejection.clone(),
                latency: measured.as_mut().map(|measured| {
                    let known = measured.remove(&key);
                    known.unwrap_or_else(|| Arc::new(Latency::new(self.now)))
                }),
                load: balancer.total_of(index).map(|total| match loads.remove(&key) {
                    Some(known) if known.is_of(total) => known,
                    elsewhere => {
                        elsewhere.iter().for_each(|load| load.leave());
                        Arc::new(Load::new(total))
                    }
                }),
            })
        });
        let endpoints: Vec<_> = endpoints.collect();
        // They have left.
        loads.values().for_each(|load| load.leave());
        self.unmade.extend(balancer.unmade());
        if let Some(ejection) = &ejection {
            // They have left: what they were ejected for no longer counts against the cap.
            known.values().for_each(|health| ejection.forget(health));
            ejection.set_endpoints(balancer.len());
        }
        if let Some(ejection) = &ejection {
            // Nobody would ever find out that they are well again.
            let asks = definition.policy.health_check.is_some();
            let unasked = endpoints.iter().filter(|endpoint| !(asks && endpoint.target.is_outside()));
            unasked.for_each(|endpoint| ejection.checked(&endpoint.health, None, None));
        }
        let counts = predecessor.map(|before| Arc::clone(&before.counts)).unwrap_or_default();
        Arc::new(BoundBackend {
            name: definition.name.clone(),
            policy: definition.policy.clone(),
            broken: definition.broken.as_deref().map(Arc::from),
            unresolved,
            denied,
            endpoints,
            left_out,
            places: bind::Places::default(),
            balancer,
            in_tokens: stands_for(&definition.name),
            affinity: Affinity::of(&definition.policy.load_balancer),
            ejection,
            circuit: Circuit::new(&definition.policy, &counts),
            retry_budget: retry_budget(definition, predecessor, self.now),
            counts,
        })
    }
}

/// An endpoint, the name that its address was found by, and what connections to it reach.
type Found<'a> = (&'a Endpoint, Option<&'a Arc<DnsName>>, Arc<Target>);

/// The endpoints of a backend in the order of their groups; those that are never called come last.
struct Arranged<'a> {
    reached: Vec<Found<'a>>,
    groups: Vec<MemberGroup>,
    by_weight: bool,
    left_out: Option<LeftOut>,
}

impl BackendBinder<'_> {
    /// Arranges the endpoints of `backend` as its policy asks for our own place.
    fn arrange<'e>(&self, backend: &Backend, reached: Vec<Found<'e>>) -> Arranged<'e> {
        let located =
            |endpoint: &'e Endpoint| Located { place: endpoint.place.as_deref(), labels: &endpoint.labels };
        let places: Vec<_> = reached.iter().map(|(endpoint, ..)| located(endpoint)).collect();
        let Arrangement { by, groups, left_out, why } =
            arrange(&backend.policy.locality, self.here.located(), &places);
        let member = |index: &usize| {
            let (endpoint, ..) = reached.get(*index)?;
            Some(Member { address: endpoint.address, weight: endpoint.weight })
        };
        let members = groups.iter().map(|Group { key, weight, members }| MemberGroup {
            key: *key,
            weight: *weight,
            members: members.iter().filter_map(member).collect(),
        });
        let members = members.collect();
        let order = groups.iter().flat_map(|group| &group.members).chain(&left_out);
        let mut reached: Vec<Option<Found<'e>>> = reached.into_iter().map(Some).collect();
        Arranged {
            reached: order.filter_map(|index| reached.get_mut(*index)?.take()).collect(),
            groups: members,
            by_weight: by == By::Weight,
            left_out: why,
        }
    }
}

/// What an endpoint's state is kept by from one table to the next: where its app is, what is really dialled for it, which is
/// our own inbound listener if it is our own workload, and who is there. Another workload at the same address is another
/// endpoint.
type KeptBy<'a> = (SocketAddr, SocketAddr, Option<&'a WorkloadName>);

fn kept_by(endpoint: &BoundEndpoint) -> KeptBy<'_> {
    (endpoint.address, endpoint.target.dial, endpoint.workload.as_ref())
}

/// What metrics call `endpoint`, among the `peers` of its backend. `None`: it is no workload, or there are too many of them.
fn peer(endpoint: &Endpoint, target: &Target, peers: &mut Vec<Arc<Peer>>) -> Option<Arc<Peer>> {
    let workload = endpoint.workload.as_ref()?;
    let peer = Peer {
        namespace: workload.namespace().into(),
        naming: Naming::of(workload.name(), &endpoint.labels),
        principal: target.identity.as_ref().map(|identity| identity.as_str().into()).unwrap_or_default(),
    };
    if let Some(known) = peers.iter().find(|known| ***known == peer) {
        return Some(Arc::clone(known));
    }
    if peers.len() >= MOST_PEERS {
        return None;
    }
    let peer = Arc::new(peer);
    peers.push(Arc::clone(&peer));
    Some(peer)
}

/// What is known of each endpoint's answer times.
fn latencies(predecessor: Option<&BoundBackend>) -> HashMap<KeptBy<'_>, Arc<Latency>> {
    let endpoints = predecessor.map(|before| before.endpoints.as_slice()).unwrap_or_default();
    endpoints.iter().filter_map(|one| Some((kept_by(one), Arc::clone(one.latency.as_ref()?)))).collect()
}

/// What is in flight with each endpoint.
fn loads(predecessor: Option<&BoundBackend>) -> HashMap<KeptBy<'_>, Arc<Load>> {
    let endpoints = predecessor.map(|before| before.endpoints.as_slice()).unwrap_or_default();
    endpoints.iter().filter_map(|one| Some((kept_by(one), Arc::clone(one.load.as_ref()?)))).collect()
}

/// The backend's ejections: those that it had, under the settings that it has now.
fn ejection(definition: &Backend, predecessor: Option<&BoundBackend>, now: Instant) -> Option<Arc<Ejection>> {
    let Backend { policy, .. } = definition;
    let settings = match (&policy.outlier_detection, &policy.health_check) {
        (Some(settings), _) => settings.clone(),
        (None, Some(_)) => Ejection::by_checks_alone(),
        (None, None) => return None,
    };
    match predecessor.and_then(|before| before.ejection.as_ref()) {
        Some(before) if *before.settings() == settings => Some(Arc::clone(before)),
        Some(before) => Some(Arc::new(before.with_settings(settings))),
        None => Some(Arc::new(Ejection::new(settings, now))),
    }
}

/// The backend's retry budget: what was counted goes on under the settings that it has now.
fn retry_budget(
    definition: &Backend,
    predecessor: Option<&BoundBackend>,
    now: Instant,
) -> Option<Arc<RetryBudget>> {
    let policy = definition.policy.retry_budget.as_ref()?;
    match predecessor.and_then(|before| before.retry_budget.as_ref()) {
        Some(before) if before.is_of(policy) => Some(Arc::clone(before)),
        before => Some(Arc::new(RetryBudget::of_policy(policy, before.map(|before| &**before), now))),
    }
}

/// Each endpoint's health, if it belongs to ejections that go on.
fn endpoints_with_health(predecessor: Option<&BoundBackend>) -> HashMap<KeptBy<'_>, Arc<Health>> {
    let before = predecessor.filter(|before| before.ejection.is_some());
    let endpoints = before.map(|before| before.endpoints.as_slice()).unwrap_or_default();
    endpoints.iter().map(|one| (kept_by(one), Arc::clone(&one.health))).collect()
}
