//! What documents mean alone: fields, lines, and everything that is said about what is not acted on.

use std::{path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;
use selvedge_model::{ConnectionPool, Host, Http2Upgrade, LoadBalancer, MtlsMode, Protocol};

use super::{service::TargetPort, service_entry::EntryEndpoints, *};
use crate::problem::{Problem, Severity};

mod http_routes;

fn read(text: &str) -> Vec<Decoded> {
    decode(text, &Arc::from(Path::new("mesh.yaml")), "default")
}

fn only(text: &str) -> Decoded {
    let mut documents = read(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0)
}

fn understood(decoded: &Decoded) -> &Resource {
    match &decoded.outcome {
        DecodeOutcome::Understood(resource) => resource,
        other => panic!("{other:?}: {:?}", decoded.problems),
    }
}

fn destination_rule(policy: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1beta1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a\n  trafficPolicy:\n{policy}"
    ))
}

fn policy(decoded: &Decoded) -> &destination_rule::PolicyBlocks {
    match understood(decoded) {
        Resource::DestinationRule(document) => &document.spec.policy,
        other => panic!("{other:?}"),
    }
}

/// Field, line and severity of each problem.
fn told(decoded: &Decoded) -> Vec<(&str, u64, Severity)> {
    let facts = |problem: &Problem| (problem.line.unwrap_or(0), problem.severity);
    decoded
        .problems
        .iter()
        .map(|problem| (problem.field.as_str(), facts(problem).0, facts(problem).1))
        .collect()
}

const SERVICE: &str =
    "apiVersion: v1\nkind: Service\nmetadata:\n  name: NAME\nspec:\n  ports:\n    - port: 80\n";

#[test]
fn a_malformed_document_leaves_its_neighbours_readable() {
    let text = format!(
        "{}---\n# the middle\na: b: c\n---\n{}",
        SERVICE.replace("NAME", "one"),
        SERVICE.replace("NAME", "two")
    );

    let documents = read(&text);

    assert_eq!(understood(&documents[0]).name().to_string(), "Service default/one");
    assert!(matches!(documents[1].outcome, DecodeOutcome::Failed));
    assert_eq!(documents[1].problems[0].line, Some(10));
    assert_eq!(understood(&documents[2]).name().to_string(), "Service default/two");
    assert_eq!(understood(&documents[2]).location().line, 12);
}

#[test]
fn a_malformed_document_is_named_as_it_looks() {
    let decoded = only(
        "apiVersion: v1\nkind: Service # a service\nmetadata:\n  labels: {name: x}\n  name: 'one'\nspec: [\n",
    );

    assert_eq!(decoded.name.unwrap().to_string(), "Service default/one");
    assert!(decoded.problems[0].message.contains("not valid YAML"), "{:?}", decoded.problems);
}

#[test]
fn json_lists_and_markers_are_read_alike() {
    let json = "{\n\t\"apiVersion\": \"v1\", \"kind\": \"Service\",\n\t\"metadata\": {\"name\": \"one\"},\n\t\"spec\": {\"ports\": [{\"port\": 80}]}\n}\n";
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}]}}\n- {apiVersion: v1, kind: Service, metadata: {name: b}, spec: {ports: [{port: 1}]}}\n";
    let marked = "\u{feff}# above\n%YAML 1.2\n---\n{apiVersion: v1, kind: Service, metadata: {name: c}, spec: {ports: [{port: 1}]}}\n...\n---\n# nothing\n";

    let names: Vec<_> = [json, list, marked]
        .iter()
        .flat_map(|text| read(text))
        .map(|decoded| format!("{} {} {}", understood(&decoded).name().name, decoded.index, decoded.line))
        .collect();

    assert_eq!(names, ["one 0 1", "a 0 4", "b 1 5", "c 0 4"]);
}

