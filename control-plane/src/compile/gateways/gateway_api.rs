//! The Gateway API: `Gateway`s with the routes that are attached to them.
//!
//! The virtual hosts of a listener are the host names that it has in common with its routes, each with the rules of the
//! routes that have exactly that one. A request whose host has no rule for it is not tried with a wildcard that has the
//! host, too: that is how all implementations do it.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_model::{
    Layer,
    gateway::{Carries, Hostname, ListenerTls},
};

use super::{
    super::{
        Problems,
        grants::{Grants, Named},
        network::NamespaceLabels,
        parent_field,
        routes::report_repeated,
    },
    HolderFacts, WantedFrom,
    attach::{AtListener, Attaching},
    copies::Copies,
    draft::{Draft, NewListener},
    holders::{GatewayName, Holder, Holders, Standing, is_ours},
    overlaps::overlaps,
    terminate::{Ending, Secrets, add_all_wanted, termination, to_backends},
};
use crate::{
    problem::{Detached, DocumentName, Fault, ListenerFault, Problem, Severity},
    resources::{
        Document, GatewaySpec, HttpRouteSpec, Resources, TcpRouteSpec,
        gateway::{ListenerProtocol, ListenerSpec},
        http_route::LINKERDS,
        references::{BackendRef, Parent},
    },
};

type Gateway = Document<GatewaySpec>;

/// Every `Gateway` that is ours, with its `ListenerSet`s and the routes of both.
#[derive(Debug)]
pub(super) struct GatewayApi<'a> {
    holders: Holders<'a>,
    /// For each holder of listeners of each gateway the routes of each listener.
    routes: BTreeMap<GatewayName<'a>, Vec<Vec<Routes<'a>>>>,
}

/// The routes of one listener, oldest first.
#[derive(Debug, Default)]
struct Routes<'a> {
    http: Vec<AtListener<'a, HttpRouteSpec>>,
    tcp: Vec<AtListener<'a, TcpRouteSpec>>,
}

/// What routes for requests and for connections have in common.
trait Attachable: Sized {
    fn gateways(&self) -> &[Parent];
    fn names(&self) -> &[Hostname];
    /// Those of this kind at a listener.
    fn among<'r, 'a>(routes: &'r mut Routes<'a>) -> &'r mut Vec<AtListener<'a, Self>>;
}

impl Attachable for HttpRouteSpec {
    fn gateways(&self) -> &[Parent] {
        &self.parents.gateways
    }

    fn names(&self) -> &[Hostname] {
        &self.hostnames
    }

    fn among<'r, 'a>(routes: &'r mut Routes<'a>) -> &'r mut Vec<AtListener<'a, Self>> {
        &mut routes.http
    }
}

impl Attachable for TcpRouteSpec {
    fn gateways(&self) -> &[Parent] {
        &self.parents.gateways
    }

    fn names(&self) -> &[Hostname] {
        &self.names
    }

    fn among<'r, 'a>(routes: &'r mut Routes<'a>) -> &'r mut Vec<AtListener<'a, Self>> {
        &mut routes.tcp
    }
}

impl<'a> GatewayApi<'a> {
    pub(super) fn new(resources: &'a Resources, problems: &mut Problems) -> Self {
        let namespaces = NamespaceLabels::new(resources);
        let holders = Holders::new(resources, &namespaces, problems);
        let none = |holder: &Holder<'a>| holder.listeners().iter().map(|_| Routes::default()).collect();
        let routes =
            holders.gateways.iter().map(|(name, list)| (*name, list.iter().map(none).collect())).collect();
        let mut api = Self { holders, routes };
        let mut copies = Copies::default();
        for route in &resources.http_routes {
            api.attach(route, &namespaces, &mut copies, problems);
        }
        for route in &resources.tcp_routes {
            api.attach(route, &namespaces, &mut copies, problems);
        }
        api
    }

