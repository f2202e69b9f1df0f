//! A set of IP addresses: single ones, which may be thousands, and blocks.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Serialize, Serializer};

/// A set of IP addresses. An IPv4 address that is written as an IPv6 one (`::ffff:10.0.0.1`) is the same address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressSet {
    single: HashSet<IpAddr>,
    blocks: Vec<IpNet>,
}

impl AddressSet {
    /// The addresses in any of `blocks`.
    pub fn new(blocks: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut single, mut ranges) = (HashSet::new(), Vec::new());
        for block in blocks.into_iter().map(canonical) {
            if block.prefix_len() == block.max_prefix_len() {
                single.insert(block.addr());
            } else {
                ranges.push(block);
            }
        }
        ranges.sort_unstable();
        ranges.dedup();
        Self { single, blocks: ranges }
    }

    /// Whether `address` is in it.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        (!self.single.is_empty() && self.single.contains(&address))
            || self.blocks.iter().any(|block| block.contains(&address))
    }

    /// Whether no address is in it.
    pub fn is_empty(&self) -> bool {
        self.single.is_empty() && self.blocks.is_empty()
    }

    /// Its blocks, sorted; a single address is a block of one.
    pub fn blocks(&self) -> Vec<IpNet> {
        let mut blocks: Vec<IpNet> = self.single.iter().map(|address| IpNet::from(*address)).collect();
        blocks.extend(&self.blocks);
        blocks.sort_unstable();
        blocks
    }
}

/// Reads an address or a block, such as `10.0.0.1` or `10.0.0.0/8`; `None` if `text` is neither.
pub fn block(text: &str) -> Option<IpNet> {
    match text.contains('/') {
        true => text.parse().ok(),
        false => text.parse().map(|address: IpAddr| IpNet::from(address)).ok(),
    }
}

fn canonical(block: IpNet) -> IpNet {
    const MAPPED: u8 = 96;
    let mapped = |address: Ipv6Addr| address.to_ipv4_mapped();
    let block = match block {
        IpNet::V6(net) if net.prefix_len() >= MAPPED => match mapped(net.addr()) {
            Some(address) => Ipv4Net::new(address, net.prefix_len() - MAPPED).map_or(block, IpNet::V4),
            None => block,
        },
        _ => block,
    };
    block.trunc()
}

impl Serialize for AddressSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.blocks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(blocks: &[&str]) -> AddressSet {
        AddressSet::new(blocks.iter().map(|text| block(text).unwrap()))
    }

    #[test]
    fn addresses_and_blocks_hold_what_lies_in_them() {
        let set = set(&["10.0.0.1", "192.168.7.9/16", "2001:db8::/32"]);

        for inside in ["10.0.0.1", "::ffff:10.0.0.1", "192.168.255.255", "2001:db8::1"] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in ["10.0.0.2", "192.169.0.1", "2001:db9::1", "::a00:1"] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn what_means_the_same_is_equal_and_what_is_no_address_is_nothing() {
        assert_eq!(set(&["10.0.0.1/8", "10.0.0.1"]), set(&["::ffff:10.0.0.1", "10.9.9.9/8"]));
        for wrong in ["", "10.0.0", "10.0.0.0/33", "10.0.0.1/", "a", "*"] {
            assert_eq!(block(wrong), None, "{wrong}");
        }
    }
}
