//! A short queue in which those who wait take turns, so that none of them fills it for the others.

use std::net::{IpAddr, Ipv6Addr};

/// How much of an IPv6 address says whose it is here: a site may have that much, and with it as many smaller networks as it
/// likes (RFC 6177).
const SITE: u128 = !(u128::MAX >> 48);

/// Items that wait, each for somebody. Whoever has several waits with the second until everybody had a turn.
#[derive(Debug)]
pub(super) struct Turns<T> {
    most: usize,
    /// In the order in which they came.
    waiting: Vec<Waiting<T>>,
    /// The turn of the last one that was taken.
    turn: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    /// The client's site.
    whose: IpAddr,
    turn: u64,
    item: T,
}

impl<T> Turns<T> {
    /// An empty one for `most` items.
    pub(super) fn new(most: usize) -> Self {
        Self { most, waiting: Vec::with_capacity(most + 1), turn: 0 }
    }

    /// Adds what waits for the site of `client`. If there are too many, the last of a site's is given back that has most; which
    /// one's among equals is chance, so that whoever comes from many places keeps nobody out for certain.
    pub(super) fn add(&mut self, client: IpAddr, item: T) -> Option<T> {
        let whose = site(client);
        let last = self.waiting.iter().filter(|waiting| waiting.whose == whose).map(|waiting| waiting.turn);
        let turn = last.max().unwrap_or(self.turn) + 1;
        self.waiting.push(Waiting { whose, turn, item });
        if self.waiting.len() <= self.most {
            return None;
        }
        let counts = self.waiting.iter().map(|waiting| self.count(waiting.whose)).collect::<Vec<_>>();
        let most = counts.iter().copied().max()?;
        let those = self.waiting.iter().zip(&counts).filter(|(_, count)| **count == most);
        let those: Vec<IpAddr> = those.map(|(waiting, _)| waiting.whose).collect();
        let one = fastrand::choice(&those).copied()?;
        let place = self.waiting.iter().rposition(|waiting| waiting.whose == one)?;
        Some(self.waiting.remove(place).item)
    }

    fn count(&self, whose: IpAddr) -> usize {
        self.waiting.iter().filter(|waiting| waiting.whose == whose).count()
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<T> {
        let turns = self.waiting.iter().enumerate();
        let (place, _) = turns.min_by_key(|(_, waiting)| waiting.turn)?;
        let next = self.waiting.remove(place);
        self.turn = next.turn;
        Some(next.item)
    }
}

/// The network that `client` counts as.
fn site(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & SITE).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    fn all(mut turns: Turns<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| turns.next()).collect()
    }

    #[test]
    fn everybody_has_a_turn_before_somebody_has_a_second() {
        let mut turns = Turns::new(8);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(turns.add(client(1), item), None);
        }
        assert_eq!(turns.next(), Some("a1"));
        turns.add(client(2), "b1");
        turns.add(client(1), "a4");
        turns.add(client(3), "c1");
        turns.add(client(2), "b2");

        assert_eq!(all(turns), ["a2", "b1", "c1", "a3", "b2", "a4"]);
    }

    #[test]
    fn whoever_has_most_makes_room_for_others_and_not_they_for_him() {
        let mut turns = Turns::new(3);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(turns.add(client(1), item), None);
        }

        assert_eq!(turns.add(client(1), "a4"), Some("a4"));
        assert_eq!(turns.add(client(2), "b1"), Some("a3"));
        assert_eq!(turns.add(client(3), "c1"), Some("a2"));
        assert_eq!(turns.add(client(1), "a5"), Some("a5"));
        assert_eq!(all(turns), ["a1", "b1", "c1"]);
    }

    #[test]
    fn chance_decides_among_those_who_have_one_each_so_that_nobody_is_kept_out_for_certain() {
        let stays = |_: &u32| {
            let mut turns = Turns::new(3);
            for (number, item) in (1..).zip(["a1", "b1", "c1"]) {
                assert_eq!(turns.add(client(number), item), None);
            }
            turns.add(client(4), "d1").is_some_and(|dropped| dropped != "d1")
        };
        let stayed = (0..1000).filter(stays).count();
        assert!((1..1000).contains(&stayed), "{stayed}");
    }

    #[test]
    fn the_networks_of_one_site_are_one_client() {
        let network = |site: u16, number: u16| IpAddr::from([0x2001, 0xdb8, site, number, 0, 0, 0, 0]);
        let mut turns = Turns::new(3);
        for (number, item) in (0..).zip(["a1", "a2", "a3"]) {
            assert_eq!(turns.add(network(1, number), item), None);
        }
        assert_eq!(turns.add(network(2, 0), "b1"), Some("a3"));
        assert_eq!(all(turns), ["a1", "b1", "a2"]);
    }
}
