//! What policies cost, by the size of a cluster: `cargo bench -p selvedge-control-plane --bench policies` (`-- --quick`
//! for a small one, which shows that it works).
//!
//! The time to compile everything, and again when one pod has come; the bytes that one proxy is told, and those that all
//! share; and the memory of it. What one decision costs: `cargo bench -p selvedge-model`.

use std::{collections::BTreeSet, fs, hint::black_box, sync::Arc, time::Instant};

use selvedge_certs::bundle::Bundle;
use selvedge_control_plane::{
    compile::{MeshSettings, compile},
    resources::{DecodeOutcome, Resources, decode_value},
    snapshot::{Snapshot, Store, view::view},
};
use selvedge_model::{Mesh, Workload};
use serde_json::{Value, json};

/// How many namespaces there are, each with an equal share of all.
const NAMESPACES: usize = 50;
/// Apps of a namespace, which share its pods.
const APPS: usize = 10;

fn main() {
    let is_quick = std::env::args().any(|arg| arg == "--quick");
    let sizes: &[(usize, usize)] = match is_quick {
        true => &[(500, 100)],
        false => &[(5_000, 0), (2_500, 500), (5_000, 1_000), (10_000, 2_000)],
    };
    for (pods, policies) in sizes {
        measure(*pods, *policies);
    }
}

/// Prints what `policies` over `pods` cost.
fn measure(pods: usize, policies: usize) {
    let before = resident();
    let documents = cluster(pods, policies);
    let settings = MeshSettings::default();
    let start = Instant::now();
    let (mesh, problems) = compile(&documents, &settings, &Mesh::default());
    let first = start.elapsed();
    assert_eq!(problems, []);

    let bundle = Bundle::new(settings.trust_domain.clone(), Vec::new());
    let store = Store::new(&bundle);
    store.publish(mesh.clone());
    let snapshot = store.current().expect("it was published");
    let (told, start) = (told(&snapshot), Instant::now());
    black_box(self::told(&snapshot));
    let looking = start.elapsed() / u32::try_from(pods).expect("not so many");
    let sets: usize =
        mesh.sets.iter().map(|(name, part)| snapshot.encodings().set_part(name, part)).map(size).sum();
    let memory = resident().saturating_sub(before);

    let mut one_more = documents.clone();
    add(&mut one_more, pod(0, 0, pods));
    let mut again = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let changed = black_box(compile(&one_more, &settings, &mesh).0);
        again.push((start.elapsed(), changed));
    }
    again.sort_by_key(|(taken, _)| *taken);
    let (change, changed) = &again[again.len() / 2];
    let parts = mesh
        .sets
        .iter()
        .filter(|(name, part)| !changed.sets.get(*name).is_some_and(|now| Arc::ptr_eq(part, now)));
    let others = mesh
        .workloads
        .iter()
        .filter(|(name, one)| !changed.workloads.get(*name).is_some_and(|now| Arc::ptr_eq(one, now)));

    println!(
        "{pods} pods, {policies} policies: compiled in {first:.1?}, after one pod has come in {change:.1?}"
    );
    println!(
        "  sets: {} parts, {} KiB together; of them changed: {}; other workloads changed: {}",
        mesh.sets.len(),
        sets / 1024,
        parts.count(),
        others.count()
    );
    println!(
        "  told to one proxy: median {} bytes, most {} bytes (looked up in {looking:.1?}); memory {} MiB",
        told[told.len() / 2],
        told.last().unwrap_or(&0),
        memory / 1024
    );
}

/// The bytes that each proxy is told of its own workload and of the sets that it names, smallest first.
fn told(snapshot: &Snapshot) -> Vec<usize> {
    let of = |workload: &Arc<Workload>| {
        let parts = view(snapshot, workload, &BTreeSet::new());
        parts.iter().flat_map(|part| part.resources.iter()).cloned().map(size).sum()
    };
    let mut told: Vec<usize> = snapshot.mesh().workloads.values().map(of).collect();
    told.sort_unstable();
    told
}

