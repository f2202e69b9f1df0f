//! Which addresses are not asked for keys.
//!
//! In clouds, link-local addresses serve the machine's own credentials to whoever asks. Loopback has the control plane's
//! own ports; but where documents are files, whoever writes them has the machine, and often the issuer beside it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where machines of clouds serve metadata, besides link-local addresses: AWS (IPv6), Azure's WireServer, Alibaba.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Why nothing is fetched from `address`, as a noun; `None`: it may be asked.
pub(super) fn refused(address: IpAddr, may_be_loopback: bool) -> Option<&'static str> {
    let address = plain(address);
    if METADATA.contains(&address) {
        return Some("a server of machines' metadata");
    }
    let (link_local, this_host) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[0] == 0),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.is_unspecified()),
    };
    if link_local {
        return Some("link-local addresses, where machines' metadata is");
    }
    if (address.is_loopback() && !may_be_loopback) || this_host {
        return Some("the control plane's own host");
    }
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_multicast() || is_broadcast).then_some("an address that is not one host's")
}

/// The IPv4 address that an IPv6 address stands for, if it does (RFC 4291, section 2.5.5; RFC 6052).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [high, low] = match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => [high, low],
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => [high, low],
        _ => return address.to_canonical(),
    };
    Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_credentials_or_is_the_host_itself_is_not_asked_in_any_spelling() {
        let is_refused = |text: &str, loopback| refused(text.parse().unwrap(), loopback).is_some();

        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "::169.254.169.254",
            "fe80::1",
            "fd00:ec2::254",
            "168.63.129.16",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
        ] {
            assert!(is_refused(address, false) && is_refused(address, true), "{address}");
        }
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(is_refused(address, false) && !is_refused(address, true), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "1.1.1.1", "2001:db8::1", "fd00::1"] {
            assert!(!is_refused(address, false), "{address}");
        }
    }
}
