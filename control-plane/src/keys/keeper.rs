//! Who fetches keys when they are due, and tells what is known of them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_model::{TlsOrigination, Trusted};
use selvedge_ops::{Resolver, ResolverArgs};
use tokio::{
    select,
    sync::{Semaphore, mpsc, watch},
    task::{self, JoinError, JoinSet},
    time::{Instant, sleep_until, timeout},
};

use super::{
    FetchedKeys, KeyState, Pace, Trouble,
    error::FetchError,
    fetch::Fetcher,
    saved::Saved,
    wanted::{MOST_IN_NAMESPACE, Wanted, wanted},
};
use crate::{
    metrics::Metrics,
    resources::{KeyAddress, Resources},
};

/// How many fetches may run at once.
const AT_ONCE: usize = 32;
/// How many of these may be for addresses of one namespace.
const AT_ONCE_IN_NAMESPACE: usize = 4;
/// How many wishes for newer keys may wait; more are dropped, and come again.
const WISHES: usize = 64;
/// Where keys are kept, below `--data-dir`.
const DIRECTORY: &str = "keys";
/// Longer than anybody waits, where nothing is due.
const NEVER: Duration = Duration::from_secs(86_400);

type WantedKeys = BTreeMap<KeyAddress, Wanted>;
type Outcome = Result<Arc<str>, FetchError>;

/// How keys are fetched.
#[derive(Debug, Clone)]
pub struct KeeperSettings {
    /// How long fetched keys are used before they are fetched again.
    pub refresh: Duration,
    /// Whether keys may be fetched from loopback.
    pub may_be_loopback: bool,
    /// The file of the authorities that key servers' certificates may be of; `None`: the operating system's.
    pub authorities: Option<PathBuf>,
    /// Where names are looked up.
    pub resolver: ResolverArgs,
}

/// What is known of keys, for who compiles.
#[derive(Debug)]
pub struct Keys {
    wanted: watch::Sender<WantedKeys>,
    wishes: KeyWishes,
    known: watch::Receiver<Arc<BTreeMap<KeyAddress, KeyState>>>,
}

/// Takes wishes for newer keys: proxies have seen tokens of keys that are not known.
#[derive(Debug, Clone)]
pub struct KeyWishes(mpsc::Sender<Arc<str>>);

impl KeyWishes {
    /// Has the keys at `url` fetched earlier than they are due, if documents name it and that has not happened lately.
    pub fn wish(&self, url: &str) {
        // Without room many wait already, and who wishes does so again.
        let _ = self.0.try_send(Arc::from(url));
    }

    /// One that nobody hears.
    pub fn unheard() -> Self {
        Self(mpsc::channel(1).0)
    }
}

/// Fetches keys.
#[derive(Debug)]
pub struct Keeper {
    fetcher: Arc<Fetcher>,
    pace: Pace,
    saved: Saved,
    metrics: Arc<Metrics>,
    wanted: watch::Receiver<WantedKeys>,
    wished: mpsc::Receiver<Arc<str>>,
    known: watch::Sender<Arc<BTreeMap<KeyAddress, KeyState>>>,
    entries: BTreeMap<KeyAddress, Entry>,
    running: JoinSet<Outcome>,
    begun: HashMap<task::Id, KeyAddress>,
    turns: Arc<Semaphore>,
    turns_of: BTreeMap<Arc<str>, Arc<Semaphore>>,
}

/// One address.
#[derive(Debug)]
struct Entry {
    wanted: Wanted,
    /// `None` before the first fetch is over, if no keys were saved.
    state: Option<KeyState>,
    /// When to fetch; `None` while that happens, or if it never does.
    due: Option<Instant>,
    /// In a row.
    failures: u32,
    /// When the last fetch ended.
    fetched: Option<Instant>,
    /// How many fetches in a row have brought the keys of before, of those that were wished for.
    in_vain: u32,
    /// Whether the fetch that is due, or happens, was wished for.
    is_wished: bool,
}

