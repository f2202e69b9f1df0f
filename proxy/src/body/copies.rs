//! Copies of a request's body, for those who get a copy of the request.
//!
//! Whatever passes of the original is given to each copy at once, and nothing ever waits for one: what a copy has not
//! taken yet is kept, up to [`COPY_LIMIT`], and one that is further behind is given up. So that one which only has had no
//! turn yet is not, the original goes on in pieces, and lets others have a turn before a piece for which a copy is half
//! the limit behind: once, and never again for a copy that is given up.
//!
//! A copy has bytes of its own. Those of the original are parts of larger buffers, which it would hold on to.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::{
    budget::{Budget, HeldBytes},
    telemetry::Dropped,
};

/// Bytes that a copy may be behind its original.
pub const COPY_LIMIT: usize = 64 * 1024;

/// Frames that a copy may be behind its original: each costs more than its bytes.
const FRAME_LIMIT: usize = 1024;

/// The most bytes of an original that pass at once while it has copies.
const PIECE: usize = COPY_LIMIT / 4;

/// The copies of one original, and what has been read of it and has not passed yet.
#[derive(Debug, Default)]
pub(super) struct Copies {
    copies: Vec<Rc<RefCell<Shared>>>,
    rest: Bytes,
    /// Whether others have had their turn before the next piece.
    has_waited: bool,
}

/// The body of one copy.
pub(super) struct Copied(Rc<RefCell<Shared>>);

/// Says how the original of a copy went on. When it is dropped, nobody waits for the copy any more, and it ends.
pub struct CopyWatch(Rc<RefCell<Shared>>);

/// How an original has ended, for one copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// All of it was read, or the copy takes no more.
    Whole,
    /// Nobody reads on, or it broke off.
    Broken,
    /// It goes on, but this copy does not.
    Dropped(Dropped),
}

/// Why a copy's body cannot be read to its end.
#[derive(Debug, thiserror::Error)]
#[error("the copy of the request has no more of its body")]
pub(super) struct NoMore;

struct Shared {
    frames: VecDeque<Part>,
    /// The bytes of `frames`.
    held: HeldBytes,
    /// How much of it is to come, if that is known, besides `frames`.
    left: Option<u64>,
    /// `None`: it goes on.
    ending: Option<Ending>,
    reader: Option<Waker>,
    watcher: Option<Waker>,
}

enum Part {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Copies {
    /// One more, of which nothing has passed yet; `length`: what the original says of its own.
    pub(super) fn add(&mut self, length: &SizeHint, budget: &Arc<Budget>) -> (Copied, CopyWatch) {
        let shared = Rc::new(RefCell::new(Shared {
            frames: VecDeque::new(),
            held: HeldBytes::new(budget),
            left: length.exact(),
            ending: None,
            reader: None,
            watcher: None,
        }));
        self.copies.push(Rc::clone(&shared));
        (Copied(Rc::clone(&shared)), CopyWatch(shared))
    }

    /// Whether there is nobody who gets any more, and nothing more to pass.
    #[cfg(test)]
    fn is_done(&self) -> bool {
        self.copies.is_empty() && self.rest.is_empty()
    }

    /// What has been read of the original and has not passed yet, in bytes.
    pub(super) fn rest(&self) -> usize {
        self.rest.len()
    }

    /// The next piece of what has been read already.
    pub(super) fn next_piece(&mut self) -> Option<Frame<Bytes>> {
        (!self.rest.is_empty()).then(|| {
            let rest = std::mem::take(&mut self.rest);
            self.pass(Frame::data(rest))
        })
    }

    /// Whether others should have a turn before more passes: some copy is far behind, and may only have had none.
    pub(super) fn should_wait(&mut self, cx: &Context<'_>) -> bool {
        let is_behind = |copy: &Rc<RefCell<Shared>>| copy.borrow().held.bytes() >= COPY_LIMIT / 2;
        self.has_waited = !self.has_waited && self.copies.iter().any(is_behind);
        if self.has_waited {
            cx.waker().wake_by_ref();
        }
        self.has_waited
    }

    /// Gives all copies what passes next of `frame`, and keeps the rest.
    pub(super) fn pass(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        let frame = match frame.into_data() {
            Ok(mut data) => {
                if data.len() > PIECE && !self.copies.is_empty() {
                    self.rest = data.split_off(PIECE);
                }
                Frame::data(data)
            }
            Err(trailers) => trailers,
        };
        self.copies.retain(|copy| Shared::take(copy, &frame));
        frame
    }

