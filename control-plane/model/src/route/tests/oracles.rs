//! Tables against oracles that try everything.

use http::Method;
use proptest::{collection::vec, option, prelude::*};

use super::{super::*, Request, exact, name, path_prefix, prefix, regex, rule, rule_of};

// Few words, so that several rules match one request often.

fn some_path() -> impl Strategy<Value = String> {
    vec(prop_oneof![Just("a"), Just("b"), Just("ab"), Just("")], 0..4)
        .prop_map(|segments| format!("/{}", segments.join("/")))
}

fn some_path_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        some_path().prop_map(StringMatch::Exact),
        some_path().prop_map(StringMatch::Prefix),
        some_path().prop_map(StringMatch::PathPrefix),
        prop_oneof![Just("/.*"), Just("/a.*"), Just("/(a|b)/?.*")].prop_map(regex),
    ]
}

fn some_value() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("1".to_owned()), Just("12".to_owned())]
}

fn some_value_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        some_value().prop_map(StringMatch::Exact),
        some_value().prop_map(StringMatch::Prefix),
        Just(StringMatch::Present),
        Just(regex("1?2?")),
    ]
}

fn some_match() -> impl Strategy<Value = Match> {
    let header = || (prop_oneof![Just(name("x")), Just(name("y"))], some_value_match());
    let parameter = (prop_oneof![Just("q".to_owned()), Just("r".to_owned())], some_value_match());
    (
        option::weighted(0.7, some_path_match()),
        any::<bool>(),
        option::weighted(0.3, prop_oneof![Just(exact("GET")), Just(exact("POST"))]),
        option::weighted(0.2, prop_oneof![Just(exact("reviews:9080")), Just(prefix("other"))]),
        vec(header(), 0..3),
        vec(header(), 0..2),
        vec(parameter, 0..3),
    )
        .prop_map(|(path, ignore_path_case, method, authority, headers, without_headers, query)| Match {
            path,
            ignore_path_case,
            method,
            authority,
            headers,
            without_headers,
            query,
            ..Match::default()
        })
}

fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
    // Some tables are long enough for an index, some are not.
    vec(vec(some_match(), 0..4).prop_map(rule), 0..12)
}

fn some_request() -> impl Strategy<Value = Request> {
    (
        some_path(),
        prop_oneof![Just(Method::GET), Just(Method::POST)],
        vec((prop_oneof![Just("x"), Just("y")], some_value()), 0..3),
        vec((prop_oneof![Just("q"), Just("r")], some_value()), 0..3),
    )
        .prop_map(|(path, method, headers, query)| {
            let pairs: Vec<_> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let mut request = Request { method, ..Request::get(&format!("{path}?{}", pairs.join("&"))) };
            for (name, value) in headers {
                request = request.header(name, value.as_bytes());
            }
            request
        })
}

