//! HAProxy, once as client of mutual TLS and once as its server, with HTTP/1.1, HTTP/2 or opaque TCP
//! between the two.

use std::net::SocketAddr;

use anyhow::Context;

use super::{Pair, Site, foreign, text};
use crate::certificates::SERVER_NAME;
use crate::floor::{Carrier, Half};
use crate::process::{Running, installed};

pub(super) fn start(name: &str, carrier: Carrier, site: &Site) -> anyhow::Result<Pair> {
    foreign(name, site, move |name, which, listen, to, site| half(name, which, carrier, listen, to, site))
}

/// One half: where it listens, and where it sends.
pub(super) fn half(
    name: &str,
    half: Half,
    carrier: Carrier,
    listen: SocketAddr,
    to: SocketAddr,
    site: &Site,
) -> anyhow::Result<Running> {
    let program = installed("haproxy").context("haproxy is not installed")?;
    let config = site.write(&format!("{name}.cfg"), &config(half, carrier, listen, to, site)?)?;
    // -db: in the foreground.
    Running::start_foreign(name, &program, &["-db", "-f", text(&config)?], &site.directory)
}

fn config(
    half: Half,
    carrier: Carrier,
    listen: SocketAddr,
    to: SocketAddr,
    site: &Site,
) -> anyhow::Result<String> {
    let certificates = site.certificates();
    let certificates = text(&certificates)?;
    let (mode, alpn) = match carrier {
        Carrier::Http1 => ("http\n             http-reuse always", "alpn http/1.1"),
        Carrier::Http2 => ("http\n             http-reuse always", "alpn h2"),
        Carrier::Tcp => ("tcp", ""),
    };
    let tls = format!(
        "ssl crt {certificates}/pair.pem ca-file {certificates}/ca.pem verify required \
         ssl-min-ver TLSv1.3 {alpn}"
    );
    let (bind, server) = match half {
        Half::Client => (String::new(), format!("{tls} sni str({SERVER_NAME}) verifyhost {SERVER_NAME}")),
        Half::Server => (tls, String::new()),
    };
    // Idle connections are kept, so that no round pays for a handshake. It asks for twice as many descriptors as
    // connections, and takes what it gets.
    Ok(format!(
        "global
             nbthread 1
             maxconn 12000
             no strict-limits
         defaults
             mode {mode}
             timeout connect 5s
             timeout client 1h
             timeout server 1h
             timeout http-keep-alive 1h
         frontend in
             bind {listen} {bind}
             default_backend next
         backend next
             server next {to} pool-purge-delay 1h {server}\n"
    ))
}
