//! Connections from outside to apps without sidecars: clients that must show who they are, TLS that passes through, and TCP.

use std::sync::Arc;

use http::Version;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use super::{
    Edge, HOST, gateway as gateway_of,
    tls::{Pair, ask, indented, key, listener, mesh_of, open, own, route, secret, served},
};

use crate::retries::server::{answer as answered, serve};

/// An authority, and a client's certificate of it.
fn authority_and_client(client: &str) -> (Pair, Pair) {
    let (root_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let mut of_client = CertificateParams::new([client.to_owned()]).unwrap();
    of_client.distinguished_name.push(DnType::CommonName, client);
    let leaf = of_client.signed_by(&key, &Issuer::from_params(&params, &root_key)).unwrap();
    (Pair { pem: root.pem(), key: root_key, der: root }, Pair { pem: leaf.pem(), key, der: leaf })
}

/// The service `name`, whose one workload has no sidecar and listens on `port`.
pub(super) fn app(name: &str, protocol: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{name: {protocol}, port: 80, targetPort: {port}}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\n\
         spec: {{address: 127.0.0.1, labels: {{app: {name}}}}}\n---\n"
    )
}

/// What an app answers to the first bytes of a connection.
pub(super) type Answers = fn(&str) -> String;

/// An app on loopback, which speaks TLS with `pair` if there is one.
pub(super) async fn answering(pair: Option<&Pair>, answers: Answers) -> u16 {
    let acceptor = pair.map(|pair| {
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![pair.der.der().clone()], key(pair)).unwrap();
        TlsAcceptor::from(Arc::new(config))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            // A client that goes away, or does not speak TLS, gets nothing, and its test sees that.
            let _ = match &acceptor {
                None => answer(tcp, answers).await,
                Some(acceptor) => match acceptor.accept(tcp).await {
                    Ok(stream) => answer(stream, answers).await,
                    Err(error) => Err(error),
                },
            };
        }
    });
    port
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, answers: Answers) -> std::io::Result<()> {
    let mut first = vec![0; 4096];
    let read = stream.read(&mut first).await?;
    stream.write_all(answers(&String::from_utf8_lossy(&first[..read])).as_bytes()).await?;
    stream.shutdown().await
}

/// Answers a request with its head.
pub(super) fn http(head: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{head}", head.len())
}

/// Everything that is answered to `hello`.
pub(super) async fn exchanged(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<String, String> {
    let all = async {
        stream.write_all(b"hello").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let all = timeout(SOON, all).await.map_err(|_| "no answer in time".to_owned())?;
    all.map_err(|error| error.to_string())
}

/// Waits until `hello` to `host` over TLS is answered with `expected`.
pub(super) async fn answers(gateway: &Gateway, host: &str, root: &Pair, expected: &str) {
    poll(SOON, expected, async || {
        let answer = exchanged(open(gateway, host, root, None).await?).await?;
        if answer == expected { Ok(()) } else { Err(answer) }
    })
    .await;
}

/// A gateway with the certificate `server` for one.test, whose clients must show certificates of these `authorities`.
async fn asking_for_certificates(authorities: &str, server: &Pair) -> (Mesh, Gateway) {
    let authorities = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients}}\ndata:\n  ca.crt: |\n{}---\n",
        indented(authorities)
    );
    let validated = gateway_of(&listener("HTTPS", "one", "one.test")).replace(
        "listeners:",
        "tls: {frontend: {default: {validation: {caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}}}, listeners:",
    );
    let documents = [
        secret("one", server, server),
        authorities,
        validated,
        route("HTTPRoute", "one", "one", ""),
        app("one", "http", answering(None, http).await),
    ];
    mesh_of(&documents.concat(), "default/edge").await
}

