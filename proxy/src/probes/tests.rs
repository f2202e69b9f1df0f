use std::net::IpAddr;

use axum::{Router, body::Body, extract::Request, http::HeaderMap, routing::get};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};
use tower::ServiceExt;

use super::*;

/// An app on a free port of loopback.
struct App {
    port: u16,
    _serving: JoinSet<()>,
}

impl App {
    async fn start(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { port, _serving: serving }
    }
}

fn own() -> Arc<OwnListeners> {
    Arc::new(crate::settings::listeners())
}

/// The status and body of the admin port's answer for one probe.
async fn asked(probe: Value) -> (u16, String) {
    let probes = json!({ "/app-health/app/livez": probe });
    let asked = ProbeSettings {
        app: IpAddr::from([127, 0, 0, 1]),
        probes: probes.to_string().parse().unwrap(),
        metrics: None,
        own: own(),
    };
    get_of(routes(asked), "/app-health/app/livez").await
}

async fn get_of(router: Router, path: &str) -> (u16, String) {
    let request = Request::get(path).header("user-agent", "kube-probe/1.29").body(Body::empty()).unwrap();
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn an_http_probe_is_made_with_its_headers_and_its_status_is_the_answer() {
    let app = App::start(Router::new().route(
        "/healthz",
        get(|headers: HeaderMap| async move {
            let has = |name: &str, value: &str| headers.get(name).is_some_and(|found| found == value);
            match has("host", "web.example") && has("x-a", "1") && has("user-agent", "kube-probe/1.29") {
                true => (StatusCode::OK, "fine"),
                false => (StatusCode::IM_A_TEAPOT, "other headers"),
            }
        }),
    ))
    .await;
    let headers = json!([{ "name": "Host", "value": "web.example" }, { "name": "X-A", "value": "1" }]);

    let with = asked(
        json!({ "httpGet": { "path": "/healthz?x=1", "port": "http", "httpHeaders": headers }, "portNumber": app.port }),
    );
    let without = asked(json!({ "httpGet": { "path": "healthz", "port": app.port } }));

    assert_eq!(with.await, (200, "passed\n".to_owned()));
    let (status, words) = without.await;
    assert_eq!(status, 418);
    assert!(words.contains("GET /healthz of the app at 127.0.0.1"), "{words}");
    assert!(words.contains("answered 418 I'm a teapot: other headers"), "{words}");
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_app_itself_and_is_health_elsewhere() {
    let to = |place: String| get(move || async move { (StatusCode::FOUND, [("location", place)]) });
    let app = App::start(
        Router::new()
            .route("/a/begin", to("end".to_owned()))
            .route("/a/end", get(|| async { StatusCode::SERVICE_UNAVAILABLE }))
            .route("/away", to("https://login.example/".to_owned()))
            .route("/round", to("/round".to_owned())),
    )
    .await;
    let path = |path: &str| asked(json!({ "httpGet": { "path": path, "port": app.port } }));

    assert_eq!(path("/a/begin").await.0, 503);
    assert_eq!(path("/away").await.0, 200);
    let (status, words) = path("/round").await;
    assert_eq!((status, words.contains("more than 10 times")), (503, true), "{words}");
}

#[tokio::test]
async fn no_redirect_of_the_apps_leads_to_a_listener_of_ours() {
    for ours in
        ["http://127.0.0.1:4191/app-health/app/livez", "//127.0.0.1:4191/config", "https://127.0.0.1:4143"]
    {
        let to = get(move || async move { (StatusCode::FOUND, [("location", ours)]) });
        let app = App::start(Router::new().route("/", to)).await;

        let (status, words) = asked(json!({ "httpGet": { "path": "/", "port": app.port } })).await;

        let is_refused = words.contains("is an admin port") || words.contains("own listener");
        assert_eq!((status, is_refused), (503, true), "{ours}: {words}");
    }
}

#[tokio::test]
async fn who_does_not_listen_or_answer_fails_with_the_reason() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();

    for handler in ["httpGet", "tcpSocket", "grpc"] {
        let (status, words) = asked(json!({ handler: { "port": free } })).await;
        assert_eq!((status, words.contains("no connection")), (503, true), "{handler}: {words}");
    }
    assert_eq!(asked(json!({ "tcpSocket": { "port": port } })).await.0, 200);
    let (status, words) = asked(json!({ "httpGet": { "port": port }, "timeoutSeconds": 1 })).await;
    assert_eq!((status, words.contains("no answer within 1s")), (503, true), "{words}");
}

#[tokio::test]
async fn the_grpc_health_service_is_asked_of_the_service_that_the_probe_names() {
    use tonic::{codegen::http, server::Grpc};
    use tonic_prost::ProstCodec;

    use crate::checks::grpc::{HealthCheckRequest, HealthCheckResponse};

    #[derive(Clone)]
    struct Health;
    impl tonic::server::UnaryService<HealthCheckRequest> for Health {
        type Response = HealthCheckResponse;
        type Future = std::future::Ready<Result<tonic::Response<HealthCheckResponse>, tonic::Status>>;

        fn call(&mut self, request: tonic::Request<HealthCheckRequest>) -> Self::Future {
            let answer = match request.into_inner().service.as_str() {
                "well" => Ok(tonic::Response::new(HealthCheckResponse { status: 1 })),
                "ill" => Ok(tonic::Response::new(HealthCheckResponse { status: 2 })),
                _ => Err(tonic::Status::not_found("no")),
            };
            std::future::ready(answer)
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let codec = ProstCodec::<HealthCheckResponse, HealthCheckRequest>::default();
                Ok::<_, std::convert::Infallible>(Grpc::new(codec).unary(Health, request).await)
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            tokio::spawn(hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service));
        }
    });
    let service =
        |name: &str| asked(json!({ "grpc": { "port": port, "service": name }, "timeoutSeconds": 5 }));

    assert_eq!(service("well").await.0, 200);
    let (status, words) = service("ill").await;
    assert_eq!((status, words.contains("says NOT_SERVING")), (503, true), "{words}");
    assert!(service("other").await.1.contains("knows no service \"other\""));
}

