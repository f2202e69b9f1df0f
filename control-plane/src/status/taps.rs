//! Those who ask to see live requests, and what sidecars show them.
//!
//! Somebody asks again and again, by a name of his own choice, and is given what has come meanwhile. Who has not asked for a few
//! seconds is gone, and then no sidecar shows anything for him. What waits for him is bounded: if he is too slow, samples are
//! lost, and he is told how many. No workload's samples have more than a share of the room, and none is kept of what he has not
//! asked for, whatever its proxy sends.

use std::{
    collections::{BTreeMap, VecDeque},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selvedge_model::{
    WorkloadName,
    tap::{MOST_PER_SECOND, MOST_TAPS, Sample, Wanted},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

/// How long an answer waits for the first sample.
const WAIT: Duration = Duration::from_secs(1);
/// How long it gathers what comes then: each answer costs those who ask a connection.
const LINGER: Duration = Duration::from_millis(200);
/// After so long without a question, whoever asks is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How many samples wait for one who asks. Beyond, they are lost.
const WAITING: usize = 1_000;
/// How many bytes they have, nearly.
const WAITING_BYTES: usize = 4 << 20;
/// How many of those are one workload's.
const WAITING_BYTES_OF_ONE: usize = WAITING_BYTES / 8;
/// How many samples of one workload are taken in a second: its sidecar may show a second's at once, and then as many again.
const MOST_TAKEN: u32 = 2 * MOST_PER_SECOND;
/// He who has not asked for so long has to make room for others. Those who are there ask every second.
const SILENT_AFTER: Duration = Duration::from_secs(3);
/// The longest name that somebody gives himself, in bytes.
const LONGEST_SESSION: usize = 64;

/// Of which workloads: one, or all of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Of {
    namespace: String,
    name: Option<String>,
}

/// What one asks at `/tap`.
#[derive(Debug, Deserialize)]
pub(crate) struct TapQuestion {
    /// What he calls himself.
    session: String,
    /// `NAMESPACE/NAME` or `NAMESPACE/*`; absent = of all workloads.
    of: Option<String>,
    /// A [`Wanted`] as JSON.
    wanted: String,
    /// He asks no more: then there is nothing to answer.
    #[serde(default)]
    over: bool,
}

/// The answer of `/tap`: what has come since he asked last.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapAnswer {
    /// In the order in which they came.
    pub samples: Vec<TapSeen>,
    /// How many were meant and not shown, because a sidecar shows only so many in a second.
    pub limited: u64,
    /// How many are lost, because he asks too slowly.
    pub lost: u64,
    /// Whether this is the first that he is told: he has never asked before, or not for so long that he counted as gone.
    #[serde(default)]
    pub is_first: bool,
    /// How many connected proxies of this replica are asked.
    pub proxies: usize,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapSeen {
    /// Whose sidecar shows it.
    pub by: WorkloadName,
    /// What it shows.
    #[serde(flatten)]
    pub sample: Sample,
}

/// See the module.
#[derive(Debug)]
pub struct Taps {
    inner: Mutex<Inner>,
    /// Counts the changes of who asks for what.
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct Inner {
    /// The last number that was given away.
    last: u64,
    /// When somebody last looked at reports who wants them often.
    looked_at: Option<Instant>,
    sessions: BTreeMap<u64, Session>,
}

#[derive(Debug)]
struct Session {
    name: String,
    of: Option<Of>,
    wanted: Wanted,
    asked_at: Instant,
    waiting: VecDeque<TapSeen>,
    /// How many bytes those have.
    bytes: usize,
    /// What each workload has of it.
    shares: BTreeMap<WorkloadName, Share>,
    limited: u64,
    lost: u64,
    is_first: bool,
    news: Arc<Notify>,
}

/// What one workload has shown somebody.
#[derive(Debug)]
struct Share {
    /// Bytes that wait.
    bytes: usize,
    /// Since when `taken` are counted, for a second.
    since: Instant,
    taken: u32,
}

/// What a sidecar is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Which live requests, each by its number.
    pub(crate) list: Vec<(u64, Wanted)>,
    /// Whether it is to report every second.
    pub(crate) often: bool,
}

impl FromStr for Of {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| format!("{text:?} is not NAMESPACE/NAME or NAMESPACE/*"))?;
        let name = if name == "*" { None } else { Some(name) };
        WorkloadName::new(namespace, name.unwrap_or("any")).map_err(|error| error.to_string())?;
        Ok(Self { namespace: namespace.to_owned(), name: name.map(str::to_owned) })
    }
}

