//! What the commands for a Kubernetes cluster share: how to reach it, and which objects in it are Selvedge's.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, bail};
use selvedge_control_plane::{
    cluster::{CA_SECRET, CLASS, LEASE, TOKEN_KEY_SECRET, TRUST_ROOTS},
    status::COMMAND,
};
use selvedge_kubernetes::{Client, Connect, Kind};
use selvedge_ops::plain;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use crate::install;

/// The control plane's pods.
pub(crate) const CONTROL_PLANE_PODS: &str =
    "app.kubernetes.io/name=selvedge,app.kubernetes.io/component=control-plane";
/// Where the control plane's pods answer people on the same host.
pub(crate) const ADMIN_PORT: u16 = 9990;
/// The longest answer of an admin port that is read: some 5,000 proxies.
pub(crate) const MAX_ANSWER: u64 = 64 << 20;
/// How long an admin port may take at most.
const ANSWER_TIME: Duration = Duration::from_secs(20);

/// How to reach the cluster.
#[derive(Debug, Clone, clap::Args)]
pub struct ClusterArgs {
    /// The kubeconfig; default: KUBECONFIG or ~/.kube/config, or inside a pod its ServiceAccount
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// A context of the kubeconfig; default: its current context
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The namespace of the control plane
    #[arg(long, short, default_value = install::NAMESPACE, value_parser = install::namespace)]
    pub(crate) namespace: String,
}

/// Which control plane is asked.
#[derive(Debug, clap::Args)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,

    /// The admin port of a control plane on this host, as IP:PORT, instead of those in a cluster
    #[arg(long, value_name = "IP:PORT", conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) admin: Option<SocketAddr>,
}

impl ClusterArgs {
    /// A way to the API server, not yet used.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let connect = Connect { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        Ok(Client::connect(&connect).await?)
    }
}

impl PlaceArgs {
    /// A way to the API server, not yet used. Who has no cluster is told of the other way.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        self.cluster
            .connect()
            .await
            .context("without --admin IP:PORT the control planes of a cluster are asked")
    }
}

/// A runtime for a command that only asks.
pub(crate) fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// An object by what it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectName {
    pub(crate) kind: Kind,
    pub(crate) namespace: Option<String>,
    pub(crate) name: String,
}

impl ObjectName {
    fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = kind.namespaced.then(|| namespace.to_owned());
        Self { kind, namespace, name: name.to_owned() }
    }

    /// What a manifest is called. Knows the kinds of the chart.
    pub(crate) fn of(object: &Value) -> anyhow::Result<Self> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let kind = known_kind(text("/apiVersion"), text("/kind"))?;
        Ok(Self::new(kind, text("/metadata/namespace"), text("/metadata/name")))
    }

    /// The least that `kubectl delete -f` needs.
    pub(crate) fn to_manifest(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = json!(namespace);
        }
        json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind, "metadata": metadata})
    }

    /// The object as the cluster has it.
    pub(crate) async fn find(&self, client: &Client) -> Result<Option<Value>, selvedge_kubernetes::Error> {
        client.get(&self.kind, self.namespace.as_deref(), &self.name).await
    }
}

impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.kind, self.name),
            None => write!(f, "{} {}", self.kind.kind, self.name),
        }
    }
}

/// The kinds of the chart's objects, by their plurals.
fn known_kind(api_version: &str, kind: &str) -> anyhow::Result<Kind> {
    let (plural, namespaced) = match kind {
        "Namespace" => ("namespaces", false),
        "CustomResourceDefinition" => ("customresourcedefinitions", false),
        "ServiceAccount" => ("serviceaccounts", true),
        "ClusterRole" => ("clusterroles", false),
        "ClusterRoleBinding" => ("clusterrolebindings", false),
        "Role" => ("roles", true),
        "RoleBinding" => ("rolebindings", true),
        "Service" => ("services", true),
        "Deployment" => ("deployments", true),
        "NetworkPolicy" => ("networkpolicies", true),
        "PodDisruptionBudget" => ("poddisruptionbudgets", true),
        "MutatingWebhookConfiguration" => ("mutatingwebhookconfigurations", false),
        "ValidatingWebhookConfiguration" => ("validatingwebhookconfigurations", false),
        _ => bail!("the chart has an object of kind {kind}, which this command does not know"),
    };
    Ok(match namespaced {
        true => Kind::namespaced(api_version, kind, plural),
        false => Kind::cluster_wide(api_version, kind, plural),
    })
}

