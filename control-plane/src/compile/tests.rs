//! What documents mean together.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use selvedge_model::{
    AppConnections, ConnectionLimits, ConnectionPool, Http2Upgrade, LoadBalancer, Lookup, MtlsMode, Service,
    ServiceKey, SpiffeId, TrafficPolicy, UpstreamTls, Workload, WorkloadName, facts,
};

use super::*;
use crate::resources::{DecodeOutcome, decode};

mod addresses;
mod authorization;
mod cluster;
mod examples;
mod exported;
mod gateway_routes;
mod http_routes;
mod locations;
mod mirrors;
mod network;
mod network_naive;
mod outside;
mod owners;
mod ownership;
mod policies;
mod revocations;
mod tcp;
mod unusable;

/// Everything that `text` says, and what is wrong with it.
fn resources(text: &str) -> (Resources, Vec<Problem>) {
    let (mut resources, mut problems) = (Resources::default(), Vec::new());
    for decoded in decode(text, &Arc::from(Path::new("mesh.yaml")), "default") {
        problems.extend(decoded.problems);
        match (decoded.outcome, decoded.stand_in) {
            (DecodeOutcome::Understood(resource), _) => resources.push(resource),
            (_, Some(stand_in)) => resources.push(stand_in.resource),
            _ => {}
        }
    }
    (resources, problems)
}

fn compiled(text: &str) -> (Mesh, Vec<Problem>) {
    let (resources, mut problems) = resources(text);
    let (mesh, between) = compile(&resources, &MeshSettings::default(), &Mesh::default());
    problems.extend(between);
    (mesh, problems)
}

fn errors(problems: &[Problem]) -> Vec<String> {
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
    errors.map(|problem| format!("{}: {}", problem.field, problem.message)).collect()
}

/// The service port `host:port` as clients in `namespace` see it.
fn service<'a>(mesh: &'a Mesh, host: &str, port: u16, namespace: &str) -> &'a Service {
    mesh.services[&ServiceKey::new(host, port)].for_namespace(namespace)
}

fn reviews(mesh: &Mesh) -> &Service {
    service(mesh, REVIEWS, 9080, "default")
}

/// Each backend of the rule that a GET of `path` with `headers` follows: its subset and weight.
fn backends(
    service: &Service,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Option<Vec<(String, u32)>> {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let (method, authority) = (&Method::GET, "reviews:9080");
    let connection = &facts::Connection::new(facts::Source::UNKNOWN, 9080);
    let facts =
        facts::Request { connection, method, scheme: "http", authority, path, query: "", headers: &headers };
    let rule = &service.routes.rules()[service.routes.find(&facts)?.rule];
    let name = |index: usize| service.backends[index].name.subset.as_deref().unwrap_or("whole").to_owned();
    Some(rule.backends.iter().map(|one| (name(one.backend), one.weight)).collect())
}

fn endpoint_addresses(mesh: &Mesh, host: &str, port: u16) -> Vec<String> {
    let list = &mesh.endpoints[&ServiceKey::new(host, port)].list;
    list.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

const REVIEWS: &str = "reviews.default.svc.cluster.local";

/// A service `reviews` with one meshed workload of each version.
const MESH: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: reviews}
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v1, annotations: {config.selvedge.io/inbound: "127.0.0.1:4143"}}
spec:
  address: 127.0.0.1
  labels: {app: reviews, version: v1, security.istio.io/tlsMode: istio}
  ports: {http: 9001}
  serviceAccount: reviews
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: reviews-v2}
spec:
  address: 127.0.0.2
  labels: {app: reviews, version: v2}
---
"#;

const SUBSETS: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews}
spec:
  host: reviews
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {connectTimeout: 1s, maxConnections: 5}}
  subsets:
  - {name: v1, labels: {version: v1}}
  - name: v2
    labels: {version: v2}
    trafficPolicy:
      connectionPool: {tcp: {}}
      outlierDetection: {}
---
"#;

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"
    )
}

