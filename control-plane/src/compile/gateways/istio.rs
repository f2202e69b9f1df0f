//! Istio's `Gateway`s, and the `VirtualService`s that name them.
//!
//! A workload serves every `Gateway` whose selector it matches. All servers of HTTP in plaintext on one port are one
//! listener, because in Istio the closest host of any `VirtualService` decides there, whichever server it came by.

mod hosts;
mod secure;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_model::{
    Filters, Layer, Order, Rule, facts,
    filter::{OwnAnswer, Redirect},
    gateway::{Carries, Hostname},
};

use self::hosts::{Served, served};
pub(super) use self::{
    secure::AUTHORITIES_SUFFIX,
    wanted::{add_wanted, workloads},
};
use super::{
    super::{
        Problems,
        clients::NO_LABELS,
        routes::{Asker, Routing, catch_alls_last, takers_of_all_last},
        rule_names::redirect_name,
    },
    copies::Copies,
    draft::{Draft, NewListener, written},
    seats::{LabelsAsked, Seat},
    spoken_in_plaintext,
};
use crate::{
    problem::Problem,
    resources::{
        Document, IstioGatewaySpec, Resources, VirtualServiceSpec,
        istio_gateway::{GatewayServer, ServerProtocol},
    },
};

type Gateway = Document<IstioGatewaySpec>;
type VirtualService = Document<VirtualServiceSpec>;
/// A server, and the document that it stands in.
type Server<'a> = (&'a Gateway, &'a GatewayServer);

/// Every `Gateway`, with the `VirtualService`s that name it.
#[derive(Debug)]
pub(super) struct IstioGateways<'a> {
    gateways: Vec<Bound<'a>>,
}

/// The servers of each port.
type Ports<'b, 'a> = BTreeMap<u16, Vec<(&'b Bound<'a>, &'a GatewayServer)>>;

/// A `Gateway`, and the `VirtualService`s that name it, oldest first.
#[derive(Debug)]
struct Bound<'a> {
    gateway: &'a Gateway,
    documents: Vec<&'a VirtualService>,
}

impl<'a> IstioGateways<'a> {
    pub(super) fn new(resources: &'a Resources, routing: &Routing<'_>, problems: &mut Problems) -> Self {
        let mut gateways: Vec<Bound<'a>> = Vec::new();
        let (mut places, mut copies) = (BTreeMap::new(), Copies::default());
        for gateway in &resources.istio_gateways {
            places.insert((&*gateway.name.namespace, &*gateway.name.name), gateways.len());
            gateways.push(Bound { gateway, documents: Vec::new() });
        }
        for document in &resources.virtual_services {
            let mut named_here: Vec<usize> = Vec::new();
            let mut times = 0;
            for named in &document.spec.followed_by.gateways {
                let Some(place) = places.get(&(&*named.namespace, &*named.name)) else {
                    let message = format!(
                        "there is no Gateway {}/{} of networking.istio.io; add it or correct the name",
                        named.namespace, named.name
                    );
                    problems.error(document, &format!("spec.gateways[{}]", named.index), message);
                    continue;
                };
                if !named_here.contains(place) {
                    times += hosts::report(document, gateways[*place].gateway, routing, problems);
                    named_here.push(*place);
                }
            }
            let size = routing.written(document);
            if let Err(why) = copies.take_more(&document.name, times.saturating_sub(1), size) {
                let message = format!("is not served at gateways: {why}");
                problems.error(document, "spec.gateways", message);
                continue;
            }
            named_here.iter().for_each(|place| gateways[*place].documents.push(document));
        }
        Self { gateways }
    }

