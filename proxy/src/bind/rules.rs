//! A service's rules, each bound to what its shares go to and where they are counted.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use selvedge_model::{
    RetryPolicy, RouteTable, Service, ServiceKey, StreamTimeouts, TcpTable, draw,
    facts::{Connection, Request},
};

use super::{BoundBackend, BoundEndpoint, BoundFilters, BoundSession};
use crate::{
    balance::Hedging,
    budget::RetryBudget,
    telemetry::{Labels, Peer, RouteLog, Series, TcpSeries},
};

/// The half of a service's port that requests follow.
#[derive(Debug)]
pub struct BoundHttp {
    service: Arc<Service>,
    /// The service's rules for this client, if they are others than for all.
    own: Option<RouteTable>,
    /// In the order of the table.
    rules: Vec<Arc<BoundRule>>,
    /// Where requests are counted that no share takes.
    pub unrouted: SeriesPair<Series>,
}

impl BoundHttp {
    /// `bind` binds each of the rules of `service`, or of the client's `own`.
    pub fn new(
        service: &Arc<Service>,
        own: Option<RouteTable>,
        mut bind: impl FnMut(&selvedge_model::Rule) -> BoundRule,
        unrouted: SeriesPair<Series>,
    ) -> Self {
        let table = own.as_ref().unwrap_or(&service.routes);
        let rules = table.rules().iter().map(|rule| Arc::new(bind(rule))).collect();
        Self { service: Arc::clone(service), own, rules, unrouted }
    }

    /// The rules as configuration has them for this client.
    pub fn table(&self) -> &RouteTable {
        self.own.as_ref().unwrap_or(&self.service.routes)
    }

    /// The rules, as they were listed.
    pub fn rules(&self) -> &[Arc<BoundRule>] {
        &self.rules
    }

    /// The rule that `request` follows, and the index of the match that holds; `None` if it matches none.
    pub fn find(&self, request: &Request<'_>) -> Option<(&Arc<BoundRule>, Option<usize>)> {
        let followed = self.table().find(request)?;
        Some((self.rules.get(followed.rule)?, followed.matched))
    }
}

/// The half of a service's port that opaque connections follow.
#[derive(Debug)]
pub struct BoundTcp {
    service: Arc<Service>,
    /// In the order of the service's rules.
    rules: Vec<BoundTcpRule>,
    /// Whether a document says where connections go.
    pub is_written: bool,
    /// Whether it matters whom a connection's TLS asks for.
    pub has_names: bool,
    /// Where connections are counted that no share takes.
    pub unrouted: Arc<TcpSeries>,
}

impl BoundTcp {
    /// `bind` binds each of the rules of `service`.
    pub fn new(
        service: &Arc<Service>,
        bind: impl FnMut(&selvedge_model::TcpRule) -> BoundTcpRule,
        unrouted: Arc<TcpSeries>,
    ) -> Self {
        let table: &TcpTable = &service.tcp;
        Self {
            service: Arc::clone(service),
            rules: table.rules.iter().map(bind).collect(),
            is_written: table.is_written(),
            has_names: table.has_names(),
            unrouted,
        }
    }

    /// The rules, as they were listed.
    pub fn rules(&self) -> &[BoundTcpRule] {
        &self.rules
    }

    /// The rule that `connection` follows; `None` if it matches none.
    pub fn find(&self, connection: &Connection<'_>) -> Option<&BoundTcpRule> {
        self.rules.get(self.service.tcp.find(connection)?)
    }
}

/// What happens to the requests that follow one rule. It says all that the steps after the match ask for.
#[derive(Debug)]
pub struct BoundRule {
    /// What it is called in logs and errors.
    pub name: Arc<str>,
    /// The service's port that it belongs to.
    pub service: ServiceKey,
    /// What happens to its requests before a backend is drawn, and to the answers.
    pub filters: Option<Arc<BoundFilters>>,
    /// Where its requests go. None, or weights that sum to nothing: answered with `unusable_status`.
    pub shares: Vec<Arc<BoundShare>>,
    /// The status for requests that have no backend which can be used.
    pub unusable_status: StatusCode,
    /// Where requests are counted that no share takes.
    pub series: SeriesPair<Series>,
    /// Time for the whole request, retries included.
    pub timeout: Option<Duration>,
    /// Time for the answer once the request is sent, and without anything passing; `None`: neither is limited.
    pub stream: Option<StreamTimeouts>,
    /// When a failed attempt is followed by another; `None`: there is only one, whatever becomes of it.
    pub retry: Option<RetryPolicy>,
    /// What limits retries to the service.
    pub budget: Arc<RetryBudget>,
    /// What keeps its sessions at their endpoints; `None`: there are none.
    pub session: Option<Arc<BoundSession>>,
    /// Where lines about its requests go; `None`: as the workload has it.
    pub access_log: Option<Arc<RouteLog>>,
}

