//! A client that begins with TLS. The name that it asks for chooses a listener, which ends TLS or passes it on.

use std::{io, rc::Rc, sync::Arc};

use bytes::BytesMut;
use futures_util::future::FutureExt;
use http::HeaderValue;
use selvedge_certs::tls::client_cert;
use selvedge_model::{Layer, facts::Connection};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{StartHandshake, rustls::server::Accepted, server::TlsStream};

use super::{
    Begun, NO_CERTIFICATE, NO_LISTENER, PLAINTEXT_AT_TLS, Served, admit, first, proxied::unannounced,
    refuse_connection,
};
use crate::{
    arrival::{Arrival, Direction},
    authorize::admit_opaque,
    bind::{BoundListener, BoundPort, BoundTls, Life},
    detect::{
        Detected, First,
        hello::{Answered, answered},
    },
    error::{Failure, Reason},
    facts,
    identify::{HANDSHAKE_TIMEOUT, HandshakeError, counted, in_time},
    io::{Duplex, Prefixed, ReadAhead, reset},
    lifetime, lookup,
    opaque::{self, Outgoing},
    serve,
    step::{AtGateway, Conn, Entry, HttpVersion, Request, Side, Step},
    worker::Worker,
};

/// What a client is told for which there is no listener (RFC 6066, section 3: `unrecognized_name`).
const UNRECOGNIZED_NAME: u8 = 112;

/// What a client is told whose listener has no usable certificate (RFC 8446, section 6.2: `handshake_failure`).
const HANDSHAKE_FAILURE: u8 = 40;

/// A client's connection, and what is known of it before its hello is answered.
struct Asked {
    begun: Begun,
    port: Arc<BoundPort>,
    /// The name that it asks for, lower case.
    server_name: Option<String>,
}

/// Carries one connection to a port for TLS. `Some`: there are requests in it, which are served so.
pub(super) async fn carry(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    begun: Begun,
    port: Arc<BoundPort>,
) -> Option<Served> {
    let Begun { mut tcp, mut read, arrival, client } = begun;
    let Some(First::Bytes(detected)) = first(&worker, &mut tcp, &mut read, &port).await else { return None };
    if detected != Detected::Tls {
        let failure = unannounced(&read).unwrap_or_else(|| Failure::new(Reason::Protocol, PLAINTEXT_AT_TLS));
        refuse_connection(&worker, arrival, &failure);
        reset(&tcp);
        return None;
    }
    let hello = {
        let mut counting = counted(&worker, &client, &mut tcp);
        in_time(&client, answered(&mut counting, &mut read)).await
    };
    let (accepted, length) = match hello {
        Ok(Answered::Accepted(accepted, length)) => (accepted, length),
        Ok(Answered::Refused(error, alert)) => {
            let failure = Failure::new(Reason::Tls, format!("the TLS handshake failed: {error}"));
            refuse_with(&worker, arrival, tcp, &alert, &failure).await;
            return None;
        }
        Err(error) => {
            refuse_handshake(&worker, arrival, &error);
            return None;
        }
    };
    let server_name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
    let begun = Begun { tcp, read, arrival, client };
    let asked = Asked { begun, port, server_name };
    let Some(place) = asked.port.served.listener(asked.server_name.as_deref()) else {
        let failure = Failure::new(Reason::NoRoute, NO_LISTENER);
        let alert = alert(UNRECOGNIZED_NAME);
        refuse_with(&worker, arrival, asked.begun.tcp, &alert, &failure).await;
        return None;
    };
    let BoundListener { tls, life, .. } = &asked.port.listeners[place];
    let (tls, life) = (tls.clone(), life.clone());
    match tls.as_deref() {
        Some(BoundTls::Terminate { edge: Some(edge), settings, .. }) => {
            let (config, http) = (Arc::clone(&edge.config), settings.http);
            let tls = Handshake { accepted, length, config, http };
            return Box::pin(terminate(worker, path, asked, tls, life)).await;
        }
        Some(BoundTls::Passthrough) => Box::pin(pass_through(worker, asked, life)).await,
        Some(BoundTls::Terminate { edge: None, .. }) | None => {
            let failure = Failure::new(Reason::Certificate, NO_CERTIFICATE);
            let alert = alert(HANDSHAKE_FAILURE);
            refuse_with(&worker, arrival, asked.begun.tcp, &alert, &failure).await;
        }
    }
    None
}

/// A handshake that has begun, and how it goes on.
struct Handshake {
    accepted: Box<Accepted>,
    /// How many of the bytes that were read are its hello.
    length: usize,
    config: Arc<tokio_rustls::rustls::ServerConfig>,
    /// Whether requests come then.
    http: bool,
}

