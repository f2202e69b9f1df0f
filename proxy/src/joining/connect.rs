//! Connections to the control plane: TCP to any of its addresses, our own TLS, and the proof that it is
//! the control plane who answers.
//!
//! The connection is made here and handed to tonic ready for use. So each way to fail has a name (tonic would say
//! "transport error"), and tonic never reconnects by itself with a certificate that has been replaced.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use hyper_util::rt::TokioIo;
use selvedge_certs::{tls, verify::PeerError};
use selvedge_ops::{ResolveError, Resolver};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tonic::transport::{Channel, Endpoint};

/// For one address while there is another to try: TCP and TLS together.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);
/// For the last address, and so for the only one: a control plane that has just started meets all its proxies at once, and who
/// leaves the queue has waited for nothing.
const LAST_ADDRESS_TIMEOUT: Duration = Duration::from_secs(10);
/// A control plane that answers no ping for this long after [`KEEPALIVE_INTERVAL`] is gone, even if its
/// kernel still acknowledges (a stopped process, a lost host).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);
/// How often it is pinged.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(4);
/// Flow control: a large service's endpoints arrive in one go.
const WINDOW: u32 = 4 << 20;

/// Where the control plane is: `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
}

/// A text is no `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a HOST:PORT, such as control-plane.example:8086 or [::1]:8086")]
pub struct AddressError {
    text: String,
}

impl Address {
    /// Its port, if it is on this host's loopback.
    pub fn port_on_loopback(&self) -> Option<u16> {
        let ip = self.host.parse::<IpAddr>();
        let is_loopback = self.host.eq_ignore_ascii_case("localhost")
            || ip.is_ok_and(|ip| ip.is_unspecified() || ip.to_canonical().is_loopback());
        is_loopback.then_some(self.port)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError { text: text.to_owned() };
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bracketed.unwrap_or(host);
        let is_name = ServerName::try_from(host).is_ok();
        if port == 0 || !is_name || (bracketed.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Why there is no connection to the control plane.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// DNS does not know the name, or does not answer.
    #[error("the control plane's name {host:?} {reason}; check --control-plane and DNS")]
    Resolve {
        /// The name.
        host: String,
        /// Why it has no address.
        reason: ResolveError,
    },
    /// None of its addresses accepts a connection, or all fail in TLS.
    #[error("no connection to the control plane at {address}: {reason}; check that it runs")]
    Unreachable {
        /// Where.
        address: Address,
        /// What happened at the last of its addresses.
        reason: String,
    },
    /// The server does not prove to be the control plane.
    #[error("{address} ({dialled}) is not this mesh's control plane: {reason}")]
    NotControlPlane {
        /// Where.
        address: Address,
        /// Which of its addresses.
        dialled: SocketAddr,
        /// What it proved to be instead.
        reason: Box<PeerError>,
    },
    /// TLS works, HTTP/2 does not.
    #[error("{address} does not speak gRPC: {source}")]
    Http2 {
        /// Where.
        address: Address,
        /// What tonic says.
        source: tonic::transport::Error,
    },
}

impl ConnectError {
    /// What tells one failure from another: without what the clock says.
    pub fn timeless(&self) -> String {
        match self {
            Self::NotControlPlane { address, dialled, reason } => {
                let (address, reason) = (address.clone(), Box::new(reason.timeless()));
                Self::NotControlPlane { address, dialled: *dialled, reason }.to_string()
            }
            other => other.to_string(),
        }
    }
}

/// The control plane, as something to connect to.
#[derive(Debug, Clone)]
pub struct ControlPlane {
    address: Address,
    resolver: Arc<Resolver>,
}

impl ControlPlane {
    /// The control plane at `address`, whose name `resolver` knows.
    pub fn new(address: Address, resolver: Arc<Resolver>) -> Self {
        Self { address, resolver }
    }

    /// Where it is.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Connects: resolves the name anew and tries each address in turn. `tls` says how to recognise the
    /// control plane.
    ///
    /// # Errors
    /// If none answers, or the server is not this mesh's control plane.
    pub async fn connect(&self, tls: &Arc<ClientConfig>) -> Result<Channel, ConnectError> {
        let mut ready = Some(TokioIo::new(self.stream(tls).await?));
        let once = tower::service_fn(move |_| {
            let stream = ready.take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
            std::future::ready(stream)
        });
        Endpoint::from_static("http://control-plane")
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect_with_connector(once)
            .await
            .map_err(|source| ConnectError::Http2 { address: self.address.clone(), source })
    }

    async fn stream(&self, tls: &Arc<ClientConfig>) -> Result<TlsStream<TcpStream>, ConnectError> {
        let connector = TlsConnector::from(Arc::clone(tls));
        let mut last = self.unreachable("its name has no address".to_owned());
        let addresses = self.resolve().await?;
        for (address, others) in addresses.iter().copied().zip((0..addresses.len()).rev()) {
            let patience = if others > 0 { ADDRESS_TIMEOUT } else { LAST_ADDRESS_TIMEOUT };
            match tokio::time::timeout(patience, open(address, &connector)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = self.failed(address, &error),
                Err(_) => last = self.unreachable(format!("{address} does not answer within {patience:?}")),
            }
        }
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, ConnectError> {
        let Address { host, port } = &self.address;
        let found = self.resolver.all_addresses(host).await;
        let resolved = found.map_err(|reason| ConnectError::Resolve { host: host.clone(), reason })?;
        Ok(resolved.addresses.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
    }

    fn failed(&self, dialled: SocketAddr, error: &io::Error) -> ConnectError {
        let address = self.address.clone();
        match tls::peer_error(error) {
            Some(reason) => {
                ConnectError::NotControlPlane { address, dialled, reason: Box::new(reason.clone()) }
            }
            None => self.unreachable(format!("{dialled}: {}", tls::explain(error))),
        }
    }

    fn unreachable(&self, reason: String) -> ConnectError {
        ConnectError::Unreachable { address: self.address.clone(), reason }
    }
}

async fn open(address: SocketAddr, connector: &TlsConnector) -> io::Result<TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let stream = connector.connect(tls::session_name(address), tcp).await?;
    tls::still_valid(stream.get_ref().1, SystemTime::now()).map_err(io::Error::other)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for text in ["127.0.0.1:8086", "[::1]:8086", "control-plane.selvedge.svc:8086"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_connected_to_is_no_address() {
        for text in
            ["", "host", "host:", "host:0", "host:99999", ":8086", "::1:8086", "http://host:8086", "a b:1"]
        {
            let error = text.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("HOST:PORT"), "{error}");
        }
    }
}