    /// The namespace and name of each.
    pub(super) fn names(&self) -> impl Iterator<Item = GatewayName<'a>> + use<'_, 'a> {
        self.holders.gateways.keys().copied()
    }

    /// Each Service that a route attached to a gateway sends to, and may name, and that gateway: the namespace and name of both.
    pub(super) fn services(&self, grants: &Grants<'_>) -> Vec<(GatewayName<'a>, GatewayName<'a>)> {
        let mut services = Vec::new();
        for (gateway, holders) in &self.routes {
            let mut add = |route: &'a DocumentName, backend: &'a BackendRef| {
                let namespace = backend.namespace.as_deref().unwrap_or(&route.namespace);
                let named = Named { group: "", kind: "Service", namespace, name: &backend.name };
                if backend.is_service() && grants.permit(route, named) {
                    services.push(((namespace, backend.name.as_str()), *gateway));
                }
            };
            for routes in holders.iter().flatten() {
                for at in &routes.http {
                    let backends = at.route.spec.rules.iter().flat_map(|rule| &rule.backends);
                    backends.for_each(|backend| add(&at.route.name, &backend.to));
                }
                for at in &routes.tcp {
                    at.route.spec.backends.iter().for_each(|backend| add(&at.route.name, backend));
                }
            }
        }
        services
    }

    /// How many routes are attached to each listener, and what its TLS overlaps with.
    pub(super) fn attached(&self, resources: &Resources) -> BTreeMap<DocumentName, HolderFacts> {
        let grants = Grants::new(resources);
        let secrets = resources.secrets.iter();
        let secrets: Secrets<'_> =
            secrets.map(|one| ((&*one.name.namespace, &*one.name.name), &one.spec)).collect();
        let of_gateway = |(name, holders): (&GatewayName<'a>, &Vec<Holder<'a>>)| {
            (*name, overlaps(holders, &secrets, &grants))
        };
        let mut overlaps: BTreeMap<GatewayName<'a>, _> =
            self.holders.gateways.iter().map(of_gateway).collect();
        let counts = |gateway: &GatewayName<'a>, place: usize| -> Vec<usize> {
            self.routes[gateway][place].iter().map(|one| one.http.len() + one.tcp.len()).collect()
        };
        let facts = self.holders.asking().filter_map(|((kind, namespace, name), standing)| {
            let (gateway, routes, overlaps) = match standing {
                Standing::Ours(gateway, place) => {
                    let overlaps = overlaps.get_mut(&gateway).map(|all| std::mem::take(&mut all[place]));
                    (gateway, Some(counts(&gateway, place)), overlaps.unwrap_or_default())
                }
                Standing::NotAllowed(gateway) => (gateway, None, Vec::new()),
                Standing::Others => return None,
            };
            let name = DocumentName { kind: kind.into(), namespace: namespace.into(), name: name.into() };
            let gateway = (gateway.0.into(), gateway.1.into());
            Some((name, HolderFacts { gateway, routes, overlaps }))
        });
        facts.collect()
    }

    /// Whether a document says what the gateway in `seat` serves, and whose routes.
    pub(super) fn has(&self, seat: &super::seats::Seat<'_>) -> bool {
        self.holders.gateways.contains_key(&(seat.namespace, seat.name))
    }

    /// Adds the listeners of the gateway that `draft` is of.
    pub(super) fn add_to(&self, draft: &mut Draft<'_>, problems: &mut Problems) {
        let seat = draft.seat;
        let Some((name, holders)) = self.holders.gateways.get_key_value(&(seat.namespace, seat.name)) else {
            return;
        };
        let Some(Holder::Gateway(gateway)) = holders.first().copied() else { return };
        if seat.workloads.is_empty() && gateway.location.path.is_some() {
            let message = format!(
                "no workload is this gateway, so nobody serves it; add a WorkloadEntry in the namespace {} with the \
                 annotation config.selvedge.io/gateway: {}/{}",
                seat.namespace, seat.namespace, seat.name
            );
            problems.warning(gateway, "", message);
        }
        draft.to_backends = to_backends(gateway, draft, problems);
        for (holder, routes) in holders.iter().zip(&self.routes[name]) {
            for (listener, routes) in holder.listeners().iter().zip(routes) {
                add_listener(Ending { holder: *holder, gateway, listener }, routes, draft, problems);
            }
        }
    }

    /// Attaches `route` to the listeners that it names.
    fn attach<T: Attachable>(
        &mut self,
        route: &'a Document<T>,
        namespaces: &NamespaceLabels<'a>,
        copies: &mut Copies<'a>,
        problems: &mut Problems,
    ) {
        let mut places = Vec::new();
        let attaching = Attaching { route, hostnames: route.spec.names(), namespaces };
        let mut named = BTreeSet::new();
        for parent in route.spec.gateways() {
            let field = parent_field(parent.index);
            let fault = |why| Fault::Parent { index: parent.index, why };
            if &*route.name.kind == LINKERDS {
                let message = "is not acted on: a Gateway is a parent of routes of gateway.networking.k8s.io";
                problems.add(route.problem(Severity::NotActedOn, &field, message));
                continue;
            }
            let namespace = parent.namespace.as_deref().unwrap_or(&route.name.namespace);
            let is_new =
                named.insert((parent.kind, namespace, &parent.name, parent.port, parent.section.as_deref()));
            if !is_new {
                problems.fault(route, &field, "is given twice; keep one", fault(Detached::GivenTwice));
                continue;
            }
            let (kind, name) = (parent.kind, &parent.name);
            match self.holders.find(kind, namespace, name) {
                None => {
                    let message =
                        format!("there is no {kind} {namespace}/{name}; add it or correct the name");
                    problems.fault(route, &field, message, fault(Detached::NoSuchParent));
                }
                Some(Standing::Others) => {}
                Some(Standing::NotAllowed((at, gateway))) => {
                    let message = format!(
                        "{kind} {namespace}/{name} is not attached: Gateway {at}/{gateway} does not allow it; change \
                         the gateway's spec.allowedListeners"
                    );
                    problems.fault(route, &field, message, fault(Detached::NoSuchParent));
                }
                Some(Standing::Ours(gateway, place)) => {
                    let holder = self.holders.gateways[&gateway][place];
                    let attached = attaching.attach(holder, parent, problems).into_iter();
                    places.extend(attached.map(|(listener, at)| ((gateway, place, listener), at)));
                }
            }
        }
        self.attach_at(route, places, copies, problems);
    }

    /// Attaches `route` at these listeners of holders, if its namespace has room for it at all of them.
    fn attach_at<T: Attachable>(
        &mut self,
        route: &'a Document<T>,
        places: Vec<((GatewayName<'a>, usize, usize), AtListener<'a, T>)>,
        copies: &mut Copies<'a>,
        problems: &mut Problems,
    ) {
        let times = places.iter().map(|(_, at)| at.hostnames.len()).sum();
        if let Err(why) = copies.take(route, times) {
            let parents: BTreeSet<usize> = places.iter().map(|(_, at)| at.parent).collect();
            for index in parents {
                let fault = Fault::Parent { index, why: Detached::TooLarge };
                problems.fault(route, &parent_field(index), format!("is not attached: {why}"), fault);
            }
            return;
        }
        for ((gateway, place, listener), at) in places {
            let Some(routes) = self.routes.get_mut(&gateway) else { continue };
            let here = T::among(&mut routes[place][listener]);
            if !here.last().is_some_and(|other| std::ptr::eq(other.route, route)) {
                here.push(at);
            }
        }
    }
}

