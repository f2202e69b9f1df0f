//! How endpoints are chosen, and what keeps a client's requests together.

use std::time::Duration;

use selvedge_model::{
    ConsistentHash, HashCookie, HashKey, HashTable, LoadBalancer, SessionCarrier, SessionKey,
    SessionPersistence, TrafficPolicy, Warmup, balancing::is_prime, filter::Fraction,
};

use super::{ConvertError, milliseconds, required};
use crate::wire;

/// What `balancer` is called on the wire, and what more it says there.
pub(super) fn from_balancer(balancer: &LoadBalancer) -> (wire::LoadBalancer, Option<wire::ConsistentHash>) {
    match balancer {
        LoadBalancer::LeastRequest => (wire::LoadBalancer::LeastRequest, None),
        LoadBalancer::RoundRobin => (wire::LoadBalancer::RoundRobin, None),
        LoadBalancer::Random => (wire::LoadBalancer::Random, None),
        LoadBalancer::Passthrough => (wire::LoadBalancer::Passthrough, None),
        LoadBalancer::PeakEwma => (wire::LoadBalancer::PeakEwma, None),
        LoadBalancer::ConsistentHash(hash) => (wire::LoadBalancer::ConsistentHash, Some(hash.into())),
    }
}

/// The balancer that `policy` names.
pub(super) fn balancer(policy: &wire::TrafficPolicy) -> Result<LoadBalancer, ConvertError> {
    let value = policy.load_balancer;
    Ok(match wire::LoadBalancer::try_from(value) {
        Ok(wire::LoadBalancer::LeastRequest) => LoadBalancer::LeastRequest,
        Ok(wire::LoadBalancer::RoundRobin) => LoadBalancer::RoundRobin,
        Ok(wire::LoadBalancer::Random) => LoadBalancer::Random,
        Ok(wire::LoadBalancer::Passthrough) => LoadBalancer::Passthrough,
        Ok(wire::LoadBalancer::PeakEwma) => LoadBalancer::PeakEwma,
        Ok(wire::LoadBalancer::ConsistentHash) => {
            let hash = required("consistent hash", policy.consistent_hash.clone())?;
            LoadBalancer::ConsistentHash(hash.try_into()?)
        }
        Ok(wire::LoadBalancer::Unspecified) | Err(_) => {
            return Err(ConvertError::Unknown { field: "load balancer", value });
        }
    })
}

impl From<&ConsistentHash> for wire::ConsistentHash {
    fn from(hash: &ConsistentHash) -> Self {
        use wire::consistent_hash::{Key, Table};
        Self {
            key: Some(match &hash.key {
                HashKey::Header(name) => Key::Header(name.clone()),
                HashKey::Cookie(cookie) => Key::Cookie(cookie.into()),
                HashKey::SourceAddress => Key::SourceAddress(true),
                HashKey::Query(name) => Key::Query(name.clone()),
            }),
            table: Some(match hash.table {
                HashTable::Ring { minimum } => Table::MinimumRingSize(minimum),
                HashTable::Maglev { size } => Table::MaglevTableSize(size),
            }),
            load_bound: hash.load_bound,
        }
    }
}

impl TryFrom<wire::ConsistentHash> for ConsistentHash {
    type Error = ConvertError;

    fn try_from(hash: wire::ConsistentHash) -> Result<Self, ConvertError> {
        use wire::consistent_hash::{Key, Table};
        let key = match required("key of a consistent hash", hash.key)? {
            Key::Header(name) => HashKey::Header(name),
            Key::Cookie(cookie) => HashKey::Cookie(cookie.try_into()?),
            Key::SourceAddress(true) => HashKey::SourceAddress,
            Key::SourceAddress(false) => {
                return Err(ConvertError::Missing { field: "key of a consistent hash" });
            }
            Key::Query(name) => HashKey::Query(name),
        };
        let out_of_range = |field, value: u32, largest: u32| {
            Err(ConvertError::OutOfRange { field, value: value.into(), largest: largest.into() })
        };
        let table = match required("table of a consistent hash", hash.table)? {
            Table::MinimumRingSize(minimum) if minimum > HashTable::LARGEST_RING => {
                return out_of_range("ring size", minimum, HashTable::LARGEST_RING);
            }
            Table::MinimumRingSize(minimum) => HashTable::Ring { minimum },
            Table::MaglevTableSize(size) if size > HashTable::LARGEST_MAGLEV || !is_prime(size) => {
                return out_of_range("table size, a prime,", size, HashTable::LARGEST_MAGLEV);
            }
            Table::MaglevTableSize(size) => HashTable::Maglev { size },
        };
        Ok(Self { key, table, load_bound: hash.load_bound.map(|bound| bound.max(100)) })
    }
}