#[test]
fn every_field_that_is_not_acted_on_is_named_with_its_line() {
    let decoded = destination_rule(
        "    connectionPool:\n      tcp:\n        maxConnections: 100\n        connectTimeout: 3s\n        tcpKeepalive: {}\n      http:\n        http1MaxPendingRequests: 50\n        useClientProtocol: true\n    outlierDetection:\n      consecutiveErrors: 5\n",
    );

    assert_eq!(
        told(&decoded),
        [
            ("spec.trafficPolicy.connectionPool.tcp.tcpKeepalive", 11, Severity::NotActedOn),
            ("spec.trafficPolicy.connectionPool.http.useClientProtocol", 14, Severity::NotActedOn),
            ("spec.trafficPolicy.outlierDetection.consecutiveErrors", 16, Severity::Warning),
        ]
    );
    let block = policy(&decoded).connection_pool.clone().unwrap();
    assert_eq!(block.connect_timeout, Some(Duration::from_secs(3)));
    assert_eq!((block.connections.max_connections, block.pool.max_pending_requests), (Some(100), Some(50)));
    let outlier = policy(&decoded).outlier_detection.clone().unwrap();
    assert_eq!((outlier.consecutive_5xx, outlier.consecutive_gateway_errors), (Some(5), Some(5)));
}

#[test]
fn limits_on_connections_are_read_and_zero_is_none() {
    let decoded = destination_rule(
        "    connectionPool:\n      tcp: {maxConnections: 0, maxConnectionDuration: 10m}\n      http: {http2MaxRequests: 7, maxRequestsPerConnection: 1, maxConcurrentStreams: 9, maxRetries: 3, idleTimeout: 5s, h2UpgradePolicy: DO_NOT_UPGRADE}\n",
    );

    assert_eq!(told(&decoded), []);
    let expected = ConnectionPool {
        max_pending_requests: None,
        max_requests: Some(7),
        max_requests_per_connection: Some(1),
        max_concurrent_streams: Some(9),
        max_retries: Some(3),
        idle_timeout: Some(Duration::from_secs(5)),
        http2_upgrade: Http2Upgrade::Never,
    };
    let block = policy(&decoded).connection_pool.as_ref().unwrap();
    assert_eq!(block.pool, expected);
    assert_eq!(block.connections.max_connections, None);
    assert_eq!(block.connections.max_duration, Some(Duration::from_secs(600)));
}

#[test]
fn istios_snake_case_spellings_are_read() {
    let decoded = destination_rule(
        "    load_balancer: {simple: LEAST_CONN}\n    outlier_detection: {consecutive_5xx_errors: 0, base_ejection_time: 600s, max_ejection_percent: 100}\n",
    );

    assert_eq!(told(&decoded), []);
    assert_eq!(policy(&decoded).load_balancer, Some(LoadBalancer::LeastRequest));
    let outlier = policy(&decoded).outlier_detection.clone().unwrap();
    assert_eq!(outlier.consecutive_5xx, None);
    assert_eq!(outlier.max_ejection_time, Duration::from_secs(600));
    assert_eq!(outlier.max_ejection_percent, 100);
}

#[test]
fn a_wrong_value_names_its_field_line_and_remedy() {
    for (policy, field, line, words) in [
        (
            "    loadBalancer:\n      simple: FASTEST\n",
            "spec.trafficPolicy.loadBalancer.simple",
            8,
            "LEAST_REQUEST",
        ),
        ("    outlierDetection: {interval: 30}\n", "spec.trafficPolicy.outlierDetection.interval", 7, "30s"),
        ("    outlierDetection: [1]\n", "spec.trafficPolicy.outlierDetection", 7, "found a list"),
        (
            "    outlierDetection:\n      maxEjectionPercent: 101\n",
            "spec.trafficPolicy.outlierDetection.maxEjectionPercent",
            8,
            "101",
        ),
    ] {
        let decoded = destination_rule(policy);

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{policy}");
        let problem = &decoded.problems[0];
        assert_eq!((problem.field.as_str(), problem.line), (field, Some(line)));
        assert!(problem.message.contains(words), "{problem}");
    }
}

#[test]
fn an_unquoted_number_for_a_text_asks_for_quotes() {
    let decoded = only(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\nspec:\n  selector:\n    version: 1\n  ports: [{port: 80}]\n",
    );

    assert_eq!(
        decoded.problems[0].to_string(),
        "mesh.yaml:7: Service default/a: spec.selector.version: expected a text, found the number 1; put it in quotes"
    );
}

