//! The proxies that are connected, and what each of them holds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime},
};

use selvedge_certs::{holder::Basis, verify::Peer};
use selvedge_model::{Serial, SpiffeId, WorkloadName, seen::Svid};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::written::rfc3339;
use crate::{
    metrics::Metrics,
    snapshot::{Authorities, Standing, held::Held},
};

/// Something of a stream that its conversation changes and others look at. Cheap to clone; all clones are one, so that a
/// change costs nothing for each who may look.
#[derive(Debug, Default)]
pub struct Live<T>(Arc<Mutex<T>>);

impl<T> Live<T> {
    /// As it is now. What is given is held only for a moment: nobody waits with it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> From<T> for Live<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Mutex::new(value)))
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Serialize> Serialize for Live<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.lock().serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Live<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

/// How the workload of a proxy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Its first token was for that workload alone.
    Proven,
    /// It said so for its first certificate, by a token that is valid for every workload of its service account; it can
    /// be no other since.
    Claimed,
    /// Its certificate names a service account alone, so it may be any workload of that.
    ServiceAccount,
}

impl Proof {
    /// That of whoever has shown this certificate.
    pub fn of(peer: &Peer) -> Self {
        match peer.workload.as_ref().map(|workload| workload.basis) {
            Some(Basis::Proven) => Self::Proven,
            Some(Basis::Claimed) => Self::Claimed,
            None => Self::ServiceAccount,
        }
    }
}

/// One proxy with an open configuration stream.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proxy {
    /// The workload of the sidecar; `proof` says how it is known.
    pub workload: WorkloadName,
    /// What it proved to be.
    pub identity: SpiffeId,
    /// How the workload of the sidecar is known.
    pub proof: Proof,
    /// The serial number of its certificate.
    pub certificate_serial: Serial,
    /// The SHA-256 of the root that its certificate leads to.
    #[serde(default)]
    pub certificate_root: Option<Arc<str>>,
    /// Where its connection comes from.
    pub address: SocketAddr,
    /// What it says it is.
    pub proxy_version: String,
    /// When the stream was opened.
    #[serde(with = "rfc3339")]
    pub connected_at: SystemTime,
    /// When its certificate, and with it the stream, ends.
    #[serde(with = "rfc3339")]
    pub certificate_expires_at: SystemTime,
    /// What it shows its peers instead of the control plane's certificate, if an agent of the SPIFFE Workload API gives it that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub svid: Option<Svid>,
    /// What it asked for.
    pub authorities: Authorities,
    /// What it holds, by name, with versions.
    pub holds: Live<Held>,
    /// The configuration version that it is up to date with.
    pub configuration_version: Option<u64>,
    /// Since when it is: what came later had nothing for it, or has not arrived.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "rfc3339::option")]
    pub configuration_at: Option<SystemTime>,
    /// What its process has in memory, in bytes, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The last transaction that it applied.
    pub acknowledged: Option<u64>,
    /// A transaction that it has not answered yet.
    pub under_way: Option<u64>,
    /// The last transaction that it refused.
    pub refused: Option<RefusedTransaction>,
    /// Whether it can be told what to log.
    #[serde(default)]
    pub takes_log_levels: bool,
}

/// A transaction that a proxy refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RefusedTransaction {
    /// Which.
    pub nonce: u64,
    /// When.
    #[serde(with = "rfc3339")]
    pub at: SystemTime,
    /// Why, in the proxy's words.
    pub reason: String,
}

/// Every connected proxy.
#[derive(Debug)]
pub struct Proxies {
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
    at_end: OnceLock<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    connected: BTreeMap<u64, (Live<Proxy>, Standing)>,
    /// When a proxy of each workload was connected last, of those that have ended.
    left: BTreeMap<WorkloadName, SystemTime>,
    /// When those were forgotten who left long ago.
    tidied_at: Option<SystemTime>,
}

