//! Workloads: who they are, where they are, and what calling one of their ports takes.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_model::{
    Endpoint, Host, InboundPolicy, NamedEndpoint, Place, Protocol, SpiffeId, Workload, WorkloadName,
};

use super::{Problems, Settings, inbound::Policies, keep, selects};
use crate::resources::{Document, Resources, WorkloadEntrySpec};

/// One `WorkloadEntry` with what other documents say about it.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) document: &'a Document<WorkloadEntrySpec>,
    pub(super) name: WorkloadName,
    identity: SpiffeId,
    policy: InboundPolicy,
    /// The ports that it serves: its own, and those that services name as their targets.
    ports: BTreeSet<u16>,
    /// What services say is spoken on them.
    protocols: BTreeMap<u16, Protocol>,
}

impl Known<'_> {
    /// What calling `port` here takes; `None` if its address is unknown.
    pub(super) fn endpoint(&self, port: u16) -> Option<NamedEndpoint> {
        let spec = &self.document.spec;
        let address = Place::new(spec.address.clone()?, port);
        Some(NamedEndpoint {
            dial: spec.inbound.clone().filter(|_| spec.meshed).unwrap_or_else(|| address.clone()),
            address,
            one_address: false,
            identity: expected_identity(spec.meshed, &self.policy, port, &self.identity),
            workload: Some(self.name.clone()),
            labels: spec.labels.clone(),
        })
    }
}

impl Known<'_> {
    /// What is spoken on its ports, where it is said: by services, or by its own opaque-ports annotation.
    fn said_protocols(&self) -> BTreeMap<u16, Protocol> {
        let mut protocols = self.protocols.clone();
        protocols.retain(|_, spoken| *spoken != Protocol::Unspecified);
        let opaque = &self.document.spec.opaque_ports;
        let ranges = opaque.iter().flat_map(|(first, last)| self.ports.range(first..=last));
        protocols.extend(ranges.map(|port| (*port, Protocol::Tcp)));
        protocols
    }
}

/// The identity that a client expects at `port`: none where it must call in plaintext.
pub(super) fn expected_identity(
    meshed: bool,
    policy: &InboundPolicy,
    port: u16,
    identity: &SpiffeId,
) -> Option<SpiffeId> {
    (meshed && policy.takes_mtls(port)).then(|| identity.clone())
}

/// Every workload.
#[derive(Debug)]
pub(super) struct Workloads<'a> {
    list: Vec<Known<'a>>,
}

impl<'a> Workloads<'a> {
    pub(super) fn new(
        resources: &'a Resources,
        settings: &Settings,
        policies: &Policies<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut list = Vec::new();
        for document in &resources.workload_entries {
            let (namespace, spec) = (&*document.name.namespace, &document.spec);
            let name = WorkloadName::new(namespace, &document.name.name);
            let identity = SpiffeId::new(&settings.trust_domain, namespace, &spec.service_account);
            let (name, identity) = match (name, identity) {
                (Ok(name), Ok(identity)) => (name, identity),
                (Err(error), _) | (_, Err(error)) => {
                    problems.error(document, "metadata", error.to_string());
                    continue;
                }
            };
            policies.report_losers(&name, &spec.labels, problems);
            let policy = policies.find(namespace, &spec.labels);
            let ports = spec.ports.values().copied().collect();
            let protocols = BTreeMap::new();
            list.push(Known { document, name, identity, policy, ports, protocols });
        }
        Self { list }
    }

    /// Those of `namespace` that `selector` selects.
    pub(super) fn selected(
        &self,
        namespace: &str,
        selector: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = (usize, &Known<'a>)> {
        self.list.iter().enumerate().filter(move |(_, known)| {
            known.name.namespace() == namespace && selects(selector, &known.document.spec.labels)
        })
    }

    /// The workload at `index`, as [`Self::selected`] numbers them.
    pub(super) fn at(&self, index: usize) -> &Known<'a> {
        &self.list[index]
    }

