//! TLS configurations from a leaf and a bundle.
//!
//! TLS 1.3 only, the post-quantum hybrid X25519MLKEM768 first. On resumption rustls does not run the
//! verifier, so every change of leaf or bundle makes configurations with *empty* session stores
//! ([`Live::set`]), and [`peer_of`] is called after every handshake, resumed or not.

mod edge;
mod grpc;
mod kubernetes;
mod live;
mod outside;
#[cfg(test)]
mod tests;
mod tickets;
mod verifier;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use rustls::{
    ClientConfig, CommonState, HandshakeKind, ServerConfig,
    client::Resumption,
    crypto::CryptoProvider,
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, ServerName};

pub use self::{
    edge::{Edge, EdgeError, client_cert},
    grpc::{ALPN_GRPC, GRPC_RECORD, bootstrap_client, grpc_client, grpc_server},
    kubernetes::{ClientCa, ClientCaError, NotAllowed, https_server, unverified_client},
    live::{Credentials, CredentialsError, Current, Live, Unusable},
    outside::{ALPN_HTTP1, ALPN_HTTP2, Outside, OutsideError, explain_outside, files as outside_files},
    tickets::TicketSecret,
    verifier::{explain, peer_error},
};
pub use crate::crypto::provider;
use crate::{
    facts::Role,
    verify::{self, Peer, PeerError},
};

/// The protocol between sidecars: a preamble, then what it announces.
pub const ALPN_MESH: &[u8] = b"selvedge/1";

/// How many servers' sessions a client remembers.
const REMEMBERED_SERVERS: usize = 1024;

/// The name under which a client remembers its sessions with the server dialled at `dial`.
///
/// It is never sent (SNI is off) and never verified (identities are); it only has to differ wherever
/// the server may differ, which an IP address without its port would not.
pub fn session_name(dial: SocketAddr) -> ServerName<'static> {
    let name = match dial.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("p{}.v4-{a}-{b}-{c}-{d}.mesh.invalid", dial.port())
        }
        IpAddr::V6(ip) => {
            let scope = if let SocketAddr::V6(dial) = dial { dial.scope_id() } else { 0 };
            format!("p{}.s{scope}.v6-{:032x}.mesh.invalid", dial.port(), u128::from(ip))
        }
    };
    ServerName::try_from(name).expect("letters, digits, single dots and inner hyphens are a DNS name")
}

/// Who the peer of an established mesh connection is. To be called after every handshake, with the
/// [`Current`] whose configuration the handshake was made with.
///
/// # Errors
/// If the peer's certificates, verified now or when the resumed session began, are not valid any more.
pub fn peer_of(connection: &CommonState, current: &Current, now: SystemTime) -> Result<Peer, PeerError> {
    let chain = connection.peer_certificates().ok_or(PeerError::NoCertificate)?;
    verify::established(chain, &current.bundle.trust_domain, now)
}

/// Whether what was verified of the peer of `connection` when its session began is still so `now`: something may have expired
/// since, and nobody else looks.
///
/// # Errors
/// If the session is resumed, and one of the peer's certificates is not valid.
pub fn still_valid(connection: &CommonState, now: SystemTime) -> Result<(), PeerError> {
    if connection.handshake_kind() != Some(HandshakeKind::Resumed) {
        return Ok(());
    }
    verify::in_date(connection.peer_certificates().ok_or(PeerError::NoCertificate)?, now)
}

/// What a peer showed in the handshake of a connection, kept as long as that is open: so that it can be asked whether
/// roots of today would trust it, too.
#[derive(Debug)]
pub struct Shown {
    chain: Box<[CertificateDer<'static>]>,
    /// When it was trusted. What is asked later is whether it was right to, not whether it would be still.
    at: SystemTime,
    role: Role,
}

/// What the peer of `connection`, which is in `role`, has shown; [`peer_of`] has trusted it `now`.
pub fn shown(connection: &CommonState, role: Role, now: SystemTime) -> Shown {
    let chain = connection.peer_certificates().unwrap_or_default();
    Shown { chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(), at: now, role }
}

/// A client configuration, TLS 1.3 only, before anything is said about certificates of its own.
fn client_config(
    verifier: Arc<dyn rustls::client::danger::ServerCertVerifier>,
    own: Option<CertifiedKey>,
    alpn: &[u8],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    config
}

/// A server configuration, TLS 1.3 only, without resumption.
fn server_config(
    verifier: Arc<dyn rustls::server::danger::ClientCertVerifier>,
    own: CertifiedKey,
    alpn: &[u8],
    provider: Arc<CryptoProvider>,
) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("the provider has TLS 1.3 suites")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}
