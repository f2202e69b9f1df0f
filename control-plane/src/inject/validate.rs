//! Whether the API server should keep a document: read and compiled as the control plane will.
//!
//! What is wrong with the document alone refuses it. What is wrong between documents is a warning, because the
//! other one may come next (a `VirtualService` before its `DestinationRule`); so is what is not acted on.

use selvedge_model::Mesh;
use serde_json::Value;

use crate::{
    compile::{Settings, compile},
    problem::{Problem, Severity},
    resources::{Outcome, Resources, decode_value},
};

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong with the document alone. Empty: it may be kept.
    pub errors: Vec<String>,
    /// What may not be as meant.
    pub warnings: Vec<String>,
}

/// What `object` of `namespace` means among `others`.
pub fn validate(object: Value, namespace: &str, others: &Resources, settings: &Settings) -> Verdict {
    let mut verdict = Verdict::default();
    let decoded = decode_value(object, namespace);
    for problem in &decoded.problems {
        verdict.add(problem, problem.severity == Severity::Error);
    }
    let Outcome::Understood(resource) = decoded.outcome else { return verdict };
    let name = resource.name().clone();
    let mut together = others.clone();
    together.put(resource);
    let (_, between) = compile(&together, settings, &Mesh::default());
    for problem in between.iter().filter(|problem| problem.document.as_ref() == Some(&name)) {
        verdict.add(problem, false);
    }
    verdict
}

impl Verdict {
    fn add(&mut self, problem: &Problem, refuses: bool) {
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

    fn verdict(object: &Value, others: &[Value]) -> Verdict {
        let mut resources = Resources::default();
        for other in others {
            let decoded = decode_value(other.clone(), "shop");
            let Outcome::Understood(resource) = decoded.outcome else { panic!("{:?}", decoded.problems) };
            resources.put(resource);
        }
        validate(object.clone(), "shop", &resources, &Settings::default())
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
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "reviews", "namespace": "shop" },
            "spec": { "ports": [{ "port": 9080 }], "selector": { "app": "reviews" } },
        });

        let before = verdict(&virtual_service(&http), std::slice::from_ref(&service));

        assert_eq!(before.errors, Vec::<String>::new());
        assert_eq!(before.warnings.len(), 1, "{before:?}");
        assert!(before.warnings[0].contains("v2"), "{before:?}");
        let rule = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
            "metadata": { "name": "reviews", "namespace": "shop" },
            "spec": { "host": "reviews", "subsets": [{ "name": "v2", "labels": { "version": "v2" } }] },
        });
        assert_eq!(verdict(&virtual_service(&http), &[service, rule]), Verdict::default());
    }

    #[test]
    fn a_field_that_is_not_acted_on_is_a_warning() {
        let http = json!([{
            "corsPolicy": { "allowOrigins": [{ "exact": "https://a.example" }] },
            "route": [{ "destination": { "host": "reviews" } }],
        }]);

        let verdict = verdict(&virtual_service(&http), &[]);

        assert_eq!(verdict.errors, Vec::<String>::new());
        let told = verdict.warnings.iter().any(|warning| warning.contains("spec.http[0].corsPolicy"));
        assert!(told, "{verdict:?}");
    }
}
