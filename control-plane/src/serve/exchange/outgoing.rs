//! What is said on one stream.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;
use selvedge_api::encoded::Transaction;
use tokio::time::Instant;
use tonic::Status;

/// How it went with what waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::serve) enum Passed {
    /// Nothing waits any more.
    All,
    /// The client does not want it.
    Gone,
}

/// What is sent on one stream, and what waits for its client to take more.
pub(in crate::serve) struct Outgoing {
    stream: SendStream<Bytes>,
    waiting: VecDeque<Bytes>,
    /// Since when nothing of what waits was taken.
    stalled: Option<Instant>,
}

impl Outgoing {
    pub(super) fn new(stream: SendStream<Bytes>) -> Self {
        Self { stream, waiting: VecDeque::new(), stalled: None }
    }

    /// Sends `transaction`, or what there is room for, and the rest as there is more: in [`Self::passes`] and [`Self::end`].
    pub(in crate::serve) fn send(&mut self, transaction: Transaction) {
        for frame in transaction.into_frames() {
            if self.waiting.is_empty() && has_room(&mut self.stream) {
                // It fails only if the client has gone, of which its messages tell.
                drop(self.stream.send_data(frame, false));
            } else {
                self.stalled.get_or_insert_with(Instant::now);
                self.waiting.push_back(frame);
            }
        }
    }

    /// Since when the client has taken nothing of what waits for it; `None`: nothing waits.
    pub(in crate::serve) fn stalled(&self) -> Option<Instant> {
        self.stalled
    }

    /// Sends what waits, and returns when that is done, or when the client does not want the stream any more. Cancel-safe.
    pub(in crate::serve) async fn passes(&mut self) -> Passed {
        poll_fn(|context| {
            if !self.waiting.is_empty() {
                match self.poll_waiting(context) {
                    Poll::Ready(Ok(())) => return Poll::Ready(Passed::All),
                    Poll::Ready(Err(Gone)) => return Poll::Ready(Passed::Gone),
                    Poll::Pending => {}
                }
            }
            self.stream.poll_reset(context).map(|_| Passed::Gone)
        })
        .await
    }

    /// Ends the stream with `status`, after what waits.
    pub(in crate::serve) async fn end(mut self, status: Status) {
        let is_sent = poll_fn(|context| self.poll_waiting(context)).await.is_ok();
        let mut trailers = HeaderMap::new();
        if is_sent && status.add_header(&mut trailers).is_ok() {
            // It fails only if the client has gone.
            drop(self.stream.send_trailers(trailers));
        }
    }

    fn poll_waiting(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        while !self.waiting.is_empty() {
            ready!(poll_room(&mut self.stream, context))?;
            if let Some(frame) = self.waiting.pop_front() {
                self.stream.send_data(frame, false).map_err(|_| Gone)?;
                self.stalled = Some(Instant::now());
            }
        }
        if self.stalled.take().is_some() {
            // What much took is given back.
            self.waiting = VecDeque::new();
        }
        Poll::Ready(Ok(()))
    }
}

/// The client takes nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gone;

/// Whether `stream` takes one more frame, however long: then it has no other.
fn has_room(stream: &mut SendStream<Bytes>) -> bool {
    // No more than a byte: all that is asked for is kept from the other streams of the connection meanwhile.
    stream.reserve_capacity(1);
    stream.capacity() > 0
}

/// Ready when `stream` takes one more frame.
pub(super) fn poll_room(stream: &mut SendStream<Bytes>, context: &mut Context<'_>) -> Poll<Result<(), Gone>> {
    while !has_room(stream) {
        match ready!(stream.poll_capacity(context)) {
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
        }
    }
    Poll::Ready(Ok(()))
}
