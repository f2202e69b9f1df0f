//! What becomes of all workloads together: who is at which address, and each as its own proxy sees it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_model::{
    AppConnections, Endpoint, Host, HostPort, InboundPolicy, NamedEndpoint, ServiceKey, Workload,
    WorkloadName, snapshot::Occupant,
};

use super::{
    super::{
        Problems, authentication::Authentications, authorization::Authorizations, keep, meant::Facing,
        network::Network, rate_limits::RateLimits, servers::Servers, telemetry::Telemetries,
    },
    Workloads,
};

/// The policies of all workloads.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Asked<'p, 'a> {
    pub(in super::super) authentications: &'p Authentications<'a>,
    pub(in super::super) authorizations: &'p Authorizations<'a>,
    pub(in super::super) servers: &'p Servers<'a>,
    pub(in super::super) network: &'p Network<'a>,
    pub(in super::super) limits: &'p RateLimits<'a>,
    pub(in super::super) telemetries: &'p Telemetries<'a>,
}

impl Workloads<'_> {
    /// Each workload by every address and port that it serves, where that is an IP address.
    pub(in super::super) fn addresses(&self) -> BTreeMap<SocketAddr, Endpoint> {
        let mut addresses = BTreeMap::new();
        for known in &self.list {
            for host in &known.hosts {
                let ports = known.ports.iter().filter(|port| known.serves(**port));
                let host_ports = ports.map(|port| HostPort::new(host.clone(), *port));
                for endpoint in host_ports.filter_map(|host_port| known.endpoint_at(host_port).fixed()) {
                    addresses.entry(endpoint.address).or_insert(endpoint);
                }
            }
        }
        addresses
    }

    /// Each workload by every port that it serves, where its address is a name; with its rank.
    pub(in super::super) fn named(&self) -> impl Iterator<Item = (usize, NamedEndpoint)> {
        let by_name = self.list.iter().enumerate();
        let by_name = by_name.filter(|(_, known)| known.hosts.iter().any(|host| host.name().is_some()));
        by_name.flat_map(|(rank, known)| {
            known.ports.iter().filter_map(move |port| Some((rank, known.endpoint(*port)?)))
        })
    }

    /// Those that have all of their address; with their rank. Where two workloads share one, only their ports tell
    /// which one is meant.
    pub(in super::super) fn occupants(
        &self,
        finished: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<Host, (usize, Occupant)> {
        let alone = self.at_host.iter().filter_map(|(host, here)| match here.as_slice() {
            [index] if self.list[*index].source.has_all_ports() => {
                let known = &self.list[*index];
                let workload = Arc::clone(finished.get(&known.name)?);
                let skipped = known.source.skipped().to_vec();
                Some((host.clone(), (*index, Occupant { workload, skipped })))
            }
            _ => None,
        });
        alone.collect()
    }

    /// Each workload as far as policies ask for it. `finished`: what [`Self::finish`] made of these.
    pub(in super::super) fn facing<'w>(
        &'w self,
        finished: &'w BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> impl Iterator<Item = Facing<'w>> {
        self.list.iter().filter_map(|known| {
            let workload = finished.get(&known.name)?;
            Some(Facing {
                selected: known.selected(),
                workload,
                is_of_node: known.source.shares_address(),
                skipped: known.source.skipped(),
            })
        })
    }

    /// Each workload as its own sidecar sees it. `connections` says how those in a namespace are to be connected to
    /// for a service.
    pub(in super::super) fn finish(
        &self,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
        Asked { authentications, authorizations, servers, network, limits, telemetries }: Asked<'_, '_>,
        connections: impl Fn(&ServiceKey, &str) -> AppConnections,
        problems: &mut Problems,
    ) -> BTreeMap<WorkloadName, Arc<Workload>> {
        let finished = self.list.iter().enumerate().map(|(place, known)| {
            let meshed = known.source.meshed();
            let before = previous.get(&known.name);
            let policy_before = before.map(|before| &before.policy);
            let authentication = authentications
                .find(known.selected(), policy_before.and_then(|before| before.authentication.as_ref()));
            let authorization = authorizations
                .find(known.selected(), policy_before.and_then(|before| before.authorization.as_ref()));
            let rules_before = before.map(|before| (before.policy.network.as_ref(), before.egress.as_ref()));
            let (ingress_before, egress_before) = rules_before.unwrap_or_default();
            let named_ports = known.source.named_ports();
            let selected = known.selected_by_servers(&named_ports);
            let servers_before = before.and_then(|before| before.policy.servers.as_ref());
            let annotations = known.source.telemetry(problems);
            let telemetry_before = before.and_then(|before| before.telemetry.as_ref());
            let workload = Workload {
                name: known.name.clone(),
                identity: known.identity.clone(),
                meshed,
                inbound: known.source.inbound().filter(|_| meshed).and_then(HostPort::socket),
                ports: known.ports.iter().copied().collect(),
                policy: InboundPolicy {
                    network: network.ingress(place, ingress_before),
                    authorization,
                    authentication,
                    servers: servers.find(selected, servers_before),
                    limits: limits.find(
                        known.selected(),
                        known.gateway.as_deref(),
                        servers.of_ports(selected),
                        policy_before.and_then(|before| before.limits.as_ref()),
                    ),
                    ..known.policy.clone()
                },
                egress: network.egress(place, egress_before),
                gateway: known.gateway.clone(),
                protocols: known.said_protocols(&servers.opaque_ports(selected)),
                app_connections: known.app_connections(&connections),
                labels: Arc::clone(&known.labels),
                services: known.first_services(),
                place: known.place.clone(),
                telemetry: telemetries.find(known.selected(), &annotations, telemetry_before),
            };
            (known.name.clone(), keep(workload, before))
        });
        finished.collect()
    }
}
