//! What a cluster's pods and slices mean.

use serde_json::{Value, json};

use super::*;
use crate::resources::decode_value;

/// A pod as the API server lists it.
pub(super) fn pod(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "labels": {"app": "a", "selvedge.io/sidecar": "injected"}},
        "spec": {"serviceAccountName": "a", "containers": [
            {"name": "app", "ports": [{"name": "http", "containerPort": 8080}]},
            {"name": "selvedge-proxy", "ports": [{"containerPort": 4143}]},
        ]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
    })
}

pub(super) fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    *object.pointer_mut(pointer).unwrap() = value;
    object
}

pub(super) fn service_a() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "a", "namespace": "shop"},
        "spec": {"selector": {"app": "a"}, "clusterIP": "10.96.0.1",
                 "ports": [{"name": "redis", "port": 80, "targetPort": 8080}]}
    })
}

/// Each endpoint with its conditions.
pub(super) fn slice(endpoints: &[(&str, Value)]) -> Value {
    let endpoint =
        |(address, conditions): &(&str, Value)| json!({"addresses": [address], "conditions": conditions});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "a-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "a"}},
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        "ports": [{"name": "redis", "port": 8080}]
    })
}

pub(super) fn ready() -> Value {
    json!({"ready": true, "serving": true, "terminating": false})
}

pub(super) fn cluster(objects: &[Value]) -> (Mesh, Vec<Problem>) {
    let mut resources = Resources::default();
    for object in objects {
        let decoded = decode_value(object.clone(), "default");
        assert_eq!(errors(&decoded.problems), [""; 0]);
        match decoded.outcome {
            DecodeOutcome::Understood(resource) => resources.push(resource),
            other => panic!("{other:?}"),
        }
    }
    compile(&resources, &MeshSettings::default(), &Mesh::default())
}

pub(super) fn workload<'a>(mesh: &'a Mesh, name: &str) -> Option<&'a Arc<selvedge_model::Workload>> {
    mesh.workloads.get(&name.parse().unwrap())
}

/// Who is expected at an address, by clients in `namespace`; `None`: it is called in plaintext.
pub(super) fn expected(mesh: &Mesh, namespace: &str, address: &str) -> Option<String> {
    match mesh.lookup(namespace, address) {
        Lookup::Address(found) => found.endpoint?.identity.map(|identity| identity.to_string()),
        _ => None,
    }
}

pub(super) const A: &str = "a.shop.svc.cluster.local";

