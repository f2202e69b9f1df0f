//! What it costs to compile a cluster's documents, by its size: `cargo bench -p selvedge-control-plane`.
//!
//! Every change compiles everything, so this is the price of one pod that becomes ready. Five changes are
//! compiled after the first, because most parts are then equal to those before.

use std::{hint::black_box, time::Instant};

use selvedge_control_plane::{
    compile::{MeshSettings, compile},
    resources::{DecodeOutcome, Resources, decode_value},
};
use selvedge_model::Mesh;
use serde_json::{Value, json};

fn main() {
    for (pods, services) in [(500, 50), (5_000, 500), (10_000, 1_000)] {
        let start = Instant::now();
        let documents = cluster(pods, services, 0);
        let decoded = start.elapsed();
        let start = Instant::now();
        let (mut mesh, problems) = compile(&documents, &MeshSettings::default(), &Mesh::default());
        let first = start.elapsed();
        assert_eq!(problems, []);
        let mut next = Vec::new();
        for round in 1..=5 {
            let documents = cluster(pods, services, round);
            let start = Instant::now();
            mesh = black_box(compile(&documents, &MeshSettings::default(), &mesh).0);
            next.push(start.elapsed());
        }
        next.sort_unstable();
        println!(
            "{pods} pods, {services} services: decoding {decoded:.1?}, first {first:.1?}, a change {:.1?}",
            next[next.len() / 2]
        );
    }
}

/// Services in front of as many meshed pods each; in each round another pod is not ready.
fn cluster(pods: usize, services: usize, round: usize) -> Resources {
    let mut resources = Resources::default();
    let mut add = |object: Value| match decode_value(object, "default").outcome {
        DecodeOutcome::Understood(resource) => resources.push(resource),
        other => panic!("{other:?}"),
    };
    let each = pods / services;
    for service in 0..services {
        let (name, namespace) = (format!("service-{service}"), format!("team-{}", service % 20));
        let ip = |pod: usize| format!("10.{}.{}.{pod}", service / 250, service % 250);
        add(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"selector": {"app": name}, "clusterIP": format!("10.96.{}.{}", service / 250, service % 250),
                     "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
        }));
        let endpoint = |pod: usize| {
            let ready = service != 0 || pod != round;
            json!({"addresses": [ip(pod)], "conditions": {"ready": ready}})
        };
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
