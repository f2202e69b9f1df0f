//! Whether a request that policy has let in may still go on.
//!
//! Only of requests that policy looked into: all others stand and fall with their connection. Whoever waits for the
//! answer, and then the answer's body, asks here; `step::Admitted` says when it is over.

use std::{
    cell::RefCell,
    task::{Context, Poll, Waker},
};

use crate::error::Failure;

/// See the module.
#[derive(Debug, Default)]
pub struct Admission {
    ended: RefCell<Option<Failure>>,
    waiting: RefCell<Option<Waker>>,
}

impl Admission {
    /// It may not go on, for this reason.
    pub fn end(&self, failure: Failure) {
        *self.ended.borrow_mut() = Some(failure);
        if let Some(waiting) = self.waiting.borrow_mut().take() {
            waiting.wake();
        }
    }

    /// Ready when it may not go on.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended.borrow().is_some() {
            return Poll::Ready(());
        }
        let mut waiting = self.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Why it may not go on.
    pub fn take(&self) -> Option<Failure> {
        self.ended.borrow_mut().take()
    }
}