/// Gateway API's precedence, word by word (HTTPRoute `rules.matches`), as something to compare.
fn gateway_api_order(one: &Match) -> (bool, usize, usize, bool, usize, usize) {
    let length = |text: &str| text.strip_suffix('/').unwrap_or(text).len();
    let (exact, prefix_length, other) = match &one.path {
        Some(StringMatch::Exact(text)) => (true, text.len() + 1, 0),
        Some(StringMatch::Prefix(text) | StringMatch::PathPrefix(text)) => (false, length(text) + 1, 0),
        Some(StringMatch::Regex(regex)) => (false, 0, regex.source().len() + 1),
        Some(StringMatch::Present) | None => (false, 0, 0),
    };
    (exact, prefix_length, other, one.method.is_some(), one.headers.len(), one.query.len())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_listed_table_finds_the_first_rule_that_matches(rules in some_rules(), request in some_request()) {
        let facts = request.facts();
        let first = rules
            .iter()
            .position(|rule| rule.matches.is_empty() || rule.matches.iter().any(|one| one.is_match(&facts)));

        prop_assert_eq!(rule_of(&RouteTable::new(Order::Listed, rules), &facts), first);
    }

    #[test]
    fn a_specific_table_finds_the_greatest_match_by_gateway_apis_order(
        rules in some_rules(),
        tiers in vec(0..3_u32, 0..8),
        request in some_request(),
    ) {
        let facts = request.facts();
        let empty = Match::default();
        let mut best: Option<(_, usize)> = None;
        for (index, rule) in rules.iter().enumerate() {
            let every = rule.matches.is_empty().then_some(&empty);
            let tier = tiers.get(index).or(tiers.last()).copied().unwrap_or_default();
            for one in rule.matches.iter().chain(every).filter(|one| one.is_match(&facts)) {
                let order = (std::cmp::Reverse(tier), gateway_api_order(one));
                // Only a greater one displaces: among equals the first in the list stays.
                if best.is_none_or(|(greatest, _)| order > greatest) {
                    best = Some((order, index));
                }
            }
        }

        let rules: Vec<Arc<Rule>> = rules.into_iter().map(Arc::new).collect();
        let table = RouteTable::in_tiers(Order::MostSpecific, rules, tiers);
        prop_assert_eq!(rule_of(&table, &facts), rule_of(&table.clone().for_client(&Default::default(), "x"), &facts));
        prop_assert_eq!(rule_of(&table, &facts), best.map(|(_, index)| index));
    }

    #[test]
    fn a_path_prefix_is_a_prefix_of_segments(prefix in some_path(), path in some_path()) {
        let wanted: Vec<_> = prefix.strip_suffix('/').unwrap_or(&prefix).split('/').collect();
        let given: Vec<_> = path.split('/').collect();

        prop_assert_eq!(path_prefix(&prefix).is_match(&path), given.starts_with(&wanted));
    }

    #[test]
    fn a_prefix_is_a_prefix_of_characters(wanted in "[a/é]{0,3}", given in "[a/éb]{0,6}") {
        let characters: Vec<_> = given.chars().take(wanted.chars().count()).collect();

        prop_assert_eq!(prefix(&wanted).is_match(&given), characters.iter().collect::<String>() == wanted);
    }

    #[test]
    fn ignoring_case_is_matching_in_lower_case(wanted in "/[aBé/]{0,4}", given in "/[AbÉé/]{0,6}") {
        for path in [exact(&wanted), prefix(&wanted)] {
            let lower = match &path {
                StringMatch::Exact(text) => exact(&text.to_ascii_lowercase()),
                _ => prefix(&wanted.to_ascii_lowercase()),
            };
            let one = Match { path: Some(path), ignore_path_case: true, ..Match::default() };
            let request = Request::get(&given);

            prop_assert_eq!(one.is_match(&request.facts()), lower.is_match(&given.to_ascii_lowercase()));
        }
    }

    #[test]
    fn a_weightless_backend_is_never_drawn(weights in vec(0_u32..3, 0..6), seed in any::<u64>()) {
        let drawn = draw(weights.iter().copied(), &mut fastrand::Rng::with_seed(seed));

        prop_assert_eq!(drawn.is_some(), weights.iter().any(|weight| *weight > 0));
        prop_assert!(drawn.is_none_or(|place| weights[place] > 0));
    }
}

/// The χ² statistic of `draws` picks against the weights' shares.
fn chi_squared(weights: &[u32], draws: u32, seed: u64) -> f64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut counts = vec![0_u32; weights.len()];
    for _ in 0..draws {
        counts[draw(weights.iter().copied(), &mut rng).unwrap()] += 1;
    }
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let shares = weights.iter().zip(&counts).filter(|(weight, _)| **weight > 0);
    shares
        .map(|(weight, count)| {
            let expected = f64::from(draws) * f64::from(*weight) / total as f64;
            (f64::from(*count) - expected).powi(2) / expected
        })
        .sum()
}

#[test]
fn backends_are_drawn_by_weight() {
    // Critical values of χ² at p = 0.001, by degrees of freedom.
    let critical = [10.83, 13.82, 16.27, 18.47];
    let cases: [&[u32]; 6] =
        [&[90, 10], &[1, 1], &[50, 0, 50], &[1, 2, 3, 4], &[1, 1, 1, 1, 1], &[1_000_000, 999_999, 1_000]];
    for weights in cases {
        let freedom = weights.iter().filter(|weight| **weight > 0).count() - 1;
        for seed in 0..8 {
            let found = chi_squared(weights, 20_000, seed);
            assert!(found < critical[freedom - 1], "{weights:?} with seed {seed}: χ² = {found}");
        }
    }
}

#[test]
fn the_largest_weights_do_not_overflow() {
    let weights = [u32::MAX, u32::MAX, u32::MAX];
    let mut rng = fastrand::Rng::with_seed(7);

    let drawn: std::collections::BTreeSet<_> =
        (0..200).filter_map(|_| draw(weights.iter().copied(), &mut rng)).collect();

    assert_eq!(drawn.len(), 3);
}
