//! Binds backends to the endpoints that they select, and to the state that belongs to their names.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Instant};

use selvedge_model::{
    Backend, BackendName, Endpoint, LoadBalancer, TlsOrigination, WorkloadName, facts,
    locality::{Arrangement, By, Group, LeftOut, Located, arrange},
    naming::Naming,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    inputs::{Entry, Here, Inputs, same},
    targets::{Reach, Targets, Tls, Work},
};
use crate::{
    balance::{
        Balancer, Circuit, Counts, Ejection, Health, Latency, Load, Member, MemberGroup, Total, Unmade,
    },
    bind::{self, Affinity, BoundBackend, BoundEndpoint, Denied, Rules, Target, stands_for},
    budget::RetryBudget,
    dns::{self, DnsName, Reached},
    telemetry::{Metrics, Peer},
};

/// How many workloads, by what people call them, metrics tell apart behind one backend.
const MOST_PEERS: usize = 16;

/// In [`BoundBackend::listed`]: an endpoint of the list that the backend has not.
const NOT_BOUND: u32 = u32::MAX;

/// A backend, and what it was made of.
#[derive(Clone)]
pub(super) struct Place<'a> {
    definition: &'a Backend,
    endpoints: Option<&'a Arc<Reached>>,
    bound: Arc<BoundBackend>,
}