    /// Nothing more passes; `whole`: because that was all.
    pub(super) fn end(&mut self, whole: bool) {
        for copy in self.copies.drain(..) {
            // Who reads by the length need not look for an end behind it.
            let whole = whole || copy.borrow().left == Some(0);
            Shared::end(&copy, if whole { Ending::Whole } else { Ending::Broken });
        }
    }
}

impl Shared {
    /// Gives `copy` the next frame of its original; `false`: it takes no more.
    fn take(copy: &RefCell<Self>, frame: &Frame<Bytes>) -> bool {
        let dropped = {
            let mut copy = copy.borrow_mut();
            if copy.ending.is_some() {
                return false;
            }
            copy.keep(frame);
            copy.too_much()
        };
        match dropped {
            Some(dropped) => Self::end(copy, Ending::Dropped(dropped)),
            None => {
                let reader = copy.borrow_mut().reader.take();
                reader.into_iter().for_each(Waker::wake);
            }
        }
        dropped.is_none()
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            self.held.set(self.held.bytes() + data.len());
            self.frames.push_back(Part::Data(Bytes::copy_from_slice(data)));
        } else if let Some(trailers) = frame.trailers_ref() {
            self.frames.push_back(Part::Trailers(trailers.clone()));
        }
    }

    fn too_much(&self) -> Option<Dropped> {
        if self.held.bytes() > COPY_LIMIT || self.frames.len() > FRAME_LIMIT {
            return Some(Dropped::Behind);
        }
        self.held.budget().is_exhausted().then_some(Dropped::BufferBudget)
    }

    fn end(copy: &RefCell<Self>, ending: Ending) {
        let wakers = {
            let mut copy = copy.borrow_mut();
            copy.ending = Some(ending);
            if ending != Ending::Whole {
                copy.frames.clear();
                copy.held.set(0);
            }
            [copy.reader.take(), copy.watcher.take()]
        };
        // Not under the borrow: who is woken may look at once.
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    fn next(&mut self) -> Option<Frame<Bytes>> {
        Some(match self.frames.pop_front()? {
            Part::Data(data) => {
                self.held.set(self.held.bytes() - data.len());
                Frame::data(data)
            }
            Part::Trailers(trailers) => Frame::trailers(trailers),
        })
    }
}

impl CopyWatch {
    /// How the original has ended, when it has.
    pub async fn ended(&self) -> Ending {
        poll_fn(|cx| {
            let mut shared = self.0.borrow_mut();
            match shared.ending {
                Some(ending) => Poll::Ready(ending),
                None => {
                    shared.watcher = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for CopyWatch {
    fn drop(&mut self) {
        let goes_on = {
            let shared = self.0.borrow();
            shared.ending.is_none() || !shared.frames.is_empty()
        };
        if goes_on {
            Shared::end(&self.0, Ending::Broken);
        }
    }
}

impl Body for Copied {
    type Data = Bytes;
    type Error = NoMore;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, NoMore>>> {
        let mut shared = self.0.borrow_mut();
        if let Some(frame) = shared.next() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match shared.ending {
            Some(Ending::Whole) => Poll::Ready(None),
            Some(Ending::Broken | Ending::Dropped(_)) => Poll::Ready(Some(Err(NoMore))),
            None => {
                shared.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.0.borrow();
        shared.frames.is_empty() && shared.ending == Some(Ending::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        let shared = self.0.borrow();
        match shared.left {
            Some(left) => SizeHint::with_exact(left + shared.held.bytes() as u64),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let is_going = self.0.borrow().ending.is_none();
        if is_going {
            Shared::end(&self.0, Ending::Whole);
        }
        let mut shared = self.0.borrow_mut();
        shared.frames.clear();
        shared.held.set(0);
    }
}

// By hand: what people send does not belong in logs.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("ending", &self.ending).finish_non_exhaustive()
    }
}

impl fmt::Debug for Copied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Copied").field(&self.0.borrow()).finish()
    }
}

impl fmt::Debug for CopyWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CopyWatch").field(&self.0.borrow()).finish()
    }
}

#[cfg(test)]
mod tests;
