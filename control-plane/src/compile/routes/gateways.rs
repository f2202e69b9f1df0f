//! The routes of a `VirtualService` as a gateway follows them.
//!
//! At a gateway, all `VirtualService`s of one host are one list, as in Istio: each ends with its first route for
//! everything, and those routes move behind all others.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_model::{
    Backend, ClientMatch, Layer, Match, Rule, StringMatch, TcpMatch, TcpRule, WeightedBackend, facts,
};

use super::{super::Problems, Routing, VirtualService, backends::Backends, delegates::Effective};
use crate::resources::virtual_service::{Follower, asked};

/// About how much memory a backend takes in which a rule has a share, with the reason why it cannot be used, in bytes.
const OF_BACKEND: usize = size_of::<Backend>() + size_of::<WeightedBackend>() + 256;

/// The gateway workload that follows a document, and the `Gateway` because of which it does.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Asker<'a> {
    /// The namespace and the name of the `Gateway`.
    pub(in super::super) gateway: (&'a str, &'a str),
    /// The namespace of the workload.
    pub(in super::super) namespace: &'a str,
    /// The labels of the workload.
    pub(in super::super) labels: &'a BTreeMap<String, String>,
}

impl<'a> Routing<'a> {
    /// About how much memory what `document` says takes, with what it leaves to delegates, in bytes.
    pub(in super::super) fn written(&self, document: &VirtualService) -> usize {
        document.size.saturating_add(self.delegated.get(&document.name).copied().unwrap_or_default())
    }

    /// About how much memory is taken by what sidecars make of it for one port, in bytes: a rule is many times what it takes to
    /// write one.
    pub(super) fn size(&self, document: &VirtualService) -> usize {
        let of_requests = self.http_routes(document).iter().map(|Effective { route, mirrors, .. }| {
            let matches = route.matches.as_ref().map_or(0, Vec::len);
            let backends = (route.destinations.len() + mirrors.len()) * OF_BACKEND;
            size_of::<Rule>() + matches * size_of::<Match>() + backends
        });
        let of_connections = document.spec.tcp.iter().map(|route| {
            let matches = route.matches.as_ref().map_or(0, Vec::len);
            size_of::<TcpRule>() + matches * size_of::<TcpMatch>() + route.destinations.len() * OF_BACKEND
        });
        self.written(document).saturating_add(of_requests.chain(of_connections).sum())
    }

    /// The labels of clients that `document` asks for at gateways.
    pub(in super::super) fn source_labels<'r>(
        &'r self,
        document: &'r VirtualService,
    ) -> impl Iterator<Item = (&'r String, &'r String)> {
        let effective = self.routes_of_gateways.get(&document.name).into_iter().flatten();
        let of_requests = effective.flat_map(|effective| effective.route.matches.iter().flatten());
        let of_requests = of_requests.flat_map(|one| &one.condition.client.labels);
        let opaque = document.spec.tcp.iter().flat_map(|route| route.matches.iter().flatten());
        of_requests.chain(opaque.flat_map(|one| &one.condition.source_labels))
    }
}

impl Backends<'_> {
    /// The rules for requests of `document` at a gateway.
    pub(in super::super) fn at_gateway(
        &mut self,
        document: &VirtualService,
        asker: Asker<'_>,
        problems: &mut Problems,
    ) -> Vec<Rule> {
        let routing = self.routing;
        let follower = Follower::Gateway(asker.gateway.0, asker.gateway.1);
        let mut rules: Vec<Rule> = Vec::new();
        for effective in routing.routes_of_gateways.get(&document.name).into_iter().flatten() {
            let asked = asked(effective.route.matches.as_deref(), self.number, follower);
            let Some(mut matches) = asked.and_then(|matches| for_workload(matches, asker)) else { continue };
            let last = matches.iter().position(is_for_everything);
            if let Some(last) = last {
                matches.truncate(last + 1);
            }
            let ends = last.is_some() || matches.is_empty();
            rules.push(self.istio_rule(effective, matches, problems));
            if ends {
                break;
            }
        }
        rules
    }

    /// The rules for opaque connections of `document` at a gateway.
    pub(in super::super) fn opaque_at_gateway(
        &mut self,
        document: &VirtualService,
        layer: Layer,
        asker: Asker<'_>,
        problems: &mut Problems,
    ) -> Vec<TcpRule> {
        let follower = Follower::Gateway(asker.gateway.0, asker.gateway.1);
        let mut rules = self.istio(document, layer, follower, problems);
        rules.retain_mut(|rule| {
            let is_for_all = rule.matches.is_empty();
            rule.matches.retain(|one| {
                one.source_namespace.as_deref().is_none_or(|namespace| namespace == asker.namespace)
                    && facts::selects(&one.source_labels, asker.labels)
            });
            for one in &mut rule.matches {
                one.source_namespace = None;
                one.source_labels.clear();
            }
            is_for_all || !rule.matches.is_empty()
        });
        if let Some(last) = rules.iter().position(TcpRule::takes_all_bytes) {
            rules.truncate(last + 1);
        }
        rules
    }
}

/// Brings the rules of several documents for opaque connections into their order: what takes everything comes last.
pub(in super::super) fn takers_of_all_last(rules: &mut [TcpRule]) {
    rules.sort_by_key(TcpRule::takes_all_bytes);
}

/// `matches` without those that are for other workloads; `None` if there are no others.
fn for_workload(mut matches: Vec<Match>, asker: Asker<'_>) -> Option<Vec<Match>> {
    if matches.is_empty() {
        return Some(matches);
    }
    matches.retain(|one| one.client.is_match(asker.labels, asker.namespace));
    for one in &mut matches {
        one.client = ClientMatch::default();
    }
    (!matches.is_empty()).then_some(matches)
}

/// `rules`, of which what is for everything stands last.
pub(in super::super) fn catch_alls_last(rules: Vec<Arc<Rule>>) -> Vec<Arc<Rule>> {
    let mut last = Vec::new();
    let mut sorted = Vec::new();
    for rule in rules {
        if rule.matches.iter().all(is_for_everything) {
            last.push(rule);
            continue;
        }
        if !rule.matches.iter().any(is_for_everything) {
            sorted.push(rule);
            continue;
        }
        let mut rule = Arc::unwrap_or_clone(rule);
        let (everything, matches) = rule.matches.drain(..).partition(is_for_everything);
        last.push(Arc::new(Rule { matches: everything, ..rule.clone() }));
        sorted.push(Arc::new(Rule { matches, ..rule }));
    }
    sorted.append(&mut last);
    sorted
}

/// Whether `one` asks for nothing but any path.
fn is_for_everything(one: &Match) -> bool {
    let any_path = match &one.path {
        None => true,
        Some(StringMatch::Prefix(prefix)) => prefix == "/",
        Some(StringMatch::Regex(regex)) => regex.source() == ".*",
        Some(_) => false,
    };
    any_path && Match { path: None, ignore_path_case: false, ..one.clone() } == Match::default()
}
