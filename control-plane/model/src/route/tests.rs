//! Which rule a request follows, against oracles that try everything.

mod oracles;

use std::{cell::RefCell, collections::HashMap};

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
            token: None,
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

#[test]
fn the_case_of_hex_digits_means_nothing_in_paths() {
    let holds = |asked: &StringMatch, path: &str| {
        let one = Match { path: Some(asked.clone()), ..Match::default() };
        one.is_match(&Request::get(path).facts())
    };
    let asked = [
        exact("/caf%C3%A9"),
        prefix("/caf%C3"),
        path_prefix("/caf%C3%A9"),
        regex("/caf%C3%A9"),
        regex("/caf%c3%a9"),
        regex("/caf%c3%[a-f]9"),
    ];
    for one in &asked {
        for path in ["/caf%C3%A9", "/caf%c3%a9", "/caf%c3%A9"] {
            assert!(holds(one, path), "{one:?} {path}");
        }
        assert!(!holds(one, "/CAF%C3%A9") && !holds(one, "/caf%C4%A9"), "{one:?}");
    }
    assert!(!holds(&exact("/%25C3"), "/%25c3"), "an encoded percent sign begins no encoded character");

    // Few matches are tried one by one; of many an index leaves out what cannot hold.
    for others in [0, 20] {
        let matches = (0..others).map(|other| exact(&format!("/{other}"))).chain([exact("/caf%C3%A9")]);
        let matches = matches.map(|path| Match { path: Some(path), ..Match::default() });
        let table =
            RouteTable::new(Order::Listed, vec![Rule { matches: matches.collect(), ..Rule::default() }]);
        let found = table.find(&Request::get("/caf%c3%a9").facts());
        assert_eq!(found.and_then(|found| found.matched), Some(others), "{others}");
        assert_eq!(table.find(&Request::get("/caf%c4%a9").facts()), None);
    }

    let group = FullRegex::new("/caf%C3%A9/(.*)").unwrap();
    assert_eq!(group.group("/caf%c3%a9/%c3", 1), Some("%c3"), "what is found is as it came");
}
