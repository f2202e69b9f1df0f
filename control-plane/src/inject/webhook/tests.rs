//! Over real TLS, as the API server comes: it knows the authority's bundle and our Service's name.

use std::time::Instant;

use clap::Parser;
use selvedge_certs::tls::{Outside, TicketSecret};
use selvedge_model::{TlsOrigination, TrustDomain, Trusted};
use selvedge_ops::Reason;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    inject::{InjectArgs, bodies::MAX_BODY},
    resources::{DecodeOutcome, Resources, decode_value},
    serve::audit::Audit,
    status::{OwnCertificates, Purpose},
};

const PATIENCE: Duration = Duration::from_secs(20);
const NAME: &str = "selvedge-control-plane.selvedge.svc";

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    inject: InjectArgs,
    #[command(flatten)]
    webhook: WebhookArgs,
}

/// A webhook that runs, and what it hands on.
struct Running {
    address: SocketAddr,
    directory: tempfile::TempDir,
    loaded: watch::Sender<Arc<Loaded>>,
    shown: Arc<OwnCertificates>,
    drain: Drain,
    serving: JoinHandle<Result<(), WebhookError>>,
}

/// A cluster with the one namespace `shop`.
fn cluster() -> Arc<Loaded> {
    let shop = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": "shop", "labels": { super::super::INJECT: "enabled" } },
    });
    let DecodeOutcome::Understood(shop) = decode_value(shop, "default").outcome else { panic!() };
    let mut resources = Resources::default();
    resources.push(shop);
    Arc::new(Loaded { resources, ..Loaded::default() })
}

fn start(ttl: Duration) -> Running {
    let program = Program::parse_from(["control-plane", "--webhook-listen=127.0.0.1:0"]);
    let directory = tempfile::tempdir().unwrap();
    let authority = Arc::new(crate::testing::authority(directory.path()));
    let (loaded, receiver) = watch::channel(cluster());
    let settings = program.inject.settings(Vec::new(), TrustDomain::default(), "selvedge");
    let knowledge = WebhookInputs {
        inject: watch::channel(Arc::new(settings)).1,
        compile: Arc::new(compile::MeshSettings::default()),
        loaded: receiver,
        problems: Arc::default(),
    };
    let webhook = Webhook::prepare(&program.webhook, "selvedge", "cluster.local").unwrap();
    let (address, drain) = (webhook.address(), Drain::default());
    let shown = Arc::new(OwnCertificates::new(&authority, Arc::default()));
    let audit = Arc::new(Audit::new(directory.path()));
    let tickets = TicketSecret::of(b"secret");
    let issuing = OwnIssuing { authority, ttl, tickets, audit, shown: Arc::clone(&shown) };
    let serving = tokio::spawn(webhook.run(issuing, knowledge, drain.clone()));
    Running { address, directory, loaded, shown, drain, serving }
}

impl Running {
    async fn connect(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let bundle = self.directory.path().join("ca.pem").to_str().unwrap().to_owned();
        let believed = TlsOrigination { trusted: Trusted::File(bundle), ..TlsOrigination::default() };
        let tls = Outside::load(&believed, name).unwrap();
        let stream = TcpStream::connect(self.address).await?;
        TlsConnector::from(tls.http1).connect(tls.server_name, stream).await
    }

    /// The status and body of the answer to a POST.
    async fn post(&self, path: &str, body: &str) -> (u16, String) {
        let mut stream = self.connect(NAME).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {NAME}\r\ncontent-type: application/json\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who refuses a body may not read all of it.
        let _ = stream.write_all(body.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an answer in time");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    async fn review(&self, path: &str, request: &Value) -> Value {
        let review =
            json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });
        let (status, body) = self.post(path, &review.to_string()).await;
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["response"]["uid"], request["uid"]);
        answer["response"].clone()
    }
}

fn pod_request(annotations: &Value, dry_run: bool) -> Value {
    json!({
        "uid": "7", "kind": { "group": "", "version": "v1", "kind": "Pod" }, "operation": "CREATE",
        "namespace": "shop", "dryRun": dry_run,
        "object": {
            "metadata": {
                "generateName": "web-", "annotations": annotations,
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "9", "controller": true }],
            },
            "spec": { "containers": [{ "name": "app", "image": "app" }] },
        },
    })
}

#[tokio::test]
async fn a_pod_is_answered_with_a_patch() {
    let webhook = start(Duration::from_secs(3600));

    let response = webhook.review("/inject", &pod_request(&json!({}), false)).await;

    assert_eq!((&response["allowed"], &response["patchType"]), (&json!(true), &json!("JSONPatch")));
}

