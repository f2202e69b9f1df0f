//! An HTTP/2 connection that is read only as long as there is room for what arrives.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    Action, Ledger, PATIENCE, SHARE,
    calm::Calm,
    frames::{
        CONTINUATION, DATA, END_HEADERS, Frame, Frames, HEADERS, RST_STREAM, Seen, WINDOW_UPDATE, goaway,
    },
    unfinished::room_of_head,
};
use crate::io::passes_on;

/// How often a connection that is not read from checks whether it may be read again. A timer, and only while the budget
/// is exhausted: it would be hard for other threads to wake it.
const LOOK: Duration = Duration::from_millis(50);

/// How many streams are remembered that were given up last: data for them may still be on its way.
const GIVEN_UP: usize = 16;

/// Which side of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We accepted it.
    Server,
    /// We opened it.
    Client,
}

/// See the module.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    ledger: Rc<Ledger>,
    side: Side,
    /// The other side.
    peer: SocketAddr,
    arriving: Frames,
    leaving: Leaving,
    calm: Calm,
    unfinished: Unfinished,
    pause: Option<Box<Pause>>,
}

/// The frame or head that has not ended. A head may have several frames.
#[derive(Debug, Default)]
struct Unfinished {
    bytes: u64,
    is_head: bool,
    /// Whether its end is the frame's.
    ends: bool,
}

impl Unfinished {
    fn begins(&mut self, frame: Frame) {
        if self.ends || frame.kind != CONTINUATION {
            self.bytes = 0;
        }
        self.is_head = matches!(frame.kind, HEADERS | CONTINUATION);
        self.ends = !self.is_head || frame.flags & END_HEADERS != 0;
    }

    /// `between`: no frame has begun that has not ended.
    fn account(&mut self, between: bool, ledger: &Rc<Ledger>) {
        if between && self.ends {
            self.bytes = 0;
        }
        let room = if self.is_head { room_of_head(self.bytes) } else { self.bytes };
        ledger.unfinished(self.bytes, room);
    }
}

/// What is sent, as far as it matters for what arrives.
#[derive(Debug)]
struct Leaving {
    frames: Frames,
    /// The streams that were reset last, and the place of the oldest.
    given_up: [u32; GIVEN_UP],
    oldest: usize,
    /// A window update's payload so far.
    increment: u32,
    seen: usize,
}

/// A time in which the connection is not read from.
#[derive(Debug)]
struct Pause {
    look: Pin<Box<Sleep>>,
    /// How much it held when that last became less, and when that was.
    held: u64,
    since: Instant,
}

impl<S> Guarded<S> {
    /// A connection with `peer`, whose bytes are accounted for in `ledger`.
    pub fn new(inner: S, ledger: Rc<Ledger>, side: Side, peer: SocketAddr) -> Self {
        let (arriving, leaving) = match side {
            Side::Server => (Frames::of_client(), Frames::of_server()),
            Side::Client => (Frames::of_server(), Frames::of_client()),
        };
        let leaving = Leaving { frames: leaving, given_up: [0; GIVEN_UP], oldest: 0, increment: 0, seen: 0 };
        let calm = Calm::new(Instant::now().into_std());
        let unfinished = Unfinished::default();
        Self { inner, ledger, side, peer, arriving, leaving, calm, unfinished, pause: None }
    }

    fn has_room(&self) -> bool {
        !self.ledger.budget().is_exhausted() || self.ledger.held() < SHARE
    }

    /// Ready when it may be read from.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.has_room() {
                self.pause = None;
                return Poll::Ready(Ok(()));
            }
            let held = self.ledger.held();
            let pause = self.pause.get_or_insert_with(|| {
                let (look, since) = (Box::pin(tokio::time::sleep(LOOK)), Instant::now());
                Box::new(Pause { look, held, since })
            });
            if held < pause.held {
                (pause.held, pause.since) = (held, Instant::now());
            }
            if pause.since.elapsed() >= PATIENCE {
                self.ledger.budget().acted(Action::ClosedConnection);
                // Without this, a step that does not read the body would not notice that it has broken off.
                self.ledger.let_go();
                let what = format!("it held {held} unread bytes while --buffer-budget was exhausted");
                return Poll::Ready(Err(io::Error::other(what)));
            }
            ready!(pause.look.as_mut().poll(cx));
            pause.look.as_mut().reset(Instant::now() + LOOK);
        }
    }

    /// Accounts for `bytes` that have come. Returns the frame that is one too many, if there is one.
    fn arrived(&mut self, bytes: &[u8]) -> Option<Frame> {
        let Self { arriving, ledger, leaving, calm, unfinished, .. } = self;
        let mut too_many = None;
        arriving.pass(bytes, |frame, seen| match (seen, frame.kind) {
            (Seen::Head, _) => {
                unfinished.begins(frame);
                if !calm.arrived(frame, || Instant::now().into_std()) {
                    too_many = Some(frame);
                }
            }
            (Seen::Piece(piece), DATA) => {
                ledger.received(piece.len(), leaving.given_up.contains(&frame.stream));
            }
            (Seen::Piece(piece), _) => unfinished.bytes += piece.len() as u64,
        });
        unfinished.account(arriving.is_between(), ledger);
        too_many
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Ends a connection that floods us; `frame` is one too many. Sends GOAWAY if that is possible at once.
    fn end(&mut self, cx: &mut Context<'_>, frame: Frame) -> io::Error {
        let Self { peer, side, .. } = *self;
        self.ledger.budget().flooded(side);
        self.ledger.flooded();
        tracing::info!(%peer, ?side, kind = frame.kind, "ended an HTTP/2 connection that sends too many frames without content");
        if self.leaving.frames.is_between() {
            let highest = if side == Side::Server { self.calm.highest() } else { 0 };
            let goaway = goaway(highest);
            // A peer that reads nothing cannot be told.
            let mut inner = Pin::new(&mut self.inner);
            if let Poll::Ready(Ok(_)) = inner.as_mut().poll_write(cx, &goaway) {
                let _ = inner.poll_flush(cx);
            }
        }
        io::Error::other("it sent too many frames without content")
    }
}

impl Leaving {
    fn pass(&mut self, bytes: &[u8], ledger: &Ledger, calm: &mut Calm) {
        let Self { frames, given_up, oldest, increment, seen } = self;
        frames.pass(bytes, |frame, part| match (part, frame.kind) {
            (Seen::Head, RST_STREAM) if !given_up.contains(&frame.stream) => {
                given_up[*oldest] = frame.stream;
                *oldest = (*oldest + 1) % GIVEN_UP;
            }
            (Seen::Head, _) => calm.sent(frame),
            (Seen::Piece(piece), WINDOW_UPDATE) if frame.stream == 0 => {
                for byte in piece {
                    *increment = *increment << 8 | u32::from(*byte);
                    *seen += 1;
                }
                if *seen == size_of::<u32>() {
                    ledger.returned(*increment & !(1 << 31));
                    (*increment, *seen) = (0, 0);
                }
            }
            _ => {}
        });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ledger.is_cut(cx.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(this.poll_room(cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        match this.arrived(&buf.filled()[before..]) {
            None => Poll::Ready(Ok(())),
            Some(frame) => Poll::Ready(Err(this.end(cx, frame))),
        }
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        self.ledger.close();
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    passes_on!(poll_flush, poll_shutdown, is_write_vectored);

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.leaving.pass(&buf[..written], &this.ledger, &mut this.calm);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            this.leaving.pass(&buf[..part], &this.ledger, &mut this.calm);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }
}

#[cfg(test)]
mod tests;
