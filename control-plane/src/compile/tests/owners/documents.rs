//! Documents that speak of addresses and names, as any namespace may write them.

use serde_json::{Value, json};

use super::meshed;

#[allow(clippy::needless_pass_by_value)] // `json!` at every call
pub(super) fn object(kind: &str, namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec
    })
}

pub(super) fn workload_entry(namespace: &str, name: &str, spec: Value) -> Value {
    object("WorkloadEntry", namespace, name, spec)
}

pub(super) fn service_entry(namespace: &str, name: &str, spec: Value) -> Value {
    object("ServiceEntry", namespace, name, spec)
}

/// A workload with a sidecar that nothing redirects connections to.
pub(super) fn explicit(namespace: &str, name: &str, address: &str, port: u16) -> Value {
    let spec = json!({"address": address, "ports": {"http": port}, "labels": meshed()});
    let mut entry = workload_entry(namespace, name, spec);
    entry["metadata"]["annotations"] = json!({"config.selvedge.io/inbound": format!("{address}:4143")});
    entry
}

pub(super) fn service_with(namespace: &str, cluster_ip: &str, port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "theirs", "namespace": namespace},
        "spec": {"clusterIP": cluster_ip, "ports": [{"name": "http", "port": port}]}
    })
}

/// A service of `namespace` and a slice of it without a selector.
pub(super) fn sliced(namespace: &str, address: &str, port: u16, target: Option<Value>) -> Vec<Value> {
    let mut endpoint = json!({"addresses": [address]});
    if let Some(target) = target {
        endpoint["targetRef"] = target;
    }
    let mut service = service_with(namespace, "None", port);
    service["spec"].as_object_mut().unwrap().remove("clusterIP");
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "theirs-1", "namespace": namespace, "labels": {"kubernetes.io/service-name": "theirs"}},
        "endpoints": [endpoint], "ports": [{"name": "http", "port": port}]
    });
    vec![service, slice]
}

#[allow(clippy::needless_pass_by_value)] // `json!` at every call
pub(super) fn entry_with(namespace: &str, host: &str, port: u16, more: Value) -> Value {
    let mut spec = json!({
        "hosts": [host], "resolution": "STATIC", "ports": [{"number": port, "name": "tcp", "protocol": "TCP"}]
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    service_entry(namespace, "theirs", spec)
}
