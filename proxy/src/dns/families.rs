//! Which addresses of a name are endpoints, and which are tried beside them (RFC 8305, Happy Eyeballs).
//!
//! IPv4 goes first, as everywhere in a cluster: only where a name has none are its IPv6 addresses endpoints. The others are
//! there for connections that are not made.

use std::net::IpAddr;

/// The most addresses that are tried beside an endpoint's own.
const MOST: usize = 5;

/// The addresses that are endpoints, each with those that are tried after it. `one`: the only one that is an endpoint.
pub(super) fn endpoints(addresses: &[IpAddr], one: Option<Option<IpAddr>>) -> Vec<(IpAddr, Vec<IpAddr>)> {
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = addresses.iter().partition(|address| address.is_ipv4());
    if let Some(one) = one {
        let Some(one) = one else { return Vec::new() };
        let rest = |family: Vec<IpAddr>| family.into_iter().filter(move |address| *address != one);
        let (own, other) = if one.is_ipv4() { (v4, v6) } else { (v6, v4) };
        return vec![(one, alternating(rest(other), rest(own)).take(MOST).collect())];
    }
    let (own, other) = if v4.is_empty() { (v6, v4) } else { (v4, v6) };
    // Each begins with another one, so that not all connections end up at the first.
    let others = |place: usize| other.iter().cycle().skip(place).take(other.len().min(MOST)).copied();
    own.into_iter().enumerate().map(|(place, address)| (address, others(place).collect())).collect()
}

/// One of each in turn, and then what is left.
fn alternating<T>(
    first: impl Iterator<Item = T>,
    second: impl Iterator<Item = T>,
) -> impl Iterator<Item = T> {
    let (mut first, mut second, mut turn) = (first, second, false);
    std::iter::from_fn(move || {
        turn = !turn;
        if turn { first.next().or_else(|| second.next()) } else { second.next().or_else(|| first.next()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    fn words(found: Vec<(IpAddr, Vec<IpAddr>)>) -> Vec<String> {
        let all = |(address, others): (IpAddr, Vec<IpAddr>)| {
            std::iter::once(address).chain(others).map(|ip| ip.to_string()).collect::<Vec<_>>().join(" ")
        };
        found.into_iter().map(all).collect()
    }

    #[test]
    fn each_ipv4_address_is_an_endpoint_and_ipv6_is_tried_beside_it() {
        let both = ips(&["10.0.0.1", "10.0.0.2", "fd00::1", "fd00::2"]);
        assert_eq!(words(endpoints(&both, None)), ["10.0.0.1 fd00::1 fd00::2", "10.0.0.2 fd00::2 fd00::1"]);
        assert_eq!(words(endpoints(&both[2..], None)), ["fd00::1", "fd00::2"]);
        assert_eq!(words(endpoints(&both[..2], None)), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(words(endpoints(&[], None)), [""; 0]);
    }

    #[test]
    fn one_address_is_followed_by_all_others_of_the_families_in_turn() {
        let all = ips(&["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3", "fd00::4"]);
        let one = |one: &str| words(endpoints(&all, Some(Some(one.parse().unwrap()))));
        assert_eq!(one("10.0.0.2"), ["10.0.0.2 fd00::1 10.0.0.1 fd00::2 10.0.0.3 fd00::3"]);
        assert_eq!(one("fd00::1"), ["fd00::1 10.0.0.1 fd00::2 10.0.0.2 fd00::3 10.0.0.3"]);
        assert_eq!(words(endpoints(&all, Some(None))), [""; 0]);
    }
}