#[test]
fn a_pod_is_a_workload_of_its_service_account() {
    let (mesh, problems) = cluster(&[pod("a-1", "10.0.0.1")]);

    assert_eq!(problems, []);
    let workload = workload(&mesh, "shop/a-1").unwrap();
    assert_eq!(workload.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/a");
    assert!(workload.meshed);
    assert_eq!(workload.ports, [8080], "the sidecar's own are not the workload's");
    assert!(mesh.occupants.get(&"10.0.0.1".parse().unwrap()).is_some());
}

#[test]
fn a_pod_without_the_label_or_in_its_nodes_network_is_not_meshed() {
    let plain = with(pod("plain", "10.0.0.1"), "/metadata/labels", json!({"app": "a"}));
    let node = with(pod("node", "192.168.0.1"), "/spec", json!({"hostNetwork": true}));
    let slice = slice(&[("10.0.0.1", ready()), ("192.168.0.1", ready())]);

    let (mesh, problems) = cluster(&[plain, node, service_a(), slice]);

    assert_eq!(problems, []);
    assert!(!workload(&mesh, "shop/plain").unwrap().meshed);
    assert!(!workload(&mesh, "shop/node").unwrap().meshed);
    let endpoints = &mesh.endpoints[&ServiceKey::new(A, 80)].list;
    assert!(endpoints.iter().all(|endpoint| endpoint.identity.is_none()));
    assert_eq!(expected(&mesh, "other", "10.0.0.1:9999"), None);
    assert!(mesh.occupants.get(&"192.168.0.1".parse().unwrap()).is_none(), "its node has other ports");
}

#[test]
fn a_pod_with_istios_sidecar_is_called_in_plaintext_and_one_with_ours_by_mutual_tls() {
    for (labels, meshed) in [
        (json!({"app": "a", "security.istio.io/tlsMode": "istio"}), false),
        (json!({"app": "a", "selvedge.io/sidecar": "injected"}), true),
        (json!({"app": "a", "selvedge.io/sidecar": "injected", "security.istio.io/tlsMode": "istio"}), true),
        (json!({"app": "a", "selvedge.io/sidecar": "disabled"}), false),
    ] {
        let said = labels.to_string();
        let (mesh, problems) = cluster(&[
            with(pod("a-1", "10.0.0.1"), "/metadata/labels", labels),
            service_a(),
            slice(&[("10.0.0.1", ready())]),
        ]);

        assert_eq!(problems, []);
        assert_eq!(workload(&mesh, "shop/a-1").unwrap().meshed, meshed, "{said}");
        let endpoint = &mesh.endpoints[&ServiceKey::new(A, 80)].list[0];
        assert_eq!(endpoint.identity.is_some(), meshed, "{said}");
        for address in ["10.0.0.1:8080", "10.0.0.1:9999"] {
            assert_eq!(expected(&mesh, "other", address).is_some(), meshed, "{said} {address}");
        }
    }
}

#[test]
fn a_services_endpoints_are_those_of_its_slices_and_never_pods_by_their_labels() {
    let pods = [pod("a-1", "10.0.0.1"), pod("a-2", "10.0.0.2"), pod("a-3", "10.0.0.3")];
    let slice = slice(&[("10.0.0.1", ready()), ("10.0.0.2", json!({"ready": false}))]);
    let entry = json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
        "metadata": {"name": "outside", "namespace": "shop"},
        "spec": {"address": "172.16.0.1", "labels": {"app": "a"}, "serviceAccount": "a"}
    });

    let (mesh, problems) = cluster(&[&pods[..], &[service_a(), slice, entry]].concat());

    assert_eq!(problems, []);
    assert_eq!(endpoint_addresses(&mesh, A, 80), ["10.0.0.1:8080", "172.16.0.1:8080"]);
    let first = &mesh.endpoints[&ServiceKey::new(A, 80)].list[0];
    assert_eq!(first.identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/a");
    assert_eq!(first.workload.as_ref().unwrap().to_string(), "shop/a-1");
    assert_eq!(
        workload(&mesh, "shop/a-1").unwrap().protocols[&8080],
        selvedge_model::Protocol::Tcp,
        "the service says what is spoken"
    );
}

#[test]
fn an_ending_pod_is_called_only_where_nothing_else_is_left() {
    let ending = || json!({"ready": false, "serving": true, "terminating": true});
    let pods = [pod("a-1", "10.0.0.1"), pod("a-2", "10.0.0.2")];
    let addresses = |slice: Value| {
        let (mesh, _) = cluster(&[&pods[..], &[service_a(), slice]].concat());
        endpoint_addresses(&mesh, A, 80)
    };

    assert_eq!(addresses(slice(&[("10.0.0.1", ending()), ("10.0.0.2", ready())])), ["10.0.0.2:8080"]);
    assert_eq!(addresses(slice(&[("10.0.0.1", ending())])), ["10.0.0.1:8080"]);
    let failing = json!({"ready": false, "serving": false, "terminating": true});
    assert_eq!(addresses(slice(&[("10.0.0.1", failing)])), [] as [String; 0]);
}

#[test]
fn a_pod_without_an_address_has_its_policy_already_and_a_finished_one_is_none() {
    let new = with(pod("new", ""), "/status", json!({"phase": "Pending"}));
    let done = with(pod("done", "10.0.0.1"), "/status/phase", json!("Succeeded"));
    let failed = with(pod("failed", "10.0.0.2"), "/status/phase", json!("Failed"));

    let (mesh, problems) = cluster(&[new, done, failed]);

    assert_eq!(problems, []);
    assert!(workload(&mesh, "shop/new").unwrap().meshed);
    assert!(workload(&mesh, "shop/done").is_none() && workload(&mesh, "shop/failed").is_none());
    assert_eq!(mesh.addresses.len(), 0);
}

#[test]
fn an_address_that_two_pods_have_is_the_newer_ones() {
    let mut newer = pod("newer", "10.0.0.1");
    newer["spec"]["serviceAccountName"] = json!("b");

    // The oldest comes first in a source.
    let (mesh, problems) =
        cluster(&[pod("older", "10.0.0.1"), newer, service_a(), slice(&[("10.0.0.1", ready())])]);

    assert_eq!(problems, []);
    let endpoint = &mesh.endpoints[&ServiceKey::new(A, 80)].list[0];
    assert_eq!(endpoint.workload.as_ref().unwrap().to_string(), "shop/newer");
    assert_eq!(mesh.occupants.get(&"10.0.0.1".parse().unwrap()).unwrap().workload.name.name(), "newer");
}