#[allow(clippy::needless_pass_by_value)]
fn size(encoded: selvedge_control_plane::snapshot::Encoded) -> usize {
    encoded.bytes().len()
}

/// Resident memory of this process, in KiB.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn add(resources: &mut Resources, object: Value) {
    match decode_value(object, "default").outcome {
        DecodeOutcome::Understood(resource) => resources.push(resource),
        other => panic!("{other:?}"),
    }
}

/// Meshed pods in namespaces, and policies of each kind.
fn cluster(pods: usize, policies: usize) -> Resources {
    let mut resources = Resources::default();
    for namespace in 0..NAMESPACES {
        let labels = json!({"team": format!("team-{namespace}"), "stage": (["test", "live"][namespace % 2])});
        add(
            &mut resources,
            json!({"apiVersion": "v1", "kind": "Namespace",
                                   "metadata": {"name": format!("team-{namespace}"), "labels": labels}}),
        );
    }
    for number in 0..pods {
        let (namespace, app) = (number % NAMESPACES, number / NAMESPACES % APPS);
        add(&mut resources, pod(namespace, app, number));
    }
    for number in 0..policies {
        add(&mut resources, policy_of(number % NAMESPACES, number / NAMESPACES));
    }
    resources
}

fn pod(namespace: usize, app: usize, number: usize) -> Value {
    let ip = format!("10.{}.{}.{}", number / 62_500, number / 250 % 250, number % 250 + 1);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("app-{app}-{number}"), "namespace": format!("team-{namespace}"), "labels": {
            "app": format!("app-{app}"), "tier": (["web", "data"][app % 2]), "pod-template-hash": "5d4f8c7b9",
            "selvedge.io/sidecar": "injected"}},
        "spec": {"serviceAccountName": format!("app-{app}"), "containers": [
            {"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}, {"name": "selvedge-proxy"}]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
    })
}

fn policy(version: &str, kind: &str, (namespace, name): (&str, &str), spec: &Value) -> Value {
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec})
}

/// The policy at place `number` of a namespace: of Istio for each app and for the namespace, of Kubernetes and of Calico.
fn policy_of(namespace: usize, number: usize) -> Value {
    let app = format!("app-{}", number % APPS);
    let (ns, name) = (format!("team-{namespace}"), format!("policy-{number}"));
    let at = (&*ns, &*name);
    let other = (namespace + number) % NAMESPACES;
    match number % 4 {
        0 => policy(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            at,
            &json!({
            "selector": {"matchLabels": {"app": app}},
            "rules": [{"from": [{"source": {"principals": [format!("cluster.local/ns/team-{other}/sa/app-1"), format!("cluster.local/ns/team-{other}/sa/app-2")]}}],
                       "to": [{"operation": {"methods": ["GET", "POST"], "paths": ["/items/*"]}}]},
                      {"from": [{"source": {"namespaces": [ns]}}]}]}),
        ),
        1 => policy(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            at,
            &json!({
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {}}, {"namespaceSelector": {"matchLabels": {"team": format!("team-{other}")}}}],
                         "ports": [{"port": 8080}]}]}),
        ),
        2 => policy(
            "projectcalico.org/v3",
            "NetworkPolicy",
            at,
            &json!({
            "selector": format!("app == '{app}'"), "order": number,
            "ingress": [{"action": "Deny", "source": {"selector": "tier == 'data'", "namespaceSelector": format!("team == 'team-{other}' && stage == 'test'")}},
                        {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["http"]}}]}),
        ),
        _ => policy(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            at,
            &json!({
            "podSelector": {"matchLabels": {"app": app}},
            "policyTypes": ["Egress"],
            // A set of half of all pods, which all policies of this kind share.
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"stage": "live"}}}]}, {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}),
        ),
    }
}
