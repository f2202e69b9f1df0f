//! What a client says about itself and about what it asks for, in every spelling: the app behind the gateway believes none.

use http::Version;
use selvedge_demo::{apps::reviews, call, workload::Spec};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Edge, HOST, STRICT, WORKLOAD, route, start_in};
use crate::SELVEDGE;

/// What nobody may believe.
const LIE: &str = "10.66.66.66";

/// Fields that proxies write for servers, and servers for apps.
const CLAIMS: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-server",
    "x-forwarded-user",
    "x-forwarded-client-cert",
    "forwarded",
    "x-real-ip",
    "x-client-ip",
    "client-ip",
    "true-client-ip",
    "x-cluster-client-ip",
    "cf-connecting-ip",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-originating-ip",
    "x-remote-ip",
    "x-remote-addr",
    "x-original-forwarded-for",
    "x-original-url",
    "x-original-host",
    "x-rewrite-url",
    "x-host",
    "x-envoy-external-address",
    "x-envoy-original-path",
    "x-envoy-decorator-operation",
    "x-request-id",
    "remote-user",
    "x-remote-user",
    "x-auth-request-user",
    "l5d-client-id",
    "selvedge-error",
    "proxy",
];

#[tokio::test]
async fn no_claim_of_a_stranger_reaches_the_app_in_any_spelling() {
    let edge = Edge::of([Spec::reviews("reviews-1", "v1")], &route("HTTPRoute", "reviews", 9080)).await;
    edge.served("/").await;

    for (version, spelled) in [
        (Version::HTTP_11, "-"),
        (Version::HTTP_2, "-"),
        (Version::HTTP_11, "_"),
        (Version::HTTP_2, "_"),
        (Version::HTTP_11, "."),
    ] {
        // Fewer than the most fields that a request may have.
        let call = CLAIMS.iter().fold(call::to(HOST, "/").version(version), |call, name| {
            call.header(String::leak(name.replace('-', spelled)), LIE)
        });
        let answer = edge.call(call).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.summary());
        let seen: reviews::Answer = answer.json().unwrap();
        let believed: Vec<_> = seen.headers.iter().filter(|(_, value)| value.contains(LIE)).collect();
        assert!(believed.is_empty(), "{version:?} with {spelled}: {believed:?}");
        assert_eq!(seen.headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(seen.headers["x-forwarded-host"], HOST);
    }
}

#[tokio::test]
async fn a_policy_that_names_the_gateway_is_asked_there_and_not_at_the_app() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: door}\n\
                  spec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]\n  \
                  action: DENY\n  rules: [{to: [{operation: {paths: [/admin*]}}]}]\n---\n";
    let edge = Edge::of(
        [Spec::reviews("reviews-1", "v1"), Spec::client("caller")],
        &route("HTTPRoute", "reviews", 9080),
    )
    .await;
    edge.served("/admin").await;
    edge.mesh.write("door.yaml", policy).unwrap();

    poll(SOON, "the gateway denies", async || {
        let answer = edge.call(call::to(HOST, "/admin/x")).await?;
        let is_denied = answer.status == 403 && answer.proxy_error() == Some("policy");
        if is_denied { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    assert_eq!(edge.call(call::to(HOST, "/other")).await.unwrap().status, 200);
    let inside = edge.mesh.workload("caller").call(call::to("reviews:9080", "/admin")).await.unwrap();
    assert_eq!(inside.status, 200, "the policy is for the gateway alone: {}", inside.summary());
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_closes_the_gateway_that_it_may_be_for_wherever_that_runs() {
    // The gateway's workload is in the mesh's own namespace, and its Gateway with the policy is in shop.
    let gateway = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: edge, namespace: shop}\n\
                   spec:\n  gatewayClassName: selvedge\n  listeners:\n  - {name: http, port: 80, protocol: HTTP, \
                   allowedRoutes: {namespaces: {from: All}}}\n---\n";
    let route = route("HTTPRoute", "reviews", 9080).replace("{name: edge}", "{name: edge, namespace: shop}");
    let mesh = Mesh::of(SELVEDGE, [Spec::reviews("reviews-1", "v1")]).await;
    let workload =
        WORKLOAD.replace("namespace: default", "namespace: selvedge").replace("default/edge", "shop/edge");
    let documents = [&workload, STRICT, gateway, &route].concat();
    mesh.write("edge.yaml", &documents).unwrap();
    let (process, admin) = start_in(&mesh, "selvedge", &[]).await;
    let edge = Edge { mesh, process, admin };
    edge.served("/").await;
    let policy = |spec: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: door, namespace: shop}}\n\
             spec: {{{spec}}}\n---\n"
        )
    };
    let target = "{group: gateway.networking.k8s.io, kind: Gateway, name: edge}";

    for spec in [
        &format!(
            "targetRefs: [{target}], action: DENY, rules: [{{to: [{{operation: {{pathz: [/admin]}}}}]}}]"
        ),
        "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}], rules: [{}]",
    ] {
        edge.mesh.write("door.yaml", &policy(spec)).unwrap();
        poll(SOON, "the gateway denies", async || {
            let answer = edge.call(call::to(HOST, "/")).await?;
            let is_denied = answer.status == 403 && answer.proxy_error() == Some("policy");
            if is_denied { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
        edge.mesh.remove("door.yaml").unwrap();
        edge.served("/").await;
    }
}

#[tokio::test]
async fn no_claim_reaches_the_app_by_connection_or_in_upper_case() {
    let edge = Edge::of([Spec::reviews("reviews-1", "v1")], &route("HTTPRoute", "reviews", 9080)).await;
    edge.served("/").await;

    // A field that `Connection` names is removed, and not the gateway's own.
    let head = format!(
        "GET / HTTP/1.1\r\nHost: {HOST}\r\nX-FORWARDED-FOR: {LIE}\r\nX-Forwarded_For: {LIE}\r\nTrue-Client-IP: {LIE}\r\n\
         Connection: close, x-forwarded-for, x-forwarded-proto, x-forwarded-client-cert\r\n\r\n"
    );
    let mut stream = TcpStream::connect(edge.at(80).await).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains(LIE), "{answer}");
    assert!(answer.contains("\"x-forwarded-for\":\"127.0.0.1\""), "{answer}");
    assert!(answer.contains("\"x-forwarded-proto\":\"http\""), "{answer}");
}
