//! A stream's one timer. What it waits for is mostly over long before its time, and then comes later: so the timer is left as it
//! is, and set anew only when it rings too soon. Timers are kept in a list that all streams share.

use std::{future::poll_fn, pin::Pin, task::Poll};

use tokio::time::{Instant, Sleep, sleep_until};

/// See the module.
#[derive(Debug)]
pub(super) struct Alarm {
    /// Only after it was set for the first time.
    timer: Option<Pin<Box<Sleep>>>,
    /// When it rings, unless it has.
    at: Option<Instant>,
}

impl Alarm {
    pub(super) fn new() -> Self {
        Self { timer: None, at: None }
    }

    /// Rings at `time` or sooner, if there is any.
    pub(super) fn set(&mut self, time: Option<Instant>) {
        let Some(time) = time.filter(|time| self.at.is_none_or(|at| *time < at)) else { return };
        match &mut self.timer {
            Some(timer) => timer.as_mut().reset(time),
            None => self.timer = Some(Box::pin(sleep_until(time))),
        }
        self.at = Some(time);
    }

    /// Returns when it rings. Whoever hears it looks what the time is, and sets it again.
    pub(super) async fn rings(&mut self) {
        poll_fn(|context| {
            let timer = self.timer.as_mut().filter(|_| self.at.is_some());
            let Some(Poll::Ready(())) = timer.map(|timer| timer.as_mut().poll(context)) else {
                return Poll::Pending;
            };
            self.at = None;
            Poll::Ready(())
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_rings_at_the_earliest_of_what_it_was_set_to() {
        let began = Instant::now();
        let after = |seconds| Some(began + Duration::from_secs(seconds));
        let mut alarm = Alarm::new();
        for time in [after(50), after(60), None, after(20), after(30)] {
            alarm.set(time);
        }

        alarm.rings().await;
        assert_eq!(began.elapsed().as_secs(), 20);
        alarm.set(after(30));
        alarm.rings().await;
        assert_eq!(began.elapsed().as_secs(), 30);
        let again = tokio::time::timeout(Duration::from_secs(600), alarm.rings()).await;
        assert!(again.is_err(), "it is not set");
    }
}
