//! Binds a service's rules to their backends, and to the series that count what goes to each.

use std::{sync::Arc, time::Instant};

use selvedge_model::{BackendName, Rule, Service, TcpRule, WeightedBackend, WorkloadName};

use super::{Meaning, Source};
use crate::{
    bind::{
        Bound, BoundBackend, BoundHttp, BoundRule, BoundShare, BoundTcp, BoundTcpRule, Called, SeriesPair,
    },
    retry::Budget,
    telemetry::{Labels, Metrics},
};

/// What a [`Bound`] is made with, besides what it is made of.
pub(super) struct With<'a> {
    /// The workload that calls.
    pub(super) own: &'a WorkloadName,
    pub(super) metrics: &'a Metrics,
    pub(super) now: Instant,
}

impl With<'_> {
    /// What `meaning` is made of, bound; its retry budget goes on as that of the `predecessor`.
    pub(super) fn bind(
        &self,
        meaning: &Meaning,
        source: &Source,
        backends: Vec<Arc<BoundBackend>>,
        predecessor: Option<&Bound>,
    ) -> Bound {
        let service = &source.service;
        let budget = predecessor.map(|before| Arc::clone(&before.budget));
        let budget = budget.unwrap_or_else(|| Arc::new(Budget::new(self.now)));
        let labels = Labels::outbound(self.own, &service.key);
        let requests = |labels: &Labels| pair(labels, |labels| self.metrics.series(labels));
        let connections = |labels: &Labels| pair(labels, |labels| self.metrics.tcp(labels));
        let rule = |rule: &Rule| {
            let name: Arc<str> = Arc::from(rule.name.as_str());
            BoundRule {
                shares: shares(&name, &rule.backends, &backends, &labels, requests),
                name,
                service: service.key.clone(),
                timeout: rule.timeout,
                retry: rule.retry.clone(),
                budget: Arc::clone(&budget),
            }
        };
        let tcp_rule = |rule: &TcpRule| {
            let name: Arc<str> = Arc::from(rule.name.as_str());
            BoundTcpRule { shares: shares(&name, &rule.backends, &backends, &labels, connections), name }
        };
        Bound {
            key: service.key.clone(),
            called: called(meaning, service),
            protocol: service.protocol,
            requested: matches!(meaning, Meaning::Requested(..)),
            http: BoundHttp::new(service, rule, requests(&labels)),
            tcp: BoundTcp::new(service, tcp_rule, self.metrics.tcp(&labels)),
            budget,
            backends,
        }
    }
}

/// The shares of the rule called `route`, counted apart from those of others.
fn shares<S>(
    route: &Arc<str>,
    shares: &[WeightedBackend],
    backends: &[Arc<BoundBackend>],
    labels: &Labels,
    series: impl Fn(&Labels) -> SeriesPair<S>,
) -> Vec<Arc<BoundShare<S>>> {
    let share = |share: &WeightedBackend| {
        let backend = Arc::clone(&backends[share.backend]);
        let labels = of_share(labels, route, &backend.name);
        Arc::new(BoundShare { weight: share.weight, series: series(&labels), backend })
    };
    shares.iter().map(share).collect()
}

fn of_share(labels: &Labels, route: &Arc<str>, backend: &BackendName) -> Labels {
    let destination_subset = backend.subset.clone().unwrap_or_default();
    Labels { route: Arc::clone(route), destination_subset, ..labels.clone() }
}

fn pair<S>(labels: &Labels, series: impl Fn(&Labels) -> Arc<S>) -> SeriesPair<S> {
    let of = |mtls| series(&Labels { mtls, ..labels.clone() });
    SeriesPair { mtls: of(true), plain: of(false) }
}

/// How redirected connections find what is bound.
fn called(meaning: &Meaning, service: &Service) -> Called {
    match meaning {
        Meaning::Address(_) => Called::Itself,
        Meaning::Service(_) | Meaning::Requested(..) if service.addresses.is_empty() => Called::ByName,
        Meaning::Service(_) | Meaning::Requested(..) => Called::ByAddress,
    }
}
