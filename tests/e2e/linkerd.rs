//! What Linkerd's annotations of retries and time limits do, through real sidecars.

mod grpc;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use selvedge_demo::{
    call::{self, Answer, Call},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{net::TcpListener, time::sleep};

use crate::{BOTH_VERSIONS, SELVEDGE};

/// The service `stub`, and a route of each path that says something of its own.
const DOCUMENTS: &str = r#"
apiVersion: v1
kind: Service
metadata:
  name: stub
  annotations: {retry.linkerd.io/http: "418", timeout.linkerd.io/request: 700ms}
spec: {selector: {app: stub}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: statuses
  annotations: {retry.linkerd.io/http: "429,503", retry.linkerd.io/limit: "2"}
spec:
  parentRefs: [{group: core, kind: Service, name: stub, port: 80}]
  rules: [{matches: [{path: {value: /statuses}}], backendRefs: [{name: stub, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: attempts
  annotations: {retry.linkerd.io/timeout: 300ms, timeout.linkerd.io/request: 5s}
spec:
  parentRefs: [{group: core, kind: Service, name: stub, port: 80}]
  rules: [{matches: [{path: {value: /attempts}}], backendRefs: [{name: stub, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: answers
  annotations: {timeout.linkerd.io/response: 400ms, retry.linkerd.io/http: 5xx}
spec:
  parentRefs: [{group: core, kind: Service, name: stub, port: 80}]
  rules: [{matches: [{path: {value: /answers}}], backendRefs: [{name: stub, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: pauses
  annotations: {timeout.linkerd.io/idle: 400ms, retry.linkerd.io/http: 5xx}
spec:
  parentRefs: [{group: core, kind: Service, name: stub, port: 80}]
  rules: [{matches: [{path: {value: /pauses}}], backendRefs: [{name: stub, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: rest}
spec:
  parentRefs: [{group: core, kind: Service, name: stub, port: 80}]
  rules: [{backendRefs: [{name: stub, port: 80}]}]
"#;

/// A body in five parts, `pause` apart.
fn parts(pause: Duration) -> BoxBody<Bytes, Infallible> {
    let parts = stream::unfold(0, move |sent| async move {
        if sent == 5 {
            return None;
        }
        sleep(pause).await;
        Some((Ok(Frame::data(Bytes::from_static(b"part."))), sent + 1))
    });
    BodyExt::boxed(StreamBody::new(parts))
}

/// Answers as the query says: `first=STATUS` for the first request of all, `head=MILLIS` before the head of the first,
/// `every=MILLIS` before that of each, `parts=MILLIS` between parts of the body.
async fn respond(
    request: Request<Incoming>,
    seen: Arc<AtomicUsize>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    let is_first = seen.fetch_add(1, Ordering::SeqCst) == 0;
    let query = request.uri().query().unwrap_or_default().to_owned();
    let number = |name: &str| -> Option<u64> {
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    let _ = request.into_body().collect().await;
    let delay = number("every").or_else(|| number("head").filter(|_| is_first));
    sleep(Duration::from_millis(delay.unwrap_or_default())).await;
    let mut response = Response::new(parts(Duration::from_millis(number("parts").unwrap_or_default())));
    if let Some(status) = number("first").filter(|_| is_first) {
        *response.status_mut() = StatusCode::from_u16(u16::try_from(status).unwrap()).unwrap();
    }
    Ok(response)
}

struct Stub {
    mesh: Mesh,
    seen: Arc<AtomicUsize>,
}

impl Stub {
    async fn start() -> Self {
        let mut mesh = Mesh::empty(SELVEDGE);
        mesh.write("documents.yaml", DOCUMENTS).unwrap();
        mesh.start_control_plane().await.unwrap();
        let server = Spec { app: AppKind::None, ..Spec::server("stub-1", "stub", 9080) };
        mesh.add([Spec::client("caller"), server]).await.unwrap();
        let seen = Arc::<AtomicUsize>::default();
        let listener = TcpListener::bind(mesh.workload("stub-1").app).await.unwrap();
        tokio::spawn(serve(listener, Arc::clone(&seen)));
        poll(SOON, "the server answers", async || {
            let answer = mesh.workload("caller").call(call::to("stub", "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
        Self { mesh, seen }
    }

    /// What becomes of `call`, after how long, and how many requests the server saw of it.
    async fn call(&self, call: Call) -> (Result<Answer, String>, Duration, usize) {
        self.seen.store(0, Ordering::SeqCst);
        let began = Instant::now();
        let answer = self.mesh.workload("caller").call(call).await.map_err(|error| error.to_string());
        (answer, began.elapsed(), self.seen.load(Ordering::SeqCst))
    }
}

async fn serve(listener: TcpListener, seen: Arc<AtomicUsize>) {
    while let Ok((tcp, _)) = listener.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let service = service_fn(move |request| respond(request, Arc::clone(&seen)));
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(tcp), service).await;
        });
    }
}

/// A whole answer.
fn is_whole(answer: &Answer) -> bool {
    answer.status == 200 && answer.text() == "part.part.part.part.part."
}

#[tokio::test]
async fn linkerds_retries_follow_the_conditions_and_the_limit_of_the_route_or_its_service() {
    let stub = Stub::start().await;

    for version in BOTH_VERSIONS {
        for (path, status, requests) in [
            ("/statuses?first=503", 200, 2),
            ("/statuses?first=429", 200, 2),
            ("/statuses?first=500", 500, 1),
            ("/statuses?first=418", 418, 1),
            ("/?first=418", 200, 2),
            ("/?first=503", 503, 1),
        ] {
            let post = call::to("stub", path).version(version).body("a request's body");
            let (answer, _, seen) = stub.call(post).await;
            assert_eq!((answer.unwrap().status.as_u16(), seen), (status, requests), "{version:?} {path}");
        }
    }
}

#[tokio::test]
async fn the_time_of_an_attempt_is_followed_by_another_and_the_last_one_has_all_the_time_that_there_is() {
    let stub = Stub::start().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("stub", path).version(version);
        let (answer, _, seen) = stub.call(to("/attempts?head=2000").body("once")).await;
        assert!(is_whole(&answer.unwrap()) && seen == 2, "{version:?}: {seen}");
        let (answer, took, seen) = stub.call(to("/attempts?every=600").body("again")).await;
        assert!(is_whole(&answer.unwrap()) && seen == 2, "{version:?}: {seen} in {took:?}");
        assert!(took >= Duration::from_millis(900), "{took:?}");
        let (answer, took, seen) = stub.call(to("/?every=2000")).await;
        let answer = answer.unwrap();
        assert!(answer.proxy_error().unwrap().starts_with("timeout: "), "{}", answer.summary());
        assert!(
            (answer.status.as_u16(), seen) == (504, 1) && took < Duration::from_millis(1_900),
            "{took:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_its_limit_ends_and_is_not_tried_again() {
    let stub = Stub::start().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("stub", path).version(version);
        let (answer, took, seen) = stub.call(to("/answers?every=2000")).await;
        let answer = answer.unwrap();
        let error = answer.proxy_error().unwrap();
        assert!(error.starts_with("timeout: ") && error.contains("response timeout"), "{error}");
        assert_eq!((answer.status.as_u16(), seen), (504, 1), "{version:?}");
        assert!(took >= Duration::from_millis(400) && took < Duration::from_millis(1_900), "{took:?}");

        let (answer, took, _) = stub.call(to("/answers?parts=300")).await;
        assert!(answer.is_err(), "its body breaks off: {answer:?}");
        assert!(took < Duration::from_millis(1_400), "{took:?}");
        let (answer, ..) = stub.call(to("/answers?parts=20")).await;
        assert!(is_whole(&answer.unwrap()));
        assert_eq!(stub.call(to("/answers?first=500")).await.2, 2, "what is answered in time is tried again");
    }
}

#[tokio::test]
async fn a_stream_in_which_nothing_passes_ends_however_long_it_may_last() {
    let stub = Stub::start().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("stub", path).version(version);
        let (answer, took, _) = stub.call(to("/pauses?parts=250")).await;
        assert!(is_whole(&answer.unwrap()), "{version:?}");
        assert!(took >= Duration::from_millis(1_250), "{took:?}");
        let (answer, took, _) = stub.call(to("/pauses?parts=1500")).await;
        assert!(answer.is_err(), "its body breaks off: {answer:?}");
        assert!(took < Duration::from_millis(1_400), "{took:?}");
        let (answer, _, seen) = stub.call(to("/pauses?every=2000")).await;
        let answer = answer.unwrap();
        let error = answer.proxy_error().unwrap();
        assert!(error.starts_with("timeout: ") && error.contains("idle timeout"), "{error}");
        assert_eq!((answer.status.as_u16(), seen), (504, 1), "{version:?}");
    }
}
