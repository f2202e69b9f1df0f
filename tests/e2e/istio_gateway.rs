//! Istio's `Gateway`s and the `VirtualService`s that name them, through a real gateway.
//!
//! Of Istio's samples, the files themselves count where they are at hand, in the directory beside the checkout where the
//! acceptance documents are. A plain clone has none: there the documents here say the same.

mod tasks;

use std::{fs, path::Path};

use http::{Method, StatusCode};
use rcgen::generate_simple_self_signed;
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{
    Mesh, SOON,
    gateway::Gateway,
    issuer::{IssuerKey, key_set, now},
    needs::Need,
    poll,
};
use serde_json::json;
use tokio::process::Command;

use crate::SELVEDGE;

/// The name of the gateway, and the labels that Istio's samples select.
const GATEWAY: &str = "default/edge";
const LABELS: &str = "istio: ingressgateway";

/// The services that the samples name. Each is one version of `reviews`.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: productpage}
spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: helloworld}
spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 5000, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: tcp-echo}
spec: {selector: {app: reviews}, ports: [{name: tcp, port: 9000, targetPort: 9080}]}
";

/// The sample `file`, or `ours`.
fn sample(file: &str, ours: impl Into<String>) -> String {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/acceptance-yaml/istio/samples");
    fs::read_to_string(samples.join(file)).unwrap_or_else(|_| ours.into())
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

/// A `Gateway` of one server.
fn gateway(name: &str, port: u16, protocol: &str, more: &str) -> String {
    let port = format!("port: {{number: {port}, name: port, protocol: {protocol}}}");
    istio("Gateway", name, &format!("{{selector: {{{LABELS}}}, servers: [{{{port}, {more}}}]}}"))
}

/// A `VirtualService` of the gateway `edge`.
fn routes(name: &str, host: &str, routes: &str) -> String {
    istio("VirtualService", name, &format!("{{hosts: ['{host}'], gateways: [edge], {routes}}}"))
}

fn to(service: &str) -> String {
    format!("route: [{{destination: {{host: {service}}}}}]")
}

/// A mesh of both versions, with these documents, and its gateway.
async fn mesh_of(documents: &str, ports: &[u16]) -> (Mesh, Gateway) {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", SERVICES).unwrap();
    mesh.write("edge.yaml", documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    let gateway = Gateway::start_with_labels(&mesh, GATEWAY, ports, LABELS).await;
    (mesh, gateway)
}

/// Waits until `call` is answered with `status`.
async fn answered(gateway: &Gateway, port: u16, call: Call, status: u16) -> Answer {
    let mut last = None;
    poll(SOON, &format!("{call:?} is answered {status}"), async || {
        let answer = gateway.call(port, call.clone()).await.map_err(|error| error.to_string())?;
        let (is_it, summary) = (answer.status.as_u16() == status, answer.summary());
        last = Some(answer);
        if is_it { Ok(()) } else { Err(summary) }
    })
    .await;
    last.expect("an answer")
}

/// The version that answers `call`.
async fn version(gateway: &Gateway, port: u16, call: Call) -> String {
    let answer = answered(gateway, port, call, 200).await;
    answer.json::<reviews::Answer>().expect("the app's answer").version
}

#[tokio::test]
async fn istios_samples_of_gateways_work_as_they_are() {
    let pages = [
        "exact: /productpage",
        "prefix: /static",
        "exact: /login",
        "exact: /logout",
        "prefix: /api/v1/products",
    ];
    let pages = pages.map(|page| format!("{{uri: {{{page}}}}}")).join(", ");
    let bookinfo = gateway("bookinfo-gateway", 8080, "HTTP", "hosts: ['*']")
        + &routes("bookinfo", "*", &format!("http: [{{match: [{pages}], {}}}]", to("productpage")))
            .replace("[edge]", "[bookinfo-gateway]");
    let hello = gateway("helloworld-gateway", 80, "HTTP", "hosts: ['*']")
        + &routes(
            "helloworld",
            "*",
            &format!("http: [{{match: [{{uri: {{exact: /hello}}}}], {}}}]", to("helloworld")),
        )
        .replace("[edge]", "[helloworld-gateway]");
    let subset = "route: [{destination: {host: tcp-echo, port: {number: 9000}, subset: v1}}]";
    let echo = gateway("tcp-echo-gateway", 31400, "TCP", "hosts: ['*']")
        + &istio(
            "DestinationRule",
            "tcp-echo-destination",
            "{host: tcp-echo, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}",
        )
        + &routes("tcp-echo", "*", &format!("tcp: [{{match: [{{port: 31400}}], {subset}}}]"))
            .replace("[edge]", "[tcp-echo-gateway]");
    let documents = [
        sample("bookinfo/networking/bookinfo-gateway.yaml", bookinfo),
        sample("helloworld/helloworld-gateway.yaml", hello),
        sample("tcp-echo/tcp-echo-all-v1.yaml", echo),
    ];
    let (_mesh, gateway) = mesh_of(&documents.join("\n---\n"), &[80, 8080, 31400]).await;

    for path in ["/productpage?u=normal", "/static/a.css", "/login", "/api/v1/products/0"] {
        assert_eq!(version(&gateway, 8080, call::to("bookinfo.example", path)).await, "v1", "{path}");
    }
    for (port, path) in [(8080, "/other"), (8080, "/productpage/x"), (8080, "/hello"), (80, "/productpage")] {
        let answer = answered(&gateway, port, call::to("bookinfo.example", path), 404).await;
        assert!(answer.proxy_error().is_some_and(|error| error.starts_with("no-route")), "{port}{path}");
    }
    assert_eq!(version(&gateway, 80, call::to("any.example", "/hello")).await, "v2");
    for _ in 0..8 {
        assert_eq!(version(&gateway, 31400, call::to("echo", "/whatever")).await, "v1", "TCP, all to v1");
    }
}

#[tokio::test]
async fn virtual_services_of_one_host_are_one_list_that_changes_while_it_is_served() {
    let first = routes("first", "a.example", &format!("http: [{{{}}}]", to("productpage")));
    let second = |path: &str| {
        routes(
            "second",
            "a.example",
            &format!("http: [{{match: [{{uri: {{prefix: {path}}}}}], {}}}]", to("helloworld")),
        )
    };
    let edge = gateway("edge", 80, "HTTP", "hosts: [a.example, ./b.example]");
    let (mesh, gateway) = mesh_of(&(edge.clone() + &first + &second("/one")), &[80]).await;

    assert_eq!(version(&gateway, 80, call::to("a.example", "/one")).await, "v2");
    assert_eq!(version(&gateway, 80, call::to("a.example:80", "/two")).await, "v1");
    answered(&gateway, 80, call::to("b.example", "/one"), 404).await;

    mesh.write("edge.yaml", &(edge + &first + &second("/two"))).unwrap();
    poll(SOON, "the route has changed", async || {
        match version(&gateway, 80, call::to("a.example", "/two")).await.as_str() {
            "v2" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
    assert_eq!(version(&gateway, 80, call::to("a.example", "/one")).await, "v1");
}

#[tokio::test]
async fn requests_in_plaintext_are_redirected_to_https() {
    let documents = gateway("edge", 80, "HTTP", "hosts: ['*.example'], tls: {httpsRedirect: true}")
        + &routes("a", "a.example", &format!("http: [{{{}}}]", to("productpage")));
    let (_mesh, gateway) = mesh_of(&documents, &[80]).await;

    for host in ["a.example", "other.example"] {
        let call = call::to(&format!("{host}:80"), "/x/y?z=1").method(Method::GET);
        let answer = answered(&gateway, 80, call, StatusCode::MOVED_PERMANENTLY.as_u16()).await;
        assert_eq!(answer.headers["location"], format!("https://{host}/x/y?z=1"));
    }
    answered(&gateway, 80, call::to("a.example.org", "/"), 404).await;
}

#[tokio::test]
async fn claims_of_a_verified_token_choose_the_route() {
    let key = IssuerKey::p256("k");
    let issuer = "https://issuer.example";
    let authentication = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: jwt}}\nspec:\n  \
         selector: {{matchLabels: {{{LABELS}}}}}\n  jwtRules:\n  - issuer: {issuer}\n    jwks: '{}'\n---\n",
        key_set(&[&key])
    );
    let asks = "match: [{headers: {'@request.auth.claims.groups': {exact: dev}}}]";
    let list = format!("http: [{{{asks}, {}}}, {{{}}}]", to("helloworld"), to("productpage"));
    let documents = authentication + &gateway("edge", 80, "HTTP", "hosts: ['*']") + &routes("a", "*", &list);
    let (_mesh, gateway) = mesh_of(&documents, &[80]).await;
    let get = || call::to("a.example", "/");
    let token = |groups: &[&str]| {
        let claims = json!({ "iss": issuer, "sub": "alice", "groups": groups, "exp": now() + 3600 });
        get().header("authorization", &format!("Bearer {}", key.sign(&claims)))
    };

    assert_eq!(version(&gateway, 80, get()).await, "v1", "without a token");
    assert_eq!(version(&gateway, 80, token(&["ops", "dev"])).await, "v2");
    assert_eq!(version(&gateway, 80, token(&["ops"])).await, "v1");
    answered(&gateway, 80, get().header("authorization", "Bearer x"), 401).await;
    for forged in ["request.auth.claims.groups", "x-request-auth-claims-groups"] {
        assert_eq!(version(&gateway, 80, get().header(forged, "dev")).await, "v1", "{forged}");
    }
    let raw =
        "GET / HTTP/1.1\r\nhost: a.example\r\n@request.auth.claims.groups: dev\r\nconnection: close\r\n\r\n";
    let answer = raw_answer(&gateway, raw).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// A certificate for `hosts` that is its own authority, and its key, as PEM.
fn self_signed(hosts: &[&str]) -> [String; 2] {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let pair = generate_simple_self_signed(hosts).unwrap();
    [pair.cert.pem(), pair.signing_key.serialize_pem()]
}

/// A Secret in the namespace of the gateway's workload.
fn secret(name: &str, [chain, key]: &[String; 2], more: &[(&str, &str)]) -> String {
    let data = [&[("tls.crt", chain.as_str()), ("tls.key", key)], more].concat();
    let mut text = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n");
    for (name, pem) in data {
        let lines: String = pem.lines().map(|line| format!("    {line}\n")).collect();
        text += &format!("  {name}: |\n{lines}");
    }
    text + "---\n"
}

/// What curl gets of `https://sni/` with the authority `host`: the status, or 0 if TLS fails.
async fn curl(
    curl: &Path,
    gateway: &Gateway,
    (sni, host): (&str, &str),
    files: &Path,
    client: Option<&str>,
) -> u16 {
    let mut command = Command::new(curl);
    command.args(["--silent", "--proxy", "", "--output", "/dev/null", "--write-out", "%{http_code}"]);
    command.args(["--connect-to", &format!("::{}", gateway.at(443)), "--header", &format!("host: {host}")]);
    command.arg("--cacert").arg(files.join("server.pem"));
    if let Some(client) = client {
        command.arg("--cert").arg(files.join(format!("{client}.pem")));
        command.arg("--key").arg(files.join(format!("{client}.key")));
    }
    let output = command.arg(format!("https://{sni}/")).output().await.unwrap();
    String::from_utf8_lossy(&output.stdout).parse().unwrap()
}

#[tokio::test]
async fn tls_ends_at_a_server_and_clients_show_what_it_asks_for() {
    let Some(program) = Need::Curl.program() else { return };
    let (server, own, stranger) = (
        self_signed(&["*.a.example", "m.example", "o.example"]),
        self_signed(&["client"]),
        self_signed(&["client"]),
    );
    let files = tempfile::tempdir().unwrap();
    let files = files.path();
    for (name, pair) in [("server", &server), ("own", &own), ("stranger", &stranger)] {
        fs::write(files.join(format!("{name}.pem")), &pair[0]).unwrap();
        fs::write(files.join(format!("{name}.key")), &pair[1]).unwrap();
    }
    let of = |name: &str, hosts: &str, tls: &str| {
        gateway(name, 443, "HTTPS", &format!("hosts: [{hosts}], tls: {{{tls}}}"))
            + &routes(&format!("routes-{name}"), "*", &format!("http: [{{{}}}]", to("productpage")))
                .replace("[edge]", &format!("[{name}]"))
    };
    let documents = of("simple", "x.a.example, y.a.example", "mode: SIMPLE, credentialName: plain")
        + &of("mutual", "m.example", "mode: MUTUAL, credentialName: mutual")
        + &of("optional", "o.example", "mode: OPTIONAL_MUTUAL, credentialName: mutual")
        + &secret("plain", &server, &[])
        + &secret("mutual", &server, &[("ca.crt", &own[0])]);
    let (_mesh, gateway) = mesh_of(&documents, &[443]).await;
    let get =
        async |sni: &str, host: &str, client| curl(&program, &gateway, (sni, host), files, client).await;
    poll(SOON, "the gateway serves TLS", async || match get("x.a.example", "x.a.example", None).await {
        200 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;

    for (sni, host, client, status) in [
        ("x.a.example", "y.a.example", None, 200),
        ("x.a.example", "m.example", None, 421),
        ("m.example", "m.example", Some("own"), 200),
        ("m.example", "m.example", None, 0),
        ("m.example", "m.example", Some("stranger"), 0),
        ("o.example", "o.example", None, 200),
        ("o.example", "o.example", Some("own"), 200),
        ("o.example", "o.example", Some("stranger"), 0),
        ("o.example", "m.example", None, 421),
        ("z.a.example", "z.a.example", None, 0),
    ] {
        assert_eq!(get(sni, host, client).await, status, "{sni} {host} {client:?}");
    }
}

/// The answer to the bytes `raw`.
async fn raw_answer(gateway: &Gateway, raw: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(gateway.at(80)).await.unwrap();
    stream.write_all(raw.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
