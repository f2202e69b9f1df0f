//! How many requests the app beside us may have in progress, by how long its answers take: all workers together. A request
//! is in progress until its answer begins: streams that go on for hours would leave no room for others.
//!
//! Workers count without a lock. The one that notices that a window is over has the [`Gradient`] take in what was counted;
//! if another is at it already, it does nothing.

mod gradient;
mod samples;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use self::{
    gradient::{ANSWERS, Gradient},
    samples::Samples,
};

/// Measuring that has refused requests for this time, and ten times as long as answers take, ends with what is known: the
/// requests that it has let in may be ones that hold their places for long.
const PATIENCE: Duration = Duration::from_secs(5);

/// The window ends when there are [`ANSWERS`].
const BY_COUNT: u64 = u64::MAX;

/// See the module.
#[derive(Debug)]
pub struct Concurrency {
    limit: AtomicU32,
    in_progress: AtomicU32,
    /// How often measuring has begun or ended: answers count only to requests that came since.
    epoch: AtomicU32,
    /// When the window ends, in nanoseconds since `since`.
    window_ends: AtomicU64,
    /// Since when requests are refused while it is measured, in nanoseconds since `since`; 0: none was.
    refuses_since: AtomicU64,
    samples: Samples,
    gradient: Mutex<Gradient>,
    since: Instant,
    /// The shortest time, in nanoseconds; 0: not known.
    shortest: AtomicU64,
}

/// A request in progress, until it is dropped.
#[derive(Debug)]
pub struct Unanswered {
    concurrency: Arc<Concurrency>,
    began: Instant,
    epoch: u32,
}

impl Concurrency {
    /// One that lets in at most `most`, and measures every `interval` (at least a second) how long answers take without
    /// waiting.
    pub fn new(most: u32, interval: Duration) -> Self {
        let gradient = Gradient::new(most, interval.max(Duration::from_secs(1)));
        Self {
            limit: AtomicU32::new(gradient.limit()),
            in_progress: AtomicU32::new(0),
            epoch: AtomicU32::new(0),
            window_ends: AtomicU64::new(BY_COUNT),
            refuses_since: AtomicU64::new(0),
            samples: Samples::default(),
            gradient: Mutex::new(gradient),
            since: Instant::now(),
            shortest: AtomicU64::new(0),
        }
    }

    /// How many requests may be in progress now.
    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How long answers take without waiting, as far as that is known.
    pub fn shortest(&self) -> Duration {
        Duration::from_nanos(self.shortest.load(Ordering::Relaxed))
    }

    /// Lets in one more request, which comes `now`. `None`: there is no room.
    pub fn enter(self: &Arc<Self>, now: Instant) -> Option<Unanswered> {
        let before = self.in_progress.fetch_add(1, Ordering::Relaxed);
        let epoch = self.epoch.load(Ordering::Relaxed);
        let entered = Unanswered { concurrency: Arc::clone(self), began: now, epoch };
        if before >= self.limit() {
            self.note_refusal(now);
        }
        // Otherwise it leaves again.
        (before < self.limit()).then_some(entered)
    }

    /// Ends measuring that refuses requests for too long.
    fn note_refusal(&self, now: Instant) {
        if self.window_ends.load(Ordering::Relaxed) != BY_COUNT {
            return;
        }
        let (now_passed, since) = (self.passed(now).max(1), self.refuses_since.load(Ordering::Relaxed));
        if since == 0 {
            self.refuses_since.store(now_passed, Ordering::Relaxed);
            return;
        }
        let patience = PATIENCE.max(self.shortest().saturating_mul(10));
        if Duration::from_nanos(now_passed.saturating_sub(since)) >= patience
            && let Ok(mut gradient) = self.gradient.try_lock()
            && gradient.give_up(now, self.samples.count(), self.samples.median(), fastrand::f64())
        {
            self.follow(&gradient);
        }
    }

    fn answered(&self, began: Instant, epoch: u32, now: Instant) {
        if epoch != self.epoch.load(Ordering::Relaxed) {
            return;
        }
        let count = self.samples.add(now.saturating_duration_since(began));
        let is_over = match self.window_ends.load(Ordering::Relaxed) {
            BY_COUNT => count >= ANSWERS,
            ends => self.passed(now) >= ends,
        };
        if is_over && let Ok(mut gradient) = self.gradient.try_lock() {
            self.take_in(&mut gradient, now);
        }
    }

