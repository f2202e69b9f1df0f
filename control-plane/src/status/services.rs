//! The answer of `/services`: what each service's rules and endpoints are by the documents, and which endpoints get no requests
//! as the sidecars of this replica tell it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_model::{
    Endpoints, Mesh, Protocol, Service, ServiceKey, SpiffeId, WeightedBackend, WorkloadName, traffic::Out,
};
use serde::{Deserialize, Serialize};

use super::written::rfc3339;

/// Every service's port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicesShown {
    /// In the order of their hosts and ports.
    pub services: Vec<ServiceShown>,
    /// Endpoints that get no requests from some workload.
    pub out: Vec<OutShown>,
    /// Workloads with a sidecar that is not connected to this replica; it may be to another.
    #[serde(default)]
    pub absent: Vec<AbsentShown>,
    /// Whether there may be other replicas.
    #[serde(default)]
    pub is_in_cluster: bool,
    /// Whether it has started so lately that sidecars may still be coming back. Absent: it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting: Option<Starting>,
    /// Whether there may be replicas that were not asked: those who are absent here may be connected there.
    #[serde(skip)]
    pub is_partial: bool,
}

/// A control plane that has just started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starting {
    /// Since when it has had a configuration, so that sidecars can connect.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// How much longer sidecars may take to come back, in seconds.
    pub seconds_left: u64,
}

/// For so long after its start a control plane waits for sidecars: they are told to come back within 10 s, wait 5 s at most between two
/// attempts, and an attempt may take 15 s.
const WAITED: Duration = Duration::from_secs(30);
/// So much longer while they come faster than they are let in.
const WAITED_IN_TURN: Duration = Duration::from_secs(5);
/// But no longer than this.
const WAITED_AT_MOST: Duration = Duration::from_secs(120);

impl Starting {
    /// That of a control plane that has had a configuration since `at`; `is_crowded`: sidecars come faster than they are let in.
    /// `None`: it has not just started.
    pub(super) fn of(at: SystemTime, is_crowded: bool, now: SystemTime) -> Option<Self> {
        // Of a clock that was set back nothing is known.
        let age = now.duration_since(at).ok()?;
        let left = WAITED.saturating_sub(age);
        let left = if is_crowded && age < WAITED_AT_MOST { left.max(WAITED_IN_TURN) } else { left };
        let seconds_left = left.as_millis().div_ceil(1_000).try_into().unwrap_or_default();
        (!left.is_zero()).then_some(Self { at, seconds_left })
    }
}

/// A workload with a sidecar that is not connected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsentShown {
    /// Which.
    pub workload: WorkloadName,
    /// Since when. Absent: since the control plane started, or longer than is known.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    pub since: Option<SystemTime>,
}

/// One port of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceShown {
    /// The service's host.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// The rules by which requests and connections find their endpoints.
    pub routes: Vec<RouteShown>,
    /// What it has; those that only DNS knows are left out.
    pub endpoints: Vec<EndpointShown>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteShown {
    /// What it is called in logs, metrics and errors.
    pub name: String,
    /// Whether it is for opaque connections.
    pub is_tcp: bool,
    /// The namespace whose clients alone follow it; `None`: those of all namespaces without rules of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<Arc<str>>,
    /// Of these clients those alone that rules select by these of their labels; `None`: all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// Where it leads. None: it answers by itself, or cannot be followed.
    pub backends: Vec<ShareShown>,
}

/// A backend's share of what follows a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShareShown {
    /// The service's host.
    pub host: Arc<str>,
    /// The service's port.
    pub port: u16,
    /// The subset. Absent: all endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Arc<str>>,
    /// Its share, in percent.
    pub percent: u32,
    /// Why it cannot be used. Absent: it can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<String>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointShown {
    /// Where the app listens.
    pub address: SocketAddr,
    /// The workload, if one is known there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<WorkloadName>,
    /// Who must answer. Absent: it is called in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<SpiffeId>,
}