impl Of {
    /// Whether `workload` is one of them.
    pub(super) fn is(&self, workload: &WorkloadName) -> bool {
        self.namespace == workload.namespace()
            && self.name.as_deref().is_none_or(|name| name == workload.name())
    }
}

impl Session {
    fn is_of(&self, workload: &WorkloadName) -> bool {
        self.of.as_ref().is_none_or(|of| of.is(workload))
    }

    /// Keeps what he has asked for of a sample that `workload` shows, if there is room.
    fn take(&mut self, workload: &WorkloadName, mut sample: Sample) {
        let now = Instant::now();
        let share = self.shares.entry(workload.clone());
        let share = share.or_insert(Share { bytes: 0, since: now, taken: 0 });
        if now.duration_since(share.since) >= Duration::from_secs(1) {
            (share.since, share.taken) = (now, 0);
        }
        if share.taken >= MOST_TAKEN {
            self.limited = self.limited.saturating_add(1);
            return;
        }
        share.taken += 1;
        self.wanted.redact(&mut sample);
        let bytes = sample.bytes();
        let has_room = self.waiting.len() < WAITING
            && self.bytes + bytes <= WAITING_BYTES
            && share.bytes + bytes <= WAITING_BYTES_OF_ONE;
        if has_room {
            share.bytes += bytes;
            self.bytes += bytes;
            self.waiting.push_back(TapSeen { by: workload.clone(), sample });
            self.news.notify_one();
        } else {
            self.lost = self.lost.saturating_add(1);
        }
    }

    /// All that waits for him.
    fn answer(&mut self, proxies: usize) -> TapAnswer {
        let now = Instant::now();
        self.asked_at = now;
        self.bytes = 0;
        self.shares.retain(|_, share| {
            share.bytes = 0;
            now.duration_since(share.since) < Duration::from_secs(1)
        });
        TapAnswer {
            samples: self.waiting.drain(..).collect(),
            limited: std::mem::take(&mut self.limited),
            lost: std::mem::take(&mut self.lost),
            is_first: std::mem::take(&mut self.is_first),
            proxies,
        }
    }
}

impl Default for Taps {
    fn default() -> Self {
        // What a sidecar has left of what another control plane asked by a number must not look like an answer to ours.
        let inner = Inner { last: fastrand::u64(..1 << 62), looked_at: None, sessions: BTreeMap::new() };
        Self { inner: Mutex::new(inner), changed: watch::Sender::new(0) }
    }
}

