//! Which addresses are not asked for keys.
//!
//! In clouds, link-local addresses serve the machine's own credentials to whoever asks. Loopback has the control plane's
//! own ports; but where documents are files, whoever writes them has the machine, and often the issuer beside it.

use std::net::IpAddr;

use selvedge_ops::metadata;

/// Why nothing is fetched from `address`, as a noun; `None`: it may be asked.
pub(super) fn refused(address: IpAddr, may_be_loopback: bool) -> Option<&'static str> {
    if let Some(metadata) = metadata::at(address) {
        return Some(metadata);
    }
    let address = metadata::ipv4_behind(address);
    let this_host = match address {
        IpAddr::V4(v4) => v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if (address.is_loopback() && !may_be_loopback) || this_host {
        return Some("the control plane's own host");
    }
    let is_broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    (address.is_multicast() || is_broadcast).then_some("an address that is not one host's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_serves_credentials_or_is_the_host_itself_is_not_asked_in_any_spelling() {
        let is_refused = |text: &str, loopback| refused(text.parse().unwrap(), loopback).is_some();

        for address in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
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