/// An endpoint that gets no requests from one workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutShown {
    /// From whose app.
    pub by: WorkloadName,
    /// The backend's service.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// Its subset. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Arc<str>>,
    /// Where the app listens.
    pub address: SocketAddr,
    /// How much longer, in seconds. Absent: until its health checks pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// Why: a word such as `consecutive-5xx` or `health-check`.
    pub why: Arc<str>,
    /// The last failure, in words.
    pub last_failure: Arc<str>,
}

impl ServicesShown {
    /// What `mesh` says, and what is `out` by workloads that `is_there`.
    pub(super) fn of(
        mesh: &Mesh,
        out: Vec<(WorkloadName, Out)>,
        is_there: impl Fn(&WorkloadName) -> bool,
    ) -> Self {
        let endpoints = |key: &ServiceKey| mesh.endpoints.get(key).map(|endpoints| shown(endpoints));
        let service = |(key, views): (&ServiceKey, &selvedge_model::snapshot::ServiceViews)| {
            let mut routes = routes(&views.default, None, None);
            for (namespace, view) in &views.by_namespace {
                routes.extend(self::routes(view, Some(namespace), None));
            }
            // What they see otherwise is how endpoints are called, more often than not.
            for (namespace, labels, view) in views.each_selected() {
                let own = self::routes(view, Some(namespace), Some(labels));
                let usual = self::routes(views.for_namespace(namespace), None, None);
                if !own.iter().map(|route| &route.backends).eq(usual.iter().map(|route| &route.backends)) {
                    routes.extend(own);
                }
            }
            ServiceShown {
                host: Arc::clone(&key.host),
                port: key.port,
                routes,
                endpoints: endpoints(key).unwrap_or_default(),
            }
        };
        let out = out.into_iter().filter(|(by, _)| is_there(by));
        Self {
            services: mesh.services.iter().map(service).collect(),
            out: out.map(|(by, out)| OutShown::new(by, out)).collect(),
            ..Self::default()
        }
    }

    /// Whether somebody who is `absent` may only not have come back yet, because a replica has just started.
    pub fn is_awaited(&self, absent: &AbsentShown) -> bool {
        // Who has left another replica since then has done so for another reason.
        self.starting.is_some_and(|starting| absent.since.is_none_or(|since| since < starting.at))
    }

    /// Those who are absent from all replicas for certain.
    pub fn surely_absent(&self) -> &[AbsentShown] {
        if self.is_partial { &[] } else { &self.absent }
    }

    /// Adds what another replica says: the documents are the same for all, and each knows of its own sidecars.
    pub fn add(&mut self, other: Self, is_first: bool) {
        let Self { services, out, absent, is_in_cluster, starting, is_partial } = other;
        self.is_partial |= is_partial;
        self.starting = match (self.starting, starting) {
            // Whoever was connected to the one that has started last comes back last.
            (Some(one), Some(other)) => Some(Starting {
                at: one.at.max(other.at),
                seconds_left: one.seconds_left.max(other.seconds_left),
            }),
            (one, other) => one.or(other),
        };
        if self.services.is_empty() {
            self.services = services;
        }
        self.out.extend(out);
        self.is_in_cluster |= is_in_cluster;
        if is_first {
            self.absent = absent;
            return;
        }
        // Who is connected to another replica is not absent.
        let elsewhere: BTreeMap<WorkloadName, Option<SystemTime>> =
            absent.into_iter().map(|one| (one.workload, one.since)).collect();
        self.absent.retain_mut(|one| match elsewhere.get(&one.workload) {
            Some(since) => {
                one.since = one.since.max(*since);
                true
            }
            None => false,
        });
    }
}

impl OutShown {
    fn new(by: WorkloadName, out: Out) -> Self {
        Self {
            by,
            host: out.backend.service.host,
            port: out.backend.service.port,
            subset: out.backend.subset,
            address: out.address,
            seconds_left: out.left.map(|left| left.as_secs()),
            why: out.why,
            last_failure: out.last_failure,
        }
    }
}

fn shown(endpoints: &Endpoints) -> Vec<EndpointShown> {
    let one = |endpoint: &selvedge_model::Endpoint| EndpointShown {
        address: endpoint.address,
        workload: endpoint.workload.clone(),
        identity: endpoint.identity.clone(),
    };
    endpoints.list.iter().map(one).collect()
}

