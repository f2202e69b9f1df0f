//! The answer of `/services`: what each service's rules and endpoints are by the documents, and which endpoints get no requests
//! as the sidecars of this replica tell it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::SystemTime};

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
            absent: Vec::new(),
            is_in_cluster: false,
        }
    }

    /// Adds what another replica says: the documents are the same for all, and each knows of its own sidecars.
    pub fn add(&mut self, other: Self, is_first: bool) {
        let Self { services, out, absent, is_in_cluster } = other;
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
