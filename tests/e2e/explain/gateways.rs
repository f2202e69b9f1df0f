//! What `explain` says of a client outside of the mesh is what a real gateway does with it: random requests over random
//! `Gateway`s with their routes, Istio's `Gateway`s with theirs, and `Ingress`es.

use std::{collections::BTreeMap, process::Command, thread};

use fastrand::Rng;
use http::Version;
use selvedge_demo::{
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use serde_json::Value;
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::{
    agrees::{AT_ONCE, SEED_VARIABLE, agree, seed},
    random::{self, Asked, one},
};
use crate::{
    SELVEDGE,
    gateway::tls::{own, secret},
};

/// How many requests.
const REQUESTS: usize = 160;

/// The port of HTTP in plaintext, of TLS, and of Istio's servers.
const PORTS: [u16; 3] = [80, 443, 8080];

/// What listeners and routes are for.
const HOSTNAMES: [&str; 5] =
    ["*.example.com", "a.example.com", "b.example.com", "*.b.example.com", "c.example.com"];

/// What requests ask for.
const HOSTS: [&str; 6] =
    ["a.example.com", "b.example.com", "c.example.com", "x.b.example.com", "x.example.com", "example.org"];

/// What is compared of the requests that apps get.
const HEADERS: [&str; 7] = [
    "x-a",
    "x-b",
    "x-c",
    "x-envoy-original-path",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
];

/// The versions by themselves, so that it is known when all is served; and what the gateway itself refuses.
const FIXED: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: v1}
spec: {parentRefs: [{name: edge}], hostnames: [v1.test], rules: [{backendRefs: [{name: v1, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: v2}
spec: {parentRefs: [{name: edge}], hostnames: [v2.test], rules: [{backendRefs: [{name: v2, port: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: all}
spec: {host: all, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: closed}
spec:
  selector: {matchLabels: {istio: ingressgateway}}
  action: DENY
  rules:
  - from: [{source: {ipBlocks: [127.0.0.0/8]}}]
    to: [{operation: {methods: [PUT], paths: [/a*]}}]
  - to: [{operation: {ports: ['8080'], hosts: [b.example.com*]}}]
    when: [{key: 'request.headers[x-b]', values: ['2']}]
---
";

/// A request of a client outside of the mesh.
#[derive(Debug, Clone)]
struct Outside {
    port: u16,
    /// The name that its TLS asks for.
    server_name: &'static str,
    asked: Asked,
}

impl Outside {
    fn random(rng: &mut Rng, ports: &[u16]) -> Self {
        let port = one(rng, ports);
        let host = one(rng, &HOSTS);
        let place = if rng.u8(..8) == 0 { 2 } else { 0 };
        let asked = random::request(rng, place);
        let authority = match port {
            80 | 443 => host.to_owned(),
            other => format!("{host}:{other}"),
        };
        // Without ALPN a client of TLS speaks HTTP/1.1.
        let version = if port == 443 { Version::HTTP_11 } else { asked.version };
        let grpc = asked.grpc.filter(|_| port != 443);
        let server_name = if rng.u8(..4) == 0 { one(rng, &HOSTS) } else { host };
        Self { port, server_name, asked: Asked { host: authority, version, grpc, ..asked } }
    }

    fn scheme(&self) -> &'static str {
        if self.port == 443 { "https" } else { "http" }
    }

    fn call(&self) -> Call {
        let Asked { host, path, method, version, headers, grpc } = &self.asked;
        let mut call = call::to(host, path).method(method.clone()).version(*version);
        for (name, value) in headers {
            call = call.header(name, value);
        }
        if grpc.is_some() { call.header("content-type", "application/grpc") } else { call }
    }

    /// What the gateway does with it; or that it makes no connection.
    async fn send(&self, gateway: &Gateway, roots: &[CertificateDer<'static>]) -> Result<Answer, String> {
        match self.port {
            443 => gateway.call_tls(443, self.server_name, roots, self.call()).await,
            port => gateway.call(port, self.call()).await.map_err(|error| error.to_string()),
        }
    }

    /// What `explain` says of it.
    fn explain(&self, mesh: &Mesh, gateway: &str) -> Value {
        let mut command = Command::new(SELVEDGE);
        command.args([
            "explain",
            "request",
            "-o",
            "json",
            "--from-address",
            "127.0.0.1",
            "--gateway",
            gateway,
        ]);
        command.args(["--sni", self.server_name, "--config-dir"]).arg(mesh.config_dir());
        let (scheme, Asked { host, path, method, grpc, headers, .. }) = (self.scheme(), &self.asked);
        match grpc {
            Some(call) => command.args(["--to", &format!("{scheme}://{host}"), "--grpc", call]),
            None => command.args(["--to", &format!("{scheme}://{host}{path}"), "-X", method.as_str()]),
        };
        for (name, value) in headers {
            command.args(["-H", &format!("{name}: {value}")]);
        }
        let output = command.output().expect("the command runs");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}: {output:?}"))
    }
}

/// Sends requests, and compares what the gateway does with what is said.
async fn compare(
    rng: &mut Rng,
    (mesh, gateway, name): (&Mesh, &Gateway, &str),
    ports: &[u16],
    roots: &[CertificateDer<'static>],
    context: &str,
) {
    let all: Vec<Outside> = (0..REQUESTS).map(|_| Outside::random(rng, ports)).collect();
    let (mut ruled, mut refused) = (0, 0);
    for some in all.chunks(AT_ONCE) {
        let said: Vec<Value> = thread::scope(|scope| {
            let threads: Vec<_> = some.iter().map(|one| scope.spawn(|| one.explain(mesh, name))).collect();
            threads.into_iter().map(|thread| thread.join().expect("it has explained")).collect()
        });
        for (one, said) in some.iter().zip(said) {
            let done = one.send(gateway, roots).await;
            ruled += usize::from(said["rule"]["written"].is_object());
            refused += usize::from(said["refused"].is_object());
            let agreed = match (&done, said["refused"].is_object()) {
                (Err(_), true) => Ok(()),
                (Err(error), false) if is_for_another_name(&said) => {
                    match error.contains("not valid for name") {
                        true => Ok(()),
                        false => Err(error.clone()),
                    }
                }
                (Ok(_), false) if is_for_another_name(&said) => {
                    Err("the client takes the certificate".to_owned())
                }
                (Ok(done), false) => agree(&said, done, &HEADERS),
                (Ok(_), true) => Err("it is served".to_owned()),
                (Err(error), false) => Err(error.clone()),
            };
            if let Err(why) = agreed {
                panic!("{why}\n{one:?}\nsaid: {said:#}\ndone: {done:?}\n{context}");
            }
        }
    }
    // A gateway may have one host name of all that are called.
    assert!(ruled > REQUESTS / 20, "too few requests follow a rule: {ruled}; {context}");
    assert!(refused < REQUESTS / 2, "too few connections come in: {refused} do not; {context}");
}

/// Whether it is said that the certificate is not for the name that the client asks for.
fn is_for_another_name(said: &Value) -> bool {
    let remarks = said["gateway"]["listener"]["tls"]["remarks"].as_array();
    remarks
        .into_iter()
        .flatten()
        .any(|remark| remark.as_str().is_some_and(|text| text.contains("not for that name")))
}

/// Waits until both versions answer `at` this gateway.
async fn wait_for_both(gateway: &Gateway, hosts: [&str; 2]) {
    for host in hosts {
        poll(SOON, "each version answers", async || {
            let answer =
                gateway.call(80, call::to(host, "/ready")).await.map_err(|error| error.to_string())?;
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    }
}

async fn mesh_of(documents: &str) -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("common.yaml", random::COMMON).unwrap();
    mesh.write("edge.yaml", documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    mesh
}

/// Some of `all`, at least one, each once.
fn some<T: Copy>(rng: &mut Rng, all: &[T]) -> Vec<T> {
    let mut all = all.to_vec();
    rng.shuffle(&mut all);
    all.truncate(rng.usize(1..=all.len()));
    all
}

/// A `Gateway` of the Gateway API, its routes, and the Secrets of its listeners with the roots of those.
fn gateway_api(rng: &mut Rng) -> (String, Vec<CertificateDer<'static>>) {
    let (mut listeners, mut sections, mut roots) = (Vec::new(), Vec::new(), Vec::new());
    let mut text = String::new();
    for (index, hostname) in some(rng, &HOSTNAMES).into_iter().enumerate() {
        sections.push(format!("p{index}"));
        listeners.push(format!("{{name: p{index}, port: 80, protocol: HTTP, hostname: '{hostname}'}}"));
    }
    listeners.push("{name: fixed, port: 80, protocol: HTTP, hostname: '*.test'}".to_owned());
    for (index, hostname) in some(rng, &HOSTNAMES).into_iter().enumerate() {
        sections.push(format!("s{index}"));
        let pair = own(hostname);
        text += &secret(&format!("s{index}"), &pair, &pair);
        roots.push(pair.der.der().clone());
        listeners.push(format!(
            "{{name: s{index}, port: 443, protocol: HTTPS, hostname: '{hostname}', \
             tls: {{certificateRefs: [{{name: s{index}}}]}}}}"
        ));
    }
    text += &format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{name: edge}}\n\
         spec: {{gatewayClassName: selvedge, listeners: [{}]}}\n---\n",
        listeners.join(", ")
    );
    for index in 0..rng.usize(3..7) {
        let parent = match rng.u8(..3) {
            0 => format!("{{name: edge, sectionName: {}}}", sections[rng.usize(..sections.len())]),
            _ => "{name: edge}".to_owned(),
        };
        let hostnames = if rng.u8(..4) == 0 { Vec::new() } else { some(rng, &HOSTNAMES) };
        let hostnames: Vec<String> = hostnames.iter().map(|name| format!("'{name}'")).collect();
        let rules: Vec<String> = (0..rng.usize(1..4)).map(|_| random::http_rule(rng)).collect();
        text += &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{index}}}\n\
             spec:\n  parentRefs: [{parent}]\n  hostnames: [{}]\n  rules:\n{}---\n",
            hostnames.join(", "),
            rules.concat()
        );
    }
    (text, roots)
}

/// `Gateway`s of Istio on one port, and `VirtualService`s that name them.
fn istio(rng: &mut Rng) -> String {
    let mut text = String::new();
    let names = ["one", "two"];
    for name in names {
        let hosts: Vec<String> = some(rng, &HOSTNAMES).iter().map(|host| format!("'{host}'")).collect();
        text += &format!(
            "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{istio: ingressgateway}}, servers: [{{port: {{number: 8080, name: {name}, protocol: HTTP}}, hosts: [{}]}}]}}\n---\n",
            hosts.join(", ")
        );
    }
    for index in 0..rng.usize(2..6) {
        let hosts: Vec<String> = some(rng, &HOSTNAMES).iter().map(|host| format!("'{host}'")).collect();
        let gateways = some(rng, &names);
        let rules: Vec<String> = (0..rng.usize(1..5)).map(|_| random::istio_rule(rng, "all")).collect();
        text += &format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: i{index}}}\n\
             spec:\n  gateways: [{}]\n  hosts: [{}]\n  http:\n{}---\n",
            gateways.join(", "),
            hosts.join(", "),
            rules.concat()
        );
    }
    text
}

#[tokio::test]
async fn explain_says_what_a_gateway_does() {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let (documents, roots) = gateway_api(&mut rng);
    let documents = [FIXED, &documents, &istio(&mut rng)].concat();
    let mesh = mesh_of(&documents).await;
    let labels = "istio: ingressgateway, app: caller";
    let gateway = Gateway::start_with_labels(&mesh, "default/edge", &PORTS, labels).await;
    wait_for_both(&gateway, ["v1.test", "v2.test"]).await;

    let context = format!("{SEED_VARIABLE}={seed}\n{documents}");
    compare(&mut rng, (&mesh, &gateway, "default/edge"), &PORTS, &roots, &context).await;
}

/// An `Ingress` of one host.
fn ingress(rng: &mut Rng, index: usize) -> String {
    let annotations = BTreeMap::from([
        ("whitelist-source-range", "127.0.0.0/8"),
        ("denylist-source-range", "127.0.0.0/8"),
        ("rewrite-target", "/new"),
        ("app-root", "/a/b"),
        ("permanent-redirect", "https://other.example/"),
        ("upstream-vhost", "other.example"),
        ("force-ssl-redirect", "true"),
    ]);
    let mut chosen: Vec<String> = annotations
        .iter()
        .filter(|_| rng.u8(..9) == 0)
        .map(|(name, value)| format!("nginx.ingress.kubernetes.io/{name}: '{value}'"))
        .collect();
    if rng.u8(..5) == 0 {
        let canary =
            ["canary: 'true'", "canary-by-header: x-a", "canary-by-header-value: '1'", "canary-weight: '30'"];
        chosen.extend(canary.map(|text| format!("nginx.ingress.kubernetes.io/{text}")));
    }
    let paths = (0..rng.usize(1..4)).map(|_| {
        let (kind, path) = (one(rng, &["Prefix", "Exact"]), one(rng, &random::PATHS));
        let service = one(rng, &["v1", "v2", "all", "gone"]);
        format!(
            "{{path: '{path}', pathType: {kind}, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}"
        )
    });
    let paths: Vec<String> = paths.collect();
    let host = if rng.u8(..5) == 0 { String::new() } else { format!("host: '{}', ", one(rng, &HOSTNAMES)) };
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: n{index}, annotations: {{{}}}}}\n\
         spec: {{rules: [{{{host}http: {{paths: [{}]}}}}]}}\n---\n",
        chosen.join(", "),
        paths.join(", ")
    )
}

#[tokio::test]
async fn explain_says_what_the_gateway_of_ingresses_does() {
    let seed = seed();
    let mut rng = Rng::with_seed(seed);
    let fixed: String = ["v1", "v2"]
        .map(|name| {
            format!(
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}}}\n\
                 spec: {{rules: [{{host: {name}.test, http: {{paths: [{{path: /, pathType: Prefix, backend: \
                 {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}}}]}}\n---\n"
            )
        })
        .concat();
    let random: String = (0..14).map(|index| ingress(&mut rng, index)).collect();
    let documents = fixed + &random;
    let mesh = mesh_of(&documents).await;
    let gateway = Gateway::start(&mesh, "selvedge/ingress", &[80]).await;
    wait_for_both(&gateway, ["v1.test", "v2.test"]).await;

    let context = format!("{SEED_VARIABLE}={seed}\n{documents}");
    compare(&mut rng, (&mesh, &gateway, "selvedge/ingress"), &[80], &[], &context).await;
}
