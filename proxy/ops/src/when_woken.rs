//! A future that shares its task with a busy one, and is polled only when it has itself been woken.
//!
//! A connection's task is woken several times for each request; the end of its lifetime comes once. If the end were
//! polled each time, every request would pay for the locks of the timers and watches behind it.
//!
//! When it is polled, the busy one has often used up what tokio lets a task do in one poll. It does not share that: a connection
//! that moves bytes without a pause would never come to its end.

use std::{
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use pin_project_lite::pin_project;
use tokio::task::coop;

/// `inner`, polled only when it has been woken.
pub fn when_woken<F: Future>(inner: F) -> WhenWoken<F> {
    let woken = Arc::new(Woken { flag: AtomicBool::new(true), task: Mutex::new(Waker::noop().clone()) });
    WhenWoken { inner, waker: Waker::from(Arc::clone(&woken)), woken, task: Waker::noop().clone() }
}

pin_project! {
    /// See [`when_woken`].
    #[derive(Debug)]
    pub struct WhenWoken<F> {
        #[pin]
        inner: F,
        woken: Arc<Woken>,
        waker: Waker,
        // The task that `woken` has, so that it need not be asked.
        task: Waker,
    }
}

/// Whether the inner future was woken, and the task that is then to be woken.
#[derive(Debug)]
struct Woken {
    flag: AtomicBool,
    /// It stays here when it is woken: the task that polls is nearly always the one that polled before, and then does not
    /// come here at all.
    task: Mutex<Waker>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).clone();
        task.wake();
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Before the flag is read, so that a wake in between is not lost.
        if !this.task.will_wake(cx.waker()) {
            this.task.clone_from(cx.waker());
            this.woken.task.lock().unwrap_or_else(PoisonError::into_inner).clone_from(cx.waker());
        }
        if !this.woken.flag.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.woken.flag.store(false, Ordering::Release);
        pin!(coop::unconstrained(this.inner)).poll(&mut Context::from_waker(this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, sync::atomic::AtomicUsize};

    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_when_its_task_was() {
        let polls = Cell::new(0);
        let (sender, mut receiver) = oneshot::channel();
        let mut inner = std::pin::pin!(when_woken(std::future::poll_fn(|cx| {
            polls.set(polls.get() + 1);
            Pin::new(&mut receiver).poll(cx)
        })));

        for _ in 0..5 {
            let polled = std::future::poll_fn(|cx| Poll::Ready(inner.as_mut().poll(cx)));
            assert!(polled.await.is_pending());
        }
        assert_eq!(polls.get(), 1);

        sender.send(7).unwrap();
        assert_eq!(inner.await, Ok(7));
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn it_ends_though_its_task_has_used_up_its_budget() {
        let (sender, receiver) = oneshot::channel();
        let mut inner = std::pin::pin!(when_woken(receiver));
        sender.send(7).unwrap();

        let polled = std::future::poll_fn(|cx| {
            while let Poll::Ready(unit) = coop::poll_proceed(cx) {
                unit.made_progress();
            }
            Poll::Ready(inner.as_mut().poll(cx))
        });

        assert_eq!(polled.await, Poll::Ready(Ok(7)));
    }

    #[test]
    fn whoever_polled_last_is_woken_each_time() {
        struct Counted(AtomicUsize);
        impl Wake for Counted {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let counted = || Arc::new(Counted(AtomicUsize::new(0)));
        let (one, other) = (counted(), counted());
        let inner_waker = Cell::new(None);
        let mut inner = std::pin::pin!(when_woken(std::future::poll_fn(|cx: &mut Context<'_>| {
            inner_waker.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        })));
        let mut poll = |task: &Arc<Counted>| {
            let waker = Waker::from(Arc::clone(task));
            assert!(inner.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        };
        let woken = |task: &Arc<Counted>| task.0.swap(0, Ordering::Relaxed);

        poll(&one);
        let waker = inner_waker.take().unwrap();
        for _ in 0..2 {
            waker.wake_by_ref();
            assert_eq!(woken(&one), 1);
            poll(&one);
        }
        poll(&other);
        waker.wake_by_ref();

        assert_eq!((woken(&one), woken(&other)), (0, 1));
    }
}
