//! How a sidecar gets its first certificate, and who does not get one.

use std::{net::TcpListener, sync::Arc, time::Duration};

use selvedge_api::wire::{SignRequest, certificates_client::CertificatesClient};
use selvedge_certs::{
    csr::KeyAndCsr,
    tls::{self, Credentials},
};
use selvedge_demo::{call, workload::Spec};
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpStream;
use tokio_rustls::rustls::ClientConfig;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::SELVEDGE;

#[tokio::test]
async fn a_sidecar_started_before_its_control_plane_becomes_ready_with_it() {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    for spec in [Spec::client("caller"), Spec::server("reviews-v1-a", "reviews", 9080)] {
        let name = spec.name.clone();
        mesh.place(spec).unwrap();
        mesh.start_app(&name).unwrap();
        mesh.start_sidecar(&name).await.unwrap();
    }
    let caller = mesh.workload("caller");
    caller.sidecar_process().unwrap().listener("admin", SOON).await.unwrap();
    assert_eq!(caller.admin("/live").await.unwrap().status, 200);
    assert_eq!(caller.admin("/ready").await.unwrap().status, 503);
    let early = caller.call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(early.status, 503, "{}", early.summary());

    mesh.start_control_plane().await.unwrap();

    for name in ["caller", "reviews-v1-a"] {
        mesh.sidecar_ready(name).await.unwrap();
    }
    let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
}

/// A control plane and the workload `reviews-v1-a` without its sidecar.
async fn placed() -> Mesh {
    let mut mesh = Mesh::empty(SELVEDGE);
    mesh.service("reviews", 9080);
    mesh.place(Spec::server("reviews-v1-a", "reviews", 9080)).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh
}

