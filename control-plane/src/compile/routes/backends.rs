//! The backends that the routes of one view name, and what is wrong with those that cannot be used.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    Backend, BackendName, ClientMatch, Http2Upgrade, Match, Order, RetryPolicy, RouteTable, Rule, ServiceKey,
    TrafficPolicy, UpstreamTls, WeightedBackend,
    filter::{Fraction, Mirror},
    snapshot::Clients,
};

use super::{
    super::{
        Problems, clients::Client, destination_rules::without_rules, grants::Grants, hosts::service_host,
        services::KnownHost, some_of,
    },
    Port, Routing, VirtualService,
    delegates::{Effective, Mirrored, delegate_field},
    filters,
    resolve::{BrokenReference, Reference, Resolved},
};
use crate::{
    problem::{Fault, Unresolved},
    resources::{
        DestinationRuleSpec, Document,
        linkerd::Timeouts,
        virtual_service::{Follower, asked},
    },
};

/// The backends of one view, or of one virtual host of a gateway, as its routes come to name them.
pub(in super::super) struct Backends<'a> {
    pub(super) routing: &'a Routing<'a>,
    pub(super) client: Client<'a>,
    /// The namespace of the gateway whose virtual host it is, which may be another than that of its workloads.
    pub(super) gateway: Option<&'a str>,
    /// The service's port whose view it is. `None`: it is a gateway's virtual host.
    pub(super) port: Option<&'a Port<'a>>,
    /// The port that clients call.
    pub(super) number: u16,
    /// What documents of other namespaces may be named. `None`: whatever there is, as in a mesh.
    grants: Option<&'a Grants<'a>>,
    pub(in super::super) list: Vec<Backend>,
    /// What is wrong with those that cannot be used, by their place in the list.
    broken: BTreeMap<usize, BrokenReference>,
}

impl<'a> Backends<'a> {
    /// None, as seen by `client`.
    pub(super) fn new(routing: &'a Routing<'a>, client: Client<'a>, port: &'a Port<'a>) -> Self {
        let (number, port) = (port.key.port, Some(port));
        let (gateway, grants) = (None, None);
        Self { routing, client, gateway, port, number, grants, list: Vec::new(), broken: BTreeMap::new() }
    }

    /// None, as seen by the workloads `client` of a gateway that is of the namespace `gateway`, whose clients call its port
    /// `number`. `grants`: what routes need to name a backend of another namespace; `None` if they need nothing.
    pub(in super::super) fn of_gateway(
        routing: &'a Routing<'a>,
        (client, gateway): (Client<'a>, &'a str),
        number: u16,
        grants: Option<&'a Grants<'a>>,
    ) -> Self {
        let gateway = Some(gateway);
        Self {
            routing,
            client,
            gateway,
            port: None,
            number,
            grants,
            list: Vec::new(),
            broken: BTreeMap::new(),
        }
    }

    /// What is called here, for messages.
    pub(super) fn called(&self) -> String {
        self.port.map_or_else(|| format!("port {}", self.number), |port| port.key.to_string())
    }

    /// Everything to the whole service.
    pub(super) fn default_route(&mut self, problems: &mut Problems) -> RouteTable {
        let rule = self.default_rule(problems);
        RouteTable::new(Order::Listed, rule.into_iter().collect())
    }

    /// `None` at a gateway, which has nothing of its own to send to.
    fn default_rule(&mut self, problems: &mut Problems) -> Option<Rule> {
        let backends = vec![WeightedBackend::new(self.own()?, 1)];
        let (timeouts, retry) = self.times(None, None);
        let name = "default".to_owned();
        let written = None::<(&VirtualService, &str)>;
        let session = self.session_of_service(&backends, &name, written, problems);
        Some(Rule {
            name,
            backends,
            session,
            timeout: timeouts.request,
            stream: timeouts.stream,
            retry,
            ..Rule::default()
        })
    }

