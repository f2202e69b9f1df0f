//! Routes of requests: `HTTPRoute` and `GRPCRoute` with a `Service` as parent.

use proptest::prelude::*;
use selvedge_model::{Order, Rule, draw};

use super::*;
use crate::problem::{Detached, Unresolved};

/// The services of Gateway API's conformance tests for meshes.
const ECHO: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: mesh}
spec:
  selector: {app: echo}
  ports:
  - {name: http, port: 80, appProtocol: http, targetPort: 8080}
  - {name: http-alt, port: 8080, appProtocol: http}
  - {name: https, port: 443, targetPort: 8443}
  - {name: tcp, port: 9090}
  - {name: grpc, port: 7070}
  - {name: any, port: 6000}
---
apiVersion: v1
kind: Service
metadata: {name: echo-v1, namespace: mesh}
spec: {selector: {app: echo, version: v1}, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: grpc, port: 7070}]}
---
apiVersion: v1
kind: Service
metadata: {name: echo-v2, namespace: mesh}
spec: {selector: {app: echo, version: v2}, ports: [{name: http, port: 80}, {name: http-alt, port: 8080}, {name: grpc, port: 7070}]}
---
"#;

const HOST: &str = "echo.mesh.svc.cluster.local";
const OF_ECHO: &str = "parentRefs: [{group: \"\", kind: Service, name: echo, namespace: mesh}]";

fn document(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// An `HTTPRoute` of every port of `echo` with these rules.
fn http(namespace: &str, name: &str, rules: &str) -> String {
    document("HTTPRoute", namespace, name, &format!("{{{OF_ECHO}, rules: {rules}}}"))
}

/// A rule's backend, which is called `name` in `mesh`.
fn to(name: &str) -> String {
    format!("backendRefs: [{{name: {name}, namespace: mesh, port: 80}}]")
}

#[derive(Debug, Clone, Default)]
struct Asked {
    path: &'static str,
    query: &'static str,
    method: Method,
    headers: Vec<(&'static str, &'static str)>,
}

impl Asked {
    fn get(path: &'static str) -> Self {
        Self { path, ..Self::default() }
    }

    fn with(self, name: &'static str, value: &'static str) -> Self {
        Self { headers: vec![(name, value)], ..self }
    }
}

/// The rule that a request to `port` of `echo` from `client` follows.
fn rule<'m>(mesh: &'m Mesh, client: &str, port: u16, asked: &Asked) -> Option<&'m Rule> {
    let headers = asked.headers.iter();
    let headers: HeaderMap = headers
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let connection = &facts::Connection::new(facts::Source::UNKNOWN, port);
    let facts = facts::Request {
        connection,
        method: &asked.method,
        scheme: "http",
        authority: "echo",
        path: asked.path,
        query: asked.query,
        headers: &headers,
    };
    let service = service(mesh, HOST, port, client);
    Some(&service.routes.rules()[service.routes.find(&facts)?.rule])
}

/// The services that it goes to, with their weights.
fn sent_to(mesh: &Mesh, client: &str, port: u16, asked: &Asked) -> Option<Vec<(String, u32)>> {
    let backends = &service(mesh, HOST, port, client).backends;
    let shares = rule(mesh, client, port, asked)?.backends.iter();
    let name = |index: usize| backends[index].name.service.host.split('.').next().unwrap().to_owned();
    Some(shares.map(|share| (name(share.backend), share.weight)).collect())
}

fn one(name: &str) -> Option<Vec<(String, u32)>> {
    Some(vec![(name.to_owned(), 1)])
}

fn mesh_of(text: &str) -> Mesh {
    let (mesh, problems) = compiled(&format!("{ECHO}{text}"));
    assert_eq!(problems, []);
    mesh
}

#[test]
fn the_most_specific_match_of_a_route_decides() {
    let rules = format!(
        "[{{matches: [{{path: {{type: PathPrefix, value: /}}}}, {{headers: [{{name: version, value: one}}]}}], {}}}, \
          {{matches: [{{path: {{type: PathPrefix, value: /v2}}}}, {{headers: [{{name: Version, value: two}}]}}], {}}}]",
        to("echo-v1"),
        to("echo-v2")
    );
    let mesh = mesh_of(&http("mesh", "matching", &rules));

    for (asked, expected) in [
        (Asked::get("/"), "echo-v1"),
        (Asked::get("/example"), "echo-v1"),
        (Asked::get("/").with("version", "one"), "echo-v1"),
        (Asked::get("/v2"), "echo-v2"),
        (Asked::get("/v2/"), "echo-v2"),
        (Asked::get("/v2/example"), "echo-v2"),
        (Asked::get("/").with("version", "two"), "echo-v2"),
        (Asked::get("/v2example"), "echo-v1"),
        (Asked::get("/foo/v2/example"), "echo-v1"),
    ] {
        assert_eq!(sent_to(&mesh, "mesh", 80, &asked), one(expected), "{asked:?}");
    }
    assert_eq!(service(&mesh, HOST, 80, "mesh").routes.order(), Order::MostSpecific);
}

