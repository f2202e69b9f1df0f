//! Live requests, for those who ask the control plane to see them.
//!
//! While nobody asks, a request costs one look at a flag. While somebody does, what is looked at is bounded: so many a second
//! for each who asks, and so many that wait. What is beyond is counted and not shown, and no request ever waits.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http::HeaderMap;
use selvedge_model::{
    SpiffeId, WorkloadName,
    tap::{Facts, MOST_FIELDS, MOST_PER_SECOND, REDACTED, Sample, Wanted},
    traffic::Way,
};
use tokio::sync::mpsc;

use super::{Record, record::Head};
use crate::{
    arrival::Direction,
    buckets::{Bucket, Rate},
    error::Reason,
};

/// How many samples wait for the control thread. Beyond, they are lost.
const WAITING: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Tap {
    is_on: AtomicBool,
    asked: ArcSwap<Vec<Asked>>,
    samples: mpsc::Sender<(u64, Sample)>,
    /// For the one who sends them on.
    receiver: Mutex<Option<mpsc::Receiver<(u64, Sample)>>>,
    /// What the clocks of buckets count from.
    since: Instant,
}

/// What somebody asks for.
#[derive(Debug)]
struct Asked {
    number: u64,
    wanted: Wanted,
    bucket: Bucket,
    /// Requests that were meant and are not shown.
    missed: Arc<AtomicU64>,
}

/// What is known of a request for those who ask, besides what its record has anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tapped {
    query: Option<String>,
    headers: Vec<(String, String)>,
    went_to: Option<WentTo>,
}

/// Where a request went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WentTo {
    /// The route that it followed.
    pub route: Option<Arc<str>>,
    /// The address of the endpoint that has answered, or was tried last.
    pub endpoint: Option<std::net::SocketAddr>,
    /// The workload there.
    pub workload: Option<WorkloadName>,
    /// Who it has to be.
    pub identity: Option<SpiffeId>,
}

impl Default for Tap {
    fn default() -> Self {
        let (samples, receiver) = mpsc::channel(WAITING);
        Self {
            is_on: AtomicBool::new(false),
            asked: ArcSwap::default(),
            samples,
            receiver: Mutex::new(Some(receiver)),
            since: Instant::now(),
        }
    }
}

