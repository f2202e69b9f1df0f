//! When to ask for the next certificate, and how soon again when that fails.
//!
//! Pure: the clock and the dice are parameters.

use std::time::{Duration, SystemTime};

/// The part of a certificate's life after which the next one is asked for: between 65 % and 75 %, so
/// that a fleet that started together does not renew together, and so that the control plane may be
/// away for a quarter of a life before anything fails.
const EARLIEST: f64 = 0.65;
const SPREAD: f64 = 0.10;

/// The longest wait between two attempts.
const MAX_RETRY: Duration = Duration::from_secs(300);
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The shortest wait, even when the certificate is about to expire.
const MIN_RETRY: Duration = Duration::from_millis(100);
/// The longest wait once the certificate has expired: nothing works until the next one is there.
const EXPIRED_RETRY: Duration = Duration::from_secs(2);

/// When to ask for the next certificate. `jitter` is a random number between 0 and 1.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or_default();
    not_before + life.mul_f64(EARLIEST + SPREAD * jitter.clamp(0.0, 1.0))
}

/// How long to wait after the `attempt`-th failure in a row (the first is 0), with `remaining` of the
/// certificate's life left. `jitter` is a random number between 0 and 1.
///
/// Grows from 1 s to 5 min, but leaves room for ten more attempts before the certificate expires.
/// Once it has expired, no wait is longer than 2 s.
pub fn retry_delay(attempt: u32, remaining: Duration, jitter: f64) -> Duration {
    let grown = FIRST_RETRY.saturating_mul(2_u32.saturating_pow(attempt)).min(MAX_RETRY);
    let limit =
        if remaining.is_zero() { EXPIRED_RETRY } else { (remaining / 10).clamp(MIN_RETRY, MAX_RETRY) };
    grown.min(limit).mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0)).max(MIN_RETRY)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn renewal_comes_at_about_seventy_percent_of_the_life() {
        let born = UNIX_EPOCH + HOUR;

        assert_eq!(renew_at(born, born + 10 * HOUR, 0.5), born + 7 * HOUR);
    }

    #[test]
    fn a_certificate_that_is_born_dead_is_renewed_at_once() {
        let born = UNIX_EPOCH + HOUR;

        assert_eq!(renew_at(born, born - HOUR, 0.9), born);
    }

    #[test]
    fn attempts_grow_apart_up_to_five_minutes() {
        let delays: Vec<u64> =
            (0..12).map(|attempt| retry_delay(attempt, 24 * HOUR, 1.0).as_secs()).collect();

        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
    }

    #[test]
    fn the_less_life_is_left_the_sooner_comes_the_next_attempt() {
        assert_eq!(retry_delay(20, Duration::from_secs(20), 1.0), Duration::from_secs(2));
        assert_eq!(retry_delay(20, Duration::from_millis(10), 1.0), MIN_RETRY);
        assert_eq!(retry_delay(20, Duration::ZERO, 1.0), EXPIRED_RETRY);
    }

    proptest! {
        #[test]
        fn renewal_falls_between_65_and_75_percent(life in 1_u64..100_000_000, jitter in 0.0..1.0) {
            let not_after = UNIX_EPOCH + Duration::from_secs(life);
            let at = renew_at(UNIX_EPOCH, not_after, jitter).duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
            prop_assert!((0.649..=0.751).contains(&(at / life as f64)));
        }

        #[test]
        fn a_wait_is_never_nothing_and_never_over_five_minutes(
            attempt in any::<u32>(), remaining in any::<u64>(), jitter in any::<f64>(),
        ) {
            let jitter = if jitter.is_nan() { 0.0 } else { jitter };
            let delay = retry_delay(attempt, Duration::from_secs(remaining), jitter);
            prop_assert!((MIN_RETRY..=MAX_RETRY).contains(&delay));
        }
    }
}
