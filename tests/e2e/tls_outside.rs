//! TLS to servers outside the mesh: begun by the sidecar, as a `DestinationRule` says.

use std::{fs, net::SocketAddr, path::PathBuf, sync::Arc};

use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_demo::{
    call::{self, Answer},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, dns::DnsServer, poll};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::SELVEDGE;

/// What the app calls; its server's certificate is for this, and for everything under `other.test`.
const HOST: &str = "api.example.test";

/// A certificate authority of this test's own.
struct Ca {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap(), key)
    }
}

/// A server outside the mesh that speaks HTTP over TLS and says what it saw.
async fn serve(address: SocketAddr, ca: &Ca, wants_client_certificate: bool) -> SocketAddr {
    let (certificate, key) = ca.issue(&[HOST, "*.other.test"]);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = if wants_client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(ca.issuer.der().clone()).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let session = stream.get_ref().1;
                let alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
                let client = session.peer_certificates().is_some();
                let seen =
                    format!("sni={} alpn={alpn} client={client}", session.server_name().unwrap_or("-"));
                let service = service_fn(move |request: Request<Incoming>| {
                    let scheme = request.uri().scheme_str().unwrap_or("-").to_owned();
                    let text = format!("{seen} scheme={scheme}");
                    async move {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(text))))
                    }
                });
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

/// A caller, a server outside, and the files of certificates that the caller's sidecar reads.
struct World {
    mesh: Mesh,
    dns: DnsServer,
    ca: Ca,
    server: SocketAddr,
    files: TempDir,
}

impl World {
    async fn new(wants_client_certificate: bool) -> Self {
        let dns = DnsServer::start().await;
        let resolv_conf = dns.resolv_conf().display().to_string();
        let caller =
            Spec::client("caller").flag("--resolv-conf", &resolv_conf).flag("--hosts-file", "/dev/null");
        let mesh = Mesh::of(SELVEDGE, [caller]).await;
        let ca = Ca::new();
        let server = serve(mesh.ground().socket(201, 8443).unwrap(), &ca, wants_client_certificate).await;
        let world = Self { mesh, dns, ca, server, files: tempfile::tempdir().unwrap() };
        world.dns.set(HOST, &[server.ip()]);
        world.write("ca.pem", &world.ca.issuer.pem());
        world.entry("[api.example.test]", "DNS");
        world
    }

    fn path(&self, file: &str) -> PathBuf {
        self.files.path().join(file)
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.path(file), text).unwrap();
    }

    /// HTTP on port 80, at the server's own port: Istio's pattern for TLS origination.
    fn entry(&self, hosts: &str, resolution: &str) {
        let port = self.server.port();
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: api}}\nspec:\n  hosts: {hosts}\n  \
             resolution: {resolution}\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n"
        );
        self.mesh.write("entry.yaml", &text).unwrap();
    }

    /// Replaces the rule's `tls`; `DIR` stands for the directory of the files.
    fn rule(&self, host: &str, tls: &str) {
        let tls = tls.replace("DIR", &self.files.path().display().to_string());
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api}}\nspec:\n  \
             host: '{host}'\n  trafficPolicy: {{tls: {{{tls}}}}}\n"
        );
        self.mesh.write("rule.yaml", &text).unwrap();
    }

    /// Calls `authority` until the answer is as `wanted` says.
    async fn until(&self, authority: &str, what: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let caller = self.mesh.workload("caller");
        poll(SOON, what, async || {
            let answer = caller.call(call::to(authority, "/")).await.map_err(|error| error.to_string())?;
            if wanted(&answer) { Ok(answer) } else { Err(answer.summary()) }
        })
        .await
    }

    /// Calls until the sidecar refuses with the reason `tls` and these words.
    async fn until_refused(&self, words: &str) {
        self.until(HOST, words, |answer| {
            answer.status == 503
                && answer.proxy_error().is_some_and(|why| why.starts_with("tls") && why.contains(words))
        })
        .await;
    }
}

