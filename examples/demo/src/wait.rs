//! Waiting for a state by asking again until it is there, with a deadline; never by sleeping for long enough.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// How long to wait between two questions.
const PAUSE: Duration = Duration::from_millis(10);

/// The state that was waited for did not come.
#[derive(Debug, thiserror::Error)]
#[error("{what}: not within {limit:?}; last seen: {seen}")]
pub struct TooLate {
    /// What was waited for.
    pub what: String,
    /// How long.
    pub limit: Duration,
    /// What was there instead, at the last look.
    pub seen: String,
}

/// Asks `look` until it is `Ok`; its `Err` says what is there instead.
///
/// # Errors
/// If that does not happen within `limit`. A look in progress is cancelled then.
pub async fn until<T, E: fmt::Display>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, TooLate> {
    let deadline = Instant::now() + limit;
    let mut seen = "nothing yet".to_owned();
    loop {
        let remaining = deadline.saturating_duration_since(Instant::now());
        // A look that never waits would always win against the time limit below.
        if remaining.is_zero() {
            return Err(TooLate { what: what.to_owned(), limit, seen });
        }
        match tokio::time::timeout(remaining, look()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(instead)) => seen = instead.to_string(),
            Err(_) => return Err(TooLate { what: what.to_owned(), limit, seen }),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_ok_ends_the_wait() {
        let mut looks = 0;

        let found = until(Duration::from_secs(5), "three looks", async || {
            looks += 1;
            if looks == 3 { Ok("here") } else { Err(format!("{looks} looks")) }
        });

        assert_eq!(found.await.unwrap(), "here");
    }

    #[tokio::test]
    async fn a_wait_that_ends_says_what_it_saw_last() {
        let error = until(Duration::from_millis(30), "a miracle", async || Err::<(), _>("rain"));

        assert_eq!(error.await.unwrap_err().to_string(), "a miracle: not within 30ms; last seen: rain");
    }
}
