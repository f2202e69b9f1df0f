//! `Ingress`es through a real gateway: rules, and each annotation of nginx's that is acted on.

mod passwords;

use std::{collections::BTreeMap, time::Duration};

use http::{Method, StatusCode, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::SELVEDGE;

/// The lesson's document, byte for byte.
const LESSON: &str = include_str!("../../control-plane/src/resources/ingress/lesson.yaml");

/// Each version is the service that the lesson's document names.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: app1-service}
spec: {selector: {app: reviews, version: v1}, ports: [{name: http, port: 80, targetPort: 9080}]}
---
apiVersion: v1
kind: Service
metadata: {name: app2-service}
spec: {selector: {app: reviews, version: v2}, ports: [{name: http, port: 80, targetPort: 9080}]}
";

/// An `Ingress` called as the first label of its host, with these annotations, and paths of `app1-service`.
pub(crate) fn ingress(host: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> String {
    to("app1-service", host.split('.').next().unwrap_or(host), host, annotations, paths)
}

fn to(service: &str, name: &str, host: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)]) -> String {
    let annotations =
        annotations.iter().map(|(name, value)| format!("nginx.ingress.kubernetes.io/{name}: '{value}'"));
    let paths = paths.iter().map(|(kind, path)| {
        format!(
            "{{path: '{path}', pathType: {kind}, backend: {{service: {{name: {service}, port: {{name: http}}}}}}}}"
        )
    });
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{}}}}}\n\
         spec: {{rules: [{{host: '{host}', http: {{paths: [{}]}}}}]}}\n---\n",
        annotations.collect::<Vec<_>>().join(", "),
        paths.collect::<Vec<_>>().join(", ")
    )
}

pub(crate) const ALL: &[(&str, &str)] = &[("Prefix", "/")];

/// A mesh of both versions and the gateway of all `Ingress`es, which are these.
async fn mesh_with(ingresses: &str) -> (Mesh, Gateway) {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", SERVICES).unwrap();
    mesh.write("ingresses.yaml", ingresses).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1"), Spec::reviews("reviews-v2", "v2")]).await.unwrap();
    let gateway = Gateway::start(&mesh, "selvedge/ingress", &[80, 443]).await;
    (mesh, gateway)
}

