//! TLS to backends that ask for it (`BackendTLSPolicy`): servers are believed by the authority and the name that it says, and
//! nothing is sent in plaintext instead.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_demo::{
    call::{self, Answer},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{RootCertStore, ServerConfig, pki_types::CertificateDer, server::WebPkiClientVerifier},
};

use super::{
    gateway as gateway_of, http_listener,
    tls::{Pair, indented, key, listener, mesh_of, own, route, secret},
    to_apps::{answering, answers, app, http},
};

fn authority(name: &str, pair: &Pair) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata:\n  ca.crt: |\n{}---\n",
        indented(&pair.pem)
    )
}

fn policy(hostname: &str, authorities: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: BackendTLSPolicy\nmetadata: {{name: shop-tls}}\n\
         spec: {{targetRefs: [{{group: '', kind: Service, name: shop}}], validation: {{hostname: {hostname}, {authorities}}}}}\n---\n"
    )
}

const GIVEN: &str = "caCertificateRefs: [{group: '', kind: ConfigMap, name: ca}]";

/// How often an app was reached without TLS.
static PLAINTEXT: AtomicUsize = AtomicUsize::new(0);

/// Calls through the gateway until the answer is as `wanted` says.
async fn until(gateway: &Gateway, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
    poll(SOON, what, async || {
        let answer =
            gateway.call(80, call::to("shop.example.com", "/")).await.map_err(|error| error.to_string())?;
        if wanted(&answer) { Ok(answer) } else { Err(answer.summary()) }
    })
    .await
}

/// Waits until requests are refused, for a reason that the gateway logs in these words.
async fn until_refused(gateway: &Gateway, words: &str) {
    until(gateway, words, |answer| {
        let is_logged = gateway.process.whole_log().is_ok_and(|log| log.contains(words));
        answer.status.is_server_error() && answer.proxy_error().is_some() && is_logged
    })
    .await;
}

