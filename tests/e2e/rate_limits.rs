//! Rate limits through real sidecars and a real gateway: who is refused, and what it is told.

mod global;

use http::StatusCode;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};

use crate::{
    SELVEDGE,
    authorization::{Came, asked, get},
    ingress::{ALL, ingress, mesh_of},
    raw::{Around, CALLERS, SERVER},
};

/// The example of the guide: each identity 5 at once, and 100 in an hour.
fn example() -> &'static str {
    let guide = include_str!("../../control-plane/rate-limits.md");
    let (_, rest) = guide.split_once("```yaml\n").expect("an example");
    rest.split_once("```").expect("its end").0
}

/// Writes `documents`, and has `caller` ask until it is refused. Returns the head of that answer.
async fn until_refused(around: &Around, documents: &str, caller: &str, request: &str) -> String {
    around.mesh.write("limits.yaml", documents).expect("a writable directory");
    poll(SOON, &format!("{caller} is refused"), async || {
        let came = asked(around, caller, &get("/")).await;
        if came == Came::ToTheApp { Err("it came to the app") } else { Ok(()) }
    })
    .await;
    let mut client = around.client(caller).await;
    client.send(request).await;
    client.head().await.0
}

/// How many requests of `caller` come to the app before one is refused.
async fn admitted(around: &Around, caller: &str) -> usize {
    for count in 0..50 {
        if asked(around, caller, &get("/")).await != Came::ToTheApp {
            return count;
        }
    }
    50
}

#[tokio::test]
async fn each_identity_has_its_own_limit_and_is_told_when_to_try_again() {
    let around = Around::new().await;
    let [greedy, other] = CALLERS;

    let head = until_refused(&around, example(), greedy, &get("/")).await;

    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    let says = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(field, _)| field.eq_ignore_ascii_case(name));
        found.unwrap_or_else(|| panic!("no {name}: {head}")).1.to_owned()
    };
    assert!(says("selvedge-error").starts_with("rate-limit: RateLimit default/per-client: "), "{head}");
    let seconds: u64 = says("retry-after").parse().expect("whole seconds");
    assert!((1..=36).contains(&seconds), "{head}");
    assert_eq!((says("x-ratelimit-limit"), says("x-ratelimit-remaining")), ("5".into(), "0".into()));
    assert!(says("x-ratelimit-reset").parse::<u64>().expect("whole seconds") >= seconds, "{head}");

    assert_eq!(admitted(&around, other).await, 5);
    // The refused one is counted, and the other's requests gave it nothing back.
    assert_eq!(admitted(&around, greedy).await, 0);
    let metrics = around.mesh.workload(SERVER).admin("/metrics").await.expect("an answer");
    let metrics = String::from_utf8_lossy(&metrics.body);
    let counted =
        "selvedge_inbound_policy_decisions_total{policy=\"RateLimit default/per-client\",decision=\"deny\"}";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_grpc_client_is_told_in_its_own_words_and_a_dry_run_refuses_nobody() {
    let around = Around::new().await;
    let [caller, _] = CALLERS;
    let request = "POST /a.B/C HTTP/1.1\r\nhost: app:8080\r\ncontent-type: application/grpc\r\ncontent-length: 0\r\n\r\n";

    let head = until_refused(&around, example(), caller, request).await;

    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("grpc-status: 8"), "{head}");
    assert!(head.contains("grpc-retry-pushback-ms: "), "{head}");

    let dry = example().replace("spec:\n", "spec:\n  dryRun: true\n");
    around.mesh.write("limits.yaml", &dry).expect("a writable directory");
    poll(SOON, "it is let in again", async || {
        let came = asked(&around, caller, &get("/")).await;
        if came == Came::ToTheApp { Ok(()) } else { Err(format!("{came:?}")) }
    })
    .await;
    assert_eq!(admitted(&around, caller).await, 50);
}

