//! Which rule a request follows, against oracles that try everything.

use std::{cell::RefCell, collections::HashMap};

use proptest::{collection::vec, option, prelude::*};

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::*;

const CONNECTION: &facts::Connection<'_> = &facts::Connection::new(facts::Source::UNKNOWN, 9080);

/// A request that owns what [`facts::Request`] borrows.
#[derive(Debug, Clone)]
struct Request {
    method: Method,
    authority: String,
    path: String,
    query: String,
    headers: HeaderMap,
}

impl Request {
    fn get(path: &str) -> Self {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        Self {
            method: Method::GET,
            authority: "reviews:9080".to_owned(),
            path: path.to_owned(),
            query: query.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    fn header(mut self, name: &'static str, value: &[u8]) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_bytes(value).unwrap());
        self
    }

    fn facts(&self) -> facts::Request<'_> {
        facts::Request {
            connection: CONNECTION,
            method: &self.method,
            scheme: "http",
            authority: &self.authority,
            path: &self.path,
            query: &self.query,
            headers: &self.headers,
        }
    }
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.to_owned())
}

fn prefix(text: &str) -> StringMatch {
    StringMatch::Prefix(text.to_owned())
}

fn path_prefix(text: &str) -> StringMatch {
    StringMatch::PathPrefix(text.to_owned())
}