#[tokio::test]
async fn a_backend_is_called_over_tls_and_believed_by_authority_and_name() {
    let (server, other) = (own("shop.test"), own("shop.test"));
    let base = [
        gateway_of(&http_listener("http", 80)),
        route("HTTPRoute", "shop", "http", ""),
        app("shop", "http", answering(Some(&server), http).await),
    ]
    .concat();
    let with = |more: &[String]| base.clone() + &more.concat();
    let good = with(&[authority("ca", &server), policy("shop.test", GIVEN)]);
    let (mesh, gateway) = mesh_of(&good, "default/edge").await;
    until(&gateway, "the backend answers over TLS", |answer| answer.status == 200).await;

    // Another authority of the same name, another name, and a name that is listed.
    mesh.write("edge.yaml", &with(&[authority("ca", &other), policy("shop.test", GIVEN)])).unwrap();
    until_refused(&gateway, "which BackendTLSPolicy default/shop-tls asks for: its certificate is not from a certificate authority that is trusted here").await;
    mesh.write("edge.yaml", &with(&[authority("ca", &server), policy("else.test", GIVEN)])).unwrap();
    until_refused(&gateway, "its certificate is not for else.test").await;
    let listed = format!("subjectAltNames: [{{type: Hostname, hostname: shop.test}}], {GIVEN}");
    mesh.write("edge.yaml", &with(&[authority("ca", &server), policy("else.test", &listed)])).unwrap();
    until(&gateway, "a name that is listed", |answer| answer.status == 200).await;

    // The operating system does not know the authority.
    mesh.write("edge.yaml", &with(&[policy("shop.test", "wellKnownCACertificates: System")])).unwrap();
    until_refused(&gateway, "no TLS with shop.test, which BackendTLSPolicy default/shop-tls asks for").await;

    mesh.write("edge.yaml", &good).unwrap();
    until(&gateway, "it is repaired", |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_used_refuses_and_never_sends_plaintext() {
    let counted = |head: &str| {
        // A ClientHello says the same in lower case.
        PLAINTEXT.fetch_add(usize::from(head.contains("HTTP/1.1")), Ordering::Relaxed);
        http(head)
    };
    let server = own("shop.test");
    let base = [
        gateway_of(&http_listener("http", 80)),
        route("HTTPRoute", "shop", "http", ""),
        app("shop", "http", answering(None, counted).await),
    ]
    .concat();
    let (mesh, gateway) = mesh_of(&(base.clone() + &policy("shop.test", GIVEN)), "default/edge").await;
    until_refused(&gateway, "names no usable certificate of an authority").await;
    mesh.write("edge.yaml", &(base.clone() + &authority("ca", &server) + &policy("shop.test", GIVEN)))
        .unwrap();
    until_refused(&gateway, "no TLS with shop.test").await;
    mesh.write(
        "edge.yaml",
        &(base.clone() + &policy("shop.test", GIVEN).replace("caCertificateRefs", "caCerts")),
    )
    .unwrap();
    until_refused(&gateway, "shop-tls").await;
    assert_eq!(PLAINTEXT.load(Ordering::Relaxed), 0);

    mesh.write("edge.yaml", &base).unwrap();
    until(&gateway, "without a policy it is plaintext", |answer| answer.status == 200).await;
    assert!(PLAINTEXT.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn tls_that_ends_at_the_gateway_begins_anew_and_tls_that_passes_through_is_left_alone() {
    let (outer, inner) = (own("end.test"), own("pass.test"));
    let shop = answering(Some(&inner), |bytes| format!("shop: {bytes}")).await;
    let passing = "{name: pass, port: 443, protocol: TLS, hostname: pass.test, tls: {mode: Passthrough}}";
    let ending = listener("TLS", "end", "end.test");
    let documents = [
        secret("end", &outer, &outer),
        gateway_of(&format!("{passing}, {ending}")),
        route("TLSRoute", "shop", "pass", "hostnames: [pass.test],"),
        route("TCPRoute", "shop", "end", ""),
        app("shop", "tcp", shop),
        authority("ca", &inner),
        policy("pass.test", GIVEN),
    ];
    let (_mesh, gateway) = mesh_of(&documents.concat(), "default/edge").await;

    answers(&gateway, "pass.test", &inner, "shop: hello").await;
    answers(&gateway, "end.test", &outer, "shop: hello").await;
}

#[tokio::test]
async fn a_sidecar_calls_a_service_outside_the_mesh_as_the_policy_says() {
    let server = own("shop.test");
    let documents = [
        app("shop", "http", answering(Some(&server), http).await),
        authority("ca", &server),
        policy("shop.test", GIVEN),
    ];
    let mesh = Mesh::of(crate::SELVEDGE, [Spec::client("caller")]).await;
    mesh.write("shop.yaml", &documents.concat()).unwrap();

    poll(SOON, "the sidecar begins TLS", async || {
        let answer =
            mesh.workload("caller").call(call::to("shop", "/")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
}

/// Two certificates of clients, and the authority of both.
fn clients() -> (CertificateDer<'static>, [Pair; 2]) {
    let root_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&root_key).unwrap();
    let issuer = Issuer::from_params(&params, &root_key);
    let clients = ["first", "second"].map(|name| {
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        Pair { pem: leaf.pem(), key, der: leaf }
    });
    (root.der().clone(), clients)
}

/// What a certificate is told by.
fn end_of(der: &[u8]) -> String {
    der[der.len() - 8..].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An app that answers requests over TLS with the end of the certificate that its client shows, which must be of `root`.
async fn asking(server: &Pair, root: CertificateDer<'static>) -> u16 {
    let mut roots = RootCertStore::empty();
    roots.add(root).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.unwrap().with_client_cert_verifier(verifier);
    let config = config.with_single_cert(vec![server.der.der().clone()], key(server)).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(tcp).await else { continue };
            let shown =
                stream.get_ref().1.peer_certificates().map(|chain| end_of(&chain[0])).unwrap_or_default();
            let mut head = vec![0; 4096];
            if stream.read(&mut head).await.is_ok_and(|read| read > 0) {
                // A client that goes away gets nothing, and its test sees that.
                let _ = stream.write_all(http(&shown).as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    port
}

#[tokio::test]
async fn a_backend_sees_the_certificate_that_its_gateway_shows() {
    let server = own("shop.test");
    let (root, [first, second]) = clients();
    let shows = gateway_of(&http_listener("http", 80))
        .replace("listeners:", "tls: {backend: {clientCertificateRef: {name: client}}}, listeners:");
    let base = [
        shows,
        route("HTTPRoute", "shop", "http", ""),
        app("shop", "http", asking(&server, root).await),
        authority("ca", &server),
        policy("shop.test", GIVEN),
    ]
    .concat();
    let with = |client: &Pair| base.clone() + &secret("client", client, client);
    let (mesh, gateway) = mesh_of(&with(&first), "default/edge").await;
    let sees = async |pair: &Pair, what: &str| {
        let expected = end_of(pair.der.der());
        until(&gateway, what, |answer| answer.status == 200 && answer.text() == expected).await;
    };
    sees(&first, "the certificate").await;

    mesh.write("edge.yaml", &with(&second)).unwrap();
    sees(&second, "a renewed certificate").await;

    mesh.write("edge.yaml", &base).unwrap();
    until(&gateway, "the backend refuses", |answer| answer.proxy_error() == Some("tls")).await;
    let problems = mesh.control_plane_admin("/problems").await.unwrap().text();
    assert!(problems.contains("there is no Secret default/client"), "{problems}");
    assert!(problems.contains("so no certificate is shown to backends"), "{problems}");

    mesh.write("edge.yaml", &with(&first)).unwrap();
    sees(&first, "it is repaired").await;
}

#[tokio::test]
async fn a_destination_rule_names_a_secret_of_the_gateway_that_calls() {
    let server = own("shop.test");
    let (root, [first, second]) = clients();
    let rule = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop}}\n\
             spec: {{host: shop, trafficPolicy: {{tls: {{mode: MUTUAL, sni: shop.test, {more}}}}}}}\n---\n"
        )
    };
    let base = [
        gateway_of(&http_listener("http", 80)),
        route("HTTPRoute", "shop", "http", ""),
        app("shop", "http", asking(&server, root).await),
    ]
    .concat();
    // The server's authority is in the Secret beside that of the certificate.
    let believing = |authority: &Pair| {
        format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: client-cacert}}\nstringData:\n  ca.crt: |\n{}---\n",
            indented(&authority.pem)
        )
    };
    let named = base.clone() + &rule("credentialName: client") + &believing(&server);
    let with = |client: &Pair| named.clone() + &secret("client", client, client);
    let (mesh, gateway) = mesh_of(&with(&first), "default/edge").await;
    let sees = async |pair: &Pair, what: &str| {
        let expected = end_of(pair.der.der());
        until(&gateway, what, |answer| answer.status == 200 && answer.text() == expected).await;
    };
    sees(&first, "the certificate").await;

    mesh.write("edge.yaml", &with(&second)).unwrap();
    sees(&second, "a renewed certificate").await;

    // Whom the Secret does not name is not believed.
    let unbelieved = base.clone() + &rule("credentialName: client") + &believing(&own("shop.test"));
    mesh.write("edge.yaml", &(unbelieved + &secret("client", &first, &first))).unwrap();
    until(&gateway, "the server is not believed", |answer| answer.proxy_error() == Some("tls")).await;

    mesh.write("edge.yaml", &named).unwrap();
    poll(SOON, "the fault is told", async || {
        let told = mesh.control_plane_admin("/problems").await.map_err(|error| error.to_string())?.text();
        let says = ["spec.trafficPolicy.tls.credentialName", "there is no Secret default/client"];
        if says.iter().all(|words| told.contains(words)) { Ok(()) } else { Err(told) }
    })
    .await;
    until(&gateway, "nothing is sent", |answer| {
        answer.status.is_server_error() && answer.proxy_error().is_some_and(|why| why != "tls")
    })
    .await;

    mesh.write("edge.yaml", &with(&first)).unwrap();
    sees(&first, "it is repaired").await;
    let config =
        call::send(gateway.admin, call::to(&gateway.admin.to_string(), "/config")).await.unwrap().text();
    assert!(!config.contains("PRIVATE KEY") && !config.is_empty());
}