impl Place<'_> {
    /// Whether an endpoint that has not changed is bound for `definition` as it is here.
    fn is_as(&self, definition: &Backend) -> bool {
        self.definition == definition && self.bound.denied.is_none()
    }

    /// How many endpoints it has.
    pub(super) fn endpoints(&self) -> usize {
        self.bound.endpoints.len()
    }
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
    /// Whom our workload may call.
    pub(super) rules: &'a Rules,
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
            place => self.bind(definition, endpoints, place.as_ref()),
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

    /// `endpoint`, if it is one of this backend's and may be called. If it may not, `denied` says why.
    fn find<'e>(
        &mut self,
        definition: &Backend,
        endpoint: &'e Endpoint,
        by_name: Option<&'e dns::Found>,
        place: Option<usize>,
        denied: &mut Option<Denied>,
    ) -> Option<Found<'e>> {
        self.work.endpoints += 1;
        if !facts::selects(&definition.labels, &endpoint.labels) {
            return None;
        }
        let dns_name = by_name.map(|found| &found.dns_name);
        let reach = self.reach(definition, endpoint, dns_name);
        let others = by_name.map_or(&[][..], |found| &*found.others);
        let target = self.targets.reach(reach, others, self.own, &mut self.work);
        let refusal = target.permit.as_ref().and_then(|permit| permit.denied_by(self.rules));
        let is_permitted = refusal.is_none();
        *denied = denied.take().or(refusal);
        is_permitted.then_some(Found { place, endpoint, dns_name, target, bound: None })
    }

    /// A backend bound anew; its state is that of the backend `before`. What of its endpoints has not changed is not even
    /// looked at.
    fn bind(
        &mut self,
        definition: &Backend,
        endpoints: Option<&'a Arc<Reached>>,
        before: Option<&Place<'a>>,
    ) -> Arc<BoundBackend> {
        let predecessor = before.map(|before| &*before.bound);
        let ejection = ejection(definition, predecessor, self.now);
        let unresolved = endpoints.and_then(|endpoints| endpoints.unresolved.clone());
        let known = before.filter(|before| !self.everything_changed && before.is_as(definition));
        let mut successors = Successors::of(known, predecessor, endpoints);
        let with_addresses = endpoints.map_or(&[][..], |endpoints| endpoints.with_addresses());
        let mut denied = None;
        let mut found: Vec<Found<'_>> = Vec::with_capacity(endpoints.map_or(0, |endpoints| endpoints.len()));
        for (place, endpoint) in with_addresses.iter().enumerate() {
            match successors.take(place, endpoint) {
                Known::Bound(bound) => {
                    let target = Arc::clone(&bound.target);
                    found.push(Found {
                        place: Some(place),
                        endpoint,
                        dns_name: None,
                        target,
                        bound: Some(bound),
                    });
                }
                Known::Other => {}
                Known::No => {
                    found.extend(self.find(definition, endpoint, None, Some(place), &mut denied));
                }
            }
        }
        for (endpoint, by_name) in endpoints.map_or(&[][..], |endpoints| endpoints.resolved()) {
            found.extend(self.find(definition, endpoint, Some(by_name), None, &mut denied));
        }
        let Arranged { reached, groups, by_weight, left_out, as_listed } = self.arrange(definition, found);
        let are_sorted = as_listed && endpoints.is_some_and(|endpoints| endpoints.are_sorted());
        let balancer = Balancer::of_groups(
            &definition.policy,
            groups,
            by_weight,
            predecessor.map(|before| &before.balancer),
            self.now,
        );
        let mut listed = vec![NOT_BOUND; with_addresses.len()];
        for (index, place) in reached.iter().enumerate().filter_map(|(index, one)| Some((index, one.place?)))
        {
            listed[place] = u32::try_from(index).unwrap_or(NOT_BOUND);
        }
        let counts = predecessor.map(|before| Arc::clone(&before.counts)).unwrap_or_default();
        let tells_peers = self.metrics.tells_peers();
        let shares = !tells_peers || Peers::leave_room(predecessor);
        let mut state = EndpointState {
            shares,
            peers: tells_peers.then(|| if shares { Peers::of(&reached) } else { Peers(Vec::new()) }),
            left: successors.left(),
            keeps_health: ejection.is_some() && predecessor.is_some_and(|before| before.ejection.is_some()),
            is_measured: definition.policy.load_balancer == LoadBalancer::PeakEwma,
            asks: definition.policy.health_check.is_some(),
            counts: &counts,
            ejection: ejection.as_ref(),
            now: self.now,
        };
        let endpoints = reached.into_iter().enumerate();
        let endpoints = endpoints.map(|(index, found)| state.bind(found, balancer.total_of(index)));
        let endpoints: Vec<_> = endpoints.collect();
        self.targets.left(state.left.len());
        state.leave();
        self.unmade.extend(balancer.unmade());
        if let Some(ejection) = &ejection {
            ejection.set_endpoints(balancer.len());
        }
        Arc::new(BoundBackend {
            name: definition.name.clone(),
            policy: definition.policy.clone(),
            broken: definition.broken.as_deref().map(Arc::from),
            unresolved,
            denied,
            places: bind::Places::of(&endpoints, are_sorted),
            endpoints,
            listed: listed.into(),
            left_out,
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

/// An endpoint that is found to belong to a backend.
struct Found<'a> {
    /// Where it is in the list of those that have addresses of their own.
    place: Option<usize>,
    endpoint: &'a Endpoint,
    /// The name that its address was found by.
    dns_name: Option<&'a Arc<DnsName>>,
    /// What connections to it reach.
    target: Arc<Target>,
    /// The very same endpoint, as it was bound before.
    bound: Option<&'a Arc<BoundEndpoint>>,
}

/// The endpoints of a backend in the order of their groups; those that are never called come last.
struct Arranged<'a> {
    reached: Vec<Found<'a>>,
    groups: Vec<MemberGroup>,
    by_weight: bool,
    left_out: Option<LeftOut>,
    /// Whether they are in the order in which they are listed.
    as_listed: bool,
}

impl BackendBinder<'_> {
    /// Arranges the endpoints of `backend` as its policy asks for our own place.
    fn arrange<'e>(&self, backend: &Backend, reached: Vec<Found<'e>>) -> Arranged<'e> {
        let located =
            |endpoint: &'e Endpoint| Located { place: endpoint.place.as_deref(), labels: &endpoint.labels };
        let places: Vec<_> = reached.iter().map(|found| located(found.endpoint)).collect();
        let Arrangement { by, groups, left_out, why } =
            arrange(&backend.policy.locality, self.here.located(), &places);
        let warms_up = backend.policy.warmup.is_some();
        let member = |index: &usize| {
            let Found { endpoint, .. } = reached.get(*index)?;
            Some(Member {
                address: endpoint.address,
                weight: endpoint.weight,
                occupant: if warms_up { occupant(endpoint.workload.as_ref()) } else { 0 },
            })
        };
        let members = groups.iter().map(|Group { key, weight, members }| MemberGroup {
            key: *key,
            weight: *weight,
            members: members.iter().filter_map(member).collect(),
        });
        let members = members.collect();
        let by_weight = by == By::Weight;
        if groups.len() == 1 && left_out.is_empty() {
            return Arranged { reached, groups: members, by_weight, left_out: why, as_listed: true };
        }
        let order = groups.iter().flat_map(|group| &group.members).chain(&left_out);
        let mut reached: Vec<Option<Found<'e>>> = reached.into_iter().map(Some).collect();
        let reached = order.filter_map(|index| reached.get_mut(*index)?.take()).collect();
        Arranged { reached, groups: members, by_weight, left_out: why, as_listed: false }
    }
}

