//! The byte streams that HTTP runs on: plain or mesh TLS, with bytes that were read too early put back.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsStream;

use super::{ReadAhead, delegate::passes_on, share};

/// A stream whose first bytes were read to see what it carries, and are read again from here.
///
/// Reading and replaying, never `peek`: waiting on `peek` for a hello that comes in parts would spin.
#[derive(Debug)]
pub struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Puts `prefix` back in front of `inner`.
    pub fn new(prefix: Bytes, inner: S) -> Self {
        // An empty one may still hold the buffer that it was cut from.
        let prefix = if prefix.is_empty() { Bytes::new() } else { prefix };
        Self { prefix, inner }
    }

    /// What is read.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// What was read; a prefix that was not is lost.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.prefix.is_empty() {
            return read(cx, buf, Pin::new(&mut this.inner));
        }
        let length = this.prefix.len().min(buf.remaining());
        buf.put_slice(&this.prefix[..length]);
        this.prefix.advance(length);
        if this.prefix.is_empty() {
            this.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    passes_on!(poll_flush, poll_shutdown, is_write_vectored);

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.get_mut().inner).poll_write(cx, buf);
        counted(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs);
        counted(cx, written)
    }
}

/// Reads from `inner`, and counts what was read.
fn read(
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
    inner: Pin<&mut impl AsyncRead>,
) -> Poll<io::Result<()>> {
    let before = buf.filled().len();
    let read = inner.poll_read(cx, buf);
    share::moved(cx, buf.filled().len() - before);
    read
}

/// What was written, counted.
fn counted(cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(bytes)) = &written {
        share::moved(cx, *bytes);
    }
    written
}

/// A connection that this proxy opened.
#[derive(Debug)]
pub enum Stream {
    /// To an endpoint that is not meshed, or to the app.
    Plain(TcpStream),
    /// To a mesh peer. Boxed: a TLS session is some 1,500 bytes.
    Tls(Box<TlsStream<ReadAhead<TcpStream>>>),
}

impl Stream {
    /// What carries it.
    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0.get_ref(),
        }
    }

    /// Reads as much at a time as there is, from now on. TLS by itself reads little.
    pub fn read_ahead(&mut self) {
        if let Self::Tls(tls) = self {
            match &mut **tls {
                TlsStream::Client(tls) => tls.get_mut().0.turn_on(),
                TlsStream::Server(tls) => tls.get_mut().0.turn_on(),
            }
        }
    }
}

macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Plain($inner) => {
                let $inner = Pin::new($inner);
                $call
            }
            Self::Tls($inner) => {
                let $inner = Pin::new(&mut **$inner);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => read(cx, buf, inner))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = each!(self, inner => inner.poll_write(cx, buf));
        counted(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => inner.poll_shutdown(cx))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = each!(self, inner => inner.poll_write_vectored(cx, bufs));
        counted(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(inner) => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }
}
