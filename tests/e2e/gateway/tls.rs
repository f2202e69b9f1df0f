//! TLS from outside: whose certificate a client sees, and what becomes of it where certificates change or are broken.

use std::{fs, sync::Arc};

use rcgen::KeyPair;
use selvedge_certs::tls::provider;
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, needs::Need, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        AlertDescription, ClientConfig, Error, RootCertStore,
        pki_types::{PrivateKeyDer, ServerName},
        sign::{CertifiedKey, SingleCertAndKey},
        version::TLS12,
    },
};

use super::gateway as gateway_of;
use crate::{SELVEDGE, foreign::succeeds};

/// The lesson's document, byte for byte.
const LESSON: &str = include_str!("../../../control-plane/src/resources/gateway/lesson.yaml");

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
    pub(crate) der: rcgen::Certificate,
}

/// A certificate that is its own root.
pub(crate) fn own(host: &str) -> Pair {
    let pair = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    Pair { pem: pair.cert.pem(), key: pair.signing_key, der: pair.cert }
}

/// A Secret with the certificate of one pair and the key of another.
pub(crate) fn secret(name: &str, certificate: &Pair, key: &Pair) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  \
         tls.key: |\n{}---\n",
        indented(&certificate.pem),
        indented(&key.key.serialize_pem())
    )
}

pub(super) fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A listener called as the Secret whose certificate it shows.
pub(super) fn listener(protocol: &str, name: &str, host: &str) -> String {
    format!(
        "{{name: {name}, port: 443, protocol: {protocol}, hostname: '{host}', tls: {{certificateRefs: [{{name: {name}}}]}}}}"
    )
}

/// A route of this kind, with these further fields, at the listener `section`, to a service of its own name.
pub(super) fn route(kind: &str, service: &str, section: &str, more: &str) -> String {
    let version = if kind == "HTTPRoute" { "v1" } else { "v1alpha2" };
    format!(
        "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: {service}}}\n\
         spec: {{parentRefs: [{{name: edge, sectionName: {section}}}], {more} rules: [{{backendRefs: [{{name: {service}, port: 80}}]}}]}}\n---\n"
    )
}

/// The versions of `reviews` as services.
pub(super) fn reviews_as(one: &str, two: &str) -> String {
    let service = |name: &str, version: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
             spec: {{selector: {{app: reviews, version: {version}}}, ports: [{{name: http, port: 80, targetPort: 9080}}]}}\n---\n"
        )
    };
    service(one, "v1") + &service(two, "v2")
}

/// A mesh with these documents and both versions of `reviews`, and the gateway `name`.
pub(super) async fn mesh_of(documents: &str, name: &str) -> (Mesh, Gateway) {
    mesh_with(documents, name, &[]).await
}

/// The same; the gateway's proxy has these flags, and its workload the label `app: edge`.
pub(super) async fn mesh_with(documents: &str, name: &str, flags: &[&str]) -> (Mesh, Gateway) {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("edge.yaml", documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    let gateway = Gateway::start_with(&mesh, name, &[80, 443, 9000], "app: edge", flags).await;
    (mesh, gateway)
}

/// A connection of TLS to `host`, whose certificate must be of `root`. The client shows a certificate if it has one.
pub(super) async fn open(
    gateway: &Gateway,
    host: &str,
    root: &Pair,
    client: Option<&Pair>,
) -> Result<TlsStream<TcpStream>, String> {
    let mut roots = RootCertStore::empty();
    roots.add(root.der.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots);
    let config = match client {
        None => config.with_no_client_auth(),
        Some(pair) => {
            // Whoever has stolen a certificate has another key; the handshake shows it, and not this builder.
            let key = provider().key_provider.load_private_key(key(pair)).unwrap();
            let shown = CertifiedKey::new(vec![pair.der.der().clone()], key);
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shown)))
        }
    };
    let tcp = TcpStream::connect(gateway.at(443)).await.map_err(|error| error.to_string())?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let opened = timeout(SOON, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await;
    opened.map_err(|_| "no handshake in time".to_owned())?.map_err(|error| error.to_string())
}

