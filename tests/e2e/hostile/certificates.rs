//! Certificates that are not quite a workload's of this mesh, at a sidecar's inbound port and at the control plane; and TLS
//! sessions that outlive what they were allowed by.

use std::{
    fs, io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    CertificateParams, CertifiedIssuer, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    SanType,
};
use selvedge_api::wire::{SignRequest, certificates_client::CertificatesClient};
use selvedge_certs::{
    CertificateDer,
    csr::KeyAndCsr,
    tls::{ALPN_GRPC, ALPN_MESH, provider, session_name},
};
use selvedge_demo::workload::Spec;
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{PrivateKeyDer, ServerName, UnixTime},
    },
};

use crate::{SELVEDGE, bootstrap, mesh_client, root_rotation};

const CALLER: &str = "spiffe://cluster.local/ns/default/sa/caller";

/// Who looks at no certificate: what servers make of ours is the question.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client's certificate and key.
struct Shown {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Shown {
    fn tls(&self, alpn: &[u8]) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut tls = builder
            .expect("TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .expect("a key that fits");
        tls.alpn_protocols = vec![alpn.to_vec()];
        tls.enable_sni = false;
        Arc::new(tls)
    }
}

/// What the mesh's own issuer signs for the caller; `change` makes something else of it.
fn leaf(mesh: &Mesh, change: impl FnOnce(&mut CertificateParams)) -> Shown {
    let file = |name: &str| fs::read_to_string(mesh.data_dir().join(name)).expect("the CA's file");
    let key = KeyPair::from_pem(&file("issuer-key.pem")).expect("a key");
    let issuer = mesh.credentials("caller").leaf.chain[1].clone();
    let signer = Issuer::from_ca_cert_der(&issuer, key).expect("an issuer");
    let (own, params) = (KeyPair::generate().expect("a key"), params(change));
    let certificate = params.signed_by(&own, &signer).expect("a certificate");
    Shown { chain: vec![certificate.into(), issuer], key: own.into() }
}

/// What another CA signs that calls itself the same, or one of another trust domain.
fn of_another_ca(trust_domain: &str) -> Shown {
    let mut root = params(|params| params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))]);
    root.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.extended_key_usages.clear();
    let root = CertifiedIssuer::self_signed(root, KeyPair::generate().expect("a key")).expect("a root");
    let identity = format!("spiffe://{trust_domain}/ns/default/sa/caller");
    let own = KeyPair::generate().expect("a key");
    let leaf = params(|params| params.subject_alt_names = vec![uri(&identity)]).signed_by(&own, &root);
    Shown { chain: vec![leaf.expect("a certificate").into(), root.der().clone()], key: own.into() }
}

fn params(change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let (mut params, now) = (CertificateParams::default(), SystemTime::now());
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + Duration::from_secs(600)).into();
    params.subject_alt_names = vec![uri(CALLER)];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    change(&mut params);
    params
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().expect("an URI"))
}

/// A connection to the server's sidecar, past its preamble.
async fn connect(mesh: &Mesh, tls: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let server = mesh.workload("reviews-a");
    let tcp = TcpStream::connect(server.inbound).await?;
    let mut stream = TlsConnector::from(Arc::clone(tls)).connect(session_name(server.inbound), tcp).await?;
    stream.write_all(&mesh_client::http1(server.app)).await?;
    Ok(stream)
}

/// What the server's sidecar answers; nothing if it ends the connection.
async fn asks(mesh: &Mesh, tls: &Arc<ClientConfig>) -> (Option<HandshakeKind>, String) {
    let exchange = async {
        let mut stream = connect(mesh, tls).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\nconnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        // One that is ended in the middle has answered nothing.
        let _ = stream.read_to_end(&mut answer).await;
        let kind = stream.get_ref().1.handshake_kind();
        io::Result::Ok((kind, String::from_utf8_lossy(&answer).into_owned()))
    };
    let answered = tokio::time::timeout(Duration::from_secs(10), exchange).await.expect("in time");
    answered.unwrap_or_default()
}

/// Whether the control plane signs for whoever shows this.
async fn is_signed_for(mesh: &Mesh, shown: &Shown) -> bool {
    let identity = SpiffeId::new(&TrustDomain::default(), "default", "caller").expect("names");
    let request = SignRequest {
        csr: KeyAndCsr::generate(&identity).expect("a key").der.into(),
        workload: "default/caller".to_owned(),
        token: None,
        ttl_seconds: None,
    };
    let Some(channel) = bootstrap::connect(mesh, shown.tls(ALPN_GRPC)).await else { return false };
    CertificatesClient::new(channel).sign(request).await.is_ok()
}

