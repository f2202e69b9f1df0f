//! How the next endpoint of a backend is chosen, and what keeps a client's requests together.
//!
//! Values only: the algorithms are in the proxy, beside their state.

use std::time::Duration;

use serde::Serialize;

use crate::{SessionKey, filter::Fraction};

/// How the next endpoint is chosen (`DestinationRule` `loadBalancer`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub enum LoadBalancer {
    /// Of two endpoints drawn at random, the one with fewer requests in flight. Istio's default.
    #[default]
    LeastRequest,
    /// Each in turn.
    RoundRobin,
    /// Any, with equal chance.
    Random,
    /// The endpoint whose address the client itself dialled. A request that names no endpoint by its address goes as with
    /// `LeastRequest`.
    Passthrough,
    /// Of two endpoints drawn at random, the one that is expected to answer sooner: the peak of its latest answer times,
    /// which decays, times the requests in flight (Finagle and Linkerd; our own setting).
    PeakEwma,
    /// Requests with the same key go to the same endpoint, from every proxy alike.
    ConsistentHash(ConsistentHash),
}

/// `loadBalancer.consistentHash`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct ConsistentHash {
    /// What requests are kept together by. A request without it goes to any endpoint.
    pub key: HashKey,
    /// How a key finds its endpoint.
    pub table: HashTable,
    /// An endpoint that has more than this many percent of the average of requests in flight is passed over; more than
    /// 100. `None`: none is.
    pub load_bound: Option<u32>,
}

/// What requests are kept together by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub enum HashKey {
    /// The values of a header; its name is lower case.
    Header(String),
    /// The value of a cookie.
    Cookie(HashCookie),
    /// The client's address. An app that calls its sidecar over loopback counts as its workload.
    SourceAddress,
    /// The first value of a query parameter.
    Query(String),
}

/// A cookie whose value requests are kept together by.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// If it is given, the proxy gives the cookie to clients that have none; zero: until the browser is closed.
    pub ttl: Option<Duration>,
    /// `Path` of a cookie that the proxy gives. `None`: the browser's default.
    pub path: Option<String>,
    /// Further attributes of a cookie that the proxy gives, such as `SameSite=Lax` or `HttpOnly`, as they are sent.
    pub attributes: Vec<String>,
    /// Whether a client gets another one if its endpoint fails.
    pub renewed_on_failure: bool,
    /// What proxies sign the cookies with that they give. `None`: the cookie is the app's own, or the control plane is of a
    /// version that knows of no signatures.
    pub key: Option<SessionKey>,
}

/// How a key finds its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum HashTable {
    /// Points of every endpoint on a ring, at least so many in all; a key belongs to the next point.
    Ring {
        /// `ringHash.minimumRingSize`: 1 to [`HashTable::LARGEST_RING`]; default 1,024.
        minimum: u32,
    },
    /// A table in which every endpoint has equally many places (Google's Maglev).
    Maglev {
        /// `maglev.tableSize`: a prime, up to [`HashTable::LARGEST_MAGLEV`]; default 65,537.
        size: u32,
    },
}

impl HashTable {
    /// The most points that a proxy makes for a ring of fewer than 10,000 endpoints, whatever a rule asks for.
    pub const LARGEST_MADE: u32 = 80_000;
    /// The points of the largest ring that may be asked for (Envoy's default of `maximum_ring_size`).
    pub const LARGEST_RING: u32 = 8 << 20;
    /// The places of the largest table (Envoy's limit of `table_size`).
    pub const LARGEST_MAGLEV: u32 = 5_000_011;
    /// The ring of a rule that says nothing of it, as in Istio.
    pub const RING: Self = Self::Ring { minimum: 1_024 };
    /// The table of a rule that says nothing of its size, as in Istio.
    pub const MAGLEV: Self = Self::Maglev { size: 65_537 };
}

/// Whether `number` is a prime.
pub fn is_prime(number: u32) -> bool {
    let number = u64::from(number);
    number >= 2
        && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| number % divisor != 0)
}

/// How the share of an endpoint that has just joined grows (`loadBalancer.warmup`; Envoy's slow start). For
/// `LeastRequest`, `RoundRobin` and `PeakEwma`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct Warmup {
    /// After this time its share is whole; at least 1 s.
    pub duration: Duration,
    /// The least of its share; default 10 %.
    pub minimum: Fraction,
    /// How fast it grows at first, in thousandths: with 1,000 it grows evenly, with more it grows faster at first. At least
    /// 1,000, the default.
    pub aggression_thousandths: u32,
}

impl Warmup {
    /// What part of its share an endpoint gets that joined `age` ago: above 0, at most 1. Envoy's formula: the larger of
    /// the minimum and (age / duration)^(1 / aggression), where an age below 1 s counts as 1 s.
    pub fn factor(&self, age: Duration) -> f64 {
        if age >= self.duration {
            return 1.0;
        }
        let passed = age.as_secs_f64().max(1.0) / self.duration.as_secs_f64().max(1.0);
        let grown = passed.powf(1_000.0 / f64::from(self.aggression_thousandths.max(1)));
        let least = f64::from(self.minimum.parts()) / f64::from(Fraction::ALL.parts());
        grown.max(least).clamp(f64::MIN_POSITIVE, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_as_envoy_computes_it() {
        let even = Warmup {
            duration: Duration::from_secs(100),
            minimum: Fraction::of_percent(10.0).unwrap(),
            aggression_thousandths: 1_000,
        };
        let fast = Warmup { aggression_thousandths: 2_000, ..even };
        let factor = |warmup: &Warmup, seconds| warmup.factor(Duration::from_secs(seconds));

        assert!((factor(&even, 0) - 0.1).abs() < 1e-9);
        assert!((factor(&even, 25) - 0.25).abs() < 1e-9);
        assert!((factor(&fast, 25) - 0.5).abs() < 1e-9);
        assert!((factor(&even, 100) - 1.0).abs() < 1e-9);
        assert!((factor(&even, 1_000) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn primes_are_told_from_other_numbers() {
        assert!([2, 3, 5, 7, 11, 65_537, 5_000_011].into_iter().all(is_prime));
        assert!(![0, 1, 4, 9, 65_536, 65_535].into_iter().any(is_prime));
    }
}
