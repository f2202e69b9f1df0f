//! How many requests an app may have in progress, by how long its answers take: Envoy's gradient controller.
//!
//! Once in a while, while only [`LEAST`] requests may be in progress, it measures how long answers take when nothing waits.
//! From then on it compares, at the end of each [`WINDOW`], how long answers take now. If they take longer, requests wait
//! in the app, and fewer are let in; if they do not, more are. It is pure: it takes the time.

use std::time::{Duration, Instant};

/// So many requests may always be in progress (Envoy's `min_concurrency`).
pub(super) const LEAST: u32 = 3;
/// The shortest time is the median of so many answers (Envoy's `request_count`).
pub(super) const ANSWERS: u64 = 50;
/// How often the limit changes (Envoy's `concurrency_update_interval`).
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// Answers may take so much longer than the shortest time before fewer requests are let in (Envoy's `buffer`).
const BUFFER: f64 = 0.25;
/// After so many windows in which no more than [`LEAST`] were let in, the shortest time is measured anew: it may be that
/// the app has become slower for good.
const STUCK: u32 = 5;
/// Where measuring takes too long, so many answers are enough.
pub(super) const FEW: u64 = 5;
/// The shortest time is measured up to this part of the interval later, so that not all instances do it at once.
const JITTER: f64 = 0.15;

/// See the module.
#[derive(Debug)]
pub(super) struct Gradient {
    /// The most that it lets in.
    most: u32,
    /// How often the shortest time is measured.
    interval: Duration,
    limit: u32,
    phase: Phase,
    /// How many phases there have been.
    phases: u32,
    /// The shortest time that was measured last.
    last: Option<Duration>,
    /// How many windows in a row have let in no more than [`LEAST`].
    stuck: u32,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The shortest time is being measured. What was let in before, is let in afterwards.
    Measuring { before: u32 },
    /// Too few answers came to know it. Meanwhile all that may be is let in.
    Unknown { measure_at: Instant },
    /// It is known.
    Steady { shortest: Duration, window_ends: Instant, measure_at: Instant },
}

impl Gradient {
    /// One that lets in at most `most`, and begins by measuring.
    pub(super) fn new(most: u32, interval: Duration) -> Self {
        let most = most.max(LEAST);
        let phase = Phase::Measuring { before: LEAST };
        Self { most, interval, limit: LEAST, phase, phases: 0, last: None, stuck: 0 }
    }

    /// How many requests may be in progress.
    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// How often measuring has begun or ended.
    pub(super) fn phases(&self) -> u32 {
        self.phases
    }

    /// The shortest time, while it is known.
    pub(super) fn shortest(&self) -> Option<Duration> {
        match self.phase {
            Phase::Measuring { .. } | Phase::Unknown { .. } => None,
            Phase::Steady { shortest, .. } => Some(shortest),
        }
    }

