//! Where clouds serve a machine's own credentials to whoever asks from there. Nobody is led there by a document or a name that
//! somebody else has written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Where machines of clouds serve metadata, besides link-local addresses: AWS (IPv6), Azure's WireServer, Alibaba.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// What clouds call these addresses in their networks' DNS: Google, AWS.
const NAMES: [&str; 5] =
    ["metadata.google.internal", "metadata.goog", "metadata", "instance-data", "instance-data.ec2.internal"];

/// What may serve a machine's credentials at `name`, in lower case, as a noun; `None`: nothing that is known. A name may have
/// such an address without being one of these.
pub fn called(name: &str) -> Option<&'static str> {
    NAMES.contains(&name).then_some("a name of machines' metadata")
}

/// What may serve a machine's credentials at `address`, as a noun; `None`: nothing that is known.
pub fn at(address: IpAddr) -> Option<&'static str> {
    let address = ipv4_behind(address);
    if METADATA.contains(&address) {
        return Some("a server of machines' metadata");
    }
    is_link_local(address).then_some("link-local addresses, where machines' metadata is")
}

/// Whether `address`, as it is written, means something else in each network (RFC 3927; RFC 4291, section 2.5.6).
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The IPv4 address that an IPv6 address stands for, if it does (RFC 4291, section 2.5.5; RFC 6052).
pub fn ipv4_behind(address: IpAddr) -> IpAddr {
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
    fn names_of_metadata_are_known() {
        assert!(called("metadata.google.internal").is_some());
        assert_eq!(called("metadata.example.com"), None);
    }

    #[test]
    fn metadata_is_known_in_any_spelling_of_its_address() {
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
        ] {
            assert!(at(address.parse().unwrap()).is_some(), "{address}");
        }
        for address in ["10.0.0.1", "127.0.0.1", "::1", "1.1.1.1", "2001:db8::1", "fd00::1"] {
            assert_eq!(at(address.parse().unwrap()), None, "{address}");
        }
    }
}
