//! Ends a connection in a way that the other end takes for a failure.
//!
//! A TCP connection that is closed ends as if everything had been said. If its other half broke off, it must be reset
//! instead, and where TLS carries it, without `close_notify`.

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server;

use super::{Framed, Prefixed, ReadAhead, Stream};

/// A stream that can be ended as one that broke off.
pub trait Abort {
    /// From now on, dropping it resets it.
    fn abort(&self);
}

impl<S: Abort + ?Sized> Abort for Box<S> {
    fn abort(&self) {
        (**self).abort();
    }
}

/// A stream of bytes both ways, which can be ended as one that broke off.
pub trait Duplex: AsyncRead + AsyncWrite + Abort + Unpin {}

impl<S: AsyncRead + AsyncWrite + Abort + Unpin> Duplex for S {}

impl Abort for TcpStream {
    fn abort(&self) {
        reset(self);
    }
}

impl<S: Abort> Abort for Prefixed<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for ReadAhead<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for Framed<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

impl<S: Abort> Abort for server::TlsStream<S> {
    fn abort(&self) {
        self.get_ref().0.abort();
    }
}

impl Abort for Stream {
    fn abort(&self) {
        self.tcp().abort();
    }
}

/// Ends `tcp` with a reset, so that its client takes it for a failure and not for an end.
pub fn reset(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed without a reset");
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn a_reset_is_an_error_to_the_client() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(dialled, listener.accept());
        let (mut client, (server, _)) = (client.unwrap(), accepted.unwrap());

        reset(&server);
        drop(server);

        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
