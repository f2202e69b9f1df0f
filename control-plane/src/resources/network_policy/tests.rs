//! What a `NetworkPolicy` means, and what is refused.

use crate::{
    problem::Severity,
    resources::{
        DecodeOutcome, Decoded, NetworkPolicySpec, Resource, decode,
        network_policy::{PeerSpec, PortSpec},
    },
};

fn decoded(spec: &str) -> Decoded {
    let text = format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: a, namespace: shop}}\nspec: {spec}\n"
    );
    decode(&text, &std::path::Path::new("a.yaml").into(), "default").remove(0)
}

fn read(spec: &str) -> NetworkPolicySpec {
    match decoded(spec).outcome {
        DecodeOutcome::Understood(Resource::NetworkPolicy(document)) => document.spec.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_is_for_ingress_and_for_what_it_has_rules_for_unless_it_says_so() {
    for (spec, ingress, egress) in [
        ("{podSelector: {}}", true, false),
        ("{podSelector: {}, egress: []}", true, false),
        ("{podSelector: {}, egress: [{}]}", true, true),
        ("{policyTypes: [Egress]}", false, true),
        ("{policyTypes: [Ingress, Egress]}", true, true),
        ("{policyTypes: []}", true, false),
    ] {
        let read = read(spec);
        assert_eq!((read.ingress.is_some(), read.egress.is_some()), (ingress, egress), "{spec}");
    }
    let ignored = decoded("{policyTypes: [Egress], ingress: [{}]}").problems;
    assert_eq!((ignored[0].severity, &*ignored[0].field), (Severity::Warning, "spec.ingress"));
}

#[test]
fn an_empty_list_is_as_good_as_none() {
    for spec in ["{ingress: [{}]}", "{ingress: [{from: [], ports: []}]}"] {
        let rules = read(spec).ingress.unwrap();
        assert_eq!((&rules[0].peers, &rules[0].ports), (&None, &None), "{spec}");
    }
    assert!(read("{ingress: []}").ingress.unwrap().is_empty());
}

#[test]
fn peers_are_selectors_of_both_kinds_together_or_blocks() {
    let spec = "{ingress: [{from: [{podSelector: {}}, {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}, \
                {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}";
    let peers = read(spec).ingress.unwrap().remove(0).peers.unwrap();

    assert!(matches!(&peers[0], PeerSpec::Pods { namespaces: None, pods } if pods.is_empty()));
    assert!(
        matches!(&peers[1], PeerSpec::Pods { namespaces: Some(all), pods } if all.is_empty() && !pods.is_empty())
    );
    assert!(matches!(&peers[2], PeerSpec::Block { except, .. } if except.len() == 1));
}

#[test]
fn ports_are_numbers_ranges_and_names_and_other_protocols_are_reported() {
    let spec = "{egress: [{ports: [{port: 80}, {port: 8000, endPort: 8100, protocol: TCP}, {port: http}, {}]}, \
                {ports: [{protocol: UDP, port: 53}, {protocol: SCTP}]}]}";
    let rules = read(spec).egress.unwrap();

    let all = [
        PortSpec::Numbers(80, 80),
        PortSpec::Numbers(8000, 8100),
        PortSpec::Name("http".to_owned()),
        PortSpec::Numbers(1, u16::MAX),
    ];
    assert_eq!(rules[0].ports.as_deref(), Some(&all[..]));
    assert_eq!(rules[1].ports.as_deref(), Some(&[][..]));
    let problems = decoded(spec).problems;
    let fields: Vec<_> = problems.iter().map(|problem| &*problem.field).collect();
    assert_eq!(fields, ["spec.egress[1].ports[0].protocol", "spec.egress[1].ports[1].protocol"]);
    assert!(problems.iter().all(|problem| problem.severity == Severity::Warning));
}

#[test]
fn what_the_api_server_refuses_is_refused_with_its_field() {
    for (spec, field) in [
        ("{policyTypes: [ingress]}", "spec.policyTypes[0]"),
        ("{policyTypes: [Ingress, Egress, Egress]}", "spec.policyTypes"),
        (
            "{podSelector: {matchExpressions: [{key: a, operator: Equals}]}}",
            "spec.podSelector.matchExpressions[0].operator",
        ),
        ("{ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]"),
        (
            "{ingress: [{from: [{podSelector: {}, ipBlock: {cidr: 10.0.0.0/8}}]}]}",
            "spec.ingress[0].from[0].ipBlock",
        ),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr"),
        ("{ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/33}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr"),
        ("{ingress: [{from: [{ipBlock: {}}]}]}", "spec.ingress[0].from[0].ipBlock.cidr"),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [11.0.0.0/16]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/8]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
        (
            "{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [x]}}]}]}",
            "spec.egress[0].to[0].ipBlock.except[0]",
        ),
        ("{egress: [{ports: [{port: 0}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: 65536}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: Bad_Name}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{port: a-name-that-is-too-long}]}]}", "spec.egress[0].ports[0].port"),
        ("{egress: [{ports: [{protocol: tcp}]}]}", "spec.egress[0].ports[0].protocol"),
        ("{egress: [{ports: [{endPort: 80}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{egress: [{ports: [{port: http, endPort: 80}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{egress: [{ports: [{port: 90, endPort: 80}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{egress: [{ports: [{port: 90, endPort: 70000}]}]}", "spec.egress[0].ports[0].endPort"),
        ("{podSelectors: {}}", "spec.podSelectors"),
        (
            "{ingress: [{from: [{podSelector: {matchLabel: {a: b}}}]}]}",
            "spec.ingress[0].from[0].podSelector.matchLabel.a",
        ),
    ] {
        let decoded = decoded(spec);
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{spec}");
        let problem = &decoded.problems[0];
        assert_eq!(
            (&*problem.field, problem.severity, problem.line),
            (field, Severity::Error, Some(4)),
            "{spec}"
        );
        assert!(decoded.stand_in.is_some(), "{spec}");
    }
}

#[test]
fn what_cannot_be_used_is_read_as_refusing_all_that_it_may_be_for() {
    let strict = |spec: &str| match decoded(spec).stand_in.map(|stand_in| stand_in.resource) {
        Some(Resource::NetworkPolicy(document)) => document.spec.clone(),
        other => panic!("{other:?}"),
    };

    let known = strict("{podSelector: {matchLabels: {a: b}}, ingress: [{from: [{}]}]}");
    assert!(!known.any_workload && known.pods.asks_for("a"));
    assert_eq!((known.ingress, known.egress), (Some(Vec::new()), Some(Vec::new())));
    let unknown = strict("{podSelector: {matchExpressions: [{key: a, operator: x}]}}");
    assert!(unknown.any_workload);
}
