//! Whose routes count for a host.

use super::*;

const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: payments, namespace: shop}
spec: {selector: {app: payments}, ports: [{name: http, port: 80}, {name: tcp, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: theirs, namespace: guest}
spec: {selector: {app: theirs}, ports: [{name: http, port: 80}, {name: tcp, port: 5432}]}
---
"#;

const PAYMENTS: &str = "payments.shop.svc.cluster.local";

fn under(route_ownership: RouteOwnership, text: &str) -> (Mesh, Vec<Problem>) {
    let (resources, mut problems) = resources(&format!("{SERVICES}{text}"));
    let settings = MeshSettings { route_ownership, ..MeshSettings::default() };
    let (mesh, between) = compile(&resources, &settings, &Mesh::default());
    problems.extend(between);
    (mesh, problems)
}

/// A `VirtualService` in `namespace` that sends calls of `host` to `to`.
fn route(namespace: &str, name: &str, host: &str, export_to: &str, to: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec:\n  hosts: ['{host}']\n  exportTo: {export_to}\n\
         \x20 http: [{{route: [{{destination: {{host: {to}}}}}]}}]\n\
         \x20 tcp: [{{match: [{{port: 5432}}], route: [{{destination: {{host: {to}}}}}]}}]\n---\n"
    )
}

fn capture(namespace: &str, export_to: &str) -> String {
    route(namespace, "capture", PAYMENTS, export_to, "theirs.guest.svc.cluster.local")
}

/// Where clients in shop, guest and elsewhere are sent that call payments: HTTP, and opaque TCP.
fn sent_to(mesh: &Mesh) -> [[String; 2]; 3] {
    ["shop", "guest", "elsewhere"].map(|client| {
        let backend = |service: &Service, index: usize| {
            service.backends[index].name.service.host.split('.').next().unwrap().to_owned()
        };
        let http = service(mesh, PAYMENTS, 80, client);
        let tcp = service(mesh, PAYMENTS, 5432, client);
        [
            backend(http, http.routes.rules()[0].backends[0].backend),
            backend(tcp, tcp.tcp.rules[0].backends[0].backend),
        ]
    })
}

fn all(names: [&str; 3]) -> [[String; 2]; 3] {
    names.map(|name| [name.to_owned(), name.to_owned()])
}

fn warnings(problems: &[Problem]) -> Vec<String> {
    let warnings = problems.iter().filter(|problem| problem.severity == Severity::Warning);
    warnings.map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

#[test]
fn a_foreign_route_counts_as_in_istio_and_is_named_with_both_namespaces() {
    let (mesh, problems) = under(RouteOwnership::Exported, &capture("guest", "['*']"));

    assert_eq!(sent_to(&mesh), all(["theirs", "theirs", "theirs"]));
    assert_eq!(errors(&problems), [""; 0]);
    let told = warnings(&problems);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with(&format!(
            "spec.hosts[0]: {PAYMENTS} is of namespace shop, and this document of namespace guest: "
        )),
        "{told:?}"
    );
    assert!(told[0].contains("--route-ownership namespace"), "{told:?}");
}

#[test]
fn with_route_ownership_a_foreign_route_counts_for_its_own_clients_alone() {
    for (export_to, expected) in [
        ("['*']", ["payments", "theirs", "payments"]),
        ("['.', shop]", ["payments", "theirs", "payments"]),
        ("[shop]", ["payments", "payments", "payments"]),
        ("['.']", ["payments", "theirs", "payments"]),
    ] {
        let (mesh, problems) = under(RouteOwnership::Namespace, &capture("guest", export_to));

        assert_eq!(sent_to(&mesh), all(expected), "{export_to}");
        let told = problems.len();
        assert_eq!(told, usize::from(export_to != "['.']"), "{export_to}: {problems:?}");
        assert_eq!(errors(&problems).len(), usize::from(export_to == "[shop]"), "{problems:?}");
    }
}

#[test]
fn a_wildcard_takes_what_is_of_its_own_namespace_only() {
    for host in ["*.svc.cluster.local", "*.shop.svc.cluster.local"] {
        let capture = route("guest", "all", host, "['*']", "theirs.guest.svc.cluster.local");

        let (mesh, problems) = under(RouteOwnership::Namespace, &capture);

        assert_eq!(sent_to(&mesh), all(["payments", "theirs", "payments"]), "{host}");
        assert!(
            warnings(&problems).iter().any(|told| told.contains("namespace guest")),
            "{host}: {problems:?}"
        );
    }
}

#[test]
fn the_owner_and_the_root_namespace_decide_for_everybody() {
    for namespace in ["shop", "istio-system"] {
        for ownership in [RouteOwnership::Namespace, RouteOwnership::Exported] {
            let (mesh, problems) = under(ownership, &capture(namespace, "['*']"));

            assert_eq!(sent_to(&mesh), all(["theirs", "theirs", "theirs"]), "{namespace}");
            assert_eq!(problems, [], "{namespace}");
        }
    }
}

#[test]
fn a_foreign_route_does_not_take_the_place_of_the_owners() {
    // The foreign one is the first, as the oldest is in a cluster.
    let both = format!(
        "{}{}",
        capture("guest", "['*']"),
        route("shop", "own", PAYMENTS, "['*']", "payments.shop.svc.cluster.local")
    );
    let (mesh, problems) = under(RouteOwnership::Namespace, &both);

    assert_eq!(sent_to(&mesh), all(["payments", "theirs", "payments"]));
    assert_eq!(errors(&problems), [""; 0], "the owner's has its effect");

    let (mesh, problems) = under(RouteOwnership::Exported, &both);
    assert_eq!(sent_to(&mesh), all(["theirs", "theirs", "theirs"]));
    assert!(errors(&problems)[0].contains("already follows VirtualService guest/capture"), "{problems:?}");
}

#[test]
fn the_document_that_is_closest_to_a_client_decides() {
    let whole = route("shop", "whole", PAYMENTS, "['*']", "payments.shop.svc.cluster.local");
    for (export_to, expected) in
        [("['.']", ["payments", "theirs", "payments"]), ("[elsewhere]", ["payments", "payments", "theirs"])]
    {
        let (mesh, problems) =
            under(RouteOwnership::Exported, &format!("{whole}{}", capture("guest", export_to)));

        assert_eq!(sent_to(&mesh), all(expected), "{export_to}");
        assert_eq!(errors(&problems), [""; 0]);
    }
}

#[test]
fn a_destination_rule_counts_for_clients_of_its_own_namespace_of_the_hosts_and_of_the_root() {
    let limits = |mesh: &Mesh| {
        ["shop", "guest", "elsewhere"].map(|client| {
            service(mesh, PAYMENTS, 80, client).backends[0].policy.connections.max_connections.is_some()
        })
    };
    for (namespace, expected) in
        [("guest", [false, true, false]), ("shop", [true, true, true]), ("istio-system", [true, true, true])]
    {
        let rule = format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a, namespace: {namespace}}}\n\
             spec: {{host: {PAYMENTS}, trafficPolicy: {{connectionPool: {{tcp: {{maxConnections: 7}}}}}}}}\n"
        );
        for ownership in [RouteOwnership::Namespace, RouteOwnership::Exported] {
            assert_eq!(limits(&under(ownership, &rule).0), expected, "{namespace}");
        }
    }
}

