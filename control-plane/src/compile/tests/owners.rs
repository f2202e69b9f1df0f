//! Whose addresses and names are: no document of one namespace says anything of another's.

mod before;
mod claims;
mod documents;
mod foreign;
mod names;

use serde_json::{Value, json};

use super::cluster::{cluster, expected, pod, ready, service_a, slice, with};
use super::*;
use documents::{entry_with, explicit, service_entry, sliced, workload_entry};

/// What the namespace `shop` has: a meshed pod, a plain one, one in its node's network, a service in front of the first,
/// a workload outside whose sidecar takes every connection, one on a bare host, and a server that is none of the mesh's.
fn shop() -> Vec<Value> {
    let plain = with(pod("plain", "10.0.0.2"), "/metadata/labels", json!({}));
    let node =
        json!({"hostNetwork": true, "containers": [{"name": "app", "ports": [{"containerPort": 9100}]}]});
    let node = with(with(pod("node", "10.1.0.1"), "/metadata/labels", json!({})), "/spec", node);
    let mut of_pod = slice(&[("10.0.0.1", ready())]);
    of_pod["endpoints"][0]["targetRef"] = json!({"kind": "Pod", "namespace": "shop", "name": "a-1"});
    vec![
        pod("a-1", "10.0.0.1"),
        plain,
        node,
        service_a(),
        of_pod,
        workload_entry("shop", "vm", json!({"address": "172.16.0.1", "labels": meshed()})),
        explicit("shop", "bare", "172.16.0.9", 80),
        service_entry(
            "shop",
            "outside",
            json!({
                "hosts": ["outside.example.com"], "resolution": "STATIC", "addresses": ["240.0.0.7"],
                "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}], "endpoints": [{"address": "192.0.2.1"}]
            }),
        ),
        service_entry(
            "shop",
            "by-endpoints",
            json!({
                "hosts": ["db.example.com"], "resolution": "STATIC",
                "ports": [{"number": 5432, "name": "tcp", "protocol": "TCP"}], "endpoints": [{"address": "192.0.2.2"}]
            }),
        ),
    ]
}

/// Everything that is `shop`'s in there.
const THEIRS: [&str; 23] = [
    "10.0.0.1:8080",
    "10.0.0.1:9999",
    "10.0.0.1:80",
    "[::ffff:10.0.0.1]:8080",
    "[::ffff:a60:1]:80",
    "10.0.0.2:8080",
    "10.0.0.2:9999",
    "10.1.0.1:9100",
    "10.96.0.1:80",
    "10.96.0.1:81",
    "10.96.0.1:9999",
    "172.16.0.1:80",
    "172.16.0.1:9999",
    "172.16.0.9:80",
    "192.0.2.1:443",
    "192.0.2.2:5432",
    "240.0.0.7:443",
    "a.shop:80",
    "a.shop.svc:80",
    "a.shop.svc.cluster.local:80",
    "a.shop.svc.cluster.local:9999",
    "a-1.a.shop.svc.cluster.local:8080",
    "outside.example.com:443",
];

fn meshed() -> Value {
    json!({"security.istio.io/tlsMode": "istio"})
}

/// All that clients in `namespace` are told of `authority`.
fn view(mesh: &Mesh, namespace: &str, authority: &str) -> String {
    let lookup = mesh.lookup(namespace, authority);
    let keys: Vec<ServiceKey> = match &lookup {
        Lookup::Service(key) => vec![key.clone()],
        Lookup::Address(found) => found.services.iter().map(|declared| declared.key.clone()).collect(),
        Lookup::None => Vec::new(),
    };
    let of = |key: &ServiceKey| {
        let service = mesh.services[key].for_namespace(namespace);
        let endpoints = service.backends.iter().map(|backend| mesh.endpoints.get(&backend.name.service));
        format!("{service:?} {:?}", endpoints.collect::<Vec<_>>())
    };
    format!("{lookup:?} {:?}", keys.iter().map(of).collect::<Vec<_>>())
}