    /// The labels by which documents tell gateways' workloads from others.
    pub(super) fn labels_asked<'r>(&self, routing: &'r Routing<'_>) -> LabelsAsked<'r>
    where
        'a: 'r,
    {
        let selectors = self.gateways.iter().flat_map(|bound| &bound.gateway.spec.selector);
        let documents = self.gateways.iter().flat_map(|bound| bound.documents.iter().copied());
        let of_sources = documents.flat_map(|document| routing.source_labels(document));
        selectors.chain(of_sources).map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    /// Adds what the workloads of `draft` serve of this. If a `Gateway` of the Gateway API owns them, that says by
    /// `allowedRoutes` who may add to it: then other namespaces than its own and the root namespace, which is `owned`, add
    /// nothing here.
    pub(super) fn add_to(
        &self,
        draft: &mut Draft<'a>,
        owned: Option<&str>,
        routing: &Routing<'_>,
        problems: &mut Problems,
    ) {
        let seat = draft.seat;
        if seat.workloads.is_empty() {
            return;
        }
        let mut selected = Vec::new();
        for bound in &self.gateways {
            if !facts::selects(&bound.gateway.spec.selector, &seat.labels) {
                continue;
            }
            let namespace = &*bound.gateway.name.namespace;
            match owned.filter(|root| ![*root, seat.namespace].contains(&namespace)) {
                None => selected.push(bound),
                Some(root) => problems.warning(bound.gateway, "spec.selector", foreign(seat, root)),
            }
        }
        add(&selected, draft, routing, problems);
    }

    /// Every `Gateway` that no workload of `seats` serves, as if a workload with just its labels did: so that what is wrong
    /// with its routes is known.
    pub(super) fn unserved(&self, seats: &[Seat<'_>], problems: &mut Problems) -> Vec<(Seat<'a>, Self)> {
        let mut unserved = Vec::new();
        for Bound { gateway, documents } in &self.gateways {
            let is_served = |seat: &Seat<'_>| {
                !seat.workloads.is_empty() && facts::selects(&gateway.spec.selector, &seat.labels)
            };
            if seats.iter().any(is_served) {
                continue;
            }
            let message = "selects no gateway, so nobody serves this; give the labels to a WorkloadEntry or a Pod with the \
                           annotation config.selvedge.io/gateway, or correct them";
            problems.warning(gateway, "spec.selector", message);
            let (namespace, name) = (&*gateway.name.namespace, &*gateway.name.name);
            let labels = gateway.spec.selector.clone();
            let seat = Seat {
                namespace,
                name,
                workload_namespace: namespace,
                labels,
                selected: &NO_LABELS,
                workloads: Vec::new(),
            };
            unserved.push((seat, Self { gateways: vec![Bound { gateway, documents: documents.clone() }] }));
        }
        unserved
    }

    /// Adds all of it to `draft`, whoever its workloads are.
    pub(super) fn add_all_to(&self, draft: &mut Draft<'a>, routing: &Routing<'_>, problems: &mut Problems) {
        add(&self.gateways.iter().collect::<Vec<_>>(), draft, routing, problems);
    }
}

/// Why a `Gateway` of another namespace is not served by the gateway in `seat`.
fn foreign(seat: &Seat<'_>, root: &str) -> String {
    let (namespace, name) = (seat.namespace, seat.name);
    format!(
        "is not served by the gateway {namespace}/{name}, which a Gateway of the Gateway API owns, so that other namespaces \
         do not take its hosts; move this to the namespace {namespace} or {root}, or select another gateway"
    )
}

/// Adds the servers of `selected` to `draft`, the oldest document's first: of two that exclude each other at a port, the older
/// is served.
fn add<'a>(selected: &[&Bound<'a>], draft: &mut Draft<'a>, routing: &Routing<'_>, problems: &mut Problems) {
    let of = |protocol: ServerProtocol| {
        let mut ports: Ports<'_, 'a> = BTreeMap::new();
        for bound in selected {
            for server in bound.gateway.spec.servers.iter().filter(|server| server.protocol == protocol) {
                ports.entry(server.port).or_default().push((*bound, server));
            }
        }
        ports
    };
    let (mut plaintext, mut opaque) = (of(ServerProtocol::Http), of(ServerProtocol::Tcp));
    for bound in selected {
        for server in &bound.gateway.spec.servers {
            match (server.protocol, &server.tls) {
                // All of one port, where the first of them stands.
                (ServerProtocol::Http, _) => {
                    let servers = plaintext.remove(&server.port).unwrap_or_default();
                    add_plaintext(&servers, draft, routing, problems);
                }
                (ServerProtocol::Tcp, _) => {
                    let servers = opaque.remove(&server.port).unwrap_or_default();
                    add_tcp(&servers, draft, routing, problems);
                }
                (_, Some(tls)) => secure::add((bound, server), tls, draft, routing, problems),
                (_, None) => {}
            }
        }
    }
}