/// Prepares to fetch keys, with those that `data_dir` has from before.
pub fn open(settings: KeeperSettings, data_dir: &Path, metrics: Arc<Metrics>) -> (Keys, Keeper) {
    let (wanted, wants) = watch::channel(WantedKeys::default());
    let (tells, known) = watch::channel(Arc::default());
    let (wishes, wished) = mpsc::channel(WISHES);
    let keeper = Keeper {
        fetcher: Arc::new(Fetcher {
            resolver: Resolver::new(settings.resolver),
            may_be_loopback: settings.may_be_loopback,
            tls: TlsOrigination {
                trusted: settings
                    .authorities
                    .map_or(Trusted::System, |file| Trusted::File(file.display().to_string())),
                ..TlsOrigination::default()
            },
        }),
        pace: Pace { refresh: settings.refresh },
        saved: Saved::load(data_dir.join(DIRECTORY)),
        metrics,
        wanted: wants,
        wished,
        known: tells,
        entries: BTreeMap::new(),
        running: JoinSet::new(),
        begun: HashMap::new(),
        turns: Arc::new(Semaphore::new(AT_ONCE)),
        turns_of: BTreeMap::new(),
    };
    (Keys { wanted, wishes: KeyWishes(wishes), known }, keeper)
}

impl Keys {
    /// Has the keys fetched that `resources` name, and no others.
    pub fn want(&self, resources: &Resources) {
        let newest = wanted(resources);
        self.wanted.send_if_modified(|wanted| {
            let is_new = *wanted != newest;
            *wanted = newest;
            is_new
        });
    }

    /// Where wishes for newer keys go.
    pub fn wishes(&self) -> KeyWishes {
        self.wishes.clone()
    }

    /// Waits until each address that is wanted was tried once, but no longer than `limit`.
    pub async fn tried(&mut self, limit: Duration) {
        let wanted = self.wanted.borrow().clone();
        let all = self.known.wait_for(|known| wanted.keys().all(|address| known.contains_key(address)));
        let _ = timeout(limit, all).await;
    }

    /// What is known now.
    pub fn now(&mut self) -> FetchedKeys {
        FetchedKeys::Here(Arc::clone(&self.known.borrow_and_update()))
    }

    /// Tells when something else is known.
    pub fn changes(&mut self) -> &mut watch::Receiver<Arc<BTreeMap<KeyAddress, KeyState>>> {
        &mut self.known
    }
}

impl Keeper {
    /// Until nobody wants keys any more.
    pub async fn run(mut self) {
        loop {
            self.begin_due();
            self.tell();
            let next = self.entries.values().filter_map(|entry| entry.due).min();
            let next = next.unwrap_or_else(|| Instant::now() + NEVER);
            select! {
                changed = self.wanted.changed() => match changed {
                    Ok(()) => self.update(),
                    Err(_) => return,
                },
                Some(url) = self.wished.recv() => self.hasten(&url),
                Some(done) = self.running.join_next_with_id() => self.finished(done),
                () = sleep_until(next) => {}
            }
        }
    }

    /// Takes over what is wanted now.
    fn update(&mut self) {
        let wanted = self.wanted.borrow_and_update().clone();
        self.entries.retain(|address, _| wanted.contains_key(address));
        self.saved.retain(|address| wanted.contains_key(address));
        self.turns_of.retain(|namespace, _| wanted.values().any(|one| one.namespace == *namespace));
        for (address, wanted) in wanted {
            match self.entries.get_mut(&address) {
                Some(entry) if entry.wanted.is_too_many == wanted.is_too_many => entry.wanted = wanted,
                _ => {
                    let entry = Entry::new(wanted, self.saved.find(&address), &address);
                    self.entries.insert(address, entry);
                }
            }
        }
    }

    /// Somebody wishes for newer keys of `url`.
    fn hasten(&mut self, url: &str) {
        let named = self.entries.iter_mut().filter(|(address, _)| address.url == url);
        named.for_each(|(_, entry)| entry.hasten());
    }

