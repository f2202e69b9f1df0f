//! Which addresses are this host's own.
//!
//! The kernel is asked each time, and nothing is remembered: addresses come and go. It is asked for the route to the
//! address, which is what the redirection rules ask too (nft `fib daddr type`, iptables `addrtype`). So secondary
//! addresses, addresses on `lo` and whole networks that are routed to `lo` count, whatever interface they are on.

use std::{
    io::{self, Read as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// `AF_NETLINK`, and `NETLINK_ROUTE` of it (netlink(7)).
const NETLINK: (i32, i32) = (16, 0);
/// `RTM_GETROUTE` asks for one route, `RTM_NEWROUTE` is the answer (rtnetlink(7)).
const GET_ROUTE: u16 = 26;
const NEW_ROUTE: u16 = 24;
/// `NLM_F_REQUEST`
const REQUEST: u16 = 1;
/// `RTA_DST`
const DESTINATION: u16 = 1;
/// `RTN_LOCAL`: what is sent there is taken in here.
const LOCAL: u8 = 2;
/// Lengths of a message's two headers (`nlmsghdr`, `rtmsg`) and of an attribute's.
const HEADERS: usize = 16 + 12;
const ATTRIBUTE: usize = 4;
/// Where the answer has its type: the eighth byte of the second header.
const KIND: usize = 16 + 7;

/// Whether what is sent to `ip` arrives at this host (in this network namespace). Costs four system calls, none for
/// loopback addresses and for those that say no host (`0.0.0.0`, `::`), to which connections go by loopback.
pub fn has(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    match route(ip) {
        Ok(kind) => kind == Some(LOCAL),
        Err(error) => {
            tracing::debug!(%ip, %error, "the kernel is not asked for routes here; it is asked by binding to the address");
            binds(ip) && !binds(nobodys(ip))
        }
    }
}

/// The type of the route to `ip`; `None`: there is no route.
fn route(ip: IpAddr) -> io::Result<Option<u8>> {
    let socket = Socket::new(Domain::from(NETLINK.0), Type::RAW, Some(Protocol::from(NETLINK.1)))?;
    // The answer is there when `send` returns; nothing is waited for.
    socket.set_nonblocking(true)?;
    socket.send(&question(ip))?;
    let mut answer = [0; 1024];
    let length = (&socket).read(&mut answer)?;
    let answer = answer.get(..length).filter(|answer| answer.len() >= HEADERS);
    let is_route = |answer: &&[u8]| u16::from_ne_bytes([answer[4], answer[5]]) == NEW_ROUTE;
    Ok(answer.filter(is_route).map(|answer| answer[KIND]))
}

/// `ip route get IP`
fn question(ip: IpAddr) -> Vec<u8> {
    /// `AF_INET` and `AF_INET6`.
    const FAMILIES: (u8, u8) = (2, 10);
    let (family, address) = match ip {
        IpAddr::V4(ip) => (FAMILIES.0, ip.octets().to_vec()),
        IpAddr::V6(ip) => (FAMILIES.1, ip.octets().to_vec()),
    };
    let (attribute, bits) = (ATTRIBUTE + address.len(), address.len() * 8);
    let mut message = Vec::with_capacity(HEADERS + attribute);
    let short = |length: usize| u16::try_from(length).expect("tens of bytes").to_ne_bytes();
    message.extend(u32::try_from(HEADERS + attribute).expect("tens of bytes").to_ne_bytes());
    message.extend(GET_ROUTE.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: there is one question for one answer
    message.extend([family, u8::try_from(bits).expect("32 or 128")]);
    message.extend([0; 10]);
    message.extend(short(attribute));
    message.extend(DESTINATION.to_ne_bytes());
    message.extend(address);
    message
}

fn binds(ip: IpAddr) -> bool {
    UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// An address for documentation. Who may bind to it may bind to any (`net.ipv4.ip_nonlocal_bind`), which tells nothing.
fn nobodys(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(192, 0, 2, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn loopback_is_here_and_what_nobody_has_is_not() {
        for own in ["127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::"] {
            assert!(has(ip(own)), "{own}");
        }
        for other in ["192.0.2.1", "169.254.169.254", "2001:db8::1", "fe80::1234", "224.0.0.1"] {
            assert!(!has(ip(other)), "{other}");
        }
    }

    #[test]
    fn the_kernel_says_what_it_takes_in() {
        assert_eq!(route(ip("127.0.0.1")).unwrap(), Some(LOCAL));
        assert_ne!(route(ip("192.0.2.1")).unwrap(), Some(LOCAL));
        assert!(binds(ip("127.0.0.1")) && !binds(ip("192.0.2.1")));
    }
}
