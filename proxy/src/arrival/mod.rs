//! How a connection came to us: which way it goes, and where it was going when it was redirected.

mod original;

use std::net::{IpAddr, SocketAddr};

pub use original::OriginalDestination;
pub(crate) use original::canonical;

use crate::error::Failure;

/// Which way connections and requests go, as seen from the workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the app.
    Inbound,
    /// From the app.
    Outbound,
}

impl Direction {
    /// Both, in the order of their numbers.
    pub(crate) const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    /// The word in metric names and logs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// How a connection came.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    /// The client: the other end, or whom a load balancer that is the other end has named.
    pub peer: SocketAddr,
    /// The load balancer that has named the client by the PROXY protocol. `None`: the client connects itself.
    pub via: Option<IpAddr>,
    /// Where it was going when it was redirected to us. `None`: nobody redirects.
    pub original: Option<OriginalDestination>,
    /// Which of the settings' upstreams it is for: it came to a listener of that alone.
    pub upstream: Option<usize>,
}

impl Arrival {
    /// Refuses a connection that may not be carried in its `direction`. Inbound connections must be for this host,
    /// outbound ones from it.
    ///
    /// # Errors
    /// [`Reason::Policy`](crate::error::Reason::Policy)
    pub fn is_ours_to_carry(&self, direction: Direction) -> Result<(), Failure> {
        match (self.original, direction) {
            (None, _) => Ok(()),
            (Some(original), Direction::Inbound) => original.is_for_this_host(),
            (Some(original), Direction::Outbound) => original.is_from_this_host(self.peer),
        }
    }
}