#[test]
fn queries_methods_and_regular_expressions_are_matched_and_what_matches_nothing_has_no_route() {
    let rules = format!(
        "[{{matches: [{{queryParams: [{{name: animal, value: whale}}, {{name: animal, value: other}}]}}], {}}}, \
          {{matches: [{{method: POST, path: {{value: /post}}}}], {}}}, \
          {{matches: [{{path: {{type: RegularExpression, value: \"/r[0-9]+\"}}, headers: [{{type: RegularExpression, name: x, value: \"a+\"}}]}}], {}}}, \
          {{matches: [{{path: {{type: Exact, value: /exact}}}}], {}}}]",
        to("echo-v1"),
        to("echo-v2"),
        to("echo-v1"),
        to("echo-v2")
    );
    let mesh = mesh_of(&http("mesh", "matching", &rules));

    for (asked, expected) in [
        (Asked { query: "animal=whale", ..Asked::get("/") }, one("echo-v1")),
        (Asked { query: "animal=other", ..Asked::get("/") }, None),
        (Asked { method: Method::POST, ..Asked::get("/post/1") }, one("echo-v2")),
        (Asked::get("/post/1"), None),
        (Asked::get("/r12").with("x", "aa"), one("echo-v1")),
        (Asked::get("/r12"), None),
        (Asked::get("/r12/3").with("x", "aa"), None),
        (Asked::get("/exact"), one("echo-v2")),
        (Asked::get("/exact/"), None),
        (Asked { query: "animal=whale", ..Asked::get("/exact") }, one("echo-v2")),
    ] {
        assert_eq!(sent_to(&mesh, "mesh", 80, &asked), expected, "{asked:?}");
    }
}

#[test]
fn a_route_is_for_the_ports_that_its_parents_name_by_number_or_name() {
    let all = [80, 8080, 7070];
    for (parent, expected) in [
        ("{group: \"\", kind: Service, name: echo, port: 80}", vec![80]),
        ("{group: core, kind: Service, name: echo, sectionName: http-alt}", vec![8080]),
        ("{group: \"\", kind: Service, name: echo, sectionName: http, port: 80}", vec![80]),
        ("{group: \"\", kind: Service, name: echo}", all.to_vec()),
        (
            "{group: \"\", kind: Service, name: echo, port: 80}, {group: \"\", kind: Service, name: echo, port: 7070}",
            vec![80, 7070],
        ),
    ] {
        let spec = format!("{{parentRefs: [{parent}], rules: [{{{}}}]}}", to("echo-v1"));
        let mesh = mesh_of(&document("HTTPRoute", "mesh", "ports", &spec));

        let follow = |port: &u16| sent_to(&mesh, "mesh", *port, &Asked::get("/")) == one("echo-v1");
        assert_eq!(all.into_iter().filter(follow).collect::<Vec<_>>(), expected, "{parent}");
    }
}

#[test]
fn a_consumers_route_beats_the_producers_for_its_own_clients_alone() {
    let producer = http("mesh", "producer", &format!("[{{{}}}]", to("echo-v1")));
    let consumer = http("consumer", "own", &format!("[{{{}}}]", to("echo-v2")));
    for text in [format!("{producer}{consumer}"), format!("{consumer}{producer}")] {
        let mesh = mesh_of(&text);

        for (client, expected) in [("mesh", "echo-v1"), ("other", "echo-v1"), ("consumer", "echo-v2")] {
            assert_eq!(sent_to(&mesh, client, 80, &Asked::get("/")), one(expected), "{client}");
        }
    }
    let alone = mesh_of(&consumer);
    assert_eq!(sent_to(&alone, "mesh", 80, &Asked::get("/")), one("echo"));
    assert_eq!(sent_to(&alone, "consumer", 80, &Asked::get("/")), one("echo-v2"));
}

