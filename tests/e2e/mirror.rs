//! Copies of requests: who gets them, and that nobody else notices.

mod hanging;
mod shadow;

use http::HeaderValue;
use selvedge_demo::{
    apps::{
        grpc::wire::{EchoRequest, echo_client::EchoClient},
        reviews,
    },
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::transport::Channel;

use crate::{BOTH_VERSIONS, SELVEDGE};
use shadow::{Seen, Shadow};

/// Rules of `reviews`, each for a path of its own.
const ROUTES: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews}
spec:
  hosts: [reviews]
  http:
  - match: [{uri: {prefix: /ready}}]
    directResponse: {status: 299}
  - match: [{uri: {prefix: /copied}}]
    headers: {request: {set: {x-set: new}}}
    rewrite: {uri: /seen}
    mirror: {host: shadow}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /half}}]
    mirrors: [{destination: {host: shadow}, percentage: {value: 50}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /again}}]
    mirror: {host: shadow}
    retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /nobody}}]
    mirrors: [{destination: {host: nobody}}, {destination: {host: shadow, subset: none}}]
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /hangs}}]
    mirror: {host: hangs}
    timeout: 9s
    route: [{destination: {host: reviews}}]
  - match: [{uri: {prefix: /stuck}}]
    mirror: {host: hangs}
    route: [{destination: {host: reviews}}]
  - route: [{destination: {host: reviews}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo}
spec:
  hosts: [echo]
  http:
  - match: [{uri: {exact: /selvedge.demo.v1.Echo/Unary}}]
    mirror: {host: hangs}
    timeout: 9s
    route: [{destination: {host: echo}}]
  - mirror: {host: shadow}
    route: [{destination: {host: echo}}]
";

/// A caller, `reviews`, `echo`, and this test as `shadow`, which has a sidecar, and as `hangs`, which has none and takes
/// nothing from its connections.
async fn mesh(routes: &str) -> (Mesh, Shadow) {
    let mut mesh = Mesh::empty(SELVEDGE);
    for (name, port) in [("reviews", 9080), ("echo", 9090), ("shadow", 8080), ("hangs", 8080)] {
        mesh.service(name, port);
    }
    mesh.write("routes.yaml", routes).unwrap();
    mesh.start_control_plane().await.unwrap();
    let specs = [
        Spec::client("caller"),
        Spec::reviews("reviews-v1", "v1"),
        Spec::grpc("echo-1"),
        Spec::client("shadow"),
        Spec::client("hangs").without_sidecar(),
    ];
    mesh.add(specs).await.unwrap();
    let shadow = Shadow::default();
    shadow.serve(mesh.workload("shadow").app).await;
    poll(SOON, "the routes are in force", async || {
        match mesh.workload("caller").call(call::to("reviews:9080", "/ready")).await {
            Ok(answer) if matches!(answer.status.as_u16(), 299 | 302) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    (mesh, shadow)
}

/// The answer of the app itself to `call`.
async fn answer(mesh: &Mesh, call: Call) -> Answer {
    let answer = mesh.workload("caller").call(call).await.unwrap();
    assert!(answer.proxy_error().is_none() && answer.status == 200, "{}", answer.summary());
    answer
}

/// The sum of the caller's series whose line has all of `parts`.
async fn counted(mesh: &Mesh, parts: &[&str]) -> f64 {
    let metrics = mesh.workload("caller").admin("/metrics").await.unwrap().text();
    let lines = metrics.lines().filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

/// Waits until that is `expected`.
async fn counts(mesh: &Mesh, parts: &[&str], expected: f64) {
    poll(SOON, &format!("{parts:?} is {expected}"), async || match counted(mesh, parts).await {
        count if (count - expected).abs() < f64::EPSILON => Ok(()),
        count => Err(count.to_string()),
    })
    .await;
}

#[tokio::test]
async fn a_copy_is_the_request_as_its_rule_made_it_and_nobody_sees_its_answer() {
    let (mesh, shadow) = mesh(ROUTES).await;

    for (place, version) in BOTH_VERSIONS.into_iter().enumerate() {
        let call = call::to("reviews:9080", "/copied/a?b=c").version(version);
        let answer = answer(&mesh, call.header("x-own", "1").body("what is sent")).await;
        let app: reviews::Answer = answer.json().unwrap();
        assert_eq!(app.path, "/seen/a?b=c");

        let seen = shadow.seen("a copy", |all| all.get(place).is_some_and(|copy| copy.whole)).await;
        let copy = &seen[place];
        assert_eq!((copy.version, copy.path.as_str()), (version, "/seen/a"));
        assert_eq!((copy.authority.as_str(), copy.body.as_slice()), ("reviews:9080", &b"what is sent"[..]));
        assert!(copy.headers["x-set"] == "new" && copy.headers["x-own"] == "1", "{:?}", copy.headers);
        let client = copy.headers["x-forwarded-client-cert"].to_str().unwrap();
        assert!(client.contains("spiffe://cluster.local/ns/default/sa/caller"), "{client}");
    }
    let to_shadow =
        ["selvedge_outbound_mirrored_requests_total{", "server_address=\"shadow.default", "mtls=\"true\""];
    counts(&mesh, &[&to_shadow[..], &["http_response_status_code=\"500\""]].concat(), 2.0).await;
    counts(&mesh, &["selvedge_outbound_mirrored_request_duration_seconds_count{"], 2.0).await;
    let failed = counted(&mesh, &["selvedge_outbound_requests_total{", "_code=\"500\""]).await;
    assert!(failed == 0.0 && counted(&mesh, &["selvedge_outbound_requests_total{", "shadow"]).await == 0.0);
}

#[tokio::test]
async fn both_get_a_body_as_it_comes_with_its_trailers() {
    let (mesh, shadow) = mesh(ROUTES).await;

    let mut client = TcpStream::connect(mesh.workload("caller").outbound).await.unwrap();
    let head = "POST /copied HTTP/1.1\r\nhost: reviews:9080\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n5\r\nfirst\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let begun = |all: &[Seen]| all.first().is_some_and(|copy| copy.body == b"first" && !copy.whole);
    shadow.seen("the first part", begun).await;
    client.write_all(b"6\r\nsecond\r\n0\r\nx-sum: 7\r\n\r\n").await.unwrap();

    let seen = shadow.seen("the rest", |all| all[0].whole).await;
    assert_eq!(seen[0].body, b"firstsecond");
    assert_eq!(seen[0].trailers.as_ref().map(|trailers| &trailers["x-sum"]), Some(&HeaderValue::from(7)));
    let mut answer = [0; 15];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

/// Its server may have no turn for so long that a copy is dropped, so this is asked for again.
#[tokio::test]
async fn a_copy_may_be_far_longer_than_what_it_may_be_behind() {
    let (mesh, shadow) = mesh(ROUTES).await;
    let long: Vec<u8> = (0..4_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();

    for version in BOTH_VERSIONS {
        poll(2 * SOON, "a whole copy", async || {
            shadow.all(Vec::clear);
            let dropped = counted(&mesh, &["selvedge_outbound_mirrored_requests_dropped_total{"]).await;
            answer(&mesh, call::to("reviews:9080", "/copied").version(version).body(long.clone())).await;
            poll(SOON, "its end", async || {
                let whole = shadow.all(|all| all.first().is_some_and(|copy| copy.whole));
                let now = counted(&mesh, &["selvedge_outbound_mirrored_requests_dropped_total{"]).await;
                if whole || now > dropped { Ok(()) } else { Err("it goes on") }
            })
            .await;
            shadow.all(|all| match all.first() {
                Some(copy) if copy.whole => {
                    assert!(copy.body == long, "{version:?}");
                    Ok(())
                }
                _ => Err("it was dropped"),
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_stream_of_grpc_is_copied_and_only_the_real_status_is_the_callers() {
    let (mesh, shadow) = mesh(ROUTES).await;
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap();
    let texts = ["one", "two", "three"];
    let messages = texts.map(|text| EchoRequest { text: text.to_owned(), ..EchoRequest::default() });

    let answer = EchoClient::new(channel).client_stream(tokio_stream::iter(messages)).await.unwrap();

    assert_eq!(answer.get_ref().text, "one,two,three");
    let seen = shadow.seen("a copy", |all| all.first().is_some_and(|copy| copy.whole)).await;
    assert_eq!(seen[0].path, "/selvedge.demo.v1.Echo/ClientStream");
    let body = String::from_utf8_lossy(&seen[0].body).into_owned();
    assert!(texts.iter().all(|text| body.contains(text)), "{body:?}");
    let copies = ["selvedge_outbound_mirrored_requests_total{", "rpc_grpc_status_code=\"15\""];
    counts(&mesh, &copies, 1.0).await;
}

#[tokio::test]
async fn each_request_is_drawn_for_itself_and_tried_again_it_is_copied_once() {
    let (mesh, shadow) = mesh(ROUTES).await;

    for _ in 0..400 {
        answer(&mesh, call::to("reviews:9080", "/half")).await;
    }
    // 200 are expected; this is six times the standard deviation.
    let some = |all: &[Seen]| (140..=260).contains(&all.len()) && all.iter().all(|copy| copy.whole);
    shadow.seen("about half of them", some).await;

    // A late copy of the requests before may be among them.
    let again = |all: &[Seen]| all.iter().filter(|copy| copy.path == "/again").cloned().collect::<Vec<_>>();
    for version in BOTH_VERSIONS {
        shadow.all(Vec::clear);
        let call = call::to("reviews:9080", "/again?status=503").version(version).body("kept for later");
        let answer = mesh.workload("caller").call(call).await.unwrap();
        assert_eq!(answer.status, 503);
        let is_whole = |all: &[Seen]| again(all).first().is_some_and(|copy| copy.whole);
        let seen = again(&shadow.seen("a copy", is_whole).await);
        assert_eq!((seen.len(), seen[0].body.as_slice()), (1, &b"kept for later"[..]));
    }
    counts(&mesh, &["selvedge_outbound_retries_total{"], 4.0).await;
    assert_eq!(shadow.all(|all| again(all).len()), 1);
}

#[tokio::test]
async fn a_mirror_that_cannot_be_used_takes_nothing_from_requests_and_websockets_have_none() {
    let (mesh, shadow) = mesh(ROUTES).await;

    for version in BOTH_VERSIONS {
        answer(&mesh, call::to("reviews:9080", "/nobody").version(version).body("more")).await;
    }
    let dropped = ["selvedge_outbound_mirrored_requests_dropped_total{", "reason=\"unusable\""];
    counts(&mesh, &[&dropped[..], &["nobody.default"]].concat(), 2.0).await;
    counts(&mesh, &[&dropped[..], &["destination_subset=\"none\""]].concat(), 2.0).await;

    let asked =
        call::to("reviews:9080", "/copied").header("connection", "upgrade").header("upgrade", "websocket");
    let asked =
        asked.header("sec-websocket-version", "13").header("sec-websocket-key", "AAAAAAAAAAAAAAAAAAAAAA==");
    mesh.workload("caller").call(asked).await.unwrap();
    answer(&mesh, call::to("reviews:9080", "/copied").header("x-last", "1")).await;
    let seen = shadow.seen("a copy", |all| !all.is_empty()).await;
    assert!(seen[0].headers.contains_key("x-last"), "{seen:?}");
}

#[tokio::test]
async fn routes_of_the_gateway_api_mirror_a_rule_and_a_backend() {
    let mirror = |more: &str| {
        format!("{{type: RequestMirror, requestMirror: {{backendRef: {{name: shadow, port: 8080}}{more}}}}}")
    };
    let route = |kind: &str, name: &str, rules: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: {name}}}], rules: [{rules}]}}\n"
        )
    };
    let http = format!(
        "{{filters: [{}, {}], backendRefs: [{{name: reviews, port: 9080, filters: [{}]}}]}}, {{matches: [{{path: {{type: Exact, value: /ready}}}}], filters: [{{type: RequestRedirect, requestRedirect: {{hostname: ready.example}}}}]}}",
        mirror(""),
        mirror(", percent: 0"),
        mirror(", fraction: {numerator: 5, denominator: 5}")
    );
    let grpc = format!("{{filters: [{}], backendRefs: [{{name: echo, port: 9090}}]}}", mirror(""));
    let (mesh, shadow) =
        mesh(&(route("HTTPRoute", "reviews", &http) + &route("GRPCRoute", "echo", &grpc))).await;

    answer(&mesh, call::to("reviews:9080", "/twice")).await;
    shadow.seen("two copies", |all| all.len() == 2 && all.iter().all(|copy| copy.whole)).await;

    shadow.all(Vec::clear);
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap();
    let message = EchoRequest { text: "hello".to_owned(), ..EchoRequest::default() };
    assert_eq!(EchoClient::new(channel).unary(message).await.unwrap().get_ref().text, "hello");
    let seen = shadow.seen("a copy", |all| all.first().is_some_and(|copy| copy.whole)).await;
    assert_eq!((seen.len(), seen[0].path.as_str()), (1, "/selvedge.demo.v1.Echo/Unary"));
}
