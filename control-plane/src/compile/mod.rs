//! Documents to a mesh: what the words of all documents together mean.
//!
//! Pure, but for the clock, which reports about the dates of certificates ask. [`compile`] is the whole: it says what documents
//! mean. Of the kinds that change most, [`Compiler`] compiles what a change has to do with, and the result is the same. What comes out equal to before keeps its old `Arc`, so that later stages compare pointers.

mod addressees;
mod asked;
mod authentication;
mod authorization;
mod backend_tls;
mod backend_traffic;
mod candidates;
mod certificates;
mod claims;
mod clients;
mod destination_rules;
mod dialled;
mod endpoints;
mod gateways;
mod grants;
mod hosts;
mod inbound;
mod incremental;
mod meant;
mod naming;
mod network;
mod owners;
mod places;
mod policy_targets;
mod rate_limits;
mod reserved;
mod revocations;
mod room;
mod routes;
mod rule_names;
mod selected;
mod servers;
mod services;
mod sharing;
mod targets;
mod telemetry;
mod there;
mod workloads;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    sync::Arc,
    time::SystemTime,
};

use selvedge_model::{Mesh, SessionKey, TrustDomain, WorkloadName, snapshot::Owners};

use self::incremental::{Connections, Found, Routed};

pub(crate) use self::gateways::our_listeners;
pub use self::{
    certificates::{CA_SECRET, next_advice},
    clients::clients_with,
    gateways::{
        Attached, HolderFacts, INGRESS_GATEWAY, Overlap, WantedObject, our_gateways, our_ingresses,
        wanted_objects,
    },
    incremental::{Compiled, Compiler},
    naming::naming,
    routes::{RuleLocations, Written},
};

use crate::{
    keys::FetchedKeys,
    problem::{Detached, DocumentName, Fault, Problem, Severity},
    resources::{Document, Resources},
};

/// What the meaning of documents depends on besides themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshSettings {
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// The DNS suffix of Kubernetes services, such as `cluster.local`.
    pub cluster_domain: String,
    /// The namespace of documents that do not name a namespace.
    pub default_namespace: String,
    /// The namespace whose documents are for the whole mesh.
    pub root_namespace: String,
    /// The namespace of the control plane; its `Revocation`s count for the whole mesh too.
    pub own_namespace: String,
    /// Which namespaces' routes count for a host.
    pub route_ownership: RouteOwnership,
    /// Whether it is accepted that policies of kinds which are not acted on are not enforced.
    pub allow_unenforced: bool,
    /// The keys of issuers that documents only name.
    pub keys: FetchedKeys,
    /// What the keys of sessions are derived from.
    pub session_key: SessionKey,
}

/// Which namespaces' routes count for a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RouteOwnership {
    /// Those in the host's own namespace and in the root namespace. One in any other namespace counts only for that
    /// namespace's own clients.
    Namespace,
    /// All that are exported to the client, from any namespace, as in Istio.
    #[default]
    Exported,
}

impl MeshSettings {
    /// Whether documents in `namespace` say what a host of `owner` is to clients elsewhere.
    fn is_foreign(&self, namespace: &str, owner: &str) -> bool {
        namespace != owner && namespace != self.root_namespace
    }
}

impl Default for MeshSettings {
    fn default() -> Self {
        Self {
            trust_domain: TrustDomain::default(),
            cluster_domain: "cluster.local".to_owned(),
            default_namespace: "default".to_owned(),
            root_namespace: "istio-system".to_owned(),
            own_namespace: "selvedge".to_owned(),
            route_ownership: RouteOwnership::default(),
            allow_unenforced: false,
            keys: FetchedKeys::default(),
            session_key: SessionKey([0; 32]),
        }
    }
}

