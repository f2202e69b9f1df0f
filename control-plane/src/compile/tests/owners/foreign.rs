//! Whatever another namespace writes, nothing of `shop`'s changes.

use proptest::{prelude::*, sample::select};
use serde_json::{Value, json};

use super::{
    super::cluster::pod,
    documents::{entry_with, explicit, service_with, sliced, workload_entry},
    in_a_file, meshed, unchanged, unchanged_in,
};

/// A document of another namespace that speaks of something of `shop`'s.
fn foreign() -> impl Strategy<Value = Vec<Value>> {
    let namespace = select(vec!["aaa", "other", "zzz"]);
    let address = select(vec![
        "10.0.0.1",
        "10.0.0.2",
        "10.1.0.1",
        "10.96.0.1",
        "172.16.0.1",
        "172.16.0.9",
        "192.0.2.1",
        "192.0.2.2",
        "240.0.0.7",
    ]);
    let port = select(vec![80_u16, 81, 443, 5432, 8080, 9100, 9999]);
    let host = select(vec![
        "x.example",
        "a.shop",
        "a.shop.svc",
        "a.shop.svc.cluster.local",
        "a-1.a.shop.svc.cluster.local",
        "*.shop",
        "*.svc",
        "*.local",
        "*.cluster.local",
        "*.shop.svc.cluster.local",
        "*.com",
        "outside.example.com",
        "db.example.com",
        "0.example.com",
    ]);
    (namespace, address, port, host, 0..9_u8, any::<bool>(), any::<bool>()).prop_map(
        |(namespace, address, port, host, kind, sidecar, internal)| {
            let labels = if sidecar { meshed() } else { json!({}) };
            let location = if internal { "MESH_INTERNAL" } else { "MESH_EXTERNAL" };
            let endpoint = json!({"address": address, "labels": labels, "serviceAccount": "thief"});
            let entry = |more: Value| {
                let mut entry = entry_with(namespace, host, port, more);
                entry["spec"]["location"] = location.into();
                vec![entry]
            };
            match kind {
                0 => vec![workload_entry(namespace, "x", endpoint)],
                1 => vec![explicit(namespace, "x", address, port)],
                2 => {
                    let spec = json!({"address": address, "labels": labels, "ports": {"x": port}});
                    vec![workload_entry(namespace, "x", spec)]
                }
                3 => entry(json!({"endpoints": [endpoint]})),
                4 => entry(json!({"addresses": [address]})),
                5 => entry(json!({"addresses": ["0.0.0.0/0"], "endpoints": [endpoint]})),
                6 => entry(json!({"resolution": "NONE"})),
                7 => vec![service_with(
                    namespace,
                    if address.starts_with("10.") { address } else { "10.96.0.1" },
                    port,
                )],
                _ => {
                    let target = sidecar.then(|| json!({"kind": "Pod", "namespace": "shop", "name": "a-1"}));
                    sliced(namespace, address, port, target)
                }
            }
        },
    )
}

/// What a cluster gives out, written by hand.
fn in_files() -> impl Strategy<Value = Vec<Value>> {
    let address = select(vec![
        "10.0.0.1",
        "10.1.0.1",
        "10.96.0.1",
        "172.16.0.1",
        "172.16.0.9",
        "192.0.2.1",
        "240.0.0.7",
    ]);
    (address, select(vec![80_u16, 443, 8080, 9100, 9999]), any::<bool>()).prop_map(
        |(address, port, is_pod)| {
            if !is_pod {
                return vec![service_with("aaa", address, port)];
            }
            let mut thief = pod("thief", address);
            thief["metadata"]["namespace"] = "aaa".into();
            vec![thief]
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]
    #[test]
    fn no_document_of_another_namespace_changes_what_is_shops(added in foreign()) {
        unchanged(&added);
    }

    #[test]
    fn nor_does_one_in_a_file(added in prop_oneof![foreign(), in_files()]) {
        unchanged_in(in_a_file, &added);
    }
}