/// What happens to the opaque connections that follow one rule.
#[derive(Debug)]
pub struct BoundTcpRule {
    /// What it is called in errors.
    pub name: Arc<str>,
    /// Where its connections go. None, or weights that sum to nothing: refused.
    pub shares: Vec<Arc<BoundShare<TcpSeries>>>,
}

/// A backend's share of what follows a rule; `S`: what it is counted in.
#[derive(Debug)]
pub struct BoundShare<S = Series> {
    /// Where it goes.
    pub backend: Arc<BoundBackend>,
    /// It gets `weight` / the sum of all in its rule.
    pub weight: u32,
    /// What happens to it alone.
    pub filters: Option<Arc<BoundFilters>>,
    /// Where it is counted.
    pub series: SeriesPair<S>,
    /// The same as its rule's.
    pub session: Option<Arc<BoundSession>>,
    /// Likewise.
    pub access_log: Option<Arc<RouteLog>>,
    /// When its requests go to a second endpoint, too; `None`: never.
    pub hedging: Option<Arc<Hedging>>,
}

impl<S> BoundShare<S> {
    /// Draws one of `shares` by weight; `None` if the weights sum to nothing.
    pub fn draw<'a>(shares: &'a [Arc<Self>], rng: &mut fastrand::Rng) -> Option<&'a Arc<Self>> {
        shares.get(draw(shares.iter().map(|share| share.weight), rng)?)
    }
}

/// The series of one thing that is counted by whether mutual TLS carries it, and by who it goes to where that is told
/// apart.
#[derive(Debug)]
pub struct SeriesPair<S> {
    /// Over mutual TLS.
    pub mtls: Arc<S>,
    /// In plaintext, and what failed before there was a connection.
    pub plain: Arc<S>,
    /// By the workload that it goes to. Empty without `--metrics-compat`.
    pub by_peer: Box<[(Arc<Peer>, Arc<S>)]>,
    /// What it is of, where metrics have no room for it and count it with others.
    pub unnamed: Option<Box<Labels>>,
}

impl SeriesPair<Series> {
    /// Keeps what it is of, if metrics have no room for that.
    #[must_use]
    pub fn named(mut self, labels: &Labels) -> Self {
        self.unnamed = self.plain.labels().is_none().then(|| Box::new(labels.clone()));
        self
    }

    /// What it is of.
    pub fn labels(&self) -> Option<&Labels> {
        self.plain.labels().or(self.unnamed.as_deref())
    }
}

impl<S> SeriesPair<S> {
    /// The one of the two; `mtls`: whether mutual TLS carries it.
    pub fn of(&self, mtls: bool) -> &Arc<S> {
        if mtls { &self.mtls } else { &self.plain }
    }

    /// Where what goes to `endpoint` is counted; `None`: it goes nowhere.
    pub fn at(&self, endpoint: Option<&BoundEndpoint>) -> &Arc<S> {
        let Some(endpoint) = endpoint else { return &self.plain };
        if let Some(peer) = &endpoint.peer
            && let Some((_, series)) = self.by_peer.iter().find(|(known, _)| Arc::ptr_eq(known, peer))
        {
            return series;
        }
        self.of(endpoint.target.identity.is_some())
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::WorkloadName;

    use super::*;
    use crate::telemetry::Metrics;

    #[test]
    fn what_metrics_have_no_room_for_keeps_its_name() {
        let metrics = Metrics::new(1);
        let own: WorkloadName = "default/frontend".parse().expect("a name");
        let service = ServiceKey::new("reviews", 9080);
        // Those that nobody holds are forgotten.
        let mut held = Vec::new();
        let pair = (0..100_000).find_map(|route: u32| {
            let labels = Labels { route: route.to_string().into(), ..Labels::outbound(&own, &service) };
            let plain = metrics.series(&labels);
            held.push(Arc::clone(&plain));
            let pair = SeriesPair { mtls: Arc::clone(&plain), plain, by_peer: Box::default(), unnamed: None };
            Some((pair.named(&labels), route)).filter(|(pair, _)| pair.plain.labels().is_none())
        });

        let (pair, route) = pair.expect("there is a limit");
        let labels = pair.labels().expect("its own");
        assert_eq!((&*labels.server_address, labels.server_port), ("reviews", 9080));
        assert_eq!(*labels.route, route.to_string());
    }
}