#[tokio::test]
async fn a_client_must_show_a_certificate_of_the_authority_and_the_app_is_told_of_it() {
    let (root, client) = authority_and_client("alice.test");
    let (_, stranger) = authority_and_client("alice.test");
    let server = own("one.test");
    let (_mesh, gateway) = asking_for_certificates(&root.pem, &server).await;
    served(&gateway, "one.test", &server, Some(&client)).await;

    let forged = call::to("one.test", "/").header("x-forwarded-client-cert", "Subject=\"CN=admin\"");
    let seen = ask(&gateway, "one.test", &server, Some(&client), forged).await.unwrap().text();
    let told: Vec<_> = seen.lines().filter(|line| line.starts_with("x-forwarded-client-cert:")).collect();
    assert_eq!(told.len(), 1, "{seen}");
    assert!(told[0].contains("Hash=") && told[0].contains("CN=alice.test"), "{seen}");
    assert!(told[0].contains("DNS=alice.test") && !seen.contains("admin"), "{seen}");
    // The stranger's authority has the same name, and another key.
    for (who, why) in [(None, "CertificateRequired"), (Some(&stranger), "DecryptError")] {
        // A client of TLS 1.3 has ended its handshake before it is judged.
        let mut stream = open(&gateway, "one.test", &server, who).await.unwrap();
        let refused = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
}

#[tokio::test]
async fn a_client_may_show_the_very_certificate_that_is_given_as_authority_with_its_key_and_in_its_time() {
    // As `openssl req -x509` makes it: an authority that nobody else has signed.
    let made = |change: fn(&mut CertificateParams)| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["alice.test".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "alice.test");
        change(&mut params);
        let certificate = params.self_signed(&key).unwrap();
        Pair { pem: certificate.pem(), key, der: certificate }
    };
    let client = made(|_| {});
    let gone = made(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let of_server =
        made(|params| params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth]);
    // The certificate of the client is no secret; its key is.
    let thief = Pair { pem: client.pem.clone(), key: KeyPair::generate().unwrap(), der: client.der.clone() };
    let server = own("one.test");
    let authorities = [&*client.pem, &*gone.pem, &*of_server.pem].concat();
    let (_mesh, gateway) = asking_for_certificates(&authorities, &server).await;

    served(&gateway, "one.test", &server, Some(&client)).await;
    let seen =
        ask(&gateway, "one.test", &server, Some(&client), call::to("one.test", "/")).await.unwrap().text();
    assert!(seen.contains("CN=alice.test"), "{seen}");
    for (who, why) in [(&thief, "DecryptError"), (&gone, "CertificateExpired"), (&of_server, "certificate")] {
        let mut stream = open(&gateway, "one.test", &server, Some(who)).await.unwrap();
        let refused = timeout(SOON, stream.read_u8()).await.unwrap().unwrap_err().to_string();
        assert!(refused.to_lowercase().contains(&why.to_lowercase()), "{refused}");
    }
}

#[tokio::test]
async fn a_route_is_for_a_path_whatever_the_case_of_its_hex_digits_and_the_app_gets_the_path_as_it_came() {
    let rule = |path: &str| {
        format!("rules: [{{matches: [{{path: {path}}}], backendRefs: [{{name: one, port: 80}}]}}]")
    };
    let documents = |path: &str| {
        let route = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: one}}\n\
             spec: {{parentRefs: [{{name: edge}}], hostnames: [{HOST}], {}}}\n---\n",
            rule(path)
        );
        [gateway_of("{name: http, port: 80, protocol: HTTP}"), route].concat()
    };
    let app = app("one", "http", answering(None, http).await);
    for path in [
        "{type: Exact, value: '/caf%c3%A9/x'}",
        "{type: PathPrefix, value: '/caf%C3%a9'}",
        "{type: RegularExpression, value: '/caf%c3%a9/.*'}",
    ] {
        let (_mesh, gateway) = mesh_of(&[documents(path), app.clone()].concat(), "default/edge").await;
        let at = gateway.at(80);
        for asked in ["/caf%c3%a9/x", "/caf%C3%A9/x", "/caf%C3%a9/x"] {
            poll(SOON, "the route is found", async || {
                let answer =
                    call::send(at, call::to(HOST, asked)).await.map_err(|error| error.to_string())?;
                let line = format!("GET {asked} HTTP/1.1\r\n");
                if answer.text().starts_with(&line) { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
        let answer = call::send(at, call::to(HOST, "/caf%c4%a9/x")).await.unwrap();
        assert_eq!(answer.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_served_where_the_gateway_lets_it_and_the_app_can_tell() {
    let (root, client) = authority_and_client("alice.test");
    let server = own("one.test");
    let authorities = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: clients}}\ndata:\n  ca.crt: |\n{}---\n",
        indented(&root.pem)
    );
    let validated = gateway_of(&listener("HTTPS", "one", "one.test")).replace(
        "listeners:",
        "tls: {frontend: {default: {validation: {mode: AllowInsecureFallback, \
         caCertificateRefs: [{group: '', kind: ConfigMap, name: clients}]}}}}, listeners:",
    );
    let documents = [
        secret("one", &server, &server),
        authorities,
        validated,
        route("HTTPRoute", "one", "one", ""),
        app("one", "http", answering(None, http).await),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "default/edge").await;
    served(&gateway, "one.test", &server, None).await;

    let told = async |client| {
        let seen =
            ask(&gateway, "one.test", &server, client, call::to("one.test", "/")).await.unwrap().text();
        seen.contains("x-forwarded-client-cert:")
    };
    assert!(!told(None).await && told(Some(&client)).await);
}

#[tokio::test]
async fn on_one_port_tls_ends_for_one_name_and_passes_through_for_another() {
    let (ended, passed) = (own("ends.test"), own("passes.test"));
    let inside = answering(None, |bytes| format!("inside: {bytes}")).await;
    let itself = answering(Some(&passed), |bytes| format!("itself: {bytes}")).await;
    let passing = "{name: passes, port: 443, protocol: TLS, hostname: passes.test, tls: {mode: Passthrough}}"
        .to_owned();
    let documents = [
        secret("ends", &ended, &ended),
        gateway_of(&[listener("TLS", "ends", "ends.test"), passing].join(", ")),
        route("TLSRoute", "ends", "ends", "hostnames: [ends.test],"),
        route("TLSRoute", "passes", "passes", "hostnames: [passes.test],"),
        app("ends", "tcp", inside),
        app("passes", "tls", itself),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "default/edge").await;

    answers(&gateway, "ends.test", &ended, "inside: hello").await;
    answers(&gateway, "passes.test", &passed, "itself: hello").await;
}

#[tokio::test]
async fn tls_passes_through_to_the_app_of_its_name() {
    let (a, b) = (own("a.pass.test"), own("b.pass.test"));
    let at_a = answering(Some(&a), |bytes| format!("a: {bytes}")).await;
    let at_b = answering(Some(&b), |bytes| format!("b: {bytes}")).await;
    let passing = "{name: pass, port: 443, protocol: TLS, hostname: '*.pass.test', tls: {mode: Passthrough}}";
    let documents = [
        gateway_of(passing),
        route("TLSRoute", "a", "pass", "hostnames: [a.pass.test],"),
        route("TLSRoute", "b", "pass", "hostnames: [b.pass.test],"),
        app("a", "tls", at_a),
        app("b", "tls", at_b),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "default/edge").await;

    answers(&gateway, "a.pass.test", &a, "a: hello").await;
    answers(&gateway, "b.pass.test", &b, "b: hello").await;
    for nobodys in ["c.pass.test", "a.test"] {
        let refused = open(&gateway, nobodys, &a, None).await.unwrap_err();
        assert!(!refused.contains("no handshake in time"), "{nobodys}: {refused}");
    }
}

#[tokio::test]
async fn an_ingress_may_have_tls_go_on_to_its_app_as_it_is() {
    let pair = own("pass.test");
    let passed = answering(Some(&pair), |bytes| format!("passed: {bytes}")).await;
    let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\n\
        metadata: {name: pass, annotations: {nginx.ingress.kubernetes.io/ssl-passthrough: 'true', \
        nginx.ingress.kubernetes.io/backend-protocol: HTTPS}}\n\
        spec: {rules: [{host: pass.test, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, \
        port: {number: 80}}}}]}}]}\n---\n";
    let documents = [ingress.to_owned(), app("a", "https", passed)];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "selvedge/ingress").await;

    answers(&gateway, "pass.test", &pair, "passed: hello").await;
    assert!(open(&gateway, "other.test", &pair, None).await.is_err());
}