#[test]
fn a_kind_that_nothing_acts_on_is_reported_once() {
    let decoded = only("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 3}\n");
    let knative = only("apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: web}\n");

    assert!(matches!(decoded.outcome, DecodeOutcome::NotActedOn));
    assert_eq!(told(&decoded), [("", 2, Severity::NotActedOn)]);
    assert!(knative.problems[0].message.contains("v1 is"), "{:?}", knative.problems);
}

#[test]
fn a_policy_of_a_kind_that_is_not_enforced_is_an_error_that_can_be_accepted() {
    for (kind, version) in [
        ("RequestAuthentication", "security.istio.io/v1"),
        ("AdminNetworkPolicy", "policy.networking.k8s.io/v1alpha1"),
        ("NetworkPolicy", "projectcalico.org/v3"),
        ("GlobalNetworkPolicy", "crd.projectcalico.org/v1"),
        ("CiliumNetworkPolicy", "cilium.io/v2"),
        ("Server", "policy.linkerd.io/v1beta3"),
        ("AuthorizationPolicy", "policy.linkerd.io/v1alpha1"),
        ("MeshTLSAuthentication", "policy.linkerd.io/v1alpha1"),
        ("ServerAuthorization", "policy.linkerd.io/v1beta1"),
    ] {
        let decoded =
            only(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n"));

        assert!(matches!(decoded.outcome, DecodeOutcome::NotActedOn), "{kind}");
        assert!(decoded.stand_in.is_none(), "{kind}");
        assert_eq!(told(&decoded), [("", 2, Severity::Error)], "{kind}");
        assert!(decoded.problems[0].message.contains("is not enforced"), "{:?}", decoded.problems);
        assert_eq!(decoded.problems[0].clone().accepted().severity, Severity::NotActedOn, "{kind}");
    }
}

#[test]
fn in_a_cluster_its_network_enforces_what_is_for_networks() {
    let severity = |version: &str, kind: &str| {
        let object =
            serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": {}});
        decode_value(object, "default").problems[0].severity
    };

    assert_eq!(severity("cilium.io/v2", "CiliumNetworkPolicy"), Severity::NotActedOn);
    assert_eq!(severity("projectcalico.org/v3", "GlobalNetworkPolicy"), Severity::NotActedOn);
    assert_eq!(severity("security.istio.io/v1", "RequestAuthentication"), Severity::Error);
}

#[test]
fn a_field_or_kind_that_is_nearly_one_that_exists_is_asked_about() {
    let message = |text: &str| only(text).problems[0].message.clone();

    let route = message(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  http:\n  - timout: 5s\n    route: [{destination: {host: a}}]\n",
    );
    let far = message(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec:\n  quantum: 1\n  ports: [{port: 80}]\n",
    );
    let kind = message("apiVersion: security.istio.io/v1\nkind: PeerAuthentification\nmetadata: {name: a}\n");

    assert_eq!(route, "not acted on; did you mean timeout?");
    assert_eq!(far, "not acted on");
    assert!(kind.ends_with("did you mean PeerAuthentication?"), "{kind}");
}

#[test]
fn what_is_no_document_is_an_error() {
    for text in
        ["- a\n", "hello\n", "kind: Service\n", "apiVersion: v1\nkind: Service\nspec: {}\n", "a: &a [*a]\n"]
    {
        let decoded = only(text);

        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{text}");
        assert_eq!(decoded.problems[0].severity, Severity::Error);
        assert_eq!(decoded.problems[0].line, Some(1));
    }
    assert!(read("# only a comment\n---\n\n---\n").is_empty());
}

#[test]
fn an_alias_bomb_is_refused() {
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..9 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(",");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }

    assert!(matches!(only(&bomb).outcome, DecodeOutcome::Failed));
    assert!(matches!(only(&"[".repeat(100_000)).outcome, DecodeOutcome::Failed));
}

