//! Connections to one of our TLS ports: TCP, our own TLS, and who is at the other end.
//!
//! TLS is ours and not tonic's, so that a renewed certificate is used from the next connection on and
//! every request knows the identity that its client proved. Handshakes run beside each other: a client
//! that says nothing holds up nobody.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use selvedge_certs::verify::{self, Peer, PeerError};
use selvedge_model::TrustDomain;
use selvedge_ops::Drain;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::transport::server::Connected;

use super::own::OwnCertificate;

/// From the first byte to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the listener's backlog.
const MAX_HANDSHAKES: usize = 1024;
/// Pause after a failed accept: without one, too many open files would be a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who sent a request; in the extensions of every one.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// What the client certificate proved; `None` = it sent none.
    pub peer: Option<Peer>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    client: Client,
}

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("no TLS handshake within {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    #[error("TLS handshake: {0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

/// Accepts connections and gives away those whose handshake is done, until the drain begins.
///
/// # Errors
/// If the listener cannot be given to the runtime.
pub(crate) async fn accept(
    port: &'static str,
    listener: std::net::TcpListener,
    own: Arc<OwnCertificate>,
    accepted: mpsc::Sender<io::Result<Connection>>,
    drain: Drain,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    tokio::select! {
        () = accept_all(port, listener, own, accepted) => {}
        _ = drain.drained() => {}
    }
    Ok(())
}

async fn accept_all(
    port: &'static str,
    listener: TcpListener,
    own: Arc<OwnCertificate>,
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let slots = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    let mut handshakes = JoinSet::new();
    while !accepted.is_closed() {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, address)) => {
                let (own, accepted) = (Arc::clone(&own), accepted.clone());
                handshakes.spawn(async move {
                    match shake_hands(stream, address, &own).await {
                        // It fails only when nobody serves any more.
                        Ok(connection) => drop(accepted.send(Ok(connection)).await),
                        Err(error) => tracing::info!(%address, %error, "{port} refused a connection"),
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "{port} cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while handshakes.try_join_next().is_some() {}
    }
}

async fn shake_hands(
    stream: TcpStream,
    address: SocketAddr,
    own: &OwnCertificate,
) -> Result<Connection, HandshakeError> {
    stream.set_nodelay(true)?;
    let acceptor = TlsAcceptor::from(own.tls());
    let stream =
        timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await.map_err(|_| HandshakeError::Timeout)??;
    let peer = peer(&stream, own.trust_domain())?;
    Ok(Connection { stream, client: Client { address, peer } })
}

fn peer(stream: &TlsStream<TcpStream>, trust_domain: &TrustDomain) -> Result<Option<Peer>, PeerError> {
    let chain = stream.get_ref().1.peer_certificates();
    chain.map(|chain| verify::established(chain, trust_domain, SystemTime::now())).transpose()
}

impl Connection {
    /// Where it comes from.
    pub(crate) fn peer_address(&self) -> SocketAddr {
        self.client.address
    }
}

impl Connected for Connection {
    type ConnectInfo = Client;

    fn connect_info(&self) -> Client {
        self.client.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
