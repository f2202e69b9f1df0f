//! Our gateway, as its users would write it.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::super::documents::DESTINATION_RULE;
use crate::certificates::SERVER_NAME;

/// What clients ask for.
pub(super) const HOST: &str = SERVER_NAME;

/// A gateway at `listen` for HTTPS, with a route to the service of the app, which has no sidecar.
pub(super) fn all(app: SocketAddr, listen: SocketAddr, certificates: &Path) -> anyhow::Result<String> {
    let encoded = |name: &str| {
        let file = certificates.join(name);
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::Ok(BASE64_STANDARD.encode(text))
    };
    Ok(format!(
        "apiVersion: v1
kind: Secret
metadata:
  name: edge
  namespace: bench
type: kubernetes.io/tls
data:
  tls.crt: {certificate}
  tls.key: {key}
---
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
---
apiVersion: v1
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
    targetPort: {app_port}
{DESTINATION_RULE}---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: app
  namespace: bench
spec:
  address: {app_ip}
  serviceAccount: app
  labels:
    app: app
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge
  namespace: bench
  annotations:
    config.selvedge.io/gateway: bench/edge
    config.selvedge.io/gateway-ports: 443={listen_port}
spec:
  address: {listen_ip}
  serviceAccount: edge
  labels:
    app: edge
",
        certificate = encoded("cert.pem")?,
        key = encoded("key.pem")?,
        app_ip = app.ip(),
        app_port = app.port(),
        listen_ip = listen.ip(),
        listen_port = listen.port(),
    ))
}