/// The same; it waits until the gateway serves `host`.
pub(crate) async fn mesh_of(ingresses: &str, host: &str) -> (Mesh, Gateway) {
    let (mesh, gateway) = mesh_with(ingresses).await;
    poll(SOON, "the gateway serves", async || {
        let answer = gateway.call(80, call::to(host, "/app1")).await.map_err(|error| error.to_string())?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    (mesh, gateway)
}

async fn asked(gateway: &Gateway, call: Call) -> Answer {
    gateway.call(80, call).await.unwrap()
}

/// What the app saw of `call`.
async fn seen(gateway: &Gateway, call: Call) -> reviews::Answer {
    let shown = format!("{call:?}");
    let answer = asked(gateway, call).await;
    assert_eq!(answer.status, StatusCode::OK, "{shown}: {}", answer.summary());
    answer.json().unwrap()
}

/// The status, and where a redirect leads.
async fn status(gateway: &Gateway, call: Call) -> (u16, String) {
    let answer = asked(gateway, call).await;
    let header = |name| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
    (answer.status.as_u16(), header("location").or(header("selvedge-error")).unwrap_or_default())
}

/// A Secret with a certificate for `hosts`, which is its own root.
fn secret(name: &str, hosts: &[&str]) -> (String, CertificateDer<'static>) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let pair = rcgen::generate_simple_self_signed(hosts).unwrap();
    let text = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  \
         tls.key: |\n{}---\n",
        indented(&pair.cert.pem()),
        indented(&pair.signing_key.serialize_pem())
    );
    (text, pair.cert.der().clone())
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Waits until the gateway serves `host` over TLS with `root`.
async fn is_served_over_tls(gateway: &Gateway, host: &str, root: &CertificateDer<'static>) {
    poll(SOON, "the gateway serves TLS", async || {
        let roots = std::slice::from_ref(root);
        gateway.call_tls(443, host, roots, call::to(host, "/")).await.map(drop)
    })
    .await;
}

/// The answer of `example.com` over TLS.
async fn over_tls(gateway: &Gateway, root: &CertificateDer<'static>, authority: &str, path: &str) -> Answer {
    let call = call::to(authority, path);
    gateway.call_tls(443, "example.com", std::slice::from_ref(root), call).await.unwrap()
}

#[tokio::test]
async fn the_lessons_ingress_works_as_it_is() {
    let (secret, root) = secret("tls-secret", &["example.com"]);
    let (_mesh, gateway) = mesh_with(&(secret + LESSON)).await;
    is_served_over_tls(&gateway, "example.com", &root).await;

    let one = over_tls(&gateway, &root, "example.com", "/app1/a/b?x=y").await;
    let one: reviews::Answer = one.json().unwrap();
    assert_eq!((one.version.as_str(), one.path.as_str()), ("v1", "/?x=y"));
    let identity = one.client_identity.unwrap_or_default();
    assert!(
        identity.ends_with("/ns/selvedge/sa/edge"),
        "the gateway calls with its own identity: {identity:?}"
    );
    let two: reviews::Answer = over_tls(&gateway, &root, "example.com:443", "/app2").await.json().unwrap();
    assert_eq!((two.version.as_str(), two.path.as_str()), ("v2", "/"));
    assert_eq!(over_tls(&gateway, &root, "example.com", "/app12").await.status, StatusCode::NOT_FOUND);
    let to_tls = status(&gateway, call::to("example.com", "/app1/a?x=y")).await;
    assert_eq!(to_tls, (308, "https://example.com/app1/a?x=y".to_owned()));
    assert!(status(&gateway, call::to("example.org", "/app1")).await.1.starts_with("no-route"));
}

#[tokio::test]
async fn rules_are_found_by_host_and_path_and_the_rest_goes_to_the_default_backend() {
    let more = "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: more}\n\
                spec: {defaultBackend: {service: {name: app2-service, port: {number: 80}}}}\n";
    let documents = ingress("a.example.com", &[], &[("Prefix", "/app1"), ("Exact", "/exact")])
        + &to("app2-service", "wild", "*.example.com", &[], ALL)
        + &to("app2-service", "longer", "a.example.com", &[], &[("Prefix", "/app1/longer")])
        + more;
    let (_mesh, gateway) = mesh_of(&documents, "a.example.com").await;

    for (host, path, version) in [
        ("a.example.com", "/app1/x", "v1"),
        ("A.example.com", "/app1", "v1"),
        ("a.example.com", "/app1/longer/x", "v2"),
        ("a.example.com", "/exact", "v1"),
        ("b.example.com", "/x", "v2"),
        ("x.org", "/x", "v2"),
    ] {
        assert_eq!(seen(&gateway, call::to(host, path)).await.version, version, "{host}{path}");
    }
    assert_eq!(status(&gateway, call::to("a.example.com", "/exact/x")).await.0, 404);
}

#[tokio::test]
async fn every_annotation_does_what_it_does_in_nginx() {
    let cases = [
        ingress("ready.test", &[], ALL),
        ingress(
            "groups.test",
            &[("rewrite-target", "/new/$2")],
            &[("ImplementationSpecific", "/api(/|$)(.*)")],
        ),
        ingress("regex.test", &[("use-regex", "true")], &[("ImplementationSpecific", "/v[0-9]+/x")]),
        ingress("force.test", &[("force-ssl-redirect", "true")], ALL),
        ingress("moved.test", &[("permanent-redirect", "https://new.test/x?y=z")], ALL),
        ingress("away.test", &[("temporal-redirect", "https://new.test$request_uri")], ALL),
        ingress("query.test", &[("rewrite-target", "/x?name=$1")], &[("Prefix", "/n/(.*)")]),
        ingress("same.test", &[("rewrite-target", "/")], ALL),
        ingress(
            "prefix.test",
            &[("rewrite-target", "/x"), ("x-forwarded-prefix", "/app")],
            &[("Prefix", "/app")],
        ),
        ingress(
            "parts.test",
            &[("permanent-redirect", "https://$host/new/$1$is_args$args"), ("use-regex", "true")],
            &[("Prefix", "/old/(.*)")],
        ),
        ingress("root.test", &[("app-root", "/app")], ALL),
        ingress("vhost.test", &[("upstream-vhost", "inner.test")], ALL),
        ingress("alias.test", &[("server-alias", r"other.test,~^www\d+\.other\.test$")], ALL),
        ingress("kinds.test", &[("upstream-vhost", "letters")], &[("ImplementationSpecific", "/a")]),
        ingress("segments.test", &[("upstream-vhost", "segments")], &[("Prefix", "/a")])
            .replace("segments.test", "kinds.test"),
        ingress("slow.test", &[("proxy-read-timeout", "1")], ALL),
        ingress("grpc.test", &[("backend-protocol", "GRPC"), ("proxy-connect-timeout", "2")], ALL),
        ingress("cors.test", &[("enable-cors", "true"), ("cors-allow-origin", "https://a.test")], ALL),
        ingress("near.test", &[("whitelist-source-range", "127.0.0.0/8,::1")], ALL),
        ingress("far.test", &[("whitelist-source-range", "10.0.0.0/8")], ALL),
        ingress(
            "denied.test",
            &[("denylist-source-range", "127.0.0.0/8"), ("permanent-redirect", "/x")],
            ALL,
        ),
        ingress("secret.test", &[("auth-url", "https://auth.test")], ALL),
    ];
    let (_mesh, gateway) = mesh_of(&cases.concat(), "ready.test").await;

    for (host, path, saw) in [
        ("groups.test", "/api/a/b?q=1", "/new/a/b?q=1"),
        ("groups.test", "/API", "/new/"),
        ("regex.test", "/v12/x/y", "/v12/x/y"),
        ("alias.test", "/a", "/a"),
        ("other.test", "/a", "/a"),
        ("www12.other.test", "/a", "/a"),
        ("query.test", "/n/ann?q=1", "/x?name=ann&q=1"),
        ("same.test", "/a/b?q=1", "/a/b?q=1"),
        ("grpc.test", "/a", "/a"),
        ("near.test", "/a", "/a"),
        ("root.test", "/other", "/other"),
        ("slow.test", "/a", "/a"),
    ] {
        assert_eq!(seen(&gateway, call::to(host, path)).await.path, saw, "{host}{path}");
    }
    let vhost = seen(&gateway, call::to("vhost.test", "/")).await;
    assert_eq!(vhost.headers.get("host").map(String::as_str), Some("inner.test"));
    assert_eq!(vhost.headers.get("x-real-ip"), vhost.headers.get("x-forwarded-for"));
    for name in ["x-scheme", "x-forwarded-scheme"] {
        assert_eq!(vhost.headers.get(name).map(String::as_str), Some("http"), "{name}");
    }
    for (path, kind) in [("/a/b", "segments"), ("/ab", "letters")] {
        let kinds = seen(&gateway, call::to("kinds.test", path)).await;
        assert_eq!(kinds.headers.get("host").map(String::as_str), Some(kind), "{path}");
    }
    let prefix = seen(&gateway, call::to("prefix.test", "/app/y")).await;
    assert_eq!(prefix.headers.get("x-forwarded-prefix").map(String::as_str), Some("/app"));
    for (host, path, code, says) in [
        ("parts.test", "/old/a?b=c", 301, "https://parts.test/new/a?b=c"),
        ("www.other.test", "/", 404, "no-route"),
        ("groups.test", "/apix", 404, "no-route"),
        ("regex.test", "/va/x", 404, "no-route"),
        ("force.test", "/a?b=c", 308, "https://force.test/a?b=c"),
        ("moved.test", "/a?b=c", 301, "https://new.test/x?y=z"),
        ("away.test", "/a?b=c", 302, "https://new.test/a?b=c"),
        ("root.test", "/", 302, "/app"),
        ("far.test", "/", 403, "policy"),
        ("denied.test", "/", 403, "policy"),
        ("secret.test", "/", 500, "filter"),
        ("slow.test", "/?delay=5s", 504, "timeout"),
    ] {
        let (status, said) = status(&gateway, call::to(host, path)).await;
        assert!(status == code && said.starts_with(says), "{host}{path}: {status} {said}");
    }
}

#[tokio::test]
async fn what_a_trusted_proxy_got_over_tls_is_answered_and_all_else_is_sent_to_tls() {
    let ingresses =
        ingress("force.test", &[("force-ssl-redirect", "true")], ALL) + &ingress("ready.test", &[], ALL);
    for (flags, carried) in [(&[][..], 308), (&["--trusted-hops=1"], 200)] {
        let mut mesh = Mesh::empty(SELVEDGE);
        mesh.write("services.yaml", SERVICES).unwrap();
        mesh.write("ingresses.yaml", &ingresses).unwrap();
        mesh.start_control_plane().await.unwrap();
        mesh.add([Spec::reviews("reviews-v1", "v1")]).await.unwrap();
        let gateway = Gateway::start_with(&mesh, "selvedge/ingress", &[80], "", flags).await;
        poll(SOON, "the gateway serves", async || {
            let answer =
                gateway.call(80, call::to("ready.test", "/")).await.map_err(|error| error.to_string())?;
            if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.summary()) }
        })
        .await;

        for (told, expected) in [(None, 308), (Some("http"), 308), (Some("https"), carried)] {
            let call = call::to("force.test", "/a");
            let call = match told {
                Some(proto) => call.header("x-forwarded-proto", proto),
                None => call,
            };
            assert_eq!(status(&gateway, call).await.0, expected, "{flags:?} {told:?}");
        }
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_as_the_annotations_say() {
    let origins = "https://a.test, https://*.b.test";
    let documents = ingress("ready.test", &[("enable-cors", "true")], ALL)
        + &ingress("cors.test", &[("enable-cors", "true"), ("cors-allow-origin", origins)], ALL);
    let (_mesh, gateway) = mesh_of(&documents, "ready.test").await;

    let allowed = async |host: &str, origin: &str| {
        let preflight = call::to(host, "/").method(Method::OPTIONS).header("origin", origin);
        let answer = asked(&gateway, preflight.header("access-control-request-method", "PUT")).await;
        let said = |name: &str| answer.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        (
            said("access-control-allow-origin"),
            said("access-control-allow-credentials"),
            said("access-control-max-age"),
        )
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        allowed("cors.test", "https://x.b.test").await,
        (some("https://x.b.test"), some("true"), some("1728000"))
    );
    assert_eq!(allowed("cors.test", "https://b.test").await, (None, None, None));
    assert_eq!(allowed("cors.test", "https://y.x.b.test").await, (None, None, None));
    assert_eq!(allowed("ready.test", "https://evil.test").await, (some("*"), None, some("1728000")));
}

#[tokio::test]
async fn a_canary_takes_its_part_of_the_requests() {
    let canary = |host: &str, annotations: &[(&str, &str)]| {
        let all = [&[("canary", "true")], annotations].concat();
        let name = format!("{}-canary", host.split('.').next().unwrap());
        ingress(host, &[], ALL) + &to("app2-service", &name, host, &all, ALL)
    };
    let documents = ingress("ready.test", &[], ALL)
        + &canary("header.test", &[("canary-by-header", "x-canary"), ("canary-by-cookie", "new")])
        + &canary(
            "value.test",
            &[("canary-by-header", "x-country"), ("canary-by-header-pattern", "^(de|fr)")],
        )
        + &canary("half.test", &[("canary-weight", "50")])
        + &canary("whole.test", &[("canary-weight", "100")]);
    let (_mesh, gateway) = mesh_of(&documents, "ready.test").await;

    let of = |host| call::to(host, "/");
    for (call, version) in [
        (of("header.test"), "v1"),
        (of("header.test").header("x-canary", "always"), "v2"),
        (of("header.test").header("x-canary", "never").header("cookie", "new=always"), "v1"),
        (of("header.test").header("cookie", "a=b; new=always"), "v2"),
        (of("header.test").header("cookie", "new=never"), "v1"),
        (of("value.test").header("x-country", "fr-CA"), "v2"),
        (of("value.test").header("x-country", "it"), "v1"),
        (of("whole.test"), "v2"),
    ] {
        let shown = format!("{call:?}");
        assert_eq!(seen(&gateway, call).await.version, version, "{shown}");
    }
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..200 {
        *counts.entry(seen(&gateway, of("half.test")).await.version).or_default() += 1;
    }
    // Of 200 draws with equal chance, fewer than 60 of one happen less than once in ten million.
    assert!(counts.len() == 2 && counts.values().all(|count| *count > 60), "{counts:?}");
}

#[tokio::test]
async fn no_form_of_a_path_passes_by_the_ingress_that_answers_it_to_some_addresses_only() {
    let some = [("whitelist-source-range", "10.0.0.0/8")];
    let ingresses = to("app1-service", "some", "some.test", &some, &[("Prefix", "/admin")])
        + &to("app2-service", "all", "some.test", &[], ALL);
    let (_mesh, gateway) = mesh_of(&ingresses, "some.test").await;

    for path in [
        "/admin",
        "/admin/x",
        "//admin",
        "///admin//x",
        "/admin%2fx",
        "/%2Fadmin",
        "/a/..%2Fadmin",
        "/a%5c..%5cadmin",
        "/%61dmin/",
    ] {
        let call = call::to("some.test", path).header("x-forwarded-for", "10.1.1.1");
        let (status, said) = status(&gateway, call).await;
        assert!(status == 403 && said.starts_with("policy"), "{path}: {status} {said}");
    }
    assert_eq!(seen(&gateway, call::to("some.test", "/a%2fb//c?d=//%2f")).await.path, "/a/b/c?d=//%2f");
}

#[tokio::test]
async fn an_ingress_that_is_broken_keeps_its_last_good_version_and_the_others_go_on() {
    let good = ingress("ready.test", &[], ALL) + &ingress("b.test", &[("app-root", "/app")], ALL);
    let (mesh, gateway) = mesh_of(&good, "ready.test").await;
    assert_eq!(status(&gateway, call::to("b.test", "/")).await.0, 302);

    let new = ingress("c.test", &[], ALL);
    mesh.write("ingresses.yaml", &(good.replace("'/app'", "'app'") + &new)).unwrap();
    poll(SOON, "the new one is served", async || {
        let call = call::to("c.test", "/").timeout(Duration::from_secs(2));
        let answer = gateway.call(80, call).await.map_err(|error| error.to_string())?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.summary()) }
    })
    .await;

    assert_eq!(status(&gateway, call::to("b.test", "/")).await, (302, "/app".to_owned()));
}

