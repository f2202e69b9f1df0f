//! Who claims an address or a name of another's is told, and changes nothing.

use serde_json::{Value, json};

use super::{
    super::*,
    documents::{entry_with, explicit, service_with, sliced, workload_entry},
    unchanged,
};

#[test]
fn an_address_belongs_to_its_owner_and_who_claims_it_is_told() {
    let labelled = json!({"app": "x", "security.istio.io/tlsMode": "istio"});
    for namespace in ["aaa", "zzz"] {
        let entry = |spec: Value| vec![workload_entry(namespace, "x", spec)];
        let service = |host: &str, port: u16, more: Value| vec![entry_with(namespace, host, port, more)];
        for (added, expected) in [
            (entry(json!({"address": "10.0.0.1"})), "10.0.0.1 belongs to Pod shop/a-1"),
            (entry(json!({"address": "10.0.0.1", "labels": labelled})), "Pod shop/a-1"),
            (entry(json!({"address": "10.0.0.1", "ports": {"x": 9}})), "Pod shop/a-1"),
            (entry(json!({"address": "10.0.0.2", "labels": labelled})), "Pod shop/plain"),
            (entry(json!({"address": "::ffff:10.0.0.1"})), "10.0.0.1 belongs to Pod shop/a-1"),
            (entry(json!({"address": "0:0:0:0:0:FFFF:a00:2", "labels": labelled})), "Pod shop/plain"),
            (service("x.example", 8080, json!({"addresses": ["::ffff:10.0.0.1"]})), "Pod shop/a-1"),
            (service("x.example", 8080, json!({"addresses": ["::ffff:10.0.0.1/128"]})), "Pod shop/a-1"),
            (
                service("x.example", 8080, json!({"endpoints": [{"address": "::ffff:10.0.0.1"}]})),
                "Pod shop/a-1",
            ),
            (vec![service_with(namespace, "::ffff:10.96.0.1", 80)], "Service shop/a"),
            (entry(json!({"address": "10.1.0.1", "labels": labelled})), "Pod shop/node"),
            (
                entry(json!({"address": "10.1.0.1", "ports": {"x": 9100}})),
                "10.1.0.1:9100 belongs to Pod shop/node",
            ),
            (entry(json!({"address": "10.96.0.1", "labels": labelled})), "Service shop/a"),
            (entry(json!({"address": "172.16.0.1"})), "WorkloadEntry shop/vm"),
            (entry(json!({"address": "172.16.0.1", "ports": {"x": 80}})), "WorkloadEntry shop/vm"),
            (entry(json!({"address": "172.16.0.9", "ports": {"x": 80}})), "172.16.0.9:80 belongs to"),
            (entry(json!({"address": "172.16.0.9", "labels": labelled})), "WorkloadEntry shop/bare"),
            (entry(json!({"address": "192.0.2.1", "labels": labelled})), "ServiceEntry shop/outside"),
            (vec![explicit(namespace, "x", "172.16.0.9", 80)], "172.16.0.9:80 belongs to"),
            (service("x.example", 8080, json!({"endpoints": [{"address": "10.0.0.1"}]})), "Pod shop/a-1"),
            (service("x.example", 9999, json!({"endpoints": [{"address": "10.0.0.1"}]})), "Pod shop/a-1"),
            (
                service(
                    "x.example",
                    8080,
                    json!({"endpoints": [{"address": "10.0.0.2", "labels": labelled}],
                                                  "location": "MESH_INTERNAL"}),
                ),
                "Pod shop/plain",
            ),
            (service("x.example", 80, json!({"endpoints": [{"address": "10.96.0.1"}]})), "Service shop/a"),
            (service("x.example", 8080, json!({"addresses": ["10.0.0.1"]})), "Pod shop/a-1"),
            (service("x.example", 9999, json!({"addresses": ["10.0.0.2"]})), "Pod shop/plain"),
            (service("a.example", 80, json!({"addresses": ["10.96.0.1"]})), "Service shop/a"),
            (service("a.example", 81, json!({"addresses": ["10.96.0.1"]})), "Service shop/a"),
            (service("a.example", 443, json!({"addresses": ["192.0.2.1"]})), "ServiceEntry shop/outside"),
            (service("a.example", 443, json!({"addresses": ["240.0.0.7"]})), "ServiceEntry shop/outside"),
            (service("a.shop.svc.cluster.local", 9999, json!({})), "name of the namespace shop"),
            (service("a.shop.svc.cluster.local.", 9999, json!({})), "name of the namespace shop"),
            (service("A.Shop.SVC", 9999, json!({})), "name of the namespace shop"),
            (service("a.shop", 9999, json!({})), "another name of Service shop/a"),
            (service("a-1.a.shop.svc.cluster.local", 8080, json!({})), "name of the namespace shop"),
            (service("*.shop.svc.cluster.local", 9999, json!({})), "name of the namespace shop"),
            (service("*.svc.cluster.local", 9999, json!({})), "belongs to the namespace in"),
            (service("outside.example.com", 443, json!({})), "belongs to ServiceEntry shop/outside"),
            (vec![service_with(namespace, "10.96.0.1", 80)], "Service shop/a"),
            (vec![service_with(namespace, "10.1.0.1", 9100)], "Pod shop/node"),
            (vec![service_with(namespace, "10.96.0.1", 81)], "Service shop/a"),
            (vec![service_with(namespace, "10.0.0.1", 8080)], "Pod shop/a-1"),
            (sliced(namespace, "10.0.0.1", 8080, None), "Pod shop/a-1"),
            (sliced(namespace, "10.0.0.1", 9999, None), "Pod shop/a-1"),
            (sliced(namespace, "10.96.0.1", 80, None), "Service shop/a"),
        ] {
            let errors = errors(&unchanged(&added));

            assert!(errors.iter().any(|error| error.contains(expected)), "{added:?}: {errors:?}");
        }
    }
}

#[test]
fn what_claims_nothing_of_anybodys_is_no_error() {
    for namespace in ["aaa", "zzz"] {
        let range = json!({"addresses": ["10.0.0.0/8", "172.16.0.0/12", "192.0.2.0/24", "240.0.0.0/4"]});
        for added in [
            vec![explicit(namespace, "x", "172.16.0.9", 81)],
            vec![workload_entry(namespace, "x", json!({"address": "10.1.0.1", "ports": {"x": 9101}}))],
            vec![entry_with(namespace, "x.example", 9999, range.clone())],
            vec![entry_with(namespace, "x.example", 81, range)],
            vec![entry_with(namespace, "*.local", 9999, json!({"resolution": "NONE"}))],
            vec![entry_with(namespace, "*.example.com", 443, json!({"resolution": "NONE"}))],
            vec![entry_with(namespace, "b.example", 5432, json!({"endpoints": [{"address": "192.0.2.2"}]}))],
            sliced(namespace, "192.0.2.2", 5432, None),
            sliced(namespace, "10.1.0.1", 9100, None),
            sliced(namespace, "172.16.0.9", 82, None),
        ] {
            assert_eq!(errors(&unchanged(&added)), [""; 0], "{added:?}");
        }
    }
}