#[test]
fn a_service_without_routes_sends_all_to_all() {
    let (mesh, problems) = compiled(MESH);

    assert_eq!(problems, []);
    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert_eq!(backends(reviews(&mesh), "/", &[]), Some(vec![("whole".to_owned(), 1)]));
    assert_eq!(mesh.lookup("default", "reviews:9080"), Lookup::Service(ServiceKey::new(REVIEWS, 9080)));
}

#[test]
fn endpoints_say_where_to_dial_and_whom_to_expect() {
    let (mesh, _) = compiled(MESH);

    let list = &mesh.endpoints[&ServiceKey::new(REVIEWS, 9080)].list;
    assert_eq!(list[0].address, "127.0.0.1:9001".parse().unwrap());
    assert_eq!(list[0].dial, "127.0.0.1:4143".parse().unwrap());
    assert_eq!(list[0].identity.as_ref().unwrap().as_str(), "spiffe://cluster.local/ns/default/sa/reviews");
    assert_eq!(list[0].workload.as_ref().unwrap().to_string(), "default/reviews-v1");
    assert_eq!(list[1].address, "127.0.0.2:9080".parse().unwrap());
    assert_eq!((list[1].dial, &list[1].identity), (list[1].address, &None));
    let addresses: Vec<SocketAddr> = mesh.addresses.keys().copied().collect();
    assert_eq!(addresses, [list[0].address, list[1].address]);
    assert_eq!(mesh.workloads[list[1].workload.as_ref().unwrap()].ports, [9080]);
}

#[test]
fn an_unchanged_part_keeps_its_pointer() {
    let (before, _) = compiled(&format!("{MESH}{SUBSETS}"));
    let (changed, _) = resources(&format!("{}{SUBSETS}", MESH.replace("127.0.0.2", "127.0.0.3")));

    let (after, _) = compile(&changed, &MeshSettings::default(), &before);

    let key = ServiceKey::new(REVIEWS, 9080);
    assert!(Arc::ptr_eq(&before.services[&key].default, &after.services[&key].default));
    assert!(!Arc::ptr_eq(&before.endpoints[&key], &after.endpoints[&key]));
    let v1 = "default/reviews-v1".parse().unwrap();
    assert!(Arc::ptr_eq(&before.workloads[&v1], &after.workloads[&v1]));
}

#[test]
fn a_subset_replaces_whole_blocks_of_its_hosts_policy() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 3}]}]}";
    let (mesh, _) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    let service = reviews(&mesh);
    assert_eq!(backends(service, "/", &[]), Some(vec![("v1".to_owned(), 1), ("v2".to_owned(), 3)]));
    let [v1, v2] = service.backends.as_slice() else { panic!("{service:?}") };
    assert_eq!(v1.labels, [("version".to_owned(), "v1".to_owned())].into());
    assert_eq!(v1.policy.load_balancer, selvedge_model::LoadBalancer::RoundRobin);
    assert_eq!(v1.policy.connect_timeout, Duration::from_secs(1));
    assert_eq!(v2.policy.load_balancer, selvedge_model::LoadBalancer::RoundRobin);
    assert_eq!(v2.policy.connect_timeout, Duration::from_secs(10), "its connectionPool is another block");
    let limits = [v1, v2].map(|backend| backend.policy.connections.max_connections);
    assert_eq!(limits, [Some(5), None]);
    assert!(v1.policy.outlier_detection.is_none() && v2.policy.outlier_detection.is_some());
}

#[test]
fn a_broken_reference_keeps_its_share_and_is_reported() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v3}, weight: 90}, {destination: {host: nowhere}, weight: 10}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    let service = reviews(&mesh);
    assert!(service.backends.iter().all(|backend| backend.broken.is_some()), "{service:?}");
    assert_eq!(service.routes.rules()[0].backends.iter().map(|one| one.weight).sum::<u32>(), 100);
    let errors = errors(&problems);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].contains("spec.http[0].route[0].destination.subset")
            && errors[0].contains("use one of v1, v2")
    );
    assert!(errors[1].contains("nowhere.default.svc.cluster.local"));
}

