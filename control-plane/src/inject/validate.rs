//! Whether the API server should store a document. The document is read and compiled as in the control plane.
//!
//! A document that is wrong in itself is refused. A problem between documents is a warning, because the other document may
//! come next (a `VirtualService` before its `DestinationRule`). Fields that are not acted on, and effects that other
//! documents lose because of this one, are warnings too.

use std::collections::HashSet;

use selvedge_model::Mesh;
use serde_json::Value;

use crate::{
    compile::{MeshSettings, compile},
    problem::{Fault, Problem, Severity},
    resources::{DecodeOutcome, Resources, decode_value},
};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong with the document alone. Empty: it may be kept.
    pub errors: Vec<String>,
    /// What may not be as meant.
    pub warnings: Vec<String>,
}

/// How many problems that other documents would have by this one are told. Who asks cannot use a long list.
const OTHERS_TOLD: usize = 5;

/// What `object` of `namespace` means among `others`, which have the problems `known`, as far as that is known.
pub fn validate(
    object: Value,
    namespace: &str,
    others: &Resources,
    settings: &MeshSettings,
    known: &[Problem],
) -> Verdict {
    let mut verdict = Verdict::default();
    let decoded = decode_value(object, namespace);
    for problem in decoded.problems {
        verdict.add(&if settings.allow_unenforced { problem.accepted() } else { problem });
    }
    let DecodeOutcome::Understood(resource) = decoded.outcome else { return verdict };
    let name = resource.name().clone();
    let mut together = others.clone();
    together.put(resource);
    let (_, between) = compile(&together, settings, &Mesh::default());
    let (own, of_others): (Vec<_>, Vec<_>) =
        between.iter().partition(|problem| problem.document.as_ref() == Some(&name));
    own.into_iter().for_each(|problem| verdict.add(problem));
    let of_others = of_others
        .into_iter()
        .filter(|problem| problem.severity != Severity::NotActedOn && !known.contains(problem));
    let mut new: Vec<_> = of_others.collect();
    if !new.is_empty() {
        // What is known may be a moment old: only what goes without this document is its doing.
        let (_, without) = compile(others, settings, &Mesh::default());
        let place = |problem: &Problem| (problem.document.clone(), problem.field.clone());
        let there: HashSet<_> = without.iter().map(place).collect();
        new.retain(|problem| !there.contains(&place(problem)));
    }
    verdict.add_of_others(&new);
    verdict
}

impl Verdict {
    fn add_of_others(&mut self, problems: &[&Problem]) {
        let told = problems.iter().take(OTHERS_TOLD).map(|problem| format!("because of this, {problem}"));
        self.warnings.extend(told);
        let more = problems.len().saturating_sub(OTHERS_TOLD);
        if more > 0 {
            self.warnings.push(format!("because of this, other documents have {more} more problems"));
        }
    }

