//! Binds a service's rules to their backends, and to the series that count what goes to each.

use std::{collections::HashMap, sync::Arc, time::Instant};

use http::StatusCode;
use selvedge_model::{
    BackendName, Called, Filters, RouteTable, Rule, Service, TcpRule, WeightedBackend, WorkloadName,
    filter::Mirror, gateway::UserList,
};

use super::inputs::{BoundKey, Inputs};
use crate::{
    balance::Hedging,
    bind::{
        Bound, BoundBackend, BoundFilters, BoundHttp, BoundMirror, BoundRule, BoundSession, BoundShare,
        BoundTcp, BoundTcpRule, Limiters, SeriesPair,
    },
    budget::RetryBudget,
    telemetry::{Labels, Metrics, Peer, RouteLog, Series},
};

/// Binds services: the inputs that are the same for all of them.
pub(super) struct RuleBinder<'a> {
    /// The workload that calls.
    pub(super) own: &'a WorkloadName,
    pub(super) metrics: &'a Metrics,
    pub(super) limiters: &'a Limiters,
    pub(super) now: Instant,
}

impl RuleBinder<'_> {
    /// The rules of `inputs` for us; `None`: they are the same for all.
    fn routes(&self, inputs: &Inputs) -> Option<RouteTable> {
        let labels = inputs.client.as_ref()?;
        Some(inputs.service.routes.clone().for_client(labels, self.own.namespace()))
    }

    /// Binds `inputs`, which `bound_key` names. The retry budget of the `predecessor` goes on.
    pub(super) fn bind(
        &self,
        bound_key: &BoundKey,
        inputs: &Inputs,
        backends: Vec<Arc<BoundBackend>>,
        predecessor: Option<&Bound>,
    ) -> Bound {
        let service = &inputs.service;
        let budget = predecessor.map(|before| Arc::clone(&before.budget));
        let budget = budget.unwrap_or_else(|| Arc::new(RetryBudget::new(self.now)));
        // Everything unknown is counted together, and sent once, because no document says anything else.
        let is_known = !matches!(bound_key, BoundKey::Unknown(_));
        let labels = match is_known {
            true => Labels::outbound(self.own, &service.key),
            false => Labels::unknown_destination(self.own),
        };
        let rules = Rules {
            metrics: self.metrics,
            limiters: self.limiters,
            service,
            users: &inputs.users,
            backends: &backends,
            budget: &budget,
            labels,
            is_known,
            hedgings: hedgings(predecessor),
        };
        Bound {
            key: service.key.clone(),
            called: called(bound_key, service),
            protocol: service.protocol,
            requested: matches!(bound_key, BoundKey::Requested(..)),
            http: BoundHttp::new(
                service,
                self.routes(inputs),
                |rule| rules.http(rule),
                rules.requests(&rules.labels),
            ),
            tcp: BoundTcp::new(service, |rule| rules.tcp(rule), self.metrics.tcp(&rules.labels)),
            budget,
            backends,
        }
    }
}

/// Binds the rules of one service.
struct Rules<'a> {
    metrics: &'a Metrics,
    limiters: &'a Limiters,
    service: &'a Service,
    users: &'a [Arc<UserList>],
    backends: &'a [Arc<BoundBackend>],
    budget: &'a Arc<RetryBudget>,
    /// Of the service; those of rules and shares add to them.
    labels: Labels,
    /// Whether a document says anything of it. If not, all of its rules are counted together.
    is_known: bool,
    /// What is known of the answers of each rule's shares.
    hedgings: HashMap<(Arc<str>, BackendName), Arc<Hedging>>,
}

/// What is known of the answers of each rule's shares.
fn hedgings(predecessor: Option<&Bound>) -> HashMap<(Arc<str>, BackendName), Arc<Hedging>> {
    let rules = predecessor.into_iter().flat_map(|before| before.http.rules());
    let shares = rules.flat_map(|rule| rule.shares.iter().map(|share| (Arc::clone(&rule.name), share)));
    let known = shares.filter_map(|(rule, share)| {
        Some(((rule, share.backend.name.clone()), Arc::clone(share.hedging.as_ref()?)))
    });
    known.collect()
}

