//! Routes of opaque connections: `VirtualService` tcp and tls, `TCPRoute`, `TLSRoute`.

use std::collections::BTreeMap;

use selvedge_model::{Layer, Protocol, facts};

use super::*;

/// `db` with subsets v1 and v2 on an opaque and on an unspecified port, and `other`.
const DATABASES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db, annotations: {config.selvedge.io/opaque-ports: "7000-7009"}}
spec:
  selector: {app: db}
  ports: [{name: tcp-sql, port: 5000}, {name: any, port: 6000}, {name: wire, port: 7001}, {name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  selector: {app: other}
  ports: [{name: tcp, port: 5000}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db-1, annotations: {config.selvedge.io/opaque-ports: "80"}}
spec:
  address: 127.0.0.1
  labels: {app: db, version: v1, security.istio.io/tlsMode: istio}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db}
spec:
  host: db
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 7, idleTimeout: 0s, maxConnectionDuration: 1h}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {app: db}}]
---
"#;

const DB: &str = "db.default.svc.cluster.local";

fn route(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1alpha2\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// The rule that a connection to `port` of `db` follows, and its backends with their weights.
fn followed(
    mesh: &Mesh,
    port: u16,
    client: &str,
    layer: Layer,
    server_name: Option<&str>,
) -> Option<(String, Vec<(String, u32)>)> {
    let service = service(mesh, DB, port, client);
    let source = facts::Source { namespace: Some(client), ..facts::Source::UNKNOWN };
    let facts = facts::Connection { layer, server_name, ..facts::Connection::new(source, port) };
    let rule = &service.tcp.rules[service.tcp.find(&facts)?];
    let backends = rule.backends.iter().map(|share| {
        let backend = &service.backends[share.backend];
        let name = backend.name.to_string().replace(".default.svc.cluster.local", "");
        (name + if backend.broken.is_some() { " broken" } else { "" }, share.weight)
    });
    Some((rule.name.clone(), backends.collect()))
}

fn one(name: &str, backend: &str) -> Option<(String, Vec<(String, u32)>)> {
    Some((name.to_owned(), vec![(backend.to_owned(), 1)]))
}

#[test]
fn without_routes_all_goes_to_the_service_and_http_ports_have_none() {
    let (mesh, problems) = compiled(DATABASES);

    assert_eq!(problems, []);
    for (port, backend) in [(5000, "db:5000"), (6000, "db:6000"), (7001, "db:7001")] {
        assert_eq!(followed(&mesh, port, "default", Layer::Tcp, None), one("default", backend));
        assert_eq!(followed(&mesh, port, "default", Layer::Tls, Some("a.b")), one("default", backend));
    }
    assert_eq!(followed(&mesh, 80, "default", Layer::Tcp, None), None);
}

#[test]
fn ports_are_opaque_by_name_annotation_and_number_and_their_workload_hears_of_it() {
    let (mesh, _) = compiled(DATABASES);
    let spoken = |port| service(&mesh, DB, port, "default").protocol;
    assert_eq!(
        [spoken(5000), spoken(6000), spoken(7001)],
        [Protocol::Tcp, Protocol::Unspecified, Protocol::Tcp]
    );

    let workload = &mesh.workloads[&"default/db-1".parse().unwrap()];
    let expected = [(80, Protocol::Tcp), (5000, Protocol::Tcp), (7001, Protocol::Tcp)];
    assert_eq!(workload.protocols, BTreeMap::from(expected), "its own annotation beats the service's http");
    assert_eq!(workload.labels["version"], "v1");
}

#[test]
fn a_malformed_list_of_opaque_ports_is_refused() {
    let (_, problems) = compiled(&DATABASES.replace("7000-7009", "7009-7000"));

    assert!(errors(&problems)[0].contains("\"7009-7000\" is neither a port nor a range"), "{problems:?}");
}

#[test]
fn limits_of_connections_reach_the_backend() {
    let (mesh, _) = compiled(DATABASES);

    let limits = service(&mesh, DB, 5000, "default").backends[0].policy.connections;
    assert_eq!(limits.max_connections, Some(7));
    assert_eq!(limits.idle_timeout, Some(Duration::ZERO));
    assert_eq!(limits.max_duration, Some(Duration::from_secs(3600)));
}

#[test]
fn a_virtual_service_splits_tcp_by_weight_and_port() {
    let spec = r#"
  hosts: [db]
  tcp:
  - match: [{port: 5000, destinationSubnets: [10.0.0.0/8, "fd00::1"]}]
    route: [{destination: {host: other}}]
  - match: [{port: 5000}]
    route:
    - {destination: {host: db, subset: v1}, weight: 90}
    - {destination: {host: db, subset: v2}, weight: 10}
"#;
    let (mesh, problems) = compiled(&(DATABASES.to_owned() + &virtual_service("db", spec)));

    assert_eq!(problems, []);
    let split = vec![("db:5000/v1".to_owned(), 90), ("db:5000/v2".to_owned(), 10)];
    let expected = Some(("VirtualService default/db tcp[1]".to_owned(), split));
    assert_eq!(followed(&mesh, 5000, "default", Layer::Tcp, None), expected);
    assert_eq!(followed(&mesh, 6000, "default", Layer::Tcp, None), one("default", "db:6000"));
    assert_eq!(reviewed(&mesh, 5000), 2, "rules for the port, and no default beside them");
}

#[test]
fn connections_that_no_route_of_a_virtual_service_is_for_go_to_the_service() {
    for asked in
        ["sourceLabels: {app: somebody}", "sourceNamespace: elsewhere", "destinationSubnets: [10.0.0.0/8]"]
    {
        let spec = format!(
            "{{hosts: [db], tcp: [{{match: [{{{asked}}}], route: [{{destination: {{host: other}}}}]}}]}}"
        );
        let (mesh, problems) = compiled(&(DATABASES.to_owned() + &virtual_service("db", &spec)));

        assert_eq!(errors(&problems), [""; 0]);
        assert_eq!(followed(&mesh, 5000, "default", Layer::Tcp, None), one("default", "db:5000"), "{asked}");
    }
}

fn reviewed(mesh: &Mesh, port: u16) -> usize {
    service(mesh, DB, port, "default").tcp.rules.len()
}

#[test]
fn a_virtual_service_sends_tls_by_its_server_name() {
    let spec = r#"
  hosts: [db, "*.wild.example", one.example]
  tls:
  - match: [{sniHosts: ["*.wild.example"]}]
    route: [{destination: {host: other}}]
  - match: [{sniHosts: [One.Example]}]
    route: [{destination: {host: db, subset: v1}}]
"#;
    let (mesh, problems) = compiled(&(DATABASES.to_owned() + &virtual_service("db", spec)));

    assert_eq!(errors(&problems), [""; 0]);
    assert!(problems.iter().all(|problem| problem.message.starts_with("nothing is called ")), "{problems:?}");
    let found = |name| followed(&mesh, 6000, "default", Layer::Tls, Some(name));
    assert_eq!(found("a.wild.example"), one("VirtualService default/db tls[0]", "other:5000"));
    assert_eq!(found("one.example"), one("VirtualService default/db tls[1]", "db:6000/v1"));
    assert_eq!(found("two.example"), None);
    assert_eq!(followed(&mesh, 6000, "default", Layer::Tcp, None), one("default", "db:6000"));
}

#[test]
fn what_tcp_and_tls_routes_get_wrong_is_said() {
    for (routes, expected) in [
        ("tls: [{route: [{destination: {host: db}}]}]", "spec.tls[0].match: is empty"),
        ("tls: [{match: [{port: 5000}], route: [{destination: {host: db}}]}]", "sniHosts: is empty"),
        ("tcp: [{match: [{sniHosts: [a]}], route: [{destination: {host: db}}]}]", "belongs to tls routes"),
        (
            "tcp: [{match: [{destinationSubnets: [10.0.0.0/99]}], route: [{destination: {host: db}}]}]",
            "is not a subnet",
        ),
        ("tcp: [{route: []}]", "spec.tcp[0]: has no route"),
        ("tcp: [{route: [{destination: {host: nobody}}]}]", "nothing is called nobody.default"),
        (
            "tcp: [{match: [{sourceSubnet: 10.0.0.1}], route: [{destination: {host: db}}]}]",
            "the whole match is left out",
        ),
        (
            "tls: [{match: [{sniHosts: [db, a.example]}], route: [{destination: {host: db}}]}]",
            "a.example is not among spec.hosts",
        ),
        ("tls: [{match: [{sniHosts: [\"a*b\"]}], route: [{destination: {host: db}}]}]", "is not a host"),
    ] {
        let spec = format!("{{hosts: [db], {routes}}}");
        let (_, problems) = compiled(&(DATABASES.to_owned() + &virtual_service("db", &spec)));
        assert!(errors(&problems).iter().any(|error| error.contains(expected)), "{routes}: {problems:?}");
    }
}

#[test]
fn a_tcp_route_of_the_services_namespace_is_for_all_and_anothers_for_its_clients() {
    let parent = "parentRefs: [{group: \"\", kind: Service, name: db, namespace: default, port: 5000}]";
    let producer = format!(
        "{{{parent}, rules: [{{backendRefs: [{{name: other, port: 5000}}, {{name: db, port: 5000, weight: 3}}]}}]}}"
    );
    let consumer =
        format!("{{{parent}, rules: [{{backendRefs: [{{name: other, namespace: default, port: 5000}}]}}]}}");
    let text = DATABASES.to_owned()
        + &route("TCPRoute", "default", "split", &producer)
        + &route("TCPRoute", "shop", "own", &consumer);
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    let split = vec![("other:5000".to_owned(), 1), ("db:5000".to_owned(), 3)];
    let expected = Some(("TCPRoute default/split".to_owned(), split));
    assert_eq!(followed(&mesh, 5000, "elsewhere", Layer::Tcp, None), expected);
    assert_eq!(followed(&mesh, 5000, "shop", Layer::Tcp, None), one("TCPRoute shop/own", "other:5000"));
    assert_eq!(followed(&mesh, 6000, "shop", Layer::Tcp, None), one("default", "db:6000"));
}

#[test]
fn tls_routes_share_a_service_by_their_host_names() {
    let spec = |names: &str, to: &str| {
        format!(
            "{{parentRefs: [{{group: \"\", kind: Service, name: db}}], hostnames: [{names}], rules: [{{backendRefs: [{{name: {to}, port: 5000}}]}}]}}"
        )
    };
    let text = DATABASES.to_owned()
        + &route("TLSRoute", "default", "first", &spec("a.example", "db"))
        + &route("TLSRoute", "default", "second", &spec("\"*.example\", a.example", "other"));
    let (mesh, problems) = compiled(&text);

    let found = |name| followed(&mesh, 6000, "default", Layer::Tls, Some(name));
    assert_eq!(found("a.example"), one("TLSRoute default/first", "db:5000"));
    assert_eq!(found("b.example"), one("TLSRoute default/second", "other:5000"));
    assert!(errors(&problems)[0].contains("already follows TLSRoute default/first"), "{problems:?}");
}

#[test]
fn what_gateway_routes_get_wrong_is_said() {
    let to_db = "rules: [{backendRefs: [{name: db, port: 5000}]}]";
    let of_db = "parentRefs: [{group: \"\", kind: Service, name: db}]";
    for (kind, spec, expected) in [
        (
            "TCPRoute",
            format!("{{parentRefs: [{{group: \"\", kind: Service, name: gone}}], {to_db}}}"),
            "there is no Service default/gone",
        ),
        (
            "TCPRoute",
            format!("{{parentRefs: [{{group: \"\", kind: Service, name: db, port: 1}}], {to_db}}}"),
            "has no such port",
        ),
        (
            "TCPRoute",
            format!("{{parentRefs: [{{group: \"\", kind: Service, name: db, port: 80}}], {to_db}}}"),
            "speaks HTTP there",
        ),
        ("TCPRoute", format!("{{{of_db}, rules: []}}"), "spec.rules: is empty"),
        ("TCPRoute", format!("{{{of_db}, hostnames: [a], {to_db}}}"), "belongs to TLSRoute"),
        (
            "TCPRoute",
            format!("{{{of_db}, rules: [{{backendRefs: [{{name: gone, port: 1}}]}}]}}"),
            "backendRefs[0].name: nothing is called gone",
        ),
        (
            "TCPRoute",
            format!("{{{of_db}, rules: [{{backendRefs: [{{name: db, port: 1}}]}}]}}"),
            "backendRefs[0].port: db.default",
        ),
        (
            "TCPRoute",
            format!("{{{of_db}, rules: [{{backendRefs: [{{name: db}}]}}]}}"),
            "backendRefs[0].port: is missing",
        ),
        (
            "TCPRoute",
            format!("{{{of_db}, rules: [{{backendRefs: [{{kind: Bucket, group: x, name: db, port: 1}}]}}]}}"),
            "Bucket is not acted on",
        ),
        ("TLSRoute", format!("{{{of_db}, hostnames: [\"a.*\"], {to_db}}}"), "is not a host"),
        (
            "TLSRoute",
            format!("{{{of_db}, rules: [{{backendRefs: []}}, {{backendRefs: []}}]}}"),
            "the connections of two rules cannot be told apart",
        ),
    ] {
        let (_, problems) = compiled(&(DATABASES.to_owned() + &route(kind, "default", "route", &spec)));
        assert!(errors(&problems).iter().any(|error| error.contains(expected)), "{spec}: {problems:?}");
    }
    let gateway = format!("{{parentRefs: [{{name: gateway}}], {to_db}}}");
    let (_, problems) = compiled(&(DATABASES.to_owned() + &route("TCPRoute", "default", "route", &gateway)));
    assert!(problems[0].message.contains("there is no Gateway default/gateway"), "{problems:?}");
}

#[test]
fn a_gateway_route_beats_a_virtual_service_which_is_told() {
    let spec = "{hosts: [db], tcp: [{route: [{destination: {host: other}}]}]}";
    let of_db = "{parentRefs: [{group: \"\", kind: Service, name: db}], rules: [{backendRefs: [{name: db, port: 5000}]}]}";
    let text =
        DATABASES.to_owned() + &virtual_service("db", spec) + &route("TCPRoute", "default", "route", of_db);
    let (mesh, problems) = compiled(&text);

    assert_eq!(followed(&mesh, 5000, "default", Layer::Tcp, None), one("TCPRoute default/route", "db:5000"));
    assert!(errors(&problems)[0].contains("TCPRoute default/route"), "{problems:?}");
}
