//! Rate limits: how many requests of whom are let in.
//!
//! What is said here has no state. Whose bucket a request draws on is decided in one place, [`Limit::whose`]; how full it is
//! only a proxy knows.

mod global;

use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Serialize, Serializer};

pub use self::global::{
    Descriptor, Entry, Global, LONGEST_VALUE, LONGEST_WAIT, LONGEST_WORD, MOST_DESCRIPTORS, OnFailure,
    TIMEOUT, Value,
};
use crate::{SpiffeId, policy::AddressSet, token::reads_as};

/// The most requests that a limit may let in during its time, or at once.
pub const MOST_REQUESTS: u32 = 1_000_000;
/// The longest time that a limit may count in.
pub const LONGEST_TIME: Duration = Duration::from_secs(24 * 60 * 60);
/// The most limits that one document may have, and the most exceptions from one limit.
pub const MOST_LIMITS: usize = 16;
/// The most identities that one exception may be for.
pub const MOST_IDENTITIES: usize = 1_000;

/// The limits of one document. A request must be within all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// The document.
    pub name: Arc<str>,
    /// The ports that it is for; `None`: all. Only where it is for workloads, and not for a route.
    pub ports: Option<BTreeSet<u16>>,
    /// Whether it refuses nothing, and only counts and logs what it would refuse.
    pub dry_run: bool,
    /// Whether every answer says how much is left, and not those alone that refuse.
    pub tells_all: bool,
    /// Its limits, those of each client first: who is beyond its own does not use up what all share.
    pub limits: Vec<Limit>,
    /// The server that is asked when a request is within them; `None`: nobody is.
    pub global: Option<Global>,
}

impl RateLimit {
    /// Those of one document; they are put in their order.
    pub fn new(name: Arc<str>, ports: Option<BTreeSet<u16>>, dry_run: bool, mut limits: Vec<Limit>) -> Self {
        limits.sort_by_key(|limit| limit.by == By::Everyone);
        Self { name, ports, dry_run, tells_all: false, limits, global: None }
    }

    /// The same, and what a server is asked.
    #[must_use]
    pub fn with_global(self, global: Option<Global>) -> Self {
        Self { global, ..self }
    }

    /// The same, of which every answer says how much is left, if it `tells_all`.
    #[must_use]
    pub fn telling(self, tells_all: bool) -> Self {
        Self { tells_all, ..self }
    }

    /// The limits that are for a request of `asker`, in words.
    pub fn for_request(&self, asker: Asker<'_>) -> impl Iterator<Item = String> {
        let only = if self.dry_run { " (a dry run, which refuses nothing)" } else { "" };
        let name = &self.name;
        let own = self.limits.iter().filter_map(move |limit| {
            let Quota { requests, per, burst } = limit.quota(&limit.whose(asker)?);
            let by = &limit.by;
            Some(format!("{name}: {requests} requests in {per:?} of {by}, {burst} at once{only}"))
        });
        let global = self.global.as_ref().and_then(|global| global.for_request(asker));
        own.chain(global.map(|words| format!("{name}: {words}{only}")))
    }

    /// Whether it is for requests to `port`.
    pub fn is_for(&self, port: u16) -> bool {
        self.ports.as_ref().is_none_or(|ports| ports.contains(&port))
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// Who has a bucket of its own.
    pub by: By,
    /// How many requests are let in.
    pub quota: Quota,
    /// Identities that have another bucket, which those of one exception share.
    pub exceptions: Vec<Exception>,
    /// Clients that it is not for, by their addresses.
    pub exempt: AddressSet,
}

/// Who has a bucket of its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum By {
    /// Nobody: all clients share one.
    Everyone,
    /// Each address; of IPv6 each network of 64 bits, because a client has as many addresses there as it wants.
    ClientAddress,
    /// Each identity that is proven by a certificate of the mesh. Clients without one share one bucket.
    ClientIdentity,
    /// Nobody but those of the limit's exceptions: it is for no other client.
    ExceptionAlone,
    /// Each value of a header. Requests without it share one bucket.
    Header(#[serde(serialize_with = "name")] HeaderName),
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("all clients together"),
            Self::ClientAddress => f.write_str("each client address"),
            Self::ClientIdentity => f.write_str("each client identity"),
            Self::ExceptionAlone => f.write_str("certain client identities"),
            Self::Header(name) => write!(f, "each value of {name}"),
        }
    }
}

