//! One TLS port that issues certificates and streams configuration.

pub mod allowance;
pub mod attestation;
pub mod audit;
pub mod certificates;
pub mod connection;
mod exchange;
pub mod own;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod token_files;
pub mod turns;

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use futures_util::TryFutureExt;
use selvedge_api::MAX_SIGN_REQUEST;
use selvedge_ops::{
    Drain, Remark,
    seated::{Patience, Reading},
};
use tokio::sync::mpsc;

use self::{
    certificates::Certificates,
    connection::{Accepted, Connection, ConnectionTimeouts, Port},
    exchange::{Exchange, Limits, Services},
    own::OwnCertificate,
    stream::Streams,
};

/// Connections that were accepted and wait to be served.
const WAITING: usize = 64;
/// What a client has without a certificate, which needs one.
const OF_STRANGER: Limits = Limits {
    streams: 4,
    // The least that HTTP/2 allows for a connection.
    stream_window: (1 << 16) - 1,
    connection_window: (1 << 16) - 1,
};
/// What a client has with a certificate.
const OF_KNOWN: Limits = Limits {
    // Its stream, and one for the next certificate, while an older one may not have ended yet.
    streams: 8,
    stream_window: 256 << 10,
    connection_window: 512 << 10,
};
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
}

/// Serves the gRPC port until the drain begins and every stream has been told. `crowded` holds while proxies come faster than
/// they can be let in.
///
/// # Errors
/// If the listener fails.
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
    let services = Arc::new(Services {
        certificates: Arc::new(certificates),
        streams: Arc::new(streams),
        drain: drain.clone(),
    });
    let (open, mut ended) = mpsc::channel::<Infallible>(1);
    let port = Port { name: "the gRPC port", own, manners: MANNERS, crowded: Some(crowded) };
    let accepting = port.accept(listener, Accepted { strangers, known }, drain);
    let accepting = accepting.map_err(ServeError::from);
    let serving = async {
        tokio::join!(
            serve_each(from_strangers, OF_STRANGER, &services, &open),
            serve_each(from_known, OF_KNOWN, &services, &open),
        );
        Ok(())
    };
    tokio::try_join!(accepting, serving)?;
    drop(open);
    // Until the last connection has ended.
    let _ = ended.recv().await;
    Ok(())
}

/// Serves `connections` until there are no more.
async fn serve_each(
    mut connections: mpsc::Receiver<io::Result<Connection>>,
    limits: Limits,
    services: &Arc<Services>,
    open: &mpsc::Sender<Infallible>,
) {
    while let Some(connection) = connections.recv().await {
        if let Ok(connection) = connection {
            tokio::spawn(Exchange::new(connection, limits, services, open.clone()));
        }
    }
}