/// Adds the servers of opaque TCP of one port.
fn add_tcp<'a>(
    servers: &[(&Bound<'a>, &'a GatewayServer)],
    draft: &mut Draft<'a>,
    routing: &Routing<'_>,
    problems: &mut Problems,
) {
    let Some((first, server)) = servers.first() else { return };
    let new = new_listener((first.gateway, server), Carries::Tcp, Hostname::Any);
    let place = draft.listen(NewListener { with: written_besides(servers), ..new });
    for (bound, server) in servers {
        let server = (bound.gateway, *server);
        for document in bound.documents.iter().filter(|document| is_visible(document, draft.seat)) {
            if !served(document, server, routing).is_empty() {
                add_opaque(place, &Hostname::Any, (document, server), Layer::Tcp, draft, problems);
            }
        }
    }
    sort(place, draft);
}

/// Adds the rules for opaque connections of a document for `hostname` to the listener at `place`.
fn add_opaque<'a>(
    place: usize,
    hostname: &Hostname,
    (document, (gateway, _)): (&VirtualService, Server<'a>),
    layer: Layer,
    draft: &mut Draft<'a>,
    problems: &mut Problems,
) {
    let Seat { workload_namespace: namespace, labels, .. } = draft.seat;
    let gateway = (&*gateway.name.namespace, &*gateway.name.name);
    let host = draft.host(place, hostname);
    let rules =
        host.backends.opaque_at_gateway(document, layer, Asker { gateway, namespace, labels }, problems);
    host.tcp.extend(rules);
}

/// Adds the servers of HTTP in plaintext of one port.
fn add_plaintext<'a>(
    servers: &[(&Bound<'a>, &'a GatewayServer)],
    draft: &mut Draft<'a>,
    routing: &Routing<'_>,
    problems: &mut Problems,
) {
    let Some((first, server)) = servers.first() else { return };
    let hosts: BTreeSet<String> =
        servers.iter().flat_map(|(_, server)| &server.hosts).map(|host| host.hostname.to_string()).collect();
    let hostname = if hosts.len() == 1 { server.hosts[0].hostname.clone() } else { Hostname::Any };
    let new = new_listener((first.gateway, server), Carries::Http, hostname);
    let place = draft.listen(NewListener { with: written_besides(servers), ..new });
    for (bound, server) in servers {
        let server = (bound.gateway, *server);
        for document in &bound.documents {
            if document.spec.http.is_empty() || !is_visible(document, draft.seat) {
                continue;
            }
            for Served { hostname, .. } in served(document, server, routing) {
                add_rules(place, &hostname, (document, server), draft, problems);
            }
        }
    }
    for (index, (bound, server)) in
        servers.iter().enumerate().filter(|(_, (_, server))| server.https_redirect)
    {
        redirect(place, (bound.gateway, *server), &servers[..index], (draft, routing), problems);
    }
    sort(place, draft);
}

/// Brings the rules of each virtual host of a listener into their order.
fn sort(place: usize, draft: &mut Draft<'_>) {
    draft.each_host(place, |host| {
        host.rules = catch_alls_last(std::mem::take(&mut host.rules));
        takers_of_all_last(&mut host.tcp);
    });
}

