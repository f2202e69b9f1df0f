//! The floor of opaque TCP: a connection for each of the client's, and bytes both ways.
//!
//! `copy_bidirectional` with buffers as large as four TLS records, so that it is no straw man in bulk.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::tls::{self, Connector};
use super::{Args, Carrier, Failure, Half};

const BUFFER: usize = 64 << 10;

/// What every connection of this half needs.
#[derive(Clone)]
pub(super) struct Relay {
    to: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    connector: Option<Arc<Connector>>,
}

impl Relay {
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let (acceptor, connector) = match args.half {
            Half::Client => (None, Some(Arc::new(tls::client(&args.certificates, Carrier::Tcp)?))),
            Half::Server => (Some(tls::server(&args.certificates)?), None),
        };
        Ok(Self { to: args.to, acceptor, connector })
    }

    pub(super) async fn connection(self, client: TcpStream) -> Result<(), Failure> {
        client.set_nodelay(true)?;
        match &self.acceptor {
            Some(acceptor) => self.carry(acceptor.accept(client).await?).await,
            None => self.carry(client).await,
        }
    }

    async fn carry(&self, client: impl AsyncRead + AsyncWrite + Unpin) -> Result<(), Failure> {
        let server = TcpStream::connect(self.to).await?;
        server.set_nodelay(true)?;
        match &self.connector {
            Some(connector) => both_ways(client, connector.connect(server).await?).await,
            None => both_ways(client, server).await,
        }
    }
}

async fn both_ways(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), Failure> {
    copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}
