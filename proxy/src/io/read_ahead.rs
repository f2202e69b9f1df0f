//! Reads ahead below TLS: rustls asks for 4 KiB at a time, which is a system call for a quarter of a record.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    buffers::{BUFFER, Buffer, Rest},
    delegate::passes_on,
};

/// A stream that, once told to, reads as much as there is and hands it out in the pieces asked for.
///
/// Off until then: HTTP reads little at a time, and a copy would be for nothing.
#[derive(Debug)]
pub struct ReadAhead<S> {
    inner: S,
    on: bool,
    rest: Option<Rest>,
}

impl<S> ReadAhead<S> {
    /// `inner`, read as it is for now.
    pub fn new(inner: S) -> Self {
        Self { inner, on: false, rest: None }
    }

    /// Reads ahead from now on.
    pub fn turn_on(&mut self) {
        self.on = true;
    }

    /// What is read.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReadAhead<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.rest.is_none() {
            if !this.on || buf.remaining() >= BUFFER {
                return Pin::new(&mut this.inner).poll_read(cx, buf);
            }
            let mut buffer = Buffer::take();
            let mut into = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut into))?;
            let read = into.filled().len();
            this.rest = Some(Rest::new(buffer, read));
        }
        if let Some(rest) = &mut this.rest {
            let length = rest.bytes().len().min(buf.remaining());
            buf.put_slice(&rest.bytes()[..length]);
            rest.advance(length);
            if rest.is_empty() {
                this.rest = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReadAhead<S> {
    passes_on!(poll_write, poll_flush, poll_shutdown, poll_write_vectored, is_write_vectored);
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_come_in_their_order_whether_it_is_on_or_not() {
        let sent: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for from in [0, 10, 100_000] {
            let mut reader = ReadAhead::new(sent.as_slice());
            let mut read = vec![0; from];
            reader.read_exact(&mut read).await.unwrap();

            reader.turn_on();
            let mut piece = [0; 4096];
            loop {
                match reader.read(&mut piece).await.unwrap() {
                    0 => break,
                    some => read.extend_from_slice(&piece[..some]),
                }
            }

            assert!(read == sent, "from {from}");
            assert!(reader.rest.is_none(), "nothing is held");
        }
    }
}
