//! TLS to backends that ask for it (`BackendTLSPolicy`): servers are believed by the authority and the name that it says, and
//! nothing is sent in plaintext instead.

use std::sync::atomic::{AtomicUsize, Ordering};

use selvedge_demo::{
    call::{self, Answer},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};

use super::{
    gateway as gateway_of, http_listener,
    tls::{Pair, indented, listener, mesh_of, own, route, secret},
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
