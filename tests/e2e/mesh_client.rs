//! A caller on the mesh's own wire, for tests that a sidecar would be too well behaved for.

use std::{net::SocketAddr, sync::Arc};

use selvedge_api::{preamble, wire};
use selvedge_certs::tls::{Credentials, Current, Live};

/// What a sidecar with these credentials connects with.
pub(crate) fn configuration(credentials: Credentials) -> Arc<Current> {
    Live::new().set(credentials).expect("usable credentials")
}

/// The first bytes inside TLS: a preamble for the app's port, then a GET.
pub(crate) fn request(app: SocketAddr) -> Vec<u8> {
    let mut bytes = preamble::encode(&wire::Preamble {
        carrier: wire::Carrier::Http1.into(),
        port: app.port().into(),
        source: "default/caller".to_owned(),
        app: wire::AppProtocol::Http1.into(),
    });
    bytes.extend_from_slice(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n");
    bytes
}
