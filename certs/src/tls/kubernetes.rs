//! TLS with those whom a cluster brings along: the API server that calls our webhook, and an app whose HTTPS
//! probes are made in the kubelet's place.
//!
//! Neither knows of the mesh, so TLS 1.2 is allowed, and nothing of it is believed that a certificate of
//! theirs would have to prove.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{verify_tls12_signature, verify_tls13_signature},
    sign::SingleCertAndKey,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{
    ALPN_HTTP1,
    live::{Credentials, CredentialsError},
    provider,
    verifier::outside_signatures,
};

/// What a port is served with that is called by a name of our certificate, over HTTP/1.1, by anybody.
///
/// # Errors
/// If the bundle is empty or damaged, or the leaf is not of its trust domain.
pub fn https_server(own: &Credentials) -> Result<Arc<ServerConfig>, CredentialsError> {
    own.check()?;
    let key = own.leaf.certified_key()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has suites of both versions")
        .with_no_client_auth()
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
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Believes every certificate, and that whoever shows it has its key.
#[derive(Debug)]
pub(super) struct Anybody;

impl ServerCertVerifier for Anybody {
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