#[tokio::test]
async fn each_host_has_its_certificate_and_its_plaintext_is_sent_there_unless_an_annotation_says_otherwise() {
    let (one, root_one) = secret("one", &["a.test", "other.test"]);
    let (two, root_two) = secret("two", &["*.wild.test"]);
    let tls =
        |host: &str, secret: &str| format!("tls: [{{hosts: ['{host}'], secretName: {secret}}}], rules:");
    let documents = one
        + &two
        + &ingress("a.test", &[("server-alias", "other.test")], ALL).replace("rules:", &tls("a.test", "one"))
        + &to("app2-service", "wild", "*.wild.test", &[("ssl-redirect", "false")], ALL)
            .replace("rules:", &tls("*.wild.test", "two"))
        + &ingress("lost.test", &[], ALL).replace("rules:", &tls("lost.test", "none"))
        + &ingress("plain.test", &[], &[("Prefix", "/")]);
    let (mesh, gateway) = mesh_with(&documents).await;
    is_served_over_tls(&gateway, "a.test", &root_one).await;
    is_served_over_tls(&gateway, "x.wild.test", &root_two).await;

    for (host, root, version) in
        [("a.test", &root_one, "v1"), ("other.test", &root_one, "v1"), ("x.wild.test", &root_two, "v2")]
    {
        let answer =
            gateway.call_tls(443, host, std::slice::from_ref(root), call::to(host, "/")).await.unwrap();
        assert_eq!(answer.json::<reviews::Answer>().unwrap().version, version, "{host}");
    }
    for (host, plaintext) in
        [("a.test", 308), ("other.test", 308), ("x.wild.test", 200), ("lost.test", 308), ("plain.test", 200)]
    {
        assert_eq!(status(&gateway, call::to(host, "/")).await.0, plaintext, "{host}");
    }
    let roots = [root_one.clone(), root_two.clone()];
    for host in ["lost.test", "plain.test"] {
        assert!(gateway.call_tls(443, host, &roots, call::to(host, "/")).await.is_err(), "{host}");
    }
    let misdirected = gateway.call_tls(443, "a.test", &roots, call::to("x.wild.test", "/")).await.unwrap();
    assert_eq!(misdirected.status, StatusCode::MISDIRECTED_REQUEST);
    let problems = mesh.control_plane_admin("/problems").await.unwrap().text();
    assert!(problems.contains("there is no Secret default/none"), "{problems}");
}