#[test]
fn an_unknown_port_of_a_known_host_is_a_broken_reference() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 1}}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{}", virtual_service("a", spec)));

    assert!(reviews(&mesh).backends[0].broken.as_ref().unwrap().contains("has no port 1; use one of 9080"));
    assert_eq!(errors(&problems).len(), 1);
}

#[test]
fn an_unknown_host_of_its_own_leaves_a_document_without_effect() {
    let spec = "{hosts: [reviews.default], http: [{route: [{destination: {host: reviews}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems[0].message.contains(&format!("write {REVIEWS}")), "{problems:?}");
}

#[test]
fn the_first_document_of_a_host_wins_and_the_others_are_reported() {
    let spec = |subset: &str| {
        format!(
            "{{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}"
        )
    };
    let text =
        format!("{MESH}{SUBSETS}{}{}", virtual_service("b", &spec("v1")), virtual_service("a", &spec("v2")));
    let (mesh, problems) = compiled(&text);

    assert_eq!(backends(reviews(&mesh), "/", &[]), Some(vec![("v1".to_owned(), 1)]));
    assert!(errors(&problems)[0].contains("VirtualService default/b (mesh.yaml:"), "{problems:?}");
}

#[test]
fn the_most_specific_host_pattern_wins() {
    let spec = |host: &str, subset: &str| {
        format!(
            "{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}"
        )
    };
    let text = format!(
        "{MESH}{SUBSETS}{}{}",
        virtual_service("all", &spec("*", "v1")),
        virtual_service("suffix", &spec("*.default.svc.cluster.local", "v2"))
    );

    assert_eq!(backends(reviews(&compiled(&text).0), "/", &[]), Some(vec![("v2".to_owned(), 1)]));
}

#[test]
fn a_condition_that_cannot_be_checked_never_widens_a_route() {
    let spec = "{hosts: [reviews], http: [{match: [{headers: {'@request.auth.claims.sub': {exact: a}}}], route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    assert_eq!(backends(reviews(&mesh), "/", &[]), None, "answered 404, not sent to everyone");
    assert_eq!(errors(&problems).len(), 1);
}

#[test]
fn routes_for_another_port_leave_the_default() {
    let spec = "{hosts: [reviews], http: [{match: [{port: 1}], route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, _) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
}

#[test]
fn a_virtual_service_for_gateways_is_not_applied() {
    let spec =
        "{hosts: [reviews], gateways: [edge], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems.iter().any(|problem| problem.field == "spec.gateways"));
}

#[test]
fn a_clients_own_namespace_beats_the_services_and_that_the_root() {
    let rule = |namespace: &str, host: &str, simple: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{host: '{host}', trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}}}\n---\n"
        )
    };
    let balancer = |mesh: &Mesh, namespace: &str| {
        service(mesh, REVIEWS, 9080, namespace).backends[0].policy.load_balancer
    };
    use selvedge_model::LoadBalancer::{LeastRequest, Random, RoundRobin};

    let (root_only, _) = compiled(&format!("{MESH}{}", rule("istio-system", "*", "RANDOM")));
    assert_eq!((balancer(&root_only, "default"), balancer(&root_only, "other")), (Random, Random));

    let text = format!(
        "{MESH}{}{}{}",
        rule("istio-system", "*", "RANDOM"),
        rule("default", "reviews", "ROUND_ROBIN"),
        rule("shop", REVIEWS, "LEAST_REQUEST")
    );
    let (mesh, _) = compiled(&text);
    assert_eq!((balancer(&mesh, "default"), balancer(&mesh, "other")), (RoundRobin, RoundRobin));
    assert_eq!(balancer(&mesh, "shop"), LeastRequest);
    let views = &mesh.services[&ServiceKey::new(REVIEWS, 9080)];
    let own: Vec<_> = views.by_namespace.keys().map(|name| &**name).collect();
    assert_eq!(own, ["istio-system", "shop"]);
}

