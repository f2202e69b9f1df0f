//! Backends that a gateway finds on its own host, or where machines have their credentials.
//!
//! An address of loopback, and the name `localhost`, are another host for each proxy. Where a document of another namespace says
//! that servers are there, or leads to a document that does, it leads strangers to what listens on the gateway's own host. It
//! does not matter how it says so: in a list, by labels, in an `EndpointSlice`, as a DNS name or by another name.

use std::collections::{BTreeSet, HashMap, HashSet};

use selvedge_model::{Host, ServiceKey, WorkloadName, gateway::Gateway};
use selvedge_ops::metadata;

use super::{
    super::{
        Problems,
        candidates::{Candidate, Candidates},
        routes::Routing,
        services::{Backing, KnownHost},
        workloads::Workloads,
    },
    seats::Seat,
};
use crate::resources::{Document, EndpointSliceSpec, ServiceEntrySpec, WorkloadEntrySpec};

/// How many names for others are followed.
const LONGEST_CHAIN: usize = 8;

/// Where backends are that should not be called.
#[derive(Debug, Clone, Copy)]
enum Home {
    /// On the host of whoever calls it.
    Callers,
    /// At an address of the gateway.
    Gateway,
    /// Where machines have their credentials, as a noun.
    Credentials(&'static str),
}

/// The document that says where an endpoint is.
enum Says<'a> {
    Entry(&'a Document<WorkloadEntrySpec>),
    Slice(&'a Document<EndpointSliceSpec>),
    Inline(&'a Document<ServiceEntrySpec>),
    /// That of the host: it has a name for it.
    Name,
}

/// Whether a gateway that is led to `host` comes to its own host, or to credentials.
pub(in super::super) fn leads_home(host: &Host) -> bool {
    home(host, &BTreeSet::new()).is_some()
}

/// Whether each proxy finds something else at `host`: it is an address of its own host.
fn is_of_callers(host: &Host) -> bool {
    match host {
        Host::Ip(ip) => match metadata::ipv4_behind(*ip) {
            std::net::IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0,
            std::net::IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
        },
        Host::Name(name) => {
            let is_usual =
                ["localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback"].contains(&&**name);
            is_usual || name.ends_with(".localhost")
        }
    }
}

/// Where each workload is that is a gateway.
pub(super) type GatewayHosts<'w> = HashMap<&'w WorkloadName, Vec<&'w Host>>;

fn home(host: &Host, own: &BTreeSet<&Host>) -> Option<Home> {
    let credentials = match host {
        Host::Ip(ip) => metadata::at(*ip),
        Host::Name(name) => metadata::called(name),
    };
    match credentials {
        Some(what) => Some(Home::Credentials(what)),
        None if is_of_callers(host) => Some(Home::Callers),
        None => own.contains(host).then_some(Home::Gateway),
    }
}

/// Reports the documents of namespaces other than those of the gateway in `seat` and the root namespace that lead it there; and
/// all that lead it to credentials, because it does not go there. `gateway_hosts`: where each workload is that is a gateway.
pub(super) fn report(
    seat: &Seat<'_>,
    gateway: &Gateway,
    routing: &Routing<'_>,
    (workloads, gateway_hosts, candidates): (&Workloads<'_>, &GatewayHosts<'_>, &Candidates<'_>),
    problems: &mut Problems,
) {
    let own = seat.workloads.iter().filter_map(|name| gateway_hosts.get(name)).flatten();
    let own: BTreeSet<&Host> = own.copied().collect();
    let trusted = [seat.namespace, seat.workload_namespace, routing.root_namespace()];
    let backends = gateway.virtual_hosts.values().flat_map(|host| &host.backends);
    let services: BTreeSet<&ServiceKey> = backends.map(|backend| &backend.name.service).collect();
    for service in services {
        let Some(led) = Led::follow(service, routing, &trusted) else { continue };
        let mut told = HashSet::new();
        for candidate in candidates.get(&led.key).into_iter().flatten() {
            let Some((says, host)) = says(candidate, workloads) else { continue };
            let Some(home) = home(&host, &own) else { continue };
            let namespace = says.namespace().unwrap_or(led.known.namespace);
            let is_trusted = trusted.contains(&namespace);
            let refused = matches!(home, Home::Credentials(_));
            if (is_trusted && !refused && led.by.is_none()) || !told.insert(host.clone()) {
                continue;
            }
            let message = home.message(&host, seat);
            match (says, &led.by) {
                (_, Some((by, port))) if is_trusted && !refused => {
                    by.report_endpoints(*port, message, problems)
                }
                (Says::Entry(document), _) => problems.warning(document, "spec.address", message),
                (Says::Slice(document), _) => problems.warning(document, "endpoints", message),
                (Says::Inline(document), _) => problems.warning(document, "spec.endpoints", message),
                (Says::Name, _) => led.known.report_endpoints(led.key.port, message, problems),
            }
        }
    }
}

/// Whose endpoints a backend has in the end.
struct Led<'r, 'a> {
    known: &'r KnownHost<'a>,
    key: ServiceKey,
    /// The first on the way there that is another name for the next, in a namespace that is not trusted; with its port.
    by: Option<(&'r KnownHost<'a>, u16)>,
}

impl<'r, 'a> Led<'r, 'a> {
    fn follow(service: &ServiceKey, routing: &'r Routing<'a>, trusted: &[&str]) -> Option<Self> {
        let mut led = Self { known: routing.known(&service.host)?, key: service.clone(), by: None };
        for _ in 0..LONGEST_CHAIN {
            let Some(Backing::Alias(target)) = led.known.backing(led.key.port) else { break };
            if led.by.is_none() && !trusted.contains(&led.known.namespace) {
                led.by = Some((led.known, led.key.port));
            }
            led.known = routing.known(&target.host)?;
            led.key = target;
        }
        Some(led)
    }
}

/// Where `candidate` is, if it is called in plaintext, and which document says so. One that must prove who it is is what it is.
fn says<'a>(candidate: &Candidate<'a>, workloads: &Workloads<'a>) -> Option<(Says<'a>, Host)> {
    match candidate {
        Candidate::Workload(index, port) => {
            let known = workloads.at(*index);
            let document = known.entry()?;
            let host = document.spec.address.clone()?;
            let at = selvedge_model::HostPort::new(host.clone(), *port);
            known.endpoint_at(at).identity.is_none().then_some((Says::Entry(document), host))
        }
        Candidate::Sliced { slice, host_port, .. } => Some((Says::Slice(slice), host_port.host.clone())),
        Candidate::Inline(document, _, host_port) => Some((Says::Inline(document), host_port.host.clone())),
        Candidate::Name(host_port) => Some((Says::Name, host_port.host.clone())),
    }
}

impl Says<'_> {
    fn namespace(&self) -> Option<&str> {
        match self {
            Self::Entry(document) => Some(&document.name.namespace),
            Self::Slice(document) => Some(&document.name.namespace),
            Self::Inline(document) => Some(&document.name.namespace),
            Self::Name => None,
        }
    }
}

impl Home {
    fn message(self, host: &Host, seat: &Seat<'_>) -> String {
        let gateway = format!("the gateway {}/{}", seat.namespace, seat.name);
        match self {
            Self::Callers => format!(
                "{host} is on the host of whoever calls it: {gateway} leads its clients to what listens there on its own host; \
                 give the address of a server"
            ),
            Self::Gateway => format!(
                "{host} is an address of {gateway}, which leads its clients to what else listens there; give the address of a \
                 server"
            ),
            Self::Credentials(what) => format!(
                "{host} is not called by {gateway} ({what}): it leads nobody there, and answers 403; give the address of a server"
            ),
        }
    }
}
