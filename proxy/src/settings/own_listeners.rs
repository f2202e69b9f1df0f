//! Our own listeners. Nothing that the proxy carries may reach them.
//!
//! Checked once for each connection, when it is opened: the address counts, whatever name, document or redirection led
//! to it. Listeners of our other daemons on this host are found by [`selvedge_ops::guarded`].

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use arc_swap::ArcSwap;
use selvedge_ops::{
    guarded::{self, Kind},
    here, metadata,
};

use crate::error::{Failure, Reason};

/// What a connection is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To a sidecar, over mutual TLS: only an inbound listener speaks that, ours for our own workload too.
    Mesh,
    /// To a sidecar in plaintext, as a `DestinationRule` may want: to an inbound listener too, and no other.
    Sidecar,
    /// To a server outside the mesh.
    Out,
    /// In, to the app.
    App,
}

/// Where this proxy listens.
#[derive(Debug, Clone)]
pub struct OwnListeners {
    /// For what leaves.
    pub outbound: Vec<SocketAddr>,
    /// For what comes in. `None`: a gateway has listeners that come and go, and none of them for sidecars.
    pub inbound: Option<SocketAddr>,
    /// Where a gateway's clients connect; changes with configuration.
    pub gateway: Arc<ArcSwap<Vec<SocketAddr>>>,
    /// For probes and people.
    pub admin: SocketAddr,
    /// The port of the control plane, if `--control-plane` says that it is on this host's loopback.
    pub control_plane: Option<u16>,
    /// Whether connections are redirected, and go to the app where they were going. Connections to a control plane on
    /// this host then go on to it: they do not come from loopback, and it sees where they come from.
    pub redirected: bool,
}

impl OwnListeners {
    /// Refuses a connection to `dial` if it would reach one of our own listeners, or one of a daemon of ours on this
    /// host, which nobody may reach by way of a proxy. A gateway, which leads strangers where anybody's documents say, leads
    /// them to no server of machines' metadata either.
    ///
    /// Costs nothing but comparisons where it goes to a sidecar, two system calls otherwise.
    ///
    /// # Errors
    /// [`Reason::Loop`] if what is sent there would come back, [`Reason::Policy`] for an admin port, a control plane or metadata.
    pub fn refuse_own(&self, dial: SocketAddr, way: Way) -> Result<(), Failure> {
        let dial = guarded::dialled(dial);
        if self.is_gateway()
            && way != Way::Mesh
            && let Some(metadata) = metadata::at(dial.ip())
        {
            let what = format!("{dial} is not called ({metadata}): a gateway leads nobody there");
            return Err(Failure::new(Reason::Policy, what));
        }
        let to_sidecar = matches!(way, Way::Mesh | Way::Sidecar);
        match self.own(dial).filter(|own| *own != Listener::Inbound || !to_sidecar) {
            Some(own) => Err(own.refusal(dial)),
            None if way == Way::Mesh || (way == Way::App && self.redirected) => Ok(()),
            None => match self.others(dial) {
                Some(Kind::Outbound) => Err(Listener::Outbound.refusal(dial)),
                Some(Kind::Private) => Err(Listener::Private.refusal(dial)),
                // If the app is another sidecar, the connection may be for that one's app.
                Some(Kind::Inbound) if way == Way::App => Err(Listener::Inbound.refusal(dial)),
                Some(Kind::Inbound) | None => Ok(()),
            },
        }
    }

    /// Refuses a `port` that one of our own listeners has, whatever the address.
    ///
    /// # Errors
    /// As [`Self::refuse_own`].
    pub fn refuse_own_port(&self, port: u16) -> Result<(), Failure> {
        match self.all().find(|(_, own)| own.port() == port) {
            Some((Listener::Private, _)) => {
                Err(Failure::new(Reason::Policy, format!("port {port} is the admin port of this proxy")))
            }
            Some(_) => Err(Failure::new(Reason::Loop, format!("port {port} is a listener of this proxy"))),
            None => Ok(()),
        }
    }

    /// Only a gateway has no listener for what comes in from sidecars.
    fn is_gateway(&self) -> bool {
        self.inbound.is_none()
    }