#[test]
fn target_ports_follow_the_workload_then_the_service() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports:
  - {name: a, port: 1, targetPort: 81}
  - {name: b, port: 2, targetPort: named}
  - {name: c, port: 3, targetPort: missing}
---
apiVersion: v1
kind: Service
metadata: {name: admin}
spec:
  selector: {app: web}
  ports:
  - {name: a, port: 4, targetPort: named}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web}
spec: {address: 10.0.0.1, labels: {app: web}, ports: {a: 8081, named: 82}}
";
    let (mesh, problems) = compiled(text);

    let host = "web.default.svc.cluster.local";
    assert_eq!(endpoint_addresses(&mesh, host, 1), ["10.0.0.1:8081"]);
    assert_eq!(endpoint_addresses(&mesh, host, 2), ["10.0.0.1:82"]);
    assert_eq!(endpoint_addresses(&mesh, host, 3), [""; 0]);
    let admin = "admin.default.svc.cluster.local";
    assert_eq!(endpoint_addresses(&mesh, admin, 4), ["10.0.0.1:82"], "a named target goes by its name alone");
    let warned = "port 1 leads to port 8081 of WorkloadEntry default/web";
    assert!(problems.iter().any(|problem| problem.to_string().contains(warned)), "{problems:?}");
    assert!(errors(&problems)[0].contains("no port named \"missing\""), "{problems:?}");
}

#[test]
fn a_servers_sidecar_hears_how_its_app_is_connected_to_and_the_strictest_of_several_services_counts() {
    let rule = |name: &str, host: &str, policy: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {name}}}\n\
             spec: {{host: {host}, trafficPolicy: {{{policy}}}}}\n"
        )
    };
    let also = "---\napiVersion: v1\nkind: Service\nmetadata: {name: also}\n\
                spec: {selector: {app: reviews}, ports: [{name: http, port: 80, targetPort: 9001}]}\n";
    let workload = |rules: &str| {
        let (mesh, problems) = compiled(&format!("{MESH}{also}{rules}"));
        assert_eq!(errors(&problems), [""; 0]);
        Arc::clone(&mesh.workloads[&"default/reviews-v1".parse().unwrap()])
    };
    let wide = rule("wide", "\"*.default.svc.cluster.local\"", "connectionPool: {http: {idleTimeout: 9s}}");
    let own = rule(
        "own",
        "reviews",
        "connectionPool: {http: {idleTimeout: 5s, maxRequestsPerConnection: 7}, tcp: {connectTimeout: 1s}}",
    );
    let of_port = rule(
        "of-port",
        "also",
        "portLevelSettings: [{port: {number: 80}, connectionPool: {http: {idleTimeout: 1s}}}]",
    );

    assert!(workload("").app_connections.is_empty());
    let said = |connect: Option<u64>, idle: u64, max_requests: Option<u32>| {
        let connect_timeout = connect.map(Duration::from_secs);
        let said =
            AppConnections { connect_timeout, idle_timeout: Some(Duration::from_secs(idle)), max_requests };
        BTreeMap::from([(9001, said)])
    };
    assert_eq!(workload(&wide).app_connections, said(None, 9, None));
    assert_eq!(workload(&format!("{wide}{own}{of_port}")).app_connections, said(Some(1), 1, Some(7)));
}

#[test]
fn a_slices_address_is_the_workload_that_has_it() {
    let text = format!(
        "{MESH}apiVersion: v1\nkind: Service\nmetadata: {{name: hand}}\nspec: {{ports: [{{name: http, port: 80}}]}}\n---\n\
         apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hand-1, labels: {{kubernetes.io/service-name: hand}}}}\naddressType: IPv4\n\
         endpoints: [{{addresses: [127.0.0.1]}}, {{addresses: [10.9.9.9]}}]\nports: [{{name: http, port: 9001}}]\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    let list = &mesh.endpoints[&ServiceKey::new("hand.default.svc.cluster.local", 80)].list;
    assert_eq!(list[0].address, "10.9.9.9:9001".parse().unwrap());
    assert_eq!((&list[0].identity, &list[0].workload), (&None, &None));
    assert_eq!(list[1].dial, "127.0.0.1:4143".parse().unwrap());
    assert!(list[1].identity.is_some());
}

#[test]
fn a_slice_of_no_service_is_reported() {
    let (_, problems) = compiled(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: lost}}\naddressType: IPv4\n",
    );

    assert!(errors(&problems)[0].contains("default/lost"), "{problems:?}");
}

