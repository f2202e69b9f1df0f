//! The admin port: health and metrics for everybody, the rest for this host only.
//!
//! The port is reachable from outside (probes and Prometheus need it), so a route that reveals or changes
//! something asks where the caller is. It also asks which name the caller used and which page sent it:
//! a web page in a browser on this host could otherwise post to `127.0.0.1`.

use std::{
    convert::Infallible,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
};

use crate::{Drain, LogLevel, Readiness, Reason, guarded::HOPS};

/// Connections at once; probes, scrapes and a few people need far fewer.
const MAX_CONNECTIONS: usize = 128;
/// A client that sends no request for this long loses its connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause after a failed accept: without one, too many open files would be a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The format that Prometheus asks for first.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
            .merge(self.local)
            .layer(middleware::from_fn(loopback_only));
        let metrics = self.metrics;
        Router::new()
            .route("/live", get(|| async { "live\n" }))
            .route("/ready", get(ready))
            .with_state((self.readiness, self.drain))
            .route("/metrics", get(|| async move { ([(header::CONTENT_TYPE, OPENMETRICS)], metrics()) }))
            .merge(local)
    }
}

async fn ready(State((readiness, drain)): State<(Readiness, Drain)>) -> Response {
    let missing = readiness.missing();
    if drain.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: draining\n").into_response()
    } else if missing.is_empty() {
        "ready\n".into_response()
    } else {
        let body = format!("not ready; still missing: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
    }
}

async fn show_level(State(level): State<LogLevel>) -> String {
    format!("{}\n", level.filter())
}

async fn set_level(State(level): State<LogLevel>, filter: String) -> Response {
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
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let refused = match peer {
        Some(peer) if peer.to_canonical().is_loopback() => foreign(request.headers()),
        _ => Some("answered to callers on this host only (127.0.0.1 or ::1)"),
    };
    match refused {
        None => next.run(request).await,
        Some(why) => {
            let body = format!("{} is {why}\n", request.uri().path());
            (StatusCode::FORBIDDEN, body).into_response()
        }
    }
}

/// Whether a request on loopback was made by a web page, or under a name that DNS was made to give us, or came by way
/// of a sidecar on this host.
fn foreign(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(HOPS) {
        return Some("not answered by way of a sidecar; call the admin port itself");
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    if !is_local_name(host) {
        return Some("answered only when it is called by an IP address or localhost");
    }
    let own = |origin: &str| origin.strip_prefix("http://").is_some_and(|origin| origin == host);
    let origin = headers.get(header::ORIGIN)?;
    (!origin.to_str().is_ok_and(own)).then_some("not answered to web pages of another origin")
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
    let listener = TcpListener::from_std(listener)?;
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok((stream, peer)) => {
                let router = router.clone();
                connections.spawn(async move {
                    carry(peer, stream, router).await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin port cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Serves one connection of HTTP/1.1, from `peer`, until it ends.
pub async fn carry(
    peer: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(ConnectInfo(peer))));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;
    use crate::{listen, logging};

    struct Fixture {
        readiness: Readiness,
        drain: Drain,
        router: Router,
        // Keeps the log level's handle alive.
        _layer: Box<dyn std::any::Any>,
    }

    fn fixture() -> Fixture {
        let (layer, log_level) = logging::filter("info").unwrap();
        let (readiness, drain) = (Readiness::default(), Drain::default());
        let admin = Admin {
            readiness: readiness.clone(),
            drain: drain.clone(),
            log_level,
            metrics: Arc::new(|| "# EOF\n".into()),
            local: Router::new().route("/config", get(|| async { "secret" })),
        };
        Fixture { readiness, drain, router: admin.router(), _layer: Box::new(layer) }
    }

    async fn ask(
        router: &Router,
        peer: &str,
        request: axum::http::request::Builder,
        body: &'static str,
    ) -> (u16, String) {
        let mut request = request.body(Body::from(body)).unwrap();
        request.extensions_mut().insert(ConnectInfo(peer.parse::<SocketAddr>().unwrap()));
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 16).await.unwrap();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn request(method: &str, path: &str) -> axum::http::request::Builder {
        Request::builder().method(method).uri(path).header("host", "127.0.0.1:4191")
    }

    const HERE: &str = "127.0.0.1:50000";
    const ELSEWHERE: &str = "192.0.2.7:50000";

    #[tokio::test]
    async fn ready_names_what_is_missing_and_ends_with_the_drain() {
        let f = fixture();
        let policy = f.readiness.condition("policy");

        let (status, body) = ask(&f.router, ELSEWHERE, request("GET", "/ready"), "").await;
        assert_eq!((status, body.contains("policy")), (503, true), "{body}");

        policy.met();
        assert_eq!(ask(&f.router, ELSEWHERE, request("GET", "/ready"), "").await.0, 200);

        f.drain.begin(Reason::Signal);
        let (status, body) = ask(&f.router, ELSEWHERE, request("GET", "/ready"), "").await;
        assert_eq!((status, body.contains("draining")), (503, true), "{body}");
    }

    #[tokio::test]
    async fn what_reveals_or_changes_something_answers_on_loopback_only() {
        let f = fixture();

        for (method, path) in
            [("GET", "/config"), ("GET", "/log-level"), ("PUT", "/log-level"), ("POST", "/shutdown")]
        {
            let (status, body) = ask(&f.router, ELSEWHERE, request(method, path), "debug").await;
            assert_eq!(status, 403, "{path}");
            assert!(body.contains("on this host only"), "{body}");
        }
        assert!(!f.drain.is_draining());
        assert_eq!(ask(&f.router, HERE, request("GET", "/config"), "").await, (200, "secret".into()));
        assert_eq!(ask(&f.router, "[::ffff:127.0.0.1]:1", request("GET", "/config"), "").await.0, 200);
    }

    #[tokio::test]
    async fn a_web_page_on_this_host_is_refused() {
        let f = fixture();
        let rebound = Request::builder().uri("/config").header("host", "evil.example");
        let posted = request("POST", "/shutdown").header("origin", "https://evil.example");

        assert_eq!(ask(&f.router, HERE, rebound, "").await.0, 403);
        assert_eq!(ask(&f.router, HERE, posted, "").await.0, 403);
        let proxied = request("POST", "/shutdown").header(HOPS, "0123abcd");
        assert_eq!(ask(&f.router, HERE, proxied, "").await.0, 403);
        assert!(!f.drain.is_draining());

        let own = request("POST", "/shutdown").header("origin", "http://127.0.0.1:4191");
        assert_eq!(ask(&f.router, HERE, own, "").await.0, 200);
        assert!(f.drain.is_draining());
    }

    #[tokio::test]
    async fn the_log_level_changes_and_a_wrong_one_is_refused() {
        let f = fixture();

        let (status, body) = ask(&f.router, HERE, request("PUT", "/log-level"), "debug\n").await;
        assert_eq!((status, body.as_str()), (200, "debug\n"));
        assert_eq!(ask(&f.router, HERE, request("PUT", "/log-level"), "x=loud").await.0, 400);
        assert_eq!(ask(&f.router, HERE, request("GET", "/log-level"), "").await.1, "debug\n");
    }

    #[tokio::test]
    async fn the_server_knows_where_its_callers_are() {
        let listener = listen::tcp("--admin", "[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(serve(listener, fixture().router));

        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            stream
                .write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });

        let answer = answer.await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("secret"), "{answer}");
        server.abort();
    }
}
