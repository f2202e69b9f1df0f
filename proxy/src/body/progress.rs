//! How far a request and its answer have come, where a rule limits how long its answer may take once the request is
//! sent, or how long nothing may pass.
//!
//! The request's body and the answer's note here what passes; whoever waits asks whether the time is over. Only one of
//! both waits at a time: first the attempt, for the answer's head, then the answer's body. A byte that passes moves no
//! timer: a timer that fires looks at when the last one passed, and is set anew.

use std::{
    cell::{Cell, RefCell},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::{Duration, Instant},
};

use selvedge_model::StreamTimeouts;

use crate::time::{Deadline, Deadlines};

/// See the module. A request's and its answer's; each attempt at the request begins anew.
#[derive(Debug)]
pub struct Progress {
    limits: StreamTimeouts,
    deadlines: Rc<Deadlines>,
    /// When something last passed, either way.
    passed: Cell<Instant>,
    /// When the last byte of the request was sent, or the answer began, if that was before.
    sent: Cell<Option<Instant>>,
    timer: RefCell<Option<(Instant, Deadline)>>,
    /// Who waits while there is no limit yet.
    waiting: RefCell<Option<Waker>>,
    exceeded: Cell<Option<Exceeded>>,
}

/// A limit that was exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// The answer has not ended so long after the end of its request.
    Response(Duration),
    /// Nothing has passed for so long.
    Idle(Duration),
}

impl Progress {
    /// Of a request that is about to be sent, `whole` if it has no body.
    pub fn new(limits: StreamTimeouts, whole: bool, deadlines: &Rc<Deadlines>) -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            limits,
            deadlines: Rc::clone(deadlines),
            passed: Cell::new(now),
            sent: Cell::new(whole.then_some(now)),
            timer: RefCell::default(),
            waiting: RefCell::default(),
            exceeded: Cell::default(),
        })
    }

    /// One more attempt begins. What has arrived of its request's body is sent at once.
    pub fn begin_again(&self) {
        let now = Instant::now();
        self.passed.set(now);
        self.sent.set(self.sent.get().map(|_| now));
    }

    /// Something of the request or of the answer has passed.
    pub fn passed(&self) {
        if self.limits.idle.is_some() {
            self.passed.set(Instant::now());
        }
    }

    /// The request's last byte has passed, or its answer has begun.
    pub fn sent(&self) {
        let now = Instant::now();
        self.passed.set(now);
        if self.sent.get().is_none() {
            self.sent.set(Some(now));
            if let Some(waiting) = self.waiting.take() {
                waiting.wake();
            }
        }
    }

    /// The limit that was exceeded.
    pub fn exceeded(&self) -> Option<Exceeded> {
        self.exceeded.get()
    }

    /// Ready when a limit is exceeded.
    pub fn poll_exceeded(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some((until, limit)) = self.first_limit() else {
                *self.waiting.borrow_mut() = Some(cx.waker().clone());
                return Poll::Pending;
            };
            let mut timer = self.timer.borrow_mut();
            // A later limit can wait until the timer fires.
            if timer.as_ref().is_none_or(|(set_to, _)| until < *set_to) {
                *timer = Some((until, self.deadlines.at(until)));
            }
            let Some((set_to, deadline)) = timer.as_mut() else { return Poll::Pending };
            ready!(Pin::new(deadline).poll(cx));
            if *set_to >= until {
                self.exceeded.set(Some(limit));
                return Poll::Ready(());
            }
            *timer = None;
        }
    }

    /// Which limit is exceeded first, and when.
    fn first_limit(&self) -> Option<(Instant, Exceeded)> {
        let response = self.limits.response.zip(self.sent.get());
        let response = response.map(|(limit, sent)| (sent + limit, Exceeded::Response(limit)));
        let idle = self.limits.idle.map(|limit| (self.passed.get() + limit, Exceeded::Idle(limit)));
        response.into_iter().chain(idle).min_by_key(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::{task::LocalSet, time::sleep};

    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// `run` on a worker's deadlines.
    async fn kept<T>(run: impl AsyncFnOnce(Rc<Deadlines>) -> T) -> T {
        let deadlines = Rc::new(Deadlines::default());
        let local = LocalSet::new();
        local.spawn_local(Rc::clone(&deadlines).keep());
        local.run_until(run(deadlines)).await
    }

    fn limits(response: Option<u32>, idle: Option<u32>) -> StreamTimeouts {
        StreamTimeouts {
            response: response.map(|millis| millis * MILLI),
            idle: idle.map(|millis| millis * MILLI),
        }
    }

    async fn exceeded(progress: &Progress) -> Option<Exceeded> {
        std::future::poll_fn(|cx| progress.poll_exceeded(cx)).await;
        progress.exceeded()
    }

    #[tokio::test]
    async fn the_time_of_an_answer_begins_when_its_request_is_sent() {
        kept(async |deadlines| {
            let began = Instant::now();
            let progress = Progress::new(limits(Some(60), None), false, &deadlines);

            let (limit, ()) = tokio::join!(exceeded(&progress), async {
                sleep(100 * MILLI).await;
                progress.sent();
            });

            assert_eq!(limit, Some(Exceeded::Response(60 * MILLI)));
            assert!(began.elapsed() >= 160 * MILLI, "{:?}", began.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn what_passes_puts_off_the_end_of_an_idle_stream() {
        kept(async |deadlines| {
            let began = Instant::now();
            let progress = Progress::new(limits(None, Some(200)), true, &deadlines);

            let (limit, ()) = tokio::join!(exceeded(&progress), async {
                for _ in 0..3 {
                    sleep(100 * MILLI).await;
                    progress.passed();
                }
            });

            assert_eq!(limit, Some(Exceeded::Idle(200 * MILLI)));
            assert!(began.elapsed() >= 500 * MILLI, "{:?}", began.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn the_first_of_both_limits_counts_and_an_attempt_begins_anew() {
        kept(async |deadlines| {
            let progress = Progress::new(limits(Some(150), Some(10_000)), true, &deadlines);
            sleep(100 * MILLI).await;
            let began = Instant::now();
            progress.begin_again();

            assert_eq!(exceeded(&progress).await, Some(Exceeded::Response(150 * MILLI)));
            assert!(began.elapsed() >= 150 * MILLI, "{:?}", began.elapsed());
        })
        .await;
    }

    #[tokio::test]
    async fn nothing_ends_before_its_time() {
        kept(async |deadlines| {
            let progress = Progress::new(limits(Some(10_000), None), false, &deadlines);
            assert_eq!(exceeded(&progress).now_or_never(), None);
            progress.sent();
            assert_eq!(exceeded(&progress).now_or_never(), None);
            assert_eq!(progress.exceeded(), None);
        })
        .await;
    }
}