/// What connects to a server whose certificate is of `root`.
pub(super) fn connector(root: &Pair) -> TlsConnector {
    connector_for(root, &[])
}

/// The same, which offers these protocols (ALPN).
pub(crate) fn connector_for(root: &Pair, protocols: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(root.der.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let mut config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

pub(super) fn key(pair: &Pair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(pair.key.serialize_der().into())
}

/// The answer to `call` over such a connection.
pub(super) async fn ask(
    gateway: &Gateway,
    host: &str,
    root: &Pair,
    client: Option<&Pair>,
    call: Call,
) -> Result<Answer, String> {
    let stream = open(gateway, host, root, client).await?;
    let answered = timeout(SOON, call::over(stream, gateway.at(443), call)).await;
    answered.map_err(|_| "no answer in time".to_owned())?.map_err(|error| call::causes(&error))
}

/// The answer of the app behind `host`, as soon as there is one.
pub(super) async fn served(gateway: &Gateway, host: &str, root: &Pair, client: Option<&Pair>) -> Answer {
    poll(SOON, "the gateway serves", async || {
        let answer = ask(gateway, host, root, client, call::to(host, "/app1/x")).await?;
        if answer.status.is_success() { Ok(answer) } else { Err(answer.summary()) }
    })
    .await
}

#[tokio::test]
async fn the_lessons_gateway_works_as_it_is() {
    let pair = own("example.com");
    let documents =
        [&secret("tls-cert", &pair, &pair), &reviews_as("app1-service", "app2-service"), LESSON].concat();
    let (mesh, gateway) = mesh_of(&documents, "default/my-gateway").await;
    let inside = served(&gateway, "example.com", &pair, None).await.json::<reviews::Answer>().unwrap();
    assert_eq!((inside.version.as_str(), inside.path.as_str()), ("v1", "/app1/x"));
    assert_eq!(inside.headers["x-forwarded-proto"], "https");

    let plain = gateway.call(80, call::to("example.com", "/app1")).await.unwrap();
    assert_eq!(plain.json::<reviews::Answer>().unwrap().headers["x-forwarded-proto"], "http");
    for (host, path) in [("example.com", "/app12"), ("example.com", "/"), ("example.org", "/app1")] {
        let over_tls = ask(&gateway, "example.com", &pair, None, call::to(host, path)).await.unwrap();
        for answer in [over_tls, gateway.call(80, call::to(host, path)).await.unwrap()] {
            assert!(answer.proxy_error().is_some_and(|why| why.starts_with("no-route")), "{host}{path}");
        }
    }
    let Some(curl) = Need::Curl.program() else { return };
    let root = mesh.directory().join("root.pem");
    fs::write(&root, &pair.pem).unwrap();
    for (scheme, port, protocol) in
        [("http", 80, "--http1.1"), ("https", 443, "--http1.1"), ("https", 443, "--http2")]
    {
        let mut command = Command::new(&curl);
        command.args(["--silent", "--show-error", "--fail", "--proxy", "", protocol, "--cacert"]);
        command.arg(&root).args(["--connect-to", &format!("::{}", gateway.at(port))]);
        command.args(["--write-out", "\n%{http_version}", &format!("{scheme}://example.com/app1/curl")]);
        let printed = succeeds(&mut command).await;
        let (answer, spoken) = printed.trim_end().rsplit_once('\n').unwrap();
        assert_eq!(spoken == "2", protocol == "--http2", "{spoken}");
        assert_eq!(serde_json::from_str::<reviews::Answer>(answer).unwrap().path, "/app1/curl");
    }
}

/// Two listeners, each with a host, a Secret and an app of its own.
fn two_hosts() -> String {
    let listeners = [listener("HTTPS", "one", "one.test"), listener("HTTPS", "two", "two.test")].join(", ");
    reviews_as("one", "two")
        + &gateway_of(&listeners)
        + &route("HTTPRoute", "one", "one", "")
        + &route("HTTPRoute", "two", "two", "")
}

#[tokio::test]
async fn each_host_has_its_listener_and_a_new_certificate_is_for_new_connections() {
    let (one, two, new) = (own("one.test"), own("two.test"), own("one.test"));
    let secrets = |one: &Pair| secret("one", one, one) + &secret("two", &two, &two);
    let (mesh, gateway) = mesh_of(&(secrets(&one) + &two_hosts()), "default/edge").await;
    for (host, root, version) in [("one.test", &one, "v1"), ("two.test", &two, "v2")] {
        let answer = served(&gateway, host, root, None).await;
        assert_eq!(answer.json::<reviews::Answer>().unwrap().version, version);
    }
    let answer = ask(&gateway, "one.test", &one, None, call::to("two.test", "/")).await.unwrap();
    assert_eq!(answer.status.as_u16(), 421);
    assert!(answer.proxy_error().is_some_and(|why| why.starts_with("misdirected")), "{}", answer.summary());
    let refused = open(&gateway, "three.test", &one, None).await.unwrap_err();
    assert!(refused.contains("UnrecognisedName"), "{refused}");

    let mut kept = open(&gateway, "one.test", &one, None).await.unwrap();
    ask_on(&mut kept).await;
    mesh.write("edge.yaml", &(secrets(&new) + &two_hosts())).unwrap();
    served(&gateway, "one.test", &new, None).await;
    open(&gateway, "one.test", &one, None).await.unwrap_err();
    ask_on(&mut kept).await;
    served(&gateway, "two.test", &two, None).await;
}

/// Asks on a connection that is kept.
async fn ask_on(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: one.test\r\n\r\n").await.unwrap();
    let mut answer = vec![0; 1 << 16];
    let read = timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn a_broken_secret_stops_its_own_listener_until_it_is_mended() {
    let (one, two) = (own("one.test"), own("two.test"));
    let secrets = |key: &Pair| secret("one", &one, key) + &secret("two", &two, &two);
    let (mesh, gateway) = mesh_of(&(secrets(&two) + &two_hosts()), "default/edge").await;
    served(&gateway, "two.test", &two, None).await;

    let refused = open(&gateway, "one.test", &one, None).await.unwrap_err();
    assert!(refused.contains("HandshakeFailure"), "{refused}");
    let problems = mesh.control_plane_admin("/problems").await.unwrap().text();
    for told in [
        "is not the key of the certificate in tls.crt; take both from one request",
        r#""field":"stringData[tls.key]""#,
        r#""field":"spec.listeners[0].tls.certificateRefs[0]""#,
        "so nobody is served here",
    ] {
        assert!(problems.contains(told), "{told}: {problems}");
    }
    let secret_line = two.key.serialize_pem().lines().nth(1).unwrap().to_owned();
    assert!(!problems.contains(&secret_line), "the problems show a key");

    mesh.write("edge.yaml", &(secrets(&one) + &two_hosts())).unwrap();
    served(&gateway, "one.test", &one, None).await;
}

#[tokio::test]
async fn a_policy_of_a_gateway_knows_which_name_a_client_asks_for() {
    let (one, two) = (own("one.test"), own("two.test"));
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: names}\n\
                  spec: {selector: {matchLabels: {app: edge}}, action: DENY, rules: [{when: [{key: connection.sni, values: [Two.test]}]}]}\n---\n";
    let documents = secret("one", &one, &one) + &secret("two", &two, &two) + &two_hosts() + policy;
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("edge.yaml", &documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    let gateway = Gateway::start_with_labels(&mesh, "default/edge", &[443], "app: edge").await;

    served(&gateway, "one.test", &one, None).await;
    let denied = ask(&gateway, "two.test", &two, None, call::to("two.test", "/")).await.unwrap();
    assert_eq!(denied.status, 403, "{}", denied.summary());
}

#[tokio::test]
async fn a_secret_that_is_broken_while_it_is_in_use_keeps_its_last_good_version() {
    let (one, two, other) = (own("one.test"), own("two.test"), own("one.test"));
    let secrets = |one: &Pair, key: &Pair| secret("one", one, key) + &secret("two", &two, &two);
    let (mesh, gateway) = mesh_of(&(secrets(&one, &one) + &two_hosts()), "default/edge").await;
    served(&gateway, "one.test", &one, None).await;

    mesh.write("edge.yaml", &(secrets(&other, &one) + &two_hosts())).unwrap();
    poll(SOON, "the fault is told", async || {
        let told = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?.text();
        if told.contains("stays in use") { Ok(()) } else { Err(told) }
    })
    .await;
    served(&gateway, "one.test", &one, None).await;
    let metrics = call::send(gateway.admin, call::to("gateway", "/metrics")).await.unwrap().text();
    let line = "selvedge_gateway_certificate_expiry_timestamp_seconds{certificate=\"default/one\"} ";
    assert!(metrics.contains(line), "{metrics}");

    mesh.write("edge.yaml", &(secrets(&other, &other) + &two_hosts())).unwrap();
    served(&gateway, "one.test", &other, None).await;
}

#[tokio::test]
async fn a_client_without_an_algorithm_for_any_certificate_is_told_that() {
    let (one, two) = (own("one.test"), own("two.test"));
    let (_mesh, gateway) = mesh_of(
        &[secret("one", &one, &one), secret("two", &two, &two), two_hosts()].concat(),
        "default/edge",
    )
    .await;
    served(&gateway, "one.test", &one, None).await;

    // The certificates have keys of elliptic curves.
    let mut of_rsa = (*provider()).clone();
    of_rsa.cipher_suites.retain(|suite| format!("{:?}", suite.suite()).contains("ECDHE_RSA"));
    let mut roots = RootCertStore::empty();
    roots.add(one.der.der().clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(of_rsa)).with_protocol_versions(&[&TLS12]);
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let tcp = TcpStream::connect(gateway.at(443)).await.unwrap();
    let name = ServerName::try_from("one.test").unwrap();
    let error = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap_err();
    let told = error.get_ref().and_then(|error| error.downcast_ref::<Error>());
    assert_eq!(told, Some(&Error::AlertReceived(AlertDescription::HandshakeFailure)), "{error}");
}

#[tokio::test]
async fn a_certificate_in_files_is_shown_and_a_new_one_follows() {
    let (one, two, new) = (own("one.test"), own("two.test"), own("one.test"));
    let named = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: one\n  annotations:\n    \
                 config.selvedge.io/files: tls.crt=tls/one.crt, tls.key=tls/one.key\n---\n";
    let mut mesh = Mesh::empty(SELVEDGE);
    let put = |mesh: &Mesh, pair: &Pair| {
        mesh.write("tls/one.crt", &pair.pem).unwrap();
        mesh.write("tls/one.key", &pair.key.serialize_pem()).unwrap();
    };
    fs::create_dir(mesh.config_dir().join("tls")).unwrap();
    put(&mesh, &one);
    let documents = [named, &secret("two", &two, &two), &two_hosts()].concat();
    mesh.write("edge.yaml", &documents).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    let gateway = Gateway::start(&mesh, "default/edge", &[80, 443]).await;
    served(&gateway, "one.test", &one, None).await;
    let mut kept = open(&gateway, "one.test", &one, None).await.unwrap();
    ask_on(&mut kept).await;

    // Half of a new pair is none.
    mesh.write("tls/one.crt", &new.pem).unwrap();
    poll(SOON, "the fault is told", async || {
        let told = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?.text();
        let says = told.contains("stays in use") && told.contains("config.selvedge.io/files");
        if says { Ok(()) } else { Err(told) }
    })
    .await;
    served(&gateway, "one.test", &one, None).await;
    put(&mesh, &new);
    served(&gateway, "one.test", &new, None).await;
    ask_on(&mut kept).await;
    served(&gateway, "two.test", &two, None).await;
}