    fn take_in(&self, gradient: &mut Gradient, now: Instant) {
        if !gradient.take_in(now, self.samples.count(), self.samples.median(), fastrand::f64()) {
            return;
        }
        self.follow(gradient);
    }

    /// Does from now on what `gradient` says.
    fn follow(&self, gradient: &Gradient) {
        self.samples.clear();
        self.epoch.store(gradient.phases(), Ordering::Relaxed);
        self.refuses_since.store(0, Ordering::Relaxed);
        if let Some(shortest) = gradient.shortest() {
            self.shortest.store(u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
        self.window_ends.store(gradient.due().map_or(BY_COUNT, |due| self.passed(due)), Ordering::Relaxed);
        self.limit.store(gradient.limit(), Ordering::Relaxed);
    }

    fn passed(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.since).as_nanos();
        u64::try_from(passed).unwrap_or(BY_COUNT - 1)
    }
}

impl Unanswered {
    /// Its answer has begun, `now`.
    pub fn answered(self, now: Instant) {
        self.concurrency.answered(self.began, self.epoch, now);
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.concurrency.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{gradient::LEAST, *};

    const MS: Duration = Duration::from_millis(1);

    fn one() -> Arc<Concurrency> {
        Arc::new(Concurrency::new(100, Duration::from_secs(60)))
    }

    #[test]
    fn no_more_are_in_progress_than_may_be_and_who_leaves_makes_room() {
        let (one, now) = (one(), Instant::now());
        let mut inside: Vec<_> = (0..LEAST).map(|_| one.enter(now).unwrap()).collect();

        assert!(one.enter(now).is_none());
        inside.pop().unwrap().answered(now);
        assert!(one.enter(now).is_some());
        assert!(one.enter(now).is_some(), "it has left");
        drop(inside);
        assert_eq!(one.in_progress.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn few_requests_that_hold_all_places_while_it_is_measured_do_not_hold_them_for_good() {
        let (one, now) = (one(), Instant::now());
        let held: Vec<_> = (0..LEAST).map(|_| one.enter(now).unwrap()).collect();
        let later = now + 3600 * PATIENCE;
        assert!(one.enter(later).is_none(), "the time counts from the first that is refused");
        assert!(one.enter(later + PATIENCE - MS).is_none());

        let inside: Vec<_> = (0..90).map(|_| one.enter(later + PATIENCE).expect("room")).collect();

        assert_eq!(one.limit(), 100);
        drop((held, inside));
        let after = later + PATIENCE + Duration::from_secs(70);
        one.enter(after).unwrap().answered(after + MS);
        assert_eq!(one.limit(), LEAST, "it is measured again");
        for _ in 0..ANSWERS {
            one.enter(after).unwrap().answered(after + MS);
        }
        assert!((900..1_100).contains(&one.shortest().as_micros()), "{:?}", one.shortest());
    }

    #[test]
    fn answers_that_take_long_let_in_fewer() {
        let (one, mut now) = (one(), Instant::now());
        let mut answer = |time: Duration| {
            let request = one.enter(now).unwrap();
            now += time;
            request.answered(now);
            one.limit()
        };
        let measured = (0..ANSWERS).map(|_| answer(MS)).last();
        assert_eq!(measured, Some(LEAST));
        assert!((900..1_100).contains(&one.shortest().as_micros()), "{:?}", one.shortest());
        let most = (0..2_000).map(|_| answer(MS)).last();
        assert_eq!(most, Some(100));
        assert!((0..40).map(|_| answer(20 * MS)).last() < most);
    }

    #[test]
    fn an_answer_to_a_request_from_before_says_nothing_about_the_shortest_time() {
        let (one, now) = (one(), Instant::now());
        let slow = one.enter(now).unwrap();
        for _ in 0..ANSWERS {
            one.enter(now).unwrap().answered(now + MS);
        }
        let before = one.samples.count();
        slow.answered(now + 1_000 * MS);
        assert_eq!(one.samples.count(), before);
    }
}
