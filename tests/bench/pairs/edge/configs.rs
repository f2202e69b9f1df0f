//! The other proxies at the edge, as their users would configure them. No limits on time or requests, so that no round pays
//! for a handshake that it does not ask for.

use std::net::SocketAddr;

use super::super::envoy::http_options;
use super::Behind;
use crate::certificates::SERVER_NAME;

/// Where to listen, and where to send: to the app, or to its sidecar.
type Sockets = (SocketAddr, SocketAddr);

pub(super) fn nginx(sockets: Sockets, certificates: &str, behind: Behind) -> String {
    let of = |file: &str| format!("{certificates}/{file}.pem");
    let server = nginx_server(sockets, ("", nginx_proves(certificates, behind)), &of("cert"), &of("key"));
    nginx_with("master_process off;", sockets, &server)
}

/// With a server for each of `names`, and with a master, which is what is told to read its files again.
pub(super) fn nginx_hosts(sockets: Sockets, hosts: &str, names: &[String]) -> String {
    let server = |name: &String| {
        let of = |extension: &str| format!("{hosts}/{name}.{extension}");
        nginx_server(sockets, (&format!("server_name {name};"), None), &of("crt"), &of("key"))
    };
    let servers: String = names.iter().map(server).collect();
    let sizes = "server_names_hash_max_size 8192; server_names_hash_bucket_size 128;";
    nginx_with("user root;", sockets, &format!("{sizes}\n{servers}"))
}

fn nginx_with(process: &str, (_, app): Sockets, servers: &str) -> String {
    format!(
        "daemon off; {process} worker_processes 1; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 16384; }}
         http {{
             access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;
             client_body_temp_path body; proxy_temp_path proxy; client_max_body_size 0;
             proxy_request_buffering off; proxy_max_temp_file_size 0; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi; ssl_session_cache shared:tls:10m;
             upstream app {{
                 server {app}; keepalive 1024; keepalive_timeout 1h; keepalive_requests 1000000000;
             }}
             {servers}
         }}\n"
    )
}

/// How it proves itself to what is behind it, if that is asked for.
fn nginx_proves(certificates: &str, behind: Behind) -> Option<String> {
    let proves = format!(
        "proxy_ssl_protocols TLSv1.3;
         proxy_ssl_certificate {certificates}/cert.pem;
         proxy_ssl_certificate_key {certificates}/key.pem;
         proxy_ssl_trusted_certificate {certificates}/ca.pem;
         proxy_ssl_verify on; proxy_ssl_verify_depth 3;
         proxy_ssl_name {SERVER_NAME}; proxy_ssl_server_name on;"
    );
    (behind == Behind::Mesh).then_some(proves)
}

fn nginx_server(
    (listen, _): Sockets,
    (name, proves): (&str, Option<String>),
    certificate: &str,
    key: &str,
) -> String {
    let scheme = if proves.is_some() { "https" } else { "http" };
    let proves = proves.unwrap_or_default();
    format!(
        "server {{
             listen {listen} ssl http2; {name}
             ssl_protocols TLSv1.2 TLSv1.3;
             ssl_certificate {certificate};
             ssl_certificate_key {key};
             {proves}
             location / {{
                 proxy_pass {scheme}://app; proxy_http_version 1.1;
                 proxy_set_header Connection \"\"; proxy_set_header Host $host;
                 proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;
             }}
         }}\n"
    )
}

pub(super) fn haproxy(sockets: Sockets, certificates: &str, behind: Behind) -> String {
    let proves = match behind {
        Behind::App => String::new(),
        Behind::Mesh => format!(
            "ssl crt {certificates}/pair.pem ca-file {certificates}/ca.pem verify required ssl-min-ver TLSv1.3 \
             alpn h2 sni str({SERVER_NAME}) verifyhost {SERVER_NAME}"
        ),
    };
    haproxy_with(sockets, &format!("{certificates}/pair.pem"), &proves)
}

