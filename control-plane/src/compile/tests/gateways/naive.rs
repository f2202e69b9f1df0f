//! Which route a request to a gateway follows, against a second, slow reading of the Gateway API.

use proptest::{prelude::*, sample};
use selvedge_model::gateway::Hostname;

use super::*;

const HOSTNAMES: [&str; 7] = ["", "*.b", "*.a.b", "a.b", "c.b", "c.a.b", "x.c.a.b"];
const HOSTS: [&str; 7] = ["a.b", "c.b", "c.a.b", "x.c.a.b", "d.a.b", "b", "other"];
const PATHS: [&str; 4] = ["/", "/a", "/a/b", "/c"];
const SERVICES: [&str; 2] = ["web", "api"];

/// A route with one rule.
#[derive(Debug, Clone)]
struct Asked {
    /// The listener that it names.
    section: Option<usize>,
    hostnames: Vec<&'static str>,
    path: &'static str,
    service: &'static str,
}

fn asked() -> impl Strategy<Value = Asked> {
    let section = prop::option::weighted(0.3, 0..4_usize);
    let hostnames = sample::subsequence(HOSTNAMES[1..].to_vec(), 0..3);
    (section, hostnames, sample::select(&PATHS[..]), sample::select(&SERVICES[..]))
        .prop_map(|(section, hostnames, path, service)| Asked { section, hostnames, path, service })
}

fn set(text: &str) -> Hostname {
    text.parse().unwrap()
}

fn has_prefix(path: &str, prefix: &str) -> bool {
    prefix == "/" || path == prefix || path.starts_with(&format!("{prefix}/"))
}

/// Where a request goes, as one reads the text: `404` if nowhere.
fn naive(listeners: &[&str], routes: &[Asked], host: &str, path: &str) -> String {
    let having = |names: &mut dyn Iterator<Item = Hostname>| {
        let fitting = names.filter(|name| name.contains(host));
        fitting.max_by(|a, b| a.rank().cmp(&b.rank()))
    };
    let Some(chosen) = having(&mut listeners.iter().map(|name| set(name))) else { return "404".to_owned() };
    let place = listeners.iter().position(|name| set(name) == chosen).unwrap();
    let names = |route: &Asked| -> Vec<Hostname> {
        match route.hostnames.as_slice() {
            _ if route.section.is_some_and(|section| section != place) => Vec::new(),
            [] => vec![chosen.clone()],
            names => names.iter().filter_map(|name| set(name).intersection(&chosen)).collect(),
        }
    };
    let Some(best) = having(&mut routes.iter().flat_map(names)) else { return "404".to_owned() };
    let attached = routes.iter().filter(|route| names(route).contains(&best));
    let mut matching: Vec<&Asked> = attached.filter(|route| has_prefix(path, route.path)).collect();
    let own = |route: &Asked| {
        let names = route.hostnames.iter().map(|name| set(name));
        let of_best = names.filter(|name| name.intersection(&chosen).as_ref() == Some(&best));
        of_best.max_by(|a, b| a.rank().cmp(&b.rank())).unwrap_or_default().rank()
    };
    // The closest own host name, of equal ones the longest path, and of these the first.
    matching.sort_by_key(|route| std::cmp::Reverse((own(route), route.path.trim_end_matches('/').len())));
    matching.first().map_or("404", |route| route.service).to_owned()
}

fn written(kind: &str, listeners: &[&str], routes: &[Asked]) -> String {
    let listener = |(place, name): (usize, &&str)| {
        format!("{{name: l{place}, port: 80, protocol: HTTP, hostname: '{name}'}}")
    };
    let listed: Vec<String> = listeners.iter().enumerate().map(listener).collect();
    let route = |(place, asked): (usize, &Asked)| {
        let section = asked.section.map(|section| format!(", sectionName: l{section}")).unwrap_or_default();
        let names: Vec<String> = asked.hostnames.iter().map(|name| format!("'{name}'")).collect();
        let wanted = match (kind, asked.path.trim_start_matches('/').split_once('/')) {
            ("HTTPRoute", _) => format!("matches: [{{path: {{value: {}}}}}], ", asked.path),
            (_, None) if asked.path == "/" => String::new(),
            // Of calls, the service and the method are asked for.
            (_, None) => format!("matches: [{{method: {{service: {}}}}}], ", &asked.path[1..]),
            (_, Some((service, method))) => {
                format!("matches: [{{method: {{service: {service}, method: {method}}}}}], ")
            }
        };
        let spec = format!(
            "{{parentRefs: [{{name: edge{section}}}], hostnames: [{}], rules: [{{{wanted}backendRefs: [{{name: {}, port: 80}}]}}]}}",
            names.join(", "),
            asked.service
        );
        document(kind, "shop", &format!("r{place}"), &spec)
    };
    let routes: String = routes.iter().enumerate().map(route).collect();
    format!("{EDGE}{}{routes}", gateway(&listed.join(", ")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_request_goes_where_a_slow_reading_says(
        listeners in sample::subsequence(HOSTNAMES.to_vec(), 1..5),
        routes in prop::collection::vec(asked(), 0..6),
    ) {
        // Calls have two segments, which both kinds read alike.
        for (kind, paths) in
            [("HTTPRoute", &["/", "/a", "/a/b/c", "/ab", "/c"][..]), ("GRPCRoute", &["/a/b", "/a/c", "/c/b", "/ab/c"])]
        {
            let (mesh, _) = compiled(&written(kind, &listeners, &routes));

            for host in HOSTS {
                for path in paths {
                    let expected = naive(&listeners, &routes, host, path);
                    prop_assert_eq!(sent_to(&mesh, 80, host, path), expected, "{} {} {}", kind, host, path);
                }
            }
        }
    }
}