#[test]
fn a_gateway_api_route_of_another_namespace_counts_for_its_own_clients_alone() {
    for (kind, version) in [("TCPRoute", "v1alpha2"), ("TLSRoute", "v1alpha2")] {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/{version}\nkind: {kind}\nmetadata: {{name: a, namespace: guest}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: payments, namespace: shop, port: 5432}}]\n\
             \x20 rules: [{{backendRefs: [{{name: theirs, port: 5432}}]}}]\n"
        );
        let (mesh, _) = under(RouteOwnership::Exported, &text);
        let follow = ["shop", "guest", "elsewhere"].map(|client| {
            let rules = &service(&mesh, PAYMENTS, 5432, client).tcp.rules;
            rules.iter().any(|rule| rule.name.starts_with(kind))
        });

        assert_eq!(follow, [false, true, false], "{kind}");
    }
}

#[test]
fn no_service_entry_takes_the_names_of_a_service() {
    let entry = |host: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: guest}}\n\
             spec: {{hosts: ['{host}'], resolution: STATIC, ports: [{{number: 80, name: http}}], endpoints: [{{address: 192.0.2.1}}]}}\n"
        )
    };
    for host in [
        "payments.shop",
        "payments.shop.svc",
        "payments",
        PAYMENTS,
        "payments.shop.shop.svc.cluster.local",
        "payments.shop.svc.svc.cluster.local",
        "payments.shop.svc.cluster.local.cluster.local",
        "payments.shop.cluster.local",
        "*.shop",
        "*.shop.svc.cluster.local",
    ] {
        for ownership in [RouteOwnership::Namespace, RouteOwnership::Exported] {
            let (mesh, _) = under(ownership, &entry(host));
            for authority in ["payments", "payments.shop", "payments.shop.svc", PAYMENTS] {
                let found = mesh.lookup("shop", authority);
                assert_eq!(found, Lookup::Service(ServiceKey::new(PAYMENTS, 80)), "{host}: {authority}");
            }
        }
    }
    let unowned = "ledger.shop.svc.cluster.local";
    for ownership in [RouteOwnership::Namespace, RouteOwnership::Exported] {
        let (mesh, problems) = under(ownership, &entry(unowned));
        assert!(errors(&problems)[0].contains("a name of the namespace shop"), "{problems:?}");
        assert_eq!(mesh.lookup("shop", unowned), Lookup::None);
    }
}
