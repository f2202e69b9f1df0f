//! The backends that the routes of one view name, and what is wrong with those that cannot be used.

use std::collections::BTreeMap;

use selvedge_model::{
    Backend, BackendName, ClientMatch, Order, RetryPolicy, RouteTable, Rule, TrafficPolicy, WeightedBackend,
    filter::{Fraction, Mirror},
};

use super::{
    super::{Problems, services::KnownHost},
    Port, Routing, VirtualService,
    delegates::{Effective, Mirrored},
    filters,
    resolve::{BrokenReference, Reference, Resolved},
};
use crate::{
    problem::{Fault, Unresolved},
    resources::{Document, linkerd::Timeouts, virtual_service::on_port},
};

/// The backends of one view, as its routes come to name them.
pub(super) struct Backends<'a> {
    pub(super) routing: &'a Routing<'a>,
    pub(super) client: Option<&'a str>,
    pub(super) port: &'a Port<'a>,
    pub(super) list: Vec<Backend>,
    /// What is wrong with those that cannot be used, by their place in the list.
    broken: BTreeMap<usize, BrokenReference>,
}

impl<'a> Backends<'a> {
    /// None, as seen by clients in the namespace `client`, or by all others.
    pub(super) fn new(routing: &'a Routing<'a>, client: Option<&'a str>, port: &'a Port<'a>) -> Self {
        Self { routing, client, port, list: Vec::new(), broken: BTreeMap::new() }
    }

    /// Everything to the whole service.
    pub(super) fn default_route(&mut self) -> RouteTable {
        let rule = self.default_rule();
        RouteTable::new(Order::Listed, vec![rule])
    }

    fn default_rule(&mut self) -> Rule {
        let backend = self.own();
        let (timeouts, retry) = self.times(None, None);
        Rule {
            name: "default".to_owned(),
            backends: vec![WeightedBackend::new(backend, 1)],
            timeout: timeouts.request,
            stream: timeouts.stream,
            retry,
            ..Rule::default()
        }
    }

    /// The time limits and retries of a rule that says this of them: where it says nothing, what the annotations of the
    /// service say.
    pub(super) fn times(
        &self,
        timeouts: Option<Timeouts>,
        retry: Option<&RetryPolicy>,
    ) -> (Timeouts, RetryPolicy) {
        let of_service = self.port.host.annotated();
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
        for Effective { document, name, route, mirrors, .. } in routing.http_routes(document) {
            any_left_out |= route.left_out;
            let Some(matches) = on_port(route.matches.as_deref(), self.port.key.port) else {
                all_for_other_ports &= !route.left_out;
                continue;
            };
            all_for_other_ports = false;
            let field = format!("spec.http[{}].route", route.index);
            let backends = route
                .destinations
                .iter()
                .map(|destination| {
                    let reference = Reference::Destination(destination);
                    let backend = self.backend(document, &field, reference, Share::Requests, problems);
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
            rules.push(Rule {
                name: name.clone(),
                matches: filters::with_prefix(matches, &filters),
                backends,
                timeout: timeouts.request,
                stream: timeouts.stream,
                retry,
                filters,
                ..Rule::default()
            });
        }
        if all_for_other_ports {
            return None;
        }
        let may_be_for_nobody = !any_left_out && rules.iter().all(is_for_certain_clients);
        let table = RouteTable::new(Order::Listed, rules);
        Some(match may_be_for_nobody {
            true => table.with_rule_for_others(self.default_rule()),
            false => table,
        })
    }

    /// The index of the whole service of this port.
    pub(super) fn own(&mut self) -> usize {
        let whole = BackendName { service: self.port.key.clone(), subset: None };
        self.index(None, Resolved { name: whole, host: Ok(self.port.host) })
    }

    /// The index of the backend that `reference`, in the list `list` of `document`, means. It may be broken: what becomes
    /// of its `share` then is reported.
    pub(super) fn backend<T>(
        &mut self,
        document: &Document<T>,
        list: &str,
        reference: Reference<'_>,
        share: Share,
        problems: &mut Problems,
    ) -> usize {
        let resolved = self.routing.resolve(&document.name, list, reference, self.port.key.port);
        let index = self.index(Some(reference), resolved);
        if let Some(BrokenReference { reason, why }) = self.broken.get(&index) {
            let message = format!("{why} ({})", share.when_broken());
            problems.fault(document, &reference.field(list, *reason), message, Fault::Backend(*reason));
        }
        index
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

    /// The index of the backend that `reference` means, which is made if it is not in the list.
    fn index(&mut self, reference: Option<Reference<'_>>, resolved: Resolved<'_>) -> usize {
        let Resolved { name, host } = resolved;
        if let Some(index) = self.list.iter().position(|backend| backend.name == name) {
            return index;
        }
        let index = self.list.len();
        let made = host.and_then(|known| self.whole_or_subset(known, &name));
        let backend = match made {
            Ok((labels, policy)) => Backend { name, labels, policy, broken: None },
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
            let policy = rules.map(|rules| rules.policy(known, port)).unwrap_or_default();
            return Ok((BTreeMap::new(), policy));
        };
        if let Some(found) = rules.and_then(|rules| rules.subset(subset, known, port)) {
            return Ok(found);
        }
        let defined = rules.map(|rules| rules.subset_names()).unwrap_or_default();
        let remedy = match (rules, defined.is_empty()) {
            (None, _) => "add a DestinationRule with this subset".to_owned(),
            (Some(_), true) => "add it to the host's DestinationRule".to_owned(),
            (Some(_), false) => format!("add it, or use one of {}", defined.join(", ")),
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
pub(super) enum Share {
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
