//! nginx, once as reverse proxy with a client certificate and once as TLS server: HTTP/1.1 between the
//! two, which is all that it speaks upstream.

use std::net::SocketAddr;

use anyhow::Context;

use super::{Pair, Site, foreign, text};
use crate::certificates::SERVER_NAME;
use crate::floor::Half;
use crate::process::{Running, installed};

/// Without time or count limits on connections, so that no round pays for a handshake.
const CONNECTIONS: &str = "keepalive_timeout 1h; keepalive_requests 1000000000;";

pub(super) fn start(name: &str, site: &Site) -> anyhow::Result<Pair> {
    foreign(name, site, half)
}

/// One half: where it listens, and where it sends.
pub(super) fn half(
    name: &str,
    half: Half,
    listen: SocketAddr,
    to: SocketAddr,
    site: &Site,
) -> anyhow::Result<Running> {
    let program = installed("nginx").context("nginx is not installed")?;
    let prefix = site.directory.join(name);
    std::fs::create_dir_all(&prefix)?;
    let config = site.write(&format!("{name}.conf"), &config(half, listen, to, site)?)?;
    let args = ["-p", text(&prefix)?, "-e", "stderr", "-c", text(&config)?];
    Running::start_foreign(name, &program, &args, &site.directory)
}

fn config(half: Half, listen: SocketAddr, to: SocketAddr, site: &Site) -> anyhow::Result<String> {
    let certificates = site.certificates();
    let certificates = text(&certificates)?;
    let (tls, scheme) = match half {
        Half::Client => (
            format!(
                "listen {listen};
                 proxy_ssl_protocols TLSv1.3;
                 proxy_ssl_certificate {certificates}/cert.pem;
                 proxy_ssl_certificate_key {certificates}/key.pem;
                 proxy_ssl_trusted_certificate {certificates}/ca.pem;
                 proxy_ssl_verify on; proxy_ssl_verify_depth 3;
                 proxy_ssl_name {SERVER_NAME}; proxy_ssl_server_name on;"
            ),
            "https",
        ),
        Half::Server => (
            format!(
                "listen {listen} ssl;
                 ssl_protocols TLSv1.3;
                 ssl_certificate {certificates}/cert.pem;
                 ssl_certificate_key {certificates}/key.pem;
                 ssl_client_certificate {certificates}/ca.pem;
                 ssl_verify_client on; ssl_verify_depth 3;"
            ),
            "http",
        ),
    };
    Ok(format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 16384; }}
         http {{
             access_log off; {CONNECTIONS}
             client_body_temp_path body; proxy_temp_path proxy; client_max_body_size 0;
             proxy_request_buffering off; proxy_max_temp_file_size 0; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             upstream next {{ server {to}; keepalive 1024; {CONNECTIONS} }}
             server {{
                 {tls}
                 location / {{
                     proxy_pass {scheme}://next; proxy_http_version 1.1;
                     proxy_set_header Connection \"\"; proxy_set_header Host $host;
                 }}
             }}
         }}\n"
    ))
}
