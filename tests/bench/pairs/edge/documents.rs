//! Our gateway, as its users would write it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::documents::{DESTINATION_RULE, STRICT};
use super::Behind;
use crate::certificates::SERVER_NAME;

/// What clients ask for.
pub(super) const HOST: &str = SERVER_NAME;

/// A gateway at `listen` for HTTPS, with a route to the service of the app.
pub(super) fn all(listen: SocketAddr, certificates: &Path) -> anyhow::Result<String> {
    let encoded = |name: &str| {
        let file = certificates.join(name);
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::Ok(BASE64_STANDARD.encode(text))
    };
    Ok(format!(
        "{secret}---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: edge
  namespace: bench
spec:
  gatewayClassName: selvedge
  listeners:
  - name: https
    port: 443
    protocol: HTTPS
    tls:
      certificateRefs:
      - name: edge
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: app
  namespace: bench
spec:
  parentRefs:
  - name: edge
  rules:
  - matches:
    - headers:
      - name: end-user
        value: jason
    backendRefs:
    - name: app
      port: 80
  - timeouts:
      request: 10s
    backendRefs:
    - name: app
      port: 80
{edge}",
        secret = secret("edge", &encoded("cert.pem")?, &encoded("key.pem")?),
        edge = edge("bench", "bench/edge", listen),
    ))
}

/// A gateway at `listen` for the HTTPS of all `Ingress`es, and the service of the app.
pub(super) fn for_hosts(app: SocketAddr, listen: SocketAddr) -> String {
    self::app(app, Behind::App, None) + &edge("selvedge", "selvedge/ingress", listen)
}

/// An `Ingress` for `host` that leads to the service of the app, and its certificate.
pub(super) fn host(host: &str, chain: &str, key: &str) -> String {
    let (name, _) = host.split_once('.').unwrap_or((host, ""));
    let secret = secret(name, &BASE64_STANDARD.encode(chain), &BASE64_STANDARD.encode(key));
    format!(
        "{secret}---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {name}
  namespace: bench
spec:
  tls:
  - hosts:
    - {host}
    secretName: {name}
  rules:
  - host: {host}
    http:
      paths:
      - path: /
        pathType: Prefix
        backend:
          service:
            name: app
            port:
              name: http
"
    )
}

fn secret(name: &str, certificate: &str, key: &str) -> String {
    format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: {name}
  namespace: bench
type: kubernetes.io/tls
data:
  tls.crt: {certificate}
  tls.key: {key}
"
    )
}

/// The service of the app and its workload, which says where its sidecar listens once that is known.
pub(super) fn app(app: SocketAddr, behind: Behind, inbound: Option<SocketAddr>) -> String {
    let (meshed, strict) = match behind {
        Behind::App => ("", ""),
        Behind::Mesh => ("\n    security.istio.io/tlsMode: istio", STRICT),
    };
    let annotations = inbound
        .map(|inbound| format!("\n  annotations:\n    config.selvedge.io/inbound: \"{inbound}\""))
        .unwrap_or_default();
    format!(
        "apiVersion: v1
kind: Service
metadata:
  name: app
  namespace: bench
spec:
  selector:
    app: app
  ports:
  - name: http
    port: 80
    targetPort: {port}
{DESTINATION_RULE}{strict}---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: app
  namespace: bench{annotations}
spec:
  address: {address}
  serviceAccount: app
  labels:
    app: app{meshed}
",
        address = app.ip(),
        port = app.port(),
    )
}

/// The workload in `namespace` that is `gateway`.
fn edge(namespace: &str, gateway: &str, listen: SocketAddr) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge
  namespace: {namespace}
  annotations:
    config.selvedge.io/gateway: {gateway}
    config.selvedge.io/gateway-ports: 443={port}
spec:
  address: {address}
  serviceAccount: edge
  labels:
    app: edge
",
        address = listen.ip(),
        port = listen.port(),
    )
}
