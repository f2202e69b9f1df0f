//! What Calico's policies mean, and what is refused.

use std::path::Path;

use selvedge_model::policy::network::{EndOfTier, NetworkAction};

use super::policy::CalicoPolicySpec;
use crate::{
    problem::Severity,
    resources::{DecodeOutcome, Decoded, PortSpec, Resource, decode},
};

fn decoded(kind: &str, spec: &str) -> Decoded {
    let text =
        format!("apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
    decode(&text, &Path::new("a.yaml").into(), "default").remove(0)
}

fn read(spec: &str) -> CalicoPolicySpec {
    match decoded("GlobalNetworkPolicy", spec).outcome {
        DecodeOutcome::Understood(Resource::CalicoPolicy(document)) => document.spec.clone(),
        other => panic!("{spec}: {other:?}"),
    }
}

#[test]
fn each_kind_is_known_by_its_group() {
    for (version, kind, called) in [
        ("projectcalico.org/v3", "GlobalNetworkPolicy", "GlobalNetworkPolicy /a"),
        ("projectcalico.org/v3", "NetworkPolicy", "NetworkPolicy.projectcalico.org default/a"),
        ("crd.projectcalico.org/v1", "NetworkPolicy", "NetworkPolicy.crd.projectcalico.org default/a"),
        ("networking.k8s.io/v1", "NetworkPolicy", "NetworkPolicy default/a"),
        ("projectcalico.org/v3", "NetworkSet", "NetworkSet default/a"),
        ("crd.projectcalico.org/v1", "GlobalNetworkSet", "GlobalNetworkSet.crd.projectcalico.org /a"),
    ] {
        let text = format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n");
        let decoded = decode(&text, &Path::new("a.yaml").into(), "default").remove(0);
        assert!(
            matches!(decoded.outcome, DecodeOutcome::Understood(_)),
            "{version} {kind}: {:?}",
            decoded.problems
        );
        let name = decoded.name.unwrap();
        assert_eq!(format!("{} {}/{}", name.kind, name.namespace, name.name), called);
    }
}

#[test]
fn a_policy_is_for_the_directions_that_it_has_rules_for_unless_it_says_so() {
    for (spec, ingress, egress) in [
        ("{}", true, false),
        ("{ingress: [{action: Allow}]}", true, false),
        ("{egress: [{action: Allow}]}", false, true),
        ("{ingress: [{action: Allow}], egress: [{action: Deny}]}", true, true),
        ("{types: [Egress]}", false, true),
    ] {
        let read = read(spec);
        assert_eq!((read.ingress.is_some(), read.egress.is_some()), (ingress, egress), "{spec}");
    }
}

#[test]
fn a_rule_has_its_action_its_protocol_and_both_sides() {
    let spec = "{order: 10.5, egress: [{action: Pass, protocol: TCP, destination: {nets: [10.0.0.1, 'fd00::/8'], ports: [80, \
                '8000:8010', http], notPorts: ['81']}}, {action: Log, protocol: 17}]}";
    let read = read(spec);
    let rules = read.egress.unwrap();

    assert_eq!(read.order, Some(10.5));
    assert_eq!(rules[0].action, NetworkAction::Pass);
    let ports = [PortSpec::Numbers(80, 80), PortSpec::Numbers(8000, 8010), PortSpec::Name("http".to_owned())];
    assert_eq!(rules[0].destination.ports.as_deref(), Some(&ports[..]));
    assert_eq!(rules[0].destination.not_ports, [PortSpec::Numbers(81, 81)]);
    assert!(rules[1].is_of_other_protocols && !rules[0].is_of_other_protocols);
}

#[test]
fn what_a_proxy_cannot_enforce_is_said_with_its_field() {
    for (spec, field, severity) in [
        ("{ingress: [{action: Deny, protocol: UDP}]}", "spec.ingress[0].protocol", Severity::Warning),
        ("{ingress: [{action: Deny, notProtocol: TCP}]}", "spec.ingress[0].notProtocol", Severity::Warning),
        ("{ingress: [{action: Deny, icmp: {type: 8}}]}", "spec.ingress[0].icmp", Severity::Warning),
        ("{ingress: [{action: Deny, notICMP: {code: 1}}]}", "spec.ingress[0].notICMP", Severity::Warning),
        (
            "{ingress: [{action: Deny, protocol: TCP, source: {ports: [80]}}]}",
            "spec.ingress[0].source.ports",
            Severity::Warning,
        ),
        ("{preDNAT: true}", "spec.preDNAT", Severity::Error),
        ("{doNotTrack: true}", "spec.doNotTrack", Severity::Error),
        ("{types: [Ingress], egress: [{action: Allow}]}", "spec.egress", Severity::Warning),
    ] {
        let problems = decoded("GlobalNetworkPolicy", spec).problems;
        let told: Vec<_> = problems.iter().map(|problem| (&*problem.field, problem.severity)).collect();
        assert_eq!(told, [(field, severity)], "{spec}");
    }
    assert_eq!((&*read("{tier: security}").tier, &*read("{tier: ''}").tier), ("security", "default"));
}

#[test]
fn what_calico_refuses_is_refused_with_its_field() {
    for (spec, field) in [
        ("{selector: app = 'web'}", "spec.selector"),
        ("{selector: app == web}", "spec.selector"),
        ("{namespaceSelector: has(}", "spec.namespaceSelector"),
        ("{serviceAccountSelector: role = 'a'}", "spec.serviceAccountSelector"),
        ("{tier: adminnetworkpolicy}", "spec.tier"),
        ("{tier: kube-baseline}", "spec.tier"),
        (
            "{ingress: [{action: Allow, source: {serviceAccounts: {selector: '('}}}]}",
            "spec.ingress[0].source.serviceAccounts",
        ),
        ("{types: [ingress]}", "spec.types[0]"),
        ("{ingress: [{}]}", "spec.ingress[0].action"),
        ("{ingress: [{action: allow}]}", "spec.ingress[0].action"),
        ("{ingress: [{action: Allow, protocol: HTTP}]}", "spec.ingress[0].protocol"),
        ("{ingress: [{action: Allow, protocol: 256}]}", "spec.ingress[0].protocol"),
        ("{ingress: [{action: Allow, ipVersion: 5}]}", "spec.ingress[0].ipVersion"),
        ("{ingress: [{action: Allow, destination: {ports: [80]}}]}", "spec.ingress[0].protocol"),
        (
            "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['90:80']}}]}",
            "spec.ingress[0].destination.ports[0]",
        ),
        (
            "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['80:']}}]}",
            "spec.ingress[0].destination.ports[0]",
        ),
        ("{ingress: [{action: Allow, source: {nets: [10.0.0.0/33]}}]}", "spec.ingress[0].source.nets[0]"),
        ("{ingress: [{action: Allow, source: {notNets: [x]}}]}", "spec.ingress[0].source.notNets[0]"),
        ("{ingress: [{action: Allow, source: {notSelector: '('}}]}", "spec.ingress[0].source.notSelector"),
        ("{ingress: [{action: Allow, http: {methods: [GET]}}]}", "spec.ingress[0].http"),
        ("{selectors: all()}", "spec.selectors"),
    ] {
        let decoded = decoded("GlobalNetworkPolicy", spec);
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{spec}");
        let found = &decoded.problems[0].field;
        assert!(found.starts_with(field), "{spec}: {found}");
        let Some(Resource::CalicoPolicy(strict)) = decoded.stand_in.map(|stand_in| stand_in.resource) else {
            panic!("{spec}")
        };
        assert_eq!(
            (&strict.spec.ingress, &strict.spec.egress),
            (&Some(Vec::new()), &Some(Vec::new())),
            "{spec}"
        );
    }
    let namespaced = decoded("NetworkPolicy", "{namespaceSelector: all()}");
    assert_eq!(namespaced.problems[0].field, "spec.namespaceSelector");
    let message = &decoded("GlobalNetworkPolicy", "{ingress: [{action: allow}]}").problems[0].message;
    assert!(message.contains("did you mean Allow?"), "{message}");
}

#[test]
fn a_tier_has_an_order_and_denies_or_passes_what_nothing_decides() {
    let tier = |name: &str, spec: &str| {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {{name: {name}}}\nspec: {spec}\n"
        );
        decode(&text, &Path::new("mesh.yaml").into(), "default").remove(0)
    };
    for (name, spec, order, otherwise) in [
        ("security", "{order: 10.5, defaultAction: Pass}", Some(10.5), EndOfTier::Pass),
        ("security", "{}", None, EndOfTier::Deny),
        ("default", "{order: 1000000, defaultAction: Deny}", Some(1_000_000.0), EndOfTier::Deny),
    ] {
        let decoded = tier(name, spec);
        let DecodeOutcome::Understood(Resource::Tier(read)) = &decoded.outcome else { panic!("{decoded:?}") };
        assert_eq!((read.spec.order, read.spec.otherwise), (order, otherwise), "{spec}");
    }
    for (name, spec, field) in [
        ("security", "{defaultAction: pass}", "spec.defaultAction"),
        ("default", "{order: 5}", "spec.order"),
        ("default", "{defaultAction: Pass}", "spec.defaultAction"),
    ] {
        let decoded = tier(name, spec);
        assert!(matches!(decoded.outcome, DecodeOutcome::Failed), "{spec}");
        assert_eq!(decoded.problems[0].field, field, "{spec}");
    }
}
