//! Routes of requests: `HTTPRoute` and `GRPCRoute` with a `Service` as parent.

mod merged;
mod precedence;
mod references;

use selvedge_model::{Order, Rule};

use super::*;

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
        token: None,
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
    let (mesh, mut problems) = compiled(&format!("{ECHO}{text}"));
    // What asks for the same as something else is told.
    problems.retain(|problem| {
        problem.severity != Severity::Warning || !problem.message.contains("asks for the same")
    });
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

#[test]
fn a_rule_of_a_younger_route_that_asks_for_the_same_is_told_of_the_older_one() {
    let rule = |path: &str| {
        format!("{{matches: [{{path: {{value: {path}}}}}], backendRefs: [{{name: echo-v1, port: 80}}]}}")
    };
    let older = http("mesh", "a", &format!("[{}, {}]", rule("/a"), rule("/b")));
    let younger = http("mesh", "b", &format!("[{}, {}, {}]", rule("/c"), rule("/b"), rule("/")));
    let warned = |text: &str| {
        let (_, problems) = compiled(&format!("{ECHO}{text}"));
        let warnings = problems.into_iter().filter(|one| one.severity == Severity::Warning);
        let warnings = warnings.filter(|one| one.message.contains("is never reached at"));
        let told = warnings.map(|one| (one.document.unwrap().to_string(), one.field, one.message));
        told.collect::<Vec<_>>()
    };

    let told = warned(&format!("{older}{younger}"));
    let places: BTreeSet<_> = told.iter().map(|(route, field, _)| (route.as_str(), field.as_str())).collect();
    assert_eq!(places, [("HTTPRoute mesh/b", "spec.rules[1]")].into(), "{told:?}");
    assert!(told[0].2.contains("rules[1] of HTTPRoute mesh/a"), "{told:?}");
    // Clients elsewhere follow routes of their own.
    assert_eq!(
        warned(&format!("{older}{}", younger.replace("namespace: mesh}\nspec", "namespace: other}\nspec"))),
        []
    );
}
