//! Where a connection may go: the endpoints of a service's backends, one workload, or an address.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
};

use selvedge_model::{
    Backend, Endpoint, Mesh, Service, SpiffeId, Transport, Workload, WorkloadName, facts, snapshot,
};
use selvedge_proxy::settings::OutboundTrafficPolicy;

use super::{Connecting, question::To};
use crate::explain::{
    caller::{Caller, addresses},
    endpoints::{how, impossible},
    ends::{Client, Server},
    meaning::{self, Meaning},
};

/// All places where a connection may go.
pub(super) struct Targets {
    /// What the name means, in words.
    pub(super) name: String,
    /// Whether the client's sidecar lets nothing out to what no document declares.
    pub(super) refused: bool,
    pub(super) list: Vec<Target>,
}

/// One place.
pub(super) struct Target {
    /// The address in words.
    pub(super) address: String,
    pub(super) workload: Option<Workload>,
    /// How it is called by who has a sidecar.
    how: String,
    /// Why the client's sidecar cannot call it, if that is so.
    pub(super) impossible: Option<String>,
    app: Option<IpAddr>,
    dial: Option<SocketAddr>,
    port: u16,
    expected: Option<SpiffeId>,
    is_opaque: bool,
}

impl Targets {
    pub(super) fn find(
        mesh: &Mesh,
        from: &Connecting,
        to: &To,
        policy: OutboundTrafficPolicy,
    ) -> Result<Self, String> {
        match (to, from) {
            (To::Workload(name, port), _) => Self::workload(mesh, name, *port),
            (To::Authority(authority), Connecting::Caller(caller)) => {
                Ok(Self::meant(mesh, caller, authority, policy))
            }
            (To::Authority(authority), Connecting::Address(_)) => Err(format!(
                "what {authority} means depends on who asks; with an address as --from, write NAMESPACE/NAME:PORT"
            )),
        }
    }

    /// A port of the workload `name`.
    fn workload(mesh: &Mesh, name: &WorkloadName, port: u16) -> Result<Self, String> {
        let workload =
            mesh.workloads.get(name).ok_or_else(|| format!("no document declares a workload {name}"))?;
        let workload = workload.with_sets(|part| mesh.sets.get(part).cloned());
        let address = addresses(mesh).get(name).copied();
        let Server { expected, dial, .. } = Server::workload(mesh, &workload, address, port);
        let expected = expected.cloned();
        let transport = expected.as_ref().map_or(Transport::Plaintext, Transport::Mutual);
        let at = match (address, dial) {
            (Some(address), None) => SocketAddr::new(address, port).to_string(),
            (Some(address), Some(dial)) => format!("{}, dialled at {dial}", SocketAddr::new(address, port)),
            (None, _) => format!("port {port} (its address is not known)"),
        };
        let remark = if workload.ports.contains(&port) { "" } else { "; it declares no such port" };
        let name = format!("the workload {name}, called directly{remark}");
        let target = Target {
            address: at,
            how: how(transport, expected.is_some(), Some(&workload)),
            workload: Some(workload),
            impossible: None,
            app: address,
            dial,
            port,
            expected,
            is_opaque: false,
        };
        Ok(Self { name, refused: false, list: vec![target] })
    }

    /// What `authority` means to `caller`.
    fn meant(mesh: &Mesh, caller: &Caller, authority: &str, policy: OutboundTrafficPolicy) -> Self {
        let meaning = Meaning::of(mesh, caller, authority, policy);
        let mut name = meaning.words(mesh, caller, authority);
        let mut refused = false;
        let list = match &meaning {
            Meaning::Service(service) => {
                let list = Self::of_service(mesh, service);
                if list.is_empty() {
                    name += "; it has no endpoints";
                }
                list
            }
            Meaning::Endpoint(endpoint) => vec![Target::endpoint(mesh, None, endpoint, false)],
            Meaning::Nothing { answer: Some(_), .. } => {
                refused = true;
                Vec::new()
            }
            Meaning::Nothing { .. } => vec![Target::unknown(authority)],
        };
        Self { name, refused, list }
    }

