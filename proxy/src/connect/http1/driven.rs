//! Who drives a connection: the request that waits on it for its answer, or the connection's own task.
//!
//! hyper's connection does nothing unless a task polls it. While a request waits for its answer, or reads it, that is the
//! request's own task: so neither the request nor its answer has to wake another task, and an answer that has arrived whole is read
//! at once. At all other times it is the connection's task. It notices that the server has closed, and goes on with a request whose
//! body may not have been sent to its end when it was answered: whoever reads the answer may stop for as long as its client takes
//! nothing, and would keep the rest of that body waiting.
//!
//! What hyper waits for wakes [`Wakes`], which is the same as long as the connection lasts, and passes it on to whose turn it is.

use std::{
    cell::Cell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Wake, Waker, ready},
};

use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::{TrySendError, http1::SendRequest},
};
use pin_project_lite::pin_project;
use tokio::task::{Unconstrained, unconstrained};

use crate::body::{Body, Drive, Piece};

/// What a request that was sent comes to; with the request, if no byte of it was sent.
type Answered<A> = Result<A, TrySendError<http::Request<Body>>>;

/// hyper's connection, whose type has no name.
type Conn = Pin<Box<dyn Future<Output = hyper::Result<()>>>>;

/// A connection, and whose turn it is to poll it. See the module.
pub(super) struct Driven {
    /// `None`: it has ended, or is being polled.
    connection: Cell<Option<Conn>>,
    /// How it has ended, until its task has taken note of that.
    ended: Cell<Option<hyper::Result<()>>>,
    /// Whether its own task has something to do when it is its turn.
    is_due: Cell<bool>,
    wakes: Arc<Wakes>,
    /// The same, as hyper has it.
    waker: Waker,
}

/// Passes a wake on to whose turn it is.
#[derive(Debug, Default)]
struct Wakes(Mutex<Turns>);

#[derive(Debug, Default)]
struct Turns {
    /// Whether it is a request's turn.
    asked: bool,
    /// Whether the connection is polled just now: nobody needs to be woken then.
    polled: bool,
    /// Whether it was woken meanwhile.
    woken: bool,
    /// The request that waits. `None`: it has been woken.
    request: Option<Waker>,
    /// The connection's own task. `None`: it has not run yet.
    keeper: Option<Waker>,
}

impl Wakes {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is polled now, or about to be, in a request's turn or not.
    fn begin(&self, asked: bool) {
        let mut turns = self.turns();
        (turns.asked, turns.polled, turns.woken) = (asked, true, false);
    }

    /// It is polled no longer; `request` is woken when there is more to do.
    fn wait(&self, request: &Waker) {
        let mut turns = self.turns();
        turns.polled = false;
        if turns.woken {
            turns.request = None;
            drop(turns);
            request.wake_by_ref();
        } else {
            turns.request = Some(request.clone());
        }
    }

    /// It is polled no longer, and nobody waits for it in this turn until it is polled again.
    fn pause(&self) {
        self.turns().polled = false;
    }

    /// It is polled no longer, and the turn is its own task's, which is woken when there is more to do: now, if that `is_due`.
    ///
    /// That it was woken since it was polled last does not count. Between that and this, a turn that ends with nothing due
    /// reads what has arrived, and does not wait: all that can wake the connection meanwhile is hyper's own channel, which
    /// has room again for an answer that is whole already. What comes from outside finds whose turn it is, as the sockets of
    /// a worker are polled by its one thread. To go on for such a wake would be a wake of the task for every answer.
    fn hand_over(&self, is_due: bool) {
        let mut turns = self.turns();
        (turns.asked, turns.polled) = (false, false);
        let request = turns.request.take();
        let keeper = if is_due { turns.keeper.clone() } else { None };
        drop(turns);
        drop(request);
        if let Some(keeper) = keeper {
            keeper.wake();
        }
    }

    /// The connection's own task is `keeper`. Whether it is its turn.
    fn keep(&self, keeper: &Waker) -> bool {
        let mut turns = self.turns();
        if !turns.keeper.as_ref().is_some_and(|known| known.will_wake(keeper)) {
            turns.keeper = Some(keeper.clone());
        }
        !turns.asked
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut turns = self.turns();
        let task = if turns.polled {
            turns.woken = true;
            None
        } else if turns.asked {
            turns.request.take()
        } else {
            turns.keeper.clone()
        };
        drop(turns);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven").field("wakes", &self.wakes).finish_non_exhaustive()
    }
}

impl Driven {
    /// `connection`, and what its own task has to do.
    pub(super) fn new(connection: impl Future<Output = hyper::Result<()>> + 'static) -> (Rc<Self>, Keeping) {
        let wakes = Arc::<Wakes>::default();
        let driven = Rc::new(Self {
            connection: Cell::new(Some(Box::pin(connection))),
            ended: Cell::new(None),
            is_due: Cell::new(false),
            waker: Waker::from(Arc::clone(&wakes)),
            wakes,
        });
        (Rc::clone(&driven), Keeping(driven))
    }

