//! What is different between the documents that were compiled and those that are to be.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{MeshSettings, hosts::namespace_of, services::spoken_of_if_it_matters},
    edits::Edits,
    entries::is_of_endpoints_alone,
    index::{Everything, Index, both},
    network::ChangedNetwork,
};
use crate::resources::{
    AuthorizationPolicySpec, DestinationRuleSpec, Document, EndpointSliceSpec, HttpRouteSpec, LimitTarget,
    PeerAuthenticationSpec, PodSpec, RateLimitSpec, RequestAuthenticationSpec, Resources, ServiceEntrySpec,
    ServiceSpec, TcpRouteSpec, VirtualServiceSpec, WorkloadEntrySpec,
};

/// What makes the documents others. All other documents are the same.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) workloads: ChangedWorkloads,
    pub(super) authorizations: Edits<AuthorizationPolicySpec>,
    pub(super) authentications: Edits<RequestAuthenticationSpec>,
    pub(super) limits: Edits<RateLimitSpec>,
    pub(super) network: ChangedNetwork,
    pub(super) routes: ChangedRoutes,
}

/// Workloads, and what says where and how they are called.
#[derive(Debug)]
pub(super) struct ChangedWorkloads {
    pub(super) entries: Edits<WorkloadEntrySpec>,
    pub(super) pods: Edits<PodSpec>,
    pub(super) slices: Edits<EndpointSliceSpec>,
    pub(super) services: Edits<ServiceSpec>,
    pub(super) service_entries: Edits<ServiceEntrySpec>,
    pub(super) peer_authentications: Edits<PeerAuthenticationSpec>,
}

/// Routes, and rules for their hosts.
#[derive(Debug)]
pub(super) struct ChangedRoutes {
    pub(super) virtual_services: Edits<VirtualServiceSpec>,
    pub(super) http_routes: Edits<HttpRouteSpec>,
    pub(super) tcp_routes: Edits<TcpRouteSpec>,
    pub(super) destination_rules: Edits<DestinationRuleSpec>,
}

impl Changes {
    /// What makes `old`, of whose workloads and services `index` is, say what `new` says. What was read again and says the same is
    /// taken over at once.
    ///
    /// # Errors
    /// Documents of other kinds have changed.
    pub(super) fn new(old: &mut Resources, new: &Resources, index: &mut Index) -> Result<Self, Everything> {
        if !old.takes_over_what_is_compiled_together(new) {
            return Err(Everything);
        }
        let workloads = ChangedWorkloads {
            entries: Edits::new(&mut old.workload_entries, &new.workload_entries, |one| {
                index.entry_again(one);
            }),
            pods: Edits::new(&mut old.pods, &new.pods, |one| index.pod_again(one)),
            slices: Edits::new(&mut old.endpoint_slices, &new.endpoint_slices, |one| index.slice_again(one)),
            services: Edits::new(&mut old.services, &new.services, |one| index.service_again(one)),
            service_entries: Edits::new(&mut old.service_entries, &new.service_entries, |one| {
                index.service_entry_again(one);
            }),
            peer_authentications: Edits::new(
                &mut old.peer_authentications,
                &new.peer_authentications,
                |_| {},
            ),
        };
        let authorizations = Edits::new(&mut old.authorization_policies, &new.authorization_policies, |_| {});
        let authentications =
            Edits::new(&mut old.request_authentications, &new.request_authentications, |_| {});
        let limits = Edits::new(&mut old.rate_limits, &new.rate_limits, |_| {});
        let network = ChangedNetwork {
            kubernetes: Edits::new(&mut old.network_policies, &new.network_policies, |_| {}),
            calico: Edits::new(&mut old.calico_policies, &new.calico_policies, |_| {}),
        };
        let routes = ChangedRoutes {
            virtual_services: Edits::new(&mut old.virtual_services, &new.virtual_services, |_| {}),
            http_routes: Edits::new(&mut old.http_routes, &new.http_routes, |_| {}),
            tcp_routes: Edits::new(&mut old.tcp_routes, &new.tcp_routes, |_| {}),
            destination_rules: Edits::new(&mut old.destination_rules, &new.destination_rules, |_| {}),
        };
        Ok(Self { workloads, authorizations, authentications, limits, network, routes })
    }
}

