//! Traces: the spans that sidecars and gateways tell a collector of, and the headers that apps see.

use std::{collections::BTreeMap, fmt::Write as _, fs};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_demo::{apps::reviews, call, call::Call, workload::Spec};
use selvedge_tests::{
    Mesh, SOON,
    collector::{Collector, SeenSpan},
    gateway::Gateway,
    poll,
};
use tokio_rustls::rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};

use crate::SELVEDGE;

const INTERNAL: i32 = 1;
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// What is traced in the whole mesh.
fn sampling(percent: &str, more: &str) -> String {
    format!(
        "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: mesh, namespace: istio-system}}\nspec:\n  \
         tracing:\n  - providers: [{{name: otel}}]\n    randomSamplingPercentage: {percent}\n{more}"
    )
}

/// Two retries, and no ejection.
const RETRIES: &str = "apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: default}
spec:
  host: reviews
  trafficPolicy: {outlierDetection: {consecutive5xxErrors: 0}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http:
  - retries: {attempts: 2, retryOn: 5xx}
    route: [{destination: {host: reviews}}]
";

async fn mesh(collector: &Collector) -> Mesh {
    let endpoint = format!("http://{}", collector.grpc);
    let told = |spec: Spec| spec.flag("--otlp-endpoint", &endpoint);
    Mesh::of(SELVEDGE, [told(Spec::client("caller")), told(Spec::reviews("reviews-v1", "v1"))]).await
}

/// What the app has seen of a request; its status may be ordered.
async fn seen(mesh: &Mesh, call: Call) -> Result<BTreeMap<String, String>, String> {
    let answer = mesh.workload("caller").call(call).await.map_err(|error| error.to_string())?;
    let seen: reviews::Answer = answer.json().map_err(|error| error.to_string())?;
    Ok(seen.headers)
}

fn get(path: &str) -> Call {
    call::to("reviews:9080", path)
}

/// Sends requests until the app sees that one is sampled, or that none is, everywhere on its way.
async fn until_sampled(mesh: &Mesh, is_sampled: bool) {
    poll(SOON, "sampling is in force", async || {
        let headers = seen(mesh, get("/warm-up")).await?;
        let flags = headers.get("traceparent").map(|parent| parent.ends_with("-01"));
        if flags.unwrap_or_default() == is_sampled { Ok(()) } else { Err(format!("{headers:?}")) }
    })
    .await;
}

/// The spans about `path` once there are so many.
async fn spans(collector: &Collector, path: &str, count: usize) -> Vec<SeenSpan> {
    poll(SOON, &format!("{count} spans of {path}"), async || {
        let spans = collector.spans();
        let is_of = |span: &&SeenSpan| {
            span.attributes.get("url.path").is_some_and(|found| found == path)
                || span.attributes.get("url.full").is_some_and(|found| found.ends_with(path))
        };
        let found: Vec<_> = spans.iter().filter(is_of).cloned().collect();
        if found.len() == count { Ok(found) } else { Err(format!("{found:#?}")) }
    })
    .await
}

fn of_kind(spans: &[SeenSpan], kind: i32) -> Vec<&SeenSpan> {
    spans.iter().filter(|span| span.kind == kind).collect()
}

#[tokio::test]
async fn a_request_is_one_trace_through_two_sidecars_with_a_span_for_each_attempt() {
    let collector = Collector::start().await;
    let mesh = mesh(&collector).await;
    let mut tags = String::from("    customTags:\n      team: {literal: {value: shop}}\n");
    tags.push_str("      tenant: {header: {name: X-Tenant, defaultValue: nobody}}\n");
    tags.push_str("      home: {environment: {name: NO_SUCH_VARIABLE, defaultValue: unknown}}\n");
    mesh.write("tracing.yaml", &sampling("100", &tags)).unwrap();
    mesh.write("retries.yaml", RETRIES).unwrap();
    until_sampled(&mesh, true).await;
    let sent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    let retried = poll(SOON, "the routes are in force", async || {
        let path = format!("/failing-{}", collector.messages());
        let call = get(&format!("{path}?status=503")).header("traceparent", sent).header("x-tenant", "gold");
        let before = mesh.workload("caller").metric("selvedge_outbound_retries_total").await;
        let before = before.map_err(|error| error.to_string())?.unwrap_or_default();
        let headers = seen(&mesh, call).await?;
        let after = mesh.workload("caller").metric("selvedge_outbound_retries_total").await;
        let after = after.map_err(|error| error.to_string())?.unwrap_or_default();
        if after == before + 2.0 { Ok((path, headers)) } else { Err(format!("{before} {after}")) }
    })
    .await;

    let (path, headers) = retried;
    let found = spans(&collector, &path, 7).await;
    assert!(found.iter().all(|span| span.trace == "0af7651916cd43dd8448eb211c80319c"), "{found:#?}");
    let [own] = of_kind(&found, INTERNAL)[..] else { panic!("{found:#?}") };
    assert_eq!(own.parent, "b7ad6b7169203331");
    assert_eq!(own.name, "GET reviews.default.svc.cluster.local:9080");
    assert_eq!(own.resource["service.name"], "caller");
    let (attempts, served) = (of_kind(&found, CLIENT), of_kind(&found, SERVER));
    assert_eq!((attempts.len(), served.len()), (3, 3), "{found:#?}");
    for attempt in &attempts {
        assert_eq!(attempt.parent, own.id, "{found:#?}");
        assert!(attempt.is_error && attempt.nanos <= own.nanos, "{attempt:#?}");
        assert_eq!(attempt.attributes["http.response.status_code"], "503");
        assert_eq!(attempt.attributes["error.type"], "503");
        let serving = served.iter().filter(|span| span.parent == attempt.id).count();
        assert_eq!(serving, 1, "{found:#?}");
    }
    let resent: Vec<_> =
        attempts.iter().filter_map(|attempt| attempt.attributes.get("http.request.resend_count")).collect();
    assert_eq!(resent, ["1", "2"], "{attempts:#?}");
    for span in &found {
        let tag = |name: &str| span.attributes.get(name).map(String::as_str);
        assert_eq!(
            [tag("team"), tag("tenant"), tag("home")],
            ["shop", "gold", "unknown"].map(Some),
            "{span:#?}"
        );
    }
    let last = served.iter().find(|span| headers["traceparent"].contains(&span.id));
    assert!(last.is_some_and(|span| span.resource["service.name"] == "reviews"), "{headers:?}");
    assert!(served.iter().all(|span| span.is_error && span.attributes["http.request.method"] == "GET"));
    poll(SOON, "what is sent is counted", async || {
        let sent = mesh.workload("caller").metric("selvedge_trace_spans_sent_total").await;
        let sent = sent.map_err(|error| error.to_string())?;
        if sent >= Some(4.0) { Ok(()) } else { Err(format!("{sent:?}")) }
    })
    .await;
}

#[tokio::test]
async fn who_was_before_decides_in_b3_too_and_what_is_not_sampled_passes_unchanged() {
    let collector = Collector::start().await;
    let mesh = mesh(&collector).await;
    mesh.write("tracing.yaml", &sampling("0", "")).unwrap();
    let trace = "463ac35c9f6413ad48485a3953bb6124";
    let multi = |path: &str, sampled: &str| {
        let call = get(path).header("x-b3-traceid", trace).header("x-b3-spanid", "a2fb4a1d1a96d312");
        call.header("x-b3-sampled", sampled)
    };
    poll(SOON, "tracing is on", async || {
        let headers = seen(&mesh, multi("/warm-up", "1")).await?;
        if headers["x-b3-spanid"] == "a2fb4a1d1a96d312" { Err(format!("{headers:?}")) } else { Ok(()) }
    })
    .await;

    let headers = seen(&mesh, multi("/b3", "1")).await.unwrap();
    let single =
        seen(&mesh, get("/single").header("b3", &format!("{trace}-a2fb4a1d1a96d312-1"))).await.unwrap();

    let found = poll(SOON, "both sidecars tell", async || {
        let spans = collector.spans().into_iter();
        let found: Vec<_> =
            spans.filter(|span| span.attributes.get("url.path").is_some_and(|path| path == "/b3")).collect();
        if found.len() == 2 { Ok(found) } else { Err(format!("{found:#?}")) }
    })
    .await;
    assert!(found.iter().all(|span| span.trace == trace), "{found:#?}");
    let served = of_kind(&found, SERVER)[0];
    assert_eq!(headers["x-b3-spanid"], served.id, "{headers:?}");
    assert_eq!(headers["x-b3-parentspanid"], served.parent, "{headers:?}");
    assert_eq!((headers["x-b3-sampled"].as_str(), headers.get("traceparent")), ("1", None));
    assert!(
        single["b3"].starts_with(&format!("{trace}-")) && !single["b3"].contains("a2fb4a1d1a96d312"),
        "{single:?}"
    );

    let headers = seen(&mesh, multi("/unsampled", "0")).await.unwrap();
    assert_eq!([&headers["x-b3-spanid"], &headers["x-b3-sampled"]], ["a2fb4a1d1a96d312", "0"]);
    let w3c = format!("00-{trace}-a2fb4a1d1a96d312-00");
    let headers = seen(&mesh, get("/unsampled").header("traceparent", &w3c)).await.unwrap();
    assert_eq!(headers["traceparent"], w3c);
    assert_eq!(seen(&mesh, get("/unsampled")).await.unwrap().get("traceparent"), None);
    let told = collector
        .spans()
        .iter()
        .any(|span| span.attributes.get("url.path").is_some_and(|path| path == "/unsampled"));
    assert!(!told);
}

#[tokio::test]
async fn the_share_changes_live_for_the_mesh_a_namespace_and_a_direction() {
    let collector = Collector::start().await;
    let mesh = mesh(&collector).await;
    assert_eq!(seen(&mesh, get("/")).await.unwrap().get("traceparent"), None, "off by default");

    mesh.write("tracing.yaml", &sampling("100", "")).unwrap();
    until_sampled(&mesh, true).await;

    // The namespace's own says that nothing is reported, and inherits the share.
    let off = "apiVersion: telemetry.istio.io/v1alpha1\nkind: Telemetry\nmetadata: {name: quiet}\nspec: {tracing: \
               [{disableSpanReporting: true}]}\n";
    mesh.write("off.yaml", off).unwrap();
    until_sampled(&mesh, false).await;

    // Only what comes in is traced again: the trace begins at the server.
    mesh.write(
        "off.yaml",
        &off.replace("{disableSpanReporting: true}", "{match: {mode: CLIENT}, disableSpanReporting: true}"),
    )
    .unwrap();
    until_sampled(&mesh, true).await;
    seen(&mesh, get("/server-only")).await.unwrap();
    let found = spans(&collector, "/server-only", 1).await;
    assert_eq!((found[0].kind, found[0].parent.as_str()), (SERVER, ""), "{found:#?}");

    // And by our annotation.
    mesh.write("off.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.selvedge.io/trace-sampling: 'off'}}\n").unwrap();
    until_sampled(&mesh, false).await;
    mesh.write("off.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default, annotations: {config.selvedge.io/trace-sampling: '100'}}\n").unwrap();
    until_sampled(&mesh, true).await;
}

#[tokio::test]
async fn what_a_trace_adds_to_a_request_does_not_count_against_its_clients_limit() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.grpc);
    let specs = [Spec::client("caller"), Spec::reviews("reviews-v1", "v1")]
        .map(|spec| spec.flag("--otlp-endpoint", &endpoint).flag("--max-headers", "20"));
    let mesh = Mesh::of(SELVEDGE, specs).await;
    let status = async |fields: usize| {
        let call = (0..fields).fold(get("/filled"), |call, _| call.header("x-filled", "1"));
        mesh.workload("caller").call(call).await.unwrap().status.as_u16()
    };
    let mut most = 0;
    while most < 20 && status(most + 1).await == 200 {
        most += 1;
    }
    assert!((1..20).contains(&most), "{most}");
    assert_eq!(status(most + 1).await, 431);

    mesh.write("tracing.yaml", &sampling("100", "")).unwrap();
    until_sampled(&mesh, true).await;

    assert_eq!([status(most).await, status(most + 1).await], [200, 431]);
}