/// The mesh that `resources` describe, and what is wrong between documents.
///
/// Parts that are equal to those of `previous` are the same `Arc`s.
pub fn compile(resources: &Resources, settings: &MeshSettings, previous: &Mesh) -> (Mesh, Vec<Problem>) {
    let (mesh, facts) = whole(resources, settings, previous);
    (mesh, facts.found.sorted())
}

/// The same, with what is to be known for the next change to be compiled alone. What reads `WorkloadEntry`s, pods or
/// `EndpointSlice`s here must have its like in `incremental::Local`, or a reason there to compile everything.
fn whole(resources: &Resources, settings: &MeshSettings, previous: &Mesh) -> (Mesh, incremental::Facts) {
    let [
        mut problems,
        mut of_policies,
        mut of_each_policy,
        mut of_tokens,
        mut of_limits,
        mut of_network,
        mut of_routes,
        mut of_gateways,
        mut of_addressees,
    ] = std::array::from_fn(|_| Problems::default());
    let policies = inbound::Policies::new(resources, settings, &mut of_policies);
    let of_workloads = asked::Policies::new(resources, settings, &mut of_policies);
    servers::report_annotations(resources, &mut problems);
    let mut workloads =
        workloads::Workloads::new(resources, settings, &policies, &previous.workloads, &mut problems);
    let catalog = services::Catalog::new(resources, settings, &previous.owners, &mut problems);
    let candidates = candidates::candidates(resources, settings, &catalog, &mut workloads, &mut problems);
    let owners = owners::Owners::new(
        resources,
        &catalog,
        &candidates,
        &mut workloads,
        &previous.owners,
        &mut problems,
    );
    let mut endpoints = endpoints::endpoints(
        settings,
        &catalog,
        &policies,
        &candidates,
        &owners,
        &mut workloads,
        &mut problems,
    );
    let certificates = certificates::Certificates::new(resources, SystemTime::now(), &settings.own_namespace);
    let backend_tls = backend_tls::BackendTls::new(resources, &catalog, &certificates, &mut of_routes);
    let backend_traffic = backend_traffic::BackendTraffic::new(resources, &catalog, &mut of_routes);
    let of_backends = (backend_tls, backend_traffic);
    let selectors = clients::Selectors::new(resources);
    let selected = selectors.of_workloads(workloads.labels(), &previous.selected);
    let there = Arc::new(clients::there(&selected));
    let of_rules = clients::SelectedClients::new(&selectors, &there);
    let routing = routes::Routing::new(resources, settings, &catalog, of_backends, of_rules, &mut of_routes);
    let mut routed = Routed::new(of_routes);
    for host in catalog.hosts() {
        let of_host = routing.of_host(host, |key| endpoints.get(key), &previous.services);
        routed.add(&host.key, of_host);
    }
    let services = std::mem::take(&mut routed.views);
    places::report(&catalog, &endpoints, &mut problems);
    selected::report_pods(resources, &mut problems);

    let mut addresses = workloads.addresses();
    endpoints::addresses(&catalog, &owners, &endpoints, &mut addresses);
    let unproven = dialled::unproven_ports(&endpoints);
    endpoints.append(&mut dialled::beside_sidecars(&unproven, &addresses, workloads.named()));
    let network = network::Network::new(resources, workloads.candidates(), previous);
    let connections = Connections::default();
    let finished = workloads.finish(
        &previous.workloads,
        of_workloads.asked(&network),
        |key, namespace| connections.get(key, namespace, || routing.app_connections(key, namespace)),
        &mut problems,
    );
    of_workloads.report(&mut problems);
    of_workloads.report_limits(&catalog, &mut of_limits);
    of_workloads.report_authentications(&mut of_tokens);
    network.report(&mut of_network);
    let networked = incremental::has_network_policies(resources).then(|| workloads.networked());
    let facing = workloads.facing(&finished);
    let of_some = (&mut of_each_policy, &mut of_tokens, &mut of_limits);
    meant::report_all(resources, settings, facing, of_some, &mut problems);
    let faced = meant::is_any_kept(resources).then(|| workloads.faced());
    let occupants = workloads.occupants(&finished);
    let (gateways, led_to) = gateways::gateways(
        resources,
        settings,
        (&routing, &certificates, &of_workloads.limits),
        (&workloads, &selected, &candidates),
        &previous.gateways,
        &mut of_gateways,
    );
    let revocations = revocations::revocations(resources, settings, &mut problems);
    let addressees = addressees::Addressees::new(resources, settings);
    addressees.report(resources, settings, &mut of_addressees);
    let mesh = Mesh {
        owners: keep(
            Owners { addresses: owners.in_files().into(), names: catalog.names(&previous.owners).into() },
            Some(&previous.owners),
        ),
        revocations: keep(revocations, Some(&previous.revocations)),
        sets: network.into_sets().into(),
        callers: dialled::callers(&catalog, &endpoints, &owners, &mut problems).into(),
        named: dialled::named(
            &catalog,
            &endpoints,
            workloads.named(),
            workloads.len(),
            &occupants,
            &mut problems,
        )
        .into(),
        occupants: occupants.into_iter().filter_map(|(host, (_, here))| Some((host.ip()?, here))).collect(),
        workloads: finished.into(),
        service_addresses: catalog
            .addresses(|address, namespace| owners.may_serve(address, namespace), &mut problems)
            .into(),
        exported: catalog.exported().into(),
        service_ranges: catalog.ranges(&mut problems).into(),
        services: services.into(),
        endpoints: endpoints::kept(endpoints, &previous.endpoints).into(),
        addresses: addresses.into(),
        selected: selected.into(),
        gateways: gateways.into(),
        cluster_domain: kept_text(&settings.cluster_domain, &previous.cluster_domain),
    };
    let of_each_policy = incremental::Reports::from(of_each_policy);
    let found = Found {
        others: problems,
        policies: of_policies,
        of_each_policy,
        tokens: of_tokens,
        limits: of_limits,
        network: of_network,
        gateways: of_gateways,
        addressees: of_addressees,
        routed,
    };
    let known = (faced, networked, unproven, there);
    let mut facts = incremental::Facts::new(&catalog, found, led_to, known, connections);
    facts.behind = candidates.behind.clone();
    facts.addressees = addressees;
    (mesh, facts)
}

