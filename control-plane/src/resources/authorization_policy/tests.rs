//! What an `AuthorizationPolicy` says alone, and what is refused.

use std::{path::Path, sync::Arc};

use selvedge_model::policy::Asks;

use super::*;
use crate::{
    problem::Severity,
    resources::{DecodeOutcome, Decoded, Resource, decode},
};

fn only(text: &str) -> Decoded {
    let mut documents = decode(text, &Arc::from(Path::new("policy.yaml")), "default");
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0)
}

fn policy(spec: &str) -> Decoded {
    only(&format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: a, namespace: shop}}\nspec:\n{spec}"
    ))
}

fn understood(decoded: &Decoded) -> AuthorizationPolicySpec {
    match &decoded.outcome {
        DecodeOutcome::Understood(Resource::AuthorizationPolicy(document)) => document.spec.clone(),
        other => panic!("{other:?} {:?}", decoded.problems),
    }
}

/// Line, field and message of the one error.
fn refused(decoded: &Decoded) -> String {
    assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{decoded:?}");
    let [problem] = &decoded.problems[..] else { panic!("{decoded:?}") };
    assert_eq!(problem.severity, Severity::Error);
    format!("{} {}: {}", problem.line.unwrap(), problem.field, problem.message)
}

fn rule(rule: &str) -> Decoded {
    policy(&format!("  rules:\n  - {rule}\n"))
}

#[test]
fn without_rules_a_policy_allows_nothing_and_with_an_empty_rule_everything() {
    let nothing = understood(&only(
        "apiVersion: security.istio.io/v1beta1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n",
    ));
    let everything = understood(&policy("  rules: [{}]\n"));

    assert_eq!((nothing.action, nothing.rules.len()), (AuthorizationAction::Allow, 0));
    assert_eq!(everything.rules, [Rule::everything("")]);
}

/// Each field once, and each kind of pattern.
const EVERY_FIELD: &str = r#"
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: full, annotations: {istio.io/dry-run: "false"}}
spec:
  selector: {matchLabels: {app: web}}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: [a/ns/b/sa/c, "a/*", "*/c", "*"]
        notPrincipals: [x]
        requestPrincipals: [issuer/subject]
        notRequestPrincipals: [x/y]
        namespaces: [b, "b-*"]
        notNamespaces: [x]
        trustDomains: [a]
        notTrustDomains: [x]
        ipBlocks: [10.0.0.0/8, "2001:db8::1"]
        notIpBlocks: [10.1.0.0/16]
        remoteIpBlocks: [10.0.0.0/8]
        notRemoteIpBlocks: [10.1.0.0/16]
    - source:
        serviceAccounts: [shop/web, web]
        notServiceAccounts: [shop/old]
    to:
    - operation:
        hosts: [web.example, "*.Example"]
        notHosts: [x]
        ports: ["80"]
        notPorts: ["81"]
        methods: [GET, "P*"]
        notMethods: [PATCH]
        paths: [/a, "/b/*", "*/c", "/d/{*}/{**}"]
        notPaths: [/x]
    when:
    - {key: "request.headers[x-role]", values: [a], notValues: [b]}
    - {key: source.ip, values: [10.0.0.1]}
    - {key: remote.ip, values: [10.0.0.1]}
    - {key: source.namespace, values: [b]}
    - {key: source.principal, values: [a]}
    - {key: source.serviceAccount, values: [web]}
    - {key: source.trustDomain, values: [a]}
    - {key: request.auth.principal, values: [a]}
    - {key: request.auth.audiences, values: [a]}
    - {key: request.auth.presenter, values: [a]}
    - {key: "request.auth.claims[a][b]", values: [a]}
    - {key: destination.ip, values: [10.0.0.1]}
    - {key: destination.port, values: ["80"]}
    - {key: connection.sni, values: [a]}
    - {key: "experimental.envoy.filters.a.b[c]", values: [a]}
"#;

#[test]
fn every_field_is_read() {
    let decoded = only(EVERY_FIELD);

    let spec = understood(&decoded);
    let [rule] = &spec.rules[..] else { panic!("{spec:?}") };
    assert_eq!((rule.from[0].len(), rule.from[1].len(), rule.to[0].len(), rule.when.len()), (12, 2, 8, 16));
    assert!(
        rule.when.iter().any(|condition| matches!(&condition.asks, Asks::Claim(path, _) if path.len() == 2))
    );
    // What nobody here can know.
    let told: Vec<_> =
        decoded.problems.iter().map(|problem| (problem.field.as_str(), problem.severity)).collect();
    assert!(told.contains(&("spec.rules[0].when[14].key", Severity::Error)), "{told:?}");
    assert_eq!(told.iter().filter(|(_, severity)| *severity == Severity::Error).count(), 1, "{told:?}");
}

