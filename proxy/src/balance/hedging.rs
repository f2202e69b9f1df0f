//! When a request goes to a second endpoint, too: after a time that is given, or that most answers do not take.
//!
//! The time that most answers do not take is estimated by steps: an answer that takes longer moves the estimate up, one
//! that does not moves it down by less, so that it settles where the share of the longer ones is what is wished for. That
//! takes one word, whatever the times are, and follows them when they change. Workers share the word without a lock.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use selvedge_model::{Hedge, filter::Fraction};

/// So many answers are only looked at. The longest of them is the first estimate.
const FIRST: u32 = 20;
/// The largest step, as a share of the estimate.
const STEP: f32 = 0.1;

/// When requests of one route to one backend are hedged.
#[derive(Debug)]
pub struct Hedging {
    hedge: Hedge,
    /// How many answers there were, up to [`FIRST`], and the estimate in microseconds: the bits of an `f32`.
    word: AtomicU64,
}

impl Hedging {
    /// As `hedge` says; nothing is known of answers yet.
    pub fn new(hedge: Hedge) -> Self {
        Self { hedge, word: AtomicU64::new(0) }
    }

    /// What it was made of.
    pub fn hedge(&self) -> Hedge {
        self.hedge
    }

    /// After what time without an answer a request is hedged; `None`: too little is known yet.
    pub fn after(&self) -> Option<Duration> {
        match self.hedge {
            Hedge::After(time) => Some(time),
            Hedge::Percentile(_) => {
                let (count, estimate) = unpack(self.word.load(Ordering::Relaxed));
                (count >= FIRST).then(|| Duration::from_secs_f32(estimate / 1e6))
            }
        }
    }

    /// Notes how long an answer took, or has been waited for.
    pub fn note(&self, time: Duration) {
        let Hedge::Percentile(share) = self.hedge else { return };
        let time = time.as_secs_f32() * 1e6;
        let noted = |word| {
            let (count, estimate) = unpack(word);
            Some(if count < FIRST {
                pack(count + 1, estimate.max(time))
            } else {
                pack(count, stepped(estimate, time, share))
            })
        };
        let _ = self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, noted);
    }
}

/// `estimate` after one more answer. In balance, `share` of the steps go down.
fn stepped(estimate: f32, time: f32, share: Fraction) -> f32 {
    #[expect(clippy::cast_precision_loss, reason = "it is a share")]
    let share = share.parts() as f32 / Fraction::ALL.parts() as f32;
    let step = if time > estimate { 1.0 + STEP * share } else { 1.0 - STEP * (1.0 - share) };
    // A microsecond is more than any clock tells apart here, and 0 would never grow again.
    (estimate * step).max(1.0)
}

fn pack(count: u32, estimate: f32) -> u64 {
    u64::from(count) << 32 | u64::from(estimate.to_bits())
}

fn unpack(word: u64) -> (u32, f32) {
    ((word >> 32) as u32, f32::from_bits((word & u64::from(u32::MAX)) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_time_is_known_at_once_and_stays() {
        let hedging = Hedging::new(Hedge::After(Duration::from_millis(30)));
        hedging.note(Duration::from_secs(1));
        assert_eq!(hedging.after(), Some(Duration::from_millis(30)));
    }

    #[test]
    fn few_answers_tell_nothing() {
        let hedging = Hedging::new(Hedge::Percentile(Fraction::of_percent(95.0).unwrap()));
        (1..FIRST).for_each(|n| hedging.note(Duration::from_millis(n.into())));
        assert_eq!(hedging.after(), None);

        hedging.note(Duration::from_millis(3));
        let after = hedging.after().unwrap();
        assert!((18_999..=19_001).contains(&after.as_micros()), "{after:?}");
    }

    /// Of many answers about as many take longer as the percentile says, whatever their times are; also after they change.
    #[test]
    fn about_as_many_answers_take_longer_as_the_percentile_says() {
        type Draws = fn(&mut fastrand::Rng) -> f64;
        let draws: [(&str, Draws); 4] = [
            ("even", |rng| rng.f64() * 0.1),
            ("exponential", |rng| -0.01 * (1.0 - rng.f64()).ln()),
            (
                "two kinds",
                |rng| if rng.f64() < 0.8 { 0.001 + rng.f64() * 0.001 } else { 0.2 + rng.f64() * 0.1 },
            ),
            ("slow", |rng| 5.0 + rng.f64()),
        ];
        let mut rng = fastrand::Rng::with_seed(3);
        for percent in [50.0, 90.0, 95.0] {
            let hedging = Hedging::new(Hedge::Percentile(Fraction::of_percent(percent).unwrap()));
            for (kind, draw) in draws {
                let mut longer = 0;
                for n in 0..60_000 {
                    let time = Duration::from_secs_f64(draw(&mut rng));
                    longer += u32::from(n >= 10_000 && hedging.after().is_some_and(|after| time > after));
                    hedging.note(time);
                }
                let share = f64::from(longer) / 50_000.0;
                let expected = 1.0 - percent / 100.0;
                assert!((share - expected).abs() < 0.25 * expected, "{kind}, p{percent}: {share}");
            }
        }
    }
}