#[tokio::test]
async fn a_setting_that_cannot_be_meant_refuses_the_pod_with_the_reason() {
    let webhook = start(Duration::from_secs(3600));

    let annotations = json!({ "config.selvedge.io/workers": "0" });
    let response = webhook.review("/inject", &pod_request(&annotations, false)).await;

    assert_eq!(response["allowed"], false);
    let words = response["status"]["message"].as_str().unwrap();
    assert!(words.contains("config.selvedge.io/workers"), "{words}");
}

#[tokio::test]
async fn a_document_that_is_wrong_in_itself_is_refused_and_others_are_warned_of() {
    let webhook = start(Duration::from_secs(3600));
    let request = |spec: Value| {
        json!({
            "uid": "8", "operation": "CREATE", "namespace": "shop",
            "kind": { "group": "networking.istio.io", "version": "v1", "kind": "VirtualService" },
            "object": {
                "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
                "metadata": { "name": "a", "namespace": "shop" }, "spec": spec,
            },
        })
    };

    let route = json!([{ "destination": { "host": "nobody" } }]);
    let wrong = json!({ "hosts": ["a"], "http": [{ "timeout": "5", "route": route }] });
    let refused = webhook.review("/validate", &request(wrong)).await;
    let right =
        webhook.review("/validate", &request(json!({ "hosts": ["a"], "http": [{ "route": route }] }))).await;
    let mut twice = request(json!({
        "hosts": ["a.example", "a.example"], "resolution": "DNS",
        "ports": [{ "number": 443, "name": "tls", "protocol": "TLS" }],
    }));
    twice["object"]["kind"] = "ServiceEntry".into();
    let twice = webhook.review("/validate", &twice).await;

    assert_eq!(refused["allowed"], false);
    let words = refused["status"]["message"].as_str().unwrap();
    assert!(words.contains("spec.http[0].timeout"), "{words}");
    // Which only the compiler finds.
    assert_eq!(twice["allowed"], false, "{twice}");
    assert!(twice["status"]["message"].as_str().unwrap().contains("spec.hosts[1]"), "{twice}");
    assert_eq!(right["allowed"], true, "{right}");
    assert!(
        right["warnings"][0].as_str().unwrap().starts_with("spec.hosts[0]: nothing is called"),
        "{right}"
    );
}

#[tokio::test]
async fn what_is_no_review_gets_an_answer_that_says_so() {
    let webhook = start(Duration::from_secs(3600));

    let (status, words) = webhook.post("/inject", "{").await;
    assert_eq!((status, words.contains("not an AdmissionReview")), (400, true), "{words}");
    let (status, words) = webhook.post("/inject", &" ".repeat(MAX_BODY + 1)).await;
    assert_eq!(status, 413, "{words}");
}

#[tokio::test]
async fn a_namespace_that_is_not_known_yet_is_waited_for_and_not_guessed() {
    let webhook = start(Duration::from_secs(3600));
    let mut request = pod_request(&json!({}), false);
    request["namespace"] = "elsewhere".into();
    let review =
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request });

    let (status, words) = webhook.post("/inject", &review.to_string()).await;

    assert_eq!((status, words.contains("namespace elsewhere is not known yet")), (503, true), "{words}");
    drop(webhook.loaded);
}

#[tokio::test]
async fn its_certificate_is_for_its_service_alone_and_renewed_while_it_serves() {
    let webhook = start(Duration::from_secs(2));
    let shown = |stream: &TlsStream<TcpStream>| {
        let (_, connection) = stream.get_ref();
        connection.peer_certificates().unwrap()[0].clone()
    };

    let first = shown(&webhook.connect(NAME).await.unwrap());
    let first_ends = webhook.shown.now()[&Purpose::Webhook].not_after;
    assert!(webhook.connect(&format!("{NAME}.cluster.local")).await.is_ok());
    assert!(webhook.connect("other.selvedge.svc").await.is_err());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = webhook.connect(NAME).await.map(|stream| shown(&stream));
        // It may have been renewed between the first connection and the first look, too.
        let is_later = webhook.shown.now()[&Purpose::Webhook].not_after > first_ends;
        if is_later && now.is_ok_and(|now| now != first) {
            break;
        }
        assert!(Instant::now() < deadline, "the certificate is not renewed: {:?}", webhook.shown);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    webhook.drain.begin(Reason::Asked);
    timeout(PATIENCE, webhook.serving).await.expect("ends with the drain").unwrap().unwrap();
}
