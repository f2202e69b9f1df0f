//! The API server's processes, from its first certificate to its end.
//!
//! They know nothing of us and hold no stdin of ours, so the kernel is asked to end them with the thread that
//! started them (`setpriv --pdeathsig`): a test that is killed leaves nothing behind.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use selvedge_demo::{
    call,
    ground::Ground,
    processes::{Exits, Process, Processes, tail},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{io::AsyncWriteExt as _, process::Command};

use super::{Api, Assets, certificates::Certificates};
use crate::{
    netns::{namespace::Namespace, network::NetworkPlace},
    poll,
};

/// The ports of an address that is its own.
const PORT: u16 = 6443;
const ETCD_PORT: u16 = 2379;
const ETCD_PEER_PORT: u16 = 2380;

/// Who the API server is to kubelets.
const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// The addresses that Services get; the first is the API server's own.
const SERVICES: &str = "10.96.0.0/16";
const OWN_SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Who asked for what, service accounts alone.
const AUDIT_POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, userGroups: ['system:serviceaccounts']}]
";

/// How long it may take to start: 9 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(90);

/// How long a command of `kubectl` may take.
const KUBECTL_LIMIT: Duration = Duration::from_secs(60);

/// The audience of the tokens by which workloads prove who they are to Selvedge.
pub const AUDIENCE: &str = "selvedge";

/// The audience and issuer of the tokens for the API server itself.
const ISSUER: &str = "https://kubernetes.default.svc";

/// A kind of Kubernetes 1.21 takes the place of this, which 1.20 serves: see [`super::kinds`].
const SWITCHED_OFF: &str = "discovery.k8s.io/v1beta1=false";

/// One request that somebody made.
#[derive(Debug, Clone)]
pub struct SeenRequest {
    /// Such as `get` or `watch`.
    pub verb: String,
    /// The resource's group; empty for the core group.
    pub group: String,
    /// The resource, such as `pods` or `pods/status`.
    pub resource: String,
    /// The answer's status.
    pub status: u64,
    /// Its path and query.
    pub uri: String,
}

impl SeenRequest {
    fn read(event: &Value) -> Self {
        let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let reference = &event["objectRef"];
        let mut resource = of(&reference["resource"]);
        if let Some(part) = reference["subresource"].as_str() {
            resource = format!("{resource}/{part}");
        }
        Self {
            verb: of(&event["verb"]),
            group: of(&reference["apiGroup"]),
            resource,
            status: event["responseStatus"]["code"].as_u64().unwrap_or_default(),
            uri: of(&event["requestURI"]),
        }
    }

    /// Whether a role's rule for `resource` of `group` means it: `*` is any resource, `*/status` any one's status.
    pub fn is(&self, group: &str, resource: &str) -> bool {
        let matches = match resource.strip_prefix('*') {
            Some("") => true,
            Some(part) => self.resource.ends_with(part),
            None => self.resource == resource,
        };
        self.group == group && matches
    }
}

/// An API server and its etcd. Both end when it is dropped.
pub struct ApiServer {
    assets: Assets,
    certificates: Certificates,
    address: IpAddr,
    /// Where it runs; none = where we do.
    namespace: Option<Namespace>,
    processes: Processes,
    exits: Exits,
    api: Api,
    server: Option<Process>,
    _etcd: Process,
    _proxy: Process,
    // Dropped after the processes that use them.
    _ground: Option<Ground>,
    directory: TempDir,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiServer at {}", self.address())
    }
}

impl ApiServer {
    /// Starts one on a loopback address that nobody else has, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; with the ends of all logs.
    pub async fn start(assets: Assets) -> Self {
        let ground = Ground::claim().expect("a part of the loopback network");
        let address = IpAddr::from(ground.address(1));
        Self::run(assets, address, None, Some(ground)).await
    }

    /// The same on a network of namespaces.
    ///
    /// # Panics
    /// If it does not become ready; with the ends of all logs.
    pub async fn start_at(assets: Assets, place: &NetworkPlace) -> Self {
        Self::run(assets, place.address, Some(place.namespace.clone()), None).await
    }