/// Whether any of these `RateLimit`s is for a route at gateways.
pub(super) fn limit_routes(changed: &Edits<RateLimitSpec>) -> bool {
    let is_for_route = |target: &LimitTarget| matches!(target, LimitTarget::Route { .. });
    both(&changed.changed).any(|limit| limit.spec.targets.iter().any(is_for_route))
}

/// # Errors
/// More reads one of these than is looked at for it: in the documents that there were, of which `index` is, and are now.
pub(super) fn may_be_followed(
    workloads: &ChangedWorkloads,
    routes: &ChangedRoutes,
    (old, new): (&Resources, &Resources),
    index: &Index,
    settings: &MeshSettings,
) -> Result<(), Everything> {
    if spoken_of_if_it_matters(old, settings) != spoken_of_if_it_matters(new, settings) {
        return Err(Everything);
    }
    routes.are_no_policys(old)?;
    routes.select_the_same()?;
    workloads.are_plain_entries((old, new), index)?;
    workloads.are_plain_services((old, new), index, settings)
}

impl ChangedWorkloads {
    /// Whether any of them says otherwise which hosts there are, or what they are.
    pub(super) fn are_of_hosts(&self) -> bool {
        let entries = &self.service_entries.changed;
        !self.services.changed.is_empty() || !entries.iter().all(is_of_endpoints_alone)
    }

    /// # Errors
    /// There is more to one of the hosts of these `Service`s than it: a `ServiceEntry` or an `ExternalName` may be for it.
    fn are_plain_services(
        &self,
        (old, new): (&Resources, &Resources),
        index: &Index,
        settings: &MeshSettings,
    ) -> Result<(), Everything> {
        let changed = &self.services.changed;
        if changed.is_empty() {
            return Ok(());
        }
        let domain = &settings.cluster_domain;
        let entries = old.service_entries.iter().chain(&new.service_entries);
        let entries: BTreeSet<&str> =
            entries.flat_map(|entry| &entry.spec.hosts).map(String::as_str).collect();
        let is_plain = |service: &Document<ServiceSpec>| {
            let host = index.host(service);
            let is_in_entry = |name: &&str| {
                **name == *host
                    || host
                        .strip_prefix(*name)
                        .is_some_and(|rest| rest.strip_prefix(".svc.") == Some(domain.as_str()))
                    || name.starts_with('*') && namespace_of(name, domain) == namespace_of(&host, domain)
            };
            let stands_for = |other: &Document<ServiceSpec>| {
                let name = other.spec.external_name.as_ref().and_then(|name| name.name());
                name.is_some_and(|name| **name == *host)
            };
            service.spec.external_name.is_none()
                && !index.is_other(&host)
                && !entries.iter().any(is_in_entry)
                && !old.services.iter().any(|other| stands_for(other))
        };
        if both(changed).all(is_plain) { Ok(()) } else { Err(Everything) }
    }
}

impl ChangedRoutes {
    pub(super) fn is_empty(&self) -> bool {
        self.virtual_services.changed.is_empty()
            && self.http_routes.changed.is_empty()
            && self.tcp_routes.changed.is_empty()
            && self.destination_rules.changed.is_empty()
    }

    /// # Errors
    /// Policies read one of them, by what there is besides.
    fn are_no_policys(&self, all: &Resources) -> Result<(), Everything> {
        let may_be_named = !all.server_policies.is_empty() && !self.http_routes.changed.is_empty();
        let is_of_servers = both(&self.http_routes.changed).any(|one| !one.spec.parents.servers.is_empty())
            || both(&self.tcp_routes.changed).any(|one| !one.spec.parents.servers.is_empty());
        if may_be_named || is_of_servers { Err(Everything) } else { Ok(()) }
    }

    /// # Errors
    /// Rules may select other clients by their labels than before.
    fn select_the_same(&self) -> Result<(), Everything> {
        let selector =
            |rule: &Option<Arc<Document<DestinationRuleSpec>>>| rule.as_ref()?.spec.selector.clone();
        let mut rules = self.destination_rules.changed.iter();
        let select_others = rules.any(|(old, new)| selector(old) != selector(new));
        if select_others { Err(Everything) } else { Ok(()) }
    }

    /// Makes `all` what they are now.
    pub(super) fn apply(self, all: &mut Resources) {
        self.virtual_services.apply(&mut all.virtual_services);
        self.http_routes.apply(&mut all.http_routes);
        self.tcp_routes.apply(&mut all.tcp_routes);
        self.destination_rules.apply(&mut all.destination_rules);
    }
}
