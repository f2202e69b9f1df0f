//! What the Gateway API's conformance tests for gateways ask of backends, of references and of retries.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    sync::{Arc, Mutex},
};

use selvedge_demo::call;
use selvedge_tests::gateway::Gateway;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{
    Edge, HOST,
    conformance::{edge, edge_of, route, seen, version, web},
    gateway as gateway_of, http_listener,
    requests::listening,
    to_apps::app,
};
use crate::{
    gateway_api::{V1, V2},
    retries::server::{answer, serve},
};

#[tokio::test]
async fn all_headers_of_a_match_are_asked_for_and_one_of_several_matches_is_enough() {
    let rule = |matches: &str, to: &str| format!("{{matches: [{matches}], {to}}}");
    let headers = |list: &str| format!("{{headers: [{list}]}}");
    let rules = [
        rule(&headers("{name: version, value: one}"), V1),
        rule(&headers("{name: version, value: two}"), V2),
        rule(&headers("{name: Version, value: two}, {name: color, value: orange}"), V1),
        rule(&[headers("{name: color, value: blue}"), headers("{name: color, value: green}")].join(", "), V1),
        rule(&[headers("{name: color, value: red}"), headers("{name: color, value: yellow}")].join(", "), V2),
    ];
    let edge = edge(&web(&rules.join(", "))).await;

    for (fields, expected) in [
        (&[("version", "one")][..], Ok("v1")),
        (&[("version", "two")], Ok("v2")),
        (&[("version", "two"), ("color", "orange")], Ok("v1")),
        (&[("color", "blue")], Ok("v1")),
        (&[("color", "green")], Ok("v1")),
        (&[("color", "red")], Ok("v2")),
        (&[("color", "yellow")], Ok("v2")),
        (&[("color", "orange")], Err(404)),
        (&[("color", "purple")], Err(404)),
        (&[("some-other-header", "one")], Err(404)),
        (&[], Err(404)),
    ] {
        let call = fields.iter().fold(call::to(HOST, "/"), |call, (name, value)| call.header(name, value));
        assert_eq!(version(&edge, call).await, expected.map(str::to_owned), "{fields:?}");
    }
}

#[tokio::test]
async fn a_backend_of_another_namespace_is_called_where_a_grant_lets_it() {
    let rule = |path: &str, to: &str| format!("{{matches: [{{path: {{value: {path}}}}}]{to}}}");
    let rules = [
        rule("/granted", &format!(", {}", V2.replace("8080", "80"))),
        rule("/refused", &format!(", {}", V1.replace("8080", "80"))),
        rule("/none", ""),
    ];
    let far = route("far", "parentRefs: [{name: edge, namespace: default}]", HOST, &rules.join(", "))
        .replace("name: far, namespace: default", "name: far, namespace: elsewhere");
    let grant = |name: &str, kind: &str, namespace: &str, to: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
             metadata: {{name: {name}, namespace: default}}\n\
             spec: {{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {namespace}}}], \
             to: [{{group: '', kind: Service, name: {to}}}]}}\n---\n"
        )
    };
    let grants = [
        grant("right", "HTTPRoute", "elsewhere", "echo-v2"),
        grant("kind", "GRPCRoute", "elsewhere", "echo-v1"),
        grant("namespace", "HTTPRoute", "default", "echo-v1"),
        grant("name", "HTTPRoute", "elsewhere", "echo"),
    ];
    let listener = "{name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}";
    let edge = edge_of(listener, &(far + &grants.concat())).await;

    assert_eq!(version(&edge, call::to(HOST, "/granted")).await.as_deref(), Ok("v2"));
    for path in ["/refused", "/none"] {
        assert_eq!(version(&edge, call::to(HOST, path)).await, Err(500), "{path}");
    }
}

#[tokio::test]
async fn a_route_may_be_for_several_gateways() {
    let both = route("both", "parentRefs: [{name: edge}, {name: other}]", HOST, &format!("{{{V1}}}"));
    let one = route("one", "parentRefs: [{name: other}]", "one.example.com", &format!("{{{V2}}}"));
    let other = gateway_of(&http_listener("http", 80)).replace("name: edge,", "name: other,");
    let edge = edge(&[both, one, other].concat()).await;
    let second = Gateway::start(&edge.mesh, "default/other", &[80]).await;

    assert_eq!(version(&edge, call::to(HOST, "/")).await.as_deref(), Ok("v1"));
    assert_eq!(version(&edge, call::to("one.example.com", "/")).await, Err(404));
    for (host, expected) in [(HOST, "v1"), ("one.example.com", "v2")] {
        let answer = selvedge_tests::poll(selvedge_tests::SOON, "the second gateway serves", async || {
            let answer = second.call(80, call::to(host, "/")).await.map_err(|error| error.to_string())?;
            if answer.status.is_success() { Ok(answer) } else { Err(answer.summary()) }
        });
        let answer = answer.await.json::<selvedge_demo::apps::reviews::Answer>().unwrap();
        assert_eq!(answer.version, expected, "{host}");
    }
}

