//! Identifies the peer of an inbound connection: its mesh TLS handshake and its preamble.

use std::{
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_api::{
    preamble::{self, PreambleError},
    wire,
};
use selvedge_certs::{
    tls::{self, Live},
    verify::Role,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{StartHandshake, server::TlsStream};

use crate::{
    budget::{Action, Counted},
    clients::Client,
    error::Reason,
    trust::Standing,
    worker::Worker,
};

/// Time for the handshake and the preamble together.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time for a client's hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// A `client`'s stream, as its hello is read from it. What the hello holds until it is whole counts, here and in rustls;
/// where that is too much, the newcomer that came first is closed.
pub fn counted<'a>(
    worker: &'a Worker,
    client: &'a Client,
    tcp: &'a mut TcpStream,
) -> Counted<'a, TcpStream, impl FnMut(usize) + Unpin> {
    Counted::new(tcp, |bytes: usize| {
        client.holds_hello(&worker.budget, 2 * bytes);
        if worker.budget.is_exhausted() && worker.places.dismiss_newcomer() {
            worker.budget.acted(Action::ClosedConnection);
        }
    })
}

/// The hello of `client` that `reading` gives, if it comes in time.
///
/// # Errors
/// If it does not, or if the client leaves.
pub async fn in_time<T>(
    client: &Client,
    reading: impl Future<Output = io::Result<T>>,
) -> Result<T, HandshakeError> {
    let hello = tokio::time::timeout(HELLO_TIMEOUT, reading).await;
    client.hello_ended();
    Ok(hello.map_err(|_| HandshakeError::Timeout)??)
}

/// Why a connection that began as TLS does was not let in.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// A scanner, or a network that loses packets.
    #[error("the handshake took longer than {HANDSHAKE_TIMEOUT:?}")]
    Timeout,
    /// The other side gave up, or offered nothing that we accept; rustls says what.
    #[error("the TLS handshake failed: {}", tls::explain(.0))]
    Tls(#[from] io::Error),
    /// TLS of the app's own, on a port that is declared to speak HTTP.
    #[error(
        "the client speaks TLS, but not the mesh's (its ALPN has no selvedge/1), and the port is declared to speak HTTP"
    )]
    NotMesh,
    /// This proxy has no certificate, or it has expired.
    #[error("our own certificate cannot be used: {0}")]
    Own(String),
    /// The peer's certificate is not one of this mesh's.
    #[error("the client's certificate is not accepted: {0}")]
    Peer(String),
    /// What came after the handshake is not what sidecars send.
    #[error(transparent)]
    Preamble(#[from] PreambleError),
}

impl HandshakeError {
    /// The word for metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Timeout => Reason::Timeout,
            Self::Tls(_) | Self::NotMesh => Reason::Tls,
            Self::Own(_) => Reason::Certificate,
            Self::Peer(_) => Reason::Identity,
            Self::Preamble(_) => Reason::Protocol,
        }
    }
}

/// A mesh peer's connection, past its handshake and preamble.
#[derive(Debug)]
pub struct Identified<S> {
    /// The bytes that follow.
    pub stream: TlsStream<S>,
    /// Who it is, for as long as it is believed.
    pub standing: Arc<Standing>,
    /// What it wants.
    pub preamble: wire::Preamble,
}

/// Completes the mesh handshake that `hello` began, and reads the preamble.
///
/// # Errors
/// [`HandshakeError`]; the connection is of no further use.
pub async fn identify<S>(hello: StartHandshake<S>, live: &Live) -> Result<Identified<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(hello, live))
        .await
        .unwrap_or(Err(HandshakeError::Timeout))
}

async fn handshake<S>(hello: StartHandshake<S>, live: &Live) -> Result<Identified<S>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let now = SystemTime::now();
    let current =
        live.current().ok_or_else(|| HandshakeError::Own("there is no certificate yet".to_owned()))?;
    current.usable(now).map_err(|error| HandshakeError::Own(error.to_string()))?;
    let mut stream = hello.into_stream(Arc::clone(&current.server)).await?;
    let peer = tls::peer_of(stream.get_ref().1, &current, now)
        .map_err(|error| HandshakeError::Peer(error.to_string()))?;
    let standing = Standing::new(stream.get_ref().1, Role::Client, peer, current, live, now);

    let mut prefix = [0; 2];
    stream.read_exact(&mut prefix).await?;
    let mut bytes = [0; preamble::MAX_LENGTH];
    let bytes = &mut bytes[..preamble::length(prefix)?];
    stream.read_exact(bytes).await?;
    let preamble = preamble::decode(bytes)?;
    Ok(Identified { stream, standing, preamble })
}
