//! A gateway as users run it: documents in a directory, the real control plane and proxy, and clients from outside.

mod backend_tls;
mod claims;
mod conformance;
mod conformance_backends;
mod conformance_calls;
mod drain;
mod limits;
mod listener_sets;
mod proxied;
mod requests;
mod strangers;
pub(crate) mod tls;
mod to_apps;

use std::{fs, net::SocketAddr, time::Duration};

use selvedge_demo::{
    call::{self, Answer, Call},
    processes::Process,
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::SELVEDGE;

/// How long a gateway may take to open a port.
const START: Duration = Duration::from_secs(20);

/// The host that clients ask for.
const HOST: &str = "shop.example.com";

/// The gateway's workload, wherever it can listen.
const WORKLOAD: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge-1
  namespace: default
  annotations: {config.selvedge.io/gateway: default/edge, config.selvedge.io/gateway-ports: '80=0,8080=0'}
spec: {address: 127.0.0.1, serviceAccount: edge, labels: {app: edge}}
---
";

/// A mesh with a gateway in front of it.
struct Edge {
    mesh: Mesh,
    process: Process,
    admin: SocketAddr,
}

fn gateway(listeners: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\n\
         spec: {{gatewayClassName: selvedge, listeners: [{listeners}]}}\n---\n"
    )
}

fn http_listener(name: &str, port: u16) -> String {
    format!("{{name: {name}, port: {port}, protocol: HTTP}}")
}

/// A route of this kind for [`HOST`], all of whose requests go to `service`.
fn route(kind: &str, service: &str, port: u16) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: web, namespace: default}}\n\
         spec: {{parentRefs: [{{name: edge}}], hostnames: [{HOST}], \
         rules: [{{backendRefs: [{{name: {service}, port: {port}}}]}}]}}\n---\n"
    )
}

/// Whatever of this mesh comes without mutual TLS is refused.
const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: default}
spec: {mtls: {mode: STRICT}}
---
";

impl Edge {
    /// In front of these workloads, with one listener of HTTP on port 80 and this route.
    async fn of(specs: impl IntoIterator<Item = Spec>, route: &str) -> Self {
        let mesh = Mesh::of(SELVEDGE, specs).await;
        let documents = [WORKLOAD, &gateway(&http_listener("http", 80)), STRICT, route].concat();
        mesh.write("edge.yaml", &documents).unwrap();
        let (process, admin) = start(&mesh, &[]).await;
        Self { mesh, process, admin }
    }

    /// Where clients reach `port`.
    async fn at(&self, port: u16) -> SocketAddr {
        self.process.listener(&format!("gateway/{port}"), START).await.unwrap()
    }

    /// What a client from outside gets.
    async fn call(&self, call: Call) -> Result<Answer, String> {
        call::send(self.at(80).await, call).await.map_err(|error| error.to_string())
    }

    /// The answer as soon as the route leads somewhere.
    async fn served(&self, path: &str) -> Answer {
        poll(SOON, "the gateway serves", async || {
            let answer = self.call(call::to(HOST, path)).await?;
            if answer.status.is_success() { Ok(answer) } else { Err(answer.summary()) }
        })
        .await
    }

    async fn admin(&self, path: &str) -> Answer {
        call::send(self.admin, call::to(&self.admin.to_string(), path)).await.unwrap()
    }
}

/// Starts the gateway's proxy with these flags.
async fn start(mesh: &Mesh, flags: &[&str]) -> (Process, SocketAddr) {
    start_in(mesh, "default", flags).await
}

/// The same, as the workload `edge-1` of this namespace.
async fn start_in(mesh: &Mesh, namespace: &str, flags: &[&str]) -> (Process, SocketAddr) {
    let file = mesh.directory().join("edge.token");
    let mut command = mesh.processes().command();
    command.args(["token", "create", "--service-account", "edge", "--ttl", "1h", "--namespace", namespace]);
    let output = command.arg("--data-dir").arg(mesh.data_dir()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(&file, output.stdout).unwrap();
    let (control_plane, file) = (mesh.control_plane_address().to_string(), file.display().to_string());
    let workload = format!("--workload={namespace}/edge-1");
    let usual = [
        "proxy",
        "--gateway",
        "--exit-on-stdin-close",
        &workload,
        "--admin=127.0.0.1:0",
        "--control-plane",
        &control_plane,
        "--token-file",
        &file,
    ];
    let process = mesh.processes().start("edge", usual.iter().chain(flags)).unwrap();
    let admin = process.listener("admin", START).await.unwrap();
    (process, admin)
}