/// Compiled once for all cases: that is most of the work of a case.
fn regex(text: &'static str) -> StringMatch {
    thread_local!(static COMPILED: RefCell<HashMap<&'static str, FullRegex>> = RefCell::default());
    COMPILED.with_borrow_mut(|known| {
        let regex = known.entry(text).or_insert_with(|| FullRegex::new(text).unwrap());
        StringMatch::Regex(regex.clone())
    })
}

fn name(text: &'static str) -> HeaderField {
    text.parse().unwrap()
}

fn rule(matches: Vec<Match>) -> Rule {
    Rule { matches, ..Rule::default() }
}

/// The rule that `request` follows; the match that it names must hold.
fn rule_of(table: &RouteTable, request: &facts::Request<'_>) -> Option<usize> {
    let Followed { rule, matched } = table.find(request)?;
    let matches = &table.rules()[rule].matches;
    assert_eq!(matched.is_none(), matches.is_empty());
    assert!(matched.is_none_or(|matched| matches[matched].is_match(request)));
    Some(rule)
}

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
        request in some_request(),
    ) {
        let facts = request.facts();
        let empty = Match::default();
        let mut best: Option<(_, usize)> = None;
        for (index, rule) in rules.iter().enumerate() {
            let every = rule.matches.is_empty().then_some(&empty);
            for one in rule.matches.iter().chain(every).filter(|one| one.is_match(&facts)) {
                let order = gateway_api_order(one);
                // Only a greater one displaces: among equals the first in the list stays.
                if best.is_none_or(|(greatest, _)| order > greatest) {
                    best = Some((order, index));
                }
            }
        }

        let found = rule_of(&RouteTable::new(Order::MostSpecific, rules), &facts);
        prop_assert_eq!(found, best.map(|(_, index)| index));
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

#[test]
fn a_path_prefix_ends_at_a_segment_and_a_prefix_anywhere() {
    for (path, by_segment, by_character) in [
        ("/foo", true, true),
        ("/foo/", true, true),
        ("/foo/bar", true, true),
        ("/foobar", false, true),
        ("/Foo", false, false),
        ("/", false, false),
    ] {
        assert_eq!(path_prefix("/foo").is_match(path), by_segment, "{path}");
        assert_eq!(path_prefix("/foo/").is_match(path), by_segment, "{path}");
        assert_eq!(prefix("/foo").is_match(path), by_character, "{path}");
    }
    assert!(path_prefix("/").is_match("/anything"));
}

#[test]
fn a_regular_expression_matches_the_whole_path() {
    assert!(regex("/a|/b").is_match("/b"));
    assert!(!regex("/a|/b").is_match("/ab"));
    assert!(!regex("/a").is_match("/a/b"));
    assert!(regex("/.*").is_match("/a\nb"), "a newline is a character like others");
    assert!(FullRegex::new("(?:a{1000}){1000}").is_err(), "too large when compiled");
}

#[test]
fn the_query_is_read_as_it_is_written_and_its_first_value_counts() {
    let matches = |wanted: StringMatch, path: &str| {
        let one = Match { query: vec![("q".to_owned(), wanted)], ..Match::default() };
        one.is_match(&Request::get(path).facts())
    };

    assert!(matches(exact("1"), "/?a=2&q=1&q=2"));
    assert!(!matches(exact("2"), "/?q=1&q=2"));
    assert!(matches(exact(""), "/?q"));
    assert!(matches(exact(""), "/?q="));
    assert!(matches(exact("a=b"), "/?q=a=b"));
    assert!(matches(StringMatch::Present, "/?q"));
    assert!(!matches(StringMatch::Present, "/?Q=1&qq=1"));
    assert!(!matches(exact(""), "/"));
    assert!(!matches(exact("a b"), "/?q=a%20b"), "nothing is decoded");
}

#[test]
fn the_values_of_a_header_are_one_text() {
    let matches = |wanted: StringMatch, request: &Request| {
        let one = Match { headers: vec![(name("x"), wanted)], ..Match::default() };
        one.is_match(&request.facts())
    };
    let two = Request::get("/").header("x", b"1").header("x", b"2");

    assert!(matches(exact("1,2"), &two));
    assert!(!matches(exact("1"), &two));
    assert!(matches(StringMatch::Present, &Request::get("/").header("x", b"")));
    assert!(!matches(StringMatch::Present, &Request::get("/").header("y", b"")));
    assert!(matches(StringMatch::Present, &Request::get("/").header("x", b"\xff")), "there, if not UTF-8");
    assert!(!matches(exact(""), &Request::get("/")), "a missing header is not an empty one");
}

#[test]
fn a_header_that_must_not_match_may_be_missing() {
    let matches = |unwanted: StringMatch, request: &Request| {
        let one = Match { without_headers: vec![(name("x"), unwanted)], ..Match::default() };
        one.is_match(&request.facts())
    };
    let without = Request::get("/");
    let with = |value: &[u8]| Request::get("/").header("x", value);

    assert!(matches(StringMatch::Present, &without));
    assert!(!matches(StringMatch::Present, &with(b"1")));
    assert!(!matches(StringMatch::Present, &with(b"\xff")), "not hidden by a byte that is not UTF-8");
    assert!(!matches(prefix("1"), &with(b"1\xff")));
    assert!(matches(exact("1"), &without));
    assert!(matches(exact("1"), &with(b"2")));
    assert!(!matches(exact("1"), &with(b"1")));
    assert!(!matches(exact(""), &without), "a missing header counts as empty");
}

#[test]
fn a_rule_without_matches_takes_every_request_and_a_table_may_take_none() {
    let request = Request::get("/");
    let never = rule(vec![Match { path: Some(exact("/no")), ..Match::default() }]);

    for order in [Order::Listed, Order::MostSpecific] {
        let table = RouteTable::new(order, vec![never.clone(), rule(Vec::new())]);
        assert_eq!(rule_of(&table, &request.facts()), Some(1));
        assert_eq!(RouteTable::new(order, vec![never.clone()]).find(&request.facts()), None);
        assert_eq!(RouteTable::new(order, Vec::new()).find(&request.facts()), None);
    }
}

#[test]
fn an_expression_is_one_by_itself_and_cannot_leave_its_anchors() {
    for escaping in ["a)|(?:b", "a)(?:", ")|(", "a)$|^(?:b", "(?:a", "a)"] {
        assert!(FullRegex::new(escaping).is_err(), "{escaping}");
    }
    assert!(regex("a|b").is_match("a"));
    for text in ["xa", "bx", "ax", "a\n", "\nb", ""] {
        assert!(!regex("a|b").is_match(text), "{text:?}");
        assert!(!regex("(?m)^a$|^b$").is_match(text), "{text:?}");
    }
    assert!(matches!(FullRegex::new(&"a".repeat(4097)), Err(RegexError::TooLong(4097))));
    assert!(FullRegex::new(&"a".repeat(4096)).is_ok());
}

#[test]
fn host_and_what_begins_with_a_colon_is_a_part_of_the_request() {
    let matches = |field: &'static str, wanted: StringMatch, request: &Request| {
        let one = Match { headers: vec![(name(field), wanted)], ..Match::default() };
        one.is_match(&request.facts())
    };
    // As in HTTP/2, where there is no Host; and as in HTTP/1.1, where there is.
    for request in [Request::get("/a?b=c"), Request::get("/a?b=c").header("host", b"reviews:9080")] {
        for field in ["host", "Host", ":authority"] {
            assert!(matches(field, exact("reviews:9080"), &request), "{field}");
            assert!(matches(field, prefix("reviews"), &request), "{field}");
            assert!(matches(field, regex(r"reviews(:\d+)?"), &request), "{field}");
            assert!(matches(field, StringMatch::Present, &request), "{field}");
            assert!(!matches(field, exact("reviews"), &request), "{field}: the port is part of it");
        }
        assert!(matches(":method", exact("GET"), &request));
        assert!(matches(":path", exact("/a?b=c"), &request));
        assert!(matches(":scheme", exact("http"), &request));
        let without = Match { without_headers: vec![(name("host"), prefix("reviews"))], ..Match::default() };
        assert!(!without.is_match(&request.facts()));
    }
    assert!(matches(":path", exact("/a"), &Request::get("/a")));
    assert!(":status".parse::<HeaderField>().is_err());
}