#[tokio::test]
async fn a_decision_not_to_sample_holds_for_all_behind() {
    let collector = Collector::start().await;
    let mesh = mesh(&collector).await;
    // Nearly never at the client, always at the server.
    let mut text = sampling("0.0001", "");
    let _ = write!(
        text,
        "---\napiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {{name: server, namespace: default}}\nspec:\n  \
         selector: {{matchLabels: {{app: reviews}}}}\n  tracing: [{{randomSamplingPercentage: 100}}]\n"
    );
    mesh.write("tracing.yaml", &text).unwrap();
    poll(SOON, "the client decides", async || {
        let headers = seen(&mesh, get("/warm-up")).await?;
        match headers.get("traceparent") {
            Some(parent) if parent.ends_with("-00") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_gateway_begins_a_trace_and_tells_a_collector_over_http() {
    let collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.http);
    let told = |spec: Spec| spec.flag("--otlp-endpoint", &endpoint).flag("--otlp-protocol", "http");
    let mesh = Mesh::of(SELVEDGE, [told(Spec::reviews("reviews-v1", "v1"))]).await;
    mesh.write("tracing.yaml", &sampling("100", "")).unwrap();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: default}\nspec:\n  \
                 gatewayClassName: selvedge\n  listeners: [{name: http, port: 80, protocol: HTTP}]\n---\n\
                 apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: web, namespace: default}\nspec:\n  \
                 parentRefs: [{name: web}]\n  rules: [{backendRefs: [{name: reviews, port: 9080}]}]\n";
    mesh.write("web.yaml", route).unwrap();
    let flags = ["--otlp-endpoint", &endpoint, "--otlp-protocol", "http"];
    let gateway = Gateway::start_with(&mesh, "default/web", &[80], "", &flags).await;

    poll(SOON, "the gateway samples", async || {
        let call = call::to("shop.example", "/from-outside");
        let answer = gateway.call(80, call).await.map_err(|error| error.to_string())?;
        let seen: reviews::Answer = answer.json().map_err(|error| error.to_string())?;
        let parent = seen.headers.get("traceparent").cloned().unwrap_or_default();
        if parent.ends_with("-01") { Ok(()) } else { Err(parent) }
    })
    .await;

    let found = poll(SOON, "a whole trace", async || {
        let spans = collector.spans();
        let of_gateway =
            |span: &&SeenSpan| span.kind == SERVER && span.resource["selvedge.workload"] == "default/edge";
        let Some(first) = spans.iter().rfind(of_gateway) else { return Err(format!("{spans:#?}")) };
        let whole: Vec<_> = spans.iter().filter(|span| span.trace == first.trace).cloned().collect();
        if whole.len() == 3 { Ok(whole) } else { Err(format!("{whole:#?}")) }
    })
    .await;
    let (servers, attempts) = (of_kind(&found, SERVER), of_kind(&found, CLIENT));
    let [attempt] = attempts[..] else { panic!("{found:#?}") };
    let own = servers.iter().find(|span| span.parent.is_empty()).expect("a first one");
    let served = servers.iter().find(|span| !span.parent.is_empty()).expect("a last one");
    assert_eq!((&attempt.parent, &served.parent), (&own.id, &attempt.id), "{found:#?}");
    assert_eq!(own.attributes["server.address"], "shop.example");
    assert_eq!(served.resource["service.name"], "reviews");
}

/// A certificate authority's certificate in PEM form, and what a server is configured with whose certificate is from it.
fn authority_and_server() -> (String, ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (issuer.pem(), config)
}

#[tokio::test]
async fn a_collector_over_tls_is_told_if_an_authority_vouches_for_it_and_not_otherwise() {
    let (authority, server) = authority_and_server();
    let (other, _) = authority_and_server();
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &str| {
        let path = files.path().join(name);
        fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (right, wrong) = (file("right.pem", &authority), file("wrong.pem", &other));
    let collector = Collector::start_over_tls(server).await;
    let (grpc, http) = (format!("https://{}", collector.grpc), format!("https://{}", collector.http));
    let told = |spec: Spec, url: &str, protocol: &str, ca: &str| {
        let spec = spec.flag("--otlp-endpoint", url).flag("--otlp-protocol", protocol);
        spec.flag("--otlp-ca-file", ca)
    };
    let mesh = Mesh::of(
        SELVEDGE,
        [
            told(Spec::client("caller"), &grpc, "grpc", &right),
            told(Spec::reviews("reviews-v1", "v1"), &http, "http", &right),
            told(Spec::client("doubter"), &grpc, "grpc", &wrong),
        ],
    )
    .await;
    let log = "  accessLogging:\n  - providers: [{name: otel}]\n";
    mesh.write("tracing.yaml", &sampling("100", log)).unwrap();
    until_sampled(&mesh, true).await;
    let sent = mesh.workload("doubter").call(get("/doubted")).await.unwrap();
    assert_eq!(sent.status, 200, "{}", sent.summary());

    seen(&mesh, get("/told")).await.unwrap();

    // The caller's two by gRPC, and the server's by HTTP; and a line of each.
    spans(&collector, "/told", 3).await;
    poll(SOON, "a line of each sidecar", async || {
        let lines = collector.lines();
        let of = |name: &str| lines.iter().any(|line| line.resource["service.name"] == name);
        if of("caller") && of("reviews") { Ok(()) } else { Err(format!("{lines:#?}")) }
    })
    .await;
    let doubter = mesh.workload("doubter").sidecar_process().unwrap();
    poll(SOON, "whoever does not believe it says why", async || {
        let log = doubter.whole_log().map_err(|error| error.to_string())?;
        let why = "its certificate is not from a certificate authority that is trusted here";
        let says = log.lines().any(|line| line.contains("--otlp-endpoint") && line.contains(why));
        if says && log.contains("wrong.pem") { Ok(()) } else { Err(log) }
    })
    .await;
    assert!(!collector.spans().iter().any(|span| span.resource["service.name"] == "doubter"));
}

#[tokio::test]
async fn a_collector_that_is_dead_costs_spans_that_are_counted_and_no_request() {
    let collector = Collector::start().await;
    let dead = format!("http://{}", collector.grpc);
    drop(collector);
    let told = |spec: Spec| spec.flag("--otlp-endpoint", &dead);
    let mesh =
        Mesh::of(SELVEDGE, [told(Spec::client("caller")), told(Spec::reviews("reviews-v1", "v1"))]).await;
    mesh.write("tracing.yaml", &sampling("100", "")).unwrap();
    until_sampled(&mesh, true).await;

    for _ in 0..50 {
        seen(&mesh, get("/")).await.unwrap();
    }

    poll(SOON, "spans are lost, and counted", async || {
        let lost = mesh.workload("caller").metric("selvedge_trace_spans_lost_total").await;
        let lost = lost.map_err(|error| error.to_string())?;
        if lost >= Some(100.0) { Ok(()) } else { Err(format!("{lost:?}")) }
    })
    .await;
    seen(&mesh, get("/")).await.unwrap();
}