    /// Notes that the workload at `index` serves `port`.
    pub(super) fn serves(&mut self, index: usize, port: u16) {
        self.list[index].ports.insert(port);
    }

    /// Notes that a service says that a workload speaks `protocol` on `port`. Where two services disagree,
    /// nothing is said.
    pub(super) fn speaks(&mut self, index: usize, port: u16, protocol: Protocol) {
        let said = self.list[index].protocols.entry(port).or_insert(protocol);
        if *said != protocol {
            *said = Protocol::Unspecified;
        }
    }

    /// The workload that serves `place`: one with that port, or the only one with that address.
    pub(super) fn serving(&self, place: &Place) -> Option<usize> {
        let here = |known: &Known<'_>| known.document.spec.address.as_ref() == Some(&place.host);
        let with_port = self.list.iter().position(|known| here(known) && known.ports.contains(&place.port));
        with_port.or_else(|| {
            let mut at_address = self.list.iter().enumerate().filter(|(_, known)| here(known));
            let (only, _) = at_address.next()?;
            at_address.next().is_none().then_some(only)
        })
    }

    /// Reports every address and port that two workloads claim.
    pub(super) fn report_shared_addresses(&self, problems: &mut Problems) {
        let mut owners: BTreeMap<(&Host, u16), &Known<'_>> = BTreeMap::new();
        for known in &self.list {
            let Some(address) = &known.document.spec.address else { continue };
            for port in &known.ports {
                let owner = owners.entry((address, *port)).or_insert(known);
                if !std::ptr::eq(*owner, known) {
                    let message = format!(
                        "{} is also the address of {} ({}), whose identity is expected there; give each workload its own port",
                        Place::new(address.clone(), *port),
                        owner.document.name,
                        owner.document.place()
                    );
                    problems.warning(known.document, "spec.address", message);
                }
            }
        }
    }

    /// Each workload by every address and port that it serves, where that is an IP address.
    pub(super) fn addresses(&self) -> BTreeMap<SocketAddr, Endpoint> {
        let mut addresses = BTreeMap::new();
        for known in &self.list {
            let endpoints = known.ports.iter().filter_map(|port| known.endpoint(*port)?.fixed());
            for endpoint in endpoints {
                addresses.entry(endpoint.address).or_insert(endpoint);
            }
        }
        addresses
    }

    /// Those that are dialled at their own address, where their sidecars take every connection. Where two
    /// workloads share an address, only their ports tell which one is meant.
    pub(super) fn redirected(
        &self,
        finished: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<IpAddr, Arc<Workload>> {
        let mut at: BTreeMap<IpAddr, Vec<&Known<'_>>> = BTreeMap::new();
        for known in &self.list {
            if let Some(address) = known.document.spec.address.as_ref().and_then(Host::ip) {
                at.entry(address).or_default().push(known);
            }
        }
        let alone = at.into_iter().filter_map(|(address, here)| match here.as_slice() {
            [known] if known.document.spec.inbound.is_none() => Some((address, finished.get(&known.name)?)),
            _ => None,
        });
        let redirected = alone.filter(|(_, workload)| workload.meshed);
        redirected.map(|(address, workload)| (address, Arc::clone(workload))).collect()
    }

    /// Each workload as its own sidecar sees it.
    pub(super) fn finish(
        &self,
        previous: &BTreeMap<WorkloadName, Arc<Workload>>,
    ) -> BTreeMap<WorkloadName, Arc<Workload>> {
        let finished = self.list.iter().map(|known| {
            let spec = &known.document.spec;
            let workload = Workload {
                name: known.name.clone(),
                identity: known.identity.clone(),
                meshed: spec.meshed,
                inbound: spec.inbound.as_ref().filter(|_| spec.meshed).and_then(Place::socket),
                ports: known.ports.iter().copied().collect(),
                policy: known.policy.clone(),
                protocols: known.said_protocols(),
                labels: spec.labels.clone(),
            };
            (known.name.clone(), keep(workload, previous.get(&known.name)))
        });
        finished.collect()
    }
}
