//! How many connections each client's address has open, and each of a gateway's listeners, so that neither takes the places
//! of all others.
//!
//! IPv6 clients count by their /64: that is what one subscriber has (RFC 6177). An address is forgotten with its last
//! connection, so there are never more of them than connections. The locks are taken when a connection begins and when
//! it ends, never for a request.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// How many locks there are, so that workers seldom wait for one another.
const SHARDS: usize = 16;

/// How many times as many places as are free one address may have taken. One that takes all it can get leaves a fifth
/// free, two of them a ninth: never none.
const SHARE: usize = 4;

/// How many connections an address may have however few places are free, as a browser opens; where there are so few places
/// in all that these would be many, it is this part of them.
const FLOOR: usize = 16;
const FLOOR_PART: usize = 64;

/// How much one client's address may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Open connections. 0 means no limit. `None`: as many as leave places for others.
    pub connections: Option<u32>,
    /// Connections whose TLS handshake, or first bytes, have not come to an end. 0 means no limit.
    pub unfinished: u32,
    /// Open connections of one listener, if there are several. 0 means no limit. `None`: as many as leave places for others.
    pub listener: Option<u32>,
}

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// A client's address.
    Address(IpAddr),
    /// A listener's port, as clients call it.
    Listener(u16),
}

/// Which of its limits an address has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reached {
    /// That of open connections.
    Connections,
    /// That of unfinished ones.
    Unfinished,
    /// That of its listener.
    Listener,
    /// That of new connections in a second.
    Rate,
}

impl Reached {
    /// What is reached.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Connections | Self::Listener => "as many are open",
            Self::Unfinished => "as many are in the middle of their handshake",
            Self::Rate => "as many have come in this second",
        }
    }

    /// The setting that says so.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Connections => "--max-connections-per-client",
            Self::Unfinished => "--max-handshakes-per-client",
            Self::Listener => "--max-connections-per-listener",
            Self::Rate => "--max-connection-rate-per-client",
        }
    }
}

/// Whom connections are counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    V4(u32),
    /// The first 64 bits.
    V6(u64),
    Port(u16),
}

impl From<Whose> for Key {
    fn from(whose: Whose) -> Self {
        match whose {
            Whose::Listener(port) => Self::Port(port),
            Whose::Address(address) => match address.to_canonical() {
                IpAddr::V4(address) => Self::V4(address.to_bits()),
                IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
            },
        }
    }
}

/// What one address has open.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    open: u32,
    unfinished: u32,
}

/// What each address has open, for all workers.
#[derive(Debug)]
pub struct Addresses {
    limits: ClientLimits,
    /// Its keys are for clients to choose, as far as they have addresses.
    hasher: RandomState,
    shards: [Mutex<HashMap<Key, Counts>>; SHARDS],
}

/// One connection that counts for an address, as long as this lives.
#[derive(Debug)]
pub struct Seat {
    addresses: Arc<Addresses>,
    key: Key,
    unfinished: Cell<bool>,
}

impl Addresses {
    /// Nobody's yet.
    pub fn new(limits: ClientLimits) -> Arc<Self> {
        Arc::new(Self { limits, hasher: RandomState::new(), shards: Default::default() })
    }

    /// One more connection of `whose`. Of all `places`, which nobody may take alone, so many are `free`.
    ///
    /// # Errors
    /// If there are as many of them as there may be.
    pub fn seat(self: &Arc<Self>, whose: Whose, places: usize, free: usize) -> Result<Seat, Reached> {
        let (limit, unfinished, reached) = match whose {
            Whose::Address(_) => (self.limits.connections, self.limits.unfinished, Reached::Connections),
            Whose::Listener(_) => (self.limits.listener, 0, Reached::Listener),
        };
        let key = Key::from(whose);
        let mut shard = self.shard(key);
        let counts = shard.get(&key).copied().unwrap_or_default();
        let open = usize::try_from(counts.open).unwrap_or(usize::MAX);
        let may = match limit {
            Some(0) => usize::MAX,
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            None => free.saturating_mul(SHARE).max(FLOOR.min(places / FLOOR_PART)).max(1),
        };
        if open >= may {
            return Err(reached);
        }
        if unfinished > 0 && counts.unfinished >= unfinished {
            return Err(Reached::Unfinished);
        }
        shard.insert(key, Counts { open: counts.open + 1, unfinished: counts.unfinished + 1 });
        drop(shard);
        Ok(Seat { addresses: Arc::clone(self), key, unfinished: Cell::new(true) })
    }

    /// How many more connections the listener at `port` may have while so many places are `free`.
    pub fn room(&self, port: u16, free: usize) -> usize {
        let key = Key::Port(port);
        let open = self.shard(key).get(&key).map_or(0, |counts| counts.open);
        let open = usize::try_from(open).unwrap_or(usize::MAX);
        match self.limits.listener {
            Some(0) => free,
            Some(limit) => usize::try_from(limit).unwrap_or(usize::MAX).saturating_sub(open).min(free),
            // Each that it gets is one less that is free.
            None => free.saturating_mul(SHARE).saturating_sub(open) / (SHARE + 1),
        }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, HashMap<Key, Counts>> {
        let shard = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, key: Key, change: impl FnOnce(&mut Counts)) {
        if let Entry::Occupied(mut entry) = self.shard(key).entry(key) {
            change(entry.get_mut());
            if entry.get().open == 0 {
                entry.remove();
            }
        }
    }
}

impl Seat {
    /// Whether it counts for `whose`.
    pub fn is_of(&self, whose: Whose) -> bool {
        self.key == Key::from(whose)
    }

    /// Its handshake has come to an end.
    pub fn finished(&self) {
        if self.unfinished.replace(false) {
            self.addresses.change(self.key, |counts| counts.unfinished -= 1);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let unfinished = u32::from(self.unfinished.get());
        self.addresses.change(self.key, |counts| {
            counts.open -= 1;
            counts.unfinished -= unfinished;
        });
    }
}

#[cfg(test)]
mod tests;