    /// The endpoints of all backends that some rule of `service` leads to.
    fn of_service(mesh: &Mesh, service: &Service) -> Vec<Target> {
        let is_opaque = meaning::is_opaque(service);
        let shares = |opaque: bool| -> BTreeSet<usize> {
            let http = service.routes.rules().iter().filter(|_| !opaque).flat_map(|rule| &rule.backends);
            let tcp = service.tcp.rules.iter().filter(|_| opaque).flat_map(|rule| &rule.backends);
            http.chain(tcp).filter(|share| share.weight > 0).map(|share| share.backend).collect()
        };
        let (mut seen, mut list) = (BTreeSet::new(), Vec::new());
        for backend in shares(is_opaque).into_iter().filter_map(|place| service.backends.get(place)) {
            let endpoints = mesh.endpoints.get(&backend.name.service).filter(|_| backend.broken.is_none());
            let Some(endpoints) = endpoints else { continue };
            let fixed = endpoints.list.iter().filter(|one| facts::selects(&backend.labels, &one.labels));
            let fixed = fixed.map(|one| Target::endpoint(mesh, Some(backend), one, is_opaque));
            let named = endpoints.named.iter().filter(|one| facts::selects(&backend.labels, &one.labels));
            let named = named.map(|one| Target::named(mesh, backend, one, is_opaque));
            list.extend(fixed.chain(named).filter(|one| seen.insert((one.address.clone(), one.how.clone()))));
        }
        list
    }
}

impl Target {
    fn endpoint(mesh: &Mesh, backend: Option<&Backend>, endpoint: &Endpoint, is_opaque: bool) -> Self {
        let Endpoint { address, dial, identity, workload, .. } = endpoint;
        let elsewhere = Some(*dial).filter(|dial| dial != address);
        let at = match elsewhere {
            Some(dial) => format!("{address}, dialled at {dial}"),
            None => address.to_string(),
        };
        let target = Self::new(mesh, backend, identity.as_ref(), workload.as_ref(), address.port());
        Self { address: at, app: Some(address.ip()), dial: elsewhere, is_opaque, ..target }
    }

    fn named(mesh: &Mesh, backend: &Backend, one: &selvedge_model::NamedEndpoint, is_opaque: bool) -> Self {
        let target =
            Self::new(mesh, Some(backend), one.identity.as_ref(), one.workload.as_ref(), one.address.port);
        Self { address: format!("{} (as the sidecar's DNS says)", one.address), is_opaque, ..target }
    }

    fn new(
        mesh: &Mesh,
        backend: Option<&Backend>,
        identity: Option<&SpiffeId>,
        workload: Option<&WorkloadName>,
        port: u16,
    ) -> Self {
        let transport = Transport::of(backend.and_then(|backend| backend.policy.tls.as_ref()), identity);
        let workload = workload.and_then(|name| mesh.workloads.get(name));
        let workload = workload.map(|one| one.with_sets(|part| mesh.sets.get(part).cloned()));
        Self {
            address: String::new(),
            how: how(transport, identity.is_some(), workload.as_ref()),
            workload,
            impossible: impossible(transport).map(|answer| answer.why),
            app: None,
            dial: None,
            port,
            expected: match transport {
                Transport::Mutual(identity) => Some(identity.clone()),
                _ => None,
            },
            is_opaque: false,
        }
    }

    /// What no document declares, to which it goes out in plaintext.
    fn unknown(authority: &str) -> Self {
        let address = snapshot::address(authority);
        Self {
            address: authority.to_owned(),
            workload: None,
            how: "plaintext, because no workload is known there".to_owned(),
            impossible: None,
            app: address.map(|address| address.ip()),
            dial: None,
            port: address.map_or_else(|| port_of(authority), |address| address.port()),
            expected: None,
            is_opaque: false,
        }
    }

    /// How `client` calls it, and why so.
    pub(super) fn how(&self, client: Client<'_>) -> String {
        match client.identity {
            Some(_) => self.how.clone(),
            None => "plaintext, because the client has no sidecar".to_owned(),
        }
    }

    /// The server's end.
    pub(super) fn server(&self) -> Server<'_> {
        Server {
            workload: self.workload.as_ref(),
            address: self.app,
            dial: self.dial,
            port: self.port,
            expected: self.expected.as_ref(),
            is_opaque: self.is_opaque,
        }
    }
}

fn port_of(authority: &str) -> u16 {
    authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(80)
}
