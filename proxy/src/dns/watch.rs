//! Names in the configuration: resolved again and again for as long as they are in it.
//!
//! Each name has a task of its own, so a server that says nothing about one holds up no other. A name
//! that stops resolving keeps its last addresses: DNS that is away must not take the mesh along.

use std::{
    collections::HashMap,
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_ops::{ResolveError, Resolved, Resolver};
use tokio::{
    sync::{Notify, mpsc},
    task::{AbortHandle, JoinSet},
    time::{sleep, sleep_until},
};

use crate::telemetry::Metrics;

/// Pauses between two look-ups of a name are its TTL, but not shorter: one with a TTL of 0 would be
/// looked up without pause. No longer than [`selvedge_ops::resolver::MAX_TTL`] either.
const MIN_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after a failure; they double up to it.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// How long requests wait for the first answer about a name.
const FIRST_ANSWER: Duration = Duration::from_secs(1);

/// What is known about a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Its addresses at the last look-up that found any, in order.
    pub(super) addresses: Vec<IpAddr>,
    /// The one of them in use by those who use only one. It stays while it is among them.
    pub(super) one: Option<IpAddr>,
    /// Why the last look-up failed.
    pub(super) failing: Option<Arc<str>>,
}

/// Whether DNS has said where a name is, since some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// It has, or that it is nowhere.
    Placed,
    /// It has said neither, and why. So the name may be anywhere.
    Silence(Arc<str>),
    /// The time for an answer is not over.
    Waiting,
}

#[derive(Debug)]
struct Watched {
    state: State,
    /// Since when an answer is waited for; `None`: nobody waits.
    awaited: Option<Instant>,
    /// When there was the last answer, good or bad, or the time for it was over.
    answered: Option<Instant>,
    /// When DNS last said where it is, or that it is nowhere.
    placed: Option<Instant>,
    /// Whether somebody was told since then that DNS does not say it.
    missed: bool,
    /// Ends the pause until the next look-up.
    hurry: Arc<Notify>,
    /// When `state` last changed, in [`Watches::clock`]'s count.
    stamp: u64,
    used: bool,
    task: AbortHandle,
}

/// The answer to one look-up.
#[derive(Debug)]
struct Answer {
    name: Arc<str>,
    answer: Result<Vec<IpAddr>, ResolveError>,
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
            let hurry = Arc::new(Notify::new());
            let watching =
                watch(Arc::clone(&self.resolver), Arc::clone(name), Arc::clone(&hurry), self.found.clone());
            let task = self.tasks.spawn(watching);
            self.clock += 1;
            let watched = Watched {
                state: State::default(),
                awaited: Some(Instant::now()),
                answered: None,
                placed: None,
                missed: false,
                hurry,
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
            watched.hurry.notify_one();
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
            // Whoever was told of silence may go on, even if nothing else has changed.
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
fn next(before: &State, answer: Result<Vec<IpAddr>, ResolveError>) -> State {
    match answer {
        Ok(mut addresses) => {
            let first = addresses.first().copied();
            addresses.sort_unstable();
            addresses.dedup();
            let one = before.one.filter(|one| addresses.contains(one)).or(first);
            State { addresses, one, failing: None }
        }
        Err(error) => State { failing: Some(error.to_string().into()), ..before.clone() },
    }
}

/// One line when a name begins to fail and one when that is over, however often it is asked between.
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

/// One look-up of `name`. Who is in a hurry while it takes long has another one begun beside it, since what it
/// finds may be older than their question.
async fn look_up(resolver: &Resolver, name: &str, hurry: &Notify) -> Result<Resolved, ResolveError> {
    let mut first = pin!(resolver.addresses(name));
    tokio::select! {
        answer = &mut first => return answer,
        () = hurry.notified() => {}
    }
    tokio::select! {
        answer = first => answer,
        answer = resolver.addresses(name) => answer,
    }
}

/// Looks `name` up until it is aborted.
async fn watch(
    resolver: Arc<Resolver>,
    name: Arc<str>,
    hurry: Arc<Notify>,
    found: mpsc::UnboundedSender<Answer>,
) {
    let mut failures = 0;
    loop {
        let answer = look_up(&resolver, &name, &hurry).await;
        let pause = pause(&answer, &mut failures);
        let answer = answer.map(|resolved| resolved.addresses);
        if found.send(Answer { name: Arc::clone(&name), answer }).is_err() {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = hurry.notified() => {}
        }
    }
}

/// How long to wait before the next look-up.
fn pause(answer: &Result<Resolved, ResolveError>, failures: &mut u32) -> Duration {
    match answer {
        Ok(resolved) => {
            *failures = 0;
            resolved.valid_for.max(MIN_PAUSE)
        }
        Err(_) => {
            let pause = MIN_PAUSE.saturating_mul(2_u32.saturating_pow(*failures)).min(MAX_PAUSE);
            *failures = failures.saturating_add(1);
            pause
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_follow_the_answers_and_stay_when_there_is_none() {
        let first = next(&State::default(), Ok(ips(&["10.0.0.2", "10.0.0.1", "10.0.0.2"])));
        assert_eq!(first.addresses, ips(&["10.0.0.1", "10.0.0.2"]));

        let failing = next(&first, Err(ResolveError::NoSuchName));
        assert_eq!(failing.addresses, first.addresses);
        assert!(failing.failing.as_ref().unwrap().contains("NXDOMAIN"));

        let again = next(&failing, Ok(ips(&["10.0.0.3"])));
        assert_eq!((again.addresses, again.failing), (ips(&["10.0.0.3"]), None));
    }

    #[test]
    fn the_one_address_in_use_stays_while_it_is_among_the_answers() {
        let first = next(&State::default(), Ok(ips(&["10.0.0.2", "10.0.0.1"])));
        assert_eq!(first.one, Some("10.0.0.2".parse().unwrap()), "the first of the answer");

        let rotated = next(&first, Ok(ips(&["10.0.0.1", "10.0.0.2"])));
        assert_eq!(rotated.one, first.one);
        assert_eq!(rotated, first, "and nothing has changed");

        let gone = next(&rotated, Ok(ips(&["10.0.0.1", "10.0.0.3"])));
        assert_eq!(gone.one, Some("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn pauses_are_the_ttl_within_limits_and_double_while_it_fails() {
        let mut failures = 0;
        let found =
            |seconds| Ok(Resolved { addresses: ips(&["10.0.0.1"]), valid_for: Duration::from_secs(seconds) });

        assert_eq!(pause(&found(4), &mut failures), Duration::from_secs(4));
        assert_eq!(pause(&found(0), &mut failures), MIN_PAUSE);
        let failed = Err(ResolveError::NoSuchName);
        let pauses: Vec<u64> = (0..5).map(|_| pause(&failed, &mut failures).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 5, 5]);
        pause(&found(5), &mut failures);
        assert_eq!(pause(&failed, &mut failures), MIN_PAUSE);
    }
}
