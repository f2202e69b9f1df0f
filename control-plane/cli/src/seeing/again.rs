//! For commands that look on: the control plane may go away meanwhile, as when it restarts, and they go on when it is back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long nobody is asked after nobody has answered for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Each further pause is twice as long as the one before, and none is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Whether somebody answers.
#[derive(Debug)]
pub(super) struct Answering {
    has_ever: bool,
    away_since: Option<Instant>,
    pause: Duration,
}

impl Answering {
    pub(super) fn new() -> Self {
        Self { has_ever: false, away_since: None, pause: FIRST_PAUSE }
    }

    /// What was answered; `None`: nobody does, which people are told, and it has been waited for the time to ask again.
    ///
    /// # Errors
    /// If nobody has ever answered, which may be for good, or the `deadline` is over.
    pub(super) async fn heard<T>(
        &mut self,
        answer: anyhow::Result<T>,
        deadline: Option<Instant>,
    ) -> anyhow::Result<Option<T>> {
        match answer {
            Ok(answer) => {
                if let Some(since) = self.away_since.take() {
                    eprintln!(
                        "selvedge: the control plane answers again, after {} s",
                        since.elapsed().as_secs()
                    );
                }
                (self.has_ever, self.pause) = (true, FIRST_PAUSE);
                Ok(Some(answer))
            }
            Err(error) => {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                if !self.has_ever || left.is_some_and(|left| left.is_zero()) {
                    return Err(error);
                }
                if self.away_since.is_none() {
                    self.away_since = Some(Instant::now());
                    eprintln!("selvedge: {error:#}; trying again until it answers, or Ctrl-C");
                }
                sleep(left.map_or(self.pause, |left| left.min(self.pause))).await;
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    fn gone() -> anyhow::Result<u8> {
        Err(anyhow!("gone"))
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_answered_once_is_asked_again_less_and_less_often() {
        let mut answering = Answering::new();
        assert!(answering.heard(gone(), None).await.is_err(), "a name that is wrong is wrong for good");
        assert_eq!(answering.heard(Ok(1), None).await.unwrap(), Some(1));

        let mut pauses = Vec::new();
        for _ in 0..6 {
            let began = Instant::now();
            assert_eq!(answering.heard(gone(), None).await.unwrap(), None);
            pauses.push(began.elapsed().as_millis());
        }
        assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 8_000]);
        assert_eq!(answering.heard(Ok(2), None).await.unwrap(), Some(2));
        let began = Instant::now();
        assert_eq!(answering.heard(gone(), None).await.unwrap(), None);
        assert_eq!(began.elapsed(), FIRST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_again_when_the_time_is_over() {
        let mut answering = Answering::new();
        let deadline = Some(Instant::now() + Duration::from_millis(700));
        assert_eq!(answering.heard(Ok(1), deadline).await.unwrap(), Some(1));
        assert_eq!(answering.heard(gone(), deadline).await.unwrap(), None);
        assert_eq!(answering.heard(gone(), deadline).await.unwrap(), None);
        assert!(Some(Instant::now()) >= deadline, "the last pause is as long as what is left");
        assert!(answering.heard(gone(), deadline).await.is_err());
    }
}