/// Adds the rules for requests of a document for `hostname` to the listener at `place`.
fn add_rules<'a>(
    place: usize,
    hostname: &Hostname,
    (document, (gateway, _)): (&VirtualService, Server<'a>),
    draft: &mut Draft<'a>,
    problems: &mut Problems,
) {
    let Seat { workload_namespace: namespace, labels, .. } = draft.seat;
    let gateway = (&*gateway.name.namespace, &*gateway.name.name);
    let shared = draft.shared;
    let host = draft.host(place, hostname);
    host.order = Order::Listed;
    if let Some(message) = host.shared_with(document) {
        problems.warning(document, "spec.hosts", message);
    }
    let rules = host.backends.at_gateway(document, Asker { gateway, namespace, labels }, problems);
    host.rules.extend(rules.into_iter().map(|rule| shared.share(rule)));
}

/// Sends the requests for the hosts of `server` to HTTPS, whatever routes there are, unless a trusted proxy says that TLS has
/// carried them: but not those for which an older
/// `Gateway` of another namespace, one of the `elders`, has routes in plaintext.
fn redirect<'a>(
    place: usize,
    server: Server<'a>,
    elders: &[(&Bound<'a>, &'a GatewayServer)],
    (draft, routing): (&mut Draft<'a>, &Routing<'_>),
    problems: &mut Problems,
) {
    let rule = Arc::new(redirect_rule(server));
    let own = server.1.hosts.iter().map(|host| &host.hostname);
    for hostname in own.clone() {
        draft.host(place, hostname).order = Order::Listed;
    }
    let own: Vec<_> = own.collect();
    let namespace = &server.0.name.namespace;
    let foreign =
        elders.iter().filter(|(elder, at)| elder.gateway.name.namespace != *namespace && !at.https_redirect);
    let kept: Vec<(Hostname, &Bound<'a>)> = foreign
        .flat_map(|(elder, at)| {
            let documents = elder.documents.iter().filter(|document| !document.spec.http.is_empty());
            let served = documents.flat_map(|document| served(document, (elder.gateway, *at), routing));
            served.map(|one| (one.hostname, *elder)).collect::<Vec<_>>()
        })
        .collect();
    draft.each_host(place, |host| {
        if !own.iter().any(|set| set.intersection(&host.hostname).as_ref() == Some(&host.hostname)) {
            return;
        }
        match kept.iter().find(|(hostname, _)| *hostname == host.hostname) {
            None => host.rules.insert(0, Arc::clone(&rule)),
            Some((hostname, elder)) => {
                let message = format!(
                    "has no effect for {hostname}: {} ({}) of another namespace is older and serves it in plaintext; set it \
                     there, or remove {hostname} here",
                    elder.gateway.name, elder.gateway.location
                );
                problems.overruled(server.0, &format!("spec.servers[{}].tls.httpsRedirect", server.1.index), message);
            }
        }
    });
}

fn redirect_rule((gateway, server): Server<'_>) -> Rule {
    let redirect = Redirect::to_https(301);
    Rule {
        name: redirect_name(gateway, server),
        matches: vec![spoken_in_plaintext()],
        filters: Filters { answer: Some(OwnAnswer::Redirect(redirect)), ..Filters::default() },
        ..Rule::default()
    }
}

fn new_listener((gateway, server): Server<'_>, carries: Carries, hostname: Hostname) -> NewListener {
    NewListener {
        name: format!("{} servers[{}]", gateway.name, server.index),
        key: format!("{}/{}/{}", gateway.name.namespace, gateway.name.name, server.port_name),
        port: server.port,
        carries,
        hostname,
        tls: None,
        written: written_at((gateway, server)),
        with: Vec::new(),
        has_equal_siblings: false,
    }
}

fn written_at((gateway, server): Server<'_>) -> Problem {
    written(gateway, &format!("spec.servers[{}]", server.index))
}

/// Where all but the first of servers stand that are one listener.
fn written_besides(servers: &[(&Bound<'_>, &GatewayServer)]) -> Vec<Problem> {
    servers.iter().skip(1).map(|(bound, server)| written_at((bound.gateway, server))).collect()
}

/// Whether the workloads of `seat` see `document`.
fn is_visible(document: &VirtualService, seat: &Seat<'_>) -> bool {
    document.spec.export_to.includes(&document.name.namespace, Some(seat.workload_namespace))
}