    fn all(&self) -> impl Iterator<Item = (Listener, SocketAddr)> {
        let outbound = self.outbound.iter().map(|address| (Listener::Outbound, *address));
        let gateway = self.gateway.load();
        let gateway: Vec<_> = gateway.iter().map(|address| (Listener::Outbound, *address)).collect();
        let inbound = self.inbound.map(|address| (Listener::Inbound, address));
        outbound.chain(gateway).chain(inbound).chain([(Listener::Private, self.admin)])
    }

    fn own(&self, dial: SocketAddr) -> Option<Listener> {
        let listens = |ip: IpAddr| ip == dial.ip() || (ip.is_unspecified() && here::has(dial.ip()));
        let mut same_port = self.all().filter(|(_, own)| own.port() == dial.port());
        same_port.find(|(_, own)| listens(own.ip().to_canonical())).map(|(own, _)| own)
    }

    fn others(&self, dial: SocketAddr) -> Option<Kind> {
        if dial.ip().is_loopback() && self.control_plane == Some(dial.port()) {
            return Some(Kind::Private);
        }
        guarded::find(dial)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listener {
    Outbound,
    Inbound,
    Private,
}

impl Listener {
    fn refusal(self, dial: SocketAddr) -> Failure {
        match self {
            Self::Outbound | Self::Inbound => {
                let what = format!(
                    "{dial} is a sidecar's own listener; what is sent there would come back in a loop"
                );
                Failure::new(Reason::Loop, what)
            }
            Self::Private => {
                let what = format!(
                    "{dial} is an admin port or a control plane's port; a sidecar does not call those"
                );
                Failure::new(Reason::Policy, what)
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As the defaults have them; in explicit mode.
    pub(crate) fn listeners() -> OwnListeners {
        OwnListeners {
            outbound: vec!["127.0.0.1:4140".parse().unwrap(), "[::1]:4140".parse().unwrap()],
            gateway: Arc::default(),
            inbound: Some("[::]:4143".parse().unwrap()),
            admin: "[::]:4191".parse().unwrap(),
            control_plane: Some(8086),
            redirected: false,
        }
    }

    fn refused(dial: &str, way: Way) -> Option<Reason> {
        listeners().refuse_own(dial.parse().unwrap(), way).err().map(|failure| failure.reason)
    }

    #[test]
    fn our_listeners_are_ours_however_they_are_written() {
        for host in ["127.0.0.1", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"] {
            for way in [Way::Out, Way::App] {
                assert_eq!(refused(&format!("{host}:4140"), way), Some(Reason::Loop), "{host}");
                assert_eq!(refused(&format!("{host}:4143"), way), Some(Reason::Loop), "{host}");
                assert_eq!(refused(&format!("{host}:4191"), way), Some(Reason::Policy), "{host}");
                assert_eq!(refused(&format!("{host}:8086"), way), Some(Reason::Policy), "{host}");
            }
        }
        assert_eq!(refused("127.0.0.9:4191", Way::Out), Some(Reason::Policy), "it has every address");
    }

    #[test]
    fn a_gateway_leads_nobody_to_a_machines_credentials() {
        let gateway = OwnListeners { inbound: None, ..listeners() };
        for dial in
            ["169.254.169.254:80", "[fd00:ec2::254]:80", "[::ffff:169.254.169.254]:80", "[fe80::1]:80"]
        {
            let refused = |own: &OwnListeners, way| {
                own.refuse_own(dial.parse().unwrap(), way).err().map(|failure| failure.reason)
            };
            assert_eq!(refused(&gateway, Way::Out), Some(Reason::Policy), "{dial}");
            assert_eq!(refused(&gateway, Way::Sidecar), Some(Reason::Policy), "{dial}");
            assert_eq!(refused(&listeners(), Way::Out), None, "an app asks for its own machine's: {dial}");
        }
    }

    #[test]
    fn other_hosts_and_other_ports_are_not_ours() {
        for other in
            ["192.0.2.1:4191", "192.0.2.1:8086", "127.0.0.9:4140", "127.0.0.1:8080", "[2001:db8::1]:4143"]
        {
            assert_eq!(refused(other, Way::Out), None, "{other}");
        }
    }

    #[test]
    fn a_sidecar_calls_its_own_workload_by_the_inbound_listener_and_no_other() {
        for way in [Way::Mesh, Way::Sidecar] {
            assert_eq!(refused("127.0.0.1:4143", way), None);
            assert_eq!(refused("127.0.0.1:4140", way), Some(Reason::Loop));
            assert_eq!(refused("127.0.0.1:4191", way), Some(Reason::Policy));
        }
    }
}