/// What all together mean, if `added` are the younger documents.
fn with_shop(added: &[Value]) -> (Mesh, Vec<Problem>) {
    let aged = |mut object: Value, created: &str| {
        object["metadata"]["creationTimestamp"] = created.into();
        object
    };
    let old = shop().into_iter().map(|object| aged(object, "2026-01-01T00:00:00Z"));
    let new = added.iter().map(|object| aged(object.clone(), "2026-01-02T00:00:00Z"));
    cluster(&old.chain(new).collect::<Vec<_>>())
}

/// The same, read from a file in which `added` come last.
fn in_a_file(added: &[Value]) -> (Mesh, Vec<Problem>) {
    let documents = shop().into_iter().chain(added.iter().cloned()).map(|document| document.to_string());
    let (mesh, problems) = compiled(&documents.collect::<Vec<_>>().join("\n---\n"));
    let is_of_a_pod = |problem: &Problem| problem.message.starts_with("outside a cluster");
    (mesh, problems.into_iter().filter(|problem| !is_of_a_pod(problem)).collect())
}

/// Asserts that nothing of `shop`'s is otherwise than it was, and gives what is wrong with the rest.
fn unchanged(added: &[Value]) -> Vec<Problem> {
    unchanged_in(with_shop, added)
}

fn unchanged_in(read: fn(&[Value]) -> (Mesh, Vec<Problem>), added: &[Value]) -> Vec<Problem> {
    let (before, problems) = read(&[]);
    assert_eq!(problems, []);
    let (after, problems) = read(added);
    for namespace in ["shop", "other", "aaa", "zzz"] {
        for authority in THEIRS {
            let (before, after) = (view(&before, namespace, authority), view(&after, namespace, authority));
            assert!(before == after, "{authority} as {namespace} sees it is otherwise with {}", json!(added));
        }
    }
    for (name, workload) in before.workloads.iter().filter(|(name, _)| name.namespace() == "shop") {
        assert_eq!(workload, &after.workloads[name], "{added:?}");
    }
    problems
}

#[test]
fn what_is_of_shop_is_as_it_says() {
    let (mesh, _) = cluster(&shop());
    let who = |address| expected(&mesh, "other", address);
    assert_eq!(who("10.0.0.1:8080"), who("[::ffff:10.0.0.1]:8080"), "however an address is written");

    let a = Some("spiffe://cluster.local/ns/shop/sa/a".to_owned());
    assert_eq!([who("10.0.0.1:8080"), who("10.0.0.1:9999"), who("10.0.0.1:1")], [a.clone(), a.clone(), a]);
    assert!(who("172.16.0.1:9999").is_some() && who("172.16.0.9:80").is_some());
    for plain in ["10.0.0.2:8080", "10.0.0.2:9999", "10.1.0.1:9100", "192.0.2.1:443"] {
        assert!(matches!(mesh.lookup("other", plain), Lookup::Address(_)), "{plain} is known");
        assert_eq!(who(plain), None, "{plain}");
    }
    assert_eq!(mesh.lookup("other", "10.1.0.1:1"), Lookup::None, "a node has other ports");
}