#[test]
fn calls_are_matched_by_service_method_and_metadata() {
    let rules = "[{matches: [{method: {service: a.B, method: Get}}], backendRefs: [{name: echo-v1, port: 7070}]}, \
        {matches: [{method: {service: a.B}, headers: [{name: x, value: y}]}], backendRefs: [{name: echo-v2, port: 7070}]}, \
        {matches: [{method: {type: RegularExpression, method: \"List.*\"}}], backendRefs: [{name: echo-v2, port: 7070, weight: 3}]}]";
    let mesh = mesh_of(&document("GRPCRoute", "mesh", "calls", &format!("{{{OF_ECHO}, rules: {rules}}}")));

    let two = |weight| Some(vec![("echo-v2".to_owned(), weight)]);
    for (asked, expected) in [
        (Asked::get("/a.B/Get"), one("echo-v1")),
        (Asked::get("/a.B/Get").with("x", "y"), one("echo-v1")),
        (Asked::get("/a.B/Put").with("x", "y"), two(1)),
        (Asked::get("/c.D/ListAll"), two(3)),
        (Asked::get("/c.D/Get"), None),
    ] {
        assert_eq!(sent_to(&mesh, "mesh", 7070, &asked), expected, "{asked:?}");
    }
    let every =
        document("GRPCRoute", "mesh", "calls", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v1")));
    assert_eq!(sent_to(&mesh_of(&every), "mesh", 7070, &Asked::get("/c.D/Get")), one("echo-v1"));
}

#[test]
fn of_several_kinds_on_a_port_one_decides_and_the_others_are_told() {
    let http = http("mesh", "web", &format!("[{{{}}}]", to("echo-v1")));
    let grpc =
        document("GRPCRoute", "mesh", "calls", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let tcp =
        document("TCPRoute", "mesh", "bytes", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let istio = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: old, namespace: mesh}\n\
         spec: {hosts: [echo], http: [{route: [{destination: {host: echo-v2}}]}]}\n---\n";
    let told = |problems: &[Problem], kind: &str| {
        let mut own = problems.iter().filter(|problem| &*problem.document.as_ref().unwrap().kind == kind);
        own.find(|problem| problem.message.contains("echo.mesh.svc.cluster.local:80:")).cloned()
    };

    let lost = |why| Fault::Parent { index: 0, why };
    let (mesh, problems) = compiled(&format!("{ECHO}{http}{grpc}"));
    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), one("echo-v2"));
    let loser = told(&problems, "HTTPRoute").unwrap();
    assert_eq!(
        (loser.field.as_str(), loser.fault),
        ("spec.parentRefs[0]", lost(Detached::Overruled)),
        "{loser}"
    );

    let (mesh, problems) = compiled(&format!("{ECHO}{istio}{http}"));
    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), one("echo-v1"));
    assert_eq!(told(&problems, "VirtualService").unwrap().fault, Fault::Overruled);

    // What is spoken on 6000 shows only when it is spoken.
    let (mesh, problems) = compiled(&format!("{ECHO}{tcp}{http}"));
    let overruled = |problem: &Problem| {
        problem.fault == lost(Detached::OverruledInPart) && problem.message.contains("cluster.local:6000:")
    };
    assert!(problems.iter().any(overruled), "{problems:?}");
    assert_eq!(service(&mesh, HOST, 6000, "mesh").tcp.rules[0].name, "default");
    assert_eq!(service(&mesh, HOST, 9090, "mesh").tcp.rules[0].name, "TCPRoute mesh/bytes");
}

#[test]
fn on_one_port_grpc_goes_before_http_before_tls_before_tcp() {
    let of_6000 = "parentRefs: [{group: \"\", kind: Service, name: echo, namespace: mesh, port: 6000}]";
    let route = |kind: &str, namespace: &str| {
        let spec = format!("{{{of_6000}, rules: [{{{}}}]}}", to("echo-v1"));
        document(kind, namespace, &kind.to_lowercase(), &spec)
    };
    let losers = |text: &str| {
        let (_, problems) = compiled(&format!("{ECHO}{text}"));
        let lost = |problem: &Problem| problem.fault == Fault::Parent { index: 0, why: Detached::Overruled };
        assert!(problems.iter().all(lost), "{problems:?}");
        let kinds: Vec<String> =
            problems.iter().map(|problem| problem.document.as_ref().unwrap().to_string()).collect();
        kinds
    };

    let ranked = ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"];
    for (place, winner) in ranked.into_iter().enumerate() {
        for loser in &ranked[place + 1..] {
            let both = route(loser, "mesh") + &route(winner, "mesh");
            assert_eq!(losers(&both), [format!("{loser} mesh/{}", loser.to_lowercase())], "{winner}");
        }
    }
    let all: String = ranked.iter().map(|kind| route(kind, "mesh")).collect();
    assert_eq!(losers(&all).len(), 3);

    // What clients of one namespace follow is nothing that the service's own routes would lose by.
    let foreign = route("GRPCRoute", "consumer") + &route("TCPRoute", "mesh");
    assert_eq!(losers(&foreign), [""; 0]);
}

