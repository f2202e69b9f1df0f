//! Envoy, once as client of mutual TLS and once as its server, with HTTP/1.1, HTTP/2 or opaque TCP between the
//! two.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;

use super::{Pair, Site, foreign, text};
use crate::certificates::SERVER_NAME;
use crate::floor::{Carrier, Half};
use crate::process::{Running, installed};

/// The program itself: what PyPI's package puts on the PATH is a script that starts it.
pub(super) fn program() -> Option<PathBuf> {
    let named = std::env::var_os("SELVEDGE_BENCH_ENVOY").map(PathBuf::from).or_else(|| installed("envoy"))?;
    let packages = named.parent().and_then(|bin| bin.parent()).map(|prefix| prefix.join("lib"));
    let pythons = packages.and_then(|lib| std::fs::read_dir(lib).ok()).into_iter().flatten().flatten();
    let inside = pythons.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    inside.into_iter().find(|file| file.is_file()).or_else(|| named.is_file().then_some(named))
}

/// No limit on time or requests, so that no round pays for a handshake.
const HTTP_FILTER: &str = "
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: AUTO
          stream_idle_timeout: 0s
          common_http_protocol_options: {idle_timeout: 0s}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {prefix: /}
                route: {cluster: next, timeout: 0s}";

const TCP_FILTER: &str = "
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: in
          cluster: next
          idle_timeout: 0s";

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
    let program = program().context("envoy is not installed")?;
    let config = site.write(&format!("{name}.yaml"), &config(half, carrier, listen, to, site)?)?;
    let args = ["--config-path", text(&config)?, "--concurrency", "1", "--disable-hot-restart"];
    let args = [&args[..], &["--log-level", "error"]].concat();
    Running::start_foreign(name, &program, &args, &site.directory)
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
    let (alpn, upstream_protocol) = match (half, carrier) {
        (_, Carrier::Tcp) => ("", ""),
        (Half::Client, Carrier::Http1) => ("http/1.1", "http_protocol_options: {}"),
        (Half::Client, Carrier::Http2) => ("h2", "http2_protocol_options: {}"),
        // The app is asked in HTTP/1.1.
        (Half::Server, Carrier::Http1) => ("http/1.1", "http_protocol_options: {}"),
        (Half::Server, Carrier::Http2) => ("h2", "http_protocol_options: {}"),
    };
    let (filter, options) = match carrier {
        Carrier::Tcp => (TCP_FILTER, String::new()),
        Carrier::Http1 | Carrier::Http2 => (HTTP_FILTER, http_options(upstream_protocol)),
    };
    let common = format!(
        "common_tls_context:
            alpn_protocols: [{alpn}]
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates:
            - certificate_chain: {{filename: {certificates}/cert.pem}}
              private_key: {{filename: {certificates}/key.pem}}
            validation_context:
              trusted_ca: {{filename: {certificates}/ca.pem}}"
    );
    let (downstream, upstream) = match half {
        Half::Client => (
            String::new(),
            format!(
                "
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {SERVER_NAME}
        {common}
              match_typed_subject_alt_names:
              - {{san_type: DNS, matcher: {{exact: {SERVER_NAME}}}}}"
            ),
        ),
        Half::Server => (
            format!(
                "
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          {common}"
            ),
            String::new(),
        ),
    };
    // Breakers that never open.
    Ok(format!(
        "static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {listen_ip}, port_value: {listen_port}}}}}
    filter_chains:
    - filters:{filter}{downstream}
  clusters:
  - name: next
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}
    load_assignment:
      cluster_name: next
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {to_ip}, port_value: {to_port}}}}}}}{options}{upstream}
",
        listen_ip = listen.ip(),
        listen_port = listen.port(),
        to_ip = to.ip(),
        to_port = to.port(),
    ))
}

/// How a cluster is asked in a version of HTTP.
pub(super) fn http_options(upstream_protocol: &str) -> String {
    format!(
        "
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{idle_timeout: 0s}}
        explicit_http_config: {{{upstream_protocol}}}"
    )
}
