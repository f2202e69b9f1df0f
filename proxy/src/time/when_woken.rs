//! A future that shares its task with a busy one, and is polled only when it has itself been woken.
//!
//! A connection's task is woken several times for each request; the end of its lifetime comes once. If the end were
//! polled each time, every request would pay for the locks of the timers and watches behind it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use futures_util::task::AtomicWaker;
use pin_project_lite::pin_project;

/// `inner`, polled only when it has been woken.
pub fn when_woken<F: Future>(inner: F) -> WhenWoken<F> {
    let woken = Arc::new(Woken { flag: AtomicBool::new(true), task: AtomicWaker::new() });
    WhenWoken { inner, waker: Waker::from(Arc::clone(&woken)), woken }
}

pin_project! {
    /// See [`when_woken`].
    #[derive(Debug)]
    pub struct WhenWoken<F> {
        #[pin]
        inner: F,
        woken: Arc<Woken>,
        waker: Waker,
    }
}

/// Whether the inner future was woken, and the task that is then to be woken.
#[derive(Debug)]
struct Woken {
    flag: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl<F: Future> Future for WhenWoken<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Registered before the flag is read, so that a wake in between is not lost.
        this.woken.task.register(cx.waker());
        if !this.woken.flag.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.woken.flag.store(false, Ordering::Release);
        this.inner.poll(&mut Context::from_waker(this.waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

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
}