#[tokio::test]
async fn http_becomes_https_and_the_server_is_verified() {
    let world = World::new(false).await;
    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/ca.pem");
    let answer = world.until(HOST, "TLS to the outside", |answer| answer.status == 200).await;
    assert_eq!(answer.text(), format!("sni={HOST} alpn=http/1.1 client=false scheme=-"));

    let grpc_like = call::to(HOST, "/").version(http::Version::HTTP_2);
    let answer = world.mesh.workload("caller").call(grpc_like).await.unwrap();
    assert_eq!(answer.text(), format!("sni={HOST} alpn=h2 client=false scheme=https"));

    // Another name is sent, and must be proven.
    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/ca.pem, sni: x.other.test");
    world.until(HOST, "another name", |answer| answer.text().contains("sni=x.other.test")).await;
    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/ca.pem, sni: wrong.test");
    world.until_refused("its certificate is not for wrong.test").await;
    world.rule(
        HOST,
        &format!("mode: SIMPLE, caCertificates: DIR/ca.pem, sni: wrong.test, subjectAltNames: [{HOST}]"),
    );
    world.until(HOST, "a name that is listed", |answer| answer.text().contains("sni=wrong.test")).await;

    // Another authority is not believed; a file that is not there refuses too, and is read when it comes.
    world.write("other.pem", &Ca::new().issuer.pem());
    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/other.pem");
    world.until_refused("not from a certificate authority that is trusted here").await;
    world.rule(HOST, "mode: SIMPLE, insecureSkipVerify: true");
    world.until(HOST, "a server that is not verified", |answer| answer.status == 200).await;
    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/later.pem");
    world.until_refused("cannot read").await;
    world.write("later.pem", &world.ca.issuer.pem());
    world.until(HOST, "the file is read when it comes", |answer| answer.status == 200).await;

    // Without the mesh's mutual TLS, which is asked for, nothing is sent.
    world.rule(HOST, "mode: ISTIO_MUTUAL");
    world.until_refused("ISTIO_MUTUAL").await;
}

#[tokio::test]
async fn a_health_check_goes_over_the_tls_that_requests_would() {
    let world = World::new(false).await;
    let rule = |authority: &str| {
        let file = world.path(authority);
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: api, annotations: \
             {{config.selvedge.io/health-check: HTTP, config.selvedge.io/health-check-interval: 1s}}}}\nspec: {{host: \
             {HOST}, trafficPolicy: {{tls: {{mode: SIMPLE, caCertificates: {}}}}}}}\n",
            file.display()
        );
        world.mesh.write("rule.yaml", &text).unwrap();
    };
    let check = async |passing: bool| {
        poll(SOON, "the check is made", async || {
            let caller = world.mesh.workload("caller");
            caller.call(call::to(HOST, "/")).await.map_err(|error| error.to_string())?;
            let all = caller.admin_json("/endpoints").await.map_err(|error| error.to_string())?;
            let check = &all[0]["health_check"];
            if check["passing"] == passing { Ok(check.to_string()) } else { Err(all.to_string()) }
        })
        .await
    };

    rule("ca.pem");
    check(true).await;
    world.write("other.pem", &Ca::new().issuer.pem());
    rule("other.pem");
    let failing = check(false).await;
    assert!(failing.contains("not from a certificate authority that is trusted here"), "{failing}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_if_the_rule_has_one() {
    let world = World::new(true).await;
    let (certificate, key) = world.ca.issue(&["caller.test"]);
    world.write("client.pem", &certificate.pem());
    world.write("client.key", &key.serialize_pem());

    world.rule(HOST, "mode: SIMPLE, caCertificates: DIR/ca.pem");
    world.until_refused("CertificateRequired").await;
    world.rule(
        HOST,
        "mode: MUTUAL, caCertificates: DIR/ca.pem, clientCertificate: DIR/client.pem, privateKey: DIR/client.key",
    );
    let answer = world.until(HOST, "mutual TLS", |answer| answer.status == 200).await;
    assert!(answer.text().contains("client=true"), "{}", answer.text());

    // Of another authority: the server refuses it.
    let (certificate, key) = Ca::new().issue(&["caller.test"]);
    world.write("client2.pem", &certificate.pem());
    world.write("client2.key", &key.serialize_pem());
    world.rule(
        HOST,
        "mode: MUTUAL, caCertificates: DIR/ca.pem, clientCertificate: DIR/client2.pem, privateKey: DIR/client2.key",
    );
    world.until_refused("alert").await;
}

#[tokio::test]
async fn under_a_wildcard_each_name_is_resolved_and_proven_by_itself() {
    let world = World::new(false).await;
    world.rule("*.other.test", "mode: SIMPLE, caCertificates: DIR/ca.pem");
    world.dns.set("a.other.test", &[world.server.ip()]);
    world.dns.set("b.other.test", &[world.server.ip()]);

    for resolution in ["NONE", "DYNAMIC_DNS"] {
        world.entry("['*.other.test']", resolution);
        // They are called at port 80, and are at the entry's `targetPort`.
        for name in ["a.other.test", "b.other.test"] {
            let wanted = format!("sni={name} ");
            world.until(name, name, |answer| answer.text().starts_with(&wanted)).await;
        }
        let gone = world.until("gone.other.test", "no such name", |answer| answer.status == 503).await;
        let why = gone.proxy_error().unwrap();
        assert!(why.starts_with("no-endpoint") && why.contains("gone.other.test"), "{why}");
    }
}
