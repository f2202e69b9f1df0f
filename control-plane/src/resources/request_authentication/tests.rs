//! What a `RequestAuthentication` means, and which are refused.

use std::{path::Path, sync::Arc, time::Duration};

use selvedge_model::token::Places;

use super::*;
use crate::{
    problem::Severity,
    resources::{DecodeOutcome, Decoded, Resource, decode},
};

const KEY: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

fn only(spec: &str) -> Decoded {
    let text = format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: a, namespace: shop}}\nspec:\n{spec}"
    );
    let path: Arc<Path> = Arc::from(Path::new("a.yaml"));
    decode(&text, &path, "default").remove(0)
}

fn read(spec: &str) -> RequestAuthenticationSpec {
    let decoded = only(spec);
    match decoded.outcome {
        DecodeOutcome::Understood(Resource::RequestAuthentication(document)) => document.spec.clone(),
        _ => panic!("{:?}", decoded.problems),
    }
}

fn rule(more: &str) -> String {
    format!("  jwtRules:\n  - issuer: https://a.example\n{more}")
}

#[test]
fn every_field_of_a_token_rule_is_read() {
    let keys = format!("{{\"keys\":[{KEY}]}}");
    let spec = read(&format!(
        "  selector: {{matchLabels: {{app: a}}}}\n{}",
        rule(&format!(
            "    audiences: [b]\n    jwks: '{keys}'\n    fromHeaders: [{{name: X-Token, prefix: 'v1 '}}]\n    fromParams: [t]\n    \
             fromCookies: [c]\n    outputPayloadToHeader: x-p\n    forwardOriginalToken: true\n    outputClaimToHeaders: \
             [{{header: x-a, claim: a.b}}]\n    timeout: 2s\n    spaceDelimitedClaims: [words]\n"
        ))
    ));

    let [rule] = &spec.rules[..] else { panic!("{spec:?}") };
    assert_eq!(rule.keys, KeySource::Inline(Arc::from(keys)));
    assert_eq!((&*rule.issuer, &rule.audiences[..]), ("https://a.example", &["b".to_owned()][..]));
    assert_eq!((rule.places.headers[0].name.as_str(), &*rule.places.headers[0].prefix), ("x-token", "v1 "));
    assert_eq!((&*rule.places.params[0], &*rule.places.cookies[0]), ("t", "c"));
    assert_eq!(rule.claim_headers[0].claim, ["a".into(), "b".into()]);
    assert_eq!((rule.forward, &rule.lists[..]), (true, &["words".to_owned()][..]));
    assert_eq!(rule.payload_header.as_ref().map(HeaderName::as_str), Some("x-p"));
}

#[test]
fn without_places_a_rule_looks_where_istio_does_and_without_keys_it_asks_the_issuer() {
    let rule = |more: &str| read(&self::rule(more)).rules.remove(0);

    assert_eq!(rule("").places, Places::usual());
    let address = |url: &str, is_issuer, seconds| KeySource::Fetched {
        address: KeyAddress { url: url.to_owned(), is_issuer },
        timeout: Duration::from_secs(seconds),
    };
    assert_eq!(rule("").keys, address("https://a.example", true, 5));
    assert_eq!(rule("    jwksUri: http://b:1/k\n    timeout: 2s\n").keys, address("http://b:1/k", false, 2));
}

#[test]
fn a_key_that_cannot_be_used_and_a_rule_that_says_nothing_are_warned_of() {
    let warned = |spec: &str| {
        let decoded = only(spec);
        decoded.problems.iter().any(|problem| problem.severity == Severity::Warning)
    };

    assert!(warned("  selector: {matchLabels: {a: b}}\n"));
    let keys = format!("{{\"keys\":[{KEY},{{\"kty\":\"oct\",\"k\":\"AA\"}}]}}");
    assert!(warned(&rule(&format!("    jwks: '{keys}'\n"))));
    assert!(!warned(&rule(&format!("    jwks: '{{\"keys\":[{KEY}]}}'\n"))));
}

#[test]
fn it_cannot_be_tried_without_effect() {
    let text = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a, annotations: {istio.io/dry-run: \
                'true'}}\n";
    let decoded = decode(text, &Arc::from(Path::new("a.yaml")), "default").remove(0);

    let is_told = |problem: &crate::problem::Problem| {
        problem.severity == Severity::Error && problem.field == "metadata.annotations[istio.io/dry-run]"
    };
    assert!(decoded.problems.iter().any(is_told), "{:?}", decoded.problems);
}

#[test]
fn one_that_cannot_be_used_accepts_no_token_for_whom_it_selects() {
    let decoded = only(
        "  selector: {matchLabels: {app: a}}\n  jwtRules:\n  - jwksUri: http://a/b\n    fromParams: [t]\n",
    );

    let stand_in = decoded.stand_in.expect("it is a policy");
    let Resource::RequestAuthentication(document) = stand_in.resource else { panic!("{stand_in:?}") };
    assert!(document.unusable && document.spec.selector.contains_key("app"), "{document:?}");
    assert!(stand_in.words.contains("answer 401"), "{}", stand_in.words);
}
