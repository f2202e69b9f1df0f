//! The kubelet's probes and Prometheus' scrapes of the app, which come to the sidecar's admin port.
//!
//! Both come in plaintext and prove no identity, so a policy may refuse them at the app's own ports. The injector
//! points them here, where nothing is redirected, and hands over the originals. The proxy makes each one anew whenever
//! it is asked for, as the kubelet would (`pkg/probe`), on the control thread. The answer says what failed. What is
//! asked comes from the pod's own YAML, and nothing from the caller. Anybody may call, so the app is not asked too
//! often (`shared`).

mod grpc;
mod http;
mod metrics;
mod shared;
mod words;

use std::{collections::BTreeMap, fmt, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::HttpGet;
use hyper::{HeaderMap, StatusCode};
use selvedge_ops::places::Places;
use tokio::{net::TcpStream, time::timeout};

use self::shared::{Shared, Told};
pub use self::words::{AppMetrics, AppProbes, WordsError};
use crate::settings::{OwnListeners, Way};

/// How the kubelet names itself.
const USER_AGENT: &str = "kube-probe/1.0";

/// One of the app's probes or hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Probe {
    asks: Asks,
    port: u16,
    /// How long the app may take. `None`: as long as the caller waits.
    timeout: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Asks {
    /// `httpGet`: whether the answer's status is 200 to 399.
    Http(HttpGet),
    /// `tcpSocket`: whether there is a connection.
    Tcp,
    /// `grpc`: whether the health service (`grpc.health.v1.Health`) says `SERVING` of this service.
    Grpc(String),
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// The app answered, and that it is not well.
    #[error("answered {status}{}", said(body))]
    Status { status: StatusCode, body: String },
    /// The app, or what has its port, does not do what it should.
    #[error("{0}")]
    Otherwise(String),
    /// It did not in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The probes and metrics of the app, and where it is.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// The app's address: the pod's own.
    pub app: std::net::IpAddr,
    /// Its probes.
    pub probes: AppProbes,
    /// Its metrics, if they are scraped through us.
    pub metrics: Option<AppMetrics>,
    /// Our own listeners, which are not the app, whatever the pod's YAML says.
    pub own: Arc<OwnListeners>,
}

/// [`ProbeSettings`], and the answers that callers share.
struct Asking {
    asked: ProbeSettings,
    /// By the probe's path.
    shared: BTreeMap<String, Shared>,
    scrapes: Arc<Places>,
}

/// `/app-health/…`, `/app-lifecycle/…` and `/metrics/app`; answered to everybody.
pub fn routes(asked: ProbeSettings) -> Router {
    let shared = asked.probes.paths().map(|path| (path.to_owned(), Shared::default())).collect();
    let scrapes = Places::new(metrics::AT_ONCE);
    Router::new()
        .route("/app-health/{container}/{probe}", get(probe))
        .route("/app-lifecycle/{container}/{hook}", get(probe))
        .route("/metrics/app", get(metrics::scrape))
        .with_state(Arc::new(Asking { asked, shared, scrapes }))
}

async fn probe(State(asking): State<Arc<Asking>>, request: Request) -> Response {
    let path = request.uri().path();
    let (Some(probe), Some(shared)) = (asking.asked.probes.find(path), asking.shared.get(path)) else {
        let words = "this pod's app has no such probe: the pod had none when it was injected\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let at = SocketAddr::new(asking.asked.app, probe.port);
    let headers = request.headers();
    let told = shared.told(async {
        let made = match asking.asked.refuse_own(at) {
            Ok(()) => probe.make(at, headers, &asking.asked).await,
            Err(failed) => Err(failed),
        };
        told(probe, path, at, made)
    });
    told.await.into_response()
}

fn told(probe: &Probe, path: &str, at: SocketAddr, made: Result<(), Failed>) -> Told {
    let Err(failed) = made else { return (StatusCode::OK, "passed\n".to_owned()) };
    tracing::info!(path, %failed, "{probe} of the app at {at} failed");
    // The kubelet would not take anything but an HTTP failure status for a failure.
    let status = match &failed {
        Failed::Status { status, .. } if status.as_u16() >= 400 => *status,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, format!("{probe} of the app at {at}: {failed}\n"))
}

impl ProbeSettings {
    fn refuse_own(&self, at: SocketAddr) -> Result<(), Failed> {
        self.own.refuse_own(at, Way::App).map_err(|failure| Failed::Otherwise(failure.what.into_owned()))
    }
}

impl Probe {
    async fn make(&self, at: SocketAddr, headers: &HeaderMap, asked: &ProbeSettings) -> Result<(), Failed> {
        let asking = async {
            match &self.asks {
                Asks::Http(get) => get.passes(at, headers, asked).await,
                Asks::Tcp => connect(at).await.map(drop),
                Asks::Grpc(service) => grpc::is_serving(at, service).await,
            }
        };
        match self.timeout {
            None => asking.await,
            Some(limit) => timeout(limit, asking).await.unwrap_or(Err(Failed::Timeout(limit))),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.asks {
            Asks::Http(get) => write!(f, "GET {}", get.path),
            Asks::Tcp => f.write_str("a TCP connection"),
            Asks::Grpc(service) => write!(f, "the gRPC health check of {service:?}"),
        }
    }
}

/// A connection to the app: by the proxy's user, whose connections are not redirected.
async fn connect(at: SocketAddr) -> Result<TcpStream, Failed> {
    let stream = TcpStream::connect(at).await;
    stream.map_err(|error| Failed::Otherwise(format!("no connection: {error}")))
}

/// The beginning of a body, as words.
fn said(body: &str) -> String {
    match body.trim() {
        "" => String::new(),
        body => format!(": {body}"),
    }
}

#[cfg(test)]
mod tests;
