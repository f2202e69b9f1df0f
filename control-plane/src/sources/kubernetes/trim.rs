//! What of an object is worth keeping: the rest is dropped before anything else looks at it.
//!
//! Two reasons. A cluster has thousands of pods, each with kilobytes that a mesh never reads. And what is
//! not kept cannot change: a pod whose probes were counted anew is the same pod as before.

use serde_json::{Map, Value};

/// Annotations of whose domains something is asked of a mesh.
const OUR_DOMAINS: [&str; 3] = ["selvedge.io", "istio.io", "gateway.networking.k8s.io"];

/// Drops of `object`, which is a `kind`, what no mesh reads.
pub(super) fn trim(kind: &str, object: &mut Value) {
    trim_metadata(object);
    if kind != "Pod"
        && let Some(metadata) = object.get_mut("metadata")
    {
        // Written by the API server; a mesh has no use for it but with pods, and nobody is to be told so.
        remove(metadata, "deletionTimestamp");
    }
    match kind {
        "Pod" => {
            keep_annotations(object);
            keep(object, "spec", &["hostNetwork", "serviceAccountName", "containers", "initContainers"]);
            keep(object, "status", &["phase", "podIP", "podIPs", "conditions"]);
            for list in ["/spec/containers", "/spec/initContainers"] {
                each(object, list, |container| keep_fields(container, &["name", "ports"]));
            }
            each(object, "/status/conditions", |condition| keep_fields(condition, &["type", "status"]));
            if let Some(Value::Array(conditions)) = object.pointer_mut("/status/conditions") {
                conditions.retain(|condition| condition["type"] == "Ready");
            }
        }
        "Namespace" => {
            keep_annotations(object);
            keep(object, "spec", &[]);
            keep(object, "status", &["phase"]);
        }
        "Service" => {
            keep_annotations(object);
            // What is left out is for kube-proxy, load balancers and DNS, and they do act on it.
            let fields = [
                "selector",
                "ports",
                "clusterIP",
                "clusterIPs",
                "type",
                "externalName",
                "sessionAffinity",
                "internalTrafficPolicy",
                "publishNotReadyAddresses",
            ];
            keep(object, "spec", &fields);
            each(object, "/spec/ports", |port| {
                keep_fields(port, &["name", "port", "targetPort", "protocol", "appProtocol"]);
            });
            let is_external = object.pointer("/spec/type").is_some_and(|kind| kind == "ExternalName");
            if let Some(spec) = object.get_mut("spec").filter(|_| !is_external) {
                remove(spec, "type");
            }
            drop_if(object, "sessionAffinity", "None");
            drop_if(object, "internalTrafficPolicy", "Cluster");
            remove(object, "status");
        }
        "EndpointSlice" => {
            if let Some(metadata) = object.get_mut("metadata") {
                remove(metadata, "annotations");
                if let Some(Value::Object(labels)) = metadata.get_mut("labels") {
                    labels.retain(|name, _| name == "kubernetes.io/service-name");
                }
            }
            each(object, "/endpoints", |endpoint| {
                keep_fields(endpoint, &["addresses", "conditions", "targetRef"]);
                if let Some(target) = endpoint.get_mut("targetRef") {
                    keep_fields(target, &["kind", "namespace", "name"]);
                }
            });
        }
        _ => remove(object, "status"),
    }
}

fn trim_metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    for field in ["managedFields", "selfLink", "finalizers", "generateName", "deletionGracePeriodSeconds"] {
        remove(metadata, field);
    }
}