/// What an endpoint's state is kept by from one table to the next: where its app is, what is really dialled for it, which is
/// our own inbound listener if it is our own workload, and who is there. Another workload at the same address is another
/// endpoint.
type KeptBy<'a> = (SocketAddr, SocketAddr, Option<&'a WorkloadName>);

fn kept_by(endpoint: &BoundEndpoint) -> KeptBy<'_> {
    (endpoint.address, endpoint.target.dial, endpoint.workload.as_ref())
}

/// What stands for who is at an address, where only that is asked.
fn occupant(workload: Option<&WorkloadName>) -> u64 {
    let Some(workload) = workload else { return 0 };
    let name = xxh3_64(workload.name().as_bytes());
    xxh3_64_with_seed(workload.namespace().as_bytes(), name)
}

/// The endpoints of the backend before, for those that are bound now.
struct Successors<'a> {
    /// The backend, and where its service's list has what it had; if it is bound as it was then.
    known: Option<(&'a BoundBackend, Moved)>,
    predecessor: Option<&'a BoundBackend>,
    /// Which of its endpoints go on as they are.
    taken: Vec<bool>,
}

/// What is known of an endpoint of a list.
enum Known<'a> {
    /// It is bound already.
    Bound(&'a Arc<BoundEndpoint>),
    /// It is none of this backend's.
    Other,
    /// Nothing.
    No,
}

impl<'a> Successors<'a> {
    fn of<'p: 'a>(
        known: Option<&'a Place<'p>>,
        predecessor: Option<&'a BoundBackend>,
        endpoints: Option<&'a Arc<Reached>>,
    ) -> Self {
        let known = known.and_then(|before| {
            let moved = Moved::between(before.endpoints?.with_addresses(), endpoints?.with_addresses());
            Some((&*before.bound, moved))
        });
        let taken = vec![false; predecessor.map_or(0, |before| before.endpoints.len())];
        Self { known, predecessor, taken }
    }

    /// What is known of the `endpoint` at this place of the list.
    fn take(&mut self, place: usize, endpoint: &Arc<Endpoint>) -> Known<'a> {
        let Some((backend, before)) =
            self.known.as_ref().and_then(|(backend, moved)| Some((*backend, moved.from(place, endpoint)?)))
        else {
            return Known::No;
        };
        let index = backend.listed.get(before).map_or(usize::MAX, |index| *index as usize);
        match (backend.endpoints.get(index), self.taken.get_mut(index)) {
            (Some(bound), Some(taken)) => {
                *taken = true;
                Known::Bound(bound)
            }
            _ => Known::Other,
        }
    }

    /// Those that nothing has taken.
    fn left(self) -> Left<'a> {
        let endpoints = self.predecessor.map(|before| before.endpoints.as_slice()).unwrap_or_default();
        let left = endpoints.iter().zip(self.taken).filter(|(_, taken)| !taken);
        Left::of(left.map(|(endpoint, _)| endpoint))
    }
}

