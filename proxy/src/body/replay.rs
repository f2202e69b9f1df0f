//! A request body that can be sent again.
//!
//! The body stays in one place, [`Original`]'s; each attempt reads it through a [`Replay`], which first
//! gives what earlier attempts have read and then goes on with the rest, keeping up to [`REPLAY_LIMIT`]
//! bytes of it. So nothing has to be handed back when an attempt ends half way: hyper may still hold the
//! body of an attempt that was given up, and then that body gives an error, because the frames now belong
//! to its successor.
//!
//! Costs nothing for a request without a body, and one allocation for one with a body. For one thread:
//! a connection lives and dies on its worker.

use std::{
    cell::RefCell,
    fmt,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::budget::{Action, Budget};

/// Bytes of a body that are kept. A longer body is sent once.
pub const REPLAY_LIMIT: usize = 64 * 1024;

/// The most frames of a body that are kept. Each frame holds the whole buffer that it was read into, so a body of very
/// many tiny frames could hold far more than [`REPLAY_LIMIT`].
const FRAME_LIMIT: usize = 1024;

/// Why a body could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError<E> {
    /// The original body failed: its client is gone, most likely.
    #[error(transparent)]
    Original(E),
    /// Another attempt reads the body now. This one need not be read any further.
    #[error("another attempt already sends the request body")]
    TakenOver,
}

/// A request's body as it arrives, from which each attempt gets one [`Replay`].
///
/// Dropping it says that there will be no further attempt: from then on nothing more is kept.
pub struct Original<B> {
    /// `None`: there is no body.
    shared: Option<Rc<RefCell<Shared<B>>>>,
}

/// The body of one attempt.
pub struct Replay<B> {
    shared: Option<Rc<RefCell<Shared<B>>>>,
    attempt: u32,
}

struct Shared<B> {
    body: B,
    /// The attempt that may read; 0 = none yet.
    attempt: u32,
    keeping: Keeping,
    /// What `kept_bytes` are drawn on, as long as they are kept.
    budget: Arc<Budget>,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    trailers: Option<HeaderMap>,
    /// What the current attempt gives next.
    next: Next,
    /// The body has been read to its end.
    ended: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keeping {
    /// Everything that was read is kept.
    All,
    /// No more: too long to keep, failed, or there will be no further attempt.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The kept frame with this index; the body's own next frame once they are all given.
    Frame(usize),
    /// Nothing: the trailers have been given.
    End,
}

impl<B: Body<Data = Bytes> + Unpin> Original<B> {
    /// A body that has not been read, and what is kept of it draws on `budget`.
    pub fn new(body: B, budget: &Arc<Budget>) -> Self {
        if body.is_end_stream() {
            return Self { shared: None };
        }
        Self { shared: Some(Rc::new(RefCell::new(Shared::new(body, Arc::clone(budget))))) }
    }

    /// The body for the next attempt, from its first byte; the attempt before can read no more.
    ///
    /// `None`: it cannot be sent again ([`Self::can_replay`]).
    pub fn attempt(&self) -> Option<Replay<B>> {
        let Some(shared) = &self.shared else { return Some(Replay { shared: None, attempt: 1 }) };
        let mut state = shared.borrow_mut();
        if !state.can_replay() {
            return None;
        }
        state.attempt += 1;
        state.next = Next::Frame(0);
        Some(Replay { shared: Some(Rc::clone(shared)), attempt: state.attempt })
    }

    /// Whether another attempt could send the same bytes: they were not too many, and the body has not failed.
    pub fn can_replay(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.borrow().can_replay())
    }
}

impl<B> Drop for Original<B> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            shared.borrow_mut().stop_keeping();
        }
    }
}

impl<B> Drop for Shared<B> {
    fn drop(&mut self) {
        self.budget.remove(self.kept_bytes as u64);
    }
}

impl<B> Shared<B> {
    fn new(body: B, budget: Arc<Budget>) -> Self {
        Self {
            body,
            attempt: 0,
            keeping: Keeping::All,
            budget,
            kept: Vec::new(),
            kept_bytes: 0,
            trailers: None,
            next: Next::Frame(0),
            ended: false,
        }
    }

    fn can_replay(&self) -> bool {
        self.keeping == Keeping::All
    }

