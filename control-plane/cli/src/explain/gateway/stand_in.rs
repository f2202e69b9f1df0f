//! Workloads for gateways that nobody runs yet, so that what their documents say can be explained before.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use selvedge_control_plane::{
    compile::{INGRESS_GATEWAY, MeshSettings, our_gateways, our_ingresses},
    resources::{DecodeOutcome, Resources, decode, gateway_role::GATEWAY_ANNOTATION},
};
use selvedge_model::{Mesh, WorkloadName, facts};
use serde_json::json;

/// What the names of such workloads begin with.
const PREFIX: &str = "selvedge-explains-";

/// Whether `name` is such a workload.
pub(super) fn is_one(name: &WorkloadName) -> bool {
    name.name().starts_with(PREFIX)
}

/// `resources`, and a workload for each gateway that none of `mesh` is. `None`: there is no such gateway.
///
/// # Errors
/// If a gateway's name cannot be that of a workload.
pub(super) fn with_all(
    resources: &Resources,
    mesh: &Mesh,
    settings: &MeshSettings,
) -> Result<Option<Resources>, String> {
    let lacking = lacking(resources, mesh, settings);
    if lacking.is_empty() {
        return Ok(None);
    }
    let mut with_all = resources.clone();
    for ((namespace, name), labels) in lacking {
        let entry = entry(&namespace, &name, &labels).to_string();
        for document in decode(&entry, &Arc::from(Path::new("explain")), &settings.default_namespace) {
            match document.outcome {
                DecodeOutcome::Understood(resource) => with_all.put(resource),
                DecodeOutcome::NotActedOn | DecodeOutcome::Failed => {
                    return Err(format!(
                        "the gateway {namespace}/{name} has a name that no workload can have"
                    ));
                }
            }
        }
    }
    Ok(Some(with_all))
}

/// The gateways that no workload is, by namespace and name, with the labels that its workloads would need.
fn lacking(
    resources: &Resources,
    mesh: &Mesh,
    settings: &MeshSettings,
) -> BTreeMap<(String, String), BTreeMap<String, String>> {
    let roles =
        || mesh.workloads.values().filter_map(|workload| Some((workload.gateway.as_deref()?, workload)));
    let is_lacking = |namespace: &str, name: &str| {
        let name = format!("{namespace}/{name}");
        !roles().any(|(role, _)| *role.name == *name)
    };
    let ingresses = our_ingresses(resources).next().map(|_| (&*settings.own_namespace, INGRESS_GATEWAY));
    let gateways = our_gateways(resources).map(|one| (&*one.name.namespace, &*one.name.name));
    let mut all = BTreeMap::new();
    for (namespace, name) in gateways.chain(ingresses).filter(|(namespace, name)| is_lacking(namespace, name))
    {
        all.insert((namespace.to_owned(), name.to_owned()), BTreeMap::new());
    }
    for gateway in &resources.istio_gateways {
        let is_selected = |labels| facts::selects(&gateway.spec.selector, labels);
        if !roles().any(|(_, workload)| is_selected(&workload.labels)) {
            let name = (gateway.name.namespace.to_string(), gateway.name.name.to_string());
            all.entry(name).or_insert_with(|| gateway.spec.selector.clone());
        }
    }
    all
}

fn entry(namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> serde_json::Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "WorkloadEntry",
        "metadata": {
            "name": format!("{PREFIX}{name}"),
            "namespace": namespace,
            "annotations": { GATEWAY_ANNOTATION: format!("{namespace}/{name}") },
        },
        // For documentation (RFC 5737): nobody has it.
        "spec": { "address": "192.0.2.1", "serviceAccount": name, "labels": labels },
    })
}
