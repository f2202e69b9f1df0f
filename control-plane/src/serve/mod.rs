//! Stage 5: one TLS port that issues certificates and streams configuration.

pub mod attestation;
pub mod certificates;
pub mod connection;
pub mod own;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
pub mod token_files;

use std::{io, sync::Arc, time::Duration};

use futures_util::TryFutureExt;
use selvedge_api::{
    encoded::server::DiscoveryServer,
    wire::{self, certificates_server::CertificatesServer},
};
use selvedge_certs::bundle::Bundle;
use selvedge_ops::Drain;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use self::{certificates::Certificates, own::OwnCertificate, stream::Streams};

/// Connections that were accepted and wait to be served.
const WAITING: usize = 64;
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// A Hello names everything that a proxy holds: at most three resources for each of 20,000 authorities.
const MAX_MESSAGE: usize = 16 << 20;

/// Why the port is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime does not take the listener.
    #[error("cannot accept connections: {0}")]
    Accept(#[from] io::Error),
    /// gRPC ended.
    #[error("the gRPC server ended: {0}")]
    Grpc(#[from] tonic::transport::Error),
}

/// Serves the gRPC port until the drain begins and every stream has been told.
///
/// # Errors
/// If the listener or the server fails.
pub async fn serve(
    listener: std::net::TcpListener,
    own: Arc<OwnCertificate>,
    certificates: Certificates,
    streams: Streams,
    drain: Drain,
) -> Result<(), ServeError> {
    let (accepted, connections) = mpsc::channel(WAITING);
    let stop = drain.clone();
    let serving = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .add_service(CertificatesServer::new(certificates))
        .add_service(DiscoveryServer::new(streams).max_decoding_message_size(MAX_MESSAGE))
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), async move {
            stop.drained().await;
        });
    let accepting = connection::accept("the gRPC port", listener, own, accepted, drain);
    tokio::try_join!(accepting.map_err(ServeError::from), serving.map_err(ServeError::from))?;
    Ok(())
}

/// Trust roots as the wire carries them.
pub(crate) fn bundle_to_wire(bundle: &Bundle) -> wire::Bundle {
    wire::Bundle {
        trust_domain: bundle.trust_domain.to_string(),
        roots: bundle.roots.iter().map(|root| root.to_vec().into()).collect(),
    }
}
