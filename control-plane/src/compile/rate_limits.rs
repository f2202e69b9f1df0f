//! `RateLimit` and `HTTPLocalRateLimitPolicy` to what each workload's proxy limits, and to the limits of routes at gateways.

mod global;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{
    Protocol, SpiffeId,
    gateway::GatewayRole,
    limit::{By, Exception, Limit, Quota, RateLimit, RateLimits as Limits},
};

use super::{
    MeshSettings, Problems,
    grants::Grants,
    keep,
    sharing::ByNamespace,
    targets::{self, Selected, Targets},
    there::There,
};
use crate::{
    problem::DocumentName,
    resources::{
        Document, HttpRouteSpec, LimitTarget, RateLimitSpec, Resources, ServerLimitSpec,
        gateway::{FromNamespaces, ListenerProtocol, ListenerSpec},
        linkerd_policy::Named,
        references::Parent,
    },
};

type Written = Document<RateLimitSpec>;

/// Every document that limits requests, compiled once.
#[derive(Debug)]
pub(super) struct RateLimits<'a> {
    all: Vec<Compiled<'a>>,
    /// Those for workloads, by their places in `all`.
    by_namespace: ByNamespace<'a>,
    /// The places of those for gateways, in order, by the gateways' namespaces and names.
    by_gateway: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// The places of those for routes, in order, by the routes' namespaces, kinds and names.
    by_route: HashMap<(&'a str, &'a str, &'a str), Vec<usize>>,
    /// Linkerd's, by the namespaces and names of their servers.
    of_servers: HashMap<(&'a str, &'a str), RateLimit>,
    /// Those that ask for identities, and are for a gateway.
    at_gateways: RefCell<BTreeSet<usize>>,
}

#[derive(Debug)]
struct Compiled<'a> {
    document: &'a Written,
    limit: RateLimit,
    /// The full name of the server that it asks.
    server: Option<String>,
    /// By labels, or by Services.
    targets: Targets<'a>,
    selects_one: Cell<bool>,
    /// Whether it names Services alone, and all of them are there.
    is_for_services: bool,
}

impl<'a> RateLimits<'a> {
    pub(super) fn new(resources: &'a Resources, settings: &'a MeshSettings, problems: &mut Problems) -> Self {
        let mut limits = Self {
            all: Vec::with_capacity(resources.rate_limits.len()),
            by_namespace: ByNamespace::default(),
            by_gateway: HashMap::new(),
            by_route: HashMap::new(),
            of_servers: of_servers(resources, settings, problems),
            at_gateways: RefCell::default(),
        };
        let grants = Grants::new(resources);
        let there = There::new(resources, settings);
        let servers = global::Servers::new(resources, settings);
        for document in &resources.rate_limits {
            let (namespace, spec) = (&*document.name.namespace, &document.spec);
            report_missing(document, &there, problems);
            let services = (!spec.targets.is_empty()).then_some(&*spec.services);
            let name = Arc::from(document.name.to_string());
            limits.index(document, settings);
            let server = servers.host(document);
            let global = server.as_deref();
            let global = global.and_then(|host| global::global(document, host, settings, &grants, problems));
            limits.all.push(Compiled {
                document,
                server,
                limit: RateLimit::new(name, None, spec.dry_run, spec.limits.clone())
                    .with_global(global)
                    .telling(spec.tells_all),
                targets: Targets::new(namespace, &spec.selector, services, settings),
                selects_one: Cell::new(false),
                is_for_services: !spec.targets.is_empty()
                    && spec.targets.iter().all(|target| is_service(target, namespace, &there)),
            });
        }
        limits
    }

    /// What the proxy of a workload limits; as `previous` says, if that is the same. `servers`: those of its ports.
    pub(super) fn find<'s>(
        &self,
        workload: Selected<'_>,
        role: Option<&GatewayRole>,
        servers: impl Iterator<Item = (u16, &'s DocumentName)>,
        previous: Option<&Arc<Limits>>,
    ) -> Option<Arc<Limits>> {
        let mut all = Vec::new();
        // A gateway may run in another namespace than its documents are in.
        let named = role.and_then(|role| self.by_gateway.get(&role.name.split_once('/')?));
        let named = named.map_or(&[][..], Vec::as_slice);
        let own = self.by_namespace.places(workload.namespace);
        let own = own.filter(|place| named.binary_search(place).is_err());
        let own = own.filter_map(|place| Some((place, self.all[place].targets.ports(workload)?)));
        for (place, ports) in own.chain(named.iter().map(|place| (*place, None))) {
            let one = &self.all[place];
            one.selects_one.set(true);
            if role.is_some() && one.limit.limits.iter().any(|limit| limit.by == By::ClientIdentity) {
                self.at_gateways.borrow_mut().insert(place);
            }
            let limit = RateLimit { ports, ..global::at(one.limit.clone(), workload) };
            all.extend(global::for_services(one.document, limit, &one.targets, workload));
        }
        for (port, server) in servers {
            if let Some(limit) = self.of_servers.get(&(&*server.namespace, &*server.name)) {
                all.push(RateLimit { ports: Some([port].into()), ..limit.clone() });
            }
        }
        (!all.is_empty()).then(|| keep(Limits { all }, previous))
    }

