//! What the filters of a `VirtualService` do, in either version of HTTP and for gRPC.

mod grpc;

use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};

use crate::{BOTH_VERSIONS, SELVEDGE};

/// Rules of `reviews`, each for a path of its own.
const ROUTES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /headers}}]
    headers:
      request:
        set: {x-set: new, x-said: "%PROTOCOL% %REQ(x-ask)% 100%%"}
        add: {x-add: two}
        remove: [x-gone]
      response:
        set: {x-rule: "%REQ(x-ask)%"}
    route:
    - destination: {host: reviews, subset: v1}
      headers:
        request: {set: {x-backend: one}}
        response: {set: {x-share: one}}
  - match: [{uri: {prefix: /prefix}}, {uri: {exact: /whole}}]
    rewrite: {uri: /new, authority: "other.example:81"}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /regex/}}]
    rewrite: {uriRegexRewrite: {match: "^/regex/([^/]+)/(.*)$", rewrite: '/\2/of/\1'}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /moved}}]
    redirect: {uri: /here, scheme: https, authority: elsewhere.example, redirectCode: 308}
  - match: [{uri: {prefix: /port}}]
    redirect: {port: 8443}
  - match: [{uri: {prefix: /direct}}]
    directResponse: {status: 418, body: {string: short and stout}}
    headers: {response: {set: {x-rule: direct}}}
  - match: [{uri: {prefix: /abort}}]
    fault: {abort: {httpStatus: 501, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /never}}]
    fault: {abort: {httpStatus: 501}, delay: {fixedDelay: 600s, percentage: {value: 0}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /delay}}]
    fault: {delay: {fixedDelay: 300ms, percentage: {value: 100}}}
    headers: {request: {set: {x-start: "%START_TIME%"}}}
    timeout: 250ms
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /cors}}]
    corsPolicy:
      allowOrigins: [{exact: "https://shop.example"}]
      allowMethods: [GET, PUT]
      allowHeaders: [x-a]
      exposeHeaders: [x-b]
      maxAge: 60s
      allowCredentials: true
    fault: {abort: {httpStatus: 503, percentage: {value: 0}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /closed}}]
    corsPolicy: {allowOrigins: [{prefix: "https://shop."}], unmatchedPreflights: IGNORE}
    fault: {abort: {httpStatus: 500, percentage: {value: 100}}}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /own}, sourceLabels: {app: caller}}]
    directResponse: {status: 299}
  - match: [{uri: {prefix: /own}, sourceLabels: {app: somebody-else}}]
    directResponse: {status: 298}
  - match: [{uri: {prefix: /own}, sourceNamespace: elsewhere}]
    directResponse: {status: 297}
  - route: [{destination: {host: reviews}}]
"#;

