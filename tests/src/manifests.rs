//! Manifests, read as strictly as the API server's own types allow: no field that they do not have.
//!
//! `kubectl apply` sends unknown fields, and older API servers drop them without a word. Here a document is
//! read into its type and written again: what does not come back, the type does not know.

use k8s_openapi::{
    Resource,
    api::{
        admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration},
        apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
        batch::v1::{CronJob, Job},
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Namespace, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Every document of a stream of YAML.
///
/// # Panics
/// If it is not YAML.
pub fn documents(text: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// Reads `object` as what its `apiVersion` and `kind` say, and finds nothing in it that this kind has not.
///
/// # Errors
/// Names the field that is unknown or of a wrong type, or the kind if it is none of Kubernetes' own.
pub fn read_strictly(object: &Value) -> Result<(), String> {
    macro_rules! one_of {
        ($($kind:ty),+ $(,)?) => {
            $(if is::<$kind>(object) {
                return comes_back::<$kind>(object);
            })+
        };
    }
    one_of!(
        ClusterRole,
        ClusterRoleBinding,
        ConfigMap,
        CronJob,
        CustomResourceDefinition,
        DaemonSet,
        Deployment,
        Event,
        Job,
        Lease,
        MutatingWebhookConfiguration,
        Namespace,
        NetworkPolicy,
        Pod,
        PodDisruptionBudget,
        ReplicaSet,
        Role,
        RoleBinding,
        Secret,
        Service,
        ServiceAccount,
        StatefulSet,
        ValidatingWebhookConfiguration,
    );
    Err(format!("{} {} is no kind that is known here", object["apiVersion"], object["kind"]))
}

fn is<T: Resource>(object: &Value) -> bool {
    object["apiVersion"] == T::API_VERSION && object["kind"] == T::KIND
}

fn comes_back<T: Resource + DeserializeOwned + Serialize>(object: &Value) -> Result<(), String> {
    let read: T = serde_json::from_value(object.clone()).map_err(|error| format!("{}: {error}", T::KIND))?;
    let written = serde_json::to_value(read).map_err(|error| format!("{}: {error}", T::KIND))?;
    lost(object, &written, T::KIND)
}

/// The first part of `before` that is missing or different in `after`.
fn lost(before: &Value, after: &Value, path: &str) -> Result<(), String> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before.iter().try_for_each(|(name, before)| {
            let path = format!("{path}.{name}");
            let after = after.get(name).ok_or_else(|| format!("{path} is no field"))?;
            lost(before, after, &path)
        }),
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            let mut pairs = before.iter().zip(after).enumerate();
            pairs.try_for_each(|(index, (before, after))| lost(before, after, &format!("{path}[{index}]")))
        }
        // A number is the same whether it is written 1 or 1.0.
        (Value::Number(before), Value::Number(after)) if before.as_f64() == after.as_f64() => Ok(()),
        _ if before == after => Ok(()),
        _ => Err(format!("{path} is {before}, and was read as {after}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_its_kind_has_not_is_named() {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "a"},
            "spec": {"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 80}]}]},
        });
        assert_eq!(read_strictly(&pod), Ok(()));

        pod["spec"]["containers"][0]["prots"] = json!([]);
        assert_eq!(read_strictly(&pod), Err("Pod.spec.containers[0].prots is no field".to_owned()));
        pod["spec"]["containers"] = json!("a");
        assert!(read_strictly(&pod).is_err());
    }

    #[test]
    fn a_kind_that_nobody_knows_is_named() {
        let unknown = json!({"apiVersion": "v2", "kind": "Pod"});

        assert!(read_strictly(&unknown).unwrap_err().contains("is no kind"));
    }
}
