//! Where tokens are found, whose are accepted, and what apps are told.

use std::{cell::RefCell, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 1_800_000_000;

fn token(claims: &Value) -> Result<Token, TokenError> {
    Token::new(claims.as_object().unwrap().clone(), "payload")
}

fn rule(issuer: &str) -> TokenRule {
    TokenRule {
        keys_from: None,
        name: Arc::from(format!("rule {issuer}")),
        issuer: Some(issuer.into()),
        audiences: Vec::new(),
        keys: Keys::Known(Arc::from("{}")),
        places: Places::usual(),
        forward: false,
        payload_header: None,
        claim_headers: Vec::new(),
        lists: TokenRule::lists_with([]),
        ports: None,
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&'static str, &str)| {
        (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
    };
    lines.iter().map(pair).collect()
}

/// Reads a token `ISSUER` as one of that issuer, signed; and one with `!` at its end as one with a wrong signature.
fn authenticate<'a>(
    authentication: &'a Authentication,
    headers: &HeaderMap,
    query: &str,
) -> Result<Option<Accepted<'a>>, Refused<'a>> {
    authentication.authenticate(80, headers, query, |place, text| {
        let issuer = text.trim_end_matches('!');
        let token = token(&json!({ "iss": issuer, "sub": "s" }))?;
        authentication.rules[place].check(&token, NOW)?;
        if text.ends_with('!') { Err(TokenError::Signature) } else { Ok(Arc::new(token)) }
    })
}

fn outcome(rules: Vec<TokenRule>, lines: &[(&'static str, &str)], query: &str) -> String {
    match authenticate(&Authentication { rules }, &headers(lines), query) {
        Ok(None) => "none".to_owned(),
        Ok(Some(accepted)) => accepted.rule.name.to_string(),
        Err(refused) => format!("{}: {:?}", refused.rule.name, refused.error),
    }
}

#[test]
fn a_request_without_a_token_has_none_and_one_with_a_bad_one_is_refused() {
    let of = |lines: &[(&'static str, &str)], query| outcome(vec![rule("a"), rule("b")], lines, query);

    assert_eq!(of(&[], ""), "none");
    assert_eq!(of(&[("authorization", "Basic YTpi")], "x=access_token"), "none");
    assert_eq!(of(&[("authorization", "Bearer a")], ""), "rule a");
    assert_eq!(of(&[("authorization", "bearer b")], ""), "rule b");
    assert_eq!(of(&[], "x=1&access_token=b"), "rule b");
    assert_eq!(of(&[], "access%5ftoken=%62"), "rule b");
    assert_eq!(of(&[("authorization", "Bearer c")], ""), "rule a: Issuer");
    assert_eq!(of(&[("authorization", "Bearer b!")], ""), "rule b: Signature");
    assert_eq!(of(&[("authorization", "Bearer ")], ""), "rule a: Issuer");
}

#[test]
fn every_token_in_the_places_of_a_rule_must_be_accepted() {
    let of = |lines: &[(&'static str, &str)], query| outcome(vec![rule("a")], lines, query);

    assert_eq!(of(&[("authorization", "Bearer a"), ("authorization", "Bearer a!")], ""), "rule a: Signature");
    assert_eq!(of(&[("authorization", "Bearer a")], "access_token=b"), "rule a: Issuer");
    let many = ["access_token=a"; MOST_TOKENS + 1].join("&");
    assert_eq!(of(&[], &many), "rule a: TooMany");
    let long = format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1));
    assert_eq!(of(&[("authorization", &long)], ""), "rule a: TooLong");
}

#[test]
fn other_places_are_looked_at_instead_of_the_usual_ones() {
    let name = HeaderName::from_static("x-token");
    let header = HeaderPlace { name, prefix: "v1=".into() };
    let places = Places { headers: vec![header], params: vec!["t".into()], cookies: vec!["session".into()] };
    let elsewhere = || vec![TokenRule { places: places.clone(), ..rule("a") }];

    assert_eq!(outcome(elsewhere(), &[("authorization", "Bearer x")], "access_token=x"), "none");
    assert_eq!(outcome(elsewhere(), &[("x-token", "v1=a")], ""), "rule a");
    assert_eq!(outcome(elsewhere(), &[("x-token", "a")], ""), "none");
    assert_eq!(outcome(elsewhere(), &[], "t=a"), "rule a");
    assert_eq!(outcome(elsewhere(), &[("cookie", "x=1; session=a; y=2")], ""), "rule a");
    assert_eq!(outcome(elsewhere(), &[("cookie", "x=1; session=a!")], ""), "rule a: Signature");
}

#[test]
fn a_rule_without_keys_or_issuer_refuses_what_it_finds() {
    let away = TokenRule { keys: Keys::Missing(Arc::from("no answer")), ..rule("a") };
    let bearer = |token| [("authorization", token)];

    assert_eq!(outcome(vec![away.clone()], &bearer("Bearer a"), ""), "rule a: NoKeys(\"no answer\")");
    assert_eq!(outcome(vec![away.clone()], &bearer("Bearer b"), ""), "rule a: Issuer");
    let unknown = TokenRule { issuer: None, ..away };
    assert_eq!(outcome(vec![unknown.clone()], &bearer("Bearer b"), ""), "rule a: NoKeys(\"no answer\")");
    assert_eq!(outcome(vec![unknown, rule("b")], &bearer("Bearer b"), ""), "rule b");
}

#[test]
fn a_token_is_for_its_audience_and_its_time() {
    let rule = TokenRule { audiences: vec!["https://web/".into(), "api".into()], ..rule("a") };
    let check = |claims: Value| rule.check(&token(&claims)?, NOW);

    assert_eq!(check(json!({ "iss": "a", "aud": "web" })), Ok(()));
    assert_eq!(check(json!({ "iss": "a", "aud": ["x", "api"], "exp": NOW, "nbf": NOW })), Ok(()));
    assert_eq!(check(json!({ "iss": "a", "aud": "x" })), Err(TokenError::Audience));
    assert_eq!(check(json!({ "iss": "a" })), Err(TokenError::Audience));
    assert_eq!(check(json!({ "iss": "b", "aud": "web" })), Err(TokenError::Issuer));
    assert_eq!(check(json!({ "aud": "web" })), Err(TokenError::Issuer));
    let at = |exp: u64, nbf: u64| check(json!({ "iss": "a", "aud": "api", "exp": exp, "nbf": nbf }));
    assert_eq!(at(NOW - CLOCK_SKEW + 1, NOW + CLOCK_SKEW), Ok(()));
    assert_eq!(at(NOW - CLOCK_SKEW, 0), Err(TokenError::Expired));
    assert_eq!(at(NOW, NOW + CLOCK_SKEW + 1), Err(TokenError::NotYet));
}

#[test]
fn a_claim_that_is_not_what_it_must_be_spoils_the_token() {
    for odd in [
        json!({ "iss": 1 }),
        json!({ "sub": ["a"] }),
        json!({ "aud": [1] }),
        json!({ "aud": {} }),
        json!({ "exp": "1" }),
        json!({ "exp": -1 }),
        json!({ "nbf": 1e300 }),
        json!({ "exp": null }),
    ] {
        assert!(matches!(token(&odd), Err(TokenError::Malformed(_))), "{odd}");
    }
    assert_eq!(token(&json!({ "exp": 10.9 })).unwrap().check_time(69), Ok(()));
}

#[test]
fn claims_are_found_in_maps_and_lists() {
    let claims = json!({
        "iss": "a", "sub": "b", "groups": ["x", "y", 1], "n": 1, "scope": "read write", "words": "p q",
        "realm": { "roles": ["admin"], "scope": "r w" },
    });
    let token = token(&claims).unwrap().with_lists(&TokenRule::lists_with([]));
    let has = |path: &[&str], text: &str| token.has_claim(path, |found| found == text);

    assert_eq!(token.principal(), Some("a/b"));
    assert!(has(&["groups"], "y") && has(&["realm", "roles"], "admin") && has(&["sub"], "b"));
    assert!(has(&["scope"], "write") && !has(&["scope"], "read write"));
    assert!(has(&["words"], "p q") && has(&["realm", "scope"], "r w"));
    assert!(!has(&["n"], "1") && !has(&["realm"], "admin") && !has(&["none"], "") && !has(&[], "a"));
}

#[test]
fn an_app_gets_the_claims_and_no_token_that_it_is_not_to_get() {
    let header = |name, claim: &str| ClaimHeader {
        name: HeaderName::from_static(name),
        claim: claim.split('.').map(Box::from).collect(),
    };
    let rule = TokenRule {
        payload_header: Some(HeaderName::from_static("x-payload")),
        claim_headers: vec![
            header("x-sub", "sub"),
            header("x-n", "a.n"),
            header("x-a", "a"),
            header("x-no", "no"),
        ],
        places: Places { cookies: vec!["t".into()], ..Places::usual() },
        ..rule("a")
    };
    let accept = |rule: &TokenRule, headers: &mut HeaderMap| {
        let token = Arc::new(token(&json!({ "iss": "a", "sub": "s", "a": { "n": 1 } })).unwrap());
        Accepted { rule, token }.apply(headers, "x=1&access_token=a&y=2")
    };
    let lines =
        [("authorization", "Bearer a"), ("cookie", "x=1; t=a; y=2"), ("x_sub", "forged"), ("x-no", "forged")];
    let mut request = headers(&lines);

    Authentication { rules: vec![rule.clone()] }.strip(80, &mut request);
    let query = accept(&rule, &mut request);

    assert_eq!(query.as_deref(), Some("x=1&y=2"));
    let expected = [
        ("cookie", "x=1; y=2"),
        ("x-payload", "payload"),
        ("x-sub", "s"),
        ("x-n", "1"),
        ("x-a", "eyJuIjoxfQ=="),
    ];
    assert_eq!(request, headers(&expected));

    let mut request = headers(&lines);
    assert_eq!(accept(&TokenRule { forward: true, ..rule }, &mut request), None);
    assert_eq!(request["authorization"], "Bearer a");
    assert_eq!(request["cookie"], "x=1; t=a; y=2");
}

#[test]
fn a_rule_is_for_its_ports_only() {
    let elsewhere = TokenRule { ports: Some([81].into()), ..rule("a") };

    assert_eq!(outcome(vec![elsewhere], &[("authorization", "Bearer x")], ""), "none");
}

#[test]
fn each_place_is_asked_with_the_place_of_its_rule() {
    let authentication = Authentication { rules: vec![rule("a"), rule("b")] };
    let asked = RefCell::new(Vec::new());

    let refused =
        authentication.authenticate(80, &headers(&[("authorization", "Bearer x")]), "", |place, text| {
            asked.borrow_mut().push((place, text.to_owned()));
            Err(TokenError::Issuer)
        });

    assert!(refused.is_err());
    assert_eq!(*asked.borrow(), [(0, "x".to_owned()), (1, "x".to_owned())]);
}