#[test]
fn a_pod_is_found_at_its_address_of_either_family() {
    let both = with(pod("a-1", "10.0.0.1"), "/status/podIPs", json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]));

    let (mesh, _) = cluster(&[both]);

    for address in ["10.0.0.1:8080", "[fd00::1]:8080"] {
        match mesh.lookup("shop", address) {
            Lookup::Address(found) => assert_eq!(found.endpoint.unwrap().dial.to_string(), address),
            other => panic!("{address}: {other:?}"),
        }
    }
}

#[test]
fn a_pod_in_a_directory_is_told_that_nobody_runs_it() {
    let (_, problems) = compiled(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b}]}\n",
    );

    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(
        problems[0].to_string().starts_with("mesh.yaml:1: Pod default/a: outside a cluster"),
        "{problems:?}"
    );
    assert_eq!(problems[0].severity, Severity::Warning);
}

#[test]
fn a_port_that_passes_by_the_sidecar_is_called_in_plaintext() {
    let skipping = with(
        pod("a-1", "10.0.0.1"),
        "/metadata",
        json!({
            "name": "a-1", "namespace": "shop", "labels": {"app": "a", "selvedge.io/sidecar": "injected"},
            "annotations": {"config.selvedge.io/skip-inbound-ports": "22,8000-8100"},
        }),
    );
    for (pod, identities) in [(pod("a-1", "10.0.0.1"), 1), (skipping, 0)] {
        let (mesh, _) = cluster(&[service_a(), pod, slice(&[("10.0.0.1", ready())])]);

        let endpoints = mesh.endpoints.values().flat_map(|endpoints| &endpoints.list);
        assert_eq!(endpoints.clone().count(), 1);
        assert_eq!(endpoints.filter(|endpoint| endpoint.identity.is_some()).count(), identities);
    }
}

#[test]
fn a_policy_is_told_of_ports_that_pass_by_the_sidecar_and_of_pods_with_the_nodes_address() {
    let mut skipping = pod("a-1", "10.0.0.1");
    skipping["metadata"]["annotations"] = json!({"config.selvedge.io/skip-inbound-ports": "22,8000-8100"});
    let mut of_node = pod("a-2", "10.0.0.9");
    of_node["metadata"]["labels"] = json!({"app": "a"});
    of_node["spec"]["hostNetwork"] = true.into();
    let of_node_told = "is not enforced at shop/a-2: a pod with hostNetwork has no sidecar";
    let skipped_told =
        "is not enforced at the ports of shop/a-1 that are skipped: connections pass by the sidecar";
    let both = &[of_node_told, skipped_told][..];
    let app = json!({"matchLabels": {"app": "a"}});
    let server = |port: u16| json!({"podSelector": app, "port": port});
    for (version, kind, spec, expected) in [
        ("security.istio.io/v1", "AuthorizationPolicy", json!({"selector": app, "rules": [{}]}), both),
        (
            "security.istio.io/v1",
            "PeerAuthentication",
            json!({"selector": app, "mtls": {"mode": "STRICT"}}),
            both,
        ),
        ("policy.linkerd.io/v1beta3", "Server", server(8080), both),
        ("policy.linkerd.io/v1beta3", "Server", server(9090), &both[..1]),
    ] {
        let policy = json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": "own", "namespace": "shop"}, "spec": spec
        });
        let (_, problems) = cluster(&[skipping.clone(), of_node.clone(), policy]);

        let own = problems.iter().filter(|problem| {
            problem.document.as_ref().is_some_and(|document| &*document.name == "own")
                && problem.message.contains("is not enforced")
        });
        let told: Vec<&str> = own.map(|problem| problem.message.as_str()).collect();
        assert_eq!(told, expected, "{kind}");
    }
}

#[test]
fn a_service_entry_that_selects_pods_is_told_that_they_are_not_behind_it() {
    let entry = |app: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
            "metadata": {"name": "e", "namespace": "shop"},
            "spec": {"hosts": ["e.internal"], "location": "MESH_INTERNAL", "resolution": "STATIC",
                     "ports": [{"number": 80, "name": "http"}], "workloadSelector": {"labels": {"app": app}}}
        })
    };

    let (_, problems) = cluster(&[pod("a-1", "10.0.0.1"), entry("a")]);
    assert!(
        errors(&problems)[0].starts_with("spec.workloadSelector: selects Pod shop/a-1 too"),
        "{problems:?}"
    );
    assert_eq!(cluster(&[pod("a-1", "10.0.0.1"), entry("b")]).1, []);
}