/// Istio's own, in the directory beside the checkout where the acceptance documents are; a plain clone has none.
#[test]
fn every_valid_policy_of_istios_tests_is_read() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/acceptance-yaml/istio");
    for file in [
        "validation/testdata/crds/authz-valid.yaml",
        "authz/builder/testdata/http/allow-full-rule-in.yaml",
        "authz/builder/testdata/tcp/allow-only-http-in.yaml",
    ] {
        let Ok(text) = std::fs::read_to_string(shared.join(file)) else { continue };
        for decoded in decode(&text, &Arc::from(Path::new(file)), "default") {
            understood(&decoded);
        }
    }
}

/// Those of Istio's own list, and those that its validation refuses besides.
#[test]
fn what_istio_refuses_is_refused_with_its_line_and_what_to_change() {
    for (rule_text, expected) in [
        (
            "from: [{source: {serviceAccounts: [bar/sa], namespaces: [bar]}}]",
            "6 spec.rules[0].from[0].source: serviceAccounts cannot be set",
        ),
        (
            "from: [{source: {serviceAccounts: [baz/sa], principals: [bar]}}]",
            "6 spec.rules[0].from[0].source: serviceAccounts cannot be set",
        ),
        ("from: []", "6 spec.rules[0].from: is empty"),
        ("to: []", "6 spec.rules[0].to: is empty"),
        ("from: [{}]", "6 spec.rules[0].from[0].source: is missing"),
        ("from: [{source: {}}]", "6 spec.rules[0].from[0].source: is empty"),
        ("to: [{}]", "6 spec.rules[0].to[0].operation: is missing"),
        ("to: [{operation: {}}]", "6 spec.rules[0].to[0].operation: is empty"),
        ("from: [{source: {principals: ['']}}]", "6 spec.rules[0].from[0].source.principals[0]: is empty"),
        (
            "from: [{source: {ipBlocks: [1.2.3]}}]",
            "6 spec.rules[0].from[0].source.ipBlocks[0]: \"1.2.3\" is not an IP",
        ),
        (
            "from: [{source: {serviceAccounts: ['a/*']}}]",
            "6 spec.rules[0].from[0].source.serviceAccounts[0]: \"a/*\" is not a",
        ),
        (
            "from: [{source: {serviceAccounts: [a/b/c]}}]",
            "6 spec.rules[0].from[0].source.serviceAccounts[0]: \"a/b/c\"",
        ),
        (
            "to: [{operation: {ports: ['70000']}}]",
            "6 spec.rules[0].to[0].operation.ports[0]: \"70000\" is not a port",
        ),
        (
            "to: [{operation: {paths: ['/a/{b}/{*}']}}]",
            "6 spec.rules[0].to[0].operation.paths[0]: each segment",
        ),
        ("when: [{values: [a]}]", "6 spec.rules[0].when[0].key: is missing"),
        ("when: [{key: source.ip}]", "6 spec.rules[0].when[0]: has neither values nor notValues"),
        ("when: [{key: source.ip, values: [a]}]", "6 spec.rules[0].when[0].values[0]: \"a\" is not an IP"),
        (
            "when: [{key: source.ips, values: [a]}]",
            "6 spec.rules[0].when[0].key: \"source.ips\" is not something that a policy can ask for; did you mean source.ip?",
        ),
        (
            "when: [{key: 'request.headers[]', values: [a]}]",
            "6 spec.rules[0].when[0].key: \"request.headers[]\" names no header",
        ),
        (
            "when: [{key: destination.labels, values: [a]}]",
            "6 spec.rules[0].when[0].key: \"destination.labels\" is not something",
        ),
        (
            "from: [{source: {principal: [a]}}]",
            "6 spec.rules[0].from[0].source.principal: is not a field of this policy, so the policy cannot be used; did you mean principals?",
        ),
    ] {
        let refused = refused(&rule(rule_text));
        assert!(refused.starts_with(expected), "{rule_text}: {refused}");
    }
    for (spec, expected) in [
        ("  action: DENY\n", "spec.rules: a DENY policy without rules never matches; add the rule {}"),
        (
            "  action: CUSTOM\n  provider: {name: x}\n",
            "spec.rules: a CUSTOM policy without rules never matches",
        ),
        ("  action: CUSTOM\n  rules: [{}]\n", "spec.provider.name: is missing"),
        (
            "  action: DENY\n  provider: {name: x}\n  rules: [{}]\n",
            "spec.provider: only a CUSTOM policy has a provider, and this one is DENY",
        ),
        ("  action: REFUSE\n", "spec.action: "),
        ("  rules:\n  -\n", "spec.rules[0]: expected a map of fields"),
        ("  selector: {matchExpressions: []}\n", "spec.selector.matchExpressions: is not understood"),
        (
            "  selector: {matchLabels: {a: b}}\n  targetRef: {kind: Service, name: a}\n",
            "spec.targetRef: only one of",
        ),
        ("  targetRefs: [{kind: Service}]\n", "spec.targetRefs[0].name: is missing"),
        (
            "  targetRefs: [{kind: Service, name: a, namespace: b}]\n",
            "spec.targetRefs[0].namespace: a policy is for",
        ),
        (
            "  ruels: []\n",
            "spec.ruels: is not a field of this policy, so the policy cannot be used; did you mean rules?",
        ),
    ] {
        let refused = refused(&policy(spec));
        assert!(refused.split_once(' ').unwrap().1.starts_with(expected), "{spec}: {refused}");
    }
}

