//! Who sends the request: a workload that documents declare, or anybody who runs as a ServiceAccount.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::SystemTime,
};

use selvedge_control_plane::{
    compile::{MeshSettings, clients_with},
    resources::Resources,
};
use selvedge_model::{
    Mesh, SpiffeId, Workload, WorkloadName,
    facts::{Connection, Source},
    revocation::Holder,
    snapshot::Clients,
};
use selvedge_proxy::bind::{Egress, Ruling};

use super::{ends::source, question::Asked};

/// Who sends the request.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) identity: SpiffeId,
    pub(super) labels: BTreeMap<String, String>,
    /// Those clients of services to whom it belongs.
    pub(super) clients: Clients,
    /// The workload, if it is one.
    pub(super) workload: Option<Arc<Workload>>,
    /// Where the connection comes from that is followed: of an app, or of a gateway's client.
    pub(super) address: Option<IpAddr>,
    /// Where its own connections to endpoints come from.
    pub(super) sends_from: Option<IpAddr>,
    /// Whether it is a gateway, which follows rules for its clients.
    pub(super) is_gateway: bool,
    /// Whether it checks the tokens of requests before they follow rules.
    pub(super) checks_tokens: bool,
    /// Whom network policies let it call, as its sidecar asks that.
    pub(super) egress: Egress,
    /// What the reader should know of how the name was understood.
    pub(super) remark: Option<String>,
}

impl Caller {
    /// By the `mesh` that `resources` describe.
    pub(super) fn find(
        (mesh, resources): (&Mesh, &Resources),
        settings: &MeshSettings,
        asked: Asked,
    ) -> Result<Self, String> {
        let Asked { namespace, name, labels } = asked;
        let called = WorkloadName::new(&namespace, &name).map_err(|error| error.to_string())?;
        let found = match mesh.workloads.get(&called) {
            Some(workload) => Self::workload(mesh, workload, labels),
            None => Self::service_account(mesh, settings, namespace, &name, labels)?,
        };
        // The labels may be others than those of a workload that is there.
        Ok(Self { clients: clients_with(resources, &found.namespace, &found.labels), ..found })
    }

    pub(super) fn workload(mesh: &Mesh, workload: &Arc<Workload>, more: BTreeMap<String, String>) -> Self {
        let mut labels = (*workload.labels).clone();
        labels.extend(more);
        let remark = match workload.gateway {
            Some(_) => {
                "it is a gateway: what is said would hold for a sidecar in its place; without --from, and with --gateway, it \
                 is said what becomes of its clients' requests"
            }
            None => "it has no sidecar, so it follows no rule: what is said here would hold if it had one",
        };
        let address = address(mesh, &workload.name);
        Self {
            name: workload.name.to_string(),
            namespace: workload.name.namespace().to_owned(),
            identity: workload.identity.clone(),
            labels,
            clients: mesh.clients(&workload.name),
            address,
            sends_from: source(workload, address),
            is_gateway: false,
            checks_tokens: false,
            egress: egress(mesh, workload),
            remark: (!workload.meshed).then(|| remark.to_owned()),
            workload: Some(Arc::clone(workload)),
        }
    }

    /// The gateway `workload`, as it follows its rules for a client at `client` that has come to its `port`.
    pub(super) fn gateway(mesh: &Mesh, workload: &Arc<Workload>, port: u16, client: Option<IpAddr>) -> Self {
        let own = Self::workload(mesh, workload, BTreeMap::new());
        let authentication = workload.policy.authentication.as_ref();
        let checks_tokens = authentication.is_some_and(|rules| rules.is_for(port));
        Self { address: client, is_gateway: true, checks_tokens, remark: None, ..own }
    }

    /// Why a request has no token whose claims rules could ask for.
    pub(super) fn no_token(&self) -> &'static str {
        match (self.is_gateway, self.checks_tokens) {
            (true, true) => "the request has no token",
            (true, false) => "no RequestAuthentication checks tokens here",
            (false, _) => "the sidecar of a client checks no tokens, a gateway does",
        }
    }

    fn service_account(
        mesh: &Mesh,
        settings: &MeshSettings,
        namespace: String,
        name: &str,
        more: BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let identity =
            SpiffeId::new(&settings.trust_domain, &namespace, name).map_err(|error| error.to_string())?;
        let theirs: Vec<&Arc<Workload>> =
            mesh.workloads.values().filter(|workload| workload.identity == identity).collect();
        let mut labels = common(theirs.iter().map(|workload| &*workload.labels));
        labels.extend(more);
        let called = format!("{namespace}/{name}");
        let remark = match theirs.len() {
            0 => format!(
                "no document declares a workload or a ServiceAccount {called}; it is taken for a ServiceAccount"
            ),
            _ => format!(
                "a ServiceAccount; its labels are those that all of its workloads have ({})",
                theirs.len()
            ),
        };
        Ok(Self {
            name: called,
            clients: Clients { namespace: namespace.as_str().into(), selected: None },
            namespace,
            identity,
            labels,
            workload: None,
            address: None,
            sends_from: None,
            is_gateway: false,
            checks_tokens: false,
            egress: Egress::default(),
            remark: Some(remark),
        })
    }

    /// A connection of its to a service's `port`, as rules for clients see it.
    pub(super) fn connection(&self, port: u16) -> Connection<'_> {
        let source = Source {
            address: self.address,
            identity: Some(&self.identity),
            namespace: Some(&self.namespace),
            labels: &self.labels,
        };
        Connection::new(source, port)
    }

    /// The address of whoever sends the request; `None`: it is a gateway's client, whose address is not given.
    pub(super) fn client_address(&self) -> Option<IpAddr> {
        if self.is_gateway { self.address } else { Some(self.app_address()) }
    }

    /// The same, or what stands for it.
    pub(super) fn app_address(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }
}

/// Whom `workload` may call.
fn egress(mesh: &Mesh, workload: &Workload) -> Egress {
    let rules = workload.with_sets(|part| mesh.sets.get(part).cloned()).egress;
    Ruling::new(rules).egress()
}

/// An address of the workload `name`.
fn address(mesh: &Mesh, name: &WorkloadName) -> Option<IpAddr> {
    addresses(mesh).get(name).copied()
}

/// An address of each workload of which one is known.
pub(crate) fn addresses(mesh: &Mesh) -> BTreeMap<&WorkloadName, IpAddr> {
    let mut addresses = BTreeMap::new();
    for (address, endpoint) in mesh.addresses.iter() {
        if let Some(workload) = &endpoint.workload {
            addresses.entry(workload).or_insert(address.ip());
        }
    }
    for (address, occupant) in mesh.occupants.iter() {
        addresses.entry(&occupant.workload.name).or_insert(*address);
    }
    addresses
}

/// Why `identity` is refused everywhere, if it is.
pub(crate) fn revoked(mesh: &Mesh, identity: &SpiffeId, workload: Option<&WorkloadName>) -> Option<String> {
    let holder = Holder { identity, workload, serial: None };
    mesh.revocations.find(holder, SystemTime::now()).map(ToString::to_string)
}

/// The labels that all of `lists` have.
fn common<'a>(mut lists: impl Iterator<Item = &'a BTreeMap<String, String>>) -> BTreeMap<String, String> {
    let Some(mut labels) = lists.next().cloned() else { return BTreeMap::new() };
    for other in lists {
        labels.retain(|name, value| other.get(name) == Some(value));
    }
    labels
}