    /// Sends a request by `sender`, which is this connection's, and waits for its answer.
    pub(super) fn ask<'a>(
        self: &'a Rc<Self>,
        sender: &'a mut SendRequest<Body>,
        request: http::Request<Body>,
    ) -> impl Future<Output = Answered<Box<http::Response<Body>>>> + use<'a> {
        self.wakes.begin(true);
        let turn = Turn { driven: self, came: Came::Asked };
        let is_whole = request.body().is_end_stream();
        // Nobody would wake it when the runtime has made it wait for its budget: only the connection brings what it waits for.
        let answer = unconstrained(sender.try_send_request(request));
        Asking { turn, sender, is_whole, answer }
    }

    /// Has the connection do what it can do, between [`Wakes::begin`] and the end of that. `false`: there is none any more.
    fn advance(&self) -> bool {
        self.is_due.set(true);
        let Some(mut connection) = self.connection.take() else { return false };
        match connection.as_mut().poll(&mut Context::from_waker(&self.waker)) {
            Poll::Pending => {
                self.connection.set(Some(connection));
                self.is_due.set(self.wakes.turns().woken);
            }
            Poll::Ready(ended) => {
                // First, so that whoever waits for something from it hears that nothing comes.
                drop(connection);
                self.ended.set(Some(ended));
            }
        }
        true
    }
}

impl Drive for Driven {
    fn poll(
        &self,
        cx: &mut Context<'_>,
        read: &mut dyn FnMut(&mut Context<'_>) -> Poll<Option<Piece>>,
    ) -> Poll<Option<Piece>> {
        self.wakes.begin(true);
        let mut nobody = Context::from_waker(Waker::noop());
        let mut polled = read(&mut nobody);
        if polled.is_pending() {
            self.advance();
            polled = read(&mut nobody);
        }
        match polled {
            Poll::Pending => self.wakes.wait(cx.waker()),
            Poll::Ready(_) => self.wakes.pause(),
        }
        polled
    }

    fn leave(&self, whole: bool) {
        self.wakes.hand_over(!whole || self.is_due.get());
    }
}

/// A request's turn, until it is dropped.
struct Turn<'a> {
    driven: &'a Rc<Driven>,
    came: Came,
}

/// How far a request has come.
#[derive(Clone, Copy)]
enum Came {
    /// It has no answer. If it is given up so, the connection's own task ends that.
    Asked,
    /// It has one; what may still be to do is for the connection's own task.
    Answered,
    /// It has one, and its turn goes on with the answer's body.
    Reading,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        match self.came {
            Came::Asked => self.driven.wakes.hand_over(true),
            Came::Answered => self.driven.wakes.hand_over(self.driven.is_due.get()),
            Came::Reading => self.driven.wakes.pause(),
        }
    }
}

pin_project! {
    /// See [`Driven::ask`].
    struct Asking<'a, F> {
        turn: Turn<'a>,
        sender: &'a SendRequest<Body>,
        // Whether the request has no body, of which something could still have to be sent.
        is_whole: bool,
        #[pin]
        answer: Unconstrained<F>,
    }
}

impl<F: Future<Output = Answered<http::Response<Incoming>>>> Future for Asking<'_, F> {
    type Output = Answered<Box<http::Response<Body>>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let driven = this.turn.driven;
        driven.wakes.begin(true);
        driven.advance();
        let answered = this.answer.poll(&mut Context::from_waker(Waker::noop()));
        if answered.is_pending() {
            driven.wakes.wait(cx.waker());
        }
        let answer = ready!(answered);
        // hyper takes another request only when all of the answer has arrived, and all of the request was sent.
        let is_over = this.sender.is_ready() && !driven.is_due.get();
        let turn = this.turn;
        turn.came = Came::Answered;
        let body = |body: Incoming| {
            if is_over {
                Body::arrived(body)
            } else if *this.is_whole && !driven.is_due.get() && !body.is_end_stream() {
                turn.came = Came::Reading;
                Body::read(body, Rc::<Driven>::clone(driven))
            } else {
                Body::arriving(body, None, None)
            }
        };
        Poll::Ready(answer.map(|answer| Box::new(answer.map(body))))
    }
}

/// What a connection's own task does: drives it when no request does. Completes when the connection has ended; dropped, it ends
/// it.
#[derive(Debug)]
pub(super) struct Keeping(Rc<Driven>);

impl Future for Keeping {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let driven = &*self.0;
        if driven.wakes.keep(cx.waker()) {
            driven.wakes.begin(false);
            let is_there = driven.advance();
            driven.wakes.hand_over(driven.is_due.get());
            if !is_there {
                // It ended in a request's turn; or that has panicked, and nobody can say how it ended.
                return Poll::Ready(driven.ended.take().unwrap_or(Ok(())));
            }
        }
        driven.ended.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        drop(self.0.connection.take());
        // A request that waits finds that its connection has ended.
        let request = self.0.wakes.turns().request.take();
        if let Some(request) = request {
            request.wake();
        }
    }
}

#[cfg(test)]
mod tests;