impl Rules<'_> {
    /// One rule for requests.
    fn http(&self, rule: &Rule) -> BoundRule {
        let name: Arc<str> = Arc::from(rule.name.as_str());
        let paths = || rule.matches.iter().map(|one| one.path.clone());
        let filters = |filters: &Filters| {
            let with = (self.limiters, self.users);
            BoundFilters::bind(filters, with, paths(), |mirror| self.mirror(&name, mirror))
        };
        let of_rule = match self.is_known {
            true => Labels { route: Arc::clone(&name), ..self.labels.clone() },
            false => self.labels.clone(),
        };
        let session = rule.session.as_deref().and_then(BoundSession::of).map(Arc::new);
        let access_log = rule.access_log.as_ref().map(|log| self.metrics.watched.of_route(log));
        let same = (session.as_ref(), access_log.as_ref());
        BoundRule {
            filters: filters(&rule.filters),
            shares: shares(&rule.backends, self.backends, same, filters, |backend| {
                let labels = self.of_share(&name, &backend.name);
                let series = pair(&labels, self.peers_of(backend), |labels| self.metrics.series(labels));
                (series.named(&labels), self.hedging(&name, backend))
            }),
            unusable_status: StatusCode::from_u16(rule.unusable_status)
                .unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
            series: self.requests(&of_rule),
            name,
            service: self.service.key.clone(),
            timeout: rule.timeout,
            stream: (!rule.stream.is_empty()).then_some(rule.stream),
            retry: self.is_known.then(|| rule.retry.clone()),
            budget: Arc::clone(self.budget),
            session,
            access_log,
        }
    }

    /// One mirror of the rule `route`.
    fn mirror(&self, route: &Arc<str>, mirror: &Mirror) -> BoundMirror {
        let backend = Arc::clone(&self.backends[mirror.backend]);
        let labels = labels_of_mirror(&self.labels, route, &backend.name);
        let series = pair(&labels, None, |labels| self.metrics.mirrored(labels));
        let share = BoundShare {
            weight: 0,
            filters: None,
            series,
            backend,
            session: None,
            hedging: None,
            access_log: None,
        };
        BoundMirror { share: Arc::new(share), fraction: mirror.fraction }
    }

    /// One rule for opaque connections. Filters are for requests.
    fn tcp(&self, rule: &TcpRule) -> BoundTcpRule {
        let name: Arc<str> = Arc::from(rule.name.as_str());
        let series = |backend: &BoundBackend| {
            let labels = self.of_share(&name, &backend.name);
            (pair(&labels, self.peers_of(backend), |labels| self.metrics.tcp(labels)), None)
        };
        BoundTcpRule { shares: shares(&rule.backends, self.backends, (None, None), |_| None, series), name }
    }

    /// `backend`, if metrics tell its endpoints apart.
    fn peers_of<'b>(&self, backend: &'b BoundBackend) -> Option<&'b BoundBackend> {
        self.metrics.tells_peers().then_some(backend)
    }

    /// When requests of the rule `route` to `backend` are hedged. What was known of their answers goes on.
    fn hedging(&self, route: &Arc<str>, backend: &BoundBackend) -> Option<Arc<Hedging>> {
        let hedge = backend.policy.hedge?;
        let known = self.hedgings.get(&(Arc::clone(route), backend.name.clone()));
        let known = known.filter(|known| known.hedge() == hedge).cloned();
        Some(known.unwrap_or_else(|| Arc::new(Hedging::new(hedge))))
    }

    fn of_share(&self, route: &Arc<str>, backend: &BackendName) -> Labels {
        match self.is_known {
            true if backend.service != self.service.key => Labels {
                destination_service: backend.service.to_string().into(),
                ..labels_of_share(&self.labels, route, backend)
            },
            true => labels_of_share(&self.labels, route, backend),
            false => self.labels.clone(),
        }
    }

    /// Of requests that no share takes: they go nowhere, and so never over mutual TLS.
    fn requests(&self, labels: &Labels) -> SeriesPair<Series> {
        let plain = self.metrics.series(labels);
        SeriesPair { mtls: Arc::clone(&plain), plain, by_peer: Box::default(), unnamed: None }.named(labels)
    }
}

/// The `shares` of one rule, each with its `filters`, and with what `state` says of its backend: what it is counted in,
/// and when it is hedged.
fn shares<S>(
    shares: &[WeightedBackend],
    backends: &[Arc<BoundBackend>],
    (session, access_log): (Option<&Arc<BoundSession>>, Option<&Arc<RouteLog>>),
    filters: impl Fn(&Filters) -> Option<Arc<BoundFilters>>,
    state: impl Fn(&BoundBackend) -> (SeriesPair<S>, Option<Arc<Hedging>>),
) -> Vec<Arc<BoundShare<S>>> {
    let share = |share: &WeightedBackend| {
        let backend = Arc::clone(&backends[share.backend]);
        let filters = share.filters.as_deref().and_then(&filters);
        let (series, hedging) = state(&backend);
        let (session, access_log) = (session.cloned(), access_log.cloned());
        Arc::new(BoundShare { weight: share.weight, filters, series, backend, session, hedging, access_log })
    };
    shares.iter().map(share).collect()
}

fn labels_of_share(labels: &Labels, route: &Arc<str>, backend: &BackendName) -> Labels {
    let destination_subset = backend.subset.clone().unwrap_or_default();
    Labels { route: Arc::clone(route), destination_subset, ..labels.clone() }
}

/// Of copies that go to `backend` by `route`: they are told by who gets them.
fn labels_of_mirror(labels: &Labels, route: &Arc<str>, backend: &BackendName) -> Labels {
    let labels = labels_of_share(labels, route, backend);
    Labels { server_address: Arc::clone(&backend.service.host), server_port: backend.service.port, ..labels }
}

/// The series with these `labels`; those of each workload that is an endpoint of `backend`, too, where metrics tell it apart.
fn pair<S>(
    labels: &Labels,
    backend: Option<&BoundBackend>,
    series: impl Fn(&Labels) -> Arc<S>,
) -> SeriesPair<S> {
    let of = |mtls| series(&Labels { mtls, ..labels.clone() });
    let mut by_peer: Vec<(Arc<Peer>, Arc<S>)> = Vec::new();
    let endpoints = backend.into_iter().flat_map(|backend| &backend.endpoints);
    for peer in endpoints.filter_map(|endpoint| endpoint.peer.as_ref()) {
        if !by_peer.iter().any(|(known, _)| Arc::ptr_eq(known, peer)) {
            let mtls = !peer.principal.is_empty();
            let labels = Labels { mtls, peer: Some(Arc::clone(peer)), ..labels.clone() };
            by_peer.push((Arc::clone(peer), series(&labels)));
        }
    }
    SeriesPair { mtls: of(true), plain: of(false), by_peer: by_peer.into(), unnamed: None }
}

/// How redirected connections find what is bound.
fn called(bound_key: &BoundKey, service: &Service) -> Called {
    match bound_key {
        BoundKey::Address(_) | BoundKey::Unknown(_) => Called::Itself,
        BoundKey::Service(_) | BoundKey::Requested(..) => Called::service(service),
    }
}
