//! What is said of policies that name what there is not, or ask of a port what it cannot say.

use super::*;

/// A workload with HTTP at 8080 and something else at 5432, one without a sidecar, and one that is opaque alone.
const WORKLOADS: &str = "
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: app}
spec: {address: 10.0.0.1, serviceAccount: app, ports: {http: 8080, db: 5432}, labels: {app: app, security.istio.io/tlsMode: istio}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: legacy}
spec: {address: 10.0.0.2, serviceAccount: legacy, ports: {http: 8080}, labels: {app: legacy}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: db}
spec: {address: 10.0.0.3, serviceAccount: db, ports: {db: 3306}, labels: {app: db, security.istio.io/tlsMode: istio}}
---
";

const UNKNOWN_PORT: &str = "has port 9999, so";
const NOBODY: &str = "no workload has the service account default/nobody";
const SELECTS_NONE: &str = "selects no workload";
const NO_SIDECAR: &str = "is not enforced at default/legacy: without a sidecar";

/// Warnings about the document whose `spec` this is.
fn said(version: &str, kind: &str, spec: &str) -> Vec<(String, String)> {
    let document = format!(
        "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: own, namespace: default}}\nspec: {spec}\n"
    );
    let (_, problems) = compiled(&format!("{WORKLOADS}{document}"));
    let own = problems.into_iter().filter(|problem| {
        problem.severity == Severity::Warning
            && problem.document.as_ref().is_some_and(|name| &*name.name == "own")
    });
    own.map(|problem| (problem.field.to_string(), problem.message.to_string())).collect()
}

/// Asserts that of each document just this is said, in this order of fields.
fn all_are_said(version: &str, kind: &str, list: &[(&str, &[(&str, &str)])]) {
    for (spec, expected) in list {
        let said = said(version, kind, spec);
        let is_one = |(field, words): &(&str, &str)| {
            said.iter().any(|(at, message)| at == field && message.contains(words))
        };
        assert!(expected.iter().all(is_one) && said.len() == expected.len(), "{kind} {spec}: {said:#?}");
    }
}

#[test]
fn an_authorization_policy_that_names_what_there_is_not_says_what_it_means() {
    let app = "selector: {matchLabels: {app: app}}";
    let of = |rest: &str| format!("{{{app}, {rest}}}");
    let to = "spec.rules[0].to[0].operation";
    all_are_said(
        "security.istio.io/v1",
        "AuthorizationPolicy",
        &[
            ("{selector: {matchLabels: {app: nobody}}}", &[("spec.selector.matchLabels", SELECTS_NONE)]),
            ("{selector: {matchLabels: {app: legacy}}}", &[("spec.selector", NO_SIDECAR)]),
            (&of("rules: [{to: [{operation: {ports: ['9999']}}]}]"), &[(to, UNKNOWN_PORT)]),
            (&of("rules: [{to: [{operation: {ports: ['8080']}}]}]"), &[]),
            (
                &of("rules: [{when: [{key: destination.port, values: ['9999']}]}]"),
                &[("spec.rules[0].when", UNKNOWN_PORT)],
            ),
            (
                &of("rules: [{from: [{source: {serviceAccounts: [nobody, app]}}]}]"),
                &[("spec.rules[0].from[0].source", NOBODY)],
            ),
            (
                &of(
                    "rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/nobody, other/ns/a/sa/b]}}]}]",
                ),
                &[("spec.rules[0].from[0].source", NOBODY)],
            ),
            (
                &of(
                    "rules: [{from: [{source: {principals: ['*'], notPrincipals: [cluster.local/ns/default/sa/nobody]}}]}]",
                ),
                &[],
            ),
            (
                &of("rules: [{to: [{operation: {methods: [GET]}}]}]"),
                &[(to, "port 5432 of default/app carries no HTTP, so there it allows nothing")],
            ),
            (&of("rules: [{to: [{operation: {methods: [GET], ports: ['8080']}}]}]"), &[]),
            (
                &of("action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ['5432']}}]}]"),
                &[(to, "port 5432 of default/app carries no HTTP, so there it denies")],
            ),
        ],
    );
}

