//! Pods with Istio's sidecar beside pods with ours: neither takes the other for one of its own.

use std::{io::ErrorKind, net::SocketAddr, sync::Arc};

use selvedge_certs::tls::provider;
use selvedge_tests::{SOON, poll};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::{
    mesh::{Mesh, Mode, client},
    network::{Kind, NetworkPlace},
    rights::netns,
    routes::{answers_at, plain, say, say_name},
};

/// The port that `say` listens on.
const PORT: u16 = 7000;

/// What Istio's sidecars offer by ALPN, the best first.
const ISTIO_ALPN: [&[u8]; 3] = [b"istio-peer-exchange", b"istio", b"h2"];

/// The documents of a pod at `place`, with this label.
fn pod(name: &str, place: &NetworkPlace, label: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: default, labels: {{{label}}}}}\n\
         spec: {{containers: [{{name: app, image: app}}, {{name: selvedge-proxy, image: proxy}}]}}\n\
         status: {{phase: Running, podIPs: [{{ip: \"{}\"}}]}}\n",
        place.address
    )
}

/// What a client with Istio's sidecar begins with.
fn istio_hello() -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = ISTIO_ALPN.iter().map(|name| name.to_vec()).collect();
    let name = "outbound_.7000_._.db.default.svc.cluster.local".try_into().unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

fn policy(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: db, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: db-1}}}}, mtls: {{mode: {mode}}}}}\n"
    )
}

async fn out() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([client("client")]).await;
    let places = [(140, "away"), (141, "ours")].map(|(number, name)| {
        let place = mesh.network.join_as(name, mesh.network.address(number));
        say(&place.namespace, name);
        place
    });
    let [theirs, ours] = &places;
    mesh.write(
        "pods.yaml",
        &(pod("theirs", theirs, "security.istio.io/tlsMode: istio")
            + &pod("ours", ours, "selvedge.io/sidecar: injected")),
    );

    // Nothing of ours listens in Istio's pod, which takes plaintext as long as its own policy lets it.
    poll(SOON, "the pods have arrived", async || {
        let address = SocketAddr::new(ours.address, PORT);
        match answers_at(&mesh, "client", address, plain()).await {
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            // Where our label is, nobody is called in plaintext.
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    let answer = answers_at(&mesh, "client", SocketAddr::new(theirs.address, PORT), plain()).await;
    assert_eq!(answer.unwrap(), "away");
}

async fn come_in() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("policy.yaml", &policy("STRICT"));
    mesh.add([client("db-1"), client("theirs").mode(Mode::NoSidecar)]).await;
    say_name(mesh.workload("db-1"));
    let address = SocketAddr::new(mesh.workload("db-1").place.address, PORT);
    let said = async |begin: Vec<u8>| {
        let answer = answers_at(&mesh, "theirs", address, begin).await;
        answer.map_err(|error| error.to_string())
    };
    poll(SOON, "STRICT lets in neither", async || match (said(plain()).await, said(istio_hello()).await) {
        (Err(_), Err(_)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    mesh.write("policy.yaml", &policy("PERMISSIVE"));

    // Its plaintext comes in. So does TLS that is not ours, as it is: it is the app's to understand.
    for begin in [plain(), istio_hello()] {
        poll(SOON, "PERMISSIVE lets it in", async || match said(begin.clone()).await {
            Ok(name) if name == "db-1" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }
}

#[test]
fn a_pod_with_istios_sidecar_is_called_in_plaintext_and_one_marked_as_ours_never() {
    netns(out);
}

#[test]
fn what_a_client_with_istios_sidecar_sends_is_somebody_elses() {
    netns(come_in);
}
