//! One TLS port that issues certificates and streams configuration.

pub mod allowance;
pub mod attestation;
pub mod audit;
pub mod certificates;
pub mod connection;
pub mod own;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod token_files;
pub mod turns;

use std::{io, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, TryFutureExt};
use selvedge_api::{
    MAX_CLIENT_MESSAGE, MAX_SIGN_REQUEST, encoded::server::DiscoveryServer,
    wire::certificates_server::CertificatesServer,
};
use selvedge_ops::{
    Drain, Remark,
    seated::{Patience, Reading},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use self::{
    certificates::Certificates,
    connection::{Accepted, Connection, ConnectionTimeouts, GrpcConnection, Port},
    own::OwnCertificate,
    stream::Streams,
};

/// Connections that were accepted and wait to be served.
const WAITING: usize = 64;
/// How often a silent peer is asked whether it is still there.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long it may take to answer.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// From a request's head to the head of its answer. Who signs may have to ask the API server about a token.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest list of header fields, in bytes.
const MAX_HEADERS: u32 = 8 << 10;
/// Requests at once of a client without a certificate, which needs one.
const STRANGER_STREAMS: u32 = 4;
/// What it may have sent that nobody has read yet: the least that HTTP/2 allows for a connection.
const STRANGER_WINDOW: u32 = (1 << 16) - 1;
/// Requests at once of a client with a certificate: its stream, and one for the next certificate, while an older one
/// may not have ended yet.
const KNOWN_STREAMS: u32 = 8;
/// What it may have sent on one stream that nobody has read yet.
const KNOWN_WINDOW: u32 = 256 << 10;
/// Streams that the client has reset and we have not begun with; more of them end the connection.
const MAX_RESETS: usize = 16;
/// What is expected of clients.
const MANNERS: ConnectionTimeouts = ConnectionTimeouts {
    // All that a stranger comes for is one certificate.
    stranger: Patience {
        reading: Reading::Whole(Duration::from_secs(40)),
        writing: Duration::from_secs(10),
        bytes: (MAX_SIGN_REQUEST + (48 << 10)) as u64,
    },
    known: Patience { reading: Reading::Endless, writing: Duration::from_secs(60), bytes: u64::MAX },
};

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

/// Serves the gRPC port until the drain begins and every stream has been told. `crowded` holds while proxies come faster than
/// they can be let in.
///
/// # Errors
/// If the listener or the server fails.
pub async fn serve(
    listener: std::net::TcpListener,
    own: Arc<OwnCertificate>,
    certificates: Certificates,
    streams: Streams,
    drain: Drain,
    crowded: Remark,
) -> Result<(), ServeError> {
    let (strangers, from_strangers) = mpsc::channel(WAITING);
    let (known, from_known) = mpsc::channel(WAITING);
    let (certificates, streams) = (Arc::new(certificates), Arc::new(streams));
    let serve = |server: Server, connections| {
        let stop = drain.clone();
        server
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(MAX_HEADERS)
            .http2_max_pending_accept_reset_streams(Some(MAX_RESETS))
            .timeout(REQUEST_TIMEOUT)
            .add_service(
                CertificatesServer::from_arc(Arc::clone(&certificates))
                    .max_decoding_message_size(MAX_SIGN_REQUEST),
            )
            .add_service(DiscoveryServer::new(Arc::clone(&streams), MAX_CLIENT_MESSAGE))
            .serve_with_incoming_shutdown(incoming(connections), async move {
                stop.drained().await;
            })
            .map_err(ServeError::from)
    };
    let to_strangers = Server::builder()
        .max_concurrent_streams(STRANGER_STREAMS)
        .initial_stream_window_size(STRANGER_WINDOW)
        .initial_connection_window_size(STRANGER_WINDOW);
    let to_known = Server::builder()
        .max_concurrent_streams(KNOWN_STREAMS)
        .initial_stream_window_size(KNOWN_WINDOW)
        .initial_connection_window_size(2 * KNOWN_WINDOW);
    let port = Port { name: "the gRPC port", own, manners: MANNERS, crowded: Some(crowded) };
    let accepting = port.accept(listener, Accepted { strangers, known }, drain.clone());
    let accepting = accepting.map_err(ServeError::from);
    tokio::try_join!(accepting, serve(to_strangers, from_strangers), serve(to_known, from_known))?;
    Ok(())
}

fn incoming(
    connections: mpsc::Receiver<io::Result<Connection>>,
) -> impl Stream<Item = io::Result<GrpcConnection>> {
    ReceiverStream::new(connections).map(|connection| connection.map(GrpcConnection::from))
}
