//! Proof by real connections that the rules in force do what they should.
//!
//! A connection of an ordinary user to an address outside must arrive at the proxy's port with its original destination;
//! a connection of the proxy's user must not arrive there. The address is one that nobody has (RFC 5737, RFC 3849), or a
//! neighbour's, if there is no route to the first. A redirected connection never leaves the host, so nobody has to
//! listen at the address. At most one packet leaves the host: that of the proxy's user.
//!
//! Inbound connections cannot be proven from inside. Their rules were set in the same transaction. Whether they leave
//! alone what is not addressed to this host is read from the rules themselves.

use std::{
    fmt, fs, io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener, TcpStream, UdpSocket,
    },
    thread,
    time::Duration,
};

use rustix::{
    net::sockopt,
    process::{Gid, Uid},
    thread::{set_thread_res_gid, set_thread_res_uid},
};

use crate::{Error, Options};

/// How long a redirected connection may take to arrive. It stays in this namespace, so that it takes less than
/// a millisecond on an idle machine.
const ARRIVAL: Duration = Duration::from_secs(2);

/// How long the connection of the proxy's user is looked at. Redirected, it would have arrived as the other did.
const ABSENCE: Duration = Duration::from_millis(200);

/// What was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Where a connection was sent, for each family that leads anywhere from here.
    pub redirected: Vec<SocketAddr>,
    /// The proxy's user, if its connections were proven to be left alone. That takes the right to act as that
    /// user for a moment (the capability `SETUID`, and `SETGID` for its group).
    pub left_alone: Option<u32>,
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.redirected.is_empty() {
            return f.write_str("not verified: this network namespace has no route to other hosts yet");
        }
        let targets: Vec<String> = self.redirected.iter().map(ToString::to_string).collect();
        write!(f, "verified: a connection to {} arrived at the proxy's port", targets.join(" and one to "))?;
        match self.left_alone {
            Some(uid) => write!(f, ", and a connection of user {uid} did not"),
            None => f.write_str(
                "; not verified for the proxy's own user, because that needs the capability SETUID",
            ),
        }
    }
}

/// Makes the connections.
///
/// # Errors
/// If one goes where it should not, or cannot be made.
pub fn verify(options: &Options) -> Result<Proof, Error> {
    let mut proof = Proof { redirected: Vec::new(), left_alone: None };
    for family in [Family::V4, Family::V6] {
        let Some(target) = family.target(options) else { continue };
        let port = ProxyPort::listen(family, options.outbound_port.get())?;
        port.expect_arrival(target)?;
        proof.redirected.push(target);
        if port.expect_absence(target, options)? {
            proof.left_alone = Some(options.proxy_uid);
        }
    }
    Ok(proof)
}

/// The proxy's outbound port: ours for a moment, or the proxy's if it runs already.
struct ProxyPort {
    port: u16,
    ours: Option<TcpListener>,
}

impl ProxyPort {
    fn listen(family: Family, port: u16) -> Result<Self, Error> {
        let address = SocketAddr::new(family.loopback(), port);
        let listener = TcpListener::bind(address).and_then(|listener| {
            listener.set_nonblocking(true)?;
            Ok(listener)
        });
        match listener {
            Ok(listener) => {
                // What is redirected comes by the same interface. Whoever answers instead of us shows that it is up.
                match TcpStream::connect_timeout(&address, ARRIVAL) {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                        return Err(Error::NoLoopback(address));
                    }
                    connected => drop(connected.and_then(|_| listener.accept())),
                }
                Ok(Self { port, ours: Some(listener) })
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(Self { port, ours: None }),
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Err(Error::NoLoopback(address)),
            Err(source) => Err(Error::Verify { what: format!("cannot listen on {address}"), source }),
        }
    }

    fn expect_arrival(&self, target: SocketAddr) -> Result<(), Error> {
        let not_redirected = |seen| Error::NotRedirected { target, port: self.port, seen };
        let connection = TcpStream::connect_timeout(&target, ARRIVAL);
        // The proxy took it, if it is there: nobody else answers at such an address.
        if self.ours.is_none() && was_taken(&connection) {
            return Ok(());
        }
        let _connection = connection.map_err(|error| not_redirected(format!("it ended as {error}")))?;
        let Some(listener) = &self.ours else { return Ok(()) };
        let (arrived, _) =
            listener.accept().map_err(|_| not_redirected("another program answered it".to_owned()))?;
        let original = original_destination(&arrived).map_err(|source| Error::Verify {
            what: "the kernel does not give the original destination of a connection".to_owned(),
            source,
        })?;
        if original == target {
            Ok(())
        } else {
            Err(not_redirected(format!("one to {original} arrived instead")))
        }
    }

    /// `false` if we may not act as the proxy's user.
    fn expect_absence(&self, target: SocketAddr, options: &Options) -> Result<bool, Error> {
        let (uid, gid) = (options.proxy_uid, options.proxy_gid);
        let Some(connection) = as_user(uid, gid, || TcpStream::connect_timeout(&target, ABSENCE)) else {
            return Ok(false);
        };
        let arrived = match &self.ours {
            Some(listener) => listener.accept().is_ok(),
            None => was_taken(&connection),
        };
        if arrived { Err(Error::ProxyRedirected { uid, target }) } else { Ok(true) }
    }
}

/// Whether somebody took the connection. The proxy may have closed it again before we looked, because it reaches nobody at the
/// address either; what nobody takes is refused, and not reset.
fn was_taken(connection: &io::Result<TcpStream>) -> bool {
    connection.as_ref().map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |_| true)
}