impl Tap {
    /// Whether somebody asks.
    pub(super) fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// From now on these are asked for, each by its number, and no others.
    pub fn set(&self, wanted: Vec<(u64, Wanted)>) {
        let before = self.asked.load();
        let missed = |number| {
            let known = before.iter().find(|one| one.number == number);
            known.map(|one| Arc::clone(&one.missed)).unwrap_or_default()
        };
        let asked =
            |(number, wanted)| Asked { number, wanted, bucket: Bucket::default(), missed: missed(number) };
        let asked: Vec<Asked> = wanted.into_iter().map(asked).collect();
        let is_on = !asked.is_empty();
        self.asked.store(Arc::new(asked));
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    /// What is shown, to be sent on. Once.
    pub fn samples(&self) -> Option<mpsc::Receiver<(u64, Sample)>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// A sample for the one who asks by this number was not sent on.
    pub fn missed(&self, number: u64) {
        if let Some(asked) = self.asked.load().iter().find(|asked| asked.number == number) {
            asked.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many were meant and not shown, by the number of who asks, since this was last asked.
    pub fn take_missed(&self) -> Vec<(u64, u64)> {
        let asked = self.asked.load();
        let missed = asked.iter().map(|asked| (asked.number, asked.missed.swap(0, Ordering::Relaxed)));
        missed.filter(|(_, missed)| *missed > 0).collect()
    }

    /// Shows a request that is over to those who ask for it.
    pub(super) fn show(&self, record: &Record, now: Instant) {
        if !self.is_on() {
            return;
        }
        let Some(head) = &record.head else { return };
        let facts = facts(record, head);
        let clock =
            u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX >> 2) + 1;
        let rate = Rate::new(MOST_PER_SECOND, Duration::from_secs(1), MOST_PER_SECOND);
        for asked in self.asked.load().iter().filter(|asked| asked.wanted.admits(&facts)) {
            let is_shown = asked.bucket.take(&rate, clock).is_ok()
                && self.samples.try_reserve().is_ok_and(|place| {
                    place.send((asked.number, sample(record, head, &facts, &asked.wanted)));
                    true
                });
            if !is_shown {
                asked.missed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// What is noted of a request that has come, for those who ask for its head.
    pub(super) fn note<B>(&self, request: &http::Request<B>) -> Option<Box<Tapped>> {
        if !self.is_on() {
            return None;
        }
        let asked = self.asked.load();
        let mut tapped = Tapped::default();
        if asked.iter().any(|asked| asked.wanted.query) {
            tapped.query = request.uri().query().map(str::to_owned);
        }
        if asked.iter().any(|asked| asked.wanted.headers) {
            tapped.headers = fields(request.headers());
        }
        Some(Box::new(tapped))
    }
}

impl Tapped {
    /// Adds where the request went.
    pub(super) fn went_to(&mut self, place: WentTo) {
        self.went_to = Some(place);
    }
}

fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let all = headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value)));
    all.take(MOST_FIELDS).collect()
}

fn facts<'a>(record: &'a Record, head: &'a Head) -> Facts<'a> {
    Facts {
        way: match record.direction() {
            Direction::Outbound => Way::Outbound,
            Direction::Inbound => Way::Inbound,
        },
        method: head.method.as_str(),
        authority: &head.authority,
        path: &head.path,
        status: record.status.unwrap_or_default(),
        reason: record.reason.map(Reason::word),
        micros: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        client: record.client.identity(),
    }
}

fn sample(record: &Record, head: &Head, facts: &Facts<'_>, wanted: &Wanted) -> Sample {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tapped = head.tapped.as_deref();
    let place = tapped.and_then(|tapped| tapped.went_to.as_ref());
    let shown = |(name, value): &(String, String)| {
        let value = if wanted.reveals(name) { value.clone() } else { REDACTED.to_owned() };
        (name.clone(), value)
    };
    let headers = tapped.filter(|_| wanted.headers).map(|tapped| tapped.headers.iter().map(shown).collect());
    Sample {
        at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        way: facts.way,
        method: facts.method.to_owned(),
        authority: facts.authority.to_owned(),
        path: facts.path.to_owned(),
        query: tapped.filter(|_| wanted.query).and_then(|tapped| tapped.query.clone()),
        status: record.status,
        grpc_status: record.grpc_status,
        reason: facts.reason.map(Arc::from),
        micros: facts.micros,
        client_address: record.client.peer().to_string(),
        client_identity: facts.client.cloned(),
        route: place.and_then(|place| place.route.as_deref()).map(str::to_owned),
        endpoint: place.and_then(|place| place.endpoint).map(|endpoint| endpoint.to_string()),
        endpoint_workload: place.and_then(|place| place.workload.clone()),
        endpoint_identity: place.and_then(|place| place.identity.clone()),
        attempts: record.retries.saturating_add(1),
        headers: headers.unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::finish::tests::{begun_with, series};

    fn shown(receiver: &mut mpsc::Receiver<(u64, Sample)>) -> Vec<(u64, Sample)> {
        std::iter::from_fn(|| receiver.try_recv().ok()).collect()
    }

    #[test]
    fn a_request_is_shown_to_those_who_ask_for_it_and_its_secrets_to_those_who_name_them() {
        let (tap, unknown) = (Arc::new(Tap::default()), series());
        let mut samples = tap.samples().expect("nobody has taken them");
        assert!(tap.samples().is_none());
        let one = || begun_with(&unknown, &tap).finish(true, Instant::now());
        one();
        assert!(shown(&mut samples).is_empty(), "nobody asks");

        let plain = Wanted { headers: true, reveal: Some("x-request-id".to_owned()), ..Wanted::default() };
        let other = Wanted { path: Some("/other".to_owned()), ..Wanted::default() };
        tap.set(vec![(1, plain), (2, other), (3, Wanted { query: true, ..Wanted::default() })]);
        one();

        let shown = shown(&mut samples);
        assert_eq!(shown.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3]);
        let (first, second) = (&shown[0].1, &shown[1].1);
        let value =
            |name: &str| first.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value);
        assert_eq!((value("x-request-id"), value("host")), (Some("one-two"), Some(REDACTED)));
        assert_eq!((&first.query, second.query.as_deref()), (&None, Some("token=secret")));
        assert!(second.headers.is_empty() && first.path == "/reviews/0");
        assert_eq!(first.client_identity.as_ref().map(SpiffeId::service_account), Some("frontend"));

        tap.set(vec![]);
        one();
        assert!(samples.try_recv().is_err());
    }

    #[test]
    fn more_than_is_shown_is_counted() {
        let (tap, unknown) = (Arc::new(Tap::default()), series());
        let mut samples = tap.samples().expect("nobody has taken them");
        tap.set(vec![(1, Wanted::default())]);
        let most = u64::from(MOST_PER_SECOND);
        for _ in 0..5 * most {
            begun_with(&unknown, &tap).finish(true, tap.since);
        }

        let count = shown(&mut samples).len() as u64;
        let missed = tap.take_missed();
        assert_eq!((count, missed), (most, vec![(1, 4 * most)]));
        assert!(tap.take_missed().is_empty());
    }
}