async fn logged(mesh: &Mesh, words: &str) {
    let sidecar = mesh.workload("reviews-a").sidecar_process().expect("it runs");
    poll(SOON, &format!("the sidecar's log says {words:?}"), async || {
        let log = sidecar.whole_log().map_err(|error| error.to_string())?;
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn a_certificate_that_is_not_quite_a_workloads_opens_nothing() {
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-a", "reviews", 9080)]).await;
    let now = SystemTime::now();
    let names = |names: Vec<SanType>| leaf(&mesh, |params| params.subject_alt_names = names);
    let dns = SanType::DnsName("caller.default".try_into().expect("a name"));
    let data = |name: &str| fs::read(mesh.data_dir().join(name)).expect("the CA's file");
    let issuer_key = KeyPair::from_pem(&String::from_utf8(data("issuer-key.pem")).expect("text"));
    let the_issuer_itself = Shown {
        chain: vec![mesh.credentials("caller").leaf.chain[1].clone()],
        key: issuer_key.expect("a key").into(),
    };
    let cases = [
        ("good", leaf(&mesh, |_| {}), None),
        (
            "of another trust domain, by our CA",
            names(vec![uri("spiffe://elsewhere.example/ns/default/sa/caller")]),
            Some("is not in our trust domain cluster.local"),
        ),
        (
            "of another trust domain, by its CA",
            of_another_ca("elsewhere.example"),
            Some("was not issued by a CA of cluster.local"),
        ),
        (
            "of a CA that calls itself ours",
            of_another_ca("cluster.local"),
            Some("was not issued by a CA of cluster.local"),
        ),
        (
            "expired",
            leaf(&mesh, |params| params.not_after = (now - Duration::from_secs(10)).into()),
            Some("expired at"),
        ),
        (
            "not yet valid",
            leaf(&mesh, |params| params.not_before = (now + Duration::from_secs(300)).into()),
            Some("and this host's clock says"),
        ),
        (
            "without client use",
            leaf(&mesh, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Some("cannot be used here"),
        ),
        (
            "with two URIs",
            names(vec![uri(CALLER), uri("spiffe://cluster.local/ns/default/sa/admin")]),
            Some("is not a workload's"),
        ),
        ("without an URI", names(vec![dns]), Some("is not a workload's")),
        ("with a CA's URI", names(vec![uri("spiffe://cluster.local")]), Some("is not a workload's")),
        ("a CA's own", the_issuer_itself, Some("cannot be used here")),
    ];
    for (what, shown, words) in cases {
        let (_, answer) = asks(&mesh, &shown.tls(ALPN_MESH)).await;

        assert_eq!(answer.starts_with("HTTP/1.1 200"), words.is_none(), "{what}: {answer}");
        assert_eq!(is_signed_for(&mesh, &shown).await, words.is_none(), "{what}");
        if let Some(words) = words {
            logged(&mesh, words).await;
        }
    }
}

/// Comes again and again, with a session that it remembers.
async fn resumes(mesh: &Mesh, tls: &Arc<ClientConfig>) -> String {
    let (_, first) = asks(mesh, tls).await;
    assert!(first.starts_with("HTTP/1.1 200"), "{first}");
    let (kind, answer) = asks(mesh, tls).await;
    assert_eq!(kind, Some(HandshakeKind::Resumed));
    answer
}

#[tokio::test]
async fn a_session_is_not_resumed_past_its_root() {
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-a", "reviews", 9080)]).await;
    let tls = leaf(&mesh, |_| {}).tls(ALPN_MESH);
    assert!(resumes(&mesh, &tls).await.starts_with("HTTP/1.1 200"));

    root_rotation::rotate(&mesh).await;

    let (_, answer) = asks(&mesh, &tls).await;
    assert_eq!(answer, "", "nobody believes the old root");
    let of_new = leaf(&mesh, |_| {}).tls(ALPN_MESH);
    assert!(resumes(&mesh, &of_new).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_session_is_not_resumed_past_its_policy() {
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-a", "reviews", 9080)]).await;
    let remembered = leaf(&mesh, |_| {}).tls(ALPN_MESH);
    let fresh = || leaf(&mesh, |_| {}).tls(ALPN_MESH);
    assert!(resumes(&mesh, &remembered).await.starts_with("HTTP/1.1 200"));

    let deny = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny, namespace: default}\n\
                spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [caller]}}]}]}\n";
    mesh.write("deny.yaml", deny).unwrap();

    poll(SOON, "whoever comes is refused", async || {
        let (_, answer) = asks(&mesh, &fresh()).await;
        if answer.starts_with("HTTP/1.1 200") { Err(answer) } else { Ok(()) }
    })
    .await;
    for _ in 0..3 {
        let (_, answer) = asks(&mesh, &remembered).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}
