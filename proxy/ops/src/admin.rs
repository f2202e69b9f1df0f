//! The admin port: health and metrics for everybody, the rest for this host only.
//!
//! The port is reachable from outside (probes and Prometheus need it), so a route that reveals or changes
//! something asks where the caller is. It also asks which name the caller used and which page sent it:
//! a web page in a browser on this host could otherwise post to `127.0.0.1`.
//!
//! The kubelet's probes come here, so a stranger who uses up the port would have the pod restarted. So no connection
//! waits for a place ([`crate::places`]). Only its address tells the kubelet from a stranger, and the address depends
//! on the network plugin (the node's, a bridge's, a tunnel's). The kubelet needs one place for some milliseconds. No
//! other address can take that place while one of them holds more.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};

use crate::{
    Drain, LogLevel, Readiness, Reason,
    guarded::HOPS,
    http1,
    places::{Limits, Places},
    scrape::Scrape,
    seated::{Patience, Reading, Seated},
};

/// The most connections at once. Probes, scrapes and a few people need far fewer. Known clients are those on this host.
const PLACES: Limits = Limits { strangers: 256, per_address: 32, known: 128, busy_stay: false };
/// How long a connection may take.
const PATIENCE: Patience = Patience {
    reading: Reading::Requests { head: Duration::from_secs(2), idle: Duration::from_secs(30) },
    writing: Duration::from_secs(10),
    bytes: u64::MAX,
};
/// The longest body that anything here takes: a log filter.
const MAX_BODY: usize = 16 << 10;
/// How long it may take to come.
const BODY_TIME: Duration = Duration::from_secs(2);
/// Bytes of answers that the kernel keeps for one client of the admin port.
const SEND_BUFFER: usize = 64 << 10;
/// The pause after a failed accept. Without it, too many open files would make a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What an admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// What `/ready` looks at.
    pub readiness: Readiness,
    /// What `/shutdown` begins; while draining, `/ready` says so.
    pub drain: Drain,
    /// What `/log-level` reads and changes.
    pub log_level: LogLevel,
    /// The text of `/metrics`, in OpenMetrics format.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// Further routes; answered on loopback only.
    pub local: Router,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

impl Admin {
    /// All routes: `/live /ready /metrics`, and on loopback `/log-level /shutdown` and those of `local`.
    pub fn router(self) -> Router {
        let local = Router::new()
            .route("/log-level", get(show_level).put(set_level).post(set_level))
            .with_state(self.log_level)
            .merge(Router::new().route("/shutdown", post(shutdown)).with_state(self.drain.clone()))
            .merge(self.local);
        let local = for_this_host(local);
        let metrics = Router::new().route("/metrics", get(metrics)).with_state(Scrape::new(self.metrics));
        Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .with_state((self.readiness, self.drain))
            .merge(metrics)
            .merge(local)
    }
}

/// `routes`, answered to callers on this host only, and to no web page of another origin.
pub fn for_this_host(routes: Router) -> Router {
    routes.layer(middleware::from_fn(loopback_only))
}

/// Where a page is that has a browser ask: only browsers send it, and pages cannot change it (Fetch Metadata).
const SITE: &str = "sec-fetch-site";

async fn ready(State((readiness, drain)): State<(Readiness, Drain)>) -> Response {
    let missing = readiness.missing();
    if drain.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n").into_response()
    } else if missing.is_empty() {
        let said: String = readiness.remarks().iter().map(|remark| format!("; {remark}")).collect();
        format!("ready{said}\n").into_response()
    } else {
        let body = format!("not ready; still missing: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}

async fn metrics(State(scrape): State<Scrape>, request: Request) -> Response {
    let here = peer(&request).is_some_and(is_here);
    scrape.answer(request.headers(), here)
}

async fn show_level(State(level): State<LogLevel>) -> String {
    format!("{}\n", level.filter())
}

async fn set_level(State(level): State<LogLevel>, body: Body) -> Response {
    let filter = match timeout(BODY_TIME, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(filter)) => String::from_utf8_lossy(&filter).into_owned(),
        Ok(Err(_)) => {
            return (StatusCode::PAYLOAD_TOO_LARGE, "the filter is too long\n").into_response();
        }
        Err(_) => {
            return (StatusCode::REQUEST_TIMEOUT, "the filter did not arrive in time\n").into_response();
        }
    };
    match level.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log level changed");
            format!("{}\n", level.filter()).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

async fn shutdown(State(drain): State<Drain>) -> &'static str {
    drain.begin(Reason::Asked);
    "shutting down\n"
}

async fn loopback_only(request: Request, next: Next) -> Response {
    let refused = match peer(&request) {
        Some(peer) if is_here(peer) => foreign(request.headers()),
        _ => Some("answered only to callers on this host (127.0.0.1 or ::1)"),
    };
    match refused {
        None => next.run(request).await,
        Some(why) => {
            let body = format!("{} is {why}\n", request.uri().path());
            (StatusCode::FORBIDDEN, body).into_response()
        }
    }
}

fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

fn is_here(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback()
}

/// Whether a request on loopback was made by a web page, or under a name that DNS was made to give us, or came by way
/// of a sidecar on this host.
fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(HOPS) {
        return Some("not answered through a sidecar; call the admin port directly");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local_name(host) {
        return Some("answered only when it is called by an IP address or localhost");
    }
    let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|origin| origin == host);
    let is_foreign = headers.get_all(header::ORIGIN).iter().any(|origin| !origin.to_str().is_ok_and(own));
    // A GET has no origin, and an image or a frame is one.
    let mut sites = headers.get_all(SITE).iter();
    let is_foreign = is_foreign || sites.any(|site| site != "same-origin" && site != "none");
    is_foreign
        .then_some("not answered to web pages from another origin, nor to links on them; type the address")
}

fn is_local_name(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok()
}

/// Serves `router` until the future is dropped, which also ends its connections.
///
/// # Errors
/// If the listener cannot be given to the runtime.
pub async fn serve(listener: std::net::TcpListener, router: Router) -> std::io::Result<Infallible> {
    // Its connections inherit it. What is sent to a client that does not read is copied for nothing, and probes wait.
    socket2::SockRef::from(&listener).set_send_buffer_size(SEND_BUFFER)?;
    let listener = TcpListener::from_std(listener)?;
    let places = Places::new(PLACES);
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = places.enter(peer.ip(), is_here(peer.ip())) {
                    let activity = place.activity();
                    let stream = Seated::new(stream, place, PATIENCE);
                    connections.spawn(http1::carry(peer, stream, activity, router.clone()));
                }
                // What it has said already is read before the next is let in, who may need its place.
                tokio::task::yield_now().await;
            }
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

#[cfg(test)]
mod tests;
