//! What it costs to compile a configuration, by its size: `cargo bench -p selvedge-control-plane`.
//!
//! For a cluster's pods, also under network policies, and for `WorkloadEntry`s: everything for the first time, everything after a
//! change of one endpoint, and such a change alone. Five changes of each are compiled, because most parts are then equal to those before.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use selvedge_control_plane::{
    compile::{Compiler, MeshSettings, compile},
    resources::{DecodeOutcome, Resources, decode_value},
};
use selvedge_model::Mesh;
use serde_json::{Value, json};

fn main() {
    for (workloads, services) in [(500, 50), (5_000, 500), (10_000, 500), (10_000, 1_000)] {
        measure("pods", workloads, services, cluster);
        measure("pods under network policies", workloads, services, policed);
        measure("entries", workloads, services, entries);
    }
}

fn measure(kind: &str, workloads: usize, services: usize, documents: fn(usize, usize, usize) -> Resources) {
    let settings = MeshSettings::default();
    let start = Instant::now();
    let mut known = documents(workloads, services, 0);
    let decoded = start.elapsed();
    let start = Instant::now();
    let (mut mesh, problems) = compile(&known, &settings, &Mesh::default());
    let first = start.elapsed();
    assert_eq!(problems, []);
    let mut compiler = Compiler::default();
    let mut part = compiler.compile(&known, &settings, &mesh).mesh;
    let (mut next, mut alone) = (Vec::new(), Vec::new());
    for round in 1..=5 {
        take_over(&mut known, documents(workloads, services, round));
        let start = Instant::now();
        mesh = black_box(compile(&known, &settings, &mesh).0);
        next.push(start.elapsed());
        let start = Instant::now();
        let compiled = compiler.compile(&known, &settings, &part);
        alone.push(start.elapsed());
        assert!(compiled.is_part);
        part = compiled.mesh;
    }
    println!(
        "{workloads} {kind}, {services} services: decoding {decoded:.1?}, first {first:.1?}, a change {:.1?}, a change alone \
         {:.2?}",
        middle(next),
        middle(alone)
    );
}

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Makes `known` what `read` says. As sources do, it keeps what says the same.
fn take_over(known: &mut Resources, read: Resources) {
    fn list<T: PartialEq>(known: &mut [T], read: Vec<T>) {
        for (known, read) in known.iter_mut().zip(read) {
            if *known != read {
                *known = read;
            }
        }
    }
    list(&mut known.workload_entries, read.workload_entries);
    list(&mut known.pods, read.pods);
    list(&mut known.endpoint_slices, read.endpoint_slices);
}

/// Services in front of as many meshed workloads each; in each round the first one has another weight.
fn entries(workloads: usize, services: usize, round: usize) -> Resources {
    let mut resources = Resources::default();
    let mut add = |object: Value| match decode_value(object, "default").outcome {
        DecodeOutcome::Understood(resource) => resources.push(resource),
        other => panic!("{other:?}"),
    };
    for service in 0..services {
        let (name, namespace) = (format!("service-{service}"), format!("team-{}", service % 20));
        add(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        }));
        for workload in 0..workloads / services {
            let weight = if (service, workload) == (0, 0) { 1 + round } else { 1 };
            add(json!({
                "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
                "metadata": {"name": format!("{name}-{workload}"), "namespace": namespace},
                "spec": {
                    "address": format!("10.{}.{}.{workload}", service / 250, service % 250),
                    "serviceAccount": format!("{name}-{workload}"), "weight": weight,
                    "labels": {"app": name, "security.istio.io/tlsMode": "istio"}}
            }));
        }
    }
    resources
}

/// Services in front of as many meshed pods each; in each round another pod is not ready.
fn cluster(pods: usize, services: usize, round: usize) -> Resources {
    some_pods(pods, services, |service, pod| (service != 0 || pod != round, 0))
}

/// The same, with a policy for each of them; in each round a pod has another address.
fn policed(pods: usize, services: usize, round: usize) -> Resources {
    let is_moving = |service, pod| (service, pod) == (0, 0);
    let mut resources =
        some_pods(pods, services, |service, pod| (true, if is_moving(service, pod) { round } else { 0 }));
    for service in 0..services {
        let (namespace, other) = (format!("team-{}", service % 20), (service + 20) % services);
        let selected = |service: usize| json!({"matchLabels": {"app": format!("service-{service}")}});
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": format!("service-{service}"), "namespace": namespace},
            "spec": {"podSelector": selected(service), "ingress": [{"from": [{"podSelector": selected(other)}]}]}
        });
        match decode_value(policy, "default").outcome {
            DecodeOutcome::Understood(policy) => resources.push(policy),
            other => panic!("{other:?}"),
        }
    }
    resources
}

/// Services in front of as many meshed pods each. `state`: whether a pod of a service is ready, and a part of its address.
fn some_pods(pods: usize, services: usize, state: impl Fn(usize, usize) -> (bool, usize)) -> Resources {
    let mut resources = Resources::default();
    let mut add = |object: Value| match decode_value(object, "default").outcome {
        DecodeOutcome::Understood(resource) => resources.push(resource),
        other => panic!("{other:?}"),
    };
    let each = pods / services;
    for service in 0..services {
        let (name, namespace) = (format!("service-{service}"), format!("team-{}", service % 20));
        let ip =
            |pod: usize| format!("10.{}.{}.{pod}", service / 250 + 10 * state(service, pod).1, service % 250);
        add(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "clusterIP": format!("10.96.{}.{}", service / 250, service % 250),
                     "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        }));
        let endpoint =
            |pod: usize| json!({"addresses": [ip(pod)], "conditions": {"ready": state(service, pod).0}});
        add(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("{name}-x"), "namespace": namespace,
                         "labels": {"kubernetes.io/service-name": name}},
            "endpoints": (0..each).map(endpoint).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080}]
        }));
        for pod in 0..each {
            add(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("{name}-{pod}"), "namespace": namespace, "labels": {
                    "app": name, "version": "v1", "pod-template-hash": "5d4f8c7b9",
                    "selvedge.io/sidecar": "injected"}},
                "spec": {"serviceAccountName": name, "containers": [
                    {"name": "app", "ports": [{"name": "http", "containerPort": 8080}]},
                    {"name": "selvedge-proxy"}]},
                "status": {"phase": "Running", "podIP": ip(pod), "podIPs": [{"ip": ip(pod)}]}
            }));
        }
    }
    resources
}