/// `text`, shared with the one `before` if it is the same.
fn kept_text(text: &str, before: &Arc<str>) -> Arc<str> {
    if **before == *text { Arc::clone(before) } else { Arc::from(text) }
}

/// `new`, as the old `Arc` if it is equal to that.
fn keep<T: PartialEq>(new: T, old: Option<&Arc<T>>) -> Arc<T> {
    match old {
        Some(old) if **old == new => Arc::clone(old),
        _ => Arc::new(new),
    }
}

/// Whether both are equal; most are the very same.
fn are_same<T: PartialEq>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (None, None) => true,
        _ => false,
    }
}

/// How many problems of one document are kept by what found them.
const MOST_KEPT: usize = 2_000;

/// What is wrong, each thing once: a service with several ports meets the same mistake several times.
#[derive(Debug, Default)]
struct Problems {
    found: HashSet<Problem>,
    /// How often something was found, whether that was known or not.
    times: usize,
    /// How much was found of each document.
    of_each: HashMap<Option<DocumentName>, usize>,
    /// The routes that decide on some port, each with the parent by which it is attached there.
    deciding: HashSet<(DocumentName, usize)>,
    /// The namespaces with documents that have no room because of others of the same namespace, which may be for other hosts.
    crowded: BTreeSet<Arc<str>>,
}