    /// The next kept frame of the current attempt.
    fn next_kept(&mut self) -> Option<Frame<Bytes>> {
        let Next::Frame(index) = self.next else { return None };
        if let Some(data) = self.kept.get_mut(index) {
            let data = if self.keeping == Keeping::All { data.clone() } else { std::mem::take(data) };
            self.next = Next::Frame(index + 1);
            return Some(Frame::data(data));
        }
        let trailers =
            if self.keeping == Keeping::All { self.trailers.clone() } else { self.trailers.take() }?;
        self.next = Next::End;
        Some(Frame::trailers(trailers))
    }

    /// Keeps a frame that the current attempt has just read.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.keeping == Keeping::Nothing {
            return;
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.trailers = Some(trailers.clone());
            self.next = Next::End;
        } else if let Some(data) = frame.data_ref().filter(|data| !data.is_empty()) {
            self.kept_bytes += data.len();
            self.budget.add(data.len() as u64);
            if self.budget.is_exhausted() {
                self.budget.acted(Action::ForgottenBody);
                self.stop_keeping();
            } else if self.kept_bytes > REPLAY_LIMIT || self.kept.len() == FRAME_LIMIT {
                self.stop_keeping();
            } else {
                self.kept.push(data.clone());
                self.next = Next::Frame(self.kept.len());
            }
        }
    }

    /// Forgets what has been kept, except what the current attempt has yet to give.
    fn stop_keeping(&mut self) {
        self.keeping = Keeping::Nothing;
        self.budget.remove(std::mem::take(&mut self.kept_bytes) as u64);
        match self.next {
            Next::Frame(index) if index < self.kept.len() => {
                self.kept.drain(..index);
                self.next = Next::Frame(0);
            }
            Next::Frame(_) => {
                self.kept = Vec::new();
                self.next = Next::Frame(0);
            }
            Next::End => {
                self.kept = Vec::new();
                self.trailers = None;
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Shared<B> {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        if let Some(frame) = self.next_kept() {
            return Poll::Ready(Some(Ok(frame)));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.ended = frame.is_trailers();
                self.keep(&frame);
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                self.ended = true;
                self.stop_keeping();
                Some(Err(error))
            }
            None => {
                self.ended = true;
                None
            }
        })
    }

    /// Bytes that the current attempt has yet to give of those kept.
    fn unread(&self) -> &[Bytes] {
        match self.next {
            Next::Frame(index) => self.kept.get(index..).unwrap_or_default(),
            Next::End => &[],
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next == Next::End
            || self.unread().is_empty()
                && self.trailers.is_none()
                && (self.ended || self.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let unread = SizeHint::with_exact(self.unread().iter().map(|data| data.len() as u64).sum());
        if self.ended { unread } else { unread + self.body.size_hint() }
    }
}

impl<B> Replay<B> {
    /// What `look` finds in the body itself; `None`: there is none.
    pub fn look<T>(&self, look: impl FnOnce(&mut B) -> T) -> Option<T> {
        self.shared.as_ref().map(|shared| look(&mut shared.borrow_mut().body))
    }

    /// Whether this attempt is the one that may read.
    fn is_current(&self, shared: &Shared<B>) -> bool {
        shared.attempt == self.attempt
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Replay<B> {
    type Data = Bytes;
    type Error = ReplayError<B::Error>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(shared) = &self.shared else { return Poll::Ready(None) };
        let mut shared = shared.borrow_mut();
        if !self.is_current(&shared) {
            return Poll::Ready(Some(Err(ReplayError::TakenOver)));
        }
        shared.poll_frame(cx).map_err(ReplayError::Original)
    }

    fn is_end_stream(&self) -> bool {
        let Some(shared) = &self.shared else { return true };
        let shared = shared.borrow();
        self.is_current(&shared) && shared.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let Some(shared) = &self.shared else { return SizeHint::with_exact(0) };
        let shared = shared.borrow();
        if self.is_current(&shared) { shared.size_hint() } else { SizeHint::default() }
    }
}

// By hand: what people send does not belong in logs.
impl<B> fmt::Debug for Original<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Original").field("body", &self.shared.is_some()).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for Replay<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("attempt", &self.attempt)
            .field("body", &self.shared.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
