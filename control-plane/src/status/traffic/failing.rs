//! Endpoints at which a workload's attempts fail, as its sidecar tells it: what its attempts there have come to.
//!
//! It is kept as edges are, in a small part of what one workload may take, so that many endpoints take nothing from those.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use selvedge_model::{
    BackendName,
    traffic::{AtEndpoint, Counts, Outcome},
};
use serde::{Deserialize, Serialize};

use super::slots::{Piece, Pieces, Slots};

/// The most endpoints that are kept of one workload.
const MOST: usize = 1_000;
/// What they may take of what is kept of it, in bytes.
const BYTES: usize = 512 << 10;
/// Failures with no more than this between them are one row of failures, in seconds.
const ONE_ROW: u64 = 300;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Failing {
    endpoints: BTreeMap<Arc<(BackendName, SocketAddr)>, Slots>,
    bytes: usize,
    /// Failures that are not kept, and when the last ones were told.
    dropped: u64,
    dropped_at: u64,
    /// How many more endpoints its sidecar knew of when it last told.
    pub(super) more: u32,
}

/// What a workload's attempts at one endpoint have come to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointTraffic {
    /// The backend's service.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// Its subset. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Arc<str>>,
    /// Where the app listens.
    pub address: SocketAddr,
    /// How many attempts there were, through whichever service.
    pub attempts: u64,
    /// How many have failed, by the word for how.
    pub failures: BTreeMap<Arc<str>, u64>,
    /// For how many seconds they have been failing again and again.
    pub failing_seconds: u64,
}

impl EndpointTraffic {
    /// How many have failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// What it takes in an answer, nearly.
    pub(super) fn bytes(&self) -> usize {
        let subset = self.subset.as_ref().map_or(0, |subset| subset.len());
        150 + self.host.len() + subset + 30 * self.failures.len()
    }

    /// Adds what another replica was told of the same.
    pub fn add(&mut self, other: &Self) {
        self.attempts = self.attempts.saturating_add(other.attempts);
        self.failing_seconds = self.failing_seconds.max(other.failing_seconds);
        for (how, count) in &other.failures {
            let sum = self.failures.entry(Arc::clone(how)).or_default();
            *sum = sum.saturating_add(*count);
        }
    }
}

/// What is kept of one endpoint, not yet read.
#[derive(Debug)]
pub(super) struct Unread {
    endpoint: Arc<(BackendName, SocketAddr)>,
    /// Of the time that is asked for.
    asked: Pieces,
    all: Vec<(u64, u64, Piece)>,
    now: u64,
}

/// What is kept of an endpoint, as attempts of an edge are: those that have not failed have no reason.
fn counts(one: &AtEndpoint) -> Counts {
    let mut counts = Counts::default();
    for (kind, count) in &one.failures {
        let outcome = Outcome { reason: Some(kind.word().into()), ..Outcome::default() };
        counts.ended(&outcome, *count);
    }
    let well = one.attempts.saturating_sub(one.failed());
    if well > 0 {
        counts.ended(&Outcome::default(), well);
    }
    counts
}

impl Failing {
    /// Adds what was told at `now`, if it `has_room`. Returns how many bytes there are more.
    pub(super) fn add(&mut self, one: &AtEndpoint, has_room: bool, now: u64) -> usize {
        let key = (one.backend.clone(), one.address);
        let is_new = !self.endpoints.contains_key(&key);
        // Of one that has not failed in this hour nothing is to be known.
        if is_new && one.failed() == 0 {
            return 0;
        }
        if !has_room || self.bytes > BYTES || is_new && self.endpoints.len() >= MOST {
            self.dropped = self.dropped.saturating_add(one.failed());
            self.dropped_at = now;
            return 0;
        }
        let mut more = if is_new { name_bytes(&key.0) } else { 0 };
        let slots = self.endpoints.entry(Arc::new(key)).or_default();
        let before = slots.bytes();
        slots.add(&counts(one), now);
        more = (more + slots.bytes()).saturating_sub(before);
        self.bytes += more;
        more
    }

    /// Forgets what was over before `from`.
    pub(super) fn forget(&mut self, from: u64) {
        if self.dropped_at < from {
            self.dropped = 0;
        }
        self.endpoints.retain(|_, slots| {
            slots.forget(from);
            !slots.is_empty()
        });
        let bytes =
            |(key, slots): (&Arc<(BackendName, SocketAddr)>, &Slots)| name_bytes(&key.0) + slots.bytes();
        self.bytes = self.endpoints.iter().map(bytes).sum();
    }

    /// What it takes in memory, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Failures that are not kept, and endpoints that its sidecar is still to tell of.
    pub(super) fn left_out(&self) -> u64 {
        self.dropped.saturating_add(self.more.into())
    }

