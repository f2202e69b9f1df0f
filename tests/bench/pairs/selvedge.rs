//! Our pair: the product's binary as control plane, client's sidecar and server's sidecar, with routing,
//! retries and ejection configured as a mesh that is used has them.
//!
//! The control plane's CPU time is not charged; it does nothing while requests flow.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Pair, Site};
use crate::floor::Carrier;
use crate::load::Target;
use crate::process::{Running, output};

/// The app's name in the mesh.
const AUTHORITY: &str = "app.bench.svc.cluster.local";

pub(super) fn start(name: &str, carrier: Carrier, site: &Site) -> anyhow::Result<Pair> {
    let mesh = site.directory.join(name);
    let (config, data) = (mesh.join("config"), mesh.join("data"));
    std::fs::create_dir_all(&config)?;
    std::fs::write(config.join("services.yaml"), services(site.app))?;
    std::fs::write(config.join("workloads.yaml"), workloads(site.app, None))?;

    let mut control_plane = Command::new(&site.selvedge);
    control_plane
        .args(["control-plane", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--exit-on-stdin-close"])
        .arg("--config-dir")
        .arg(&config)
        .arg("--data-dir")
        .arg(&data);
    let mut control_plane = Running::start(&format!("{name}-control-plane"), control_plane, &site.directory)?;
    let grpc = control_plane.address_of("grpc")?;

    let sidecar = |workload: &str| -> anyhow::Result<Running> {
        let command = sidecar(site, &data, carrier, grpc, workload)?;
        Running::start(&format!("{name}-{workload}"), command, &site.directory)
    };
    let mut server = sidecar("app")?;
    let inbound = server.address_of("inbound")?;
    std::fs::write(config.join("workloads.yaml"), workloads(site.app, Some(inbound)))?;
    let mut client = sidecar("client")?;
    let address = client.address_of("outbound")?;
    Ok(Pair {
        target: Target { address, authority: AUTHORITY.into() },
        halves: vec![client, server],
        beside: vec![control_plane],
    })
}

fn sidecar(
    site: &Site,
    data: &Path,
    carrier: Carrier,
    control_plane: SocketAddr,
    workload: &str,
) -> anyhow::Result<Command> {
    let mut token = Command::new(&site.selvedge);
    token.args(["token", "create", "--namespace", "bench", "--service-account", workload, "--ttl", "1h"]);
    token.arg("--data-dir").arg(data);
    let token = output(token)?;
    let mut command = Command::new(&site.selvedge);
    command
        .arg("proxy")
        .args(["--workload", &format!("bench/{workload}"), "--control-plane", &control_plane.to_string()])
        .args(["--outbound", "127.0.0.1:0", "--inbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--app", &site.app.to_string(), "--carrier", carrier.word(), "--exit-on-stdin-close"])
        .env("SELVEDGE_TOKEN", token.trim());
    Ok(command)
}

fn services(app: SocketAddr) -> String {
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
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: app
  namespace: bench
spec:
  hosts: [{AUTHORITY}]
  http:
  - match:
    - headers:
        end-user:
          exact: jason
    timeout: 5s
    route:
    - destination:
        host: {AUTHORITY}
  - timeout: 10s
    retries:
      attempts: 2
      perTryTimeout: 5s
      retryOn: connect-failure,refused-stream,unavailable,cancelled,5xx
    route:
    - destination:
        host: {AUTHORITY}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata:
  name: app
  namespace: bench
spec:
  host: {AUTHORITY}
  trafficPolicy:
    loadBalancer:
      simple: LEAST_REQUEST
    outlierDetection:
      consecutive5xxErrors: 5
      interval: 1s
      baseEjectionTime: 2s
      maxEjectionPercent: 100
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata:
  name: default
  namespace: bench
spec:
  mtls:
    mode: STRICT
",
        port = app.port()
    )
}

/// The two workloads. The app's says where its sidecar listens, once that is known.
fn workloads(app: SocketAddr, inbound: Option<SocketAddr>) -> String {
    let annotations = inbound
        .map(|inbound| format!("\n  annotations:\n    config.selvedge.io/inbound: \"{inbound}\""))
        .unwrap_or_default();
    format!(
        "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: app
  namespace: bench{annotations}
spec:
  address: {address}
  ports:
    http: {port}
  serviceAccount: app
  labels:
    app: app
    security.istio.io/tlsMode: istio
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: client
  namespace: bench
spec:
  address: {address}
  serviceAccount: client
  labels:
    app: client
    security.istio.io/tlsMode: istio
",
        address = app.ip(),
        port = app.port()
    )
}
