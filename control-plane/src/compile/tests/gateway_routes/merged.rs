//! Several routes of one service are merged match by match, as a naive reading of their order does it.

use proptest::prelude::*;

use super::{super::*, Asked, http, mesh_of, rule, to};

/// A match of the property test: its path, whether it asks for GET, and how many headers and query parameters.
#[derive(Debug, Clone)]
struct Wanted {
    exact: bool,
    path: &'static str,
    get: bool,
    headers: usize,
    query: usize,
}

const NAMES: [&str; 2] = ["a", "b"];

impl Wanted {
    fn yaml(&self) -> String {
        let kind = if self.exact { "Exact" } else { "PathPrefix" };
        let list = |count: usize| {
            let entries = NAMES[..count].iter().map(|name| format!("{{name: {name}, value: y}}"));
            entries.collect::<Vec<_>>().join(", ")
        };
        let method = if self.get { "method: GET, " } else { "" };
        format!(
            "{{path: {{type: {kind}, value: {}}}, {method}headers: [{}], queryParams: [{}]}}",
            self.path,
            list(self.headers),
            list(self.query)
        )
    }

    fn holds(&self, asked: &Asked) -> bool {
        let segments =
            |path: &'static str| path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>();
        let path = match self.exact {
            true => asked.path == self.path,
            false => segments(asked.path).starts_with(&segments(self.path)),
        };
        path && (!self.get || asked.method == Method::GET)
            && NAMES[..self.headers].iter().all(|name| asked.headers.contains(&(*name, "y")))
            && NAMES[..self.query].iter().all(|name| asked.query.contains(&format!("{name}=y")))
    }

    /// As the documentation of `HTTPRouteRule.matches` lists it.
    fn rank(&self) -> (bool, usize, bool, usize, usize) {
        let length = self.path.trim_end_matches('/').len();
        (self.exact, length, self.get, self.headers, self.query)
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let path = prop::sample::select(vec!["/", "/x", "/x/y", "/xy"]);
    (any::<bool>(), path, any::<bool>(), 0..=2_usize, 0..=2_usize)
        .prop_map(|(exact, path, get, headers, query)| Wanted { exact, path, get, headers, query })
}

pub(super) fn asked() -> impl Strategy<Value = Asked> {
    let path = prop::sample::select(vec!["/", "/x", "/x/y", "/xy", "/x/y/z"]);
    let query = prop::sample::select(vec!["", "a=y", "b=y&a=y"]);
    let method = prop::sample::select(vec![Method::GET, Method::PUT]);
    (path, query, method, 0..=2_usize).prop_map(|(path, query, method, headers)| {
        let headers = NAMES[..headers].iter().map(|name| (*name, "y")).collect();
        Asked { path, query, method, headers }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Several routes of one service, oldest first, each a list of rules, each a list of matches.
    #[test]
    fn several_routes_are_merged_match_by_match(
        routes in prop::collection::vec(prop::collection::vec(prop::collection::vec(wanted(), 1..3), 1..3), 1..4),
        requests in prop::collection::vec(asked(), 1..8),
    ) {
        let mut text = String::new();
        for (number, rules) in routes.iter().enumerate() {
            let rules = rules.iter().map(|matches| {
                let matches: Vec<_> = matches.iter().map(Wanted::yaml).collect();
                format!("{{matches: [{}], {}}}", matches.join(", "), to("echo-v1"))
            });
            let rules: Vec<_> = rules.collect();
            text += &http("mesh", &format!("r{number}"), &format!("[{}]", rules.join(", ")));
        }
        let mesh = mesh_of(&text);
        for asked in &requests {
            let mut best: Option<(&Wanted, String)> = None;
            for (number, rules) in routes.iter().enumerate() {
                for (place, matches) in rules.iter().enumerate() {
                    for one in matches.iter().filter(|one| one.holds(asked)) {
                        if best.as_ref().is_none_or(|(best, _)| best.rank() < one.rank()) {
                            best = Some((one, format!("HTTPRoute mesh/r{number} rules[{place}]")));
                        }
                    }
                }
            }
            let found = rule(&mesh, "mesh", 80, asked).map(|rule| rule.name.clone());
            prop_assert_eq!(found, best.map(|(_, name)| name), "{:?}", asked);
        }
    }
}