/// Starts the sidecar with `token`, and waits until its log says `words`; it must not become ready.
async fn refused(mesh: &mut Mesh, token: &str, words: &str) {
    mesh.start_sidecar_with("reviews-v1-a", token).unwrap();
    let workload = mesh.workload("reviews-v1-a");
    let sidecar = workload.sidecar_process().unwrap();
    poll(SOON, &format!("the sidecar's log says {words:?}"), async || {
        let log = sidecar.whole_log().map_err(|error| error.to_string())?;
        if log.to_lowercase().contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
    // It may give up or try on, but it is not ready.
    if let Ok(answer) = workload.admin("/ready").await {
        assert_eq!(answer.status, 503);
    }
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let mut mesh = placed().await;
    let token = mesh.token("reviews", "1s").await.unwrap();

    // Not a state to poll for: the token's own second must pass.
    tokio::time::sleep(Duration::from_millis(2100)).await;

    refused(&mut mesh, &token, "z, and this host's clock says 20").await;
}

#[tokio::test]
async fn an_altered_token_is_refused() {
    let mut mesh = placed().await;
    let token = mesh.token("reviews", "1h").await.unwrap();

    refused(&mut mesh, &altered(&token), "was changed").await;
}

/// The token with another signature.
fn altered(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{signed}.{other}{}", &signature[1..])
}

#[tokio::test]
async fn a_token_for_another_identity_is_refused() {
    let mut mesh = placed().await;
    let token = mesh.token("ledger", "1h").await.unwrap();

    refused(&mut mesh, &token, "ledger").await;
}

#[tokio::test]
async fn the_ca_signs_no_request_for_somebody_elses_identity() {
    let mesh = placed().await;
    let token = mesh.token("reviews", "1h").await.unwrap();
    let trust_domain = TrustDomain::default();
    let mut certificates = CertificatesClient::new(first_contact(&mesh).await);
    let request = |identity: &SpiffeId| SignRequest {
        csr: KeyAndCsr::generate(identity).unwrap().der.into(),
        workload: "default/reviews-v1-a".to_owned(),
        token: Some(token.clone()),
        ttl_seconds: Some(60),
    };

    let own = SpiffeId::new(&trust_domain, "default", "reviews").unwrap();
    let elses = SpiffeId::new(&trust_domain, "default", "frontend").unwrap();
    let refusal = certificates.sign(request(&elses)).await.unwrap_err();
    let signed = certificates.sign(request(&own)).await.unwrap().into_inner();

    assert!(refusal.message().contains("frontend"), "{refusal}");
    assert_eq!(signed.chain.len(), 2, "leaf and issuer");
}

#[tokio::test]
async fn the_control_plane_itself_refuses_a_token_that_is_expired_or_altered() {
    let mesh = placed().await;
    let mut certificates = CertificatesClient::new(first_contact(&mesh).await);
    let identity = SpiffeId::new(&TrustDomain::default(), "default", "reviews").unwrap();
    let expired = mesh.token("reviews", "1s").await.unwrap();
    let good = mesh.token("reviews", "1h").await.unwrap();
    // Not a state to poll for: the token's own second must pass.
    tokio::time::sleep(Duration::from_millis(2100)).await;

    for (token, words) in [(expired, Some("expired")), (altered(&good), Some("was changed")), (good, None)] {
        let outcome = certificates.sign(SignRequest {
            csr: KeyAndCsr::generate(&identity).unwrap().der.into(),
            workload: "default/reviews-v1-a".to_owned(),
            token: Some(token),
            ttl_seconds: None,
        });
        match (outcome.await, words) {
            (Ok(_), None) => {}
            (Err(status), Some(words)) => {
                assert_eq!(status.code(), Code::Unauthenticated);
                assert!(status.message().contains(words), "{status}");
            }
            (outcome, words) => panic!("{outcome:?} for a token that is {words:?}"),
        }
    }
}

/// A gRPC connection as a sidecar's first: it knows nothing but the root's fingerprint.
pub(crate) async fn first_contact(mesh: &Mesh) -> Channel {
    let authority = selvedge_certs::ca::Authority::load(&mesh.data_dir()).unwrap();
    let configuration = tls::bootstrap_client(&[authority.root_sha256()], authority.trust_domain());
    connect(mesh, configuration).await.unwrap()
}

pub(crate) async fn connect(mesh: &Mesh, configuration: Arc<ClientConfig>) -> Option<Channel> {
    let address = mesh.control_plane_address();
    let connector = tower::service_fn(move |_| {
        let connector = tokio_rustls::TlsConnector::from(configuration.clone());
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = connector.connect(tls::session_name(address), tcp).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    Endpoint::from_static("http://control-plane").connect_with_connector(connector).await.ok()
}

/// Whether the control plane lets in whoever has these credentials, and signs for it.
pub(crate) async fn renews(mesh: &Mesh, credentials: &Credentials) -> bool {
    let request = SignRequest {
        csr: KeyAndCsr::generate(&credentials.leaf.identity).unwrap().der.into(),
        workload: "default/caller".to_owned(),
        token: None,
        ttl_seconds: None,
    };
    let Some(channel) = connect(mesh, tls::grpc_client(credentials).unwrap()).await else { return false };
    CertificatesClient::new(channel).sign(request).await.is_ok()
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_flag() {
    let mut mesh = placed().await;
    let token = mesh.token("reviews", "1h").await.unwrap();
    let inbound = mesh.workload("reviews-v1-a").inbound;
    let taken = TcpListener::bind(inbound).unwrap();

    mesh.start_sidecar_with("reviews-v1-a", &token).unwrap();
    let sidecar = mesh.workload("reviews-v1-a").sidecar_process().unwrap();
    let status = sidecar.wait(SOON).await.unwrap();

    let log = sidecar.whole_log().unwrap();
    assert!(!status.success());
    assert!(log.contains("--inbound") && log.contains(&inbound.to_string()), "{log}");
    assert_eq!(log.lines().count(), 1, "one error and nothing else:\n{log}");
    drop(taken);
}

#[tokio::test]
async fn a_second_control_plane_on_one_port_says_so() {
    let mesh = placed().await;
    let second = mesh.processes().start(
        "second control plane",
        [
            "control-plane",
            "--exit-on-stdin-close",
            "--admin=127.0.0.1:0",
            &format!("--listen={}", mesh.control_plane_address()),
            &format!("--config-dir={}", mesh.config_dir().display()),
            &format!("--data-dir={}", mesh.directory().join("other-data").display()),
        ],
    );
    let second = second.unwrap();

    let status = second.wait(SOON).await.unwrap();

    let log = second.whole_log().unwrap();
    assert!(!status.success());
    assert!(log.contains("--listen") && log.contains("in use"), "{log}");
}