#[tokio::test]
async fn a_header_tells_clients_apart_and_those_without_it_share_one_limit() {
    let around = Around::new().await;
    let [caller, other] = CALLERS;
    let by_header = example().replace("key: clientIdentity", "header: x-api-key");
    until_refused(&around, &by_header, caller, &get("/")).await;

    assert_eq!(admitted(&around, other).await, 0);
    let with_key = get("/").replace("\r\n\r\n", "\r\nx-api-key: one\r\n\r\n");
    assert_eq!(asked(&around, caller, &with_key).await, Came::ToTheApp);
}

#[tokio::test]
async fn linkerds_policy_limits_each_identity_but_for_its_overrides() {
    let around = Around::new().await;
    let [greedy, other] = CALLERS;
    let documents = format!(
        "apiVersion: policy.linkerd.io/v1beta3
kind: Server
metadata: {{name: app, namespace: default}}
spec: {{podSelector: {{matchLabels: {{app: app}}}}, port: http, accessPolicy: all-unauthenticated}}
---
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPLocalRateLimitPolicy
metadata: {{name: limit, namespace: default}}
spec:
  targetRef: {{group: policy.linkerd.io, kind: Server, name: app}}
  total: {{requestsPerSecond: 1000}}
  identity: {{requestsPerSecond: 1}}
  overrides:
  - requestsPerSecond: 1000
    clientRefs: [{{kind: ServiceAccount, name: {other}}}]
"
    );
    around.mesh.write("limits.yaml", &documents).expect("a writable directory");
    poll(SOON, "it is refused", async || match asked(&around, greedy, &get("/")).await {
        Came::Back(status, why)
            if status == "429" && why.contains("HTTPLocalRateLimitPolicy default/limit") =>
        {
            Ok(())
        }
        came => Err(format!("{came:?}")),
    })
    .await;
    assert_eq!(admitted(&around, other).await, 50);
}

#[tokio::test]
async fn nginx_limits_each_client_address_but_for_those_that_are_exempt() {
    let limits = &[("limit-rpm", "2"), ("limit-burst-multiplier", "1")];
    let exempt = &[("limit-rpm", "1"), ("limit-whitelist", "127.0.0.0/8")];
    let documents = [
        ingress("first.example.com", &[], ALL),
        ingress("limited.example.com", limits, ALL),
        ingress("exempt.example.com", exempt, ALL),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "first.example.com").await;
    let status = async |host: &str| {
        gateway
            .call(80, call::to(host, "/app1"))
            .await
            .map_or(StatusCode::IM_A_TEAPOT, |answer| answer.status)
    };

    for _ in 0..3 {
        assert_eq!(status("limited.example.com").await, StatusCode::OK);
    }
    assert_eq!(status("limited.example.com").await, StatusCode::TOO_MANY_REQUESTS);
    for _ in 0..10 {
        assert_eq!(status("exempt.example.com").await, StatusCode::OK);
    }
    // A stranger is told no names.
    let refused = gateway.call(80, call::to("limited.example.com", "/app1")).await.expect("an answer");
    assert_eq!(refused.headers["selvedge-error"], "rate-limit");
}

/// A gateway with two rules, a limit that names both it and its route, and one for one of the rules.
const AT_GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec: {gatewayClassName: selvedge, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: default}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - name: pay
    matches: [{path: {type: PathPrefix, value: /pay}}]
    backendRefs: [{name: reviews, port: 9080}]
  - backendRefs: [{name: reviews, port: 9080}]
---
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata: {name: all, namespace: default}
spec:
  targetRefs:
  - {group: gateway.networking.k8s.io, kind: Gateway, name: edge}
  - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}
  limits: [{header: x-user, requests: 10, per: 24h}]
---
apiVersion: selvedge.io/v1alpha1
kind: RateLimit
metadata: {name: pays, namespace: default}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: pay}]
  limits: [{header: x-user, requests: 1, per: 24h}]
";