    /// The time limits and retries of a rule that says this of them: where it says nothing, what the annotations of the
    /// service say.
    pub(super) fn times(
        &self,
        timeouts: Option<Timeouts>,
        retry: Option<&RetryPolicy>,
    ) -> (Timeouts, RetryPolicy) {
        let of_service = self.port.and_then(|port| port.host.annotated());
        let timeouts = timeouts.or_else(|| of_service?.timeouts).unwrap_or_default();
        let retry = retry.or_else(|| of_service?.retry.as_ref()).cloned().unwrap_or_default();
        (timeouts, retry)
    }

    /// The routes of `document` for this port; `None` if all of them are for other ports. A client that none of them is
    /// for follows the service's default route, as in Istio; but not if a match is left out that might be for it.
    pub(super) fn routes(
        &mut self,
        document: &VirtualService,
        problems: &mut Problems,
    ) -> Option<RouteTable> {
        let mut rules: Vec<Rule> = Vec::new();
        let (mut all_for_other_ports, mut any_left_out) = (true, false);
        let routing = self.routing;
        for effective in routing.http_routes(document) {
            let route = &effective.route;
            any_left_out |= route.left_out;
            let Some(matches) = asked(route.matches.as_deref(), self.number, Follower::Sidecar) else {
                all_for_other_ports &= !route.left_out;
                continue;
            };
            all_for_other_ports = false;
            rules.push(self.istio_rule(effective, matches, problems));
        }
        if all_for_other_ports {
            return None;
        }
        let may_be_for_nobody = !any_left_out && rules.iter().all(is_for_certain_clients);
        let table = RouteTable::new(Order::Listed, rules);
        Some(match may_be_for_nobody.then(|| self.default_rule(problems)).flatten() {
            Some(rule) => table.with_rule_for_others(rule),
            None => table,
        })
    }

    /// The rule of a `VirtualService`'s route, for what is asked by `matches`.
    pub(super) fn istio_rule(
        &mut self,
        Effective { document, name, left_by, route, mirrors, .. }: &Effective<'_>,
        matches: Vec<Match>,
        problems: &mut Problems,
    ) -> Rule {
        let field = format!("spec.http[{}].route", route.index);
        let backends: Vec<_> = route
            .destinations
            .iter()
            .map(|destination| {
                let reference = Reference::Destination(destination);
                let place = (*document, &*field, *left_by);
                let backend = self.backend_for(place, reference, Share::Requests, problems);
                filters::share(backend, destination)
            })
            .collect();
        let mut filters = filters::of_route(route);
        // Of what is answered at once there is no copy either.
        let mirrors = mirrors.iter().filter(|_| filters.answer.is_none());
        filters.mirrors = mirrors
            .map(|Mirrored { document, field, to, fraction }| {
                self.mirror(document, field, Reference::Mirror(to), *fraction, problems)
            })
            .collect();
        let said = route.timeout.map(|time| Timeouts {
            request: Some(time).filter(|time| !time.is_zero()),
            ..Timeouts::default()
        });
        let (timeouts, retry) = self.times(said, route.retry.as_ref());
        let session = self.session_of_service(&backends, name, Some((*document, &*field)), problems);
        Rule {
            name: name.clone(),
            session,
            matches: filters::with_prefix(matches, &filters),
            backends,
            timeout: timeouts.request,
            stream: timeouts.stream,
            retry,
            filters,
            access_log: self.access_log(document, *left_by, problems),
            ..Rule::default()
        }
    }

    /// The index of the whole service of this port. `None`: it is a gateway's.
    pub(super) fn own(&mut self) -> Option<usize> {
        let port = self.port?;
        let whole = BackendName { service: port.key.clone(), subset: None };
        Some(self.index(None, Resolved { name: whole, host: Ok(port.host) }))
    }

    /// The index of the backend that `reference`, in the list `list` of `document`, means. It may be broken: what becomes
    /// of its `share` then is reported.
    pub(in super::super) fn backend<T>(
        &mut self,
        document: &Document<T>,
        list: &str,
        reference: Reference<'_>,
        share: Share,
        problems: &mut Problems,
    ) -> usize {
        self.backend_for((document, list, None), reference, share, problems)
    }

