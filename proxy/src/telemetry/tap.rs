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
    tap::{Facts, LONGEST_TEXT, MOST_FIELDS, MOST_PER_SECOND, REDACTED, Sample, Wanted},
    traffic::Way,
};
use tokio::sync::mpsc;

use super::{Record, record::Head};
use crate::{
    arrival::Direction,
    buckets::{Bucket, Rate},
    error::{REFUSED, Reason},
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
    bucket: Arc<Bucket>,
    /// Requests that were meant and are not shown.
    missed: Arc<AtomicU64>,
}

/// What is known of a request for those who ask, besides what its record has anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tapped {
    /// Who may mean it, by their numbers: of what he wants who asks later nothing was copied.
    meant_by: Vec<u64>,
    query: Option<String>,
    headers: Vec<(String, String)>,
}

/// Where a request went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WentTo {
    /// The host and the port of the service that was called.
    pub service: Option<(Arc<str>, u16)>,
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
        // Who asked before goes on where he was, whoever comes or goes beside him.
        let asked = |(number, wanted)| {
            let known = before.iter().find(|one| one.number == number);
            let kept = known.map(|one| (Arc::clone(&one.bucket), Arc::clone(&one.missed)));
            let (bucket, missed) = kept.unwrap_or_default();
            Asked { number, wanted, bucket, missed }
        };
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
        let Some(tapped) = &head.tapped else { return };
        let facts = facts(record, head);
        let clock =
            u64::try_from(now.saturating_duration_since(self.since).as_nanos()).unwrap_or(u64::MAX >> 2) + 1;
        let rate = Rate::new(MOST_PER_SECOND, Duration::from_secs(1), MOST_PER_SECOND);
        let all = self.asked.load();
        let here = all.iter().filter(|asked| tapped.meant_by.contains(&asked.number));
        for asked in here.filter(|asked| asked.wanted.admits(&facts)) {
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
    pub(super) fn note<B>(&self, request: &http::Request<B>, direction: Direction) -> Option<Box<Tapped>> {
        if !self.is_on() {
            return None;
        }
        let asked = self.asked.load();
        let (uri, way) = (request.uri(), way(direction));
        // Of what could not be read nothing is known that one could ask for.
        let (method, authority, path) = match request.method().as_str() {
            REFUSED => ("", "", ""),
            method => (method, authority(request), uri.path()),
        };
        let may_be_meant = |asked: &&Asked| asked.wanted.admits_head(way, method, authority, path);
        let (meant_by, meant): (Vec<u64>, Vec<&Wanted>) =
            asked.iter().filter(may_be_meant).map(|asked| (asked.number, &asked.wanted)).unzip();
        if meant.is_empty() {
            return None;
        }
        let mut tapped = Tapped { meant_by, ..Tapped::default() };
        if meant.iter().any(|wanted| wanted.query) {
            tapped.query = uri.query().map(cut);
        }
        if !method.is_empty() && meant.iter().any(|wanted| wanted.headers) {
            tapped.headers = fields(request.headers(), &meant);
        }
        Some(Box::new(tapped))
    }
}

/// The fields' names, and the values that one of `meant` is shown.
fn fields(headers: &HeaderMap, meant: &[&Wanted]) -> Vec<(String, String)> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let name = name.as_str();
        let is_shown = meant.iter().any(|wanted| wanted.reveals(name));
        let bytes = value.as_bytes();
        let value = String::from_utf8_lossy(&bytes[..bytes.len().min(LONGEST_TEXT)]);
        (cut(name), if is_shown { cut(&value) } else { REDACTED.to_owned() })
    };
    headers.iter().take(MOST_FIELDS).map(field).collect()
}

/// As much of `text` as is shown.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST_TEXT)].to_owned()
}

/// As [`Head`] has it.
fn authority<B>(request: &http::Request<B>) -> &str {
    let of_host = || request.headers().get(http::header::HOST)?.to_str().ok();
    request.uri().authority().map(http::uri::Authority::as_str).or_else(of_host).unwrap_or_default()
}

fn way(direction: Direction) -> Way {
    match direction {
        Direction::Outbound => Way::Outbound,
        Direction::Inbound => Way::Inbound,
    }
}

fn facts<'a>(record: &'a Record, head: &'a Head) -> Facts<'a> {
    Facts {
        way: way(record.direction()),
        method: head.method(),
        authority: head.authority.as_str(),
        path: head.path.as_str(),
        status: record.status.unwrap_or_default(),
        reason: record.reason.map(Reason::word),
        micros: u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        client: record.client.identity(),
    }
}

fn sample(record: &Record, head: &Head, facts: &Facts<'_>, wanted: &Wanted) -> Sample {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let tapped = head.tapped.as_deref();
    let place = head.place.as_ref();
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
mod tests;