impl Problems {
    /// An error because documents of the same namespace take all the room there is for them.
    fn no_room<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>) {
        self.crowded.insert(Arc::clone(&document.name.namespace));
        self.error(document, field, message);
    }

    /// Adds a problem, unless [`MOST_KEPT`] of its document are known: of so many only some are told, and how many others there are.
    fn add(&mut self, problem: Problem) {
        self.times += 1;
        let known = self.of_each.entry(problem.document.clone()).or_default();
        if *known <= MOST_KEPT && !self.found.contains(&problem) {
            *known += 1;
            if *known <= MOST_KEPT {
                self.found.insert(problem);
            }
        }
    }

    /// Whether not all problems of this one's document are kept.
    fn leaves_out(&self, problem: &Problem) -> bool {
        self.of_each.get(&problem.document).is_some_and(|known| *known > MOST_KEPT)
    }

    /// The same of any document.
    fn is_cut_short(&self) -> bool {
        self.of_each.values().any(|known| *known > MOST_KEPT)
    }

    /// What other documents have a part in.
    fn add_between(&mut self, problem: Problem) {
        self.add(Problem { fault: Fault::Between, ..problem });
    }

    /// An error that other documents have a part in.
    fn error<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>) {
        self.add_between(document.problem(Severity::Error, field, message));
    }

    /// An error of this kind.
    fn fault<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>, fault: Fault) {
        let problem = document.problem(Severity::Error, field, message);
        self.add(Problem { fault, ..problem });
    }

    /// Another route decides on a port of the parent of `route` at `index`.
    fn overruled_at<T>(&mut self, route: &Document<T>, index: usize, message: String) {
        let fault = Fault::Parent { index, why: Detached::Overruled };
        self.fault(route, &parent_field(index), message, fault);
    }

    /// On some port of its parent at `index`, `route` decides.
    fn decides<T>(&mut self, route: &Document<T>, index: usize) {
        self.deciding.insert((route.name.clone(), index));
    }

    /// An error because another document decides instead.
    fn overruled<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>) {
        self.fault(document, field, message, Fault::Overruled);
    }

    /// An error that no other document could cause or cure.
    fn error_alone<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>) {
        self.add(document.problem(Severity::Error, field, message));
    }

    fn warning<T>(&mut self, document: &Document<T>, field: &str, message: impl Into<String>) {
        self.add_between(document.problem(Severity::Warning, field, message));
    }
}

/// Puts `problems` into the order of files and lines.
fn sort(problems: &mut [Problem]) {
    let place = |problem: &Problem| (problem.path.clone(), problem.line);
    problems.sort_by(|a, b| {
        let words = (&a.document, &a.field, &a.message).cmp(&(&b.document, &b.field, &b.message));
        place(a).cmp(&place(b)).then(words)
    });
}

/// How many workloads are named of those that a policy is not enforced at.
const NAMED: usize = 3;

/// The first of `workloads` by name, and how many others there are; `None`: there is none.
fn some<'n>(workloads: impl Iterator<Item = &'n WorkloadName>) -> Option<String> {
    let names: BTreeSet<String> = workloads.map(ToString::to_string).collect();
    let first: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let others = names.len().saturating_sub(NAMED);
    match (first.is_empty(), others) {
        (true, _) => None,
        (false, 0) => Some(first.join(", ")),
        (false, others) => Some(format!("{} and {others} others", first.join(", "))),
    }
}

/// How many of the things that could be meant are told.
const TOLD: usize = 10;

/// The first of `all` that could be meant instead, in their order, and how many others there are; `None`: there is none. There may be
/// very many, and as many documents that mean none of them.
fn some_of(all: impl IntoIterator<Item = impl fmt::Display>) -> Option<String> {
    let mut all = all.into_iter();
    let mut told = all.next()?.to_string();
    for one in all.by_ref().take(TOLD - 1) {
        told.push_str(", ");
        told.push_str(&one.to_string());
    }
    match all.count() {
        0 => Some(told),
        others => Some(format!("{told} and {others} others")),
    }
}

/// The field of a route's parent.
fn parent_field(index: usize) -> String {
    format!("spec.parentRefs[{index}]")
}

#[cfg(test)]
mod tests;