#[test]
fn who_lists_anothers_workload_calls_it_as_that_says() {
    let (mesh, _) = with_shop(&sliced("zzz", "10.0.0.1", 9999, None));
    let endpoint = &mesh.endpoints[&ServiceKey::new("theirs.zzz.svc.cluster.local", 9999)].list[0];
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/a");

    let entry = entry_with("zzz", "x.example", 8080, json!({"endpoints": [{"address": "10.0.0.1"}]}));
    let (mesh, _) = with_shop(&[entry]);
    let endpoint = &mesh.endpoints[&ServiceKey::new("x.example", 8080)].list[0];
    assert_eq!(endpoint.identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/a");
}

#[test]
fn an_address_of_a_slice_is_the_pod_that_it_names_or_left_out() {
    let listed = |target: Value| {
        let mut slice = slice(&[("10.0.0.1", ready())]);
        slice["endpoints"][0]["targetRef"] = target;
        let (mesh, problems) = cluster(&[pod("a-1", "10.0.0.1"), pod("a-2", "10.0.0.2"), service_a(), slice]);
        let list = mesh.endpoints[&ServiceKey::new(super::cluster::A, 80)].list.clone();
        (list.first().map(|one| one.identity.is_some()), errors(&problems))
    };

    assert_eq!(
        listed(json!({"kind": "Pod", "namespace": "shop", "name": "a-1", "uid": "u"})),
        (Some(true), vec![])
    );
    assert_eq!(listed(json!({"kind": "Pod", "name": "a-1"})), (Some(true), vec![]), "its own namespace");
    assert_eq!(listed(json!({"kind": "Node", "name": "n"})), (Some(true), vec![]), "of no pod");
    let (list, errors) = listed(json!({"kind": "Pod", "name": "a-2"}));
    assert_eq!(list, None);
    assert!(errors[0].contains("10.0.0.1 is not an address of Pod shop/a-2"), "{errors:?}");
    // Its pod has gone, or has not been heard of yet: nothing is called in plaintext meanwhile.
    assert_eq!(listed(json!({"kind": "Pod", "namespace": "shop", "name": "gone"})), (None, vec![]));
    assert_eq!(listed(json!({"kind": "Pod", "namespace": "other", "name": "a-1"})), (None, vec![]));
}

#[test]
fn a_pods_address_is_no_other_workloads_of_its_own_namespace_either() {
    let entry = workload_entry("shop", "x", json!({"address": "10.0.0.1", "ports": {"x": 9}}));

    let errors = errors(&unchanged(&[entry]));

    assert!(errors[0].contains("10.0.0.1 belongs to Pod shop/a-1"), "{errors:?}");
}

#[test]
fn a_name_that_a_workload_is_at_belongs_to_the_first_as_an_address_does() {
    let entry = |namespace: &str, labels: Value| {
        workload_entry(
            namespace,
            "x",
            json!({"address": "vm.example", "labels": labels, "ports": {"http": 80}}),
        )
    };
    for labels in [json!({}), meshed()] {
        // Without times the first by namespace and name is the first.
        let (mesh, problems) = cluster(&[entry("shop", meshed()), entry("thief", labels)]);

        assert!(errors(&problems)[0].contains("vm.example belongs to WorkloadEntry shop/x"), "{problems:?}");
        let named = mesh.named_at(80).named;
        assert_eq!(named.len(), 1, "{named:?}");
        assert_eq!(named[0].identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/shop/sa/default");
    }
}

#[test]
fn a_port_that_passes_by_the_sidecar_is_plaintext_whether_it_is_declared_or_not() {
    let mut skipping = pod("a-1", "10.0.0.1");
    skipping["metadata"]["annotations"] = json!({"config.selvedge.io/skip-inbound-ports": "22,8000-8100"});
    let (mesh, _) = cluster(&[skipping]);

    for (port, is_expected) in [(22, false), (8080, false), (23, true), (9999, true)] {
        let found = expected(&mesh, "other", &format!("10.0.0.1:{port}"));
        assert_eq!(found.is_some(), is_expected, "{port}");
    }
}

#[test]
fn of_two_entries_the_older_owns_an_address_whatever_their_names_are() {
    let entry = |namespace: &str, created: &str| {
        let mut entry = workload_entry(namespace, "x", json!({"address": "172.16.5.5", "labels": meshed()}));
        entry["metadata"]["creationTimestamp"] = json!(created);
        entry
    };
    let service = |created: &str| {
        let mut service =
            entry_with("zzz", "x.example", 80, json!({"endpoints": [{"address": "172.16.5.5"}]}));
        service["metadata"]["creationTimestamp"] = json!(created);
        service
    };
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    for (documents, owner) in [
        ([entry("aaa", new), entry("zzz", old)], Some("zzz")),
        ([entry("aaa", old), entry("zzz", new)], Some("aaa")),
        ([entry("aaa", new), service(old)], None),
        ([entry("aaa", old), service(new)], Some("aaa")),
    ] {
        let (mesh, problems) = cluster(&documents);

        let found = expected(&mesh, "other", "172.16.5.5:80");
        let wanted = owner.map(|owner| format!("spiffe://cluster.local/ns/{owner}/sa/default"));
        assert_eq!(found, wanted, "{documents:?}");
        assert_eq!(errors(&problems).len(), 1, "{problems:?}");
    }
}
