//! Who connects, and who is called, as far as policies ask for it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use selvedge_model::{
    Mesh, Protocol, SpiffeId, Workload, WorkloadName, policy::network::NetworkRules, service::OPAQUE_PORTS,
};

/// Who connects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client<'a> {
    /// What it proves to be; `None`: it has no sidecar and is no gateway, and calls in plaintext.
    pub(crate) identity: Option<&'a SpiffeId>,
    /// The workload, if it is one.
    pub(crate) workload: Option<&'a WorkloadName>,
    /// Its address; `None`: not known, so that it matches no rule that names addresses.
    pub(crate) address: Option<IpAddr>,
    /// Whom its sidecar lets it call; `None`: everybody.
    pub(crate) egress: Option<&'a NetworkRules>,
}

impl<'a> Client<'a> {
    /// The workload `workload`, whose sets are known, at `address`.
    pub(crate) fn workload(workload: &'a Workload, address: Option<IpAddr>) -> Self {
        Self {
            identity: workload.has_proxy().then_some(&workload.identity),
            workload: Some(&workload.name),
            address: source(workload, address),
            egress: workload.egress.as_deref().filter(|_| workload.has_proxy()),
        }
    }
}

/// The address that the connections of `workload` come from, which is at `address`: where nobody redirects, its proxy makes
/// them, and on loopback the kernel lets them all come from one address, whatever that of the app is.
pub(in crate::explain) fn source(workload: &Workload, address: Option<IpAddr>) -> Option<IpAddr> {
    let by_proxy = workload.gateway.is_some() || workload.meshed && workload.inbound.is_some();
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    address.map(
        |address| if by_proxy && address.is_ipv4() && address.is_loopback() { loopback } else { address },
    )
}

/// Who is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Server<'a> {
    /// The workload, whose sets are known; `None`: no document declares one there.
    pub(crate) workload: Option<&'a Workload>,
    /// The app's address; `None`: not known.
    pub(crate) address: Option<IpAddr>,
    /// Where clients' sidecars connect, if not at the app's own address.
    pub(crate) dial: Option<SocketAddr>,
    /// The port, as the server's own.
    pub(crate) port: u16,
    /// The identity that a client with a sidecar expects; `None`: it calls in plaintext.
    pub(crate) expected: Option<&'a SpiffeId>,
    /// Whether it is said that the connection carries opaque bytes.
    pub(crate) is_opaque: bool,
}

impl<'a> Server<'a> {
    /// The port `port` of `workload`, whose sets are known, at `address`.
    pub(crate) fn workload(mesh: &Mesh, workload: &'a Workload, address: Option<IpAddr>, port: u16) -> Self {
        let server = Self {
            workload: Some(workload),
            address,
            dial: workload.inbound,
            port,
            expected: workload.expected_identity(port),
            is_opaque: false,
        };
        if server.is_skipped(mesh) { Self { expected: None, ..server } } else { server }
    }

    /// Whoever is at `address`, where no document declares a workload.
    pub(crate) fn stranger(address: SocketAddr) -> Self {
        let (port, address) = (address.port(), Some(address.ip()));
        Self { workload: None, address, dial: None, port, expected: None, is_opaque: false }
    }

    /// Whether connections reach the app without its sidecar.
    pub(super) fn is_skipped(&self, mesh: &Mesh) -> bool {
        let occupant = self.address.and_then(|address| mesh.occupants.get(&address));
        occupant
            .is_some_and(|one| one.skipped.iter().any(|(first, last)| (*first..=*last).contains(&self.port)))
    }

    /// Whether connections carry opaque bytes.
    pub(crate) fn is_opaque(&self) -> bool {
        let declared = self.workload.and_then(|workload| workload.protocols.get(&self.port));
        let spoken = declared.copied().unwrap_or_default().spoken(self.port, &OPAQUE_PORTS);
        self.is_opaque || spoken == Protocol::Tcp
    }
}