    /// The same. `left_by`: as in [`Effective`].
    fn backend_for<T>(
        &mut self,
        (document, list, left_by): (&Document<T>, &str, Option<(&VirtualService, usize)>),
        reference: Reference<'_>,
        share: Share,
        problems: &mut Problems,
    ) -> usize {
        let here = self.port.map(|port| port.host);
        let resolved =
            self.routing.resolve(&document.name, list, reference, (self.number, self.grants, here));
        let index = self.index(Some(reference), resolved);
        let Some(BrokenReference { reason, why }) = self.broken.get(&index) else {
            self.report_unknown((document, list), reference, index, problems);
            return index;
        };
        let (fault, message) = (Fault::Backend(*reason), format!("{why} ({})", share.when_broken()));
        // A port that a delegate does not name is that of whoever leaves the route to it.
        let left_by = left_by.filter(|_| *reason == Unresolved::NoSuchPort && reference.names_no_port());
        if let Some(rule) = self.rule_of_clients(index, *reason, &document.name.namespace) {
            let message = format!(
                "clients in {} follow this rule, and {} sends to {message}",
                rule.name.namespace, document.name
            );
            problems.error(rule, "spec.host", message);
        } else if let Some((root, route)) = left_by {
            let message = format!("{} names no port: {message}", document.name);
            problems.fault(root, &delegate_field(route), message, fault);
        } else {
            problems.fault(document, &reference.field(list, *reason), message, fault);
        }
        index
    }

    /// Says if the clients who are led to the backend at `index` do not know of it: they are told of no endpoints. Of clients who
    /// do not know what they are to call, either, there are none.
    fn report_unknown<T>(
        &self,
        (document, list): (&Document<T>, &str),
        reference: Reference<'_>,
        index: usize,
        problems: &mut Problems,
    ) {
        let (client, key) = (self.client.namespace, &self.list[index].name.service);
        let Some(known) = self.routing.catalog.find(&key.host) else { return };
        let are_there = || self.port.is_none_or(|port| port.host.is_known_at(port.key.port, client));
        if known.is_known_at(key.port, client) || !are_there() {
            return;
        }
        let message = format!(
            "{}: {}, so others who follow this route are answered 503; have it exported to them, or write exportTo so that \
             they do not follow it",
            known.host,
            known.known_to(key.port)
        );
        problems.error(document, &reference.field(list, Unresolved::NoSuchHost), message);
    }

