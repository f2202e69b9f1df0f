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
        assert!(body.contains("only to callers on this host"), "{body}");
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
    // As a page's image, frame or link asks.
    for (site, status) in
        [("cross-site", 403), ("same-site", 403), ("else", 403), ("same-origin", 200), ("none", 200)]
    {
        let asked = request("GET", "/config").header("sec-fetch-site", site);
        assert_eq!(ask(&f.router, HERE, asked, "").await.0, status, "{site}");
    }

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
        stream.write_all(b"GET /config HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });

    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("secret"), "{answer}");
    server.abort();
}