impl Taps {
    /// What has come for one who asks; `connected` are the workloads whose proxies can be asked.
    ///
    /// # Errors
    /// If the question cannot be understood, or as many ask as may.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        question: TapQuestion,
        connected: impl Fn() -> Vec<WorkloadName>,
    ) -> Result<TapAnswer, String> {
        if question.over {
            self.leave(&question.session);
            return Ok(TapAnswer::default());
        }
        let (number, news) = self.enter(question)?;
        let is_empty = |inner: &Inner| inner.sessions.get(&number).is_none_or(|one| one.waiting.is_empty());
        if is_empty(&self.lock()) {
            // Later is as good as never: the next answer has it.
            let _ = timeout(WAIT, news.notified()).await;
        }
        sleep(LINGER).await;
        let connected = connected();
        let mut inner = self.lock();
        let session = inner.sessions.get_mut(&number).ok_or("asked too late; ask again")?;
        let proxies = connected.iter().filter(|name| session.is_of(name)).count();
        Ok(session.answer(proxies))
    }

    /// He who calls himself so asks no more.
    fn leave(&self, name: &str) {
        self.lock().sessions.retain(|_, session| session.name != name);
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// His number, and what says that something has come for him.
    fn enter(self: &Arc<Self>, question: TapQuestion) -> Result<(u64, Arc<Notify>), String> {
        let of = question.of.as_deref().map(str::parse).transpose()?;
        let wanted: Wanted = serde_json::from_str(&question.wanted).map_err(|error| error.to_string())?;
        if !wanted.is_bounded() || question.session.len() > LONGEST_SESSION {
            return Err("a text of the question is too long".to_owned());
        }
        let mut inner = self.lock();
        let known = |(_, session): &(&u64, &mut Session)| session.name == question.session;
        if let Some((number, session)) = inner.sessions.iter_mut().find(known) {
            if (&session.of, &session.wanted) != (&of, &wanted) {
                return Err(
                    "this session asks for something else already; give each question a session of its own"
                        .to_owned(),
                );
            }
            session.asked_at = Instant::now();
            return Ok((*number, Arc::clone(&session.news)));
        }
        if inner.sessions.len() >= MOST_TAPS {
            inner.sessions.retain(|_, session| session.asked_at.elapsed() < SILENT_AFTER);
        }
        if inner.sessions.len() >= MOST_TAPS {
            return Err(format!("{MOST_TAPS} others are asking already"));
        }
        inner.last += 1;
        let (number, news) = (inner.last, Arc::new(Notify::new()));
        let session = Session {
            name: question.session,
            of,
            wanted,
            asked_at: Instant::now(),
            waiting: VecDeque::new(),
            bytes: 0,
            shares: BTreeMap::new(),
            limited: 0,
            lost: 0,
            is_first: true,
            news: Arc::clone(&news),
        };
        tracing::info!(of = ?session.of, wanted = ?session.wanted, "somebody on this host asks to see live requests");
        inner.sessions.insert(number, session);
        drop(inner);
        self.changed.send_modify(|changes| *changes += 1);
        tokio::spawn(Arc::clone(self).end(number));
        Ok((number, news))
    }

    /// Ends what is asked by `number`, once he is gone who asks.
    async fn end(self: Arc<Self>, number: u64) {
        loop {
            let gone_at = {
                // Who asks again now is either seen here, or finds that he has been forgotten.
                let mut inner = self.lock();
                let Some(session) = inner.sessions.get(&number) else { return };
                let gone_at = session.asked_at + GONE_AFTER;
                if Instant::now() >= gone_at {
                    inner.sessions.remove(&number);
                    break;
                }
                gone_at
            };
            sleep_until(gone_at).await;
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Somebody looks at reports who wants them every second, until he has not looked for a few seconds.
    pub(crate) fn look_often(self: &Arc<Self>) {
        let before = self.lock().looked_at.replace(Instant::now());
        if before.is_none() {
            self.changed.send_modify(|changes| *changes += 1);
            tokio::spawn(Arc::clone(self).look_away());
        }
    }

    /// Ends it, once nobody looks any more.
    async fn look_away(self: Arc<Self>) {
        loop {
            let over_at = {
                // Who looks again now is either seen here, or is the first anew.
                let mut inner = self.lock();
                let Some(looked_at) = inner.looked_at else { return };
                let over_at = looked_at + GONE_AFTER;
                if Instant::now() >= over_at {
                    inner.looked_at = None;
                    break;
                }
                over_at
            };
            sleep_until(over_at).await;
        }
        self.changed.send_modify(|changes| *changes += 1);
    }

    /// Changes whenever somebody else asks, or for something else.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What the sidecar of `workload` is asked.
    pub(crate) fn of(&self, workload: &WorkloadName) -> Asked {
        let inner = self.lock();
        let asked = inner.sessions.iter().filter(|(_, session)| session.is_of(workload));
        let list = asked.map(|(number, session)| (*number, session.wanted.clone())).collect();
        Asked { list, often: inner.looked_at.is_some() }
    }

    /// The sidecar of `workload` shows these, and has not shown so many others.
    pub(crate) fn show(&self, workload: &WorkloadName, samples: Vec<(u64, Sample)>, missed: &[(u64, u64)]) {
        let mut inner = self.lock();
        for (number, missed) in missed {
            if let Some(session) = inner.sessions.get_mut(number).filter(|session| session.is_of(workload)) {
                session.limited = session.limited.saturating_add(*missed);
            }
        }
        for (number, sample) in samples {
            let asked = inner.sessions.get_mut(&number).filter(|session| session.is_of(workload));
            if let Some(session) = asked {
                session.take(workload, sample);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