/// Endpoints before, by what their state is kept by. Several names may lead to one address: each of them has its own.
#[derive(Default)]
struct Left<'a> {
    first: HashMap<KeptBy<'a>, &'a Arc<BoundEndpoint>>,
    /// Those that another one stands before, the last first.
    others: HashMap<KeptBy<'a>, Vec<&'a Arc<BoundEndpoint>>>,
}

impl<'a> Left<'a> {
    fn of(endpoints: impl DoubleEndedIterator<Item = &'a Arc<BoundEndpoint>>) -> Self {
        let mut left = Self::default();
        for endpoint in endpoints.rev() {
            if let Some(later) = left.first.insert(kept_by(endpoint), endpoint) {
                left.others.entry(kept_by(endpoint)).or_default().push(later);
            }
        }
        left
    }

    /// How many there are.
    fn len(&self) -> usize {
        self.first.len() + self.others.values().map(Vec::len).sum::<usize>()
    }

    fn iter(&self) -> impl Iterator<Item = &'a Arc<BoundEndpoint>> {
        self.first.values().chain(self.others.values().flatten()).copied()
    }

    /// The first of those that are kept by `key`, which is taken.
    fn take(&mut self, key: &KeptBy<'a>) -> Option<&'a Arc<BoundEndpoint>> {
        self.first.remove(key).or_else(|| self.others.get_mut(key)?.pop())
    }
}

/// Where a list has what the list before had, by what both share.
struct Moved {
    before: usize,
    now: usize,
    /// So many are the same at the begin, and at the end.
    begin: usize,
    end: usize,
    /// Where those between were.
    between: HashMap<*const Endpoint, usize>,
}

impl Moved {
    fn between(before: &[Arc<Endpoint>], now: &[Arc<Endpoint>]) -> Self {
        let is_same = |(one, other): &(&Arc<Endpoint>, &Arc<Endpoint>)| Arc::ptr_eq(one, other);
        let begin = before.iter().zip(now).take_while(is_same).count();
        let (old, new) = (&before[begin..], &now[begin..]);
        let end = old.iter().rev().zip(new.iter().rev()).take_while(is_same).count();
        let old = if new.len() > end { &old[..old.len() - end] } else { &[] };
        let between = old.iter().enumerate().map(|(place, one)| (Arc::as_ptr(one), begin + place)).collect();
        Self { before: before.len(), now: now.len(), begin, end, between }
    }

    /// Where the `endpoint` that is at `place` now was before.
    fn from(&self, place: usize, endpoint: &Arc<Endpoint>) -> Option<usize> {
        if place < self.begin {
            Some(place)
        } else if place + self.end >= self.now {
            Some(place + self.before - self.now)
        } else {
            self.between.get(&Arc::as_ptr(endpoint)).copied()
        }
    }
}

/// What endpoints are bound to, one after the other.
struct EndpointState<'a> {
    /// Whether what has not changed is shared with the table before.
    shares: bool,
    /// `None`: metrics do not tell them apart.
    peers: Option<Peers>,
    /// Those before that do not go on as they are.
    left: Left<'a>,
    /// Whether ejections go on.
    keeps_health: bool,
    /// Whether answer times are.
    is_measured: bool,
    /// Whether servers outside the mesh are asked whether they are well.
    asks: bool,
    counts: &'a Arc<Counts>,
    ejection: Option<&'a Arc<Ejection>>,
    now: Instant,
}

