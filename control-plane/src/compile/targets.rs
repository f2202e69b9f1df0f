//! Which workloads one of Istio's policies is for: by labels, by the Services that they are behind, or by the Gateway that
//! they are.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use selvedge_model::{ServiceKey, facts::selects};

use super::{MeshSettings, Problems, hosts::service_host, there::There};
use crate::resources::{AuthorizationPolicySpec, Document};

/// The ports of a workload that a policy is for; `None`: all.
pub(super) type Ports = Option<BTreeSet<u16>>;

/// Why a policy refuses everything at a workload that it may be for.
pub(super) const MAY_SELECT: &str =
    "nobody knows whether it selects this workload, whose document cannot be used";

/// The namespace of the workloads that a policy in `namespace` may be for; `None`: of every one, since it is in the root
/// namespace, or nobody knows in which one it is.
pub(super) fn only_namespace<'a>(namespace: &'a str, settings: &MeshSettings) -> Option<&'a str> {
    (!namespace.is_empty() && namespace != settings.root_namespace).then_some(namespace)
}

/// What policies select a workload by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Selected<'w> {
    pub(super) namespace: &'w str,
    /// `None`: nobody knows them.
    pub(super) labels: Option<&'w BTreeMap<String, String>>,
    /// The services that it is behind, by the ports that they send to.
    pub(super) services: &'w BTreeMap<u16, BTreeSet<ServiceKey>>,
    /// The gateway that it is, as `namespace/name`.
    pub(super) gateway: Option<&'w str>,
}

/// Whom a policy is for.
#[derive(Debug)]
pub(super) struct Targets<'a> {
    /// Where the policy is.
    namespace: &'a str,
    selector: &'a BTreeMap<String, String>,
    /// The Services that it names; `None`: none.
    services: Option<&'a [String]>,
    /// Their hosts.
    hosts: BTreeSet<String>,
    /// The Gateways that it names, besides.
    gateways: &'a [String],
    /// Of a policy that cannot be used: whether it may be for each workload, and each gateway of its namespace. If it is known
    /// to name what it is for: for the gateways alone.
    any_workload: bool,
}

impl<'a> Targets<'a> {
    pub(super) fn new(
        namespace: &'a str,
        selector: &'a BTreeMap<String, String>,
        services: Option<&'a [String]>,
        settings: &MeshSettings,
    ) -> Self {
        let host = |service: &String| service_host(service, namespace, &settings.cluster_domain);
        let hosts = services.unwrap_or_default().iter().map(host).collect();
        Self { namespace, selector, services, hosts, gateways: &[], any_workload: false }
    }

    /// Of an `AuthorizationPolicy`.
    pub(super) fn of_authorization(
        document: &'a Document<AuthorizationPolicySpec>,
        settings: &MeshSettings,
    ) -> Self {
        let (namespace, spec) = (&document.name.namespace, &document.spec);
        let targets = Self::new(namespace, &spec.selector, spec.services.as_deref(), settings);
        targets.with_gateways(&spec.gateways).or_any(spec.any_workload)
    }

    /// The same of a policy that also names these Gateways.
    pub(super) fn with_gateways(self, gateways: &'a [String]) -> Self {
        Self { gateways, ..self }
    }

    /// The same of a policy that cannot be used, and that may be for each workload if `any_workload`.
    pub(super) fn or_any(self, any_workload: bool) -> Self {
        Self { any_workload, ..self }
    }

    /// Whether it names Gateways.
    pub(super) fn names_gateways(&self) -> bool {
        !self.gateways.is_empty()
    }

    /// Whether the policy may be for a workload because of the `gateway` that it is, a `namespace/name`, wherever it runs.
    pub(super) fn may_be_for(&self, gateway: &str) -> bool {
        let is_here = gateway.split_once('/').is_some_and(|(namespace, _)| namespace == self.namespace);
        is_here && (self.any_workload || self.names(gateway))
    }

    /// Whether the policy is for some workloads only.
    pub(super) fn chooses(&self) -> bool {
        !self.selector.is_empty() || self.services.is_some()
    }