#[test]
fn the_crumbs_of_a_cookie_are_one_cookie() {
    let crumbs = Request::get("/").header("cookie", b"a=1").header("cookie", b"user=jason");
    let whole = Request::get("/").header("cookie", b"a=1; user=jason");

    for request in [crumbs, whole] {
        let wanted = regex("^(.*?; )?(user=jason)(;.*)?$");
        let one = Match { headers: vec![(name("cookie"), wanted)], ..Match::default() };
        assert!(one.is_match(&request.facts()));
    }
}

#[test]
fn a_grpc_match_is_the_paths_two_segments() {
    let of = |service: Option<&str>, method: Option<&str>| {
        let exact = |text: Option<&str>| text.map(|text| StringMatch::Exact(text.to_owned()));
        let grpc = Some(GrpcMatch { service: exact(service), method: exact(method) });
        Match { grpc, ..Match::default() }
    };
    let holds = |wanted: &Match, path: &str| wanted.is_match(&Request::get(path).facts());

    assert!(holds(&of(Some("a.B"), None), "/a.B/C"));
    assert!(!holds(&of(Some("a.B"), None), "/a.Bx/C"));
    assert!(holds(&of(None, Some("C")), "/other/C"));
    assert!(!holds(&of(None, Some("C")), "/other"));
    assert!(of(Some("a.B"), None).specificity() > of(None, Some("VeryLongMethod")).specificity());
    assert!(of(Some("a.B"), Some("C")).specificity() > of(Some("a.B"), None).specificity());
}

#[test]
fn matches_and_rules_of_other_clients_are_left_out() {
    let of_client = |label: &str| Match {
        client: ClientMatch {
            labels: [("app".to_owned(), label.to_owned())].into(),
            namespace: Some("shop".to_owned()),
        },
        ..Match::default()
    };
    let rules =
        vec![rule(vec![of_client("a"), of_client("b")]), rule(vec![of_client("b")]), rule(Vec::new())];
    let table = RouteTable::new(Order::Listed, rules);
    let labels = [("app".to_owned(), "a".to_owned())].into();

    let own = table.clone().for_client(&labels, "shop");
    assert_eq!(own.rules().iter().map(|rule| rule.matches.len()).collect::<Vec<_>>(), [1, 0]);
    let others = table.for_client(&labels, "elsewhere");
    assert_eq!(others.rules().iter().map(|rule| rule.matches.len()).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_client_that_no_rule_is_for_follows_the_rule_for_others() {
    let of_shop = ClientMatch { namespace: Some("shop".to_owned()), ..ClientMatch::default() };
    let rules = vec![rule(vec![Match { client: of_shop, ..Match::default() }])];
    let others = Rule { name: "others".to_owned(), ..Rule::default() };
    let table = RouteTable::new(Order::Listed, rules).with_rule_for_others(others);
    let names = |namespace: &str| {
        let own = table.clone().for_client(&BTreeMap::new(), namespace);
        own.rules().iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };

    assert_eq!(names("elsewhere"), ["others"]);
    assert_ne!(names("shop"), ["others"]);
    assert_eq!(table.rules().len(), 1, "it is no rule of the table itself");
}