#[tokio::test]
async fn metrics_pass_through_as_the_app_writes_them() {
    let app = App::start(Router::new().route(
        "/internal",
        get(|request: Request| async move {
            let accept = request.headers()["accept"].to_str().unwrap().to_owned();
            let query = request.uri().query().unwrap_or_default().to_owned();
            (
                [("content-type", "text/plain; version=0.0.4")],
                format!("# {accept} {query}\nrequests_total 1\n"),
            )
        }),
    ))
    .await;
    let metrics = json!({ "port": app.port.to_string(), "path": "/internal" }).to_string();
    let asked = ProbeSettings {
        app: IpAddr::from([127, 0, 0, 1]),
        probes: AppProbes::default(),
        metrics: Some(metrics.parse().unwrap()),
        own: own(),
    };

    let request = Request::get("/metrics/app?name=a&debug=1")
        .header("accept", "text/plain")
        .body(Body::empty())
        .unwrap();
    let response = routes(asked).oneshot(request).await.unwrap();

    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    assert_eq!(body, "# text/plain \nrequests_total 1\n", "what a caller asks for is not passed on");
}

#[tokio::test]
async fn our_own_listeners_are_not_the_app() {
    let probe = json!({ "httpGet": { "path": "/config", "port": 4191, "scheme": "HTTP" } });
    let (status, words) = asked(probe).await;
    assert_eq!((status, words.contains("is an admin port")), (503, true), "{words}");

    let metrics = json!({ "port": "4191", "path": "/config" }).to_string().parse().unwrap();
    let app = IpAddr::from([127, 0, 0, 1]);
    let asked = ProbeSettings { app, probes: AppProbes::default(), metrics: Some(metrics), own: own() };
    let (status, words) = get_of(routes(asked), "/metrics/app").await;
    assert_eq!((status, words.contains("is an admin port")), (502, true), "{words}");
}

#[tokio::test]
async fn what_was_not_handed_over_is_not_asked() {
    let asked = ProbeSettings {
        app: IpAddr::from([127, 0, 0, 1]),
        probes: AppProbes::default(),
        metrics: None,
        own: own(),
    };

    let (status, words) = get_of(routes(asked.clone()), "/app-health/app/livez").await;
    assert_eq!((status, words.contains("has no such probe")), (404, true), "{words}");
    let (status, words) = get_of(routes(asked), "/metrics/app").await;
    assert_eq!((status, words.contains("prometheus.io/scrape")), (404, true), "{words}");
}

#[test]
fn what_the_injector_does_not_write_is_refused() {
    for (json, reason) in [
        ("", "as the injector writes it"),
        (r#"{"/app-health/a/livez":{}}"#, "exactly one of"),
        (r#"{"/app-health/a/livez":{"tcpSocket":{"port":"web"}}}"#, "portNumber is missing"),
        (r#"{"/app-health/a/livez":{"httpGet":{"port":1,"scheme":"FTP"}}}"#, "neither HTTP nor HTTPS"),
        (r#"{"/app-health/a/livez":{"exec":{}}}"#, "unknown field"),
    ] {
        let error = json.parse::<AppProbes>().unwrap_err().to_string();
        assert!(error.contains(reason), "{json}: {error}");
    }
    assert!("{}".parse::<AppMetrics>().unwrap_err().to_string().contains("no port"));
    let hook: AppProbes = r#"{"/app-lifecycle/a/prestopz":{"httpGet":{"port":1}}}"#.parse().unwrap();
    assert_eq!(hook.find("/app-lifecycle/a/prestopz").unwrap().timeout, None, "a hook takes its time");
}