    /// The limits of the rule called `rule` of `route` at `gateway`, its namespace and name. Those that the gateway has for all
    /// its requests count there, and once.
    pub(super) fn of_route(
        &self,
        route: &Document<HttpRouteSpec>,
        rule: Option<&str>,
        gateway: (&str, &str),
    ) -> Vec<RateLimit> {
        let of_gateway = self.by_gateway.get(&gateway).map_or(&[][..], Vec::as_slice);
        let DocumentName { namespace, kind, name } = &route.name;
        let places = self.by_route.get(&(&**namespace, &**kind, &**name)).into_iter().flatten();
        let is_meant = |target: &LimitTarget| {
            matches!(target, LimitTarget::Route { kind: its, name: called, rule: part }
                if *its == &**kind
                    && **called == **name
                    && part.as_deref().is_none_or(|part| rule == Some(part)))
        };
        let places = places.filter(|place| of_gateway.binary_search(place).is_err());
        let all = places.map(|place| &self.all[*place]);
        let for_rule = all.filter(|one| one.document.spec.targets.iter().any(is_meant));
        for_rule.map(|one| one.limit.clone()).collect()
    }

    /// Notes whom `document` is for, which comes next.
    fn index(&mut self, document: &'a Written, settings: &MeshSettings) {
        let (place, namespace) = (self.all.len(), &*document.name.namespace);
        let RateLimitSpec { targets, services, .. } = &document.spec;
        if targets.is_empty() || !services.is_empty() {
            self.by_namespace.add(targets::only_namespace(namespace, settings), place);
        }
        for target in targets {
            let places = match target {
                LimitTarget::Service(_) => continue,
                LimitTarget::Gateway(name) => self.by_gateway.entry((namespace, name)).or_default(),
                LimitTarget::Route { kind, name, .. } => {
                    self.by_route.entry((namespace, kind, name)).or_default()
                }
            };
            // It may name two rules of one route.
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    /// Whether any of them asks a server.
    pub(super) fn ask_servers(&self) -> bool {
        self.all.iter().any(|one| one.server.is_some())
    }

    /// Reports what selects nothing, and servers that there are not; `ports` says which ones a host has. Asked when each
    /// workload has its limits.
    pub(super) fn report<'p>(
        &self,
        ports: impl Fn(&str) -> Option<&'p BTreeMap<u16, Protocol>>,
        problems: &mut Problems,
    ) {
        for Compiled { document, server, selects_one, is_for_services, .. } in &self.all {
            if let Some(host) = server {
                global::report_missing(document, host, &ports, problems);
            }
            if !document.spec.selector.is_empty() && !selects_one.get() {
                let message = "selects no workload, so nothing is limited; compare the labels";
                problems.warning(document, "spec.selector.matchLabels", message);
            }
            if *is_for_services && !selects_one.get() {
                let message = "no workload with a sidecar is behind this, so nothing is limited; compare the selector of the \
                               Service with the labels of its workloads";
                problems.warning(document, "spec.targetRefs", message);
            }
        }
        for place in self.at_gateways.borrow().iter() {
            let document = self.all[*place].document;
            let number = document.spec.limits.iter().position(|limit| limit.by == By::ClientIdentity);
            let field = format!("spec.limits[{}].key", number.unwrap_or_default());
            let message = "a gateway's clients have no identity of the mesh, so all of them share one limit there; use \
                           clientAddress or header";
            problems.warning(document, &field, message);
        }
    }
}

/// Whether `target` is a Service of `namespace` that there is.
fn is_service(target: &LimitTarget, namespace: &str, there: &There<'_>) -> bool {
    matches!(target, LimitTarget::Service(name) if there.service(namespace, name).is_some())
}

/// Reports what a document names and there is not, or is not limited.
fn report_missing(document: &Written, there: &There<'_>, problems: &mut Problems) {
    let here = &document.name.namespace;
    for (number, target) in document.spec.targets.iter().enumerate() {
        let field = format!("spec.targetRefs[{number}]");
        let missing = |kind: &str, name: &str| {
            format!("there is no {kind} {name} in namespace {here}, so nothing is limited; correct the name")
        };
        match target {
            LimitTarget::Service(name) => match there.service(here, name) {
                None => problems.error(document, &field, missing("Service", name)),
                Some(service) => {
                    let mut ports = service.spec.ports.iter();
                    if ports.len() > 0 && ports.all(|port| port.protocol == Protocol::Tcp) {
                        problems.warning(document, &field, NO_HTTP_PORT);
                    }
                }
            },
            LimitTarget::Gateway(name) => match there.gateway(here, name) {
                None if there.has_gateway(here, name) => {}
                None => problems.error(document, &field, missing("Gateway", name)),
                Some(gateway) => {
                    if !gateway.spec.listeners.iter().any(carries_requests)
                        && gateway.spec.allowed_sets == FromNamespaces::None
                    {
                        problems.warning(document, &field, NO_HTTP_LISTENER);
                    }
                }
            },
            LimitTarget::Route { kind, name, rule } => match there.route(kind, here, name) {
                None => problems.error(document, &field, missing(kind, name)),
                Some(route) => report_route(document, &field, route, rule.as_deref(), there, problems),
            },
        }
    }
}

/// Limits are for requests.
const NO_HTTP_PORT: &str = "none of its ports carries HTTP, and only requests are limited, so nothing is; name a port http or \
                            grpc, or limit connections (connectionPool.tcp.maxConnections of a DestinationRule)";

/// The same at a gateway.
const NO_HTTP_LISTENER: &str = "none of its listeners carries HTTP, and only requests are limited, so nothing is; limit \
                                connections (--max-connections-per-client)";

/// Whether requests can come by `listener`.
fn carries_requests(listener: &ListenerSpec) -> bool {
    matches!(listener.protocol, ListenerProtocol::Http | ListenerProtocol::Https)
}

/// Reports that requests of `route`, which `document` names at `field`, are not limited, or not all of them.
fn report_route(
    document: &Written,
    field: &str,
    route: &Document<HttpRouteSpec>,
    rule: Option<&str>,
    there: &There<'_>,
    problems: &mut Problems,
) {
    let has_rule = |rule: &str| route.spec.rules.iter().any(|one| one.name.as_deref() == Some(rule));
    if let Some(rule) = rule.filter(|rule| !has_rule(rule)) {
        let message =
            format!("{} has no rule called {rule}, so nothing is limited; correct the name", route.name);
        problems.error(document, &format!("{field}.sectionName"), message);
    }
    if route.spec.parents.gateways.is_empty() {
        let message = format!(
            "{} has no Gateway as its parent, and limits of routes are for gateways, so nothing is limited; name the \
             Service instead",
            route.name
        );
        problems.error(document, field, message);
    } else if !route.spec.parents.gateways.iter().any(|parent| is_there(parent, &route.name, there)) {
        let message = format!(
            "there is none of the Gateways that {} names as its parents, so nothing is limited; add one, or correct the \
             route's parentRefs",
            route.name
        );
        problems.warning(document, field, message);
    }
}

/// Whether there is such a parent of `route`.
fn is_there(parent: &Parent, route: &DocumentName, there: &There<'_>) -> bool {
    let (kind, name) = (parent.kind, &*parent.name);
    let namespace = parent.namespace.as_deref().unwrap_or(&route.namespace);
    (kind == "Gateway" && there.gateway(namespace, name).is_some())
        || there.has_listener_set(kind, namespace, name)
}

/// Linkerd's policies by their servers. Of two for one server, the older one counts.
fn of_servers<'a>(
    resources: &'a Resources,
    settings: &MeshSettings,
    problems: &mut Problems,
) -> HashMap<(&'a str, &'a str), RateLimit> {
    let mut found: BTreeMap<(&str, &str), &Document<ServerLimitSpec>> = BTreeMap::new();
    for document in &resources.server_limits {
        let (namespace, server) = (&*document.name.namespace, document.spec.server.as_str());
        let is_it = |name: &DocumentName| *name.namespace == *namespace && *name.name == *server;
        if !resources.servers.iter().any(|known| is_it(&known.name)) {
            let message = format!(
                "there is no Server {server} in namespace {namespace}, so nothing is limited; correct the name"
            );
            problems.error(document, "spec.targetRef", message);
        }
        if let Some(first) = found.get(&(namespace, server)) {
            let message = format!(
                "has no effect: {} ({}) limits Server {server} already; remove one of them",
                first.name, first.location
            );
            problems.overruled(document, "spec.targetRef", message);
            continue;
        }
        found.insert((namespace, server), document);
    }
    found.into_iter().map(|(server, document)| (server, of_server(document, settings))).collect()
}

