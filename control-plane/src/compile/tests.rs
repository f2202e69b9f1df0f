//! What documents mean together.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use selvedge_model::{
    ConnectionLimits, ConnectionPool, Http2Upgrade, LoadBalancer, LocalityPolicy, Lookup, MtlsMode, Service,
    ServiceKey, SpiffeId, TcpKeepalive, TrafficPolicy, UpstreamTls, Workload, WorkloadName, facts,
};

use super::*;
use crate::resources::{DecodeOutcome, decode};

mod addresses;
mod authentication;
mod authorization;
mod backend_tls;
mod backend_traffic;
mod calico;
mod clients;
mod cluster;
mod destination_rules;
mod examples;
mod exported;
mod gateway_routes;
mod gateways;
mod http_routes;
mod incremental;
mod ingress;
mod locations;
mod meant;
mod mirrors;
mod network;
mod network_naive;
mod outside;
mod owners;
mod ownership;
mod places;
mod policies;
mod rate_limits;
mod recipes;
mod revocations;
mod servers;
mod services;
mod tcp;
mod telemetry;
mod unusable;
mod virtual_services;
mod without_effect;

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
    let facts = facts::Request {
        connection,
        method,
        scheme: "http",
        authority,
        path,
        query: "",
        headers: &headers,
        token: None,
    };
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
    let addresses: Vec<SocketAddr> = mesh.addresses.iter().map(|(address, _)| *address).collect();
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
             maxConnectionDuration: {limit}s, tcpKeepalive: {{probes: {limit}, time: {limit}s, interval: {limit}s}}}}, http: {{http1MaxPendingRequests: {limit}, http2MaxRequests: {limit}, \
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
        (of_port(9080, 7), all(8), 7, 8),
        (of_port(9080, 7), of_port(9080, 8), 7, 8),
        (all(7), format!("{}, {}", all(6), of_port(9080, 8)), 7, 8),
    ] {
        let (host, subset) = (given(&host), given(&subset));
        let text = format!(
            "{MESH}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
             host: reviews\n  trafficPolicy: {host}\n  subsets: [{{name: v1, labels: {{version: v1}}, \
             trafficPolicy: {subset}}}]\n{}",
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

/// The `trafficPolicy` that has these blocks, or none where there are none.
fn given(blocks: &str) -> String {
    if blocks.is_empty() { "null".to_owned() } else { format!("{{{blocks}}}") }
}

/// Whether every field of `policy` is as `limit` says; 0: as nobody says anything.
fn assert_policy(policy: &TrafficPolicy, limit: u32, text: &str) {
    if limit == 0 {
        let locality = LocalityPolicy { hints: true, ..LocalityPolicy::default() };
        return assert_eq!(*policy, TrafficPolicy { locality, ..TrafficPolicy::default() }, "{text}");
    }
    let (time, limited) = (Duration::from_secs(limit.into()), Some(limit));
    let outlier = policy.outlier_detection.as_ref().unwrap();
    assert_eq!(policy.load_balancer, LoadBalancer::RoundRobin, "{text}");
    assert_eq!(policy.tls, Some(UpstreamTls::IstioMutual), "{text}");
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_errors), (limited, limited), "{text}");
    assert_eq!((outlier.interval, outlier.base_ejection_time), (time, time), "{text}");
    assert_eq!(u32::from(outlier.max_ejection_percent), limit, "{text}");
    assert_eq!(policy.connect_timeout, time, "{text}");
    let connections = ConnectionLimits {
        max_connections: limited,
        idle_timeout: Some(time),
        max_duration: Some(time),
        keepalive: Some(TcpKeepalive { probes: limited, time: Some(time), interval: Some(time) }),
    };
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