/// Those that are ours, in the order of the documents.
pub(super) fn ours(resources: &Resources) -> impl Iterator<Item = &Gateway> {
    resources.gateways.iter().map(|gateway| &**gateway).filter(|gateway| is_ours(resources, gateway))
}

/// The listeners of each gateway that is ours, with those of its `ListenerSet`s.
pub(super) fn ours_with_listeners(resources: &Resources) -> Vec<(&Gateway, Vec<&ListenerSpec>)> {
    let namespaces = NamespaceLabels::new(resources);
    let holders = Holders::new(resources, &namespaces, &mut Problems::default());
    let of = |gateway: &Gateway| {
        let holders = holders.gateways.get(&(&*gateway.name.namespace, &*gateway.name.name));
        holders.into_iter().flatten().flat_map(|holder| holder.listeners()).collect()
    };
    ours(resources).map(|gateway| (gateway, of(gateway))).collect()
}

/// Adds what the gateways that are ours name, may name, and that nobody lists.
pub(super) fn add_wanted<'a>(resources: &'a Resources, all: &mut WantedFrom<'a>) {
    let namespaces = NamespaceLabels::new(resources);
    let holders = Holders::new(resources, &namespaces, &mut Problems::default());
    add_all_wanted(&holders, resources, all);
}

/// Adds the listener of `ending` with its routes.
fn add_listener(ending: Ending<'_>, routes: &Routes<'_>, draft: &mut Draft<'_>, problems: &mut Problems) {
    let Ending { holder, listener, .. } = ending;
    let field = format!("spec.listeners[{}]", listener.index);
    let (carries, tls) = match &listener.protocol {
        ListenerProtocol::Http => (Carries::Http, None),
        ListenerProtocol::Tls if listener.tls.passthrough => (Carries::Tls, Some(ListenerTls::Passthrough)),
        ListenerProtocol::Https | ListenerProtocol::Tls => {
            (Carries::Tls, Some(ListenerTls::Terminate(termination(ending, draft, problems))))
        }
        ListenerProtocol::Tcp => (Carries::Tcp, None),
        ListenerProtocol::Other(word) => {
            let message = format!("{word:?} is not served; use HTTP, HTTPS, TLS or TCP");
            let why = ListenerFault::UnsupportedProtocol;
            return problems.add(holder.error(&format!("{field}.protocol"), message, why));
        }
    };
    let comes = if tls == Some(ListenerTls::Passthrough) { Layer::Tls } else { Layer::Tcp };
    let seat = draft.seat;
    let place = draft.listen(NewListener {
        name: format!("{} {}", holder.name(), listener.name),
        key: holder.key(seat.namespace, seat.name, &listener.name),
        port: listener.port,
        carries,
        hostname: listener.hostname.clone(),
        tls,
        written: Problem { fault: Fault::Between, ..holder.error(&field, "", ListenerFault::SameHostname) },
        with: Vec::new(),
        has_equal_siblings: true,
    });
    let mut first: BTreeMap<String, &AtListener<'_, HttpRouteSpec>> = BTreeMap::new();
    for at in &routes.http {
        for common in &at.hostnames {
            first.entry(common.hostname.to_string()).or_insert(at);
        }
    }
    let mut equal: BTreeMap<(String, u32), Vec<&Document<HttpRouteSpec>>> = BTreeMap::new();
    for (hostname, tier, at) in AtListener::by_own_hostnames(&routes.http) {
        let decides = first.get(&hostname.to_string()).copied().unwrap_or(at);
        if add_route(place, (hostname, tier), (at, decides), draft, problems) {
            equal.entry((hostname.to_string(), tier)).or_default().push(at.route);
        }
    }
    for ((hostname, _), routes) in equal {
        report_repeated(
            &routes,
            format_args!("{} {} for {hostname}", holder.name(), listener.name),
            problems,
        );
    }
    add_connections(place, (&routes.tcp, comes), draft, problems);
}

