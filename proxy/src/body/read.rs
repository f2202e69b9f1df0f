//! An answer's body over HTTP/1.1 that is read by driving its connection, so that no other task is woken for it. Its end is found
//! with its last bytes, and both are passed on together.

use std::{
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// How many bytes are read in one go, or a piece more. What is passed on waits in memory until the go is over.
const GO: usize = 16 << 10;

/// A connection that whoever reads from it drives.
pub trait Drive: fmt::Debug {
    /// Polls `read`, and the connection if there is nothing yet. The task of `cx` is woken when it can go on.
    fn poll(
        &self,
        cx: &mut Context<'_>,
        read: &mut dyn FnMut(&mut Context<'_>) -> Poll<Option<Piece>>,
    ) -> Poll<Option<Piece>>;

    /// Nothing more is read. `whole`: because that was all.
    fn leave(&self, whole: bool);
}

/// A piece of a body.
pub type Piece = hyper::Result<Frame<Bytes>>;

/// See the module.
#[derive(Debug)]
pub struct Read {
    body: Incoming,
    /// `None`: it has ended.
    connection: Option<Rc<dyn Drive>>,
    /// How many bytes this go has brought.
    brought: usize,
}

impl Read {
    /// `body`, which arrives on `connection`.
    pub fn new(body: Incoming, connection: Rc<dyn Drive>) -> Self {
        Self { body, connection: Some(connection), brought: 0 }
    }

    /// The next piece.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let Some(connection) = &self.connection else { return Poll::Ready(None) };
        if self.brought >= GO {
            self.brought = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let body = &mut self.body;
        let polled = connection.poll(cx, &mut |cx| Pin::new(&mut *body).poll_frame(cx));
        match &polled {
            Poll::Pending => self.brought = 0,
            Poll::Ready(Some(Ok(frame))) => {
                self.brought += frame.data_ref().map_or(0, Bytes::len);
                if self.body.is_end_stream() {
                    self.leave(true);
                }
            }
            Poll::Ready(Some(Err(_))) => self.leave(false),
            Poll::Ready(None) => self.leave(true),
        }
        polled
    }

    /// As [`Body::is_end_stream`].
    pub fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// As [`Body::size_hint`].
    pub fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn leave(&mut self, whole: bool) {
        if let Some(connection) = self.connection.take() {
            connection.leave(whole);
        }
    }
}

impl Drop for Read {
    fn drop(&mut self) {
        self.leave(false);
    }
}
