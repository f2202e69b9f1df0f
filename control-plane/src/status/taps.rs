//! Those who ask to see live requests, and what sidecars show them.
//!
//! Somebody asks again and again, by a name of his own choice, and is given what has come meanwhile. Who has not asked for a few
//! seconds is gone, and then no sidecar shows anything for him. What waits for him is bounded: if he is too slow, samples are
//! lost, and he is told how many.

use std::{
    collections::{BTreeMap, VecDeque},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selvedge_model::{
    WorkloadName,
    tap::{MOST_TAPS, Sample, Wanted},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until, timeout},
};

/// How long an answer waits for the first sample.
const WAIT: Duration = Duration::from_secs(1);
/// After so long without a question, whoever asks is gone.
const GONE_AFTER: Duration = Duration::from_secs(5);
/// How many samples wait for one who asks. Beyond, they are lost.
const WAITING: usize = 1_000;
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

#[derive(Debug, Default)]
struct Inner {
    next: u64,
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
    limited: u64,
    lost: u64,
    news: Arc<Notify>,
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
    fn is(&self, workload: &WorkloadName) -> bool {
        self.namespace == workload.namespace()
            && self.name.as_deref().is_none_or(|name| name == workload.name())
    }
}

impl Session {
    fn is_of(&self, workload: &WorkloadName) -> bool {
        self.of.as_ref().is_none_or(|of| of.is(workload))
    }
}

impl Default for Taps {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::Sender::new(0) }
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
        let (number, news) = self.enter(question)?;
        let is_empty = |inner: &Inner| inner.sessions.get(&number).is_none_or(|one| one.waiting.is_empty());
        if is_empty(&self.lock()) {
            // Later is as good as never: the next answer has it.
            let _ = timeout(WAIT, news.notified()).await;
        }
        let connected = connected();
        let mut inner = self.lock();
        let session = inner.sessions.get_mut(&number).ok_or("asked too late; ask again")?;
        Ok(TapAnswer {
            samples: session.waiting.drain(..).collect(),
            limited: std::mem::take(&mut session.limited),
            lost: std::mem::take(&mut session.lost),
            proxies: connected.iter().filter(|name| session.is_of(name)).count(),
        })
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
            session.asked_at = Instant::now();
            return Ok((*number, Arc::clone(&session.news)));
        }
        if inner.sessions.len() >= MOST_TAPS {
            return Err(format!("{MOST_TAPS} others are asking already"));
        }
        inner.next += 1;
        let (number, news) = (inner.next, Arc::new(Notify::new()));
        let session = Session {
            name: question.session,
            of,
            wanted,
            asked_at: Instant::now(),
            waiting: VecDeque::new(),
            limited: 0,
            lost: 0,
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
            let asked_at = self.lock().sessions.get(&number).map(|session| session.asked_at);
            let Some(gone_at) = asked_at.map(|at| at + GONE_AFTER) else { return };
            if Instant::now() >= gone_at {
                break;
            }
            sleep_until(gone_at).await;
        }
        self.lock().sessions.remove(&number);
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
            let looked_at = self.lock().looked_at;
            let Some(over_at) = looked_at.map(|at| at + GONE_AFTER) else { return };
            if Instant::now() >= over_at {
                break;
            }
            sleep_until(over_at).await;
        }
        self.lock().looked_at = None;
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
            let Some(session) = asked else { continue };
            if session.waiting.len() < WAITING {
                session.waiting.push_back(TapSeen { by: workload.clone(), sample });
                session.news.notify_one();
            } else {
                session.lost = session.lost.saturating_add(1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use selvedge_model::traffic::Way;

    use super::*;

    fn name(text: &str) -> WorkloadName {
        text.parse().unwrap()
    }

    fn question(session: &str, of: Option<&str>) -> TapQuestion {
        TapQuestion { session: session.to_owned(), of: of.map(str::to_owned), wanted: "{}".to_owned() }
    }

    fn sample() -> Sample {
        Sample {
            at_ms: 1,
            way: Way::Inbound,
            method: "GET".to_owned(),
            authority: "a".to_owned(),
            path: "/".to_owned(),
            query: None,
            status: Some(200),
            grpc_status: None,
            reason: None,
            micros: 1,
            client_address: "127.0.0.1:1".to_owned(),
            client_identity: None,
            route: None,
            endpoint: None,
            endpoint_workload: None,
            endpoint_identity: None,
            attempts: 1,
            headers: Vec::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_shown_what_has_come_and_is_forgotten_when_he_is_gone() {
        let taps = Arc::new(Taps::default());
        let both = || vec![name("shop/a"), name("other/b")];
        let first = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
        assert_eq!(first, TapAnswer { proxies: 1, ..TapAnswer::default() });
        let asked = taps.of(&name("shop/a"));
        assert_eq!((asked.list.len(), taps.of(&name("other/b")).list.len()), (1, 0));

        let number = asked.list[0].0;
        taps.show(&name("shop/a"), vec![(number, sample()), (99, sample())], &[(number, 7)]);
        taps.show(&name("other/b"), vec![(number, sample())], &[(number, 1)]);
        let second = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
        assert_eq!((second.samples.len(), second.limited, second.lost), (1, 7, 0));
        let text = serde_json::to_string(&second).unwrap();
        assert_eq!(serde_json::from_str::<TapAnswer>(&text).unwrap(), second);

        taps.show(&name("shop/a"), vec![(number, sample()); WAITING + 5], &[]);
        let third = taps.ask(question("me", Some("shop/*")), both).await.unwrap();
        assert_eq!((third.samples.len(), third.lost), (WAITING, 5));

        let mut changes = taps.changes();
        changes.borrow_and_update();
        changes.changed().await.unwrap();
        assert_eq!(taps.of(&name("shop/a")), Asked::default());
    }

    #[tokio::test(start_paused = true)]
    async fn reports_come_often_while_somebody_looks() {
        let taps = Arc::new(Taps::default());
        let mut changes = taps.changes();
        taps.look_often();
        taps.look_often();
        changes.changed().await.unwrap();
        assert!(taps.of(&name("shop/a")).often);

        changes.changed().await.unwrap();
        assert_eq!(taps.of(&name("shop/a")), Asked::default());
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_may_ask_and_only_what_can_be_understood() {
        let taps = Arc::new(Taps::default());
        for number in 0..MOST_TAPS {
            assert!(taps.ask(question(&number.to_string(), None), Vec::new).await.is_ok());
        }
        assert!(
            taps.ask(question("one more", None), Vec::new).await.unwrap_err().contains("others are asking")
        );
        assert!(
            taps.ask(question("0", Some("nobody")), Vec::new).await.unwrap_err().contains("NAMESPACE/NAME")
        );
        let wrong = TapQuestion { wanted: "{".to_owned(), ..question("0", None) };
        assert!(taps.ask(wrong, Vec::new).await.is_err());
    }
}
