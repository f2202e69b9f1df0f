//! Which parts of an object are kept; the rest is dropped first.
//!
//! Two reasons. A cluster has thousands of pods, each with kilobytes that a mesh never reads. And what is
//! not kept cannot change: a pod whose probes were counted again is the same pod as before.

use serde_json::Value;

/// Annotations of whose domains something is asked of a mesh.
const OUR_DOMAINS: [&str; 6] = [
    "selvedge.io",
    "istio.io",
    "gateway.networking.k8s.io",
    "retry.linkerd.io",
    "timeout.linkerd.io",
    "config.linkerd.io",
];

/// What nobody reads of any kind's metadata goes.
pub(super) fn metadata(object: &mut Value) {
    let Some(metadata) = object.get_mut("metadata") else { return };
    for field in ["managedFields", "selfLink", "finalizers", "generateName", "deletionGracePeriodSeconds"] {
        remove(metadata, field);
    }
}

/// Of most kinds, the status goes, and whether they are being deleted.
pub(super) fn status(object: &mut Value) {
    deletion(object);
    remove(object, "status");
}

/// Whether it is being deleted: written by the API server, of use to a mesh with pods only, and nobody is to be told so.
pub(super) fn deletion(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata") {
        remove(metadata, "deletionTimestamp");
    }
}

/// Annotations go that ask nothing of a mesh.
pub(super) fn keep_annotations(object: &mut Value) {
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else { return };
    annotations.retain(|name, _| {
        let domain = name.split_once('/').map_or("", |(domain, _)| domain);
        OUR_DOMAINS.iter().any(|ours| {
            domain.strip_suffix(ours).is_some_and(|above| above.is_empty() || above.ends_with('.'))
        })
    });
}

/// Of the field `part` all goes but `fields`.
pub(super) fn keep(object: &mut Value, part: &str, fields: &[&str]) {
    if let Some(part) = object.get_mut(part) {
        keep_fields(part, fields);
    }
}

/// All goes but `fields`.
pub(super) fn keep_fields(value: &mut Value, fields: &[&str]) {
    if let Value::Object(all) = value {
        all.retain(|name, _| fields.contains(&name.as_str()));
    }
}

/// Changes each item of the list at the JSON pointer `list`.
pub(super) fn each(object: &mut Value, list: &str, change: impl Fn(&mut Value)) {
    if let Some(Value::Array(items)) = object.pointer_mut(list) {
        items.iter_mut().for_each(change);
    }
}

/// Drops a field of `spec` that says what is so anyway.
pub(super) fn drop_if(object: &mut Value, field: &str, default: &str) {
    if let Some(spec) = object.get_mut("spec")
        && spec[field] == default
    {
        remove(spec, field);
    }
}

/// The field `field` goes.
pub(super) fn remove(value: &mut Value, field: &str) {
    if let Some(fields) = value.as_object_mut() {
        fields.remove(field);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::kinds;

    fn trimmed(mut object: Value) -> Value {
        kinds::find(object["kind"].as_str().unwrap()).unwrap().trim(&mut object);
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
                "spec": {"nodeName": "n", "serviceAccountName": "a",
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
    fn of_a_slices_endpoint_its_pod_and_its_node_stay() {
        let slice = json!({
            "kind": "EndpointSlice", "metadata": {"name": "a-1"},
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "targetRef": {
                "kind": "Pod", "namespace": "shop", "name": "a-1", "uid": "u"}}]
        });

        let target = json!({"kind": "Pod", "namespace": "shop", "name": "a-1"});
        assert_eq!(
            trimmed(slice)["endpoints"],
            json!([{"addresses": ["10.0.0.1"], "nodeName": "n", "targetRef": target}])
        );
    }

    #[test]
    fn whatever_an_object_looks_like_trimming_it_harms_nothing() {
        for kind in kinds::followed() {
            for mut odd in [
                json!(null),
                json!([]),
                json!({}),
                json!({"metadata": 1, "spec": [], "status": "x"}),
                json!({"spec": {"containers": {}, "ports": 3}, "endpoints": "none", "metadata": {"labels": []}}),
            ] {
                kind.trim(&mut odd);
            }
        }
    }
}