#[tokio::test]
async fn services_without_an_address_and_without_a_selector_are_backends() {
    let (port, mut begun) = listening().await;
    let documents = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: headless, namespace: default}}\n\
         spec: {{clusterIP: None, selector: {{app: reviews, version: v1}}, ports: [{{name: http, port: 80, targetPort: 9080}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: manual, namespace: default}}\n\
         spec: {{ports: [{{name: http, port: 80, targetPort: 3000}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
         metadata: {{name: manual-1, namespace: default, labels: {{kubernetes.io/service-name: manual}}}}\n\
         addressType: IPv4\nports: [{{name: http, port: {port}, protocol: TCP}}]\n\
         endpoints: [{{addresses: [127.0.0.1], conditions: {{ready: true}}}}]\n---\n"
    );
    let rule = |name: &str| {
        format!("{{matches: [{{path: {{value: /{name}}}}}], backendRefs: [{{name: {name}, port: 80}}]}}")
    };
    let rules = [rule("headless"), rule("manual")].join(", ");
    let edge = edge(&(documents + &web(&rules))).await;

    assert_eq!(version(&edge, call::to(HOST, "/headless")).await.as_deref(), Ok("v1"));
    let answer = edge.call(call::to(HOST, "/manual")).await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.summary());
    assert_eq!(begun.recv().await.unwrap(), "GET /manual HTTP/1.1");
}

#[tokio::test]
async fn a_filter_of_a_backend_is_for_its_own_share() {
    let rule = |path: &str, backends: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{backends}]}}")
    };
    let with = |name: &str, filter: &str| format!("{{name: {name}, port: 80, filters: [{filter}]}}");
    let redirect = "{type: RequestRedirect, requestRedirect: {hostname: example.org, statusCode: 301}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {hostname: other.example, \
                   path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}";
    let share = |value: &str| {
        format!(
            "{{type: RequestHeaderModifier, requestHeaderModifier: {{set: [{{name: X-Share, value: {value}}}]}}}}"
        )
    };
    let rules = [
        rule("/redirect", &with("echo-v1", redirect)),
        rule("/old", &with("echo-v1", rewrite)),
        rule("/shares", &[with("echo-v1", &share("v1")), with("echo-v2", &share("v2"))].join(", ")),
    ];
    let edge = edge(&web(&rules.join(", "))).await;

    let redirected = edge.call(call::to(HOST, "/redirect/x")).await.unwrap();
    assert_eq!(redirected.status, 301, "{}", redirected.summary());
    assert_eq!(redirected.headers["location"], "http://example.org/redirect/x");
    let (app, _) = seen(&edge, call::to(HOST, "/old/path")).await;
    assert_eq!((app.path.as_str(), app.headers["host"].as_str()), ("/new/path", "other.example"));
    let mut versions = BTreeSet::new();
    for _ in 0..60 {
        let (app, _) = seen(&edge, call::to(HOST, "/shares").header("x-share", "mine")).await;
        assert_eq!(app.headers["x-share"], app.version);
        versions.insert(app.version);
    }
    assert_eq!(versions.len(), 2, "both have a share: {versions:?}");
}

/// An app that fails: of the requests for `/KIND/COUNT…` the first so many. A KIND that is a number is the status of those;
/// to those of others there is no answer.
async fn failing() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
    serve(listener, move |_, request| {
        let asked = Arc::clone(&asked);
        async move {
            let path = request.uri().path().to_owned();
            let times = {
                let mut asked = asked.lock().unwrap();
                let times = asked.entry(path.clone()).or_default();
                *times += 1;
                *times
            };
            let mut parts = path.split('/').skip(1);
            let (kind, fails) = (parts.next().unwrap(), parts.next().unwrap().parse().unwrap());
            match kind.parse() {
                _ if times > fails => answer(200, times.to_string()),
                Ok(status) => answer(status, times.to_string()),
                Err(_) => pending().await,
            }
        }
    });
    port
}

/// What the app says, and its status.
async fn asked(edge: &Edge, path: &str) -> (u16, String) {
    let answer = edge.call(call::to(HOST, path)).await.unwrap();
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn requests_that_fail_are_retried_as_often_as_their_rule_says() {
    let to = "backendRefs: [{name: failing, port: 80}]";
    let rule = |path: &str, retry: &str| format!("{{matches: [{{path: {{value: {path}}}}}], {retry}, {to}}}");
    let rules = [
        rule("/", "retry: {attempts: 2, codes: [500, 503], backoff: 5ms}"),
        rule(
            "/slow",
            "retry: {attempts: 2, codes: [503], backoff: 5ms}, timeouts: {request: 20s, backendRequest: 300ms}",
        ),
        rule("/never", "retry: {attempts: 0}, timeouts: {backendRequest: 300ms}"),
    ];
    let documents = app("failing", "http", failing().await) + &web(&rules.join(", "));
    let edge = edge(&documents).await;

    for (path, status, attempts) in [
        ("/503/1", 200, "2"),
        ("/503/2", 200, "3"),
        ("/500/2", 200, "3"),
        ("/503/3", 503, "3"),
        ("/501/1", 501, "1"),
        ("/200/0", 200, "1"),
        ("/slow/1", 200, "2"),
        ("/slow/2", 200, "3"),
    ] {
        assert_eq!(asked(&edge, path).await, (status, attempts.to_owned()), "{path}");
    }
    assert_eq!(asked(&edge, "/slow/3").await.0, 504);
    assert_eq!(asked(&edge, "/never/1").await.0, 504);
}

#[tokio::test]
async fn requests_whose_connection_breaks_are_retried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    // Three of four connections end in the middle of their request.
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let _ = stream.read(&mut [0; 4096]).await;
            if number % 4 == 3 {
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\ndone";
                let _ = stream.write_all(answer).await;
            }
        }
    });
    let to = "backendRefs: [{name: breaking, port: 80}]";
    let rule = |path: &str, attempts: u32| {
        format!(
            "{{matches: [{{path: {{value: {path}}}}}], retry: {{attempts: {attempts}, backoff: 5ms}}, {to}}}"
        )
    };
    let rules = [rule("/enough", 3), rule("/too-few", 1)].join(", ");
    let edge = edge(&(app("breaking", "http", port) + &web(&rules))).await;

    assert_eq!(asked(&edge, "/enough").await, (200, "done".to_owned()));
    let (status, _) = asked(&edge, "/too-few").await;
    assert!(status >= 502, "{status}");
}
