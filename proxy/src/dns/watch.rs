//! Names in the configuration, looked up again and again as long as they are in it.
//!
//! Each name has a task of its own, so a server that does not answer for one does not delay the others. A name that
//! stops resolving keeps its last addresses: the mesh survives a DNS outage.

mod task;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_ops::{ResolveError, Resolved, Resolver};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::sleep_until,
};

use self::task::{Answer, Wake, watch};
use crate::telemetry::Metrics;

/// How long requests wait for the first answer about a name.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// What is known about a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Its addresses at the last look-up that found any, in order.
    pub(super) addresses: Vec<IpAddr>,
    /// The one that is used where only one may be. It stays as long as it is among the addresses.
    pub(super) one: Option<IpAddr>,
    /// Why the last look-up failed.
    pub(super) failing: Option<Arc<str>>,
}

/// What DNS has said about a name since some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Where the name is, or that it has no address.
    Placed,
    /// Nothing, and why. So the name may be anywhere.
    Silence(Arc<str>),
    /// Nothing yet: there is still time for an answer.
    Waiting,
}

#[derive(Debug)]
struct Watched {
    state: State,
    /// Since when an answer is waited for; `None`: nobody waits.
    awaited: Option<Instant>,
    /// When the last answer came, good or bad, or when the time for it was over.
    answered: Option<Instant>,
    /// When DNS last said where it is, or that it has no address.
    placed: Option<Instant>,
    /// Whether a caller was told since then that DNS does not say it.
    missed: bool,
    /// Ends the pause until the next look-up.
    wake: Wake,
    /// When `state` last changed, in [`Watches::clock`]'s count.
    stamp: u64,
    used: bool,
    task: AbortHandle,
}

/// Every name that is watched.
#[derive(Debug)]
pub(super) struct Watches {
    resolver: Arc<Resolver>,
    metrics: Arc<Metrics>,
    names: HashMap<Arc<str>, Watched>,
    tasks: JoinSet<()>,
    found: mpsc::UnboundedSender<Answer>,
    arriving: mpsc::UnboundedReceiver<Answer>,
    /// Counts changes of any name's state.
    clock: u64,
}

impl Watches {
    pub(super) fn new(resolver: Arc<Resolver>, metrics: Arc<Metrics>) -> Self {
        let (found, arriving) = mpsc::unbounded_channel();
        Self { resolver, metrics, names: HashMap::new(), tasks: JoinSet::new(), found, arriving, clock: 0 }
    }

    /// What is known about `name`, and the stamp of its last change; watches it from now on. `None`: the
    /// first answer is still to come.
    pub(super) fn look(&mut self, name: &Arc<str>) -> Option<(&State, u64)> {
        if !self.names.contains_key(name) {
            let wake = Wake::default();
            let watching =
                watch(Arc::clone(&self.resolver), Arc::clone(name), wake.clone(), self.found.clone());
            let task = self.tasks.spawn(watching);
            self.clock += 1;
            let watched = Watched {
                state: State::default(),
                awaited: Some(Instant::now()),
                answered: None,
                placed: None,
                missed: false,
                wake,
                stamp: self.clock,
                used: true,
                task,
            };
            self.names.insert(Arc::clone(name), watched);
        }
        let watched = self.names.get_mut(name)?;
        watched.used = true;
        watched.answered.is_some().then_some((&watched.state, watched.stamp))
    }

    /// What has `name` looked up again soon, for who finds nobody at its addresses.
    pub(super) fn doubt(&self, name: &str) -> Arc<Notify> {
        self.names.get(name).map(|watched| Arc::clone(&watched.wake.doubt)).unwrap_or_default()
    }

    /// Whether DNS has said since then where `name` is. If there is no answer, it is looked up at once, and
    /// [`Self::changed`] when that is done or takes too long.
    pub(super) fn heard_since(&mut self, name: &Arc<str>, since: Instant) -> Heard {
        self.look(name);
        let Some(watched) = self.names.get_mut(name) else { return Heard::Waiting };
        let is_since = |at: Option<Instant>| at.is_some_and(|at| at >= since);
        if is_since(watched.placed) {
            return Heard::Placed;
        }
        if is_since(watched.answered) {
            watched.missed = true;
            let reason = watched.state.failing.clone();
            let reason =
                reason.unwrap_or_else(|| format!("gets no answer from DNS within {FIRST_ANSWER:?}").into());
            return Heard::Silence(reason);
        }
        if watched.awaited.is_none() {
            watched.awaited = Some(Instant::now());
            self.resolver.forget();
            watched.wake.hurry.notify_one();
        }
        Heard::Waiting
    }