    fn begin_due(&mut self) {
        let now = Instant::now();
        for (address, entry) in &mut self.entries {
            if entry.due.is_none_or(|due| due > now) {
                continue;
            }
            entry.due = None;
            let own = self.turns_of.entry(Arc::clone(&entry.wanted.namespace));
            let own = Arc::clone(own.or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_IN_NAMESPACE))));
            let (all, fetcher) = (Arc::clone(&self.turns), Arc::clone(&self.fetcher));
            let (wanted, limit) = (address.clone(), entry.wanted.timeout);
            let fetch = self.running.spawn(async move {
                // Its namespace's turn first: who waits for that keeps nobody else waiting.
                let _own = own.acquire().await;
                let _turn = all.acquire().await;
                fetcher.keys(&wanted, limit).await
            });
            self.begun.insert(fetch.id(), address.clone());
        }
    }

    fn finished(&mut self, done: Result<(task::Id, Outcome), JoinError>) {
        let (id, outcome) = match done {
            Ok((id, outcome)) => (id, outcome),
            Err(error) => (error.id(), Err(FetchError::BrokeOff)),
        };
        let Some(address) = self.begun.remove(&id) else { return };
        let Some(entry) = self.entries.get_mut(&address) else { return };
        self.metrics.keys_fetched(outcome.is_ok());
        match outcome {
            Ok(keys) => {
                self.saved.put(&address, &keys);
                entry.succeeded(&address, keys);
            }
            Err(error) => entry.failed(&address, &error),
        }
        let now = Instant::now();
        (entry.fetched, entry.is_wished) = (Some(now), false);
        entry.due = Some(now + self.pace.pause(entry.failures, fastrand::f64()));
    }

    /// Tells what is known, if that is new.
    fn tell(&self) {
        let tried = self.entries.iter().filter_map(|(address, entry)| Some((address, entry.state.as_ref()?)));
        let newest: BTreeMap<_, _> = tried.map(|(address, state)| (address.clone(), state.clone())).collect();
        let is_new = self.known.send_if_modified(|known| {
            let is_new = **known != newest;
            if is_new {
                *known = Arc::new(newest);
            }
            is_new
        });
        if is_new {
            let known = self.known.borrow();
            let count = |is: fn(&KeyState) -> bool| known.values().filter(|state| is(state)).count();
            self.metrics.set_key_sets([
                count(|state| state.trouble.is_none()),
                count(|state| state.trouble.is_some() && state.keys.is_some()),
                count(|state| state.keys.is_none()),
            ]);
        }
    }
}

impl Entry {
    fn new(wanted: Wanted, saved: Option<&Arc<str>>, address: &KeyAddress) -> Self {
        if wanted.is_too_many {
            let why = format!(
                "the keys of {} are not fetched: namespace {} names more than {MOST_IN_NAMESPACE} addresses of keys",
                address.url, wanted.namespace
            );
            let remedy = "Name fewer, or write keys into jwks";
            let trouble = Trouble { why: Arc::from(why), since: SystemTime::now(), remedy };
            let state = KeyState { keys: None, trouble: Some(trouble) };
            return Self { state: Some(state), due: None, ..Self::due(wanted) };
        }
        let state = saved.map(|keys| KeyState { keys: Some(Arc::clone(keys)), trouble: None });
        Self { state, ..Self::due(wanted) }
    }

    fn due(wanted: Wanted) -> Self {
        let due = Some(Instant::now());
        Self { wanted, state: None, due, failures: 0, fetched: None, in_vain: 0, is_wished: false }
    }

    /// Fetches earlier, if it is not too early for that. A server that fails is asked again soon anyway.
    fn hasten(&mut self) {
        let (Some(due), Some(fetched), 0) = (self.due, self.fetched, self.failures) else { return };
        let earlier = fetched + Pace::early(self.in_vain);
        if earlier < due {
            (self.due, self.is_wished) = (Some(earlier), true);
        }
    }

    fn succeeded(&mut self, address: &KeyAddress, keys: Arc<str>) {
        let before = self.state.take().and_then(|state| state.keys);
        if before.as_ref() != Some(&keys) {
            tracing::info!(url = address.url, is_first = before.is_none(), "new keys of an issuer");
        }
        self.in_vain = match before.as_ref() == Some(&keys) {
            true => self.in_vain.saturating_add(self.is_wished.into()),
            false => 0,
        };
        // The same as before is the same `Arc`.
        let keys = before.filter(|before| *before == keys).unwrap_or(keys);
        self.state = Some(KeyState { keys: Some(keys), trouble: None });
        self.failures = 0;
    }

    fn failed(&mut self, address: &KeyAddress, error: &FetchError) {
        let state = self.state.get_or_insert_default();
        let since = state.trouble.as_ref().map_or_else(SystemTime::now, |trouble| trouble.since);
        let why = format!("the keys of {} cannot be fetched: {error}", address.url);
        state.trouble = Some(Trouble { why: Arc::from(why), since, remedy: error.remedy() });
        self.failures = self.failures.saturating_add(1);
    }
}