#[test]
fn a_service_reads_its_ports() {
    let decoded = only(
        "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: shop}\nspec:\n  type: LoadBalancer\n  clusterIP: None\n  ports:\n  - {name: http, port: 80, targetPort: web}\n  - {name: x, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c, nodePort: 30000}\n  - {name: dns, port: 53, protocol: UDP}\n  annotations: {cloud/lb: nlb}\n",
    );

    let Resource::Service(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let ports: Vec<_> =
        document.spec.ports.iter().map(|port| (port.port, port.target.clone(), port.protocol)).collect();
    assert_eq!(
        ports,
        [
            (80, TargetPort::Named("web".to_owned()), Protocol::Http),
            (81, TargetPort::Number(8081), Protocol::Http2)
        ]
    );
    assert_eq!(
        told(&decoded),
        [
            ("spec.type", 5, Severity::NotActedOn),
            ("spec.ports[1].nodePort", 9, Severity::NotActedOn),
            ("spec.ports[2].protocol", 10, Severity::NotActedOn),
            ("spec.annotations[cloud/lb]", 11, Severity::NotActedOn),
        ]
    );
}

#[test]
fn a_workload_entry_reads_its_sidecar() {
    let decoded = only(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata:\n  name: a\n  labels: {app: old, tier: web}\n  annotations: {config.selvedge.io/inbound: '127.0.0.1:4143'}\nspec:\n  address: 127.0.0.1\n  labels: {app: a, security.istio.io/tlsMode: istio}\n  ports: {http: 9080}\n",
    );

    assert_eq!(told(&decoded), []);
    let Resource::WorkloadEntry(document) = understood(&decoded) else { panic!("{decoded:?}") };
    let spec = &document.spec;
    assert_eq!(spec.address, Some("127.0.0.1".parse().unwrap()));
    assert_eq!((spec.labels["app"].as_str(), spec.labels["tier"].as_str()), ("a", "web"));
    assert!(spec.meshed);
    assert_eq!(spec.inbound, Some("127.0.0.1:4143".parse().unwrap()));
    assert_eq!(spec.service_account, "default");
}

#[test]
fn a_workload_is_at_an_address_or_a_dns_name() {
    let entry = |address: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: a}}\nspec: {{address: '{address}'}}\n"
        ))
    };

    let by_name = entry("Web_1.local");
    assert_eq!(told(&by_name), []);
    let Resource::WorkloadEntry(document) = understood(&by_name) else { panic!("{by_name:?}") };
    assert_eq!(document.spec.address, Some(Host::Name("web_1.local".into())));
    assert_eq!(told(&entry("unix:///run/app.sock")), [("spec.address", 4, Severity::NotActedOn)]);
    assert_eq!(told(&entry("10.0.0.300")), [("spec.address", 4, Severity::Error)]);
}

fn service_entry(spec: &str) -> Decoded {
    only(&format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a}}\nspec:\n  \
         ports: [{{number: 443, name: tls, protocol: TLS, targetPort: 8443}}]\n{spec}"
    ))
}

#[test]
fn a_service_entry_says_where_its_endpoints_are_found() {
    use service_entry::Resolution;

    let entry = |spec: &str| {
        let decoded = service_entry(spec);
        assert_eq!(told(&decoded), [], "{spec}");
        let Resource::ServiceEntry(document) = understood(&decoded) else { panic!("{decoded:?}") };
        document.spec.clone()
    };

    let fixed = entry("  hosts: [A.example.com]\n  resolution: STATIC\n  endpoints: [{address: 10.0.0.1}]\n");
    assert_eq!(fixed.hosts, ["a.example.com"]);
    assert_eq!((fixed.ports[0].target, fixed.ports[0].protocol), (8443, Protocol::Tcp));
    assert!(matches!(&fixed.endpoints, EntryEndpoints::Inline(list) if list.len() == 1));
    let names = entry("  hosts: [a.example.com]\n  resolution: DNS\n  subjectAltNames: [b.example.com]\n");
    assert_eq!(
        (names.resolution, names.endpoints),
        (Resolution::Dns { one_address: false }, EntryEndpoints::Hosts)
    );
    assert_eq!(names.subject_alt_names, ["b.example.com"]);
    let one = entry(
        "  hosts: [a.example.com]\n  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: b.example.com}]\n",
    );
    assert_eq!(one.resolution, Resolution::Dns { one_address: true });
    for resolution in ["", "  resolution: NONE\n", "  resolution: DYNAMIC_DNS\n"] {
        assert_eq!(
            entry(&format!("  hosts: ['*.example.com']\n{resolution}")).resolution,
            Resolution::Requested
        );
    }
}