/// Does `work` as another user, and as a group if one is given, on a thread of its own which that user is for its whole life.
fn as_user<T: Send>(uid: u32, gid: Option<u32>, work: impl FnOnce() -> T + Send) -> Option<T> {
    let (uid, gid) = (Uid::from_raw(uid), gid.map(Gid::from_raw));
    let becomes = || {
        // The group first: the user may not have the right to.
        gid.map_or(Ok(()), |gid| set_thread_res_gid(gid, gid, gid))?;
        set_thread_res_uid(uid, uid, uid)
    };
    let worker = || becomes().is_ok().then(work);
    thread::scope(|scope| scope.spawn(worker).join().expect("it does not panic"))
}

fn original_destination(stream: &TcpStream) -> io::Result<SocketAddr> {
    Ok(match stream.local_addr()? {
        SocketAddr::V4(_) => SocketAddr::from(sockopt::ip_original_dst(stream)?),
        SocketAddr::V6(_) => SocketAddr::from(sockopt::ipv6_original_dst(stream)?),
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }

    /// Where to send a connection that the rules redirect; none if this family leads nowhere, or all that it
    /// leads to is skipped.
    fn target(self, options: &Options) -> Option<SocketAddr> {
        let skipped = |port| options.skip_outbound_ports.iter().any(|ports| ports.contains(port));
        let port = [80].into_iter().chain(1..=u16::MAX).find(|port| !skipped(*port))?;
        let redirected = |address: &IpAddr| {
            !options.skip_outbound_networks.iter().any(|network| network.contains(address))
        };
        let candidates = [self.nobodys()].into_iter().chain(self.neighbours());
        let mut targets = candidates.filter(redirected).map(|address| SocketAddr::new(address, port));
        targets.find(leads_out)
    }

    /// An address for documentation.
    fn nobodys(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, 1).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        }
    }

    /// Addresses on the networks that we are on.
    fn neighbours(self) -> Vec<IpAddr> {
        let (table, network): (_, fn(&str) -> Option<IpAddr>) = match self {
            Self::V4 => ("/proc/net/route", route_v4),
            Self::V6 => ("/proc/net/ipv6_route", route_v6),
        };
        let routes = fs::read_to_string(table).unwrap_or_default();
        // Two on each, since one may be ourselves.
        routes
            .lines()
            .filter_map(network)
            .flat_map(|network| [after(network, 1), after(network, 2)])
            .collect()
    }
}

/// Whether a route leads to `target` and it is not ourselves. Sends nothing.
fn leads_out(target: &SocketAddr) -> bool {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0).into(),
    };
    let source = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() != target.ip() && !source.ip().is_loopback())
}

/// The network of a line of `/proc/net/route`, `eth0 000011AC 00000000 …`, if it is a network of ours: one with
/// no gateway.
fn route_v4(line: &str) -> Option<IpAddr> {
    let mut fields = line.split_whitespace().skip(1);
    let mut field = || u32::from_str_radix(fields.next()?, 16).ok();
    let (network, gateway) = (field()?, field()?);
    (gateway == 0 && network != 0).then(|| Ipv4Addr::from(network.to_le_bytes()).into())
}

/// The same of `/proc/net/ipv6_route`: network, its length, source, its length, next hop, and more; `lo` last.
fn route_v6(line: &str) -> Option<IpAddr> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let address = |index: usize| u128::from_str_radix(fields.get(index)?, 16).ok().map(Ipv6Addr::from);
    let (network, next_hop) = (address(0)?, address(4)?);
    let ours = next_hop.is_unspecified() && fields.last() != Some(&"lo") && fields.get(1) != Some(&"80");
    // An address of one link alone would need the link's name as well.
    let usable = !network.is_unspecified() && !network.is_multicast() && !network.is_unicast_link_local();
    (ours && usable).then(|| network.into())
}

fn after(network: IpAddr, n: u8) -> IpAddr {
    match network {
        IpAddr::V4(address) => Ipv4Addr::from(u32::from(address).wrapping_add(n.into())).into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address).wrapping_add(n.into())).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_ours_are_read_from_the_kernels_tables() {
        let network = "eth0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0";
        let default = "eth0\t00000000\t010011AC\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        let head = "Iface\tDestination\tGateway\tFlags";
        assert_eq!(route_v4(network), Some("172.17.0.0".parse().unwrap()));
        assert_eq!((route_v4(default), route_v4(head)), (None, None));

        let zero = "00000000000000000000000000000000";
        let network = format!("fd000000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 1 eth0");
        let link = format!("fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 1 eth0");
        let own = format!("fd000000000000000000000000000002 80 {zero} 00 {zero} 00000000 2 0 80200001 eth0");
        assert_eq!(route_v6(&network), Some("fd00::".parse().unwrap()));
        assert_eq!((route_v6(&link), route_v6(&own), route_v6("")), (None, None, None));
    }

    #[test]
    fn a_connection_that_is_closed_before_we_look_was_taken_and_a_refused_one_was_not() {
        let ended = |kind: io::ErrorKind| was_taken(&Err(kind.into()));

        assert!(ended(io::ErrorKind::ConnectionReset));
        assert!(
            ![io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut, io::ErrorKind::HostUnreachable]
                .into_iter()
                .any(ended)
        );
    }

    #[test]
    fn what_is_skipped_proves_nothing() {
        let all = |networks: &[&str]| Options {
            skip_outbound_networks: networks.iter().map(|text| text.parse().unwrap()).collect(),
            ..Options::default()
        };

        assert_eq!(Family::V4.target(&all(&["0.0.0.0/0"])), None);
        assert_eq!(Family::V6.target(&all(&["::/0"])), None);
    }
}