    async fn run(
        assets: Assets,
        address: IpAddr,
        namespace: Option<Namespace>,
        ground: Option<Ground>,
    ) -> Self {
        let directory = tempfile::Builder::new().prefix("selvedge-kubernetes-").tempdir().unwrap();
        let logs = directory.path().join("logs");
        fs::create_dir(&logs).unwrap();
        let (processes, exits) = Processes::new(Path::new("setpriv"), &logs);
        let certificates = Certificates::new(&directory.path().join("pki"));
        certificates.server(&[address, OWN_SERVICE.into()]);
        certificates.client("admin", "system:masters");
        certificates.client(KUBELET_CLIENT, "system:masters");
        certificates.key("service-accounts");
        let kubeconfig = admin_kubeconfig(&certificates, SocketAddr::new(address, PORT));
        fs::write(directory.path().join("admin.kubeconfig"), kubeconfig.to_string()).unwrap();

        fs::write(directory.path().join("audit-policy.yaml"), AUDIT_POLICY).unwrap();

        let start = |name: &str, arguments: Vec<String>| {
            started(&processes, namespace.as_ref(), &assets.program(name), name, arguments)
        };
        let etcd = start("etcd", etcd_arguments(directory.path(), address));
        let socket = directory.path().join("api.sock");
        let proxy = [
            "proxy".to_owned(),
            format!("--kubeconfig={}", directory.path().join("admin.kubeconfig").display()),
            format!("--unix-socket={}", socket.display()),
        ];
        let proxy = start("kubectl", proxy.to_vec());
        let mut server = Self {
            assets: assets.clone(),
            certificates,
            address,
            namespace: namespace.clone(),
            processes: processes.clone(),
            exits,
            api: Api::at(&socket),
            server: None,
            _etcd: etcd,
            _proxy: proxy,
            _ground: ground,
            directory,
        };
        server.start_again().await;
        server.wait_for_defaults().await;
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.address, PORT)
    }

    /// The administrator's way to it.
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// A directory of the test's own, as long as the server lives.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The socket where it speaks HTTP to its administrator.
    pub fn socket(&self) -> &Path {
        self.api.socket()
    }

    /// The file with the certificate of its authority.
    pub fn ca_file(&self) -> String {
        self.certificates.file("ca.crt")
    }

    /// The files with the certificate and the key of a kubelet at `address`, made for it.
    pub fn kubelet_certificate(&self, address: IpAddr) -> (PathBuf, PathBuf) {
        self.certificates.node(address);
        (self.certificates.file("kubelet.crt").into(), self.certificates.file("kubelet.key").into())
    }

    /// What a user has asked for; watches and other long answers stand there twice.
    ///
    /// # Panics
    /// If the log cannot be read.
    pub fn asked_by(&self, user: &str) -> Vec<SeenRequest> {
        let log = fs::read_to_string(self.audit_log()).unwrap();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events
            .filter(|event| event["user"]["username"] == user)
            .map(|event| SeenRequest::read(&event))
            .collect()
    }

    fn audit_log(&self) -> PathBuf {
        self.directory.path().join("audit.log")
    }

    /// Kills it without warning. What it has stored stays.
    ///
    /// # Panics
    /// If it does not end.
    pub async fn kill(&mut self) {
        if let Some(server) = self.server.take() {
            server.kill().await.unwrap();
        }
    }

    /// Starts it after a [`ApiServer::kill`], with what it had stored, and waits until it is ready.
    ///
    /// # Panics
    /// If it does not become ready; with the ends of all logs.
    pub async fn start_again(&mut self) {
        let arguments = self.arguments();
        let program = self.assets.program("kube-apiserver");
        let server = started(&self.processes, self.namespace.as_ref(), &program, "kube-apiserver", arguments);
        self.server = Some(server);
        let ready = poll(START_LIMIT, "the API server is ready", async || self.api.get("/readyz").await);
        tokio::select! {
            _ = ready => {}
            exit = self.exits.next() => panic!("{exit}"),
        }
    }

    /// Forgets the past of everything that is stored, so that nobody can watch from before now.
    ///
    /// # Panics
    /// If etcd refuses.
    pub async fn compact(&self) {
        let status = self.etcd("/v3/maintenance/status", json!({})).await;
        let revision = &status["header"]["revision"];
        self.etcd("/v3/kv/compaction", json!({"revision": revision, "physical": true})).await;
    }

    /// A kubeconfig for a service account, with a fresh token for the API server itself.
    ///
    /// # Panics
    /// If the server gives no token.
    pub async fn kubeconfig_of(&self, namespace: &str, account: &str) -> PathBuf {
        let token = self.api.token(namespace, account, None, None).await.unwrap();
        let file = self.directory.path().join(format!("{namespace}-{account}.kubeconfig"));
        let config = kubeconfig(&self.certificates, self.address(), account, &json!({"token": token}));
        fs::write(&file, config.to_string()).unwrap();
        file
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.directory.path().join("admin.kubeconfig")
    }

    /// Runs `kubectl` as the administrator, with a text on its standard input.
    ///
    /// # Errors
    /// If it fails: what it says.
    ///
    /// # Panics
    /// If it cannot be run.
    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new(self.assets.program("kubectl"));
        // Its caches would otherwise go to the home directory of whoever runs the tests.
        command.env("HOME", self.directory.path()).env("KUBECONFIG", self.admin_kubeconfig()).args(arguments);
        self.output(command, input).await
    }

    /// Applies documents, each of which must be taken.
    ///
    /// # Panics
    /// If one is not.
    pub async fn apply(&self, documents: &str) {
        if let Err(said) = self.kubectl(&["apply", "-f", "-"], documents).await {
            panic!("kubectl apply: {said}\n{documents}");
        }
    }

    async fn output(&self, mut command: Command, input: &str) -> Result<String, String> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = match &self.namespace {
            Some(namespace) => namespace.inside(|| command.spawn()),
            None => command.spawn(),
        };
        let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("piped above");
        let run = async {
            let (_, output) = tokio::join!(
                async {
                    let _ = stdin.write_all(input.as_bytes()).await; // it need not read it
                    drop(stdin);
                },
                child.wait_with_output()
            );
            output.unwrap()
        };
        let output = tokio::time::timeout(KUBECTL_LIMIT, run).await;
        let output = output.unwrap_or_else(|_| panic!("{command:?} did not end within {KUBECTL_LIMIT:?}"));
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("{}: {stdout}{}", output.status, String::from_utf8_lossy(&output.stderr)))
        }
    }

    /// Makes a namespace, with what a cluster's controllers would add: `metadata` says more of it, such as labels.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn namespace(&self, name: &str, mut metadata: Value) {
        metadata["name"] = name.into();
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata});
        self.api.create("/api/v1/namespaces", &namespace).await.unwrap();
        self.furnish(name).await;
    }

    /// Gives a namespace the service account `default`, and the certificate of the server's authority.
    ///
    /// # Panics
    /// If the server refuses.
    pub async fn furnish(&self, namespace: &str) {
        self.api.service_account(namespace, "default").await;
        let authority = fs::read_to_string(self.ca_file()).unwrap();
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "kube-root-ca.crt"},
            "data": {"ca.crt": authority},
        });
        self.api.create(&format!("/api/v1/namespaces/{namespace}/configmaps"), &map).await.unwrap();
    }

    /// Asks etcd, which speaks JSON as well.
    async fn etcd(&self, path: &str, question: Value) -> Value {
        let address = SocketAddr::new(self.address, ETCD_PORT);
        let call = call::to(&address.to_string(), path).body(question.to_string());
        let answer = match &self.namespace {
            Some(namespace) => namespace.run(move || call::send(address, call)).await,
            None => call::send(address, call).await,
        };
        let answer = answer.unwrap();
        assert!(answer.status.is_success(), "etcd {path}: {}: {}", answer.summary(), answer.text());
        answer.json().unwrap()
    }

    /// What a cluster has before anybody asks for it: the namespaces, and their default service account.
    async fn wait_for_defaults(&self) {
        for namespace in ["default", "kube-system"] {
            poll(START_LIMIT, &format!("there is the namespace {namespace}"), async || {
                self.api.get(&format!("/api/v1/namespaces/{namespace}")).await
            })
            .await;
            self.furnish(namespace).await;
        }
    }

    fn arguments(&self) -> Vec<String> {
        let pki = |name: &str| self.certificates.file(name);
        [
            ("etcd-servers", format!("http://{}", SocketAddr::new(self.address, ETCD_PORT))),
            ("bind-address", self.address.to_string()),
            ("advertise-address", self.address.to_string()),
            ("secure-port", PORT.to_string()),
            ("tls-cert-file", pki("apiserver.crt")),
            ("tls-private-key-file", pki("apiserver.key")),
            ("client-ca-file", pki("ca.crt")),
            ("kubelet-certificate-authority", pki("ca.crt")),
            ("kubelet-client-certificate", pki(&format!("{KUBELET_CLIENT}.crt"))),
            ("kubelet-client-key", pki(&format!("{KUBELET_CLIENT}.key"))),
            ("authorization-mode", "RBAC".to_owned()),
            ("anonymous-auth", "false".to_owned()),
            ("service-account-issuer", ISSUER.to_owned()),
            ("service-account-key-file", pki("service-accounts.pub")),
            ("service-account-signing-key-file", pki("service-accounts.key")),
            ("api-audiences", format!("{ISSUER},{AUDIENCE}")),
            ("feature-gates", "BoundServiceAccountTokenVolume=true".to_owned()),
            (
                "enable-admission-plugins",
                "MutatingAdmissionWebhook,ValidatingAdmissionWebhook,ServiceAccount".to_owned(),
            ),
            ("endpoint-reconciler-type", "none".to_owned()),
            ("runtime-config", SWITCHED_OFF.to_owned()),
            ("service-cluster-ip-range", SERVICES.to_owned()),
            ("audit-policy-file", self.directory.path().join("audit-policy.yaml").display().to_string()),
            ("audit-log-path", self.audit_log().display().to_string()),
            ("shutdown-delay-duration", "0s".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in self.processes.logs() {
                eprintln!("--- {}\n{}", log.file_stem().unwrap_or_default().display(), tail(&log));
            }
        }
    }
}