/// With all certificates of the directory, one of which it chooses by the name that TLS asks for.
pub(super) fn haproxy_hosts(sockets: Sockets, hosts: &str) -> String {
    haproxy_with(sockets, hosts, "")
}

fn haproxy_with((listen, next): Sockets, certificates: &str, proves: &str) -> String {
    format!(
        "global
             nbthread 1
             maxconn 12000
             no strict-limits
             tune.ssl.cachesize 100000
         defaults
             mode http
             http-reuse always
             timeout connect 5s
             timeout client 1h
             timeout server 1h
             timeout http-keep-alive 1h
         frontend in
             bind {listen} ssl crt {certificates} ssl-min-ver TLSv1.2 alpn h2,http/1.1
             option forwardfor
             http-request set-header X-Forwarded-Proto https
             default_backend app
         backend app
             server app {next} pool-purge-delay 1h {proves}\n"
    )
}

pub(super) fn envoy(sockets: Sockets, certificates: &str, behind: Behind) -> String {
    let proves = match behind {
        Behind::App => http_options("http_protocol_options: {}"),
        Behind::Mesh => format!(
            "{}
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {SERVER_NAME}
        common_tls_context:
            alpn_protocols: [h2]
            tls_params: {{tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}}
            tls_certificates:
            - certificate_chain: {{filename: {certificates}/cert.pem}}
              private_key: {{filename: {certificates}/key.pem}}
            validation_context:
              trusted_ca: {{filename: {certificates}/ca.pem}}
              match_typed_subject_alt_names:
              - {{san_type: DNS, matcher: {{exact: {SERVER_NAME}}}}}",
            http_options("http2_protocol_options: {}")
        ),
    };
    let certificates = format!(
        "            tls_certificates:
            - certificate_chain: {{filename: {certificates}/cert.pem}}
              private_key: {{filename: {certificates}/key.pem}}
"
    );
    envoy_with(sockets, "", &envoy_chain("", &certificates), &proves)
}

/// With a filter chain for each of `names`, whose certificates are in files that it watches.
pub(super) fn envoy_hosts(sockets: Sockets, hosts: &str, names: &[String]) -> String {
    let chain = |name: &String| {
        let names = format!("      filter_chain_match: {{server_names: [{name}]}}\n");
        let certificate = format!(
            "            tls_certificate_sds_secret_configs:
            - name: {name}
              sds_config: {{resource_api_version: V3, path_config_source: {{path: {hosts}/{name}.yaml}}}}
"
        );
        envoy_chain(&names, &certificate)
    };
    let chains: String = names.iter().map(chain).collect();
    let inspector = "    listener_filters:
    - name: envoy.filters.listener.tls_inspector
      typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector}
";
    envoy_with(sockets, inspector, &chains, &http_options("http_protocol_options: {}"))
}

/// A certificate in a file that it watches.
pub(super) fn envoy_secret(name: &str, chain: &str, key: &str) -> String {
    let inline = |pem: &str| pem.lines().map(|line| format!("        {line}\n")).collect::<String>();
    format!(
        "resources:
- '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret
  name: {name}
  tls_certificate:
    certificate_chain:
      inline_string: |
{}    private_key:
      inline_string: |
{}",
        inline(chain),
        inline(key)
    )
}

fn envoy_chain(names: &str, certificate: &str) -> String {
    format!(
        "    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: AUTO
          use_remote_address: true
          stream_idle_timeout: 0s
          common_http_protocol_options: {{idle_timeout: 0s}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{'@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: all
              domains: ['*']
              routes:
              - match: {{prefix: /}}
                route: {{cluster: app, timeout: 0s}}
{names}      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
{certificate}"
    )
}

fn envoy_with((listen, next): Sockets, inspector: &str, chains: &str, options: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {listen_ip}, port_value: {listen_port}}}}}
{inspector}    filter_chains:
{chains}  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    circuit_breakers:
      thresholds:
      - {{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {next_ip}, port_value: {next_port}}}}}}}{options}
",
        listen_ip = listen.ip(),
        listen_port = listen.port(),
        next_ip = next.ip(),
        next_port = next.port(),
    )
}
