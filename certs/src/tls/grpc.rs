//! TLS between a workload and the control plane.
//!
//! A workload that was connected before resumes its session: after a restart of the control plane all of them come at once.
//! See [`TicketSecret`] for when a session ends.

use std::sync::Arc;

use rustls::{ClientConfig, ServerConfig, client::Resumption};
use selvedge_model::TrustDomain;

use super::{
    client_config,
    live::{Credentials, CredentialsError},
    server_config,
    tickets::TicketSecret,
    verifier::{FirstContact, Workloads},
};
use crate::{control_plane_identity, crypto::preferring_aes_128, facts::Fingerprint, verify::Anchors};

/// How many replicas' sessions a workload remembers.
const REMEMBERED_REPLICAS: usize = 8;

/// The longest record that the control plane sends. A frame of HTTP/2 of 16 KiB takes two of them in any case, with its head; and
/// what is shorter than a buffer of that size needs no memory from the kernel for each record, which it would have to clear.
pub const GRPC_RECORD: usize = 15 << 10;

/// gRPC is HTTP/2.
pub const ALPN_GRPC: &[u8] = b"h2";

/// What the control plane accepts connections with.
///
/// A client certificate is verified if there is one; a workload that has none yet shows a token later.
/// The chain that is sent ends in the roots, so that such a workload can compare the root with the
/// SHA-256 that it was given. Sessions are resumed by `tickets`, or not at all.
///
/// # Errors
/// If the bundle is empty or damaged, or the leaf is not of its trust domain.
pub fn grpc_server(
    own: &Credentials,
    tickets: Option<&TicketSecret>,
) -> Result<Arc<ServerConfig>, CredentialsError> {
    own.check()?;
    let mut key = own.leaf.certified_key()?;
    key.cert.extend(own.bundle.roots.iter().cloned());
    let verifier = Workloads::any(Anchors::new(&own.bundle)?).or_anonymous();
    let mut config = server_config(Arc::new(verifier), key, ALPN_GRPC, preferring_aes_128());
    // Thousands of handshakes at once, whose keys are made with the suite's hash, take a part less of a processor so.
    config.ignore_client_order = true;
    config.max_fragment_size = Some(GRPC_RECORD);
    if let Some(tickets) = tickets {
        config.ticketer = tickets.tickets(&own.bundle);
        config.send_tls13_tickets = 1;
    }
    Ok(Arc::new(config))
}

/// What a workload with a certificate connects to the control plane with. Whoever connects looks whether the control plane's
/// certificates are [`still_valid`](super::still_valid).
///
/// # Errors
/// If the bundle is empty or damaged, or the leaf is not of its trust domain.
pub fn grpc_client(own: &Credentials) -> Result<Arc<ClientConfig>, CredentialsError> {
    own.check()?;
    let control_plane = control_plane_identity(&own.bundle.trust_domain);
    let verifier = Workloads::only(Anchors::new(&own.bundle)?, control_plane);
    let mut config = client_config(Arc::new(verifier), Some(own.leaf.certified_key()?), ALPN_GRPC);
    config.resumption = Resumption::in_memory_sessions(REMEMBERED_REPLICAS);
    Ok(Arc::new(config))
}

/// What a workload first connects to the control plane with: all it knows is the SHA-256 of the root, or of
/// several while one takes over from another.
///
/// The server's chain must contain such a root, lead to it, and name the control plane of `trust_domain`.
pub fn bootstrap_client(root_sha256: &[[u8; 32]], trust_domain: &TrustDomain) -> Arc<ClientConfig> {
    let roots = root_sha256.iter().copied().map(Fingerprint).collect();
    let verifier = FirstContact { roots, trust_domain: trust_domain.clone() };
    Arc::new(client_config(Arc::new(verifier), None, ALPN_GRPC))
}
