//! `RequestAuthentication`: which workloads it is for, and what it comes to together with others.

use super::*;

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