#[test]
fn a_consumers_route_of_connections_beats_the_producers_of_requests() {
    let consumer =
        document("TCPRoute", "consumer", "own", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let producer = http("mesh", "producer", &format!("[{{{}}}]", to("echo-v1")));

    let (mesh, problems) = compiled(&format!("{ECHO}{consumer}{producer}"));

    assert_eq!(problems, []);
    let names = |client| {
        let rules = &service(&mesh, HOST, 6000, client).tcp.rules;
        rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("consumer"), ["TCPRoute consumer/own"]);
    assert_eq!(names("mesh"), ["default"]);
    assert_eq!(sent_to(&mesh, "mesh", 6000, &Asked::get("/")), one("echo-v1"));
}

#[test]
fn backends_of_another_namespace_need_no_grant_in_a_mesh() {
    let rules = format!("[{{{}}}]", to("echo-v2"));
    let mesh = mesh_of(&http("consumer", "own", &rules));

    assert_eq!(sent_to(&mesh, "consumer", 80, &Asked::get("/")), one("echo-v2"));
}

#[test]
fn shares_of_broken_backends_are_kept_and_rules_without_backends_are_said() {
    let rules = "[{backendRefs: [{name: echo-v1, port: 80, weight: 9}, {name: gone, port: 80}]}, \
        {matches: [{path: {value: /kind}}], backendRefs: [{kind: Bucket, group: x.y, name: b}]}, \
        {matches: [{path: {value: /port}}], backendRefs: [{name: echo-v1, port: 1}]}, \
        {matches: [{path: {value: /none}}]}, \
        {matches: [{path: {value: /zero}}], backendRefs: [{name: echo-v1, port: 80, weight: 0}]}]";
    let (mesh, problems) = compiled(&format!("{ECHO}{}", http("mesh", "broken", rules)));

    let told: Vec<_> =
        problems.iter().map(|problem| (problem.field.as_str(), problem.severity, problem.fault)).collect();
    let error = |field, why| (field, Severity::Error, Fault::Backend(why));
    let expected = [
        error("spec.rules[0].backendRefs[1].name", Unresolved::NoSuchHost),
        error("spec.rules[1].backendRefs[0].kind", Unresolved::UnsupportedKind),
        error("spec.rules[2].backendRefs[0].port", Unresolved::NoSuchPort),
        ("spec.rules[3].backendRefs", Severity::Warning, Fault::Between),
        ("spec.rules[4].backendRefs", Severity::Warning, Fault::Between),
    ];
    assert_eq!(told, expected, "{problems:?}");
    let shares = vec![("echo-v1".to_owned(), 9), ("gone".to_owned(), 1)];
    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), Some(shares));
    for path in ["/", "/kind", "/port", "/none", "/zero"] {
        assert_eq!(rule(&mesh, "mesh", 80, &Asked::get(path)).unwrap().unusable_status, 500, "{path}");
    }
    let mut rng = fastrand::Rng::with_seed(1);
    for path in ["/none", "/zero"] {
        let backends = &rule(&mesh, "mesh", 80, &Asked::get(path)).unwrap().backends;
        assert_eq!(draw(backends.iter().map(|backend| backend.weight), &mut rng), None, "{path}");
    }
}

#[test]
fn what_http_routes_get_wrong_about_their_parents_is_said() {
    for (parent, expected) in [
        ("{group: \"\", kind: Service, name: gone}", "parentRefs[0]: there is no Service mesh/gone"),
        ("{group: \"\", kind: Service, name: echo, port: 1}", "parentRefs[0].port: echo.mesh"),
        ("{group: \"\", kind: Service, name: echo, sectionName: x}", "parentRefs[0].sectionName: echo.mesh"),
        (
            "{group: \"\", kind: Service, name: echo, sectionName: http, port: 8080}",
            "parentRefs[0].sectionName",
        ),
        ("{group: \"\", kind: Service, name: echo, port: 9090}", "is not HTTP"),
        (
            "{group: \"\", kind: Service, name: echo}, {group: \"\", kind: Service, name: echo}",
            "parentRefs[1]: is given twice",
        ),
    ] {
        let spec = format!("{{parentRefs: [{parent}], rules: [{{{}}}]}}", to("echo-v1"));
        let (_, problems) = compiled(&format!("{ECHO}{}", document("HTTPRoute", "mesh", "a", &spec)));
        assert!(errors(&problems).iter().any(|error| error.contains(expected)), "{parent}: {problems:?}");
    }
    let (_, problems) = compiled(&format!(
        "{ECHO}{}",
        document(
            "HTTPRoute",
            "mesh",
            "a",
            &format!("{{parentRefs: [{{name: edge}}], rules: [{{{}}}]}}", to("echo-v1"))
        )
    ));
    assert!(problems[0].message.contains("Gateway is not acted on"), "{problems:?}");
}

