//! The floor's TLS: what the product's mesh TLS costs, without its identities.
//!
//! TLS 1.3 only, client certificates required, the product's provider. A DNS name stands where the
//! product compares SPIFFE IDs; that is work of the handshake, which keep-alive requests do not repeat.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::version::TLS13;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Carrier;
use crate::certificates::SERVER_NAME;

/// Opens TLS to the other half.
pub(super) struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    pub(super) async fn connect(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        self.connector.connect(self.name.clone(), stream).await
    }
}

/// Says, from the client's half to the server's, that requests are to reach the app in HTTP/2.
const ALPN_HTTP2_APP: &[u8] = b"selvedge-floor/http2-app";

const fn alpn(app: Carrier) -> &'static [u8] {
    match app {
        Carrier::Http1 | Carrier::Tcp => selvedge_certs::tls::ALPN_MESH,
        Carrier::Http2 => ALPN_HTTP2_APP,
    }
}

/// What the app is to be spoken to in.
pub(super) fn app_protocol(stream: &tokio_rustls::server::TlsStream<TcpStream>) -> Carrier {
    if stream.get_ref().1.alpn_protocol() == Some(ALPN_HTTP2_APP) { Carrier::Http2 } else { Carrier::Http1 }
}

pub(super) fn client(directory: &Path, app: Carrier) -> anyhow::Result<Connector> {
    let Files { roots, chain, key } = Files::read(directory)?;
    let mut config = ClientConfig::builder_with_provider(selvedge_certs::tls::provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![alpn(app).to_vec()];
    let name = ServerName::try_from(SERVER_NAME).context("the floor's server name")?;
    Ok(Connector { connector: TlsConnector::from(Arc::new(config)), name })
}

pub(super) fn server(directory: &Path) -> anyhow::Result<TlsAcceptor> {
    let Files { roots, chain, key } = Files::read(directory)?;
    let provider = selvedge_certs::tls::provider();
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = [Carrier::Http1, Carrier::Http2].map(|app| alpn(app).to_vec()).to_vec();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

struct Files {
    roots: RootCertStore,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Files {
    fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        for root in certificates(&directory.join("ca.pem"))? {
            roots.add(root).context("ca.pem holds something that is no CA certificate")?;
        }
        let key = directory.join("key.pem");
        Ok(Self {
            roots,
            chain: certificates(&directory.join("cert.pem"))?,
            key: PrivateKeyDer::from_pem_file(&key)
                .with_context(|| format!("cannot read {}", key.display()))?,
        })
    }
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read {}", file.display()))
}
