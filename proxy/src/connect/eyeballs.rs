//! Several addresses tried one after the other, each a little later than the one before (RFC 8305, section 5).
//!
//! Who has one address pays nothing for it: this is for targets that were found by a name with several.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// How long an attempt is alone before the next one begins beside it: RFC 8305's connection attempt delay.
const STAGGER: Duration = Duration::from_millis(250);

/// How long each of so many attempts is alone, if all of them have this `limit` together: the last one must have its time, too.
pub(super) fn stagger(attempts: usize, limit: Duration) -> Duration {
    STAGGER.min(limit / u32::try_from(attempts + 1).unwrap_or(u32::MAX))
}

/// What the first attempt brings that succeeds, and its place; all failures in their order if none does. An attempt begins
/// `stagger` after the one before, or at once when there is no other.
pub(super) async fn first<T, E>(
    attempts: impl IntoIterator<Item = impl Future<Output = Result<T, E>>>,
    stagger: Duration,
) -> Result<(usize, T), Vec<E>> {
    let mut waiting = attempts.into_iter().enumerate();
    let mut trying: FuturesUnordered<_> = waiting.next().map(numbered).into_iter().collect();
    let mut failures = Vec::new();
    let mut is_last = false;
    loop {
        tokio::select! {
            ended = trying.next() => match ended {
                Some((place, Ok(made))) => return Ok((place, made)),
                Some((_, Err(failure))) => failures.push(failure),
                None => return Err(failures),
            },
            () = sleep(stagger), if !is_last => {}
        }
        match waiting.next() {
            Some(next) => trying.push(numbered(next)),
            None => is_last = true,
        }
    }
}

async fn numbered<F: Future>((place, attempt): (usize, F)) -> (usize, F::Output) {
    (place, attempt.await)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::time::Instant;

    use super::*;

    /// An attempt that takes so many milliseconds and succeeds or not.
    async fn attempt(
        begun: &RefCell<Vec<u64>>,
        start: Instant,
        (time, works): (u64, bool),
    ) -> Result<u64, u64> {
        begun.borrow_mut().push(u64::try_from(start.elapsed().as_millis()).unwrap());
        sleep(Duration::from_millis(time)).await;
        if works { Ok(time) } else { Err(time) }
    }

    /// Which one wins after how long, and when each began.
    async fn race(attempts: &[(u64, bool)]) -> (Result<usize, Vec<u64>>, u128, Vec<u64>) {
        let (begun, start) = (RefCell::default(), Instant::now());
        let won = first(attempts.iter().map(|how| attempt(&begun, start, *how)), STAGGER).await;
        (won.map(|(place, _)| place), start.elapsed().as_millis(), begun.into_inner())
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_begins_when_the_one_before_takes_long_or_fails() {
        assert_eq!(race(&[(10, true), (0, true)]).await, (Ok(0), 10, vec![0]), "nobody else is bothered");
        assert_eq!(race(&[(9_000, true), (30, true)]).await, (Ok(1), 280, vec![0, 250]));
        assert_eq!(race(&[(10, false), (30, true)]).await, (Ok(1), 40, vec![0, 10]));
        assert_eq!(
            race(&[(300, true), (900, true)]).await,
            (Ok(0), 300, vec![0, 250]),
            "the first may still win"
        );
        let all = [(10, false), (600, false), (20, false)];
        assert_eq!(race(&all).await, (Err(vec![10, 20, 600]), 610, vec![0, 10, 260]));
    }

    #[test]
    fn every_attempt_gets_its_time() {
        assert_eq!(stagger(3, Duration::from_secs(10)), STAGGER);
        assert_eq!(stagger(3, Duration::from_millis(200)), Duration::from_millis(50));
    }
}