async fn mesh() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.write("routes.yaml", ROUTES).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await.unwrap();
    poll(SOON, "the routes are in force", async || {
        match mesh.workload("caller").call(call::to("reviews:9080", "/direct")).await {
            Ok(answer) if answer.status == 418 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    mesh
}

async fn answer(mesh: &Mesh, call: Call) -> Answer {
    mesh.workload("caller").call(call).await.unwrap()
}

/// What the app saw of `call`, and the answer.
async fn seen(mesh: &Mesh, call: Call) -> (reviews::Answer, Answer) {
    let answer = answer(mesh, call).await;
    assert!(answer.proxy_error().is_none() && answer.status == 200, "{}", answer.summary());
    (answer.json().unwrap(), answer)
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

#[tokio::test]
async fn headers_change_for_the_rule_then_for_its_backend_and_on_the_way_back() {
    let mesh = mesh().await;

    for (version, protocol) in [(Version::HTTP_11, "HTTP/1.1"), (Version::HTTP_2, "HTTP/2")] {
        let call = call::to("reviews:9080", "/headers?a=b").version(version);
        let call = call.header("x-set", "old").header("x-add", "one").header("x-gone", "x");
        let (app, answer) = seen(&mesh, call.header("x-ask", "me")).await;

        let of_app = |name: &str| app.headers.get(name).map(String::as_str);
        assert_eq!(app.path, "/headers?a=b");
        assert_eq!((of_app("x-set"), of_app("x-gone")), (Some("new"), None));
        assert!(of_app("x-add").is_some_and(|value| value.contains("two")), "{:?}", app.headers);
        assert_eq!(of_app("x-said"), Some(format!("{protocol} me 100%").as_str()));
        assert_eq!(of_app("x-backend"), Some("one"));
        assert_eq!((header(&answer, "x-rule"), header(&answer, "x-share")), (Some("me"), Some("one")));
    }
}

#[tokio::test]
async fn the_app_sees_the_rewritten_path_and_authority() {
    let mesh = mesh().await;

    for version in BOTH_VERSIONS {
        for (path, becomes) in [
            ("/prefix/a?b=c", "/new/a?b=c"),
            ("/x/../prefix", "/new"),
            ("/whole?b", "/new?b"),
            ("/regex/a/b/c?d", "/b/c/of/a?d"),
        ] {
            let call = call::to("reviews:9080", path).version(version);
            let (app, _) = seen(&mesh, call.header("x-envoy-original-path", "/forged")).await;
            assert_eq!(app.path, becomes, "{version:?} {path}");
            let before = app.headers.get("x-envoy-original-path").map(String::as_str);
            assert_eq!(before, Some(path.strip_prefix("/x/..").unwrap_or(path)), "{version:?}");
            let host = app.headers.get("host").map(String::as_str);
            let expected = if path.starts_with("/regex") { "reviews:9080" } else { "other.example:81" };
            // The app of the demo shows headers alone, and HTTP/2 has no Host.
            if version == Version::HTTP_11 {
                assert_eq!(host, Some(expected), "{path}");
            }
        }
    }
}

#[tokio::test]
async fn redirects_and_fixed_answers_need_no_backend() {
    let mesh = mesh().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("reviews:9080", path).version(version);
        let moved = answer(&mesh, to("/moved/x?a=b")).await;
        assert_eq!(moved.status, 308);
        assert_eq!(header(&moved, "location"), Some("https://elsewhere.example/here?a=b"));
        let port = answer(&mesh, to("/port/x?a=b")).await;
        assert_eq!(port.status, 301);
        assert_eq!(header(&port, "location"), Some("http://reviews:8443/port/x?a=b"));

        let direct = answer(&mesh, to("/direct")).await;
        assert_eq!((direct.status.as_u16(), direct.text().as_str()), (418, "short and stout"));
        assert_eq!((header(&direct, "x-rule"), direct.proxy_error()), (Some("direct"), None));
    }
}

#[tokio::test]
async fn faults_fail_and_delay_on_purpose_and_say_so() {
    let mesh = mesh().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str| call::to("reviews:9080", path).version(version);
        let abort = answer(&mesh, to("/abort")).await;
        assert_eq!(abort.status, 501);
        assert!(abort.proxy_error().unwrap().starts_with("fault: "), "{}", abort.summary());
        assert_eq!(answer(&mesh, to("/never")).await.status, 200);

        let began = Instant::now();
        let (app, _) = seen(&mesh, to("/delay")).await;
        let over = SystemTime::now();
        assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
        // Its rule's time begins after the delay, and it itself began before.
        let came = humantime::parse_rfc3339(&app.headers["x-start"]).unwrap();
        assert!(over.duration_since(came).unwrap() >= Duration::from_millis(300), "{came:?}, {over:?}");
    }
    let metrics = mesh.workload("caller").admin("/metrics").await.unwrap().text();
    let counted = metrics.lines().find(|line| line.contains("error_type=\"fault\""));
    assert!(counted.is_some_and(|line| line.contains("VirtualService default/reviews http[")), "{metrics}");
}

#[tokio::test]
async fn pages_of_other_origins_may_call_as_cors_says() {
    let mesh = mesh().await;

    for version in BOTH_VERSIONS {
        let to = |path: &str, origin: &str| {
            call::to("reviews:9080", path).version(version).header("origin", origin)
        };
        let preflight = |path: &str, origin: &str| {
            to(path, origin).method(Method::OPTIONS).header("access-control-request-method", "PUT")
        };
        let allowed = answer(&mesh, preflight("/cors", "https://shop.example")).await;
        assert_eq!((allowed.status.as_u16(), allowed.body.len()), (200, 0));
        for (name, value) in [
            ("access-control-allow-origin", "https://shop.example"),
            ("access-control-allow-methods", "GET,PUT"),
            ("access-control-allow-headers", "x-a"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "60"),
            ("vary", "Origin"),
        ] {
            assert_eq!(header(&allowed, name), Some(value), "{version:?} {name}");
        }
        let (_, simple) = seen(&mesh, to("/cors", "https://shop.example")).await;
        assert_eq!(header(&simple, "access-control-allow-origin"), Some("https://shop.example"));
        assert_eq!(header(&simple, "access-control-expose-headers"), Some("x-b"));
        let (app, other) = seen(&mesh, preflight("/cors", "https://evil.example")).await;
        assert_eq!((app.path.as_str(), header(&other, "access-control-allow-origin")), ("/cors", None));

        let ignored = answer(&mesh, preflight("/closed", "https://evil.example")).await;
        assert_eq!((ignored.status.as_u16(), header(&ignored, "access-control-allow-origin")), (200, None));
        let failed = answer(&mesh, to("/closed", "https://shop.example")).await;
        assert_eq!(failed.status, 500);
        assert!(failed.proxy_error().unwrap().starts_with("fault: "), "{}", failed.summary());
        assert_eq!(header(&failed, "access-control-allow-origin"), Some("https://shop.example"));
    }
}

#[tokio::test]
async fn matches_for_other_clients_do_not_hold() {
    let mesh = mesh().await;

    assert_eq!(answer(&mesh, call::to("reviews:9080", "/own")).await.status, 299);
}

#[tokio::test]
async fn a_client_that_no_route_is_for_calls_the_service_as_if_it_had_none() {
    let mesh = mesh().await;
    let for_others = ["sourceLabels: {app: somebody-else}", "sourceNamespace: elsewhere", "gateways: [edge]"]
        .map(|asked| format!("{{match: [{{{asked}}}], directResponse: {{status: 418}}}}"));
    let document = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\n\
         spec: {{hosts: [reviews], http: [{}]}}\n",
        for_others.join(", ")
    );
    mesh.write("routes.yaml", &document).unwrap();

    poll(SOON, "the app answers", async || {
        match mesh.workload("caller").call(call::to("reviews:9080", "/direct")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for version in BOTH_VERSIONS {
        let (app, _) = seen(&mesh, call::to("reviews:9080", "/any").version(version)).await;
        assert_eq!((app.version.as_str(), app.path.as_str()), ("v1", "/any"));
    }
}