#[test]
fn endpoints_that_cannot_be_found_as_a_service_entry_says_are_an_error() {
    for (spec, field) in [
        (
            "  hosts: [a.b]\n  resolution: STATIC\n  endpoints: [{address: b.example.com}]\n",
            "spec.endpoints[0].address",
        ),
        ("  hosts: ['*.b']\n  resolution: DNS\n", "spec.hosts[0]"),
        ("  hosts: ['*']\n", "spec.hosts[0]"),
        ("  hosts: ['a.*.b']\n", "spec.hosts[0]"),
        ("  hosts: [a.b]\n  endpoints: [{address: 10.0.0.1}]\n", "spec.endpoints"),
        ("  hosts: [a.b]\n  workloadSelector: {labels: {a: b}}\n", "spec.workloadSelector"),
        (
            "  hosts: [a.b]\n  resolution: DNS_ROUND_ROBIN\n  endpoints: [{address: a}, {address: b}]\n",
            "spec.endpoints",
        ),
    ] {
        let decoded = service_entry(spec);
        let told = told(&decoded);
        let fields: Vec<_> = told.iter().map(|(field, _, severity)| (*field, *severity)).collect();
        assert_eq!(fields, [(field, Severity::Error)], "{spec}");
    }
}

#[test]
fn a_destination_rule_says_how_tls_is_begun() {
    use selvedge_model::{ClientCertificate, TlsOrigination, UpstreamTls};

    let rule = |tls: &str| {
        only(&format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: a}}\nspec:\n  host: a.example.com\n  trafficPolicy:\n    portLevelSettings:\n    - port: {{number: 443}}\n      tls: {tls}\n"
        ))
    };
    let read = |decoded: &Decoded| {
        let Resource::DestinationRule(document) = understood(decoded) else { panic!("{decoded:?}") };
        assert_eq!(document.spec.policy.tls, None, "only for its port");
        document.spec.policy.ports[&443].tls.clone().unwrap()
    };

    let mutual = rule(
        "{mode: MUTUAL, sni: x.example, subjectAltNames: [y.example], caCertificates: /ca.pem, clientCertificate: /c.pem, privateKey: /k.pem}",
    );
    assert_eq!(told(&mutual), []);
    let client = ClientCertificate { certificate: "/c.pem".into(), private_key: "/k.pem".into() };
    let expected = TlsOrigination {
        sni: Some("x.example".into()),
        subject_alt_names: vec!["y.example".into()],
        ca_certificates: Some("/ca.pem".into()),
        client: Some(client),
        insecure_skip_verify: false,
    };
    assert_eq!(read(&mutual), UpstreamTls::Originate(expected));
    assert_eq!(read(&rule("{mode: DISABLE}")), UpstreamTls::Disable);
    assert_eq!(read(&rule("{mode: ISTIO_MUTUAL}")), UpstreamTls::IstioMutual);

    for (tls, severity) in [
        ("{mode: MUTUAL}", Severity::Error),
        ("{mode: SIMPLE, sni: 'a b'}", Severity::Error),
        ("{mode: SIMPLE, credentialName: secret}", Severity::NotActedOn),
        ("{mode: SIMPLE, insecureSkipVerify: true}", Severity::Warning),
        ("{mode: ISTIO_MUTUAL, sni: x.example}", Severity::Warning),
        ("{mode: SIMPLE, caCrl: /crl.pem}", Severity::NotActedOn),
    ] {
        let decoded = rule(tls);
        let severities: Vec<_> = told(&decoded).iter().map(|(_, _, severity)| *severity).collect();
        assert_eq!(severities, [severity], "{tls}");
    }
}

#[test]
fn a_slices_not_ready_endpoints_do_not_count() {
    let decoded = only(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\nendpoints:\n- {addresses: [10.0.0.1]}\n- {addresses: [10.0.0.2], conditions: {ready: false}}\n- {addresses: [10.0.0.3], conditions: {ready: null, serving: true}}\nports: [{name: http, port: 80}]\n",
    );

    let Resource::EndpointSlice(document) = understood(&decoded) else { panic!("{decoded:?}") };
    assert_eq!(document.spec.service, "web");
    assert_eq!(document.spec.addresses.len(), 2);
    assert_eq!(told(&decoded), []);
}

