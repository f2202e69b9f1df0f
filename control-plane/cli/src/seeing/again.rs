//! For commands that look on: the control plane may go away meanwhile, as when it restarts, and they go on when it is back.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long nobody is asked after nobody has answered for the first time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long nobody may answer who is waited for by a command that comes to an end by itself, but not by a time.
const LONGEST_AWAY: Duration = Duration::from_secs(45);
/// Each further pause is twice as long as the one before, and none is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(8);

/// Whether somebody answers.
#[derive(Debug)]
pub(super) struct Answering {
    has_ever: bool,
    away_since: Option<Instant>,
    pause: Duration,
    /// How long nobody may answer. `None`: for as long as somebody looks on.
    longest_away: Option<Duration>,
}

impl Answering {
    /// `ends`: whether the command is to end by itself when there was enough, so that nobody may be looking on.
    pub(super) fn new(ends: bool) -> Self {
        let longest_away = ends.then_some(LONGEST_AWAY);
        Self { has_ever: false, away_since: None, pause: FIRST_PAUSE, longest_away }
    }

    /// What was answered; `None`: nobody does, which people are told, and it has been waited for the time to ask again.
    ///
    /// # Errors
    /// If nobody has ever answered, which may be for good, the `deadline` is over, or nobody has answered for as long as may be.
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
                let since = match self.away_since {
                    Some(since) => since,
                    None => {
                        let until = match self.longest_away {
                            Some(longest) => format!("for {} s at most", longest.as_secs()),
                            None => "until it answers, or Ctrl-C".to_owned(),
                        };
                        eprintln!("selvedge: {error:#}; trying again {until}");
                        *self.away_since.insert(Instant::now())
                    }
                };
                let more = self.longest_away.map(|longest| longest.saturating_sub(since.elapsed()));
                if more.is_some_and(|more| more.is_zero()) {
                    let away = since.elapsed().as_secs();
                    return Err(error.context(format!(
                        "the control plane has not answered for {away} s: look whether it runs, and start this again"
                    )));
                }
                let left = [left, more].into_iter().flatten().min();
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
        let mut answering = Answering::new(false);
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
    async fn who_is_to_end_by_itself_does_not_wait_for_good() {
        let mut answering = Answering::new(true);
        // It answers again in time, and is waited for as long again.
        for _ in 0..3 {
            assert_eq!(answering.heard(Ok(1), None).await.unwrap(), Some(1));
            let began = Instant::now();
            while began.elapsed() < LONGEST_AWAY / 2 {
                assert_eq!(answering.heard(gone(), None).await.unwrap(), None);
            }
        }
        let began = Instant::now();
        assert_eq!(answering.heard(Ok(1), None).await.unwrap(), Some(1));
        let error = loop {
            if let Err(error) = answering.heard(gone(), None).await {
                break format!("{error:#}");
            }
        };
        assert_eq!(began.elapsed(), LONGEST_AWAY);
        assert!(
            error.contains("has not answered for 45 s: look whether it runs") && error.ends_with("gone"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_again_when_the_time_is_over() {
        let mut answering = Answering::new(false);
        let deadline = Some(Instant::now() + Duration::from_millis(700));
        assert_eq!(answering.heard(Ok(1), deadline).await.unwrap(), Some(1));
        assert_eq!(answering.heard(gone(), deadline).await.unwrap(), None);
        assert_eq!(answering.heard(gone(), deadline).await.unwrap(), None);
        assert!(Some(Instant::now()) >= deadline, "the last pause is as long as what is left");
        assert!(answering.heard(gone(), deadline).await.is_err());
    }
}
