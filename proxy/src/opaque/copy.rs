//! The one copy loop: bytes both ways between two streams, until both have ended.
//!
//! Each direction is read in large pieces, and written at once from the same memory. What the other side does not take
//! is kept until it does, and nothing more is read meanwhile: a slow reader slows its writer down. The end of one
//! direction is passed on as an end (half-close), and the other direction goes on.
//!
//! A side that closes without having read everything resets what is still sent to it. What it said before must arrive
//! all the same: a database's reason for giving up, for instance. So when a stream cannot be written to any more, what
//! has come from it is passed on first.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    error::Reason,
    io::{BUFFER, Buffer, HEADER, Rest},
};

/// The most that is read at once: with the header of a frame, what TLS sends at once.
const PIECE: usize = BUFFER - HEADER;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's, which came first.
    Client,
    /// The one that was opened for it.
    Server,
}

impl Side {
    /// What it is called when this one breaks off.
    pub(crate) fn leaving(self) -> Reason {
        match self {
            Self::Client => Reason::Canceled,
            Self::Server => Reason::Reset,
        }
    }
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "other side",
        })
    }
}

/// One of the two broke.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Broken {
    /// Which.
    pub(crate) side: Side,
    /// How.
    #[source]
    pub(crate) error: io::Error,
}

/// How many bytes went one way.
#[derive(Debug, Default)]
pub(crate) struct Meter<'a> {
    total: Cell<u64>,
    /// What else they are counted in; no other thread writes there.
    also: Option<&'a AtomicU64>,
}

impl<'a> Meter<'a> {
    /// Counts in `also`, too.
    pub(crate) fn new(also: Option<&'a AtomicU64>) -> Self {
        Self { total: Cell::new(0), also }
    }

    /// How many so far.
    pub(crate) fn total(&self) -> u64 {
        self.total.get()
    }

    pub(super) fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.total.set(self.total.get().wrapping_add(bytes));
        if let Some(also) = self.also {
            also.store(also.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
    }
}

/// Copies from `client` to `server` and back until both have ended; `out` and `back` count what was written.
///
/// # Errors
/// [`Broken`] once one of them has broken and what it had said has been passed on. The other is then of no use either.
pub(crate) async fn copy<C, S>(
    client: &mut C,
    server: &mut S,
    out: &Meter<'_>,
    back: &Meter<'_>,
) -> Result<(), Broken>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut outward, mut backward) = (Way::default(), Way::default());
    std::future::poll_fn(|cx| {
        let (client_side, server_side) = (Side::Client, Side::Server);
        let out = outward
            .poll(cx, Pin::new(client), Pin::new(server), out, backward.broken.is_some())
            .map_err(|at| at.of(client_side, server_side))?;
        let back = backward
            .poll(cx, Pin::new(server), Pin::new(client), back, outward.broken.is_some())
            .map_err(|at| at.of(server_side, client_side))?;
        match (out.is_ready(), back.is_ready(), &mut outward.broken, &mut backward.broken) {
            (true, true, ..) => Poll::Ready(Ok(())),
            (_, true, Some(error), _) => {
                Poll::Ready(Err(At::Writing(take(error)).of(client_side, server_side)))
            }
            (true, _, _, Some(error)) => {
                Poll::Ready(Err(At::Writing(take(error)).of(server_side, client_side)))
            }
            _ => Poll::Pending,
        }
    })
    .await
}

/// Which end of one way broke.
enum At {
    Reading(io::Error),
    Writing(io::Error),
}

impl At {
    fn of(self, from: Side, to: Side) -> Broken {
        match self {
            Self::Reading(error) => Broken { side: from, error },
            Self::Writing(error) => Broken { side: to, error },
        }
    }
}

/// One way.
#[derive(Debug, Default)]
struct Way {
    stage: Stage,
    /// What was read and not taken.
    rest: Option<Rest>,
    /// Whether the writer may hold something back.
    unflushed: bool,
    /// Why the writer takes nothing any more.
    broken: Option<io::Error>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Stage {
    #[default]
    Flowing,
    /// The reader has ended, and the writer is being told.
    Ending,
    Ended,
}

impl Way {
    /// Carries this direction on. `is_last`: `from` cannot be written to any more, so its end is not passed on as an
    /// end.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        to: Pin<&mut W>,
        meter: &Meter<'_>,
        is_last: bool,
    ) -> Poll<Result<(), At>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        if self.broken.is_some() {
            return Poll::Pending;
        }
        match ready!(self.flow(cx, from, to, meter, is_last)) {
            Err(At::Writing(error)) if is_gone(&error) && !is_last => {
                self.rest = None;
                self.broken = Some(error);
                Poll::Pending
            }
            ended => Poll::Ready(ended),
        }
    }

    fn flow<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        meter: &Meter<'_>,
        is_last: bool,
    ) -> Poll<Result<(), At>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        loop {
            match self.stage {
                Stage::Flowing => {
                    ready!(self.pass_on_rest(cx, to.as_mut(), meter)).map_err(At::Writing)?;
                    let mut buffer = Buffer::take();
                    let mut into = ReadBuf::new(&mut buffer[..PIECE]);
                    match from.as_mut().poll_read(cx, &mut into) {
                        Poll::Ready(result) => result.map_err(At::Reading)?,
                        Poll::Pending => {
                            ready!(self.flush(cx, to.as_mut())).map_err(At::Writing)?;
                            return Poll::Pending;
                        }
                    }
                    match into.filled().len() {
                        0 => self.stage = Stage::Ending,
                        read => self.rest = Some(Rest::new(buffer, read)),
                    }
                }
                Stage::Ending if is_last => {
                    ready!(self.flush(cx, to.as_mut())).map_err(At::Writing)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx)).or_else(already_gone).map_err(At::Writing)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn pass_on_rest(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut impl AsyncWrite>,
        meter: &Meter<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.rest {
            let written = ready!(to.as_mut().poll_write(cx, rest.bytes()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            meter.add(written);
            self.unflushed = true;
            rest.advance(written);
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: Pin<&mut impl AsyncWrite>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(to.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a stream's other end takes nothing more; it may have said something before.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Takes an error that is not looked at again.
fn take(error: &mut io::Error) -> io::Error {
    std::mem::replace(error, io::ErrorKind::BrokenPipe.into())
}

/// A peer that has already closed need not be told that nothing more comes.
fn already_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests;
