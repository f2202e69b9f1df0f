//! Binds a service's rules to their backends, and to the series that count what goes to each.

use std::{sync::Arc, time::Instant};

use http::StatusCode;
use selvedge_model::{
    BackendName, Called, Filters, RouteTable, Rule, Service, TcpRule, WeightedBackend, WorkloadName,
};

use super::{Meaning, Source};
use crate::{
    bind::{
        Bound, BoundBackend, BoundFilters, BoundHttp, BoundRule, BoundShare, BoundTcp, BoundTcpRule,
        SeriesPair,
    },
    budget::RetryBudget,
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
    /// The rules of `source` for us; `None`: they are the same for all.
    fn routes(&self, source: &Source) -> Option<RouteTable> {
        let labels = source.client.as_ref()?;
        Some(source.service.routes.clone().for_client(labels, self.own.namespace()))
    }

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
        let budget = budget.unwrap_or_else(|| Arc::new(RetryBudget::new(self.now)));
        // All that is not known is counted together, and is sent once, as no document says anything else.
        let is_known = !matches!(meaning, Meaning::Unknown(_));
        let labels = match is_known {
            true => Labels::outbound(self.own, &service.key),
            false => Labels::unknown_destination(self.own),
        };
        let of_share = |route: &Arc<str>, backend: &BackendName| match is_known {
            true => labels_of_share(&labels, route, backend),
            false => labels.clone(),
        };
        let requests = |labels: &Labels| pair(labels, |labels| self.metrics.series(labels));
        let connections = |labels: &Labels| pair(labels, |labels| self.metrics.tcp(labels));
        let rule = |rule: &Rule| {
            let name: Arc<str> = Arc::from(rule.name.as_str());
            let paths = || rule.matches.iter().map(|one| one.path.clone());
            let of_rule = match is_known {
                true => Labels { route: Arc::clone(&name), ..labels.clone() },
                false => labels.clone(),
            };
            BoundRule {
                filters: BoundFilters::bind(&rule.filters, paths()),
                shares: shares(
                    &rule.backends,
                    &backends,
                    |filters| BoundFilters::bind(filters, paths()),
                    |backend| requests(&of_share(&name, backend)),
                ),
                unusable_status: StatusCode::from_u16(rule.unusable_status)
                    .unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                series: requests(&of_rule),
                name,
                service: service.key.clone(),
                timeout: rule.timeout,
                retry: is_known.then(|| rule.retry.clone()),
                budget: Arc::clone(&budget),
            }
        };
        let tcp_rule = |rule: &TcpRule| {
            let name: Arc<str> = Arc::from(rule.name.as_str());
            BoundTcpRule {
                // Filters are for requests.
                shares: shares(
                    &rule.backends,
                    &backends,
                    |_| None,
                    |backend| connections(&of_share(&name, backend)),
                ),
                name,
            }
        };
        Bound {
            key: service.key.clone(),
            called: called(meaning, service),
            protocol: service.protocol,
            requested: matches!(meaning, Meaning::Requested(..)),
            http: BoundHttp::new(service, self.routes(source), rule, requests(&labels)),
            tcp: BoundTcp::new(service, tcp_rule, self.metrics.tcp(&labels)),
            budget,
            backends,
        }
    }
}

/// The `shares` of one rule, each with its `filters` and counted in the `series` of its backend.
fn shares<S>(
    shares: &[WeightedBackend],
    backends: &[Arc<BoundBackend>],
    filters: impl Fn(&Filters) -> Option<Arc<BoundFilters>>,
    series: impl Fn(&BackendName) -> SeriesPair<S>,
) -> Vec<Arc<BoundShare<S>>> {
    let share = |share: &WeightedBackend| {
        let backend = Arc::clone(&backends[share.backend]);
        let filters = share.filters.as_deref().and_then(&filters);
        Arc::new(BoundShare { weight: share.weight, filters, series: series(&backend.name), backend })
    };
    shares.iter().map(share).collect()
}

fn labels_of_share(labels: &Labels, route: &Arc<str>, backend: &BackendName) -> Labels {
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
        Meaning::Address(_) | Meaning::Unknown(_) => Called::Itself,
        Meaning::Service(_) | Meaning::Requested(..) => Called::service(service),
    }
}
