//! `RequestAuthentication`: which workloads it is for, and what it comes to together with others.

use selvedge_model::token::Keys;

use super::*;
use crate::{
    keys::{KeyState, Trouble},
    resources::KeyAddress,
};

/// A document in this namespace, called `name`, for an issuer of that name.
fn document(namespace: &str, name: &str, whom: &str) -> String {
    let keys =
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{{whom}jwtRules: [{{issuer: '{name}', jwks: '{keys}'}}]}}\n---\n"
    )
}

/// The issuers whose tokens reviews accepts, each with its ports; and what is reported.
fn accepted(documents: &str) -> (Vec<String>, String) {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    let workload = &mesh.workloads[&"default/reviews-v1".parse().unwrap()];
    let rules = workload.policy.authentication.iter().flat_map(|rules| &rules.rules);
    let issuers = rules.map(|rule| format!("{} {:?}", rule.issuer.as_deref().unwrap_or("?"), rule.ports));
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (issuers.collect(), problems.concat())
}

#[test]
fn rules_about_tokens_are_for_whom_their_documents_select() {
    let documents = [
        document("istio-system", "root", ""),
        document("default", "here", ""),
        document("default", "selected", "selector: {matchLabels: {app: reviews}}, "),
        document("default", "others", "selector: {matchLabels: {app: none}}, "),
        document("shop", "elsewhere", ""),
        document("default", "service", "targetRefs: [{kind: Service, name: reviews}], "),
        document("default", "nobody", "targetRef: {kind: Service, name: none}, "),
    ];

    let (issuers, problems) = accepted(&documents.concat());

    assert_eq!(issuers, ["root None", "here None", "selected None", "service Some({9001})"]);
    assert!(problems.contains("selects no workload, so no token is checked"), "{problems}");
    assert!(problems.contains("there is no Service none in namespace default"), "{problems}");
    assert_eq!(accepted("").0, Vec::<String>::new());
}

#[test]
fn a_policy_that_asks_for_tokens_where_none_is_accepted_is_warned_of() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: default}\n\
                  spec: {rules: [{from: [{source: {requestPrincipals: ['*']}}]}]}\n---\n";
    let warned = |documents: &str| accepted(documents).1.contains("accepts no tokens");

    assert!(warned(policy));
    assert!(!warned(&format!("{policy}{}", document("default", "here", ""))));
}

/// What becomes of a rule whose keys are fetched, if this is known of them.
fn fetched(keys: FetchedKeys) -> (Keys, Vec<Problem>) {
    let documents = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: here}\n\
                     spec: {jwtRules: [{issuer: here, jwksUri: 'https://a.example/k'}]}\n";
    let resources = resources(&format!("{MESH}{documents}")).0;
    let settings = MeshSettings { keys, ..MeshSettings::default() };
    let (mesh, problems) = compile(&resources, &settings, &Mesh::default());
    let workload = &mesh.workloads[&"default/reviews-v1".parse().unwrap()];
    let keys = workload.policy.authentication.as_ref().expect("a rule").rules[0].keys.clone();
    let of_rule = |problem: &Problem| problem.field == "spec.jwtRules[0].jwksUri";
    (keys, problems.into_iter().filter(of_rule).collect())
}

#[test]
fn without_fetched_keys_a_rule_refuses_and_with_old_ones_it_goes_on_and_says_so() {
    let address = KeyAddress { url: "https://a.example/k".to_owned(), is_issuer: false };
    let trouble = Trouble {
        why: "it is away".into(),
        since: std::time::SystemTime::UNIX_EPOCH,
        remedy: "Bring it back",
    };
    let known = |keys: Option<&str>, trouble: Option<&Trouble>| {
        let state = KeyState { keys: keys.map(Arc::from), trouble: trouble.cloned() };
        fetched(FetchedKeys::Here(Arc::new([(address.clone(), state)].into())))
    };
    let severities =
        |problems: &[Problem]| problems.iter().map(|problem| problem.severity).collect::<Vec<_>>();

    let (keys, problems) = fetched(FetchedKeys::Elsewhere);
    assert!(matches!(keys, Keys::Missing(_)) && problems.is_empty(), "{problems:?}");
    let (keys, problems) = fetched(FetchedKeys::Here(Arc::default()));
    assert!(matches!(keys, Keys::Missing(_)) && severities(&problems) == [Severity::Warning], "{problems:?}");
    let (keys, problems) = known(None, Some(&trouble));
    assert!(matches!(&keys, Keys::Missing(why) if &**why == "it is away"), "{keys:?}");
    assert_eq!(severities(&problems), [Severity::Error]);
    assert!(!problems[0].fault.is_alone(), "the API server keeps the document");
    assert!(
        problems[0].message.contains("1970-01-01T00:00:00Z") && problems[0].message.contains("Bring it back")
    );
    let (keys, problems) = known(Some("{}"), Some(&trouble));
    assert_eq!((keys, severities(&problems)), (Keys::Known("{}".into()), vec![Severity::Warning]));
    let (keys, problems) = known(Some("{}"), None);
    assert_eq!((keys, problems), (Keys::Known("{}".into()), Vec::new()));
}
