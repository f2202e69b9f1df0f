//! Wakes the one task that waits for it. Each stream waits for its own whenever it waits for anything, so this is less than what
//! could wake several: no lock, and nothing to enter oneself in and to leave.

use std::{
    future::poll_fn,
    sync::atomic::{AtomicBool, Ordering},
    task::Poll,
};

use futures_util::task::AtomicWaker;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Bell {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Bell {
    /// Wakes who waits, or else who waits next.
    pub(super) fn ring(&self) {
        self.has_rung.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Returns once it has rung since this returned last. One task at a time waits.
    pub(super) async fn rung(&self) {
        poll_fn(|context| {
            if self.has_rung.swap(false, Ordering::AcqRel) {
                return Poll::Ready(());
            }
            // It may ring between the look and the registration.
            self.task.register(context.waker());
            match self.has_rung.swap(false, Ordering::AcqRel) {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn it_wakes_who_waits_and_rings_once_for_several_times() {
        let bell = std::sync::Arc::new(Bell::default());
        assert!(bell.rung().now_or_never().is_none());
        bell.ring();
        bell.ring();
        assert!(bell.rung().now_or_never().is_some());
        assert!(bell.rung().now_or_never().is_none());

        let waiting = tokio::spawn({
            let bell = std::sync::Arc::clone(&bell);
            async move { bell.rung().await }
        });
        tokio::task::yield_now().await;
        bell.ring();
        waiting.await.unwrap();
    }
}