    /// Begins a pass over everything that is configured.
    pub(super) fn begin(&mut self) {
        self.names.values_mut().for_each(|watched| watched.used = false);
    }

    /// Ends it: names that nobody looked at are watched no longer.
    pub(super) fn end(&mut self) {
        self.names.retain(|_, watched| {
            if !watched.used {
                watched.task.abort();
            }
            watched.used
        });
        self.count();
    }

    /// Waits until something has changed.
    pub(super) async fn changed(&mut self) {
        loop {
            let late_at = self.late_at();
            let late = async {
                match late_at {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let changed = tokio::select! {
                Some(found) = self.arriving.recv() => {
                    let mut changed = self.take(found);
                    while let Ok(found) = self.arriving.try_recv() {
                        changed |= self.take(found);
                    }
                    changed
                }
                () = late => self.give_up_waiting(Instant::now()),
                Some(_) = self.tasks.join_next() => false,
            };
            if changed {
                self.count();
                return;
            }
        }
    }

    /// When the first answer to some name is late.
    fn late_at(&self) -> Option<Instant> {
        self.names.values().filter_map(|watched| Some(watched.awaited? + FIRST_ANSWER)).min()
    }

    fn give_up_waiting(&mut self, now: Instant) -> bool {
        let mut changed = false;
        for (name, watched) in &mut self.names {
            if watched.awaited.is_none_or(|awaited| now < awaited + FIRST_ANSWER) {
                continue;
            }
            watched.awaited = None;
            changed = true;
            // An answer that is late this time leaves what is known of it.
            if watched.answered.replace(now).is_none() {
                tracing::warn!(%name, "DNS has not answered for this name within {FIRST_ANSWER:?}");
                watched.state.failing = Some(format!("has no answer from DNS yet ({FIRST_ANSWER:?})").into());
                self.clock += 1;
                watched.stamp = self.clock;
            }
        }
        changed
    }

    /// Notes an answer. Returns whether it changes anything.
    fn take(&mut self, Answer { name, answer }: Answer) -> bool {
        if answer.is_err() {
            self.metrics.control.lookups_failed.inc();
        }
        let Some(watched) = self.names.get_mut(&name) else { return false };
        let now = Instant::now();
        let mut changed = false;
        if answer.as_ref().map_or_else(ResolveError::says_there_is_none, |_| true) {
            watched.placed = Some(now);
            // Callers that were told of silence may go on, even if nothing else has changed.
            changed = std::mem::take(&mut watched.missed);
        }
        let state = next(&watched.state, answer);
        if watched.answered.is_none() || state != watched.state {
            changed = true;
            log(&name, &watched.state, &state);
            self.clock += 1;
            watched.stamp = self.clock;
        }
        watched.answered = Some(now);
        watched.state = state;
        watched.awaited.take().is_some() || changed
    }

    fn count(&self) {
        let failing = self.names.values().filter(|watched| watched.state.failing.is_some()).count();
        self.metrics.control.names_failing.set(i64::try_from(failing).unwrap_or(i64::MAX));
        self.metrics.control.names.set(i64::try_from(self.names.len()).unwrap_or(i64::MAX));
    }
}

/// What is known after `answer`.
fn next(before: &State, answer: Result<Resolved, ResolveError>) -> State {
    match answer {
        Ok(Resolved { mut addresses, lacks_ipv6, .. }) => {
            // What nobody has said anything about stays.
            addresses.extend(before.addresses.iter().filter(|known| lacks_ipv6 && known.is_ipv6()));
            let first = addresses.first().copied();
            addresses.sort_unstable();
            addresses.dedup();
            let one = before.one.filter(|one| addresses.contains(one)).or(first);
            State { addresses, one, failing: None }
        }
        Err(error) => State { failing: Some(error.to_string().into()), ..before.clone() },
    }
}

/// Logs one line when a name begins to fail and one when it resolves again, however often it is looked up meanwhile.
fn log(name: &str, before: &State, now: &State) {
    match (&before.failing, &now.failing) {
        (None, Some(reason)) if now.addresses.is_empty() => {
            tracing::warn!("{name} {reason}; it has no endpoint");
        }
        (None, Some(reason)) => {
            tracing::warn!(addresses = ?now.addresses, "{name} {reason}; its last addresses stay in use");
        }
        (Some(_), None) => tracing::info!(addresses = ?now.addresses, "{name} resolves (again)"),
        _ => tracing::debug!(name, ?now, "a name's addresses"),
    }
}

#[cfg(test)]
mod tests;
