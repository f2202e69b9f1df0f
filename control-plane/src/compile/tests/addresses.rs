//! What an address means: a service's own, a workload's, or none.

use super::*;

/// A service `db` at the addresses in `spec`, in front of one workload that is dialled at its own address.
fn mesh(spec: &str, more: &str) -> (Mesh, Vec<Problem>) {
    compiled(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: db}}\n\
         spec: {{{spec} selector: {{app: db}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: db-0}}\n\
         spec: {{address: 10.0.0.5, serviceAccount: db, labels: {{app: db, security.istio.io/tlsMode: istio}}}}\n---\n{more}"
    ))
}

const DB: &str = "db.default.svc.cluster.local";

/// The workload that is expected at `address`, and where it is dialled.
fn workload(mesh: &Mesh, address: &str) -> Option<(String, String)> {
    match mesh.lookup("default", address) {
        Lookup::Address(found) => {
            let endpoint = found.endpoint?;
            Some((endpoint.identity?.to_string(), endpoint.dial.to_string()))
        }
        _ => None,
    }
}

#[test]
fn a_cluster_ip_is_the_service_at_its_ports() {
    let (mesh, problems) = mesh("clusterIP: 10.96.0.1, clusterIPs: [10.96.0.1, 'fd00::1'],", "");

    assert_eq!(problems, []);
    let key = ServiceKey::new(DB, 80);
    assert_eq!(mesh.lookup("default", "10.96.0.1:80"), Lookup::Service(key.clone()));
    assert_eq!(mesh.lookup("default", "[fd00::1]:80"), Lookup::Service(key));
    assert_eq!(mesh.lookup("default", "10.96.0.1:8080"), Lookup::None);
    assert_eq!(service(&mesh, DB, 80, "default").addresses.len(), 2);
}

#[test]
fn a_headless_service_is_called_by_name_and_its_workloads_by_address() {
    let (mesh, problems) = mesh("clusterIP: None,", "");

    assert_eq!(problems, []);
    assert!(service(&mesh, DB, 80, "default").addresses.is_empty());
    let db = "spiffe://cluster.local/ns/default/sa/db".to_owned();
    assert_eq!(workload(&mesh, "10.0.0.5:8080"), Some((db.clone(), "10.0.0.5:8080".to_owned())));
    let other = workload(&mesh, "10.0.0.5:9999");
    assert_eq!(other, Some((db, "10.0.0.5:9999".to_owned())), "its sidecar takes every port");
}

#[test]
fn a_workload_that_is_dialled_elsewhere_is_only_at_the_ports_that_it_serves() {
    let other = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
         metadata: {name: x, annotations: {config.selvedge.io/inbound: '10.0.0.6:4143'}}\n\
         spec: {address: 10.0.0.6, ports: {http: 80}, labels: {security.istio.io/tlsMode: istio}}\n";
    let (mesh, _) = mesh("", other);

    assert_eq!(workload(&mesh, "10.0.0.6:80").unwrap().1, "10.0.0.6:4143");
    assert_eq!(mesh.lookup("default", "10.0.0.6:81"), Lookup::None);
}

#[test]
fn two_workloads_at_one_address_are_told_apart_by_their_ports_alone() {
    let other = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: x}\n\
         spec: {address: 10.0.0.5, ports: {http: 81}, labels: {security.istio.io/tlsMode: istio}}\n";
    let (mesh, _) = mesh("", other);

    assert!(workload(&mesh, "10.0.0.5:8080").unwrap().0.ends_with("/sa/db"));
    assert!(workload(&mesh, "10.0.0.5:81").unwrap().0.ends_with("/sa/default"));
    assert_eq!(mesh.lookup("default", "10.0.0.5:9999"), Lookup::None);
}

#[test]
fn a_service_entrys_addresses_lead_to_it_and_its_endpoints_are_known() {
    let entry = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: out}\n\
         spec:\n  hosts: [api.example.com]\n  addresses: [240.0.0.1, 240.0.1.0/24]\n  resolution: STATIC\n\
         \x20 ports: [{number: 80, name: http}]\n  endpoints: [{address: 192.0.2.1}]\n";
    let (mesh, problems) = mesh("", entry);

    let key = ServiceKey::new("api.example.com", 80);
    assert_eq!(mesh.lookup("default", "240.0.0.1:80"), Lookup::Service(key));
    assert!(service(&mesh, "api.example.com", 80, "default").addresses.is_empty(), "called by name");
    assert!(matches!(mesh.lookup("default", "192.0.2.1:80"), Lookup::Address(_)), "known, if not meshed");
    assert_eq!(problems, []);
    let key = ServiceKey::new("api.example.com", 80);
    assert_eq!(mesh.lookup("default", "240.0.1.77:80"), Lookup::Service(key), "in its range");
    assert_eq!(mesh.lookup("default", "240.0.1.77:81"), Lookup::None, "not at its port");
    assert_eq!(mesh.lookup("default", "240.0.2.1:80"), Lookup::None);
}

#[test]
fn an_address_of_two_services_is_the_firsts_and_reported() {
    let other = "apiVersion: v1\nkind: Service\nmetadata: {name: other}\n\
         spec: {clusterIP: 10.96.0.1, ports: [{name: http, port: 80}]}\n";
    let (mesh, problems) = mesh("clusterIP: 10.96.0.1,", other);

    assert_eq!(mesh.lookup("default", "10.96.0.1:80"), Lookup::Service(ServiceKey::new(DB, 80)));
    let errors = errors(&problems);
    assert!(errors[0].starts_with("spec.clusterIP: 10.96.0.1:80 is already the address of"), "{errors:?}");
}