#[test]
fn a_service_entry_inside_the_mesh_is_meshed_and_one_outside_is_not() {
    let entry = |location: &str| {
        format!(
            "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  hosts: [ratings.example.com]\n  location: {location}\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP}}]\n  endpoints:\n  - {{address: 10.0.0.1, serviceAccount: ratings, labels: {{security.istio.io/tlsMode: istio}}}}\n"
        )
    };
    let identity = |mesh: &Mesh| {
        mesh.endpoints[&ServiceKey::new("ratings.example.com", 80)].list[0]
            .identity
            .as_ref()
            .map(ToString::to_string)
    };

    let (inside, _) = compiled(&entry("MESH_INTERNAL"));
    let (outside, _) = compiled(&entry("MESH_EXTERNAL"));

    assert_eq!(identity(&inside).unwrap(), "spiffe://cluster.local/ns/default/sa/ratings");
    assert_eq!(identity(&outside), None);
    assert!(matches!(inside.lookup("anywhere", "ratings.example.com"), Lookup::Service(_)));
}

#[test]
fn a_service_entry_selects_workloads() {
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec:\n  hosts: [r.internal]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  ports: [{{number: 80, name: http, protocol: HTTP, targetPort: 9080}}]\n  workloadSelector: {{labels: {{app: reviews}}}}\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(problems, []);
    assert_eq!(endpoint_addresses(&mesh, "r.internal", 80), ["127.0.0.1:9001", "127.0.0.2:9080"]);
}

#[test]
fn one_host_in_two_documents_is_reported() {
    let text = format!(
        "{MESH}apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: e}}\nspec: {{hosts: [{REVIEWS}], resolution: STATIC, ports: [{{number: 9080, name: http}}]}}\n"
    );
    let (mesh, problems) = compiled(&text);

    assert_eq!(endpoint_addresses(&mesh, REVIEWS, 9080).len(), 2);
    assert!(errors(&problems)[0].contains("already defined by Service default/reviews"), "{problems:?}");
}

#[test]
fn two_workloads_at_one_address_are_reported() {
    let twin = "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: twin}\nspec: {address: 127.0.0.1, ports: {http: 9001}}\n";
    let (_, problems) = compiled(&format!("{MESH}{twin}"));

    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("WorkloadEntry default/reviews-v1"), "{problems:?}");
}

