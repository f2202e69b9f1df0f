//! What a balancer is made for.

use std::net::{IpAddr, SocketAddr};

use xxhash_rust::xxh3::xxh3_64;

/// What a balancer is made for: one of its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Where its app listens.
    pub address: SocketAddr,
    /// Its share of requests is this / the sum of all; not 0.
    pub weight: u32,
    /// What stands for who is there: with another, it is another endpoint, as which it begins anew.
    pub occupant: u64,
}

impl Member {
    /// What stands for it in hashes. It depends on its address alone, so that it is the same for every proxy and after a
    /// restart, and stays when other endpoints come or leave.
    pub(super) fn key(&self) -> u64 {
        let mut bytes = [0; 18];
        bytes[..16].copy_from_slice(&address_bytes(self.address.ip()));
        bytes[16..].copy_from_slice(&self.address.port().to_be_bytes());
        xxh3_64(&bytes)
    }
}

/// An address as 16 bytes; one of IPv4 is the same whichever way it is written.
pub fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}
