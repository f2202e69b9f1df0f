//! A body that arrives on a connection, and what it takes from there.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Ledger;
use crate::serve::Pace;

/// See the module.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    /// `None`: it comes by HTTP/1, which holds nothing.
    ledger: Option<Rc<Ledger>>,
    /// How slowly it may come; `None`: as slowly as it does.
    pace: Option<Rc<Pace>>,
}

/// Why a body does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Interrupted {
    /// Its connection or its stream has ended, or it is not as HTTP requires.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
    /// It did not come fast enough.
    #[error("the request's body came too slowly")]
    Slow,
}

impl Arriving {
    /// A body that is not read from yet.
    pub fn new(body: Incoming, ledger: Option<&Rc<Ledger>>, pace: Option<Rc<Pace>>) -> Self {
        if let Some(ledger) = ledger {
            ledger.body_begins();
        }
        Self { body, ledger: ledger.cloned(), pace }
    }

    /// The pace that it has to keep.
    pub fn pace(&self) -> Option<&Rc<Pace>> {
        self.pace.as_ref()
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
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
            if let Some(ledger) = &self.ledger {
                ledger.taken(data.len());
            }
            if let Some(pace) = &self.pace {
                pace.came(data.len());
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Interrupted::Broken)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if self.ledger.is_none() {
            return;
        }
        // What has arrived of a body that is given up goes with it: taken, so that the account is right.
        self.pace = None;
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut *self).poll_frame(&mut cx) {}
        if let Some(ledger) = &self.ledger {
            ledger.body_ends();
        }
    }
}
