//! TLS that the sidecar begins, to a server outside the mesh, for an app that speaks TCP of its own in plaintext.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_tests::{SOON, poll};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
        server::WebPkiClientVerifier,
    },
};

use crate::{
    capture::Capture,
    mesh::{Mesh, Mode, client},
    network::Kind,
    rights::netns,
    scenarios::SECRET,
};

/// What the server's certificate is for.
const HOST: &str = "db.example.test";

/// Where the app calls it: an address that nobody has.
const ADDRESS: &str = "10.99.0.9:5000";

/// Where it listens.
const PORT: u16 = 5443;

/// How long a conversation may take.
const LIMIT: Duration = Duration::from_secs(10);

/// A mesh, a server outside of it, and the files that the client's sidecar reads.
struct World {
    mesh: Mesh,
    files: TempDir,
}

/// Speaks first; then repeats what it hears, until its client has ended. Both through TLS.
fn serve(world: &World, ca: &CertifiedIssuer<'static, KeyPair>, wants_client_certificate: bool) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![HOST.to_owned()]).unwrap().signed_by(&key, ca).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = if wants_client_certificate {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der().clone()).unwrap();
        builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap(),
        )
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let outsider = world.mesh.workload("outsider");
    let listener = outsider.namespace().inside(|| std::net::TcpListener::bind(("0.0.0.0", PORT))).unwrap();
    listener.set_nonblocking(true).unwrap();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(tcp).await?;
                let proven = stream.get_ref().1.peer_certificates().is_some();
                stream.write_all(format!("certificate={proven}\n").as_bytes()).await?;
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await?;
                stream.write_all(&heard).await?;
                stream.shutdown().await
            });
        }
    });
}

impl World {
    async fn new(wants_client_certificate: bool) -> Self {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        mesh.add([client("client"), client("outsider").mode(Mode::NoSidecar)]).await;
        let files = tempfile::tempdir().unwrap();
        fs::set_permissions(files.path(), Permissions::from_mode(0o755)).unwrap();
        let world = Self { mesh, files };

        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own =
            CertificateParams::new(vec!["client.test".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        world.write("ca.pem", &ca.pem());
        world.write("client.pem", &own.pem());
        world.write("client-key.pem", &key.serialize_pem());
        serve(&world, &ca, wants_client_certificate);
        let server = world.mesh.workload("outsider").place.address;
        world.mesh.write(
            "entry.yaml",
            &format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: db}}\nspec:\n  hosts: [{HOST}]\n  \
                 addresses: [10.99.0.9]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  \
                 ports: [{{number: 5000, name: tcp, protocol: TCP, targetPort: {PORT}}}]\n  \
                 endpoints: [{{address: {server}}}]\n"
            ),
        );
        world
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.files.path().join(file), text).unwrap();
    }

    /// Replaces the rule's `tls`; `DIR` stands for the directory of the files.
    fn rule(&self, tls: &str) {
        let directory: &Path = self.files.path();
        let tls = tls.replace("DIR", &directory.display().to_string());
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: db}}\nspec:\n  \
             host: {HOST}\n  trafficPolicy: {{tls: {{{tls}}}}}\n"
        );
        self.mesh.write("rule.yaml", &text);
    }

    /// What the server says, and then what it repeats.
    async fn dialogue(&self) -> std::io::Result<String> {
        let address: SocketAddr = ADDRESS.parse().unwrap();
        let exchange = move || async move {
            let mut stream = TcpStream::connect(address).await?;
            let mut heard = vec![0; "certificate=".len()];
            stream.read_exact(&mut heard).await?;
            stream.write_all(SECRET.as_bytes()).await?;
            stream.shutdown().await?;
            stream.read_to_end(&mut heard).await?;
            Ok(String::from_utf8_lossy(&heard).into_owned())
        };
        let namespace = self.mesh.workload("client").namespace();
        timeout(LIMIT, namespace.run(exchange)).await.map_err(std::io::Error::from)?
    }

    async fn soon_hears(&self, wanted: &str) {
        poll(SOON, wanted, async || match self.dialogue().await {
            Ok(heard) if heard == wanted => Ok(()),
            Ok(heard) => Err(heard),
            Err(error) => Err(error.to_string()),
        })
        .await;
    }
}

async fn simple() {
    let world = World::new(false).await;
    world.rule("mode: SIMPLE, caCertificates: DIR/ca.pem");

    let heard = format!("certificate=false\n{SECRET}");
    world.soon_hears(&heard).await;
    let capture = Capture::of(world.mesh.workload("client").namespace(), SECRET);
    assert_eq!(world.dialogue().await.unwrap(), heard);
    assert_eq!((capture.found(), capture.frames() > 0), (0, true), "packets with what was said");

    // Whoever proves to be somebody else is told nothing.
    world.rule("mode: SIMPLE, caCertificates: DIR/ca.pem, sni: other.example.test");
    poll(SOON, "the connection is refused", async || match world.dialogue().await {
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(heard) => Err(heard),
    })
    .await;
    assert_eq!(capture.found(), 0);
}

async fn mutual() {
    let world = World::new(true).await;
    world.rule(
        "mode: MUTUAL, caCertificates: DIR/ca.pem, clientCertificate: DIR/client.pem, privateKey: DIR/client-key.pem",
    );

    world.soon_hears(&format!("certificate=true\n{SECRET}")).await;
}

#[test]
fn a_sidecar_begins_tls_for_plain_tcp() {
    netns(simple);
}

#[test]
fn a_sidecar_begins_tls_with_a_client_certificate_for_plain_tcp() {
    netns(mutual);
}
