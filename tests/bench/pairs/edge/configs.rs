//! The other proxies at the edge, as their users would configure them. No limits on time or requests, so that no round pays
//! for a handshake that it does not ask for.

use std::net::SocketAddr;

/// Where to listen, and where the app is.
type Sockets = (SocketAddr, SocketAddr);

pub(super) fn nginx((listen, app): Sockets, certificates: &str) -> String {
    format!(
        "daemon off; master_process off; worker_processes 1; pid nginx.pid; error_log stderr error;
         events {{ worker_connections 16384; }}
         http {{
             access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;
             client_body_temp_path body; proxy_temp_path proxy; client_max_body_size 0;
             proxy_request_buffering off; proxy_max_temp_file_size 0; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             upstream app {{
                 server {app}; keepalive 1024; keepalive_timeout 1h; keepalive_requests 1000000000;
             }}
             server {{
                 listen {listen} ssl http2;
                 ssl_protocols TLSv1.2 TLSv1.3;
                 ssl_certificate {certificates}/cert.pem;
                 ssl_certificate_key {certificates}/key.pem;
                 ssl_session_cache shared:tls:10m;
                 location / {{
                     proxy_pass http://app; proxy_http_version 1.1;
                     proxy_set_header Connection \"\"; proxy_set_header Host $host;
                     proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto https;
                 }}
             }}
         }}\n"
    )
}

pub(super) fn haproxy((listen, app): Sockets, certificates: &str) -> String {
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
             bind {listen} ssl crt {certificates}/pair.pem ssl-min-ver TLSv1.2 alpn h2,http/1.1
             option forwardfor
             http-request set-header X-Forwarded-Proto https
             default_backend app
         backend app
             server app {app} pool-purge-delay 1h\n"
    )
}

pub(super) fn envoy((listen, app): Sockets, certificates: &str) -> String {
    format!(
        "static_resources:
  listeners:
  - name: in
    address: {{socket_address: {{address: {listen_ip}, port_value: {listen_port}}}}}
    filter_chains:
    - filters:
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
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {certificates}/cert.pem}}
              private_key: {{filename: {certificates}/key.pem}}
  clusters:
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
        - endpoint: {{address: {{socket_address: {{address: {app_ip}, port_value: {app_port}}}}}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        common_http_protocol_options: {{idle_timeout: 0s}}
        explicit_http_config: {{http_protocol_options: {{}}}}
",
        listen_ip = listen.ip(),
        listen_port = listen.port(),
        app_ip = app.ip(),
        app_port = app.port(),
    )
}