impl From<&HashCookie> for wire::HashCookie {
    fn from(cookie: &HashCookie) -> Self {
        Self {
            name: cookie.name.clone(),
            ttl_ms: cookie.ttl.map(milliseconds),
            path: cookie.path.clone(),
            attributes: cookie.attributes.clone(),
            renewed_on_failure: cookie.renewed_on_failure,
            key: cookie.key.as_ref().map(|key| key.0.to_vec().into()),
        }
    }
}

impl TryFrom<wire::HashCookie> for HashCookie {
    type Error = ConvertError;

    fn try_from(cookie: wire::HashCookie) -> Result<Self, ConvertError> {
        let key = cookie.key.as_ref().map(|key| session_key(key, "key of a cookie")).transpose()?;
        Ok(Self {
            key,
            name: cookie.name,
            ttl: cookie.ttl_ms.map(Duration::from_millis),
            path: cookie.path,
            attributes: cookie.attributes,
            renewed_on_failure: cookie.renewed_on_failure,
        })
    }
}

/// The key that these bytes are, which is the `field`.
fn session_key(bytes: &[u8], field: &'static str) -> Result<SessionKey, ConvertError> {
    bytes.try_into().map(SessionKey).map_err(|_| ConvertError::Missing { field })
}

/// The warm-up of `policy`.
pub(super) fn from_warmup(policy: &TrafficPolicy) -> Option<wire::Warmup> {
    policy.warmup.map(|warmup| wire::Warmup {
        duration_ms: milliseconds(warmup.duration),
        minimum: warmup.minimum.parts(),
        aggression_thousandths: warmup.aggression_thousandths,
    })
}

impl TryFrom<wire::Warmup> for Warmup {
    type Error = ConvertError;

    fn try_from(warmup: wire::Warmup) -> Result<Self, ConvertError> {
        let (field, value) = ("least share of a warm-up", warmup.minimum.into());
        let largest = Fraction::ALL.parts().into();
        let minimum =
            Fraction::of_million(warmup.minimum).ok_or(ConvertError::OutOfRange { field, value, largest })?;
        let duration = Duration::from_millis(warmup.duration_ms);
        Ok(Self { duration, minimum, aggression_thousandths: warmup.aggression_thousandths })
    }
}

impl From<&SessionPersistence> for wire::SessionPersistence {
    fn from(session: &SessionPersistence) -> Self {
        let cookie = match &session.carrier {
            SessionCarrier::Header => None,
            SessionCarrier::Cookie { path, max_age, attributes } => Some(wire::SessionCookie {
                path: path.clone(),
                max_age_ms: max_age.map(milliseconds),
                attributes: attributes.clone(),
            }),
        };
        Self {
            name: session.name.clone(),
            cookie,
            absolute_timeout_ms: session.absolute_timeout.map(milliseconds),
            idle_timeout_ms: session.idle_timeout.map(milliseconds),
            moves_on_failure: session.moves_on_failure,
            key: session.key.0.to_vec().into(),
        }
    }
}

impl TryFrom<wire::SessionPersistence> for SessionPersistence {
    type Error = ConvertError;

    fn try_from(session: wire::SessionPersistence) -> Result<Self, ConvertError> {
        let carrier = session.cookie.map_or(SessionCarrier::Header, |cookie| SessionCarrier::Cookie {
            path: cookie.path,
            max_age: cookie.max_age_ms.map(Duration::from_millis),
            attributes: cookie.attributes,
        });
        let key = session_key(&session.key, "key of sessions")?;
        Ok(Self {
            name: session.name,
            carrier,
            absolute_timeout: session.absolute_timeout_ms.map(Duration::from_millis),
            idle_timeout: session.idle_timeout_ms.map(Duration::from_millis),
            moves_on_failure: session.moves_on_failure,
            key,
        })
    }
}