#[tokio::test]
async fn a_body_that_is_longer_than_its_ingress_allows_is_refused() {
    let limited = |host: &str, size: &str| ingress(host, &[("proxy-body-size", size)], ALL);
    let ingresses =
        limited("small.test", "1k") + &limited("large.test", "0") + &ingress("usual.test", &[], ALL);
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.write("services.yaml", SERVICES).unwrap();
    mesh.write("ingresses.yaml", &ingresses).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::reviews("reviews-v1", "v1")]).await.unwrap();
    let gateway = Gateway::start_with(&mesh, "selvedge/ingress", &[80], "", &["--max-body-bytes=2048"]).await;
    poll(SOON, "the gateway serves", async || {
        let answer =
            gateway.call(80, call::to("usual.test", "/")).await.map_err(|error| error.to_string())?;
        if answer.status == StatusCode::OK { Ok(()) } else { Err(answer.summary()) }
    })
    .await;

    for (host, most) in [("small.test", Some(1024)), ("usual.test", Some(2048)), ("large.test", None)] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            for (length, allowed) in [(0, true), (1000, true), (100_000, most.is_none())]
                .into_iter()
                .chain(most.into_iter().flat_map(|most| [(most, true), (most + 1, false)]))
            {
                let call = call::to(host, "/").version(version).method(Method::POST).body(vec![b'x'; length]);
                let (status, why) = status(&gateway, call).await;
                assert_eq!(
                    status,
                    if allowed { 200 } else { 413 },
                    "{host}, {version:?}, {length} bytes: {why}"
                );
                assert!(allowed || why.starts_with("body-too-large"), "{why}");
            }
        }
    }
    // A body without a length is cut off where it exceeds.
    for (host, chunks, answer) in
        [("small.test", 10, "413"), ("small.test", 1, "200"), ("large.test", 100, "200")]
    {
        let head = format!(
            "POST / HTTP/1.1\r\nhost: {host}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
        let mut stream = TcpStream::connect(gateway.at(80)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..chunks {
            stream.write_all(format!("200\r\n{}\r\n", "x".repeat(512)).as_bytes()).await.unwrap();
        }
        // It may have been answered by now.
        let _ = stream.write_all(b"0\r\n\r\n").await;
        let mut said = vec![0; 12];
        timeout(SOON, stream.read_exact(&mut said)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8_lossy(&said), format!("HTTP/1.1 {answer}"), "{host}, {chunks} chunks");
    }
    let metrics = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
    assert!(metrics.contains("error_type=\"body-too-large\""), "{metrics}");
}