fn keep_annotations(object: &mut Value) {
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else { return };
    annotations.retain(|name, _| {
        let domain = name.split_once('/').map_or("", |(domain, _)| domain);
        OUR_DOMAINS.iter().any(|ours| {
            domain.strip_suffix(ours).is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    });
}

fn keep(object: &mut Value, part: &str, fields: &[&str]) {
    if let Some(part) = object.get_mut(part) {
        keep_fields(part, fields);
    }
}

fn keep_fields(value: &mut Value, fields: &[&str]) {
    if let Value::Object(all) = value {
        all.retain(|name, _| fields.contains(&name.as_str()));
    }
}

fn each(object: &mut Value, list: &str, change: impl Fn(&mut Value)) {
    if let Some(Value::Array(items)) = object.pointer_mut(list) {
        items.iter_mut().for_each(change);
    }
}

/// Drops a field of `spec` that says what is so anyway.
fn drop_if(object: &mut Value, field: &str, default: &str) {
    if let Some(spec) = object.get_mut("spec")
        && spec[field] == default
    {
        remove(spec, field);
    }
}

fn remove(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        Map::remove(fields, field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trimmed(mut object: Value) -> Value {
        let kind = object["kind"].as_str().unwrap().to_owned();
        trim(&kind, &mut object);
        object
    }

    #[test]
    fn of_a_pod_its_addresses_ports_labels_and_readiness_stay() {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"},
                "managedFields": [{"manager": "kubelet"}],
                "annotations": {"config.selvedge.io/opaque-ports": "1", "prometheus.io/scrape": "true",
                                "notselvedge.io/x": "y"}
            },
            "spec": {"nodeName": "n", "serviceAccountName": "a", "volumes": [{}],
                     "containers": [{"name": "app", "image": "i", "ports": [{"containerPort": 80}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "startTime": "t",
                       "conditions": [{"type": "Ready", "status": "True", "lastProbeTime": "t"},
                                      {"type": "PodScheduled", "status": "True"}]}
        });

        assert_eq!(
            trimmed(pod),
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {
                    "name": "a", "namespace": "shop", "uid": "u", "labels": {"app": "a"},
                    "annotations": {"config.selvedge.io/opaque-ports": "1"}
                },
                "spec": {"serviceAccountName": "a",
                         "containers": [{"name": "app", "ports": [{"containerPort": 80}]}]},
                "status": {"phase": "Running", "podIP": "10.0.0.1",
                           "conditions": [{"type": "Ready", "status": "True"}]}
            })
        );
    }

    #[test]
    fn of_a_service_what_others_act_on_goes_and_what_asks_for_something_stays() {
        let service = json!({
            "kind": "Service", "metadata": {"name": "a", "annotations": {"cloud.example/lb": "x"}},
            "spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "sessionAffinity": "None",
                     "internalTrafficPolicy": "Local", "ports": [{"port": 80, "nodePort": 30000}]},
            "status": {"loadBalancer": {}}
        });

        assert_eq!(
            trimmed(service),
            json!({
                "kind": "Service", "metadata": {"name": "a", "annotations": {}},
                "spec": {"internalTrafficPolicy": "Local", "ports": [{"port": 80}]}
            })
        );
    }

    #[test]
    fn of_a_slices_endpoint_its_pod_stays() {
        let slice = json!({
            "kind": "EndpointSlice", "metadata": {"name": "a-1"},
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "targetRef": {
                "kind": "Pod", "namespace": "shop", "name": "a-1", "uid": "u"}}]
        });

        let target = json!({"kind": "Pod", "namespace": "shop", "name": "a-1"});
        assert_eq!(trimmed(slice)["endpoints"], json!([{"addresses": ["10.0.0.1"], "targetRef": target}]));
    }

    #[test]
    fn whatever_an_object_looks_like_trimming_it_harms_nothing() {
        for kind in ["Pod", "Namespace", "Service", "EndpointSlice", "VirtualService"] {
            for mut odd in [
                json!(null),
                json!([]),
                json!({}),
                json!({"metadata": 1, "spec": [], "status": "x"}),
                json!({"spec": {"containers": {}, "ports": 3}, "endpoints": "none", "metadata": {"labels": []}}),
            ] {
                trim(kind, &mut odd);
            }
        }
    }
}