    /// What has happened since `from`.
    pub(super) fn since(&self, from: u64, now: u64) -> Vec<Unread> {
        let of = |(endpoint, slots): (&Arc<(BackendName, SocketAddr)>, &Slots)| Unread {
            endpoint: Arc::clone(endpoint),
            asked: slots.since(from, now),
            all: slots.pieces(),
            now,
        };
        self.endpoints.iter().map(of).collect()
    }
}

/// For how many seconds there have been failures, again and again, until the last ones.
fn failing_since(pieces: &[(u64, u64, Piece)], now: u64) -> u64 {
    let failed = pieces
        .iter()
        .rev()
        .filter(|(.., piece)| piece.read().outcomes.iter().any(|one| one.outcome.reason.is_some()));
    let mut since = None::<u64>;
    for (began, length, _) in failed {
        if since.is_some_and(|since| began + length + ONE_ROW < since) {
            break;
        }
        since = Some(*began);
    }
    since.map_or(0, |since| now.saturating_sub(since))
}

/// `None`: nothing has failed in this time.
pub(super) fn read(unread: &Unread) -> Option<EndpointTraffic> {
    let (backend, address) = &*unread.endpoint;
    let counts = unread.asked.read();
    let failures: BTreeMap<_, _> =
        counts.outcomes.iter().filter_map(|one| Some((one.outcome.reason.clone()?, one.count))).collect();
    (!failures.is_empty()).then(|| EndpointTraffic {
        host: Arc::clone(&backend.service.host),
        port: backend.service.port,
        subset: backend.subset.clone(),
        address: *address,
        attempts: counts.ends(),
        failures,
        failing_seconds: failing_since(&unread.all, unread.now),
    })
}

/// What an endpoint takes in memory besides what has happened at it, nearly.
fn name_bytes(backend: &BackendName) -> usize {
    let subset = backend.subset.as_ref().map_or(0, |subset| subset.len());
    size_of::<(BackendName, SocketAddr)>() + size_of::<Slots>() + 64 + backend.service.host.len() + subset
}

#[cfg(test)]
mod tests {
    use selvedge_model::{ServiceKey, traffic::FailureKind};

    use super::*;

    fn at(number: usize, attempts: u64, refused: u64) -> AtEndpoint {
        let failures = if refused > 0 { vec![(FailureKind::ConnectRefused, refused)] } else { Vec::new() };
        AtEndpoint {
            backend: BackendName { service: ServiceKey::new("reviews", 80), subset: None },
            address: SocketAddr::from(([10, 0, 0, 1], u16::try_from(number).unwrap())),
            attempts,
            failures,
        }
    }

    fn seen(failing: &Failing, since: u64, now: u64) -> Vec<EndpointTraffic> {
        failing.since(now - since, now).into_iter().filter_map(|unread| read(&unread)).collect()
    }

    #[test]
    fn it_is_known_how_many_of_how_many_have_failed_and_since_when() {
        let mut failing = Failing::default();
        failing.add(&at(1, 10, 2), true, 4_000);
        failing.add(&at(2, 10, 0), true, 4_000);
        for now in (6_000..6_300).step_by(15) {
            failing.add(&at(1, 10, 1), true, now);
        }

        let hour = seen(&failing, 3_600, 6_300);
        let [one] = hour.as_slice() else { panic!("{hour:?}") };
        assert_eq!(
            (one.attempts, one.failed(), one.failing_seconds),
            (210, 22, 300),
            "what was long ago is another row"
        );
        assert_eq!(one.failures["connect-refused"], 22);
        let minute = seen(&failing, 60, 6_300);
        assert_eq!((minute[0].attempts, minute[0].failed(), minute[0].failing_seconds), (40, 4, 300));

        failing.add(&at(1, 10, 0), true, 6_600);
        assert!(seen(&failing, 30, 6_600).is_empty(), "nothing has failed lately");
        failing.forget(10_000);
        assert!(failing.is_empty() && failing.bytes() == 0);
    }

    #[test]
    fn a_sidecar_that_names_very_many_endpoints_takes_little_and_what_is_dropped_is_counted() {
        let mut failing = Failing::default();
        let mut bytes = 0;
        for now in (4_000..7_000).step_by(15) {
            bytes += (0..MOST + 10).map(|number| failing.add(&at(number, 1, 1), true, now)).sum::<usize>();
        }
        assert!(failing.endpoints.len() <= MOST && failing.bytes() <= BYTES + 1_000, "{}", failing.bytes());
        assert_eq!(failing.bytes(), bytes);
        let told = 200 * (MOST as u64 + 10);
        let kept: u64 = seen(&failing, 3_600, 7_000).iter().map(EndpointTraffic::failed).sum();
        assert_eq!(kept + failing.left_out(), told);
    }
}
