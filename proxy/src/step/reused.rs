//! Futures of requests in boxes that later requests use again.
//!
//! Every request needs such boxes, and they are larger than what malloc keeps at hand: glibc takes five times as long for one as for
//! a small one. What holds a future, such as a connection without a request, then has room for a pointer and not for all of it.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tower::Service;

use super::{Error, Request, Response, Step};
use crate::spare::Spare;

/// How many boxes one step keeps on one worker that no future is in.
const KEPT: usize = 64;

/// The last step of a path, or one that needs a box of its own: it does what `call` does.
pub fn reused<R, C: Fn(R) -> F, F>(call: C) -> Reused<C, F> {
    Reused { call, boxes: Boxes::none() }
}

/// See [`reused`].
pub struct Reused<C, F> {
    call: C,
    boxes: Boxes<F>,
}

/// `path`, whose futures are in such boxes.
pub fn in_boxes<S: Step<Request>>(path: S) -> impl Step<Request> {
    InBoxes { path, boxes: Boxes::<S::Future>::none() }
}

/// See [`in_boxes`].
struct InBoxes<S, F> {
    path: S,
    boxes: Boxes<F>,
}

impl<S: Clone, F> Clone for InBoxes<S, F> {
    fn clone(&self) -> Self {
        Self { path: self.path.clone(), boxes: self.boxes.clone() }
    }
}

impl<S: Step<Request>> Service<Request> for InBoxes<S, S::Future> {
    type Response = Response;
    type Error = Error;
    type Future = Boxed<S::Future>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.boxes.hold(self.path.call(request))
    }
}

/// A future in its place, or none.
type Place<F> = Pin<Box<Option<F>>>;

/// The boxes that no future is in.
struct Boxes<F>(Rc<Spare<Place<F>>>);

impl<C: Clone, F> Clone for Reused<C, F> {
    fn clone(&self) -> Self {
        Self { call: self.call.clone(), boxes: self.boxes.clone() }
    }
}

impl<C, F> fmt::Debug for Reused<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reused").finish_non_exhaustive()
    }
}

impl<R, C, F> Service<R> for Reused<C, F>
where
    C: Fn(R) -> F,
    F: Future<Output = Result<Response, Error>>,
{
    type Response = Response;
    type Error = Error;
    type Future = Boxed<F>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.boxes.hold((self.call)(request))
    }
}

impl<F> Clone for Boxes<F> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<F> Boxes<F> {
    fn none() -> Self {
        Self(Rc::new(Spare::new(KEPT)))
    }

    /// Puts `future` into a box.
    fn hold(&self, future: F) -> Boxed<F> {
        let free = self.0.take();
        let place = match free {
            Some(mut place) => {
                place.set(Some(future));
                place
            }
            None => Box::pin(Some(future)),
        };
        Boxed { place: Some(place), boxes: self.clone() }
    }
}

/// A future in a box, which is given back when it is over or given up.
pub struct Boxed<F> {
    place: Option<Place<F>>,
    boxes: Boxes<F>,
}

impl<F> Boxed<F> {
    fn give_back(&mut self) {
        let Some(mut place) = self.place.take() else { return };
        // Nothing is borrowed while it is dropped: what it held may ask for a box.
        place.set(None);
        self.boxes.0.leave(place);
    }
}

impl<F> fmt::Debug for Boxed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Boxed").field("is_over", &self.place.is_none()).finish_non_exhaustive()
    }
}

impl<F: Future> Future for Boxed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let future = self.place.as_mut().and_then(|place| place.as_mut().as_pin_mut());
        let future = future.expect("a future is not polled after it is ready");
        let output = ready!(future.poll(cx));
        self.give_back();
        Poll::Ready(output)
    }
}

impl<F> Drop for Boxed<F> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending, task::Waker};

    use super::*;
    use crate::error::Reason;

    fn boxes<F>(step: &Reused<impl Fn(Rc<Cell<u32>>) -> F, F>) -> usize {
        step.boxes.0.len()
    }

    #[test]
    fn a_box_is_used_again_whether_its_future_was_over_or_given_up() {
        let mut step = reused(|waits: Rc<Cell<u32>>| async move {
            if waits.get() > 0 {
                pending::<()>().await;
            }
            Err::<Response, _>(Error::new(Reason::NoRoute, ""))
        });
        let mut cx = Context::from_waker(Waker::noop());
        let held = Rc::new(Cell::new(0));

        assert!(Pin::new(&mut step.call(Rc::clone(&held))).poll(&mut cx).is_ready());
        assert_eq!(boxes(&step), 1);
        held.set(1);
        let mut waiting = [step.call(Rc::clone(&held)), step.call(Rc::clone(&held))];
        assert_eq!(boxes(&step), 0);
        assert!(waiting.iter_mut().all(|one| Pin::new(one).poll(&mut cx).is_pending()));
        assert_eq!(Rc::strong_count(&held), 3);
        drop(waiting);
        assert_eq!((boxes(&step), Rc::strong_count(&held)), (2, 1), "what a future held is let go");

        let many: Vec<_> = (0..2 * KEPT).map(|_| step.call(Rc::clone(&held))).collect();
        drop(many);
        assert_eq!(boxes(&step), KEPT);
    }
}
