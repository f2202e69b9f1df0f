//! What documents mean alone: fields, lines, and everything that is said about what is not acted on.

use std::{path::Path, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    problem::{Problem, Severity},
    resources::load_balancer::BalancerBlock,
};

mod ejection;
mod http_routes;
mod istio_gateways;
mod load_balancers;
mod localities;
mod policies;
mod rate_limits;
mod services;
mod sessions;

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
        "    connectionPool:\n      tcp:\n        maxConnections: 100\n        connectTimeout: 3s\n        fastOpen: {}\n      http:\n        http1MaxPendingRequests: 50\n        http2KeepAlive: {}\n    outlierDetection:\n      consecutiveErrors: 5\n",
    );

    assert_eq!(
        told(&decoded),
        [
            ("spec.trafficPolicy.connectionPool.tcp.fastOpen", 11, Severity::NotActedOn),
            ("spec.trafficPolicy.connectionPool.http.http2KeepAlive", 14, Severity::NotActedOn),
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
fn istios_snake_case_spellings_are_read() {
    let decoded = destination_rule(
        "    load_balancer: {simple: LEAST_CONN}\n    outlier_detection: {consecutive_5xx_errors: 0, base_ejection_time: 600s, max_ejection_percent: 100}\n",
    );

    assert_eq!(told(&decoded), []);
    assert_eq!(policy(&decoded).load_balancer, Some(BalancerBlock::default()));
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
        (
            "    outlierDetection:\n      minHealthPercent: 101\n",
            "spec.trafficPolicy.outlierDetection.minHealthPercent",
            8,
            "use 0 to 100",
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
fn a_limit_for_attempts_without_an_answer_needs_that_they_are_counted_apart() {
    let policy = |split| {
        format!(
            "    outlierDetection:\n      splitExternalLocalOriginErrors: {split}\n      consecutiveLocalOriginFailures: 3\n"
        )
    };

    assert_eq!(destination_rule(&policy(true)).problems, []);
    let decoded = destination_rule(&policy(false));
    assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "as in Istio");
    let problems = decoded.problems;
    let field = "spec.trafficPolicy.outlierDetection.consecutiveLocalOriginFailures";
    assert_eq!((problems[0].field.as_str(), problems[0].line), (field, Some(9)));
    assert!(problems[0].message.contains("splitExternalLocalOriginErrors: true"), "{}", problems[0]);
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