    /// The rule in the namespace of the clients, and in another than `namespace`, because of which the backend at `index` is
    /// broken for this `reason`, and would not be otherwise: whoever wrote the route has not asked for that rule, and cannot
    /// mend it.
    fn rule_of_clients(
        &self,
        index: usize,
        reason: Unresolved,
        namespace: &str,
    ) -> Option<&'a Document<DestinationRuleSpec>> {
        let client = self.client.namespace.filter(|client| *client != namespace)?;
        let (routing, name) = (self.routing, &self.list[index].name);
        let known = routing.catalog.find(&name.service.host)?;
        let is_because_of_it = match (reason, &name.subset) {
            (Unresolved::Refused, _) => true,
            (Unresolved::NoSuchSubset, Some(subset)) => {
                let of_others = routing.rules.find(Client::of(None), known);
                of_others.is_some_and(|rules| rules.has_subset(subset))
            }
            _ => false,
        };
        let rules = routing.rules.find(self.client, known).filter(|_| is_because_of_it)?;
        rules.in_namespace(client)
    }

    /// Who gets copies of requests, as `reference` at `field` of `document` says.
    pub(super) fn mirror<T>(
        &mut self,
        document: &Document<T>,
        field: &str,
        reference: Reference<'_>,
        fraction: Fraction,
        problems: &mut Problems,
    ) -> Mirror {
        Mirror { backend: self.backend(document, field, reference, Share::Copies, problems), fraction }
    }

    /// The index of the backend at `index` under another name, and with what `change` makes of its policy.
    pub(in super::super) fn changed(
        &mut self,
        index: usize,
        called: &str,
        change: impl FnOnce(&mut TrafficPolicy),
    ) -> usize {
        let mut changed = self.list[index].clone();
        // What its endpoints are is said by labels: the name of a subset tells it from the one that is not changed.
        let subset =
            changed.name.subset.map_or_else(|| called.to_owned(), |subset| format!("{subset} {called}"));
        changed.name.subset = Some(subset.into());
        if let Some(there) = self.list.iter().position(|backend| backend.name == changed.name) {
            return there;
        }
        change(&mut changed.policy);
        self.sign_cookies(&mut changed.policy);
        self.list.push(changed);
        self.list.len() - 1
    }

    /// Whether TLS is begun with the backend at `index` because a `BackendTLSPolicy` says so.
    pub(super) fn begins_tls_for_policy(&self, index: usize) -> bool {
        let tls = self.list[index].policy.tls.as_ref();
        matches!(tls, Some(UpstreamTls::Originate(origination)) if origination.policy.is_some())
    }

    /// The index of the backend at `index`, without what a `BackendTLSPolicy` asks for: for what is TLS already.
    pub(super) fn without_policys_tls(&mut self, index: usize) -> usize {
        match self.begins_tls_for_policy(index) {
            true => self.changed(index, "(TLS of the client's own)", |policy| policy.tls = None),
            false => index,
        }
    }

    /// The number of the port called `port` of the Service `name` in `namespace`; `None`: there is no such Service.
    ///
    /// # Errors
    /// If it has no port of that name: what is wrong, and the remedy.
    pub(in super::super) fn port_named(
        &self,
        namespace: &str,
        name: &str,
        port: &str,
    ) -> Result<Option<u16>, String> {
        let host = service_host(name, namespace, &self.routing.settings.cluster_domain);
        let Some(known) = self.routing.catalog.find(&host) else { return Ok(None) };
        let found = known.ports.keys().copied().find(|number| known.port_name(*number) == Some(port));
        match found {
            Some(number) => Ok(Some(number)),
            None => {
                let names = known.ports.keys().filter_map(|number| known.port_name(*number));
                let remedy = match some_of(names) {
                    None => known.port_remedy(),
                    Some(names) => format!("use one of {names}"),
                };
                Err(format!("{host} has no port called {port:?}; {remedy}"))
            }
        }
    }

    /// The index of a backend that cannot be used, for this reason.
    pub(in super::super) fn unusable(&mut self, called: &str, why: String) -> usize {
        let name = BackendName { service: ServiceKey::new(called, self.number), subset: None };
        if let Some(there) = self.list.iter().position(|backend| backend.name == name) {
            return there;
        }
        let (labels, policy) = (BTreeMap::new(), TrafficPolicy::default());
        self.list.push(Backend { name, labels, policy, broken: Some(why) });
        self.list.len() - 1
    }

    /// The index of the backend that `reference` means, which is made if it is not in the list.
    fn index(&mut self, reference: Option<Reference<'_>>, resolved: Resolved<'_>) -> usize {
        let Resolved { name, host } = resolved;
        if let Some(index) = self.list.iter().position(|backend| backend.name == name) {
            return index;
        }
        let index = self.list.len();
        let at_gateway = self.port.is_none();
        let made = host.and_then(|known| {
            let (labels, mut policy) = self.whole_or_subset(known, &name)?;
            // A client of a gateway does not know what its apps speak.
            let as_client = policy.connection_pool.http2_upgrade == Http2Upgrade::AsClient;
            policy.spoken = (at_gateway && !as_client)
                .then(|| known.ports.get(&name.service.port).copied().unwrap_or_default());
            let traffic = self.routing.backend_traffic.find(known);
            policy.retry_budget = traffic.and_then(|traffic| traffic.spec.retry).or(policy.retry_budget);
            let asked = self.routing.backend_tls.find(known, name.service.port);
            let refused = match asked.cloned().transpose() {
                Ok(tls) => {
                    policy.tls = tls.map(UpstreamTls::Originate).or(policy.tls);
                    None
                }
                // The policy's own author is told; the reference is what it should be.
                Err(why) => Some(why),
            };
            self.sign_cookies(&mut policy);
            Ok((labels, policy, refused))
        });
        let backend = match made {
            Ok((labels, policy, refused)) => Backend { name, labels, policy, broken: refused },
            Err(broken) => {
                let words = Some(broken.words(reference));
                self.broken.insert(index, broken);
                Backend { name, labels: BTreeMap::new(), policy: TrafficPolicy::default(), broken: words }
            }
        };
        self.list.push(backend);
        index
    }

    /// The labels that a backend's endpoints have, and how they are called.
    fn whole_or_subset(
        &self,
        known: &KnownHost<'_>,
        name: &BackendName,
    ) -> Result<(BTreeMap<String, String>, TrafficPolicy), BrokenReference> {
        let rules = self.routing.rules.find(self.client, known);
        if let Some(why) = rules.and_then(|rules| rules.refusal(&known.host)) {
            return Err(BrokenReference::new(Unresolved::Refused, why));
        }
        let port = name.service.port;
        let Some(subset) = &name.subset else {
            let policy = rules.map_or_else(|| without_rules(known, port), |rules| rules.policy(known, port));
            return Ok((BTreeMap::new(), policy));
        };
        if let Some(found) = rules.and_then(|rules| rules.subset(subset, known, port)) {
            return Ok(found);
        }
        let elsewhere = self.routing.rules.subset_elsewhere(subset, known);
        let is_here = |namespace: &str| self.client.namespace == Some(namespace);
        if let Some(rule) = elsewhere
            && let Some(selector) = &rule.spec.selector
        {
            let (namespace, selected) = (Arc::clone(&rule.name.namespace), Some(Arc::new(selector.clone())));
            let others = if is_here(&namespace) { "others there" } else { "others" };
            let message = format!(
                "the subset {subset:?} of {} is defined by {}, which only clients in namespace {} follow, so for {others} there \
                 is none; add a DestinationRule without workloadSelector that defines it",
                known.host,
                rule.name,
                Clients { namespace, selected },
            );
            return Err(BrokenReference::new(Unresolved::NoSuchSubset, message));
        }
        if let Some(rule) = elsewhere.filter(|rule| !is_here(&rule.name.namespace)) {
            let namespace = &rule.name.namespace;
            let message = format!(
                "the subset {subset:?} of {} is defined by {}, which only clients in namespace {namespace} follow, so for \
                 others there is none; move it to namespace {}, or export the route to {namespace} alone",
                known.host, rule.name, known.namespace,
            );
            return Err(BrokenReference::new(Unresolved::NoSuchSubset, message));
        }
        let defined = rules.and_then(|rules| some_of(rules.subset_names()));
        let remedy = match (rules, defined) {
            (None, _) => "add a DestinationRule with this subset".to_owned(),
            (Some(_), None) => "add it to the host's DestinationRule".to_owned(),
            (Some(_), Some(defined)) => format!("add it, or use one of {defined}"),
        };
        let message =
            format!("no DestinationRule for {} defines the subset {subset:?}; {remedy}", known.host);
        Err(BrokenReference::new(Unresolved::NoSuchSubset, message))
    }
}

/// Whether there are clients that `rule` is not for.
fn is_for_certain_clients(rule: &Rule) -> bool {
    !rule.matches.is_empty() && rule.matches.iter().all(|one| one.client != ClientMatch::default())
}

/// What a backend has a share of.
#[derive(Debug, Clone, Copy)]
pub(in super::super) enum Share {
    Requests,
    /// As of routes of the Gateway API.
    GatewayRequests,
    /// Of copies of requests.
    Copies,
    Connections,
}

impl Share {
    /// What becomes of the share of a backend that cannot be used.
    pub(super) fn when_broken(self) -> &'static str {
        match self {
            Self::Requests => "its share of requests is answered 503",
            Self::GatewayRequests => "its share of requests is answered 500",
            Self::Copies => "no copies are sent to it; the requests themselves are not affected",
            Self::Connections => "its share of connections is refused",
        }
    }
}
