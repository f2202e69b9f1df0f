//! Whether a request that policy has let in may still go on.
//!
//! Only of requests that policy looked into: all others stand and fall with their connection. Whoever waits for the
//! answer, and then the answer's body, asks an [`Admission`]; `step::Admitted` keeps the [`Review`] of each, and says when
//! it is over. Both are used again by later requests, so that one allocates nothing.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use crate::error::Failure;

/// A request's right to go on, until this is dropped.
#[derive(Debug)]
pub struct Admission(Rc<Review>);

/// What is said later of one request after the other.
#[derive(Debug)]
pub struct Review {
    ended: RefCell<Option<Failure>>,
    waiting: RefCell<Option<Waker>>,
    is_over: Cell<bool>,
    /// Its place among all.
    place: Cell<usize>,
    free: FreePlaces,
}

/// The places of those that are over.
pub type FreePlaces = Rc<RefCell<Vec<usize>>>;

impl Review {
    /// One for the `place`, of no request yet. When its request is over, the place goes to those that are `free`.
    pub fn new(place: usize, free: &FreePlaces) -> Rc<Self> {
        Rc::new(Self {
            ended: RefCell::default(),
            waiting: RefCell::default(),
            is_over: Cell::new(true),
            place: Cell::new(place),
            free: Rc::clone(free),
        })
    }

    /// Of another request from now on. The one before must be over.
    pub fn admit(self: &Rc<Self>) -> Admission {
        self.ended.take();
        self.is_over.set(false);
        Admission(Rc::clone(self))
    }

    /// Whether its request is over.
    pub fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// It has another place now.
    pub fn move_to(&self, place: usize) {
        self.place.set(place);
    }

    /// Its request may not go on, for this reason.
    pub fn end(&self, failure: Failure) {
        if self.is_over() {
            return;
        }
        self.ended.replace(Some(failure));
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }
}

impl Admission {
    /// Ready when the request may not go on.
    pub fn poll_ended(&self, cx: &mut Context<'_>) -> Poll<()> {
        let Self(review) = self;
        if review.ended.borrow().is_some() {
            return Poll::Ready(());
        }
        let mut waiting = review.waiting.borrow_mut();
        if !waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            *waiting = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Why it may not go on.
    pub fn take(&self) -> Option<Failure> {
        self.0.ended.take()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let Self(review) = self;
        // Its task is kept for nobody.
        review.waiting.take();
        review.is_over.set(true);
        review.free.borrow_mut().push(review.place.get());
    }
}