/// Ends TLS, and carries what is inside; `Some`: requests.
async fn terminate(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    asked: Asked,
    tls: Handshake,
    life: Life,
) -> Option<Served> {
    let Asked { begun: Begun { tcp, mut read, arrival, client }, port, server_name } = asked;
    let rest = read.split_off(tls.length).freeze();
    let start = StartHandshake::from_parts(*tls.accepted, ReadAhead::new(Prefixed::new(rest, tcp)));
    drop(read);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, Box::pin(start.into_stream(tls.config))).await;
    let mut stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            refuse_handshake(&worker, arrival, &error.into());
            return None;
        }
        Err(_) => {
            refuse_handshake(&worker, arrival, &HandshakeError::Timeout);
            return None;
        }
    };
    let xfcc = client_cert(stream.get_ref().1);
    if xfcc.is_some() {
        client.mark_known();
    } else if !admit(&worker, arrival, &client, &stream) {
        return None;
    }
    let open = worker.metrics.connection_opened(Direction::Inbound, false);
    if !tls.http {
        stream.get_mut().0.turn_on();
        carry_opaque(worker, stream, BytesMut::new(), arrival, &port, server_name, life).await;
        return None;
    }
    let until = lifetime::until(Rc::clone(&worker), Direction::Inbound, None).within(life.clone());
    let version = version(&stream);
    let gateway = AtGateway {
        listener: Some(life),
        server_name: server_name.map(Into::into),
        xfcc: xfcc.and_then(|xfcc| HeaderValue::try_from(xfcc).ok()),
        entry: Entry::to(port.served.port, Some(Rc::clone(&client))),
        ..AtGateway::new(arrival, port, client, worker.settings.trusted_hops)
    };
    let conn = Conn::new(arrival, version, Side::Gateway(Box::new(gateway)));
    let served = serve::serve(version, stream, path, Rc::new(conn), until);
    Some(served.map(|()| drop(open)).boxed_local())
}

/// What the two have agreed to speak.
fn version<S>(stream: &TlsStream<S>) -> HttpVersion {
    match stream.get_ref().1.alpn_protocol() {
        Some(selvedge_certs::tls::ALPN_HTTP2) => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    }
}

/// Carries TLS to the backend as it is.
async fn pass_through(worker: Rc<Worker>, asked: Asked, life: Life) {
    let Asked { begun: Begun { tcp, read, arrival, client }, port, server_name } = asked;
    if !admit(&worker, arrival, &client, &tcp) {
        return;
    }
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    carry_opaque(worker, tcp, read, arrival, &port, server_name, life).await;
}

/// Carries what comes on `stream`, of which `read` has come, to where the rules for `server_name` say.
async fn carry_opaque(
    worker: Rc<Worker>,
    stream: impl Duplex,
    read: BytesMut,
    arrival: Arrival,
    port: &BoundPort,
    server_name: Option<String>,
    life: Life,
) {
    let connection = Connection {
        layer: Layer::Tls,
        server_name: server_name.as_deref(),
        ..facts::at_gateway(arrival.peer, arrival.via, port.served.port)
    };
    let host = || lookup::opaque_host(port, server_name.as_deref());
    match admit_opaque(&worker, &connection).and_then(|()| host()) {
        Ok(destination) => {
            let outgoing = Outgoing::to(arrival.peer, None, destination);
            let outgoing =
                outgoing.with_tls(server_name).through_gateway(port.served.port, arrival.via, life);
            opaque::outbound::carry(worker, outgoing, stream, read).await;
        }
        Err(failure) => {
            refuse_connection(&worker, arrival, &failure);
            stream.abort();
        }
    }
}

/// Counts and logs a handshake that came to nothing.
fn refuse_handshake(worker: &Worker, arrival: Arrival, error: &HandshakeError) {
    worker.metrics.connection_refused(Direction::Inbound, false, error.reason());
    tracing::debug!(peer = %arrival.peer, %error, "connection refused");
}

/// Counts and logs a connection that is refused, and tells its client by `alert`.
async fn refuse_with(worker: &Worker, arrival: Arrival, mut tcp: TcpStream, alert: &[u8], failure: &Failure) {
    refuse_connection(worker, arrival, failure);
    let told: io::Result<()> = async {
        // A few bytes, for which a new connection always has room.
        tcp.write_all(alert).await?;
        tcp.shutdown().await
    }
    .await;
    if let Err(error) = told {
        tracing::debug!(peer = %arrival.peer, %error, "the client could not be told why it is refused");
    }
}

/// A record with a fatal alert (RFC 8446, sections 5.1 and 6).
const fn alert(description: u8) -> [u8; 7] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    [ALERT, 3, 3, 0, 2, FATAL, description]
}