impl<'a> EndpointState<'a> {
    /// `found`, which counts what it has in flight in `total`, if so. It is the very one from before if that is the same.
    fn bind(&mut self, found: Found<'a>, total: Option<&Arc<Total>>) -> Arc<BoundEndpoint> {
        let Found { endpoint, dns_name, target, bound, .. } = found;
        if let Some(bound) = bound
            && self.shares
            && bound
                .load
                .as_ref()
                .map_or(total.is_none(), |load| total.is_some_and(|total| load.is_of(total)))
        {
            return Arc::clone(bound);
        }
        let key = (endpoint.address, target.dial, endpoint.workload.as_ref());
        let before = bound.or_else(|| self.left.take(&key));
        let health = before.filter(|_| self.keeps_health).map(|before| Arc::clone(&before.health));
        let health = health.unwrap_or_else(|| {
            let health = Health::new();
            health.tell(target.flight.begun());
            Arc::new(health)
        });
        if let Some(ejection) = self.ejection.filter(|_| !(self.asks && target.is_outside())) {
            // Nobody would ever find out that it is well again.
            ejection.checked(&health, None, None);
        }
        let latency = before.and_then(|before| before.latency.as_ref());
        let latency = self.is_measured.then(|| match latency {
            Some(known) => Arc::clone(known),
            None => Arc::new(Latency::new(self.now)),
        });
        let load = before.and_then(|before| before.load.as_ref());
        let kept =
            load.zip(total).filter(|(load, total)| load.is_of(total)).map(|(load, _)| Arc::clone(load));
        if kept.is_none() {
            load.into_iter().for_each(|elsewhere| elsewhere.leave());
        }
        Arc::new(BoundEndpoint {
            peer: self.peers.as_mut().and_then(|peers| peers.of_endpoint(endpoint, &target)),
            target,
            address: endpoint.address,
            workload: endpoint.workload.clone(),
            place: endpoint.place.clone(),
            dns_name: dns_name.cloned(),
            health,
            counts: Arc::clone(self.counts),
            ejection: self.ejection.cloned(),
            latency,
            load: kept.or_else(|| total.map(|total| Arc::new(Load::new(total)))),
        })
    }

    /// The rest has left: what they have in flight and what they were ejected for no longer counts.
    fn leave(self) {
        for endpoint in self.left.iter() {
            endpoint.load.iter().for_each(|load| load.leave());
            if let Some(ejection) = self.ejection.filter(|_| self.keeps_health) {
                ejection.forget(&endpoint.health);
            }
        }
    }
}

/// What metrics call the endpoints of a backend; at most [`MOST_PEERS`].
struct Peers(Vec<Arc<Peer>>);

impl Peers {
    /// As endpoints that go on are called.
    fn of(found: &[Found<'_>]) -> Self {
        let mut peers: Vec<Arc<Peer>> = Vec::new();
        for peer in found.iter().filter_map(|found| found.bound?.peer.as_ref()) {
            if !peers.iter().any(|known| Arc::ptr_eq(known, peer)) {
                peers.push(Arc::clone(peer));
            }
        }
        Self(peers)
    }

    /// Whether all workloads of the backend `before` are told apart. If not, there may be room now for those that were not.
    fn leave_room(before: Option<&BoundBackend>) -> bool {
        let mut peers: Vec<&Arc<Peer>> = Vec::new();
        let endpoints = before.map(|before| before.endpoints.as_slice()).unwrap_or_default();
        for peer in endpoints.iter().filter_map(|endpoint| endpoint.peer.as_ref()) {
            if !peers.iter().any(|known| Arc::ptr_eq(known, peer)) {
                peers.push(peer);
            }
        }
        peers.len() < MOST_PEERS
    }

    fn is_full(&self) -> bool {
        self.0.len() >= MOST_PEERS
    }

    /// What `endpoint` is called. `None`: it is no workload, or there are too many of them.
    fn of_endpoint(&mut self, endpoint: &Endpoint, target: &Target) -> Option<Arc<Peer>> {
        let workload = endpoint.workload.as_ref()?;
        let peer = Peer {
            namespace: workload.namespace().into(),
            naming: Naming::of(workload.name(), &endpoint.labels),
            principal: target.identity.as_ref().map(|identity| identity.as_str().into()).unwrap_or_default(),
        };
        if let Some(known) = self.0.iter().find(|known| ***known == peer) {
            return Some(Arc::clone(known));
        }
        if self.is_full() {
            return None;
        }
        let peer = Arc::new(peer);
        self.0.push(Arc::clone(&peer));
        Some(peer)
    }
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