/// The most workloads of which it is known when their proxies have left.
const MOST_LEFT: usize = 10_000;
/// Where there are more, for how long it is known.
const LEFT_KEPT: Duration = Duration::from_secs(3_600);
/// How long it takes at least until it is looked anew who left long ago. A whole fleet may leave at once, and each waits for the others.
const TIDIED_EVERY: Duration = Duration::from_secs(60);

impl Proxies {
    /// No proxy is connected yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, inner: Mutex::default(), at_end: OnceLock::new() }
    }

    /// Adds a proxy for as long as its registration lives. By its `standing` it is seen that a newer configuration does not
    /// concern it.
    pub fn register(self: &Arc<Self>, proxy: Proxy, standing: Standing) -> Registration {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        let proxy = Live::from(proxy);
        inner.connected.insert(id, (proxy.clone(), standing));
        self.metrics.set_connected_proxies(inner.connected.len());
        Registration { proxies: Arc::clone(self), id, proxy }
    }

    /// How many there were when this was first asked: when the end began.
    pub fn count_at_end(&self) -> usize {
        *self.at_end.get_or_init(|| self.lock().connected.len())
    }

    /// All of them, in the order in which they came.
    pub fn connected(&self) -> Vec<Proxy> {
        let now = |(proxy, standing): &(Live<Proxy>, Standing)| {
            let proxy = proxy.lock();
            let configuration_version = proxy.configuration_version.map(|version| standing.newest(version));
            Proxy { configuration_version, ..proxy.clone() }
        };
        self.lock().connected.values().map(now).collect()
    }

    /// Those of the workloads `expected` that have no connected proxy, each with when it had one last. `None`: it has had none since
    /// this control plane started, or that is no longer known.
    pub fn absent(&self, expected: &BTreeSet<WorkloadName>) -> Vec<(WorkloadName, Option<SystemTime>)> {
        let inner = self.lock();
        let connected: BTreeSet<WorkloadName> =
            inner.connected.values().map(|(proxy, _)| proxy.lock().workload.clone()).collect();
        let absent = expected.iter().filter(|name| !connected.contains(name));
        absent.map(|name| (name.clone(), inner.left.get(name).copied())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A proxy of `workload` has left at `now`. Another one of it may still be there.
    fn leave(&mut self, workload: WorkloadName, now: SystemTime) {
        if self.left.len() >= MOST_LEFT && !self.left.contains_key(&workload) {
            let is_within =
                |at: SystemTime, time: Duration| now.duration_since(at).is_ok_and(|ago| ago < time);
            if self.tidied_at.is_some_and(|at| is_within(at, TIDIED_EVERY)) {
                return;
            }
            self.tidied_at = Some(now);
            self.left.retain(|_, at| is_within(*at, LEFT_KEPT));
            if self.left.len() >= MOST_LEFT {
                return;
            }
        }
        self.left.insert(workload, now);
    }
}

/// A proxy's place among the connected.
#[derive(Debug)]
pub struct Registration {
    proxies: Arc<Proxies>,
    id: u64,
    proxy: Live<Proxy>,
}

impl Registration {
    /// Changes what is shown of the proxy.
    pub fn update(&self, change: impl FnOnce(&mut Proxy)) {
        change(&mut self.proxy.lock());
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.proxies.lock();
        inner.connected.remove(&self.id);
        inner.leave(self.proxy.lock().workload.clone(), SystemTime::now());
        self.proxies.metrics.set_connected_proxies(inner.connected.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_those_who_have_left_only_so_many_are_known_and_the_newest_for_an_hour() {
        let mut inner = Inner::default();
        let name = |number: usize| WorkloadName::new("shop", &format!("w-{number}")).unwrap();
        let begin = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for number in 0..MOST_LEFT {
            inner.leave(name(number), begin);
        }

        inner.leave(name(MOST_LEFT), begin + LEFT_KEPT / 2);
        assert_eq!((inner.left.len(), inner.left.get(&name(MOST_LEFT))), (MOST_LEFT, None));
        inner.leave(name(0), begin + LEFT_KEPT / 2);
        inner.leave(name(MOST_LEFT), begin + LEFT_KEPT);
        assert_eq!(inner.left.len(), 2, "the older ones have made room");
    }
}
