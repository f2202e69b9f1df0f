//! TLS with those whom a cluster brings along: the API server that calls our webhook, and an app whose HTTPS
//! probes are made in the kubelet's place.
//!
//! Neither knows of the mesh, so TLS 1.2 is allowed, and nothing of it is trusted that a certificate of
//! theirs would have to prove.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    ALPN_HTTP1,
    live::{Credentials, CredentialsError},
    provider,
    verifier::outside_signatures,
};
use crate::facts::Facts;

/// What a port is served with that is called by a name of our certificate, over HTTP/1.1, by anybody, or by
/// `clients` alone.
///
/// # Errors
/// If the bundle is empty or damaged, or the leaf is not of its trust domain.
pub fn https_server(
    own: &Credentials,
    clients: Option<&ClientCa>,
) -> Result<Arc<ServerConfig>, CredentialsError> {
    own.check()?;
    let key = own.leaf.certified_key()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .with_client_cert_verifier(
            clients.map_or_else(|| Arc::new(NoClientAuth) as _, |clients| Arc::clone(&clients.verifier)),
        )
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    // A session would go on under a certificate that has been renewed since.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// What an HTTPS probe is made with: any certificate will do, as for the kubelet (`pkg/probe/http`).
///
/// For an app on this host only: it proves nothing about who answers.
pub fn unverified_client() -> Arc<ClientConfig> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Trusts every certificate, and that whoever shows it has its key.
#[derive(Debug)]
pub(super) struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    outside_signatures!();
}

/// Whom a port outside the mesh is for: clients with a certificate of one CA, and with one of some names.
#[derive(Debug, Clone)]
pub struct ClientCa {
    verifier: Arc<dyn ClientCertVerifier>,
    names: Arc<[String]>,
}

/// Why nobody can be trusted by a file.
#[derive(Debug, thiserror::Error)]
pub enum ClientCaError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It holds no certificates.
    #[error("has no certificate of a CA in PEM")]
    Empty,
    /// One of them cannot be a root.
    #[error("has a certificate that cannot be trusted: {0}")]
    Root(rustls::Error),
    /// No verifier can be made of them.
    #[error("cannot be used: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

/// A certificate of the right CA that is for somebody else.
#[derive(Debug, thiserror::Error)]
#[error("the client's certificate is for {found}, which is not in --webhook-client-name")]
pub struct NotAllowed {
    found: String,
}

impl ClientCa {
    /// The CA in the PEM file `path`; `names`: common names or DNS names of clients, or none if all will do.
    ///
    /// # Errors
    /// If the file holds no CA.
    pub fn load(path: &Path, names: &[String]) -> Result<Self, ClientCaError> {
        let mut roots = RootCertStore::empty();
        let certificates = pem::parse_many(std::fs::read(path)?).unwrap_or_default();
        for certificate in certificates.into_iter().filter(|block| block.tag() == "CERTIFICATE") {
            roots.add(certificate.into_contents().into()).map_err(ClientCaError::Root)?;
        }
        if roots.is_empty() {
            return Err(ClientCaError::Empty);
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build()?;
        Ok(Self { verifier, names: names.into() })
    }

    /// Whether a client whose certificate has been verified is one of those who may call.
    ///
    /// # Errors
    /// If it has another name.
    pub fn check(&self, chain: &[CertificateDer<'_>]) -> Result<(), NotAllowed> {
        if self.names.is_empty() {
            return Ok(());
        }
        let facts = chain.first().and_then(|leaf| Facts::parse(leaf).ok());
        let names = facts.map(|facts| [facts.common_names, facts.dns].concat()).unwrap_or_default();
        match names.iter().any(|name| self.names.contains(name)) {
            true => Ok(()),
            false => Err(NotAllowed { found: format!("{names:?}") }),
        }
    }
}
