//! `selvedge uninstall`: prints every object of Selvedge in a cluster, for `kubectl delete -f -`.
//!
//! Like `install` it changes nothing itself. It refuses while pods have sidecars or gateways run: without a control plane
//! their certificates expire within a day, and then all their traffic ends.

use std::{
    collections::BTreeSet,
    io::{self, Write as _},
};

use anyhow::{Context, bail};
use selvedge_control_plane::{
    cluster::MADE_FOR_GATEWAYS,
    inject::{INJECT, INJECTED, SIDECAR_INJECTED, SIDECAR_LABEL},
};
use selvedge_kubernetes::{Client, Kind};
use serde_json::Value;

use crate::{
    cluster::{self, ClusterArgs, ObjectName},
    install,
};

/// How many pods are named.
const NAMED: usize = 20;

/// Print the objects to delete from Kubernetes, for `kubectl delete -f -`
///
/// This prints only objects that exist, in the order in which they can be deleted: webhooks first, so that no pod waits
/// for them. It refuses while pods have sidecars or gateways run.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    cluster: ClusterArgs,

    /// Print them even if pods have sidecars or gateways run; their traffic ends when their certificates expire
    #[arg(long)]
    force: bool,

    /// Do not ask the cluster: print every object that can exist, for `kubectl delete --ignore-not-found -f -`
    #[arg(long)]
    offline: bool,
}

/// Prints the objects.
///
/// # Errors
/// If the cluster cannot be asked, pods have sidecars, or gateways run.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut objects = everything(&args.cluster.namespace)?;
    if !args.offline {
        // Before the namespace, and after whoever would make them again.
        let namespace = objects.len().saturating_sub(1);
        objects.splice(namespace..namespace, cluster::classes());
        objects = cluster::runtime()?.block_on(crate::patience::patiently(present(&args, objects)))?;
    }
    let mut text = String::new();
    for object in &objects {
        text += "---\n";
        text += &serde_saphyr::to_string(&object.to_manifest())?;
    }
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}

/// All that an installation may have, in the order in which it goes: the reverse of that in which it came, and
/// what the control plane made when it can no longer make it again.
fn everything(namespace: &str) -> anyhow::Result<Vec<ObjectName>> {
    let mut objects = Vec::new();
    for manifest in install::every_object(namespace)?.iter().rev() {
        if manifest["kind"] == "Namespace" {
            objects.extend(cluster::made_by_the_control_plane(namespace));
        }
        objects.push(ObjectName::of(manifest)?);
    }
    Ok(objects)
}

async fn present(args: &Args, objects: Vec<ObjectName>) -> anyhow::Result<Vec<ObjectName>> {
    let client = args.cluster.connect().await?;
    let injected = Injected::of(&client).await?;
    if !injected.pods.is_empty() && !args.force {
        bail!("{}", injected.refusal());
    }
    let gateways = gateways(&client).await?;
    if !gateways.is_empty() && !args.force {
        bail!("{}", refusal_of_gateways(&gateways));
    }
    for namespace in &injected.namespaces {
        eprintln!(
            "selvedge: namespace {namespace} still asks for sidecars: kubectl label namespace {namespace} \
             selvedge.io/inject-, and the same with annotate"
        );
    }
    let mut present = Vec::new();
    for object in objects {
        let found = object.find(&client).await.with_context(|| object.to_string())?;
        let Some(found) = found else { continue };
        // One that somebody else made may hold other things.
        let ours = found
            .pointer("/metadata/labels/app.kubernetes.io~1part-of")
            .is_some_and(|part| part == "selvedge");
        let may_be_anybodys = ["Namespace", "GatewayClass", "IngressClass"].contains(&&*object.kind.kind);
        if may_be_anybodys && !ours {
            eprintln!("selvedge: {object} was not made by Selvedge, so it stays");
        } else {
            present.push(object);
        }
    }
    Ok(present)
}

/// The Deployments that the control plane keeps for gateways, also that of all Ingresses.
async fn gateways(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let selector = MADE_FOR_GATEWAYS.map(|(key, value)| format!("{key}={value}")).join(",");
    let kind = Kind::namespaced("apps/v1", "Deployment", "deployments");
    let found = client.list(&kind, None, Some(&selector)).await?;
    let text =
        |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    Ok(found.iter().map(|one| format!("{}/{}", text(one, "namespace"), text(one, "name"))).collect())
}

