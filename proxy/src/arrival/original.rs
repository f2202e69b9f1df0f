//! Where a connection was going before the kernel redirected it to one of our listeners.
//!
//! Asked once for each connection, right after it was accepted (`SO_ORIGINAL_DST`). The answer is the
//! kernel's own record of the redirection, which no client can forge.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use selvedge_ops::here;
use socket2::{SockAddr, SockRef};
use tokio::net::TcpStream;

use crate::error::{Failure, Reason};

/// Where a redirected connection was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OriginalDestination {
    /// The address and port that the client dialled; an IPv4 address is never written as IPv6.
    pub address: SocketAddr,
    /// The address of this host at which it arrived. Redirected from another host, it is the first address of the
    /// interface by which it came, and not the one that was dialled.
    pub local: IpAddr,
    /// Whether it dialled our listener itself, so that nothing was redirected.
    pub is_ours: bool,
}

impl OriginalDestination {
    /// The original destination of `tcp`.
    ///
    /// # Errors
    /// If the connection has ended already.
    pub fn of(tcp: &TcpStream) -> io::Result<Self> {
        let local = canonical(tcp.local_addr()?);
        let socket = SockRef::from(tcp);
        let asked = match local {
            SocketAddr::V4(_) => socket.original_dst_v4(),
            SocketAddr::V6(_) => socket.original_dst_v6(),
        };
        // No record: the kernel does not track this connection, so it cannot have been redirected.
        let address = asked.ok().as_ref().and_then(SockAddr::as_socket).map_or(local, canonical);
        Ok(Self { address, local: local.ip(), is_ours: address == local })
    }

    /// What the client dialled, if it was not our listener itself.
    pub fn dialled(self) -> Option<SocketAddr> {
        (!self.is_ours).then_some(self.address)
    }

    /// Refuses a connection that is not for this host, whatever redirects it: a sidecar relays nothing. At most four
    /// system calls for each connection, and none if the host has one address.
    ///
    /// # Errors
    /// [`Reason::Policy`]
    pub fn is_for_this_host(&self) -> Result<(), Failure> {
        let ip = self.address.ip();
        // From another host nothing goes to loopback, and what this one sends there is not redirected.
        let is_outside = !ip.is_loopback() && !ip.is_unspecified();
        if self.is_ours || (is_outside && (ip == self.local || here::has(ip))) {
            return Ok(());
        }
        let what =
            format!("{ip} is not an address of this host, and a sidecar relays nothing to other hosts");
        Err(Failure::new(Reason::Policy, what))
    }

    /// Refuses a connection that another host sends: rules other than ours may redirect what only passes by. Four
    /// system calls for each connection.
    ///
    /// # Errors
    /// [`Reason::Policy`]
    pub fn is_from_this_host(&self, peer: SocketAddr) -> Result<(), Failure> {
        if self.is_ours || here::has(peer.ip()) {
            return Ok(());
        }
        let what = format!("{peer} is not on this host, and a sidecar relays nothing for other hosts");
        Err(Failure::new(Reason::Policy, what))
    }
}

/// `address`, an IPv4 one as such even if it came through an IPv6 socket. Without IPv6's flow and scope,
/// which are no part of where somebody is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair(listen: &str, dial: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(format!("{dial}:{port}")), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_was_meant_for_us() {
        for (listen, dial) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")] {
            let (client, server) = pair(listen, dial).await;

            let original = OriginalDestination::of(&server).unwrap();

            let address = client.peer_addr().unwrap();
            assert_eq!(original, OriginalDestination { address, local: address.ip(), is_ours: true });
        }
    }

    #[test]
    fn what_is_not_for_this_host_or_not_from_it_is_not_carried() {
        let original = |address: &str, local: &str| {
            let address = address.parse().unwrap();
            OriginalDestination { address, local: local.parse().unwrap(), is_ours: false }
        };
        let for_us = |address, local| original(address, local).is_for_this_host().is_ok();
        let from_us = |peer: &str| {
            original("192.0.2.1:80", "127.0.0.1").is_from_this_host(peer.parse().unwrap()).is_ok()
        };

        assert!(for_us("192.0.2.5:80", "192.0.2.5"), "it arrived there");
        assert!(!for_us("192.0.2.1:80", "192.0.2.5"));
        assert!(!for_us("169.254.169.254:80", "192.0.2.5"));
        assert!(!for_us("[2001:db8::1]:80", "fd00::5"));
        assert!(!for_us("127.0.0.1:80", "192.0.2.5") && !for_us("[::1]:80", "fd00::5"), "never from outside");

        assert!(from_us("127.0.0.1:50000") && from_us("[::1]:50000"));
        assert!(!from_us("192.0.2.7:50000") && !from_us("[2001:db8::7]:50000"));
    }
}