    /// When it has to be asked next; `None`: as soon as there are [`ANSWERS`].
    pub(super) fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Measuring { .. } => None,
            Phase::Unknown { measure_at } => Some(measure_at),
            Phase::Steady { window_ends, .. } => Some(window_ends),
        }
    }

    /// Takes in that `answers` have taken `median`. `random` is from 0 to 1. Returns whether it has taken them in: then they
    /// count no more.
    pub(super) fn take_in(&mut self, now: Instant, answers: u64, median: Duration, random: f64) -> bool {
        match self.phase {
            Phase::Measuring { .. } if answers < ANSWERS => return false,
            Phase::Measuring { before } => self.go_on(now, before, Some(median), random),
            Phase::Unknown { measure_at } if now < measure_at => return false,
            Phase::Unknown { .. } => self.measure(),
            Phase::Steady { window_ends, .. } if now < window_ends => return false,
            Phase::Steady { measure_at, .. } if now >= measure_at => self.measure(),
            Phase::Steady { shortest, ref mut window_ends, .. } => {
                *window_ends = now + WINDOW;
                if answers > 0 {
                    self.adjust(shortest, median);
                }
            }
        }
        true
    }

    /// Ends measuring that takes too long, such as when few requests hold all places for long: few `answers` are enough then,
    /// or else the time that was measured last, and without one as many are let in as may be. It is measured again in an
    /// interval. Returns whether it was measuring.
    pub(super) fn give_up(&mut self, now: Instant, answers: u64, median: Duration, random: f64) -> bool {
        let Phase::Measuring { before } = self.phase else { return false };
        self.go_on(now, before, (answers >= FEW).then_some(median).or(self.last), random);
        true
    }

    /// Lets in as many as `before`, and compares with the `shortest` time from now on, if there is one.
    fn go_on(&mut self, now: Instant, before: u32, shortest: Option<Duration>, random: f64) {
        let later = self.interval.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        let (window_ends, measure_at) = (now + WINDOW, now + later);
        let shortest = shortest.map(|shortest| shortest.max(Duration::from_nanos(1)));
        (self.limit, self.phase) = match shortest {
            Some(shortest) => (before, Phase::Steady { shortest, window_ends, measure_at }),
            None => (self.most, Phase::Unknown { measure_at }),
        };
        self.last = shortest;
        self.phases = self.phases.wrapping_add(1);
    }

    fn adjust(&mut self, shortest: Duration, median: Duration) {
        let median = median.max(Duration::from_nanos(1));
        let gradient = (shortest.as_secs_f64() * (1.0 + BUFFER) / median.as_secs_f64()).clamp(0.5, 2.0);
        let limit = f64::from(self.limit) * gradient;
        // Some more, so that it grows again when answers take no longer than they must.
        let limit = limit + limit.sqrt();
        self.limit = (limit as u32).clamp(LEAST, self.most);
        self.stuck = if self.limit == LEAST { self.stuck + 1 } else { 0 };
        if self.stuck >= STUCK {
            self.measure();
        }
    }

    fn measure(&mut self) {
        self.phase = Phase::Measuring { before: self.limit };
        self.phases = self.phases.wrapping_add(1);
        self.limit = LEAST;
        self.stuck = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u32 = 200;
    const MS: Duration = Duration::from_millis(1);
    const LONG: Duration = Duration::from_secs(3600);

    /// One whose shortest time is `shortest`, and the time.
    fn measured(shortest: Duration, interval: Duration) -> (Gradient, Instant) {
        let (mut gradient, now) = (Gradient::new(MOST, interval), Instant::now());
        assert!(gradient.take_in(now, ANSWERS, shortest, 0.0));
        assert_eq!(gradient.shortest(), Some(shortest));
        (gradient, now)
    }

    /// What `gradient` lets in after `windows` more, of an app that answers in `service` as long as it has no more than
    /// `capacity` requests, where more come than are let in.
    fn overloaded(
        gradient: &mut Gradient,
        now: &mut Instant,
        capacity: f64,
        service: Duration,
        windows: u32,
    ) {
        for _ in 0..windows {
            *now += WINDOW;
            let longer = (f64::from(gradient.limit()) / capacity).max(1.0);
            gradient.take_in(*now, ANSWERS, service.mul_f64(longer), 0.0);
        }
    }

    proptest! {
        #[test]
        fn whatever_answers_take_as_many_are_let_in_as_may_be(
            steps in prop::collection::vec((0..300_u64, 0..200_u64, 0..10_000_u64, 0.0..1.0), 1..300),
            most in 0..500_u32,
        ) {
            let (mut gradient, mut now) = (Gradient::new(most, 10 * WINDOW), Instant::now());
            for (gap, answers, micros, random) in steps {
                now += Duration::from_millis(gap);
                let before = gradient.limit();
                let taken = gradient.take_in(now, answers, Duration::from_micros(micros), random);
                prop_assert!((LEAST..=most.max(LEAST)).contains(&gradient.limit()));
                prop_assert!(taken || gradient.limit() == before);
            }
        }

        #[test]
        fn under_overload_answers_take_less_than_twice_as_long_as_without(
            capacity in 8.0..100.0,
            micros in 100..1_000_000_u64,
        ) {
            let service = Duration::from_micros(micros);
            let (mut gradient, mut now) = measured(service, LONG);
            overloaded(&mut gradient, &mut now, capacity, service, 100);
            let longer = f64::from(gradient.limit()) / capacity;
            prop_assert!((1.0..2.0).contains(&longer), "{} of {}", gradient.limit(), capacity);
        }
    }

    #[test]
    fn while_answers_take_no_longer_more_are_let_in_up_to_the_most() {
        let (mut gradient, mut now) = measured(5 * MS, LONG);
        let mut before = gradient.limit();
        for _ in 0..100 {
            now += WINDOW;
            gradient.take_in(now, 1, 5 * MS, 0.0);
            assert!(gradient.limit() >= before);
            before = gradient.limit();
        }
        assert_eq!(before, MOST);
    }

    #[test]
    fn a_window_without_answers_changes_nothing() {
        let (mut gradient, now) = measured(5 * MS, LONG);
        let before = gradient.limit();
        gradient.take_in(now + WINDOW, 0, Duration::ZERO, 0.0);
        assert_eq!(gradient.limit(), before);
        assert_eq!(gradient.due(), Some(now + 2 * WINDOW));
    }

    #[test]
    fn the_shortest_time_is_measured_again_with_few_in_progress_and_then_as_many_go_on() {
        let (mut gradient, mut now) = measured(5 * MS, 10 * WINDOW);
        overloaded(&mut gradient, &mut now, 50.0, 5 * MS, 9);
        let before = gradient.limit();
        gradient.take_in(now + WINDOW, 1, 5 * MS, 0.0);
        assert_eq!((gradient.limit(), gradient.due()), (LEAST, None));
        assert!(!gradient.take_in(now + LONG, ANSWERS - 1, 7 * MS, 0.0));
        assert!(gradient.take_in(now + LONG, ANSWERS, 7 * MS, 0.0));
        assert_eq!((gradient.limit(), gradient.shortest()), (before, Some(7 * MS)));
    }

    #[test]
    fn measuring_that_takes_too_long_ends_with_what_is_known_and_begins_again_later() {
        let (mut gradient, now) = (Gradient::new(MOST, LONG), Instant::now());
        assert!(gradient.give_up(now, FEW - 1, 5 * MS, 0.0));
        assert_eq!((gradient.limit(), gradient.shortest()), (MOST, None), "nothing is known");
        assert!(!gradient.give_up(now, ANSWERS, 5 * MS, 0.0), "it is not measuring");
        assert!(!gradient.take_in(now + LONG - MS, ANSWERS, 5 * MS, 0.0));
        assert!(gradient.take_in(now + LONG, 1, 5 * MS, 0.0));
        assert_eq!((gradient.limit(), gradient.due()), (LEAST, None));
        assert!(gradient.give_up(now + LONG, FEW, 5 * MS, 0.0));
        assert_eq!(gradient.shortest(), Some(5 * MS));
        let before = gradient.limit();
        assert!(gradient.take_in(now + 2 * LONG, 1, 5 * MS, 0.0));
        assert!(gradient.give_up(now + 2 * LONG, 0, Duration::ZERO, 0.0));
        assert_eq!((gradient.limit(), gradient.shortest()), (before, Some(5 * MS)), "as it was");
    }

    #[test]
    fn an_app_that_is_slower_for_good_is_measured_anew() {
        let (mut gradient, mut now) = measured(MS, LONG);
        for _ in 0..20 {
            now += WINDOW;
            gradient.take_in(now, ANSWERS, 100 * MS, 0.0);
        }
        assert_eq!(gradient.shortest(), Some(100 * MS));
    }
}
