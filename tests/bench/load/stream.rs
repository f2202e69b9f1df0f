//! A client's connection, with TLS or without.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rustix::fd::{AsFd, BorrowedFd};
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::CryptoProvider;
use tokio_rustls::rustls::crypto::aws_lc_rs::kx_group::X25519;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::generator::Target;
use crate::certificates::SERVER_NAME;

/// How long connecting may take, and each half of a handshake.
const LIMIT: Duration = Duration::from_secs(5);

/// How clients do TLS 1.3 with HTTP/1.1 inside.
#[derive(Clone)]
pub(crate) struct ClientTls {
    full: Arc<ClientConfig>,
    resuming: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// Whether a connection goes on with an earlier one's session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handshake {
    Full,
    Resumed,
}

impl ClientTls {
    /// Trusts ca.pem of `certificates`.
    pub(crate) fn new(certificates: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_file_iter(certificates.join("ca.pem"))? {
            roots.add(root?)?;
        }
        let mut provider = CryptoProvider::clone(&selvedge_certs::tls::provider());
        // What all proxies know: nobody pays for the post-quantum exchange that only some have.
        provider.kx_groups = vec![X25519];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let resuming = Arc::new(config.clone());
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(SERVER_NAME).context("the benchmark's server name")?;
        Ok(Self { full: Arc::new(config), resuming, name })
    }

    /// The same, of the server that is called `name`.
    pub(crate) fn to(&self, name: &str) -> anyhow::Result<Self> {
        let name =
            ServerName::try_from(name.to_owned()).with_context(|| format!("{name} is no server name"))?;
        Ok(Self { name, ..self.clone() })
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A client's connection, its handshake behind it.
pub(crate) enum ClientStream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl ClientStream {
    /// Connects, and waits for the handshake.
    pub(crate) fn connect(target: &Target, handshake: Handshake) -> anyhow::Result<Self> {
        let mut tcp = TcpStream::connect_timeout(&target.address, LIMIT)
            .with_context(|| format!("cannot connect to {}", target.address))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(LIMIT))?;
        tcp.set_write_timeout(Some(LIMIT))?;
        let Some(tls) = &target.tls else { return Ok(Self::Plain(tcp)) };
        let config = match handshake {
            Handshake::Full => &tls.full,
            Handshake::Resumed => &tls.resuming,
        };
        let mut connection = ClientConnection::new(Arc::clone(config), tls.name.clone())?;
        while connection.is_handshaking() {
            connection
                .complete_io(&mut tcp)
                .with_context(|| format!("the handshake with {} failed", target.address))?;
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, tcp))))
    }

    /// The certificate that the server has shown.
    pub(crate) fn leaf(&self) -> Option<&CertificateDer<'static>> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.conn.peer_certificates()?.first(),
        }
    }

    /// From now on nothing waits.
    pub(crate) fn set_nonblocking(&self) -> io::Result<()> {
        self.tcp().set_nonblocking(true)
    }

    /// Everything that has come and fits: what TLS has taken from the socket, the socket does not report again.
    pub(crate) fn read_available(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Self::Plain(tcp) = self {
            return tcp.read(buffer);
        }
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if filled > 0 && error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }
}

impl Read for ClientStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for ClientStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

impl AsFd for ClientStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp().as_fd()
    }
}