/// Adds routes for connections to the listener at `place`. Of several for one name, the one counts whose own host name is the most
/// specific, and of these the oldest.
fn add_connections(
    place: usize,
    (routes, comes): (&[AtListener<'_, TcpRouteSpec>], Layer),
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) {
    let mut first: BTreeMap<String, &AtListener<'_, TcpRouteSpec>> = BTreeMap::new();
    for (hostname, _, at) in AtListener::by_own_hostnames(routes) {
        let decides = *first.entry(hostname.to_string()).or_insert(at);
        if !std::ptr::eq(decides, at) {
            let message = format!(
                "has no effect for {hostname}: {} ({}) decides there; give one of them another listener or hostname",
                decides.route.name, decides.route.location
            );
            problems.overruled_at(at.route, at.parent, message);
            continue;
        }
        problems.decides(at.route, at.parent);
        let host = draft.host(place, hostname);
        let rule = host.backends.gateway_tcp_rule(at.route, comes, problems);
        host.tcp.push(rule);
    }
}

/// Adds the rules of a route for `hostname` to the listener at `place`, in their tier, and says whether they count. Of HTTPRoutes and
/// GRPCRoutes for one host name, those of the kind of the oldest route `decides` do (GRPCRoute `spec`).
fn add_route(
    place: usize,
    (hostname, tier): (&Hostname, u32),
    (at, decides): (&AtListener<'_, HttpRouteSpec>, &AtListener<'_, HttpRouteSpec>),
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) -> bool {
    if at.route.spec.is_grpc != decides.route.spec.is_grpc {
        let message = format!(
            "has no effect for {hostname}: {} ({}) decides there, and HTTPRoutes and GRPCRoutes cannot have a host name \
             in common; give one of them another",
            decides.route.name, decides.route.location
        );
        problems.overruled_at(at.route, at.parent, message);
        return false;
    }
    problems.decides(at.route, at.parent);
    let (limits, shared) = (draft.limits, draft.shared);
    let gateway = (draft.seat.namespace, draft.seat.name);
    let host = draft.host(place, hostname);
    for written in &at.route.spec.rules {
        let mut rule = host.backends.gateway_rule(at.route, written, problems);
        rule.filters.limits = limits.of_route(at.route, written.name.as_deref(), gateway);
        host.rules.push(shared.share(rule));
        host.tiers.push(tier);
    }
    true
}
