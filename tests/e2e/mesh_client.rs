//! A caller on the mesh's own wire, for tests that a sidecar would be too well behaved for.

use std::{net::SocketAddr, sync::Arc};

use selvedge_api::{preamble, wire};
use selvedge_certs::tls::{Credentials, Current, Live, session_name};
use selvedge_demo::workload::Workload;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The words of `proxy/src/io/framed.rs`: the end of one side of a session, and the beginning of another.
pub(crate) const END: [u8; 4] = [0; 4];
pub(crate) const OPEN: [u8; 4] = [0xff; 4];

/// Bytes of an opaque session's, as they go over the mesh.
pub(crate) fn frame(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).expect("a short one").to_be_bytes()[..], bytes].concat()
}

/// What a sidecar with these credentials connects with.
pub(crate) fn configuration(credentials: Credentials) -> Arc<Current> {
    Live::new().set(credentials).expect("usable credentials")
}

/// The first bytes inside TLS: a preamble for the app's port, then a GET.
pub(crate) fn request(app: SocketAddr) -> Vec<u8> {
    let mut bytes = http1(app);
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n");
    bytes
}

/// A preamble for HTTP/1.1 to the app's port.
pub(crate) fn http1(app: SocketAddr) -> Vec<u8> {
    preamble_for(wire::Carrier::Http1, app)
}

/// A preamble for this carrier to the app's port.
fn preamble_for(carrier: wire::Carrier, app: SocketAddr) -> Vec<u8> {
    let spoken = match carrier {
        wire::Carrier::Tcp | wire::Carrier::Unspecified => wire::AppProtocol::Unspecified,
        wire::Carrier::Http1 | wire::Carrier::Http2 => wire::AppProtocol::Http1,
    };
    preamble::encode(&wire::Preamble {
        carrier: carrier.into(),
        port: app.port().into(),
        source: "default/caller".to_owned(),
        app: spoken.into(),
        naming: None,
    })
}

/// A mesh peer's connection for HTTP/1.1 to `workload`, past its preamble.
pub(crate) async fn connect(configuration: &Current, workload: &Workload) -> TlsStream<TcpStream> {
    connect_for(wire::Carrier::Http1, configuration, workload).await
}

/// A mesh peer's connection for this carrier to `workload`, past its preamble.
pub(crate) async fn connect_for(
    carrier: wire::Carrier,
    configuration: &Current,
    workload: &Workload,
) -> TlsStream<TcpStream> {
    let tcp = TcpStream::connect(workload.inbound).await.expect("the sidecar listens");
    tcp.set_nodelay(true).expect("a socket");
    let connector = TlsConnector::from(Arc::clone(&configuration.client));
    let mut peer = connector.connect(session_name(workload.inbound), tcp).await.expect("a handshake");
    peer.write_all(&preamble_for(carrier, workload.app)).await.expect("it is taken");
    peer
}
