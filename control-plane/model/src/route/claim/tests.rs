use http::{HeaderMap, Method};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::json;

use super::*;
use crate::{
    facts::{self, Connection, Source},
    route::{HeaderField, Match},
};

fn token(claims: &Value) -> Token {
    Token::new(claims.as_object().unwrap().clone(), "").unwrap().with_lists(&["scope".into()])
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

fn holds(one: &Match, token: Option<&Token>) -> bool {
    one.is_match(&facts::Request {
        connection: &Connection::new(Source::UNKNOWN, 80),
        method: &Method::GET,
        scheme: "http",
        authority: "shop",
        path: "/",
        query: "",
        headers: &HeaderMap::new(),
        token,
    })
}

fn with(name: &str, wanted: StringMatch) -> Match {
    Match { headers: vec![(name.parse().unwrap(), wanted)], ..Match::default() }
}

fn without(name: &str, unwanted: StringMatch) -> Match {
    Match { without_headers: vec![(name.parse().unwrap(), unwanted)], ..Match::default() }
}

#[test]
fn both_ways_to_write_a_claim_are_one() {
    for (written, read) in [
        ("@request.auth.claims.sub", "@request.auth.claims[sub]"),
        ("@request.auth.claims.a.b", "@request.auth.claims[a][b]"),
        ("@Request.Auth.Claims[Groups]", "@request.auth.claims[Groups]"),
        ("@request.auth.claims[https://a.example/b.c]", "@request.auth.claims[https://a.example/b.c]"),
    ] {
        let field: HeaderField = written.parse().unwrap();
        assert_eq!(field.as_ref(), read, "{written}");
        assert_eq!(field, read.parse().unwrap(), "{written}");
    }
}

#[test]
fn what_begins_like_a_claim_and_names_none_is_refused() {
    for wrong in [
        "@request.auth.claims",
        "@request.auth.claims.",
        "@request.auth.claims[]",
        "@request.auth.claims.a..b",
        "@request.auth.claims.a][b",
        "@request.auth.claims[a",
        "@request.auth.claims[a].b",
        "@request.auth.claimsa",
        "@request.auth.principal",
    ] {
        assert!(wrong.parse::<HeaderField>().is_err(), "{wrong}");
    }
    let deep = format!("@request.auth.claims{}", "[a]".repeat(17));
    assert!(deep.parse::<HeaderField>().is_err());
}

#[test]
fn no_header_has_the_name_of_a_claim() {
    assert!(http::HeaderName::from_bytes(b"@request.auth.claims.sub").is_err());
    assert!(http::HeaderName::from_bytes(b"@request.auth.claims[sub]").is_err());
}

#[test]
fn a_claim_is_a_text_or_one_of_a_list() {
    let token = token(
        &json!({ "sub": "ann", "groups": ["dev", "ops"], "scope": "read write", "age": 7, "realm": { "role": "admin" } }),
    );
    let claim =
        |path: &str, wanted| holds(&with(&format!("@request.auth.claims{path}"), wanted), Some(&token));

    assert!(claim(".sub", exact("ann")));
    assert!(!claim(".sub", exact("bob")));
    assert!(claim("[groups]", exact("ops")));
    assert!(claim("[groups]", StringMatch::Prefix("d".to_owned())));
    assert!(!claim("[groups]", exact("dev,ops")));
    assert!(claim(".scope", exact("write")));
    assert!(claim("[realm][role]", exact("admin")));
    assert!(claim(".realm", StringMatch::Present));
    assert!(!claim(".age", exact("7")), "as in Istio");
    assert!(!claim(".missing", StringMatch::Present));
    assert!(!claim(".missing", exact("")));
    assert!(!claim(".SUB", exact("ann")));
}

#[test]
fn without_a_token_there_are_no_claims() {
    let name = "@request.auth.claims[sub]";

    assert!(!holds(&with(name, StringMatch::Present), None));
    assert!(!holds(&with(name, exact("")), None));
    assert!(holds(&without(name, exact("")), None));
    assert!(holds(&without(name, StringMatch::Present), None));
    assert!(!holds(&without(name, exact("ann")), Some(&token(&json!({ "sub": "ann" })))));
}

fn some_value() -> impl Strategy<Value = Value> {
    let text = || select(vec!["a", "b", "ab"]).prop_map(Value::from);
    prop_oneof![
        text(),
        vec(text(), 0..3).prop_map(Value::from),
        Just(json!(7)),
        text().prop_map(|text| json!({ "x": text })),
    ]
}

proptest! {
    /// Against a reading that lists every text of the claim.
    #[test]
    fn a_match_and_its_opposite_are_as_the_texts_of_the_claim(
        claim in option::of(some_value()),
        nested: bool,
        wanted in prop_oneof![
            select(vec!["a", "ab"]).prop_map(exact),
            Just(StringMatch::Prefix("a".to_owned())),
            Just(StringMatch::Present),
        ],
    ) {
        let said = claim.clone().map_or_else(|| json!({}), |claim| json!({ "c": claim }));
        let name = if nested { "@request.auth.claims.c.x" } else { "@request.auth.claims[c]" };
        let found = if nested { claim.as_ref().and_then(|claim| claim.get("x")) } else { claim.as_ref() };
        let texts: Vec<&str> = match found {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            other => other.and_then(Value::as_str).into_iter().collect(),
        };
        let expected = match &wanted {
            StringMatch::Present => found.is_some(),
            wanted => texts.iter().any(|text| wanted.is_match(text)),
        };

        let token = token(&said);
        prop_assert_eq!(holds(&with(name, wanted.clone()), Some(&token)), expected);
        prop_assert_eq!(holds(&without(name, wanted), Some(&token)), !expected);
    }
}