    fn add(&mut self, problem: &Problem) {
        let is_at_fault = problem.fault.is_alone() || problem.fault == Fault::SamePort;
        let refuses = is_at_fault && problem.severity == Severity::Error;
        let mut words = match problem.field.as_str() {
            "" => problem.message.clone(),
            field => format!("{field}: {}", problem.message),
        };
        if problem.severity == Severity::NotActedOn && !words.contains("not acted on") {
            words = format!("not acted on: {words}");
        }
        let list = if refuses { &mut self.errors } else { &mut self.warnings };
        list.push(words);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn virtual_service(http: &Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": { "name": "reviews", "namespace": "shop", "uid": "1", "generation": 1 },
            "spec": { "hosts": ["reviews"], "http": http },
        })
    }

    /// Where its routes lead.
    fn service() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "namespace": "shop" },
            "spec": { "ports": [{ "port": 9080 }], "selector": { "app": "reviews" } },
        })
    }

    fn rule(subsets: &Value) -> Value {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": { "name": "reviews", "namespace": "shop" },
            "spec": { "host": "reviews", "subsets": subsets },
        })
    }

    fn v2() -> Value {
        json!([{ "name": "v2", "labels": { "version": "v2" } }])
    }

    fn verdict(object: &Value, others: &[Value]) -> Verdict {
        let mut resources = Resources::default();
        for other in others {
            let decoded = decode_value(other.clone(), "shop");
            let DecodeOutcome::Understood(resource) = decoded.outcome else {
                panic!("{:?}", decoded.problems)
            };
            resources.put(resource);
        }
        validate(object.clone(), "shop", &resources, &MeshSettings::default(), &[])
    }

    fn security(name: &str, namespace: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": { "name": name, "namespace": namespace }, "spec": spec,
        })
    }

    #[test]
    fn what_is_wrong_with_a_document_alone_refuses_it_with_every_field() {
        let http = json!([{ "timeout": "5", "route": [{ "destination": { "host": "reviews" } }] }]);

        let verdict = verdict(&virtual_service(&http), &[]);

        assert_eq!(verdict.errors.len(), 1, "{verdict:?}");
        assert!(verdict.errors[0].starts_with("spec.http[0].timeout: "), "{verdict:?}");
    }

    #[test]
    fn a_route_before_its_subsets_is_a_warning() {
        let http = json!([{ "route": [{ "destination": { "host": "reviews", "subset": "v2" } }] }]);

        let before = verdict(&virtual_service(&http), &[service()]);

        assert_eq!(before.errors, Vec::<String>::new());
        assert_eq!(before.warnings.len(), 1, "{before:?}");
        assert!(before.warnings[0].contains("v2"), "{before:?}");
        assert_eq!(verdict(&virtual_service(&http), &[service(), rule(&v2())]), Verdict::default());
    }

    #[test]
    fn what_only_the_compiler_finds_wrong_with_a_document_alone_refuses_it() {
        let entry = |hosts: &Value| {
            json!({
                "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
                "metadata": { "name": "outside", "namespace": "shop" },
                "spec": {
                    "hosts": hosts, "resolution": "DNS",
                    "ports": [{ "number": 443, "name": "tls", "protocol": "TLS" }],
                },
            })
        };
        let route = |parents: &Value| {
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1alpha2", "kind": "TCPRoute",
                "metadata": { "name": "db", "namespace": "shop" },
                "spec": { "parentRefs": parents, "rules": [{ "backendRefs": [{ "name": "db", "port": 5432 }] }] },
            })
        };
        let parent = json!({ "group": "", "kind": "Service", "name": "db", "port": 5432 });
        let in_root = json!({ "selector": { "matchLabels": { "app": "a" } }, "mtls": { "mode": "STRICT" } });

        for (document, field) in [
            (entry(&json!(["a.example", "a.example"])), "spec.hosts[1]"),
            (route(&json!([parent, parent])), "spec.parentRefs[1]"),
            (security("a", "istio-system", &in_root), "spec.selector"),
        ] {
            let verdict = verdict(&document, &[]);
            let [error] = &verdict.errors[..] else { panic!("{document}: {verdict:?}") };
            assert!(error.starts_with(&format!("{field}: ")), "{error}");
        }
        assert_eq!(verdict(&entry(&json!(["a.example"])), &[]), Verdict::default());
    }

    #[test]
    fn a_policy_that_is_not_enforced_is_refused_unless_that_is_accepted() {
        let limit = json!({
            "apiVersion": "policy.linkerd.io/v1alpha1", "kind": "EgressNetwork",
            "metadata": { "name": "limit", "namespace": "shop" }, "spec": {},
        });
        let custom = json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": { "name": "custom", "namespace": "shop" },
            "spec": { "action": "CUSTOM", "provider": { "name": "x" }, "rules": [{}] },
        });
        let accepting = MeshSettings { allow_unenforced: true, ..MeshSettings::default() };

        let refused = verdict(&limit, &[]);
        let accepted = validate(limit, "shop", &Resources::default(), &accepting, &[]);

        assert!(refused.errors[0].contains("is not enforced"), "{refused:?}");
        assert_eq!(accepted.errors, Vec::<String>::new());
        assert!(accepted.warnings[0].contains("not acted on"), "{accepted:?}");
        // That one refuses everything, which nobody can accept by mistake.
        assert!(verdict(&custom, &[]).errors[0].starts_with("spec.action: CUSTOM is not enforced"));
    }

    #[test]
    fn what_another_document_has_a_part_in_is_a_warning() {
        let strict = json!({ "mtls": { "mode": "STRICT" } });
        let first = security("a", "shop", &strict);

        let verdict = verdict(&security("b", "shop", &strict), &[first]);

        assert_eq!(verdict.errors, Vec::<String>::new());
        assert!(verdict.warnings[0].contains("has no effect: PeerAuthentication shop/a"), "{verdict:?}");
    }

    #[test]
    fn what_others_lose_by_a_document_is_a_warning_and_what_they_lack_anyway_is_not() {
        let http = json!([{ "route": [{ "destination": { "host": "reviews", "subset": "v2" } }] }]);
        let others = [service(), virtual_service(&http), rule(&v2())];

        let taken_away = verdict(&rule(&json!([])), &others);
        let never_there = verdict(&rule(&json!([])), &others[..2]);

        assert_eq!(taken_away.errors, Vec::<String>::new());
        let [warning] = &taken_away.warnings[..] else { panic!("{taken_away:?}") };
        assert!(warning.starts_with("because of this, VirtualService shop/reviews: "), "{warning}");
        assert_eq!(never_there, Verdict::default());
    }

    #[test]
    fn a_route_for_another_namespaces_host_is_a_warning_that_names_both() {
        let http = json!([{ "route": [{ "destination": { "host": "reviews.shop.svc.cluster.local" } }] }]);
        let mut foreign = virtual_service(&http);
        foreign["metadata"]["namespace"] = json!("guest");
        foreign["spec"]["hosts"] = json!(["reviews.shop.svc.cluster.local"]);

        let verdict = verdict(&foreign, &[service()]);

        assert_eq!(verdict.errors, Vec::<String>::new());
        let [warning] = &verdict.warnings[..] else { panic!("{verdict:?}") };
        assert!(warning.contains("of namespace shop") && warning.contains("of namespace guest"), "{warning}");
    }

    #[test]
    fn a_field_that_is_not_acted_on_is_a_warning() {
        let http = json!([{
            "retries": { "attempts": 1, "retryRemoteLocalities": true },
            "route": [{ "destination": { "host": "reviews" } }],
        }]);

        let verdict = verdict(&virtual_service(&http), &[]);

        assert_eq!(verdict.errors, Vec::<String>::new());
        let told = verdict
            .warnings
            .iter()
            .any(|warning| warning.contains("spec.http[0].retries.retryRemoteLocalities"));
        assert!(told, "{verdict:?}");
    }
}