#[test]
fn custom_is_an_error_that_refuses_the_document_alone() {
    let decoded = policy("  action: CUSTOM\n  provider: {name: x}\n  rules: [{}]\n");

    assert_eq!(understood(&decoded).action, AuthorizationAction::Custom);
    let [problem] = &decoded.problems[..] else { panic!("{decoded:?}") };
    assert_eq!((problem.severity, problem.fault.is_alone(), problem.line), (Severity::Error, true, Some(5)));
    assert!(problem.message.starts_with("CUSTOM is not enforced"), "{problem}");
}

#[test]
fn a_dry_run_is_what_go_reads_as_true_and_anything_else_is_enforced() {
    let annotated = |value: &str| {
        only(&format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: a\n  annotations:\n    istio.io/dry-run: '{value}'\n"
        ))
    };

    assert!(understood(&annotated("true")).dry_run);
    assert!(!understood(&annotated("False")).dry_run);
    let odd = annotated("yes");
    assert!(!understood(&odd).dry_run);
    assert_eq!((odd.problems[0].severity, odd.problems[0].line), (Severity::Error, Some(6)));
}

#[test]
fn a_policy_is_for_services_or_for_the_labels_of_workloads() {
    let services = |spec: &str| understood(&policy(spec)).services;

    assert_eq!(
        services("  targetRefs: [{kind: Service, name: a}, {kind: Service, group: core, name: b}]\n"),
        Some(vec!["a".to_owned(), "b".to_owned()])
    );
    assert_eq!(services("  targetRef: {kind: Service, name: a}\n"), Some(vec!["a".to_owned()]));
    assert_eq!(services("  selector: {matchLabels: {app: web}}\n"), None);
    let gateway = policy("  targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: a}\n");
    let spec = understood(&gateway);
    assert_eq!((spec.services, spec.gateways), (Some(Vec::new()), vec!["a".to_owned()]));
    assert!(gateway.problems.is_empty(), "{:?}", gateway.problems);
    for (target, called) in [
        ("group: gateway.networking.k8s.io, kind: GatewayClass", "GatewayClass of gateway.networking.k8s.io"),
        ("group: gateway.networking.k8s.io, kind: HTTPRoute", "HTTPRoute of gateway.networking.k8s.io"),
        ("group: networking.istio.io, kind: Gateway", "Gateway of networking.istio.io"),
        ("kind: Gateway", "Gateway of core"),
    ] {
        let unknown = policy(&format!("  targetRef: {{{target}, name: a}}\n"));
        assert!(matches!(unknown.outcome, DecodeOutcome::Failed), "{target}");
        let told = &unknown.problems[0].message;
        assert!(told.starts_with(&format!("a policy for a {called} cannot be enforced")), "{told}");
    }
}

#[test]
fn a_rule_that_denies_by_http_alone_says_that_other_ports_are_closed() {
    let denies = |rule: &str| policy(&format!("  action: DENY\n  rules:\n  - {rule}\n")).problems.len();

    assert_eq!(denies("to: [{operation: {methods: [GET]}}]"), 1);
    assert_eq!(denies("to: [{operation: {methods: [GET], ports: ['80']}}]"), 0);
    assert_eq!(denies("from: [{source: {namespaces: [a]}}]"), 0);
    assert_eq!(denies("{}"), 0);
}

#[test]
fn paths_that_no_request_can_have_are_told() {
    let decoded = rule(
        "{to: [{operation: {paths: [/a, '/100%/*', '/b?c', '*%2Ekey'], notPaths: ['/{*}/..']}}], when: [{key: 'request.headers[:path]', \
         values: ['/a?b=%', 'admin*']}]}",
    );

    let told: Vec<&str> = decoded.problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(
        told,
        [
            "spec.rules[0].to[0].operation.paths[1]",
            "spec.rules[0].to[0].operation.paths[2]",
            "spec.rules[0].to[0].operation.notPaths[0]",
            "spec.rules[0].when[0].values[1]",
        ],
        "{:?}",
        decoded.problems
    );
    assert!(decoded.problems.iter().all(|problem| problem.severity == Severity::Warning));
}
