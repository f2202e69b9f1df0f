//! Who claims which ports of an address, and what is said to who does not get them.

use std::{collections::BTreeSet, fmt};

use selvedge_model::{Host, HostPort};

use crate::{
    problem::DocumentName,
    resources::{Document, Location, ServiceEntrySpec, ServiceSpec},
};

/// A document, as problems of others point at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    name: &'a DocumentName,
    location: &'a Location,
}

impl<'a, T> From<&'a Document<T>> for Described<'a> {
    fn from(document: &'a Document<T>) -> Self {
        Self { name: &document.name, location: &document.location }
    }
}

impl<'a> Described<'a> {
    /// Whether somebody wrote it into a file.
    pub(super) fn is_in_file(self) -> bool {
        self.location.path.is_some()
    }

    /// The namespace that it is in.
    pub(super) fn namespace(self) -> &'a str {
        &self.name.namespace
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.location)
    }
}

/// The ports of an address that a document claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    /// All, declared or not.
    All,
    /// These.
    These(BTreeSet<u16>),
}

impl Ports {
    pub(super) fn contain(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

/// What kind of thing has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimedBy {
    /// A pod with its own address: no other workload shares it, not even in its namespace.
    Pod,
    /// A pod in its node's network: its ports are its own, and the node's others are not.
    PodOfNode,
    /// A service: connections to it are carried on by the cluster's network.
    Service,
    /// Anything else.
    Other,
}

impl ClaimedBy {
    /// Whether no other workload shares its ports, not even in its namespace.
    pub(super) fn is_a_pod(self) -> bool {
        matches!(self, Self::Pod | Self::PodOfNode)
    }
}

/// Who has some ports of an address.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    pub(super) namespace: &'a str,
    pub(super) by: Described<'a>,
    pub(super) what: ClaimedBy,
    pub(super) ports: Ports,
}

/// What a claim does not get, and who has it.
#[derive(Debug)]
pub(super) struct LostClaim<'a> {
    /// Everything at the address.
    pub(super) all: bool,
    /// These ports of it.
    pub(super) ports: BTreeSet<u16>,
    pub(super) to: Described<'a>,
}

impl LostClaim<'_> {
    /// What is wrong, for who wrote the claim on `host`.
    pub(super) fn message(&self, host: &Host) -> String {
        let what = match (self.all, self.ports.iter().next()) {
            (false, Some(port)) => HostPort::new(host.clone(), *port).to_string(),
            _ => host.to_string(),
        };
        format!(
            "{what} belongs to {}, so this declaration has no effect; use another address or port here",
            self.to
        )
    }
}

/// Who claims something.
pub(super) enum Claimant<'a> {
    /// The workload of this number.
    Workload(usize, Host, Claim<'a>),
    /// A `Service` in a file, by its clusterIPs.
    ClusterIp(&'a Document<ServiceSpec>),
    /// A `ServiceEntry`, by its `addresses`.
    Addresses(&'a Document<ServiceEntrySpec>),
    /// The document that lists an endpoint.
    Endpoint(Host, Claim<'a>),
}

/// Whether the addresses in `document` were given out by a cluster, so that nobody wrote them.
pub(super) fn in_cluster<T>(document: &&Document<T>) -> bool {
    document.location.path.is_none()
}

/// A claim that `document` makes.
pub(super) fn claim<'a, T>(document: &'a Document<T>, what: ClaimedBy, ports: Ports) -> Claim<'a> {
    Claim { namespace: &document.name.namespace, by: document.into(), what, ports }
}

/// Adds `claim` to those that have ports of a host, `here`, for the ports that nobody has yet and that are not `reserved` for
/// another namespace. Gives what it does not get.
pub(super) fn settle<'a>(
    here: &mut Vec<Claim<'a>>,
    reserved: &[Claim<'a>],
    mut claim: Claim<'a>,
) -> Option<LostClaim<'a>> {
    let rivals = || {
        let is_elsewhere = |other: &&Claim<'_>| other.namespace != claim.namespace;
        let here = here.iter().filter(move |other| other.what.is_a_pod() || is_elsewhere(other));
        // What is reserved for its own namespace may be reserved for itself.
        here.chain(reserved.iter().filter(is_elsewhere))
    };
    let lost = match &claim.ports {
        Ports::All => {
            rivals().next().map(|first| LostClaim { all: true, ports: BTreeSet::new(), to: first.by })
        }
        Ports::These(ports) => match rivals().find(|rival| rival.ports == Ports::All) {
            Some(first) => Some(LostClaim { all: true, ports: BTreeSet::new(), to: first.by }),
            None => rivals().find_map(|rival| {
                let taken: BTreeSet<u16> = ports
                    .iter()
                    .copied()
                    .filter(|port| rivals().any(|one| one.ports.contain(*port)))
                    .collect();
                let is_first = taken.iter().any(|port| rival.ports.contain(*port));
                is_first.then_some(LostClaim { all: false, ports: taken, to: rival.by })
            }),
        },
    };
    if lost.as_ref().is_some_and(|lost| lost.all) {
        return lost;
    }
    if let (Some(lost), Ports::These(ports)) = (&lost, &mut claim.ports) {
        ports.retain(|port| !lost.ports.contains(port));
    }
    here.push(claim);
    lost
}