fn started(
    processes: &Processes,
    namespace: Option<&Namespace>,
    program: &Path,
    name: &str,
    arguments: Vec<String>,
) -> Process {
    let program = program.to_str().unwrap().to_owned();
    let all = ["--pdeathsig".to_owned(), "KILL".to_owned(), "--".to_owned(), program].into_iter();
    let start = || processes.start(name, all.chain(arguments)).unwrap();
    match namespace {
        Some(namespace) => namespace.inside(start),
        None => start(),
    }
}

fn etcd_arguments(directory: &Path, address: IpAddr) -> Vec<String> {
    let url = |port| format!("http://{}", SocketAddr::new(address, port));
    [
        ("data-dir", directory.join("etcd").display().to_string()),
        ("listen-client-urls", url(ETCD_PORT)),
        ("advertise-client-urls", url(ETCD_PORT)),
        ("listen-peer-urls", url(ETCD_PEER_PORT)),
        ("initial-advertise-peer-urls", url(ETCD_PEER_PORT)),
        ("initial-cluster", format!("default={}", url(ETCD_PEER_PORT))),
    ]
    .into_iter()
    .map(|(name, value)| format!("--{name}={value}"))
    .collect()
}

fn admin_kubeconfig(certificates: &Certificates, address: SocketAddr) -> Value {
    let user = json!({
        "client-certificate": certificates.file("admin.crt"),
        "client-key": certificates.file("admin.key"),
    });
    kubeconfig(certificates, address, "admin", &user)
}

/// JSON is YAML.
fn kubeconfig(certificates: &Certificates, address: SocketAddr, user: &str, credentials: &Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority": certificates.file("ca.crt"),
        }}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        "current-context": "test",
    })
}