#[test]
fn rules_are_called_by_their_route_place_and_name() {
    let rules = format!(
        "[{{name: first, matches: [{{path: {{value: /named}}}}], {}}}, {{{}}}]",
        to("echo-v1"),
        to("echo-v2")
    );
    let mesh = mesh_of(&http("mesh", "r", &rules));

    let name = |path| rule(&mesh, "mesh", 80, &Asked::get(path)).unwrap().name.clone();
    assert_eq!(name("/named"), "HTTPRoute mesh/r rules[0] first");
    assert_eq!(name("/"), "HTTPRoute mesh/r rules[1]");
}

#[test]
fn a_filter_that_cannot_be_used_answers_and_is_told_in_its_route() {
    let rules = format!(
        "[{{filters: [{{type: ExtensionRef, extensionRef: {{group: x.y, kind: Sieve, name: s}}}}], {}}}]",
        to("echo-v1")
    );
    let (mesh, problems) = compiled(&format!("{ECHO}{}", http("mesh", "r", &rules)));

    let told = problems.iter().find(|problem| problem.severity == Severity::Error).unwrap();
    assert_eq!((told.field.as_str(), told.fault), ("spec.rules[0].filters[0].extensionRef", Fault::Between));
    let answer = rule(&mesh, "mesh", 80, &Asked::get("/")).unwrap().filters.answer.as_ref();
    assert!(matches!(answer, Some(selvedge_model::filter::OwnAnswer::Unusable(_))), "{answer:?}");
}

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

#[test]
fn what_clients_do_not_call_by_an_address_of_its_own_is_no_parent() {
    let service = |spec: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: other, namespace: mesh}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let parent = "parentRefs: [{group: \"\", kind: Service, name: other}]";
    let rules = format!("[{{{}}}]", to("echo-v1"));
    let opaque = "rules: [{backendRefs: [{name: echo-v1, port: 80}]}]";
    for (spec, why) in [
        ("clusterIP: None, selector: {app: echo}, ports: [{name: any, port: 80}]", "is headless"),
        (
            "type: ExternalName, externalName: echo.mesh, ports: [{name: any, port: 80}]",
            "of the type ExternalName",
        ),
        (
            "type: ExternalName, externalName: example.com, ports: [{name: any, port: 80}]",
            "of the type ExternalName",
        ),
    ] {
        for (kind, rest) in [("HTTPRoute", format!("rules: {rules}")), ("TCPRoute", opaque.to_owned())] {
            let spoken = if kind == "TCPRoute" { "tcp" } else { "http" };
            let route = document(kind, "mesh", "r", &format!("{{{parent}, {rest}}}"));
            let text = format!("{ECHO}{}{route}", service(&spec.replace("any", spoken)));
            let (mesh, problems) = compiled(&text.replace("v1\nkind: TCPRoute", "v1alpha2\nkind: TCPRoute"));

            let [problem] = &problems[..] else { panic!("{spec}: {problems:?}") };
            assert_eq!((&*problem.field, problem.severity), ("spec.parentRefs[0]", Severity::Error));
            assert!(
                problem.message.contains(why) && problem.message.contains("name "),
                "{}",
                problem.message
            );
            let table = &service_table(&mesh);
            assert_eq!(table, &["default"], "it is called as if there were no route");
        }
    }
}

#[test]
fn a_backend_may_stand_for_a_name_outside_at_the_port_that_the_route_names() {
    let outside = "apiVersion: v1\nkind: Service\nmetadata: {name: outside, namespace: mesh}\n\
                   spec: {type: ExternalName, externalName: www.example.com}\n---\n";
    let rules = "[{backendRefs: [{name: outside, port: 8443}]}]";
    let mesh = mesh_of(&format!("{outside}{}", http("mesh", "r", rules)));

    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), one("outside"));
    assert!(service(&mesh, "outside.mesh.svc.cluster.local", 8443, "mesh").backends[0].broken.is_none());
}

/// The names of the rules of `other`.
fn service_table(mesh: &Mesh) -> Vec<String> {
    let other = service(mesh, "other.mesh.svc.cluster.local", 80, "mesh");
    other.routes.rules().iter().map(|rule| rule.name.clone()).collect()
}

fn asked() -> impl Strategy<Value = Asked> {
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
