//! The frames of one session: which has begun, what is still to be read and written of it, and how it ends.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes before a frame's own.
pub(crate) const HEADER: usize = 4;

/// The most bytes of one frame.
pub(super) const LONGEST: u32 = 1 << 20;

const END: u32 = 0;

pub(super) const OPEN: u32 = u32::MAX;

pub(super) const CLOSING: u32 = u32::MAX - 1;

/// Bytes that wait to be sent before a frame's: an opening, an answer in a frame of its own, and a header at most.
const AHEAD: usize = HEADER + HEADER + 2 + HEADER;

#[derive(Debug, Default)]
pub(super) struct Frames {
    ahead: Ahead,
    /// What is still to be written of the frame that has begun.
    to_write: u32,
    /// Whether an opening must go out, even if no byte of the session goes with it.
    pub(super) unflushed: bool,
    write_end: End,
    header: [u8; HEADER],
    header_read: usize,
    /// What is still to be read of the frame that has begun.
    to_read: u32,
    read_ended: bool,
    /// The other side takes no more sessions.
    pub(super) closing: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum End {
    #[default]
    Open,
    Said,
    Sent,
}

/// Bytes of our own that go out before any others.
#[derive(Debug, Default)]
struct Ahead {
    bytes: [u8; AHEAD],
    start: usize,
    end: usize,
}

impl Ahead {
    fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn push(&mut self, more: &[u8]) {
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
        self.bytes.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        self.bytes[self.end..self.end + more.len()].copy_from_slice(more);
        self.end += more.len();
    }

    fn sent(&mut self, length: usize) {
        self.start += length;
    }
}

impl Frames {
    /// Whether both sides have ended the session, and another may follow.
    pub(super) fn is_free(&self) -> bool {
        self.read_ended && self.write_end == End::Sent && !self.closing && self.ahead.is_empty()
    }

    /// Sends `bytes` before anything else.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.ahead.push(bytes);
    }

    /// Begins another session.
    pub(super) fn again(&mut self) {
        (self.read_ended, self.write_end) = (false, End::Open);
    }

    /// The next frame's length, or `None` at the stream's end.
    pub(super) fn poll_header<S: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<Option<u32>>> {
        while self.header_read < HEADER {
            let mut into = ReadBuf::new(&mut self.header[self.header_read..]);
            ready!(inner.as_mut().poll_read(cx, &mut into))?;
            match into.filled().len() {
                0 if self.header_read == 0 => return Poll::Ready(Ok(None)),
                0 => return Poll::Ready(Err(broken_off())),
                read => self.header_read += read,
            }
        }
        self.header_read = 0;
        Poll::Ready(Ok(Some(u32::from_be_bytes(self.header))))
    }

    /// Reads bytes of the session.
    pub(super) fn poll_read<S: AsyncRead>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.read_ended && self.to_read == 0 {
            match ready!(self.poll_header(cx, inner.as_mut()))? {
                None => return Poll::Ready(Err(broken_off())),
                Some(END) => self.read_ended = true,
                Some(CLOSING) => self.closing = true,
                Some(length) if length <= LONGEST => self.to_read = length,
                Some(length) => return Poll::Ready(Err(not_ours(length))),
            }
        }
        if self.read_ended {
            return Poll::Ready(Ok(()));
        }
        let room = buf.remaining().min(self.to_read as usize);
        let mut into = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(inner.poll_read(cx, &mut into))?;
        let read = into.filled().len();
        if read == 0 && room > 0 {
            return Poll::Ready(Err(broken_off()));
        }
        buf.advance(read);
        self.to_read -= u32::try_from(read).unwrap_or(self.to_read);
        Poll::Ready(Ok(()))
    }

    /// Sends what goes ahead of everything else.
    fn poll_ahead<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        while !self.ahead.is_empty() {
            let sent = ready!(inner.as_mut().poll_write(cx, self.ahead.bytes()))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.ahead.sent(sent);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes bytes of the session.
    pub(super) fn poll_write<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.to_write == 0 {
            self.to_write = u32::try_from(buf.len()).map_or(LONGEST, |length| length.min(LONGEST));
            self.ahead.push(&self.to_write.to_be_bytes());
        }
        let payload = &buf[..buf.len().min(self.to_write as usize)];
        loop {
            let ahead = self.ahead.bytes();
            let sent = if ahead.is_empty() {
                ready!(inner.as_mut().poll_write(cx, payload))?
            } else {
                let both = [IoSlice::new(ahead), IoSlice::new(payload)];
                ready!(inner.as_mut().poll_write_vectored(cx, &both))?
            };
            if sent == 0 {
                return Poll::Ready(Ok(0));
            }
            let of_ahead = sent.min(ahead.len());
            self.ahead.sent(of_ahead);
            let of_payload = sent - of_ahead;
            if of_payload > 0 {
                self.to_write -= u32::try_from(of_payload).unwrap_or(self.to_write);
                return Poll::Ready(Ok(of_payload));
            }
        }
    }

    /// Sends everything that waits.
    pub(super) fn poll_flush<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        mut inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ahead(cx, inner.as_mut()))?;
        ready!(inner.poll_flush(cx))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Ends this side of the session.
    pub(super) fn poll_end<S: AsyncWrite>(
        &mut self,
        cx: &mut Context<'_>,
        inner: Pin<&mut S>,
    ) -> Poll<io::Result<()>> {
        if self.write_end == End::Open {
            if self.to_write > 0 {
                // Its length has been announced, and its writer has given it up.
                return Poll::Ready(Err(broken_off()));
            }
            self.ahead.push(&END.to_be_bytes());
            self.write_end = End::Said;
        }
        ready!(self.poll_flush(cx, inner))?;
        self.write_end = End::Sent;
        Poll::Ready(Ok(()))
    }
}

fn broken_off() -> io::Error {
    io::Error::new(
        io::ErrorKind::UnexpectedEof,
        "the other sidecar's connection ended before the session did",
    )
}

pub(super) fn not_ours(length: u32) -> io::Error {
    let what =
        format!("the other sidecar sent {length:#x} inside a session, and this version does not know it");
    io::Error::new(io::ErrorKind::InvalidData, what)
}
