//! The facts that `selvedge check` asks a cluster for. `judge` decides what they mean.

use std::collections::BTreeMap;

use selvedge_control_plane::{cluster::TRUST_ROOTS, status::Config};
use selvedge_kubernetes::{Access, Client, Error, Kind};
use serde_json::{Value, json};

use crate::{
    cluster::{self, ObjectName},
    install,
    replicas::{self, REPLICA_TIME},
};

/// An object of the chart, and what is there instead.
#[derive(Debug)]
pub(super) struct Expected {
    pub(super) named: ObjectName,
    pub(super) wanted: Value,
    /// `Err`: the API server does not say, and why.
    pub(super) found: Result<Option<Value>, String>,
}

/// What there is before any installation.
#[derive(Debug, Default)]
pub(super) struct Ground {
    pub(super) server: String,
    pub(super) version: String,
    /// What the caller may not do but an installation must, such as `create clusterroles`.
    pub(super) missing_rights: Vec<String>,
}

/// What there is of an installation.
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) namespace: String,
    pub(super) objects: Vec<Expected>,
    pub(super) control_plane_pods: Vec<Value>,
    /// The ConfigMap with the roots.
    pub(super) trust_roots: Option<Value>,
    pub(super) namespaces: Vec<Value>,
    pub(super) pods: Vec<Value>,
    /// What the API server would make of a pod that asks for a sidecar.
    pub(super) tried_pod: Option<Result<Value, String>>,
    /// By pod of the control plane, what its admin port says.
    pub(super) replicas: BTreeMap<String, Result<Config, String>>,
    /// What could not be asked.
    pub(super) unknown: Vec<String>,
}

impl Ground {
    /// # Errors
    /// If the API server does not answer.
    pub(super) async fn ask(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let version = client.server_version().await?;
        let mut missing_rights = Vec::new();
        for object in install::every_object(namespace)? {
            let ObjectName { kind, namespace, .. } = ObjectName::of(&object)?;
            for verb in ["create", "patch"] {
                let access = Access {
                    group: &kind.group,
                    resource: &kind.plural,
                    verb,
                    namespace: namespace.as_deref(),
                    name: None,
                };
                let words = match &namespace {
                    Some(namespace) => format!("{verb} {} in {namespace}", kind.plural),
                    None => format!("{verb} {}", kind.plural),
                };
                if !missing_rights.contains(&words) && !client.may(&access).await? {
                    missing_rights.push(words);
                }
            }
        }
        Ok(Self { server: client.server().to_owned(), version, missing_rights })
    }
}

impl Facts {
    /// # Errors
    /// If the chart is broken. What the cluster does not say is in [`Facts::unknown`].
    pub(super) async fn ask(client: &Client, namespace: &str) -> anyhow::Result<Self> {
        let mut facts = Self { namespace: namespace.to_owned(), ..Self::default() };
        for wanted in install::every_object(namespace)? {
            let named = ObjectName::of(&wanted)?;
            let found = named.find(client).await.map_err(|error| error.to_string());
            facts.objects.push(Expected { named, wanted, found });
        }
        let selector = Some(cluster::CONTROL_PLANE_PODS);
        let namespaces = Kind::cluster_wide("v1", "Namespace", "namespaces");
        let config_maps = Kind::namespaced("v1", "ConfigMap", "configmaps");
        let pods = cluster::pods();
        let listed = client.list(&pods, Some(namespace), selector).await;
        facts.control_plane_pods = facts.known(listed, "the control plane's pods").unwrap_or_default();
        let found = client.get(&config_maps, Some(namespace), TRUST_ROOTS).await;
        facts.trust_roots = facts.known(found, "the trust roots").flatten();
        let listed = client.list(&namespaces, None, None).await;
        facts.namespaces = facts.known(listed, "namespaces").unwrap_or_default();
        let listed = client.list(&pods, None, None).await;
        facts.pods = facts.known(listed, "pods").unwrap_or_default();
        if facts.is_installed() {
            facts.tried_pod = Some(try_pod(client).await);
            facts.replicas = replicas::ask_replicas(client, namespace, "/config", REPLICA_TIME).await;
        }
        Ok(facts)
    }

    /// Whether there is a control plane.
    pub(super) fn is_installed(&self) -> bool {
        self.found("Deployment").is_some()
    }

    /// The one object of `kind`, as the cluster has it.
    pub(super) fn found(&self, kind: &str) -> Option<&Value> {
        let of_kind = self.objects.iter().find(|object| object.named.kind.kind == kind)?;
        of_kind.found.as_ref().ok()?.as_ref()
    }

    fn known<T>(&mut self, answer: Result<T, Error>, what: &str) -> Option<T> {
        answer.map_err(|error| self.unknown.push(format!("{what}: {error}"))).ok()
    }
}

/// What would become of a pod that asks for a sidecar. Nothing is made; the webhook is really called.
async fn try_pod(client: &Client) -> Result<Value, String> {
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "selvedge-check-", "labels": {"selvedge.io/inject": "enabled"}},
        "spec": {"containers": [{"name": "app", "image": "selvedge-check"}]},
    });
    let answer = client.try_create(&cluster::pods(), Some("default"), &pod).await;
    answer.map_err(|error| error.to_string())
}