/// The rules of `service` for what is spoken on its port.
fn routes(
    service: &Service,
    clients: Option<&Arc<str>>,
    labels: Option<&Arc<BTreeMap<String, String>>>,
) -> Vec<RouteShown> {
    let route = |name: &str, is_tcp, backends: &[WeightedBackend]| RouteShown {
        name: name.to_owned(),
        is_tcp,
        clients: clients.cloned(),
        labels: labels.cloned(),
        backends: shares(service, backends),
    };
    if service.protocol == Protocol::Tcp {
        return service.tcp.rules.iter().map(|rule| route(&rule.name, true, &rule.backends)).collect();
    }
    service.routes.rules().iter().map(|rule| route(&rule.name, false, &rule.backends)).collect()
}

fn shares(service: &Service, backends: &[WeightedBackend]) -> Vec<ShareShown> {
    let all: u64 = backends.iter().map(|share| u64::from(share.weight)).sum();
    let share = |share: &WeightedBackend| {
        let backend = service.backends.get(share.backend)?;
        let percent = (u64::from(share.weight) * 100 + all / 2).checked_div(all).unwrap_or_default();
        Some(ShareShown {
            host: Arc::clone(&backend.name.service.host),
            port: backend.name.service.port,
            subset: backend.name.subset.clone(),
            percent: u32::try_from(percent).unwrap_or_default(),
            broken: backend.broken.clone(),
        })
    };
    backends.iter().filter_map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{self, add_service, add_workload};

    #[test]
    fn sidecars_are_waited_for_while_they_may_be_coming_back_and_no_longer() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        let left = |age: u64, is_crowded| {
            let starting = Starting::of(at, is_crowded, at + Duration::from_secs(age));
            starting.map(|starting| starting.seconds_left)
        };
        assert_eq!([left(0, false), left(29, false), left(30, false)], [Some(30), Some(1), None]);
        assert_eq!([left(0, true), left(100, true), left(120, true)], [Some(30), Some(5), None]);

        let started = |at| Some(Starting { at, seconds_left: 9 });
        let absent = |since| AbsentShown { workload: "a/b".parse().unwrap(), since };
        let one = |starting| ServicesShown { starting, ..ServicesShown::default() };
        let (before, after) = (Some(at - Duration::from_secs(5)), Some(at + Duration::from_secs(5)));
        assert!(!one(None).is_awaited(&absent(None)));
        for (since, is_awaited) in [(None, true), (before, true), (after, false)] {
            assert_eq!(one(started(at)).is_awaited(&absent(since)), is_awaited, "{since:?}");
        }
        // It is enough that one replica has just started.
        let mut all = one(None);
        all.add(one(started(at)), false);
        assert!(all.is_awaited(&absent(before)));
    }

    #[test]
    fn rules_and_endpoints_are_shown_with_what_is_out_by_those_who_are_there() {
        let mut mesh = testing::mesh();
        add_workload(&mut mesh, "shop/frontend", "frontend");
        add_service(&mut mesh, "reviews.shop.svc.cluster.local", &["127.0.0.2:80"]);
        let key = mesh.services.keys().next().unwrap().clone();
        let out = |by: &str| {
            let backend = selvedge_model::BackendName { service: key.clone(), subset: None };
            let (address, left) = ("127.0.0.2:80".parse().unwrap(), None);
            (by.parse().unwrap(), Out { backend, address, left, why: "a".into(), last_failure: "b".into() })
        };

        let out = vec![out("shop/frontend"), out("shop/gone")];
        let shown = ServicesShown::of(&mesh, out, |by| by.name() == "frontend");

        assert_eq!(shown.services.len(), 1);
        assert_eq!(shown.services[0].endpoints[0].address, "127.0.0.2:80".parse().unwrap());
        assert_eq!((shown.out.len(), shown.out[0].by.name()), (1, "frontend"));
        let text = serde_json::to_string(&shown).unwrap();
        assert_eq!(serde_json::from_str::<ServicesShown>(&text).unwrap(), shown);
    }
}