    /// Reports the Services and Gateways that do not exist.
    pub(super) fn report_missing<T>(
        &self,
        document: &Document<T>,
        there: &There<'_>,
        problems: &mut Problems,
    ) {
        let services = self.services.unwrap_or_default().iter();
        let services = services.filter(|name| there.service(self.namespace, name).is_none());
        let gateways = self.gateways.iter().filter(|name| !there.has_gateway(self.namespace, name));
        let missing = services.map(|name| ("Service", name)).chain(gateways.map(|name| ("Gateway", name)));
        for (kind, name) in missing {
            let message =
                format!("there is no {kind} {name} in namespace {}, so this selects nothing", self.namespace);
            problems.error(document, "spec.targetRefs", message);
        }
    }

    /// The hosts of those Services that it names that send to `port` of `workload`.
    pub(super) fn hosts_at<'s>(&'s self, workload: Selected<'s>, port: u16) -> BTreeSet<&'s str> {
        let behind = workload.services.get(&port).into_iter().flatten().map(|key| &*key.host);
        behind.filter(|host| self.hosts.contains(*host)).collect()
    }

    /// Whether it names `gateway`, a `namespace/name`.
    fn names(&self, gateway: &str) -> bool {
        let is_it = |(namespace, name): (&str, &str)| {
            *self.namespace == *namespace && self.gateways.iter().any(|one| one == name)
        };
        gateway.split_once('/').is_some_and(is_it)
    }

    /// The ports of `workload` that the policy is for, if it is for it at all.
    pub(super) fn ports(&self, workload: Selected<'_>) -> Option<Ports> {
        if self.services.is_none() {
            let is_meant = |labels| self.any_workload || selects(self.selector, labels);
            // Of a workload whose labels nobody knows, only policies for all are asked here.
            return workload.labels.is_none_or(is_meant).then_some(None);
        }
        if workload.gateway.is_some_and(|gateway| self.any_workload || self.names(gateway)) {
            return Some(None);
        }
        if *self.namespace != *workload.namespace {
            return None;
        }
        let is_named = |key: &ServiceKey| self.hosts.contains(&*key.host);
        let behind = workload.services.iter().filter(|(_, keys)| keys.iter().any(is_named));
        let ports: BTreeSet<u16> = behind.map(|(port, _)| *port).collect();
        (!ports.is_empty()).then_some(Some(ports))
    }
}

/// Policies by the Gateways that they are for. A gateway may run in another namespace than its `Gateway`, and than these, are in.
#[derive(Debug, Default)]
pub(super) struct ByGateway<'a> {
    /// By namespace and name.
    named: HashMap<(&'a str, &'a str), Vec<usize>>,
    /// Those that may be for each Gateway of a namespace.
    any: HashMap<&'a str, Vec<usize>>,
}

impl<'a> ByGateway<'a> {
    /// Notes the policy at `place`, which is for `targets`.
    pub(super) fn add(&mut self, targets: &Targets<'a>, place: usize) {
        if targets.any_workload {
            self.any.entry(targets.namespace).or_default().push(place);
        }
        for name in targets.gateways {
            let places = self.named.entry((targets.namespace, name)).or_default();
            if places.last() != Some(&place) {
                places.push(place);
            }
        }
    }

    /// `own` places, and those of policies that are for the gateway which `workload` is; none twice.
    pub(super) fn with<'s>(
        &'s self,
        own: impl Iterator<Item = usize> + 's,
        workload: Selected<'s>,
    ) -> impl Iterator<Item = usize> + 's {
        let gateway = workload.gateway.and_then(|gateway| gateway.split_once('/'));
        let named = gateway.and_then(|gateway| self.named.get(&gateway));
        let any = gateway.and_then(|(namespace, _)| self.any.get(namespace));
        let [named, any] = [named, any].map(|places| places.map_or(&[][..], Vec::as_slice));
        own.filter(move |place| !named.contains(place) && !any.contains(place))
            .chain(named.iter().copied())
            .chain(any.iter().copied())
    }
}