#[test]
fn the_other_policies_of_istio_and_rate_limits_say_it_too() {
    all_are_said(
        "security.istio.io/v1",
        "PeerAuthentication",
        &[
            (
                "{selector: {matchLabels: {app: nobody}}, mtls: {mode: STRICT}}",
                &[("spec.selector.matchLabels", SELECTS_NONE)],
            ),
            (
                "{selector: {matchLabels: {app: legacy}}, mtls: {mode: STRICT}}",
                &[("spec.selector", NO_SIDECAR)],
            ),
            (
                "{selector: {matchLabels: {app: app}}, portLevelMtls: {9999: {mode: STRICT}, 8080: {mode: STRICT}}}",
                &[("spec.portLevelMtls.9999", UNKNOWN_PORT)],
            ),
            ("{mtls: {mode: STRICT}}", &[]),
        ],
    );
    let keys = "jwtRules: [{issuer: a, jwksUri: 'https://a.example/k'}]";
    let of = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}, {keys}}}");
    all_are_said(
        "security.istio.io/v1",
        "RequestAuthentication",
        &[
            (&of("nobody"), &[("spec.selector.matchLabels", SELECTS_NONE)]),
            (&of("legacy"), &[("spec.selector", NO_SIDECAR)]),
            (&of("db"), &[("spec.selector", "port 3306 of default/db carries no HTTP")]),
            (&of("app"), &[]),
        ],
    );
    let limits = "limits: [{requests: 5, per: 1s}]";
    let of = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}, {limits}}}");
    all_are_said(
        "selvedge.io/v1alpha1",
        "RateLimit",
        &[
            (&of("nobody"), &[("spec.selector.matchLabels", SELECTS_NONE)]),
            (&of("legacy"), &[("spec.selector", NO_SIDECAR)]),
            (&of("db"), &[("spec.selector", "port 3306 of default/db carries no HTTP")]),
            (&of("app"), &[]),
        ],
    );
}

#[test]
fn network_policies_of_both_kinds_say_it_too() {
    let ports = "no document says that a workload which the policy selects has port 9999";
    all_are_said(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        &[
            ("{podSelector: {matchLabels: {app: nobody}}}", &[("spec.podSelector", SELECTS_NONE)]),
            (
                "{podSelector: {matchLabels: {app: app}}, ingress: [{ports: [{port: 9999}, {port: 8080}, {port: 5000, endPort: 6000}]}]}",
                &[("spec.ingress[0].ports", ports)],
            ),
        ],
    );
    all_are_said(
        "projectcalico.org/v3",
        "NetworkPolicy",
        &[
            ("{selector: \"app == 'nobody'\", types: [Ingress]}", &[("spec.selector", SELECTS_NONE)]),
            (
                "{selector: \"app == 'app'\", types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [9999]}}]}",
                &[("spec.ingress[0].destination.ports", ports)],
            ),
            (
                "{selector: \"app == 'app'\", types: [Ingress], ingress: [{action: Allow, source: {serviceAccounts: {names: \
                 [nobody]}}}]}",
                &[("spec.ingress[0]", "selects no workload, so it is about nobody")],
            ),
        ],
    );
}

#[test]
fn linkerds_policies_say_it_too() {
    all_are_said(
        "policy.linkerd.io/v1beta3",
        "Server",
        &[
            (
                "{podSelector: {matchLabels: {app: app}}, port: nothing}",
                &[("spec.podSelector", "selects no port of a workload")],
            ),
            ("{podSelector: {matchLabels: {app: legacy}}, port: 8080}", &[("spec.podSelector", NO_SIDECAR)]),
        ],
    );
    all_are_said(
        "policy.linkerd.io/v1alpha1",
        "MeshTLSAuthentication",
        &[
            (
                "{identityRefs: [{kind: ServiceAccount, name: nobody}, {kind: ServiceAccount, name: app}]}",
                &[("spec.identityRefs", NOBODY)],
            ),
            (
                "{identities: [nobody.default.serviceaccount.identity.linkerd.cluster.local, '*']}",
                &[("spec.identities[0]", NOBODY)],
            ),
        ],
    );
    all_are_said(
        "policy.linkerd.io/v1alpha1",
        "AuthorizationPolicy",
        &[(
            "{targetRef: {kind: Namespace, name: default}, requiredAuthenticationRefs: [{kind: ServiceAccount, name: nobody}]}",
            &[("spec.requiredAuthenticationRefs[0]", NOBODY)],
        )],
    );
}