#[tokio::test]
async fn a_gateway_counts_a_request_once_and_none_that_a_limit_of_its_route_refuses() {
    let mesh = Mesh::of(SELVEDGE, [Spec::reviews("reviews-v1", "v1")]).await;
    mesh.write("edge.yaml", AT_GATEWAY).expect("a writable directory");
    let gateway = Gateway::start(&mesh, "default/edge", &[80]).await;
    let status = async |user: &str, path: &str| {
        let call = call::to("shop.example.com", path).header("x-user", user);
        let answer = gateway.call(80, call).await.map_err(|error| error.to_string())?;
        Ok::<_, String>(answer.status)
    };
    let mut looks = 0;
    poll(SOON, "the gateway serves", async || {
        looks += 1;
        match status(&format!("looks-{looks}"), "/").await? {
            StatusCode::OK => Ok(()),
            other => Err(other.to_string()),
        }
    })
    .await;

    assert_eq!(status("alice", "/pay").await, Ok(StatusCode::OK));
    for _ in 0..12 {
        assert_eq!(status("alice", "/pay").await, Ok(StatusCode::TOO_MANY_REQUESTS));
    }
    for number in 0..9 {
        assert_eq!(status("alice", "/").await, Ok(StatusCode::OK), "{number}");
    }
    assert_eq!(status("alice", "/").await, Ok(StatusCode::TOO_MANY_REQUESTS));
}

#[tokio::test]
async fn every_answer_says_how_much_is_left_if_the_document_says_so() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]).await;
    mesh.write("edge.yaml", AT_GATEWAY).expect("a writable directory");
    let gateway = Gateway::start(&mesh, "default/edge", &[80]).await;
    let at_edge = async |user: &str, path: &str| {
        let call = call::to("shop.example.com", path).header("x-user", user);
        told(&gateway.call(80, call).await.map_err(|error| error.to_string())?)
    };
    let at_sidecar = async || {
        let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await;
        told(&answer.map_err(|error| error.to_string())?)
    };
    let none: [String; 3] = Default::default();
    poll(SOON, "the gateway serves", async || {
        let told = at_edge("looks", "/").await?;
        if told == none { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;

    let telling = AT_GATEWAY.replace("spec:\n  targetRefs", "spec:\n  tell: Always\n  targetRefs");
    mesh.write("edge.yaml", &telling).expect("a writable directory");
    let mut looks = 0;
    poll(SOON, "it tells", async || {
        looks += 1;
        let told = at_edge(&format!("looks-{looks}"), "/").await?;
        if told[..2] == ["10", "9"] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let reset = |told: &[String; 3]| told[2].parse::<u64>().is_ok_and(|seconds| seconds > 0);
    let paid = at_edge("alice", "/pay").await.unwrap();
    assert!(paid[..2] == ["1", "0"] && reset(&paid), "the limit of the route is nearer: {paid:?}");
    let looked = at_edge("alice", "/").await.unwrap();
    assert!(looked[..2] == ["10", "8"] && reset(&looked), "{looked:?}");

    assert_eq!(at_sidecar().await.unwrap(), none);
    let service = "apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {name: app}\nspec:\n  tell: Always\n  \
                   targetRefs: [{kind: Service, name: reviews}]\n  limits: [{requests: 500, per: 24h}]\n";
    mesh.write("limits.yaml", service).expect("a writable directory");
    let before = poll(SOON, "the sidecar tells", async || {
        let told = at_sidecar().await?;
        if told[0] == "500" && reset(&told) { Ok(told) } else { Err(format!("{told:?}")) }
    })
    .await;
    let after = at_sidecar().await.unwrap();
    assert_eq!(after[1].parse::<u32>().unwrap() + 1, before[1].parse::<u32>().unwrap());
}

/// What a client is told of limits in an answer that none of them refuses.
fn told(answer: &call::Answer) -> Result<[String; 3], String> {
    if answer.status != StatusCode::OK {
        return Err(answer.summary());
    }
    Ok(["limit", "remaining", "reset"].map(|name| {
        let value = answer.headers.get(format!("x-ratelimit-{name}"));
        value.map(|value| value.to_str().expect("text").to_owned()).unwrap_or_default()
    }))
}
