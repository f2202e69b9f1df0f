//! A caller that speaks to a sidecar's inbound listener with whatever certificate it is given.
//!
//! For the refusals: the same bytes are sent with a good and with a wrong certificate, so that nothing but the
//! certificate can be what was refused.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use selvedge_api::{preamble, wire};
use selvedge_certs::{
    tls::{Credentials, Live, peer_of, session_name},
    verify::Peer,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// How long a sidecar may take for each exchange.
const LIMIT: Duration = Duration::from_secs(5);

/// How a sidecar took a caller.
#[derive(Debug)]
pub(super) enum Reception {
    /// It answered, with this status line.
    Answered(String),
    /// It ended the connection without an answer, in these words.
    Refused(String),
}

/// Sends a GET for the app's `port` to the sidecar at `inbound`.
///
/// # Errors
/// If nothing listens there, or it does nothing at all in time.
pub(super) async fn call(
    inbound: SocketAddr,
    port: u16,
    credentials: &Credentials,
) -> anyhow::Result<Reception> {
    tokio::time::timeout(LIMIT, async {
        let mut stream = match connect(inbound, credentials).await? {
            Ok((stream, _)) => stream,
            Err(refusal) => return Ok(Reception::Refused(refusal)),
        };
        // In TLS 1.3 the client is done before the server has looked at its certificate: the refusal comes
        // with the first read.
        let mut bytes = preamble::encode(&wire::Preamble {
            carrier: wire::Carrier::Http1.into(),
            port: port.into(),
            source: "default/caller".to_owned(),
            app: wire::AppProtocol::Http1.into(),
            naming: None,
        });
        bytes.extend_from_slice(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n");
        let sent = async {
            stream.write_all(&bytes).await?;
            stream.flush().await
        };
        if let Err(error) = sent.await {
            return Ok(Reception::Refused(error.to_string()));
        }
        let mut answer = Vec::new();
        let end = stream.read_to_end(&mut answer).await;
        let status = String::from_utf8_lossy(&answer).lines().next().map(str::to_owned);
        Ok(match (status, end) {
            (Some(status), _) => Reception::Answered(status),
            (None, Err(error)) => Reception::Refused(error.to_string()),
            (None, Ok(_)) => Reception::Refused("closed without an answer".to_owned()),
        })
    })
    .await
    .with_context(|| format!("the sidecar at {inbound} neither answered nor refused within {LIMIT:?}"))?
}

/// Who the sidecar at `inbound` proves to be, and until when.
///
/// # Errors
/// If there is no handshake with it.
pub(super) async fn certificate(inbound: SocketAddr, credentials: &Credentials) -> anyhow::Result<Peer> {
    let connected = tokio::time::timeout(LIMIT, connect(inbound, credentials)).await;
    let connected = connected.with_context(|| format!("no handshake with {inbound} within {LIMIT:?}"))??;
    match connected {
        Ok((_, peer)) => Ok(peer),
        Err(refusal) => bail!("no handshake with {inbound}: {refusal}"),
    }
}

/// A connection and who is at its other end; the inner `Err` = refused, in words.
async fn connect(
    inbound: SocketAddr,
    credentials: &Credentials,
) -> anyhow::Result<Result<(TlsStream<TcpStream>, Peer), String>> {
    let current = Live::new().set(credentials.clone())?;
    let tcp = TcpStream::connect(inbound).await.with_context(|| format!("cannot connect to {inbound}"))?;
    let connector = TlsConnector::from(Arc::clone(&current.client));
    match connector.connect(session_name(inbound), tcp).await {
        Ok(stream) => {
            let peer = peer_of(stream.get_ref().1, &current, SystemTime::now())?;
            Ok(Ok((stream, peer)))
        }
        Err(error) => Ok(Err(error.to_string())),
    }
}