#[tokio::test]
async fn tcp_and_what_was_inside_tls_reach_their_apps() {
    let pair = own("db.test");
    let plain = answering(None, |bytes| format!("plain: {bytes}")).await;
    let inside = answering(None, |bytes| format!("inside: {bytes}")).await;
    let listeners =
        ["{name: plain, port: 9000, protocol: TCP}".to_owned(), listener("TLS", "db", "db.test")].join(", ");
    let documents = [
        secret("db", &pair, &pair),
        gateway_of(&listeners),
        route("TCPRoute", "plain", "plain", ""),
        route("TCPRoute", "db", "db", ""),
        app("plain", "tcp", plain),
        app("db", "tcp", inside),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "default/edge").await;

    answers(&gateway, "db.test", &pair, "inside: hello").await;
    let answer = poll(SOON, "the app answers", async || {
        let tcp = TcpStream::connect(gateway.at(9000)).await.map_err(|error| error.to_string())?;
        exchanged(tcp).await
    })
    .await;
    assert_eq!(answer, "plain: hello");
    open(&gateway, "other.test", &pair, None).await.unwrap_err();
}

/// The version of HTTP in which the app is asked if its client speaks `version`.
async fn asked_in(edge: &Edge, version: Version) -> String {
    let call = call::to(HOST, "/").version(version);
    edge.call(call).await.map_or_else(|error| error, |answer| answer.text())
}

#[tokio::test]
async fn a_gateway_speaks_to_apps_as_its_client_does_if_the_policy_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    serve(listener, |_, request| async move { answered(200, format!("{:?}", request.version())) });
    let documents = [app("one", "http", port), super::route("HTTPRoute", "one", 80)].concat();
    let edge = Edge::of([Spec::client("nobody")], &documents).await;
    edge.served("/").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(asked_in(&edge, version).await, "HTTP/1.1");
    }

    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: one}\n\
                spec: {host: one, trafficPolicy: {connectionPool: {http: {useClientProtocol: true}}}}\n";
    edge.mesh.write("rule.yaml", rule).unwrap();

    poll(SOON, "HTTP/2", async || {
        let asked = asked_in(&edge, Version::HTTP_2).await;
        if asked == "HTTP/2.0" { Ok(()) } else { Err(asked) }
    })
    .await;
    assert_eq!(asked_in(&edge, Version::HTTP_11).await, "HTTP/1.1");
}
