//! What the commands for a Kubernetes cluster share: how to reach it, and which objects in it are Selvedge's.

use std::path::PathBuf;

use anyhow::bail;
use selvedge_control_plane::cluster::{CA_SECRET, CLASS, LEASE, TOKEN_KEY_SECRET, TRUST_ROOTS};
use selvedge_kubernetes::{Client, Connect, Kind};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::install;

/// The control plane's pods.
pub(crate) const CONTROL_PLANE_PODS: &str =
    "app.kubernetes.io/name=selvedge,app.kubernetes.io/component=control-plane";

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

impl ClusterArgs {
    /// A way to the API server, not yet used.
    pub(crate) async fn connect(&self) -> anyhow::Result<Client> {
        let connect = Connect { kubeconfig: self.kubeconfig.clone(), context: self.context.clone() };
        Ok(Client::connect(&connect).await?)
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
