//! Requests that wait for a connection to be free, in the order in which they came.

use std::cell::Cell;

use tokio::sync::Notify;

/// The requests that wait at one pool. A request that does not wait only reads a number.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    count: Cell<usize>,
    woken: Notify,
}

/// One that waits.
struct Waiter<'a>(&'a Waiting);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
    }
}

impl Waiting {
    /// Whether any request waits. A request that comes now must wait behind them.
    pub(super) fn is_busy(&self) -> bool {
        self.count.get() > 0
    }

    /// Waits until there may be room. If dropped before, it gives its turn to the next.
    pub(super) async fn wait(&self) {
        self.count.set(self.count.get() + 1);
        let _waiter = Waiter(self);
        self.woken.notified().await;
    }

    /// There is room for one.
    pub(super) fn wake_one(&self) {
        if self.is_busy() {
            self.woken.notify_one();
        }
    }
}