fn name<S: Serializer>(name: &HeaderName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

/// How many requests are let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Quota {
    /// So many in each `per`, evenly; 1 to [`MOST_REQUESTS`].
    pub requests: u32,
    /// At least 1 ms, at most [`LONGEST_TIME`].
    pub per: Duration,
    /// So many at once; 1 to [`MOST_REQUESTS`].
    pub burst: u32,
}

/// Identities that have another bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// Whose it is.
    pub identities: BTreeSet<SpiffeId>,
    /// How many requests of all of them together are let in.
    pub quota: Quota,
}

/// What a limit looks at.
#[derive(Debug, Clone, Copy)]
pub struct Asker<'a> {
    /// The client's address; `None`: nobody knows it.
    pub address: Option<IpAddr>,
    /// Who it has proven to be.
    pub identity: Option<&'a SpiffeId>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The name of the rule that the request follows; `None`: it has found none yet.
    pub route: Option<&'a str>,
}

/// Whose bucket a request draws on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Whose<'a> {
    /// That of all clients.
    Everyone,
    /// That of the exception at this place.
    Exception(usize),
    /// That of an address, or of a network.
    Address(IpAddr),
    /// That of an identity.
    Identity(&'a SpiffeId),
    /// That of the value of a header.
    Header(&'a HeaderValue),
    /// That of all clients of which is not known what the limit asks for.
    Unknown,
}

/// The value of a header, if there is one alone: an app may take any of several, and may read another spelling of the name.
/// Whoever added such fields would have a bucket for each.
fn only_value<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut read = headers.iter().filter(|(one, _)| reads_as(one, name));
    let (spelt, value) = read.next()?;
    (spelt == name && read.next().is_none()).then_some(value)
}

impl Limit {
    /// A limit without exceptions.
    pub fn new(by: By, quota: Quota) -> Self {
        Self { by, quota, exceptions: Vec::new(), exempt: AddressSet::default() }
    }

    /// Whose bucket a request of `asker` draws on; `None`: the limit is not for it.
    pub fn whose<'a>(&'a self, asker: Asker<'a>) -> Option<Whose<'a>> {
        if asker.address.is_some_and(|address| self.exempt.contains(address)) {
            return None;
        }
        if let Some(identity) = asker.identity.filter(|_| !self.exceptions.is_empty()) {
            let excepted = self.exceptions.iter().position(|one| one.identities.contains(identity));
            if let Some(place) = excepted {
                return Some(Whose::Exception(place));
            }
        }
        Some(match &self.by {
            By::Everyone => Whose::Everyone,
            By::ExceptionAlone => return None,
            By::ClientAddress => {
                asker.address.map_or(Whose::Unknown, |address| Whose::Address(network(address)))
            }
            By::ClientIdentity => asker.identity.map_or(Whose::Unknown, Whose::Identity),
            By::Header(name) => only_value(asker.headers, name).map_or(Whose::Unknown, Whose::Header),
        })
    }

    /// How many requests are let in of whom `whose` says.
    pub fn quota(&self, whose: &Whose<'_>) -> Quota {
        match whose {
            Whose::Exception(place) => self.exceptions.get(*place).map_or(self.quota, |one| one.quota),
            _ => self.quota,
        }
    }
}

/// What a client at `address` is known by.
pub fn network(address: IpAddr) -> IpAddr {
    const OWN: u128 = u128::MAX >> 64;
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !OWN).into(),
        address => address,
    }
}

/// Of the policies of a workload, those that limit requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RateLimits {
    /// One of each document.
    pub all: Vec<RateLimit>,
}

impl RateLimits {
    /// Those that are for a request of `asker` to `port`, in words.
    pub fn for_request(&self, port: u16, asker: Asker<'_>) -> impl Iterator<Item = String> {
        self.all
            .iter()
            .filter(move |limit| limit.is_for(port))
            .flat_map(move |limit| limit.for_request(asker))
    }
}

#[cfg(test)]
mod tests;
