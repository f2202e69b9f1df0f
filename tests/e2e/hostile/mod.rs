//! Hostile clients: what they send is refused on both listeners, and whoever else is there is served.

mod admin;
mod certificates;
mod control_plane;
mod expressions;
mod floods;
mod gateway;
mod http1;
pub(crate) mod http2;
mod identity;
mod membership;
mod overload;
mod own_listeners;
mod owners;
mod probes;
mod revoked;
mod slow;
mod strangers;

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use selvedge_demo::{
    call,
    cluster::Cluster,
    documents,
    workload::{AppKind, Spec, Workload},
};
use selvedge_tests::{gateway::Gateway, poll};
use tokio::net::TcpListener;

use crate::gateway::tls::{Pair, own, secret};

/// How long anything may take that happens at once.
const SOON: Duration = Duration::from_secs(10);

/// What every request is for.
const TARGET: &str = "target:9080";

/// The body of the answer to `/large`.
const LARGE: usize = 8 << 20;

/// A mesh of one client and one server, whose app is in this process and notes what it sees.
struct Mesh {
    cluster: Cluster,
    app: App,
    /// What stands before the server for clients from outside, and the root of its certificate.
    gateway: Option<(Gateway, Pair)>,
}

/// What the gateway serves: every host in plaintext, and [`SERVER_NAME`] over TLS.
const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: selvedge
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, hostname: edge.test, tls: {certificateRefs: [{name: edge}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: target}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: target, port: 9080}]}]}
---
";

/// The host of the gateway's listener for TLS.
const SERVER_NAME: &str = "edge.test";

impl Mesh {
    /// Both sidecars have these flags.
    async fn start(flags: &[(&str, &str)]) -> Self {
        let (mut cluster, _exits) =
            Cluster::create(Path::new(crate::SELVEDGE), None).expect("a loopback network of our own");
        cluster.write("service.yaml", &documents::service("target", "default", 9080)).expect("a file");
        cluster.start_control_plane().await.expect("a control plane");
        let mut target = Spec::server("target", "target", 9080);
        target.app = AppKind::None;
        let with_flags = |spec: Spec| flags.iter().fold(spec, |spec, (name, value)| spec.flag(name, value));
        cluster.add([with_flags(target), with_flags(Spec::client("client"))]).await.expect("sidecars");
        let app = App::start(cluster.workload("target").app).await;
        let mesh = Self { cluster, app, gateway: None };
        mesh.is_served().await;
        mesh
    }

    /// The same, with a gateway that has these flags too.
    async fn with_gateway(flags: &[(&str, &str)]) -> Self {
        let mut mesh = Self::start(flags).await;
        let pair = own(SERVER_NAME);
        mesh.cluster.write("edge.yaml", &(secret("edge", &pair, &pair) + GATEWAY)).expect("a file");
        let flags: Vec<String> = flags.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let gateway = Gateway::start_with(&mesh.cluster, "default/edge", &[80, 443], "", &flags).await;
        poll(SOON, "the gateway serves", async || {
            let answer =
                gateway.call(80, call::to(TARGET, "/normal")).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
        mesh.gateway = Some((gateway, pair));
        mesh.is_served().await;
        mesh
    }

    /// The gateway that it was started with.
    fn edge(&self) -> &Gateway {
        &self.gateway.as_ref().expect("it was started with one").0
    }

    /// Where hostile clients connect, and what that is called.
    fn listeners(&self) -> Vec<(&'static str, SocketAddr)> {
        let mut listeners = vec![("outbound", self.client().outbound), ("inbound", self.target().inbound)];
        listeners.extend(self.gateway.iter().map(|(gateway, _)| ("gateway", gateway.at(80))));
        listeners
    }

    fn client(&self) -> &Workload {
        self.cluster.workload("client")
    }

    fn target(&self) -> &Workload {
        self.cluster.workload("target")
    }

    /// A client that behaves is served, whatever else goes on.
    async fn is_served(&self) {
        for (listener, address) in self.listeners() {
            let answer = call::send(address, call::to(TARGET, "/normal").timeout(SOON)).await;
            let answer = answer.unwrap_or_else(|error| panic!("{listener}: {error}"));
            assert_eq!(answer.status, 200, "{listener}: {}", answer.summary());
            assert_eq!(answer.text(), "ok", "{listener}");
        }
        let Some((gateway, pair)) = &self.gateway else { return };
        let roots = [pair.der.der().clone()];
        let answer = gateway.call_tls(443, SERVER_NAME, &roots, call::to(SERVER_NAME, "/normal")).await;
        let answer = answer.unwrap_or_else(|error| panic!("over TLS: {error}"));
        assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "ok"), "{}", answer.summary());
    }

    /// Neither sidecar has died or grown out of proportion.
    async fn is_well(&self) {
        self.is_served().await;
        let sidecars = [self.client(), self.target()];
        let sidecars = sidecars.map(|workload| workload.sidecar_process().expect("it was started"));
        for process in sidecars.into_iter().chain(self.gateway.iter().map(|(gateway, _)| &gateway.process)) {
            assert!(process.exit().is_none(), "{process:?} ended");
            let resident = resident_mib(process.pid());
            assert!(resident < 64, "{process:?} has {resident} MiB");
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            selvedge_tests::nobody_panicked(&self.cluster);
        }
    }
}

/// What the process has allocated and holds in memory. The pages of its program are the same whatever strangers do.
fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a process has one");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib / 1024
}

/// An app that answers 200 to whole requests, and notes their paths.
struct App {
    seen: Arc<Mutex<Vec<String>>>,
}

impl App {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("an address of our own");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                let service = service_fn(move |request| answer(request, Arc::clone(&notes)));
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A sidecar that breaks off is what some of these tests are about.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { seen }
    }

    /// The paths of whole requests since the last time.
    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock().expect("no one panics with it"))
    }
}

async fn answer(
    request: http::Request<Incoming>,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let large = path == "/large";
    if request.into_body().collect().await.is_ok() {
        seen.lock().expect("no one panics with it").push(path);
    }
    let body = if large { Bytes::from_static(&[b'x'; LARGE]) } else { Bytes::from_static(b"ok") };
    Ok(http::Response::new(Full::new(body)))
}