/// What the control plane makes for itself.
pub(crate) fn made_by_the_control_plane(namespace: &str) -> Vec<ObjectName> {
    let secrets = [CA_SECRET, TOKEN_KEY_SECRET].map(|name| ("v1", "Secret", "secrets", name));
    let others = [
        ("v1", "ConfigMap", "configmaps", TRUST_ROOTS),
        ("coordination.k8s.io/v1", "Lease", "leases", LEASE),
    ];
    secrets
        .into_iter()
        .chain(others)
        .map(|(api_version, kind, plural, name)| {
            ObjectName::new(Kind::namespaced(api_version, kind, plural), namespace, name)
        })
        .collect()
}

/// The classes that the control plane makes. Not every cluster has both kinds.
pub(crate) fn classes() -> [ObjectName; 2] {
    [
        ("gateway.networking.k8s.io/v1", "GatewayClass", "gatewayclasses"),
        ("networking.k8s.io/v1", "IngressClass", "ingressclasses"),
    ]
    .map(|(version, kind, plural)| ObjectName::new(Kind::cluster_wide(version, kind, plural), "", CLASS))
}

/// Pods, in all namespaces or one.
pub(crate) fn pods() -> Kind {
    Kind::namespaced("v1", "Pod", "pods")
}

/// The control plane's pods that run.
pub(crate) async fn control_plane_pods(client: &Client, namespace: &str) -> anyhow::Result<Vec<String>> {
    let pods = client.list(&pods(), Some(namespace), Some(CONTROL_PLANE_PODS)).await?;
    let running = |pod: &&Value| {
        pod["status"]["phase"] == "Running" && pod.pointer("/metadata/deletionTimestamp").is_none()
    };
    let name = |pod: &Value| pod["metadata"]["name"].as_str().map(str::to_owned);
    Ok(pods.iter().filter(running).filter_map(name).collect())
}

/// What the admin port at `admin` answers to `GET path`, if it does so in `limit`.
pub(crate) async fn ask_admin(admin: SocketAddr, path: &str, limit: Duration) -> anyhow::Result<Value> {
    let answer = ask_at(admin, path, limit).await;
    answer.with_context(|| format!("the control plane's admin port {admin}"))
}

/// The same for who names the port in its own words.
pub(crate) async fn ask_at(admin: SocketAddr, path: &str, limit: Duration) -> anyhow::Result<Value> {
    let limit = limit.min(ANSWER_TIME);
    let exchange = async { ask(TcpStream::connect(admin).await?, path).await };
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(TooLate(limit).into()))
}

/// What an admin port at the other end of `stream` answers to `GET path`.
///
/// HTTP/1.0, so that the answer ends with the connection.
pub(crate) async fn ask(stream: impl AsyncRead + AsyncWrite, path: &str) -> anyhow::Result<Value> {
    let body = ask_text(stream, path).await?;
    let answer = serde_json::from_str(&body)
        .with_context(|| format!("{path} does not answer with the expected JSON"))?;
    Ok(all_plain(answer))
}

/// Who was asked has not answered in this time.
#[derive(Debug)]
pub(crate) struct TooLate(Duration);

impl std::fmt::Display for TooLate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "no answer within {:?}", self.0)
    }
}

impl std::error::Error for TooLate {}

/// The same of an answer that is any text.
pub(crate) async fn ask_text(stream: impl AsyncRead + AsyncWrite, path: &str) -> anyhow::Result<String> {
    let mut stream = std::pin::pin!(stream);
    let mut answer = Vec::new();
    let exchange = async {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{COMMAND}: yes\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await
    };
    timeout(ANSWER_TIME, exchange).await.map_err(|_| TooLate(ANSWER_TIME))??;
    if answer.len() as u64 >= MAX_ANSWER {
        bail!("{path}: the answer has {} MiB or more, which is not read", MAX_ANSWER >> 20);
    }
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200") {
        bail!("{path}: {}: {}", plain(status), plain(body.trim()));
    }
    Ok(body.to_owned())
}

/// The same with every text fit for a terminal: much of it is what proxies say of themselves.
fn all_plain(value: Value) -> Value {
    match value {
        Value::String(text) => plain(&text).into_owned().into(),
        Value::Array(items) => items.into_iter().map(all_plain).collect(),
        Value::Object(fields) => {
            let fields =
                fields.into_iter().map(|(name, value)| (plain(&name).into_owned(), all_plain(value)));
            fields.collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_does_not_answer_is_waited_for_as_long_as_was_said_and_no_longer_than_twenty_seconds() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin = silent.local_addr().unwrap();
        for (limit, words) in [(2, "no answer within 2s"), (3600, "no answer within 20s")] {
            let error = ask_admin(admin, "/status", Duration::from_secs(limit)).await.unwrap_err();
            assert!(error.is::<TooLate>(), "{error:#}");
            assert_eq!(format!("{error:#}"), format!("the control plane's admin port {admin}: {words}"));
        }
    }
}
