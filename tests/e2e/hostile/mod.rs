//! Hostile clients: what they send is refused on both listeners, and whoever else is there is served.

mod admin;
mod certificates;
mod control_plane;
mod floods;
mod http1;
mod http2;
mod identity;
mod membership;
mod overload;
mod own_listeners;
mod owners;
mod probes;
mod revoked;
mod slow;

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
use tokio::net::TcpListener;

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
}

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
        let mesh = Self { cluster, app };
        mesh.is_served().await;
        mesh
    }

    /// Where hostile clients connect, and what that is called.
    fn listeners(&self) -> [(&'static str, SocketAddr); 2] {
        [("outbound", self.client().outbound), ("inbound", self.target().inbound)]
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
    }

    /// Neither sidecar has died or grown out of proportion.
    async fn is_well(&self) {
        self.is_served().await;
        for workload in [self.client(), self.target()] {
            let process = workload.sidecar_process().expect("it was started");
            assert!(process.exit().is_none(), "{process:?} ended");
            let resident = resident_mib(process.pid());
            assert!(resident < 100, "{process:?} has {resident} MiB");
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

fn resident_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has one");
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
