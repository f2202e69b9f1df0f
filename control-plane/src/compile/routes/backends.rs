//! The backends that the routes of one view name, and what is wrong with those that cannot be used.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    Backend, BackendName, Order, RouteTable, Rule, ServiceKey, TrafficPolicy, WeightedBackend,
};

use super::{
    super::{
        Problems,
        hosts::{resolve, suggestion},
        services::KnownHost,
    },
    Port, Routing, VirtualService,
};
use crate::resources::{
    gateway_tcp::Broken,
    virtual_service::{Destination, HttpRoute, on_port},
};

/// The backends of one view, as its routes come to name them.
pub(super) struct Backends<'a> {
    pub(super) routing: &'a Routing<'a>,
    pub(super) client: Option<&'a str>,
    pub(super) port: &'a Port<'a>,
    pub(super) list: Vec<Backend>,
    /// What is wrong with those that cannot be used, by their place in the list.
    broken: BTreeMap<usize, Broken>,
}

impl<'a> Backends<'a> {
    /// None, as seen by clients in the namespace `client`, or by all others.
    pub(super) fn new(routing: &'a Routing<'a>, client: Option<&'a str>, port: &'a Port<'a>) -> Self {
        Self { routing, client, port, list: Vec::new(), broken: BTreeMap::new() }
    }

    /// Everything to the whole service.
    pub(super) fn default_route(&mut self) -> RouteTable {
        let whole = BackendName { service: self.port.key.clone(), subset: None };
        let backend = self.index(whole, |backends, name| backends.whole(backends.port.host, name));
        let rule = Rule {
            name: "default".to_owned(),
            backends: vec![WeightedBackend::new(backend, 1)],
            ..Rule::default()
        };
        RouteTable::new(Order::Listed, vec![rule])
    }

    /// The routes of `document` for this port; `None` if all of them are for other ports.
    pub(super) fn routes(
        &mut self,
        document: &VirtualService,
        problems: &mut Problems,
    ) -> Option<RouteTable> {
        let mut rules = Vec::new();
        let mut all_for_other_ports = true;
        for route in &document.spec.http {
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
                    WeightedBackend::new(
                        self.backend(document, &field, destination, Share::Requests, problems),
                        destination.weight,
                    )
                })
                .collect();
            rules.push(Rule {
                name: rule_name(document, route),
                matches,
                backends,
                timeout: route.timeout,
                retry: route.retry.clone(),
                ..Rule::default()
            });
        }
        (!all_for_other_ports).then(|| RouteTable::new(Order::Listed, rules))
    }

    /// The index of the backend that `destination`, in the list `field`, names. It may be broken: what becomes of its
    /// `share` then is reported.
    pub(super) fn backend(
        &mut self,
        document: &VirtualService,
        field: &str,
        destination: &Destination,
        share: Share,
        problems: &mut Problems,
    ) -> usize {
        let settings = self.routing.settings;
        let host = resolve(&destination.host, &document.name.namespace, &settings.cluster_domain);
        let known = self.routing.catalog.find(&host);
        let only_port =
            known.filter(|known| known.ports.len() == 1).and_then(|known| known.ports.keys().next());
        let port = destination.port.or(only_port.copied()).unwrap_or(self.port.key.port);
        let subset = destination.subset.as_deref().map(Arc::from);
        let name = BackendName { service: ServiceKey::new(&host, port), subset };
        let index = self.index(name, |backends, name| match known {
            None => {
                let catalog = backends.routing.catalog;
                let remedy = suggestion(&host, &settings.cluster_domain, |name| catalog.find(name).is_some());
                Err(Broken::new("host", format!("nothing is called {host}; {remedy}")))
            }
            Some(known) if !known.ports.contains_key(&port) => {
                Err(Broken::new("port", format!("{host} has no port {port}; {}", known.port_remedy())))
            }
            Some(known) => backends.whole_or_subset(known, name),
        });
        if let Some(Broken { part, why }) = self.broken.get(&index) {
            let place = format!("{field}[{}].destination.{part}", destination.index);
            problems.error(document, &place, format!("{why} ({})", share.when_broken()));
        }
        index
    }

    /// The index of the backend called `name`, which is made if it is not in the list.
    pub(super) fn index(
        &mut self,
        name: BackendName,
        make: impl FnOnce(&Self, BackendName) -> Result<Backend, Broken>,
    ) -> usize {
        if let Some(index) = self.list.iter().position(|backend| backend.name == name) {
            return index;
        }
        let index = self.list.len();
        let backend = make(self, name.clone()).unwrap_or_else(|broken| {
            let words = Some(broken.to_string());
            self.broken.insert(index, broken);
            Backend { name, labels: BTreeMap::new(), policy: TrafficPolicy::default(), broken: words }
        });
        self.list.push(backend);
        index
    }

    fn whole_or_subset(&self, known: &KnownHost<'_>, name: BackendName) -> Result<Backend, Broken> {
        let Some(subset) = name.subset.clone() else {
            return self.whole(known, name);
        };
        let rules = self.routing.rules.find(self.client, known);
        if let Some(why) = rules.and_then(|rules| rules.refusal(&known.host)) {
            return Err(Broken::new("host", why));
        }
        if let Some((labels, policy)) =
            rules.and_then(|rules| rules.subset(&subset, known, name.service.port))
        {
            return Ok(Backend { name, labels, policy, broken: None });
        }
        let defined = rules.map(|rules| rules.subset_names()).unwrap_or_default();
        let remedy = match (rules, defined.is_empty()) {
            (None, _) => "add a DestinationRule with this subset".to_owned(),
            (Some(_), true) => "add it to the host's DestinationRule".to_owned(),
            (Some(_), false) => format!("add it, or use one of {}", defined.join(", ")),
        };
        let message =
            format!("no DestinationRule for {} defines the subset {subset:?}; {remedy}", known.host);
        Err(Broken::new("subset", message))
    }

    pub(super) fn whole(&self, known: &KnownHost<'_>, name: BackendName) -> Result<Backend, Broken> {
        let rules = self.routing.rules.find(self.client, known);
        if let Some(why) = rules.and_then(|rules| rules.refusal(&known.host)) {
            return Err(Broken::new("host", why));
        }
        let policy = rules.map(|rules| rules.policy(known, name.service.port));
        Ok(Backend { name, labels: BTreeMap::new(), policy: policy.unwrap_or_default(), broken: None })
    }
}

/// What a backend has a share of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share {
    Requests,
    Connections,
}

impl Share {
    /// What becomes of the share of a backend that cannot be used.
    pub(super) fn when_broken(self) -> &'static str {
        match self {
            Self::Requests => "its share of requests is answered 503",
            Self::Connections => "its share of connections is refused",
        }
    }
}

fn rule_name(document: &VirtualService, route: &HttpRoute) -> String {
    match &route.name {
        Some(name) => format!("{} http[{}] {name}", document.name, route.index),
        None => format!("{} http[{}]", document.name, route.index),
    }
}