#[test]
fn http_routes_do_not_apply_to_a_tcp_port() {
    let text = MESH.replace("name: http, port", "name: tcp, port");
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, problems) = compiled(&format!("{text}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems.iter().any(|problem| problem.message.contains("no HTTP port")), "{problems:?}");
}

#[test]
fn a_disabled_port_is_called_in_plaintext() {
    let text = format!(
        "{MESH}apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: p}}\nspec: {{mtls: {{mode: DISABLE}}}}\n"
    );
    let (mesh, _) = compiled(&text);

    let list = &mesh.endpoints[&ServiceKey::new(REVIEWS, 9080)].list;
    assert!(list.iter().all(|endpoint| endpoint.identity.is_none()));
    let workload = &mesh.workloads[&"default/reviews-v1".parse().unwrap()];
    assert_eq!(workload.policy.rule(9001).mode, MtlsMode::Disable);
}

#[test]
fn a_setting_for_a_port_replaces_all_that_is_set_for_the_others() {
    let all = |limit: u32| {
        format!(
            "loadBalancer: {{simple: ROUND_ROBIN}}, tls: {{mode: ISTIO_MUTUAL}}, \
             outlierDetection: {{consecutive5xxErrors: {limit}, consecutiveGatewayErrors: {limit}, interval: {limit}s, \
             baseEjectionTime: {limit}s, maxEjectionPercent: {limit}}}, \
             connectionPool: {{tcp: {{maxConnections: {limit}, connectTimeout: {limit}s, idleTimeout: {limit}s, \
             maxConnectionDuration: {limit}s}}, http: {{http1MaxPendingRequests: {limit}, http2MaxRequests: {limit}, \
             maxRequestsPerConnection: {limit}, maxConcurrentStreams: {limit}, maxRetries: {limit}, \
             idleTimeout: {limit}s, h2UpgradePolicy: UPGRADE}}}}"
        )
    };
    let of_port =
        |port: u16, limit| format!("portLevelSettings: [{{port: {{number: {port}}}, {}}}]", all(limit));
    // Of the host or of its subset, and for the whole or for a port: each place may say everything.
    for (host, subset, whole, part) in [
        (all(7), String::new(), 7, 7),
        (String::new(), all(7), 0, 7),
        (all(7), all(8), 7, 8),
        (format!("{}, {}", all(6), of_port(9080, 7)), String::new(), 7, 7),
        (format!("{}, {}", all(7), of_port(9081, 6)), String::new(), 7, 7),
        (of_port(9080, 7), all(8), 7, 7),
        (of_port(9080, 7), of_port(9080, 8), 7, 8),
        (all(7), format!("{}, {}", all(6), of_port(9080, 8)), 7, 8),
    ] {
        let text = format!(
            "{MESH}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
             host: reviews\n  trafficPolicy: {{{host}}}\n  subsets: [{{name: v1, labels: {{version: v1}}, \
             trafficPolicy: {{{subset}}}}}]\n{}",
            virtual_service(
                "r",
                "{hosts: [reviews], http: [{match: [{uri: {exact: /v1}}], route: [{destination: {host: reviews, subset: v1}}]}, {route: [{destination: {host: reviews}}]}]}"
            )
        );
        let (mesh, problems) = compiled(&text);

        assert_eq!(errors(&problems), [""; 0], "{text}");
        for (name, expected) in [(None, whole), (Some("v1"), part)] {
            let backend =
                reviews(&mesh).backends.iter().find(|one| one.name.subset.as_deref() == name).unwrap();
            assert_policy(&backend.policy, expected, &text);
        }
    }
}

/// Whether every field of `policy` is as `limit` says; 0: as nobody says anything.
fn assert_policy(policy: &TrafficPolicy, limit: u32, text: &str) {
    if limit == 0 {
        return assert_eq!(*policy, TrafficPolicy::default(), "{text}");
    }
    let (time, limited) = (Duration::from_secs(limit.into()), Some(limit));
    let outlier = policy.outlier_detection.as_ref().unwrap();
    assert_eq!(policy.load_balancer, LoadBalancer::RoundRobin, "{text}");
    assert_eq!(policy.tls, Some(UpstreamTls::IstioMutual), "{text}");
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_errors), (limited, limited), "{text}");
    assert_eq!((outlier.interval, outlier.base_ejection_time), (time, time), "{text}");
    assert_eq!(u32::from(outlier.max_ejection_percent), limit, "{text}");
    assert_eq!(policy.connect_timeout, time, "{text}");
    let connections =
        ConnectionLimits { max_connections: limited, idle_timeout: Some(time), max_duration: Some(time) };
    assert_eq!(policy.connections, connections, "{text}");
    let pool = ConnectionPool {
        max_pending_requests: limited,
        max_requests: limited,
        max_requests_per_connection: limited,
        max_concurrent_streams: limited,
        max_retries: limited,
        idle_timeout: Some(time),
        http2_upgrade: Http2Upgrade::Always,
    };
    assert_eq!(policy.connection_pool, pool, "{text}");
}
