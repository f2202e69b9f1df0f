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

/// See the module.
#[derive(Debug)]
pub struct Arriving {
    body: Incoming,
    /// `None`: it comes by HTTP/1, which holds nothing.
    ledger: Option<Rc<Ledger>>,
}

impl Arriving {
    /// A body that is not read from yet.
    pub fn new(body: Incoming, ledger: Option<&Rc<Ledger>>) -> Self {
        if let Some(ledger) = ledger {
            ledger.body_begins();
        }
        Self { body, ledger: ledger.cloned() }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let (Some(ledger), Some(Ok(frame))) = (&self.ledger, &frame)
            && let Some(data) = frame.data_ref()
        {
            ledger.taken(data.len());
        }
        Poll::Ready(frame)
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
        let mut cx = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut *self).poll_frame(&mut cx) {}
        if let Some(ledger) = &self.ledger {
            ledger.body_ends();
        }
    }
}