fn refusal_of_gateways(gateways: &BTreeSet<String>) -> String {
    let names = listed(gateways);
    format!(
        "{} gateways run; without a control plane nobody renews their certificates, changes or removes them:\n{names}\n\
         delete their Gateways, and Ingresses of the class selvedge, and try again; or give --force, and delete these \
         Deployments, and the Services beside them, yourself",
        gateways.len(),
    )
}

/// The names, each in a line; of very many the first.
fn listed(names: &BTreeSet<String>) -> String {
    let mut lines: Vec<String> = names.iter().take(NAMED).map(|name| format!("  {name}")).collect();
    if names.len() > NAMED {
        lines.push(format!("  and {} more", names.len() - NAMED));
    }
    lines.join("\n")
}

/// Who is in the mesh.
#[derive(Debug, Default)]
struct Injected {
    pods: BTreeSet<String>,
    namespaces: BTreeSet<String>,
}

impl Injected {
    async fn of(client: &Client) -> anyhow::Result<Self> {
        let pods =
            client.list(&cluster::pods(), None, Some(&format!("{SIDECAR_LABEL}={SIDECAR_INJECTED}"))).await?;
        let namespaces =
            client.list(&Kind::cluster_wide("v1", "Namespace", "namespaces"), None, None).await?;
        Ok(Self::among(&pods, &namespaces))
    }

    fn among(pods: &[Value], namespaces: &[Value]) -> Self {
        let text =
            |object: &Value, field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let over = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        // A label can be copied to anything; the annotation says which version injected it.
        let injected = |pod: &Value| !pod["metadata"]["annotations"][INJECTED].is_null();
        let asks = |namespace: &Value| {
            ["labels", "annotations"].iter().any(|place| namespace["metadata"][*place][INJECT] == "enabled")
        };
        Self {
            pods: pods
                .iter()
                .filter(|pod| injected(pod) && !over(pod))
                .map(|pod| format!("{}/{}", text(pod, "namespace"), text(pod, "name")))
                .collect(),
            namespaces: namespaces.iter().filter(|one| asks(one)).map(|one| text(one, "name")).collect(),
        }
    }

    fn refusal(&self) -> String {
        format!(
            "{} pods have sidecars; without a control plane their certificates expire within a day:\n{}\n\
             take selvedge.io/inject from their namespaces and workloads, restart the workloads, and try again; \
             or give --force",
            self.pods.len(),
            listed(&self.pods)
        )
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn webhooks_go_first_and_the_namespace_last() {
        let objects = everything("mesh").unwrap();
        let kinds: Vec<&str> = objects.iter().map(|object| &*object.kind.kind).collect();
        let place =
            |kind: &str| kinds.iter().position(|other| *other == kind).unwrap_or_else(|| panic!("no {kind}"));

        assert!(kinds[..2].iter().all(|kind| kind.ends_with("WebhookConfiguration")), "{kinds:?}");
        assert_eq!(place("Namespace"), kinds.len() - 1);
        // What could make them again has lost the right to.
        for made in ["Secret", "ConfigMap", "Lease"] {
            assert!(place(made) > place("RoleBinding") && place(made) > place("Deployment"), "{kinds:?}");
        }
        assert!(kinds.contains(&"PodDisruptionBudget"), "of several replicas, too");
        assert!(objects.iter().all(|object| object.namespace.as_deref().is_none_or(|name| name == "mesh")));
    }

    #[test]
    fn only_pods_that_we_injected_and_that_run_stand_in_the_way() {
        let pod = |name: &str, annotation: &str, phase: &str| json!({"metadata": {"namespace": "shop", "name": name, "annotations": {annotation: "0.1.0"}}, "status": {"phase": phase}});
        let pods = [
            pod("ours", "selvedge.io/injected", "Running"),
            pod("over", "selvedge.io/injected", "Succeeded"),
            pod("istios", "sidecar.istio.io/status", "Running"),
        ];
        let namespaces = [
            json!({"metadata": {"name": "a", "labels": {"selvedge.io/inject": "enabled"}}}),
            json!({"metadata": {"name": "b", "annotations": {"selvedge.io/inject": "enabled"}}}),
            json!({"metadata": {"name": "c", "labels": {"selvedge.io/inject": "disabled"}}}),
        ];

        let injected = Injected::among(&pods, &namespaces);

        assert_eq!(injected.pods, BTreeSet::from(["shop/ours".to_owned()]));
        assert_eq!(injected.namespaces, BTreeSet::from(["a".to_owned(), "b".to_owned()]));
        assert!(injected.refusal().starts_with("1 pods have sidecars"), "{}", injected.refusal());
    }
}
