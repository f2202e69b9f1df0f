//! A worker's deadlines, all on one timer.
//!
//! Nearly every request ends long before its time is over, so setting and lifting a limit must cost next to nothing.
//! Here a limit is a place in an array; a timer of its own would be a place in the runtime's wheel, with locks around
//! it. The one timer sleeps until the earliest deadline that was known when it was set. Then it looks through the
//! deadlines that still wait, one for each attempt in progress. That happens rarely: by then the earliest is nearly
//! always lifted, and the next one is far away.

use std::{
    cell::RefCell,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use slab::Slab;
use tokio::time::Instant;

/// See the module.
#[derive(Debug, Default)]
pub struct Deadlines(RefCell<State>);

#[derive(Debug, Default)]
struct State {
    waiting: Slab<Waiting>,
    /// When the timer will look through them; `None`: it has none to wait for.
    look_at: Option<Instant>,
    /// The timer's own task.
    timer: Option<Waker>,
}

#[derive(Debug)]
struct Waiting {
    until: Instant,
    is_over: bool,
    waker: Option<Waker>,
}

impl Deadlines {
    /// A deadline at `until`, from now on until it is dropped.
    pub fn at(self: &Rc<Self>, until: std::time::Instant) -> Deadline {
        let until = until.into();
        let (place, timer) = {
            let mut state = self.0.borrow_mut();
            let place = state.waiting.insert(Waiting { until, is_over: false, waker: None });
            let earliest = state.look_at.is_none_or(|look_at| until < look_at);
            if earliest {
                state.look_at = Some(until);
            }
            (place, if earliest { state.timer.take() } else { None })
        };
        if let Some(timer) = timer {
            timer.wake();
        }
        Deadline { all: Rc::clone(self), place }
    }

    /// What `future` gives; `None` if it has not by `until`, where there is an end.
    pub async fn within<F: Future>(
        self: &Rc<Self>,
        until: Option<std::time::Instant>,
        mut future: Pin<&mut F>,
    ) -> Option<F::Output> {
        let mut deadline = until.map(|until| self.at(until));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            match &mut deadline {
                Some(deadline) => Pin::new(deadline).poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Lets deadlines come to their end; to be run on the worker as long as it lives.
    pub async fn keep(self: Rc<Self>) {
        let mut sleep = pin!(tokio::time::sleep_until(Instant::now()));
        std::future::poll_fn(|cx| {
            loop {
                let Some(look_at) = self.look_at(cx) else { return Poll::Pending };
                if sleep.deadline() != look_at || sleep.is_elapsed() {
                    sleep.as_mut().reset(look_at);
                }
                ready!(sleep.as_mut().poll(cx));
                self.look(Instant::now());
            }
        })
        .await
    }

    /// When to look next. `cx` is woken should that become earlier.
    fn look_at(&self, cx: &mut Context<'_>) -> Option<Instant> {
        let mut state = self.0.borrow_mut();
        state.timer = Some(cx.waker().clone());
        state.look_at
    }

    /// Wakes those that are over at `now`.
    fn look(&self, now: Instant) {
        let wakers: Vec<Waker> = {
            let mut state = self.0.borrow_mut();
            let waiting = || state.waiting.iter().filter(|(_, waiting)| !waiting.is_over);
            let next = waiting().map(|(_, waiting)| waiting.until).filter(|until| *until > now).min();
            state.look_at = next;
            let over = state.waiting.iter_mut().map(|(_, waiting)| waiting);
            over.filter(|waiting| waiting.until <= now)
                .filter_map(|waiting| {
                    waiting.is_over = true;
                    waiting.waker.take()
                })
                .collect()
        };
        // After the borrow has ended: a task that is woken may set or lift deadlines at once.
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Completes when its time is over.
#[derive(Debug)]
pub struct Deadline {
    all: Rc<Deadlines>,
    place: usize,
}

impl Deadline {
    /// Whether it is over at `now`.
    pub fn is_over(&self, now: std::time::Instant) -> bool {
        self.all.0.borrow().waiting[self.place].until <= now.into()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.all.0.borrow_mut();
        let waiting = &mut state.waiting[self.place];
        if waiting.is_over {
            return Poll::Ready(());
        }
        if !waiting.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            let before = waiting.waker.replace(cx.waker().clone());
            drop(state);
            drop(before);
        }
        Poll::Pending
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        // Taken out before it is dropped: the last hold of a task may be another deadline's.
        let waiting = self.all.0.borrow_mut().waiting.remove(self.place);
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use tokio::task::LocalSet;

    use super::*;

    async fn kept<T>(run: impl AsyncFnOnce(Rc<Deadlines>) -> T) -> T {
        let deadlines = Rc::new(Deadlines::default());
        let local = LocalSet::new();
        local.spawn_local(Rc::clone(&deadlines).keep());
        local.run_until(run(deadlines)).await
    }

    fn after(millis: u64) -> std::time::Instant {
        (Instant::now() + Duration::from_millis(millis)).into()
    }

    #[tokio::test(start_paused = true)]
    async fn each_ends_at_its_own_time_in_whatever_order_they_were_set() {
        kept(async |deadlines| {
            let start = Instant::now();
            let ends = [300, 100, 200, 100].map(|millis| {
                let deadline = deadlines.at(after(millis));
                async move {
                    deadline.await;
                    start.elapsed().as_millis()
                }
            });

            let ended = futures_util::future::join_all(ends).await;

            assert_eq!(ended, [300, 100, 200, 100]);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_one_is_not_held_up_by_those_before() {
        kept(async |deadlines| {
            let _late = deadlines.at(after(10_000));
            tokio::task::yield_now().await;
            let start = Instant::now();

            deadlines.at(after(50)).await;

            assert_eq!(start.elapsed().as_millis(), 50);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_over_already_ends_at_once() {
        kept(async |deadlines| {
            let start = Instant::now();
            deadlines.at(start.into()).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_are_lifted_leave_nothing() {
        kept(async |deadlines| {
            for _ in 0..100 {
                let mut deadline = deadlines.at(after(1_000));
                assert!((&mut deadline).now_or_never().is_none());
                assert!(!deadline.is_over(after(999)));
                assert!(deadline.is_over(after(1_000)));
            }
            assert!(deadlines.0.borrow().waiting.is_empty());

            tokio::time::sleep(Duration::from_secs(2)).await;

            assert_eq!(deadlines.0.borrow().look_at, None);
        })
        .await;
    }
}
