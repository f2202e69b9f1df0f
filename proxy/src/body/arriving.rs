//! A body that arrives on a connection, and what it takes from there.

use std::{
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::{
    Pace, Progress, Sending, SizeLimit,
    copies::{Copied, Copies, CopyWatch},
    read::Read,
};
use crate::{
    budget::{Budget, Ledger},
    telemetry::{Coming, Received},
};

/// See the module.
#[derive(Debug)]
pub struct Arriving {
    source: Source,
    /// How slowly it may come; `None`: as slowly as it does.
    pace: Option<Rc<Pace>>,
    /// Who has a part in what passes. Boxed: seldom anybody.
    followed: Option<Box<Followed>>,
}

/// Who has a part in what passes.
#[derive(Debug, Default)]
struct Followed {
    /// Where it is noted; `None`: nobody asks.
    progress: Option<Rc<Progress>>,
    /// Who gets a copy of it.
    copies: Copies,
    /// How long it may be; `None`: as long as it is.
    limit: Option<Rc<SizeLimit>>,
    /// Where it is counted; `None`: nobody asks.
    received: Option<Rc<Received>>,
}

/// Where it comes from.
#[derive(Debug)]
enum Source {
    /// HTTP/1, which holds nothing.
    Http1(Incoming),
    /// The same, where whoever reads it drives its connection. Boxed: it has more to hold.
    Read(Box<Read>),
    /// HTTP/2, whose connection's account has it at this place.
    Http2(Rc<Ledger>, usize),
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// Its connection or its stream has ended, or it is not as HTTP requires.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// Its connection was closed because it held too much that nobody took.
    #[error("its connection held too many bytes that nobody read")]
    LetGo,
    /// It did not come fast enough.
    #[error("the request's body arrived too slowly")]
    Slow,
    /// It is longer than it may be.
    #[error("the request's body is longer than it may be")]
    TooLong,
}

impl Arriving {
    /// A body that is not read from yet.
    pub fn new(body: Incoming, ledger: Option<&Rc<Ledger>>, pace: Option<Rc<Pace>>) -> Self {
        let source = match ledger {
            None => Source::Http1(body),
            Some(ledger) => Source::Http2(Rc::clone(ledger), ledger.keep(body)),
        };
        Self { source, pace, followed: None }
    }

    /// An answer's body that is not read from yet.
    pub fn read(body: Read) -> Self {
        Self { source: Source::Read(Box::new(body)), pace: None, followed: None }
    }

    /// Notes what passes in `progress`.
    pub fn note_in(&mut self, progress: &Rc<Progress>) {
        self.followed.get_or_insert_default().progress = Some(Rc::clone(progress));
    }

    /// Where the bytes are counted that come from now on.
    pub fn counted(&mut self) -> Rc<Received> {
        Rc::clone(self.followed.get_or_insert_default().received.get_or_insert_default())
    }

    /// What tells later how it goes on. Nearly every request's body is paced or counted, so that nothing is made for it.
    pub(super) fn sending(&mut self) -> Sending {
        match &self.pace {
            Some(pace) => Sending::Paced(Rc::clone(pace)),
            None => Sending::Counted(self.counted()),
        }
    }

    /// Lets no more than `most` bytes pass.
    pub fn limit(&mut self, most: u64) {
        self.followed.get_or_insert_default().limit = Some(Rc::new(SizeLimit::new(most)));
    }

    /// How long it may be.
    pub fn size_limit(&self) -> Option<Rc<SizeLimit>> {
        self.followed.as_ref()?.limit.clone()
    }

    /// A copy of what has not passed yet, which draws on `budget`.
    pub(super) fn copy(&mut self, budget: &Arc<Budget>) -> (Copied, CopyWatch) {
        let length = self.size_hint();
        self.followed.get_or_insert_default().copies.add(&length, budget)
    }

    /// The pace that it has to keep.
    pub fn pace(&self) -> Option<&Rc<Pace>> {
        self.pace.as_ref()
    }

    /// The next frame of its source.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let polled = match &mut self.source {
            Source::Http1(body) => Pin::new(body).poll_frame(cx),
            Source::Read(body) => body.poll_frame(cx),
            Source::Http2(ledger, place) => match ledger.with(*place, |body| Pin::new(body).poll_frame(cx)) {
                Some(polled) => polled,
                None => return Poll::Ready(Some(Err(Interrupted::LetGo))),
            },
        };
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let Some(pace) = &self.pace else { return Poll::Pending };
                ready!(pace.poll_wait(cx));
                return Poll::Ready(Some(Err(Interrupted::Slow)));
            }
        };
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            if let Source::Http2(ledger, _) = &self.source {
                ledger.taken(data.len());
            }
            if let Some(pace) = &self.pace {
                pace.came(data.len());
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Interrupted::Broken)))
    }

    /// The next frame, or a piece of it, in which all of `followed` have had their part.
    fn poll_followed(
        &mut self,
        followed: &mut Followed,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let Followed { progress, copies, limit, received } = followed;
        if copies.should_wait(cx) {
            return Poll::Pending;
        }
        let frame = match copies.next_piece() {
            Some(piece) => Some(Ok(piece)),
            None => ready!(self.poll_source(cx)).map(|frame| {
                let frame = frame?;
                let length = frame.data_ref().map_or(0, Bytes::len);
                if let Some(Received { bytes, .. }) = received.as_deref() {
                    bytes.set(bytes.get().saturating_add(length as u64));
                }
                if limit.as_ref().is_some_and(|limit| !limit.takes(length)) {
                    return Err(Interrupted::TooLong);
                }
                Ok(copies.pass(frame))
            }),
        };
        let goes_on = match &frame {
            Some(Ok(_)) => copies.rest() > 0 || !self.source_has_ended(),
            None | Some(Err(_)) => false,
        };
        if !goes_on {
            copies.end(!matches!(frame, Some(Err(_))));
        }
        match progress {
            Some(progress) if goes_on => progress.passed(),
            Some(progress) => progress.sent(),
            None => {}
        }
        Poll::Ready(frame)
    }

    /// Notes what `frame` says of how it goes on, where somebody may ask.
    fn note(&self, frame: Option<&Result<Frame<Bytes>, Interrupted>>) {
        let received = self.followed.as_ref().and_then(|followed| followed.received.as_ref());
        if self.pace.is_none() && received.is_none() {
            return;
        }
        let coming = match frame {
            Some(Err(_)) => Coming::Failed,
            Some(Ok(frame)) if !frame.is_trailers() && !self.is_end_stream() => return,
            Some(Ok(_)) | None => Coming::Whole,
        };
        self.pace.iter().for_each(|pace| pace.coming.set(coming));
        received.iter().for_each(|received| received.coming.set(coming));
    }

    fn source_has_ended(&self) -> bool {
        match &self.source {
            Source::Http1(body) => body.is_end_stream(),
            Source::Read(body) => body.is_end_stream(),
            Source::Http2(ledger, place) => ledger.with(*place, |body| body.is_end_stream()).unwrap_or(false),
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let polled = match self.followed.take() {
            None => self.poll_source(cx),
            Some(mut followed) => {
                let polled = self.poll_followed(&mut followed, cx);
                self.followed = Some(followed);
                polled
            }
        };
        if let Poll::Ready(frame) = &polled {
            self.note(frame.as_ref());
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.source_has_ended() && self.followed.as_ref().is_none_or(|followed| followed.copies.rest() == 0)
    }

    fn size_hint(&self) -> SizeHint {
        let to_come = match &self.source {
            Source::Http1(body) => body.size_hint(),
            Source::Read(body) => body.size_hint(),
            Source::Http2(ledger, place) => ledger.with(*place, |body| body.size_hint()).unwrap_or_default(),
        };
        match &self.followed {
            None => to_come,
            Some(followed) => to_come + SizeHint::with_exact(followed.copies.rest() as u64),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let whole = self.is_end_stream();
        if let Some(followed) = &mut self.followed {
            followed.copies.end(whole);
        }
        let Source::Http2(ledger, place) = &self.source else { return };
        // What has arrived of a body that is given up goes with it: taken, so that the account is right.
        let mut cx = Context::from_waker(Waker::noop());
        while let Some(Poll::Ready(Some(Ok(frame)))) =
            ledger.with(*place, |body| Pin::new(body).poll_frame(&mut cx))
        {
            ledger.taken(frame.data_ref().map_or(0, Bytes::len));
        }
        ledger.take(*place);
    }
}
