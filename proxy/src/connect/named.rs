//! The first bytes of a connection whose server is told whose it is: the PROXY protocol (HAProxy's `proxy-protocol.txt`).

use std::net::{IpAddr, SocketAddr};

use ppp::{
    v1,
    v2::{Addresses, Builder, Command, Protocol, Version},
};
use selvedge_model::ProxyProtocol;

use super::terms::Named;
use crate::arrival::canonical;

/// The header that says that a connection is that of the client which is `named`; `None`: it is the proxy's own.
pub(super) fn header(version: ProxyProtocol, named: Option<Named>) -> Vec<u8> {
    let addresses = named.map(|Named { client, called }| same_family(client, called));
    match version {
        ProxyProtocol::V1 => {
            let addresses = addresses.map_or(v1::Addresses::Unknown, v1::Addresses::from);
            addresses.to_string().into_bytes()
        }
        ProxyProtocol::V2 => {
            let builder = match addresses {
                Some(addresses) => {
                    Builder::with_addresses(Version::Two | Command::Proxy, Protocol::Stream, addresses)
                }
                None => Builder::with_addresses(
                    Version::Two | Command::Local,
                    Protocol::Unspecified,
                    Addresses::Unspecified,
                ),
            };
            // Addresses alone are never too long for a header.
            builder.build().unwrap_or_default()
        }
    }
}

/// Both addresses as IPv4, or both as IPv6: a header has room for one kind.
fn same_family(client: SocketAddr, called: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (client, called) = (canonical(client), canonical(called));
    if client.is_ipv4() == called.is_ipv4() {
        return (client, called);
    }
    let mapped = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    (mapped(client), mapped(called))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(client: &str, called: &str) -> Option<Named> {
        Some(Named { client: client.parse().unwrap(), called: called.parse().unwrap() })
    }

    #[test]
    fn a_header_names_the_client_and_what_it_called() {
        for (named, text) in [
            (named("10.1.2.3:4", "10.5.6.7:80"), "PROXY TCP4 10.1.2.3 10.5.6.7 4 80\r\n"),
            (named("[::ffff:10.1.2.3]:4", "10.5.6.7:80"), "PROXY TCP4 10.1.2.3 10.5.6.7 4 80\r\n"),
            (named("[fd00::1]:4", "[fd00::2]:80"), "PROXY TCP6 fd00::1 fd00::2 4 80\r\n"),
            (named("10.1.2.3:4", "[fd00::2]:80"), "PROXY TCP6 ::ffff:10.1.2.3 fd00::2 4 80\r\n"),
            (None, "PROXY UNKNOWN\r\n"),
        ] {
            assert_eq!(String::from_utf8(header(ProxyProtocol::V1, named)).unwrap(), text);
        }
    }

    #[test]
    fn the_second_version_says_the_same_in_bytes() {
        let signature = b"\r\n\r\n\0\r\nQUIT\n";
        let bytes = header(ProxyProtocol::V2, named("10.1.2.3:4", "10.5.6.7:80"));
        assert_eq!(&bytes[..12], signature);
        assert_eq!(bytes[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(bytes[16..], [10, 1, 2, 3, 10, 5, 6, 7, 0, 4, 0, 80]);

        let own = header(ProxyProtocol::V2, None);
        assert_eq!((&own[..12], &own[12..16]), (&signature[..], &[0x20, 0, 0, 0][..]));
    }
}
