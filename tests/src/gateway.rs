//! A gateway of a test's mesh: the real proxy, with no app, to which clients from outside come.

use std::{collections::BTreeMap, fmt::Write as _, fs, net::SocketAddr, sync::Arc};

use selvedge_certs::tls::provider;
use selvedge_demo::{
    call::{self, Answer, Call, CallError},
    cluster::{Cluster, START_LIMIT},
    processes::Process,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, ServerName},
    },
};

use crate::{SOON, poll};

/// The host number of the first gateway on the mesh's subnet: behind those of all workloads.
const FIRST_HOST: u8 = 201;

/// A gateway that runs.
#[derive(Debug)]
pub struct Gateway {
    /// Where it listens, by the port that clients call.
    pub ports: BTreeMap<u16, SocketAddr>,
    /// Its admin port.
    pub admin: SocketAddr,
    /// Its process.
    pub process: Process,
}

impl Gateway {
    /// The gateway `name` (`NAMESPACE/NAME`), which listens on these ports as soon as configuration says so. Its workload is
    /// `NAMESPACE/edge`, with the service account `edge`.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start(mesh: &Cluster, name: &str, ports: &[u16]) -> Self {
        Self::start_with_labels(mesh, name, ports, "").await
    }

    /// As [`Self::start`]; its workload has `labels`, such as `a: b, c: d`.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start_with_labels(mesh: &Cluster, name: &str, ports: &[u16], labels: &str) -> Self {
        Self::start_with(mesh, name, ports, labels, &[]).await
    }

    /// As [`Self::start_with_labels`]; its proxy has these `flags`, too.
    ///
    /// # Panics
    /// If it does not become ready.
    pub async fn start_with(mesh: &Cluster, name: &str, ports: &[u16], labels: &str, flags: &[&str]) -> Self {
        let (namespace, _) = name.split_once('/').expect("NAMESPACE/NAME");
        let socket = |usual: u16| mesh.ground().socket(FIRST_HOST, usual).expect("an address");
        let listening: BTreeMap<u16, SocketAddr> =
            ports.iter().map(|port| (*port, socket(8000 + port))).collect();
        let admin = socket(4191);
        let mut mapped = String::new();
        for (port, at) in &listening {
            let _ = write!(mapped, "{}{port}={}", if mapped.is_empty() { "" } else { "," }, at.port());
        }
        let entry = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: edge\n  namespace: {namespace}\n  \
             annotations:\n    config.selvedge.io/gateway: {name}\n    config.selvedge.io/gateway-ports: {mapped}\n\
             spec: {{address: {}, serviceAccount: edge, labels: {{{labels}}}}}\n",
            admin.ip()
        );
        mesh.write("gateway.yaml", &entry).expect("a writable directory");
        let token = mesh.directory().join("edge.token");
        let mut command = mesh.processes().command();
        command.args([
            "token",
            "create",
            "--namespace",
            namespace,
            "--service-account",
            "edge",
            "--ttl",
            "1h",
        ]);
        let output = command.arg("--data-dir").arg(mesh.data_dir()).output().await.expect("a token");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::write(&token, output.stdout).expect("a writable directory");
        let arguments = [
            "proxy".to_owned(),
            "--gateway".to_owned(),
            format!("--workload={namespace}/edge"),
            format!("--control-plane={}", mesh.control_plane_address()),
            format!("--token-file={}", token.display()),
            format!("--admin={admin}"),
            "--exit-on-stdin-close".to_owned(),
        ];
        let leaves = flags.iter().any(|flag| flag.starts_with("--drain-delay"));
        let at_once = (!leaves).then(|| "--drain-delay=0s".to_owned());
        let arguments =
            arguments.into_iter().chain(at_once).chain(flags.iter().map(|flag| (*flag).to_owned()));
        let process = mesh.processes().start("gateway", arguments).expect("a process");
        process.listener("admin", START_LIMIT).await.expect("its admin port");
        let gateway = Self { ports: listening, admin, process };
        poll(SOON, "the gateway is ready", async || {
            let answer = call::send(admin, call::to(&admin.to_string(), "/ready")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status.is_success() { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        gateway
    }

    /// Where it listens for what clients send to `port`.
    ///
    /// # Panics
    /// If it was not started for that.
    pub fn at(&self, port: u16) -> SocketAddr {
        self.ports[&port]
    }

    /// Sends `call` to `port` over TLS to the server `name`, whose certificate must be of one of `roots`.
    ///
    /// # Errors
    /// If there is no answer: what is wrong.
    pub async fn call_tls(
        &self,
        port: u16,
        name: &str,
        roots: &[CertificateDer<'static>],
        call: Call,
    ) -> Result<Answer, String> {
        let mut trusted = RootCertStore::empty();
        roots.iter().for_each(|root| trusted.add(root.clone()).expect("a certificate"));
        let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let config = config.expect("protocols").with_root_certificates(trusted).with_no_client_auth();
        let server = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
        let asked = async {
            let tcp = TcpStream::connect(self.at(port)).await.map_err(|error| error.to_string())?;
            let stream = TlsConnector::from(Arc::new(config)).connect(server, tcp).await;
            let stream = stream.map_err(|error| error.to_string())?;
            call::over(stream, self.at(port), call).await.map_err(|error| error.to_string())
        };
        tokio::time::timeout(SOON, asked).await.map_err(|_| "no answer in time".to_owned())?
    }

    /// Sends `call` to `port` in plaintext.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn call(&self, port: u16, call: Call) -> Result<Answer, CallError> {
        call::send(self.at(port), call).await
    }
}