fn of_server(document: &Document<ServerLimitSpec>, settings: &MeshSettings) -> RateLimit {
    let ServerLimitSpec { total, identity, overrides, .. } = &document.spec;
    let here = &document.name.namespace;
    let exception = |(quota, accounts): &(Quota, Vec<Named>)| {
        let identity = |named: &Named| {
            let namespace = named.namespace.as_deref().unwrap_or(here);
            SpiffeId::new(&settings.trust_domain, namespace, &named.name).ok()
        };
        Exception { identities: accounts.iter().filter_map(identity).collect(), quota: *quota }
    };
    let exceptions: Vec<Exception> = overrides.iter().map(exception).collect();
    let by_identity = match (identity, exceptions.first()) {
        (Some(quota), _) => Some(Limit { exceptions, ..Limit::new(By::ClientIdentity, *quota) }),
        // Its quota is nobody's.
        (None, Some(first)) => {
            let quota = first.quota;
            Some(Limit { exceptions, ..Limit::new(By::ExceptionAlone, quota) })
        }
        (None, None) => None,
    };
    let total = total.map(|quota| Limit::new(By::Everyone, quota));
    let limits = by_identity.into_iter().chain(total).collect();
    RateLimit::new(Arc::from(document.name.to_string()), None, false, limits)
}
