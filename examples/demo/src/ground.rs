//! A part of the loopback network for one mesh alone: `127.x.y.0/24`, one address for each workload.
//!
//! Workloads then use the mesh's usual ports, as pods do, and a restarted app comes back where it was. The
//! subnet is drawn at random and claimed by a listening socket, so that meshes that run side by side do not
//! meet; a port that another program holds on *every* address is avoided by taking a free one.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

/// The port whose listener claims a subnet. It serves nothing.
const CLAIM_PORT: u16 = 4100;

/// How many subnets to try.
const ATTEMPTS: usize = 64;

/// Why no part of the loopback network can be had.
#[derive(Debug, thiserror::Error)]
pub enum GroundError {
    /// Other systems than Linux give the loopback interface 127.0.0.1 alone.
    #[error(
        "no 127.x.y.0/24 can be listened on ({source}); a loopback interface with all of 127.0.0.0/8 is \
         needed, as Linux has it, with port {CLAIM_PORT} free"
    )]
    NoSubnet {
        /// What the last attempt said.
        source: io::Error,
    },
    /// Neither the usual port nor any other.
    #[error("no port can be listened on at {address}: {source}")]
    NoPort {
        /// Where.
        address: Ipv4Addr,
        /// What the system said.
        source: io::Error,
    },
}

/// A claimed subnet; given back when dropped.
#[derive(Debug)]
pub struct Ground {
    subnet: [u8; 3],
    _claim: TcpListener,
}

impl Ground {
    /// Claims a random subnet that nobody else has claimed.
    ///
    /// # Errors
    /// If none can be had.
    pub fn claim() -> Result<Self, GroundError> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            // 127.0.0.0/16 is left to people; 127.255.255.255 is the broadcast address.
            let subnet = [127, fastrand::u8(16..=250), fastrand::u8(1..=250)];
            match TcpListener::bind((address(subnet, 254), CLAIM_PORT)) {
                Ok(claim) => return Ok(Self { subnet, _claim: claim }),
                Err(error) => last = error,
            }
        }
        Err(GroundError::NoSubnet { source: last })
    }

    /// The address of one host on it.
    pub fn address(&self, host: u8) -> Ipv4Addr {
        address(self.subnet, host)
    }

    /// `usual` at `host`, or another free port there if some program holds `usual` on every address.
    ///
    /// # Errors
    /// If no port is free at all.
    pub fn socket(&self, host: u8, usual: u16) -> Result<SocketAddr, GroundError> {
        let address = self.address(host);
        let listener = TcpListener::bind((address, usual)).or_else(|_| TcpListener::bind((address, 0)));
        let free = listener.and_then(|listener| listener.local_addr());
        free.map_err(|source| GroundError::NoPort { address, source })
    }
}

fn address([a, b, c]: [u8; 3], host: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_meshes_never_share_a_subnet() {
        let grounds: Vec<Ground> = (0..20).map(|_| Ground::claim().unwrap()).collect();

        let mut subnets: Vec<_> = grounds.iter().map(|ground| ground.address(1)).collect();
        subnets.sort_unstable();
        subnets.dedup();
        assert_eq!(subnets.len(), 20);
    }

    #[test]
    fn a_port_held_by_another_program_is_avoided() {
        let ground = Ground::claim().unwrap();
        let program = TcpListener::bind((ground.address(7), 0)).unwrap();
        let taken = program.local_addr().unwrap();

        let other = ground.socket(7, taken.port()).unwrap();

        assert_eq!(other.ip(), taken.ip());
        assert_ne!(other.port(), taken.port());
        assert!(other.ip().is_loopback());
    }
}
