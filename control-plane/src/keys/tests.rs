use std::path::Path;

use super::{
    wanted::{MOST_IN_NAMESPACE, wanted},
    *,
};
use crate::resources::{DecodeOutcome, Resources, decode};

#[test]
fn failures_are_tried_again_soon_at_first_and_never_later_than_a_refresh() {
    let pace = Pace { refresh: Duration::from_secs(1200) };
    let seconds = |failures| pace.pause(failures, 0.0).as_secs();

    assert_eq!([0, 1, 2, 3, 6, 7, 99, u32::MAX].map(seconds), [1200, 1, 2, 4, 32, 60, 60, 60]);
    assert!(pace.pause(0, 0.99) > Duration::from_secs(1080), "spread over a tenth");
    let often = Pace { refresh: Duration::from_millis(200) };
    assert_eq!(often.pause(5, 0.0), Duration::from_millis(200));
}

#[test]
fn wishes_for_newer_keys_are_heard_soon_at_first_and_rarely_where_they_are_in_vain() {
    assert_eq!(
        [0, 1, 2, 5, 6, 99, u32::MAX].map(|in_vain| Pace::early(in_vain).as_secs()),
        [5, 10, 20, 160, 300, 300, 300]
    );
}

#[test]
fn a_trouble_says_since_when_it_is_one() {
    let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let trouble = Trouble { why: Arc::from("the keys are gone"), since, remedy: "Bring them back" };

    assert_eq!(trouble.to_string(), "the keys are gone (since 2027-01-15T08:00:00Z)");
}

fn resources(documents: &str) -> Resources {
    let mut resources = Resources::default();
    for decoded in decode(documents, &Arc::from(Path::new("jwt.yaml")), "default") {
        let DecodeOutcome::Understood(resource) = decoded.outcome else { panic!("{:?}", decoded.problems) };
        resources.push(resource);
    }
    resources
}

fn document(namespace: &str, name: &str, rules: &[String]) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{jwtRules: [{}]}}\n---\n",
        rules.join(", ")
    )
}

fn rule(url: &str, more: &str) -> String {
    format!("{{issuer: a, jwksUri: '{url}'{more}}}")
}

#[test]
fn one_url_is_wanted_once_for_as_long_as_any_rule_waits() {
    let rules = ["", ", timeout: 9s", ", timeout: 2s"].map(|more| rule("https://a/k", more));
    let inline = "{issuer: 'https://b.example', jwks: ''}".to_owned();
    let all = wanted(&resources(&document("shop", "a", &[&rules[..], &[inline]].concat())));

    let found: Vec<_> =
        all.iter().map(|(address, one)| (&*address.url, address.is_issuer, one.timeout.as_secs())).collect();
    assert_eq!(found, [("https://a/k", false, 9), ("https://b.example", true, 5)]);
}

#[test]
fn a_namespace_that_names_too_many_urls_keeps_nobody_else_from_theirs() {
    let urls = |count: usize| -> Vec<_> {
        (0..count).map(|number| rule(&format!("https://a/{number:03}"), "")).collect()
    };
    let (first, second) =
        (urls(MOST_IN_NAMESPACE), [rule("https://a/more", ""), rule("https://shared/", "")]);
    let documents = document("greedy", "a", &first)
        + &document("greedy", "b", &second)
        + &document("shop", "a", &[rule("https://shared/", "")]);
    let all = wanted(&resources(&documents));

    let left_out: Vec<_> =
        all.iter().filter(|(_, one)| one.is_too_many).map(|(address, _)| &*address.url).collect();
    assert_eq!(left_out, ["https://a/more"]);
    assert_eq!(all.len(), MOST_IN_NAMESPACE + 2);
}