#[test]
fn a_peer_authentication_reads_modes_by_port() {
    let decoded = only(
        "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec:\n  selector: {matchLabels: {app: a}}\n  mtls: {mode: STRICT}\n  portLevelMtls:\n    8080: {mode: DISABLE}\n    9090: {}\n",
    );

    let Resource::PeerAuthentication(document) = understood(&decoded) else { panic!("{decoded:?}") };
    assert_eq!(document.spec.mode, Some(MtlsMode::Strict));
    assert_eq!(document.spec.ports, [(8080, Some(MtlsMode::Disable)), (9090, None)].into());
    let empty = only("apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\n");
    assert!(
        matches!(understood(&empty), Resource::PeerAuthentication(document) if document.spec.mode.is_none())
    );
}

#[test]
fn a_selector_that_is_not_understood_fails_the_document() {
    let decoded = only(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {selector: {matchExpressions: [{key: a}]}, mtls: {mode: DISABLE}}\n",
    );

    assert!(matches!(decoded.outcome, DecodeOutcome::Failed));
    assert_eq!(decoded.problems[0].field, "spec.selector.matchExpressions");
}

#[test]
fn annotations_that_ask_for_something_are_reported() {
    let decoded = only(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  annotations:\n    kubectl.kubernetes.io/last-applied-configuration: '{}'\n    networking.istio.io/exportTo: '.'\nspec: {ports: [{port: 80}]}\n",
    );

    assert_eq!(
        told(&decoded),
        [("metadata.annotations[networking.istio.io/exportTo]", 7, Severity::NotActedOn)]
    );
}

const LESSON: &str = concat!(
    include_str!("../../../examples/policies/canary-with-header.yaml"),
    "---\n",
    include_str!("../../../examples/policies/least-request-and-ejection.yaml"),
    "---\n",
    include_str!("../../../examples/policies/strict-mtls.yaml"),
    "---\n",
    include_str!("../../../examples/policies/canary-90-10.yaml")
);

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_read_without_a_panic(text in "\\PC*") {
        read(&text);
    }

    #[test]
    fn a_mutated_document_is_read_without_a_panic(
        start in 0..LESSON.len(),
        length in 0_usize..40,
        put in prop_oneof![Just(String::new()), "[-:{}\\[\\],&*!|>'\"%@`#\\n\\t a-z0-9]{0,12}"],
    ) {
        let bytes = LESSON.as_bytes();
        let end = (start + length).min(bytes.len());
        let mutated = [&bytes[..start], put.as_bytes(), &bytes[end..]].concat();
        for decoded in read(&String::from_utf8_lossy(&mutated)) {
            let failed = matches!(decoded.outcome, DecodeOutcome::Failed);
            prop_assert!(!failed || decoded.problems.iter().any(|one| one.severity == Severity::Error));
            prop_assert!(decoded.problems.iter().all(|problem| problem.line.is_some_and(|line| line > 0)));
        }
    }
}

#[test]
fn what_a_service_asks_for_and_does_not_get_is_reported() {
    for (field, value) in [
        ("sessionAffinity", "ClientIP"),
        ("internalTrafficPolicy", "Local"),
        ("publishNotReadyAddresses", "true"),
        ("type", "NodePort"),
        ("externalIPs", "[192.0.2.1]"),
        ("trafficDistribution", "PreferClose"),
    ] {
        let decoded = only(&format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec:\n  {field}: {value}\n  ports: [{{port: 80}}]\n"
        ));

        understood(&decoded);
        assert!(told(&decoded)[0].0.starts_with(&format!("spec.{field}")), "{field}: {:?}", decoded.problems);
    }
    let default = "spec: {type: ClusterIP, sessionAffinity: None, internalTrafficPolicy: Cluster, ipFamilies: [IPv4], ports: [{port: 80}]}";
    let decoded = only(&format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\n{default}\n"));
    assert_eq!(told(&decoded), []);
}
