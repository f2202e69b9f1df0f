//! What `Ingress`es come to: the rules of their hosts at the gateway `selvedge/ingress`.

mod passwords;
mod tls;

use selvedge_model::{
    Protocol, Rule,
    filter::{OwnAnswer, PathRewrite},
    gateway::Gateway,
};

use serde_json::json;

use super::*;
use crate::{problem::Severity, resources::decode_value};

/// A workload that is the gateway, and three services of the namespace `default`.
const EDGE: &str = r#"
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: edge-1
  namespace: selvedge
  annotations: {config.selvedge.io/gateway: selvedge/ingress}
spec: {address: 127.0.0.1, serviceAccount: edge}
---
apiVersion: v1
kind: Service
metadata: {name: app1-service}
spec: {selector: {app: app1}, ports: [{name: http, port: 80}, {name: more, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: app2-service}
spec: {selector: {app: app2}, ports: [{name: http, port: 80}]}
---
"#;

/// An `Ingress` with these annotations of nginx's and this spec.
fn ingress(name: &str, annotations: &[(&str, &str)], spec: &str) -> String {
    let annotations =
        annotations.iter().map(|(name, value)| format!("nginx.ingress.kubernetes.io/{name}: '{value}'"));
    let annotations = annotations.collect::<Vec<_>>().join(", ");
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{{spec}}}\n---\n"
    )
}

/// A path of `kind` to the port 80 of `service`.
fn path(kind: &str, path: &str, service: &str) -> String {
    format!("{{path: '{path}', pathType: {kind}, {}}}", backend(service))
}

fn backend(service: &str) -> String {
    format!("backend: {{service: {{name: {service}, port: {{number: 80}}}}}}")
}

/// A rule for `host` with these paths.
fn host(host: &str, paths: &[String]) -> String {
    format!("rules: [{{host: '{host}', http: {{paths: [{}]}}}}]", paths.join(", "))
}

/// A host of which all goes to `app1-service`.
fn whole(annotations: &[(&str, &str)]) -> String {
    ingress("web", annotations, &host("a.example.com", &[path("Prefix", "/", "app1-service")]))
}

fn served(text: &str) -> (Mesh, Vec<Problem>) {
    compiled(&format!("{EDGE}{text}"))
}

fn edge(mesh: &Mesh) -> &Arc<Gateway> {
    &mesh.gateways[&"selvedge/edge-1".parse().unwrap()]
}

/// The rule of a request for `path` at `host` with `headers`, in plaintext.
fn rule<'m>(
    mesh: &'m Mesh,
    host: &str,
    path: &str,
    headers: &[(&'static str, &'static str)],
) -> Option<(&'m Service, &'m Rule)> {
    let gateway = edge(mesh);
    let port = &gateway.ports[&80];
    let listener = &port.listeners[port.listener(Some(host))?];
    let service = &listener.virtual_hosts[listener.virtual_host(Some(host))?].service;
    let service = &gateway.virtual_hosts[service];
    let headers =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let request = facts::Request {
        connection: &facts::Connection::new(facts::Source::UNKNOWN, 80),
        method: &Method::GET,
        scheme: "http",
        authority: host,
        path,
        query: "",
        headers: &headers.collect(),
        token: None,
    };
    let found = service.routes.find(&request)?;
    Some((service, &service.routes.rules()[found.rule]))
}

/// The backends of that rule, each with its share; `404`, or what the gateway answers itself.
fn sent_to(mesh: &Mesh, host: &str, path: &str, headers: &[(&'static str, &'static str)]) -> String {
    let Some((service, rule)) = rule(mesh, host, path, headers) else { return "404".to_owned() };
    match &rule.filters.answer {
        Some(OwnAnswer::Redirect(redirect)) => return redirect.status.to_string(),
        Some(OwnAnswer::Direct(answer)) => return answer.status.to_string(),
        Some(OwnAnswer::Unusable(why)) => return why.clone(),
        None => {}
    }
    let shares = rule.backends.iter().map(|share| {
        let backend = &service.backends[share.backend];
        let name = backend.name.service.host.split('.').next().unwrap_or_default();
        format!("{} {}", if backend.broken.is_some() { "503" } else { name }, share.weight)
    });
    shares.collect::<Vec<_>>().join(", ")
}

#[test]
fn an_app_is_told_of_its_client_as_nginx_tells_it() {
    let (mesh, _) = served(&whole(&[]));

    let (_, rule) = rule(&mesh, "a.example.com", "/", &[]).unwrap();
    let told: Vec<_> =
        rule.filters.request_headers.set.iter().map(|one| format!("{}: {}", one.name, one.value)).collect();
    assert_eq!(
        told,
        [
            "x-real-ip: %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
            "x-forwarded-scheme: %REQ(x-forwarded-proto)%",
            "x-scheme: %REQ(x-forwarded-proto)%"
        ]
    );
}

#[test]
fn the_lessons_ingress_sends_each_prefix_to_its_service() {
    let lesson = include_str!("../../resources/ingress/lesson.yaml");
    let plain = lesson.split("  tls:").next().unwrap();
    let (mesh, problems) = served(plain);

    assert_eq!(problems, []);
    for (path, to) in
        [("/app1", "app1-service 1"), ("/app2/x", "app2-service 1"), ("/app12", "404"), ("/", "404")]
    {
        assert_eq!(sent_to(&mesh, "example.com", path, &[]), to, "{path}");
    }
    assert_eq!(sent_to(&mesh, "example.org", "/app1", &[]), "404");
    let (_, rule) = rule(&mesh, "example.com", "/app1/x", &[]).unwrap();
    assert_eq!(rule.filters.rewrite.path, Some(PathRewrite::Full("/".to_owned())));
    assert_eq!(rule.name, "Ingress default/my-ingress rules[0].paths[0]");
}

#[test]
fn of_the_paths_of_a_host_an_exact_one_goes_first_and_then_the_longest() {
    let text = ingress("b", &[], &host("*.example.com", &[path("Prefix", "/", "app1-service")]))
        + &ingress(
            "a",
            &[],
            &host(
                "a.example.com",
                &[
                    path("Prefix", "/", "app1-service"),
                    path("Prefix", "/a/b", "app2-service"),
                    path("Prefix", "/a", "app1-service"),
                    path("Exact", "/a/b", "app1-service"),
                    path("ImplementationSpecific", "/a/b/c/", "app1-service"),
                ],
            ),
        );
    let (mesh, problems) = served(&text);

    assert_eq!(problems, []);
    let name =
        |host, path| rule(&mesh, host, path, &[]).map(|(_, rule)| rule.name.clone()).unwrap_or_default();
    for (path, place) in
        [("/x", 0), ("/a", 2), ("/a/bc", 2), ("/a/b", 3), ("/a/b/", 1), ("/a/b/d", 1), ("/a/b/c", 4)]
    {
        assert_eq!(
            name("a.example.com", path),
            format!("Ingress default/a rules[0].paths[{place}]"),
            "{path}"
        );
    }
    assert_eq!(name("b.example.com", "/a"), "Ingress default/b rules[0].paths[0]");
    assert_eq!(name("x.b.example.com", "/a"), "", "a wildcard is one label");
}

/// The examples of nginx's guide, "Ingress Path Matching".
#[test]
fn of_paths_that_are_regular_expressions_the_one_that_is_written_longest_goes_first() {
    let kind = "ImplementationSpecific";
    let plain = [path(kind, "/foo/bar", "app1-service"), path(kind, "/foo/bar/", "app2-service")];
    let regex = [path(kind, "/foo/bar/(.+)", "app1-service")];
    let text = ingress("plain", &[], &host("a.example.com", &plain))
        + &ingress("regex", &[("rewrite-target", "/$1")], &host("a.example.com", &regex));
    let (mesh, _) = served(&text);

    let name =
        |host, path| rule(&mesh, host, path, &[]).map(|(_, rule)| rule.name.clone()).unwrap_or_default();
    for (path, called) in [
        ("/foo/bar/1", "regex rules[0].paths[0]"),
        ("/foo/bar/", "plain rules[0].paths[1]"),
        ("/foo/bar", "plain rules[0].paths[0]"),
        ("/foo/barn", "plain rules[0].paths[0]"),
    ] {
        assert_eq!(name("a.example.com", path), format!("Ingress default/{called}"), "{path}");
    }

    let paths = [
        path(kind, "/foo/bar/bar", "app1-service"),
        path(kind, "/foo/bar/[A-Z0-9]{3}", "app1-service"),
        path(kind, "/(.*)", "app1-service"),
    ];
    let longer = [path("Prefix", "/static", "app2-service")];
    let text = ingress("regex", &[("use-regex", "true")], &host("a.example.com", &paths))
        + &ingress("longer", &[], &host("a.example.com", &longer));
    let (mesh, _) = served(&text);
    assert_eq!(
        rule(&mesh, "a.example.com", "/foo/bar/bar", &[]).unwrap().1.name,
        "Ingress default/regex rules[0].paths[1]"
    );
    assert_eq!(sent_to(&mesh, "a.example.com", "/static/x", &[]), "app2-service 1");
    assert_eq!(sent_to(&mesh, "a.example.com", "/other", &[]), "app1-service 1");
}

#[test]
fn a_path_that_nginx_would_read_otherwise_because_of_another_ingress_is_told() {
    let regex = |annotations: &[(&str, &str)]| {
        ingress("a", annotations, &host("a.example.com", &[path("Prefix", "/more", "app1-service")]))
    };
    let other = ingress(
        "b",
        &[],
        &host(
            "a.example.com",
            &[
                path("Prefix", "/", "app1-service"),
                path("Prefix", "/admin", "app1-service"),
                path("Exact", "/exact", "app1-service"),
            ],
        ),
    );
    for annotation in [("use-regex", "true"), ("rewrite-target", "/x")] {
        let (mesh, problems) = served(&(regex(&[annotation]) + &other));
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!(
            (problem.severity, &*problem.field),
            (Severity::Warning, "spec.rules[0].http.paths[1].path")
        );
        assert!(problem.message.contains("because Ingress default/a has use-regex"), "{}", problem.message);
        // It stays what it says.
        assert_eq!(
            rule(&mesh, "a.example.com", "/ADMIN", &[]).unwrap().1.name,
            "Ingress default/b rules[0].paths[0]"
        );
    }
    assert_eq!(served(&(regex(&[]) + &other)).1, []);
}

#[test]
fn what_several_ingresses_say_of_a_host_is_merged_and_of_one_path_the_oldest_decides() {
    let text = ingress("old", &[], &host("a.example.com", &[path("Prefix", "/a", "app1-service")]))
        + &ingress(
            "new",
            &[],
            &host(
                "a.example.com",
                &[path("Prefix", "/b", "app2-service"), path("Prefix", "/a", "app2-service")],
            ),
        );
    let (mesh, problems) = served(&text);

    assert_eq!(sent_to(&mesh, "a.example.com", "/a", &[]), "app1-service 1");
    assert_eq!(sent_to(&mesh, "a.example.com", "/b", &[]), "app2-service 1");
    let told = errors(&problems);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0]
            .starts_with("spec.rules[0].http.paths[1].path: has no effect: Ingress default/old (mesh.yaml:")
    );
}

#[test]
fn one_path_may_be_there_exact_by_segments_and_letter_by_letter() {
    let of = |kind: &str| {
        ingress(&kind.to_lowercase(), &[], &host("a.example.com", &[path(kind, "/a", "app1-service")]))
    };
    let kinds = ["ImplementationSpecific", "Prefix", "Exact"];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let (mesh, problems) = served(&order.map(|place: usize| of(kinds[place])).concat());

        assert_eq!(problems, []);
        for (path, kind) in
            [("/a", "exact"), ("/a/b", "prefix"), ("/a/", "prefix"), ("/ab", "implementationspecific")]
        {
            let name = &rule(&mesh, "a.example.com", path, &[]).unwrap().1.name;
            assert_eq!(*name, format!("Ingress default/{kind} rules[0].paths[0]"), "{path} {order:?}");
        }
    }
    // A regular expression is for what both are for.
    let regex = ingress(
        "old",
        &[("use-regex", "true")],
        &host("a.example.com", &[path("ImplementationSpecific", "/a", "app1-service")]),
    );
    for kind in &kinds[..2] {
        let (mesh, problems) = served(&(regex.clone() + &of(kind)));
        assert!(errors(&problems).concat().contains("has no effect: Ingress default/old"), "{problems:?}");
        assert_eq!(
            rule(&mesh, "a.example.com", "/a/b", &[]).unwrap().1.name,
            "Ingress default/old rules[0].paths[0]"
        );
    }
}

/// As nginx's controller sorts its locations.
#[test]
fn of_equally_long_regular_expressions_the_greater_text_goes_first() {
    let of = |name: &str, asks: &str| {
        let path = path("ImplementationSpecific", asks, "app1-service");
        ingress(name, &[("use-regex", "true")], &host("a.example.com", &[path]))
    };
    let (digits, letters) = (of("digits", "/v[0-9]+"), of("letters", "/v[0-z]+"));
    for text in [letters.clone() + &digits, digits + &letters] {
        let (mesh, _) = served(&text);
        assert_eq!(
            rule(&mesh, "a.example.com", "/v1", &[]).unwrap().1.name,
            "Ingress default/letters rules[0].paths[0]"
        );
    }
}

#[test]
fn what_no_path_is_for_goes_to_the_default_backend_of_its_host_or_of_all() {
    let default =
        |service: &str| format!("defaultBackend: {{service: {{name: {service}, port: {{name: http}}}}}}");
    let paths = host("a.example.com", &[path("Prefix", "/a", "app1-service")]);
    let text = ingress("a", &[], &format!("{}, {paths}", default("app2-service")))
        + &ingress("b", &[], &host("b.example.com", &[path("Prefix", "/b", "app1-service")]))
        + &ingress("c", &[], &format!("rules: [{{host: c.example.com}}], {}", default("app1-service")));
    let (mesh, problems) = served(&text);

    assert_eq!(problems, []);
    for (host, path, to) in [
        ("a.example.com", "/a", "app1-service 1"),
        ("a.example.com", "/x", "app2-service 1"),
        ("b.example.com", "/x", "404"),
        ("c.example.com", "/x", "app1-service 1"),
        ("x.example.com", "/x", "app2-service 1"),
    ] {
        assert_eq!(sent_to(&mesh, host, path, &[]), to, "{host}{path}");
    }
}

#[test]
fn a_backend_that_is_not_there_answers_503_and_is_told_with_its_field() {
    let spec = host(
        "a.example.com",
        &[
            path("Prefix", "/a", "no-service"),
            "{path: /b, pathType: Prefix, backend: {service: {name: app1-service, port: {number: 81}}}}"
                .to_owned(),
            "{path: /c, pathType: Prefix, backend: {service: {name: app1-service, port: {name: admin}}}}"
                .to_owned(),
            "{path: /d, pathType: Prefix, backend: {service: {name: no-service, port: {name: http}}}}"
                .to_owned(),
            "{path: /e, pathType: Prefix, backend: {resource: {apiGroup: a, kind: Bucket, name: b}}}"
                .to_owned(),
        ],
    );
    let (mesh, problems) = served(&ingress("web", &[], &spec));

    for path in ["/a", "/b", "/c", "/d", "/e"] {
        assert_eq!(sent_to(&mesh, "a.example.com", path, &[]), "503 1", "{path}");
    }
    let told = errors(&problems).join("\n");
    for (place, part, words) in [
        (0, "service.name", "nothing is called no-service.default.svc.cluster.local"),
        (1, "service.port", "has no port 81"),
        (2, "service.port.name", "has no port called \"admin\"; use one of http, more"),
        (3, "service.name", "nothing is called no-service.default.svc.cluster.local"),
        (4, "resource.kind", "Bucket b is not acted on; name a Service"),
    ] {
        let line = told
            .lines()
            .find(|line| line.starts_with(&format!("spec.rules[0].http.paths[{place}].backend.{part}: ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{place} {part}: {told}");
    }
}

#[test]
fn a_named_port_is_the_services_port_of_that_name() {
    let spec = "defaultBackend: {service: {name: app1-service, port: {name: more}}}";
    let (mesh, _) = served(&ingress("web", &[], spec));

    let (service, rule) = rule(&mesh, "any.example.com", "/", &[]).unwrap();
    assert_eq!(service.backends[rule.backends[0].backend].name.service.port, 8080);
}

#[test]
fn a_canary_takes_what_its_header_its_cookie_or_its_weight_says() {
    let of = |annotations: &[(&str, &str)]| {
        let all = [&[("canary", "true")], annotations].concat();
        let canary = ingress("canary", &all, &host("a.example.com", &[path("Prefix", "/", "app2-service")]));
        let (mesh, problems) = served(&(whole(&[]) + &canary));
        assert_eq!(problems, []);
        mesh
    };
    let sent =
        |mesh: &Mesh, headers: &[(&'static str, &'static str)]| sent_to(mesh, "a.example.com", "/", headers);
    let (main, canary) = ("app1-service 1", "app2-service 1");

    let all = of(&[("canary-by-header", "x"), ("canary-by-cookie", "c"), ("canary-weight", "30")]);
    assert_eq!(sent(&all, &[]), "app1-service 70, app2-service 30");
    assert_eq!(sent(&all, &[("x", "always")]), canary);
    assert_eq!(sent(&all, &[("x", "never"), ("cookie", "c=always")]), main);
    assert_eq!(sent(&all, &[("x", "other"), ("cookie", "a=b; c=always")]), canary);
    assert_eq!(sent(&all, &[("cookie", "c=never")]), main);
    assert_eq!(sent(&all, &[("cookie", "c=maybe")]), "app1-service 70, app2-service 30");

    let by_value = of(&[("canary-by-header", "x"), ("canary-by-header-value", "de")]);
    assert_eq!(sent(&by_value, &[("x", "de")]), canary);
    assert_eq!(sent(&by_value, &[("x", "always")]), "app1-service 100");
    assert_eq!(sent(&of(&[("canary-weight", "100")]), &[]), "app2-service 100");
    assert_eq!(
        sent(&of(&[("canary-weight", "1"), ("canary-weight-total", "1000")]), &[]),
        "app1-service 999, app2-service 1"
    );
}

#[test]
fn a_canary_is_of_the_path_that_is_written_alike_whichever_of_the_two_is_a_regular_expression() {
    for (main, own) in [(&[("rewrite-target", "/$1")][..], &[][..]), (&[], &[("use-regex", "true")])] {
        let at = |service| host("a.example.com", &[path("ImplementationSpecific", "/api/(.*)", service)]);
        let own = [&[("canary", "true"), ("canary-weight", "30")], own].concat();
        let text = ingress("main", main, &at("app1-service")) + &ingress("canary", &own, &at("app2-service"));
        let (mesh, problems) = served(&text);

        assert_eq!(problems, []);
        assert_eq!(
            sent_to(&mesh, "a.example.com", "/api/(.*)", &[]),
            "app1-service 70, app2-service 30",
            "{main:?}"
        );
    }
}

#[test]
fn a_canary_without_a_main_ingress_and_a_second_one_get_nothing_and_are_told() {
    let canary = |name: &str, at: &str| {
        ingress(
            name,
            &[("canary", "true"), ("canary-weight", "10")],
            &host("a.example.com", &[path("Prefix", at, "app2-service")]),
        )
    };
    let (mesh, problems) =
        served(&(whole(&[]) + &canary("one", "/") + &canary("two", "/") + &canary("three", "/x")));

    assert_eq!(sent_to(&mesh, "a.example.com", "/x", &[]), "app1-service 90, app2-service 10");
    let told: Vec<_> =
        problems.iter().map(|problem| format!("{} {}", problem.severity, problem.message)).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("error has no effect: Ingress default/one"), "{told:?}");
    assert!(told[1].starts_with("warning gets nothing: no Ingress that is not a canary"), "{told:?}");
}

#[test]
fn a_canary_of_another_namespace_takes_nothing_and_is_told() {
    let canary = ingress(
        "take",
        &[("canary", "true"), ("canary-weight", "100")],
        &host("a.example.com", &[path("Prefix", "/", "app2-service")]),
    );
    let elsewhere = canary.replace("{name: take", "{namespace: elsewhere, name: take");
    assert_ne!(canary, elsewhere);

    let (mesh, problems) = served(&(whole(&[]) + &elsewhere));

    assert_eq!(sent_to(&mesh, "a.example.com", "/x", &[]), "app1-service 1");
    let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(told.iter().any(|told| told.contains("only from Ingresses of its own namespace")), "{told:?}");
}

#[test]
fn other_names_of_a_host_have_its_rules_unless_an_older_one_has_rules_for_them() {
    let text = ingress("d", &[], &host("d.example.com", &[path("Prefix", "/d", "app2-service")]))
        + &whole(&[("server-alias", "b.example.com,*.c.example.com,d.example.com")]);
    let (mesh, problems) = served(&text);

    assert_eq!(sent_to(&mesh, "b.example.com", "/", &[]), "app1-service 1");
    assert_eq!(sent_to(&mesh, "x.c.example.com", "/", &[]), "app1-service 1");
    assert_eq!(sent_to(&mesh, "d.example.com", "/", &[]), "404");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.starts_with("d.example.com has rules of its own"), "{problems:?}");
}

#[test]
fn a_younger_ingress_takes_no_other_name_of_an_older_ones_host() {
    let younger = |namespace: &str| {
        let paths = [path("Prefix", "/", "app2-service"), path("Prefix", "/d", "app2-service")];
        ingress("d", &[], &host("d.example.com", &paths))
            .replace("{name: d,", &format!("{{name: d, namespace: {namespace},"))
    };
    let aliased = whole(&[("server-alias", "d.example.com,d.example.com")]);
    let text = aliased.clone() + &younger("default");
    let (mesh, problems) = served(&text);

    assert_eq!(sent_to(&mesh, "d.example.com", "/", &[]), "app1-service 1");
    assert_eq!(sent_to(&mesh, "d.example.com", "/d", &[]), "app2-service 1", "it is merged, as at any host");
    let told = errors(&problems);
    assert_eq!(told.len(), 1, "{told:?}");
    let expected = "spec.rules[0].http.paths[0].path: has no effect: Ingress default/web";
    assert!(told[0].starts_with(expected), "{told:?}");

    let (_, problems) = served(&(aliased + &younger("other")));
    let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(
        told.iter().any(|told| told.starts_with("d.example.com is also served by Ingress default/web")),
        "{told:?}"
    );
}

#[test]
fn other_names_of_a_host_may_be_regular_expressions_and_a_namespace_has_a_few() {
    let aliases = r"~^www\d+\.example\.(com|org)$";
    let exact = ingress("x", &[], &host("www7.example.com", &[path("Prefix", "/x", "app2-service")]));
    let (mesh, problems) = served(&(whole(&[("server-alias", aliases)]) + &exact));

    assert_eq!(problems, []);
    assert_eq!(sent_to(&mesh, "www12.example.org", "/", &[]), "app1-service 1");
    assert_eq!(sent_to(&mesh, "www.example.org", "/", &[]), "404");
    assert_eq!(sent_to(&mesh, "www7.example.com", "/y", &[]), "404", "a name goes before an expression");

    let many: Vec<String> = (0..33).map(|place| format!("~^w{place}[.]example")).collect();
    let (_, problems) = served(&whole(&[("server-alias", &many.join(","))]));
    assert!(errors(&problems).concat().contains("more than 32 regular expressions"), "{problems:?}");
}

#[test]
fn annotations_become_what_the_rule_and_its_backend_do() {
    let of = |annotations: &[(&str, &str)]| {
        let (mesh, problems) = served(&whole(annotations));
        assert_eq!(errors(&problems), [""; 0]);
        let (service, rule) = rule(&mesh, "a.example.com", "/x", &[]).unwrap();
        (rule.clone(), service.backends[rule.backends[0].backend].clone())
    };

    let (rule, backend) = of(&[("backend-protocol", "GRPC"), ("proxy-connect-timeout", "3")]);
    assert_eq!(backend.policy.spoken, Some(Protocol::Http2));
    assert_eq!(backend.policy.connect_timeout, Duration::from_secs(3));
    assert_eq!(backend.name.subset.as_deref(), Some("Ingress default/web"), "others keep their own way");
    let plain = of(&[]).0.filters;
    assert!(backend.labels.is_empty() && backend.broken.is_none() && rule.filters == plain);

    let (_, backend) = of(&[("backend-protocol", "GRPCS")]);
    assert!(matches!(&backend.policy.tls, Some(UpstreamTls::Originate(tls)) if tls.insecure_skip_verify));
    assert_eq!(backend.policy.spoken, Some(Protocol::Http2));

    let (rule, _) = of(&[("proxy-read-timeout", "7"), ("upstream-vhost", "inner"), ("enable-cors", "true")]);
    assert_eq!(rule.stream.idle, Some(Duration::from_secs(7)));
    assert_eq!(rule.filters.rewrite.authority.as_deref(), Some("inner"));
    assert!(rule.filters.cors.is_some());

    let prefix = [("rewrite-target", "/x"), ("x-forwarded-prefix", "/app")];
    let (rule, _) = of(&prefix);
    let set = &rule.filters.request_headers.set;
    assert_eq!((set[0].name.as_str(), set[0].value.to_string().as_str()), ("x-forwarded-prefix", "/app"));
    assert_eq!(of(&prefix[1..]).0.filters, plain, "it is for paths that are rewritten");

    let (rule, _) =
        of(&[("whitelist-source-range", "10.0.0.0/8"), ("permanent-redirect", "https://b.example.com")]);
    let sources = rule.filters.sources.unwrap();
    assert!(sources.may_ask("10.0.0.1".parse().unwrap()) && !sources.may_ask("192.0.2.1".parse().unwrap()));
}

#[test]
fn redirects_go_before_all_else_and_the_way_to_certificates_stays_open() {
    let with_challenge = |annotations: &[(&str, &str)]| {
        let paths = [
            path("Prefix", "/", "app1-service"),
            path("Exact", "/.well-known/acme-challenge/x", "app2-service"),
        ];
        let (mesh, _) = served(&ingress("web", annotations, &host("a.example.com", &paths)));
        ["/", "/x", "/.well-known/acme-challenge/x"].map(|path| sent_to(&mesh, "a.example.com", path, &[]))
    };

    assert_eq!(with_challenge(&[("force-ssl-redirect", "true")]), ["308", "308", "app2-service 1"]);
    let both = [("permanent-redirect", "/new"), ("force-ssl-redirect", "true")];
    assert_eq!(with_challenge(&both), ["301", "301", "301"]);
    assert_eq!(with_challenge(&[("app-root", "/app")])[..2], ["302", "app1-service 1"]);
}

#[test]
fn what_a_trusted_proxy_got_over_tls_is_not_redirected_to_tls() {
    let users = [("force-ssl-redirect", "true"), ("auth-type", "basic"), ("auth-secret", "none")];
    for (annotations, plaintext, carried) in [
        (&users[..1], "308", "app1-service 1"),
        // Whom it asks for a password, there is not.
        (&users[..], "308", "there is no Secret default/none"),
    ] {
        let (mesh, _) = served(&whole(annotations));
        let sent =
            |proto: &'static str| sent_to(&mesh, "a.example.com", "/x", &[("x-forwarded-proto", proto)]);
        assert_eq!(sent("http"), plaintext);
        assert!(sent("https").contains(carried), "{}", sent("https"));
    }
}

#[test]
fn an_ingress_that_kept_somebody_out_by_what_is_not_acted_on_answers_nobody() {
    let (mesh, problems) = served(&whole(&[("auth-url", "https://a.example"), ("app-root", "/app")]));

    for path in ["/", "/x"] {
        let to = sent_to(&mesh, "a.example.com", path, &[]);
        assert_eq!(to, "nginx.ingress.kubernetes.io/auth-url is not acted on", "{path}");
    }
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].field, "metadata.annotations[nginx.ingress.kubernetes.io/auth-url]");
}

#[test]
fn that_nobody_is_the_gateway_of_ingresses_is_told() {
    let (mesh, problems) = compiled(&whole(&[]));

    assert!(mesh.gateways.is_empty());
    let told: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert!(
        told.iter().any(|told| told.starts_with("no workload is the gateway selvedge/ingress")),
        "{told:?}"
    );
}

#[test]
fn in_a_cluster_an_ingress_is_ours_by_its_class_or_by_the_default_class() {
    let class = |name: &str, controller: &str, default: &str| {
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name, "annotations": {"ingressclass.kubernetes.io/is-default-class": default}},
            "spec": {"controller": controller}})
    };
    let ours = |class: &str| {
        let mut ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": "web", "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "maybe"}},
            "spec": {"defaultBackend": {"service": {"name": "app1-service", "port": {"number": 80}}}}});
        if !class.is_empty() {
            ingress["spec"]["ingressClassName"] = json!(class);
        }
        ingress
    };
    for (named, default, is_ours) in [
        ("selvedge", "false", true),
        ("nginx", "false", false),
        ("", "false", false),
        ("", "true", true),
        ("unknown", "true", false),
    ] {
        let (mut all, _) = resources(EDGE);
        for object in [
            class("selvedge", "selvedge.io/ingress", default),
            class("nginx", "k8s.io/ingress-nginx", "false"),
            ours(named),
        ] {
            let DecodeOutcome::Understood(resource) = decode_value(object, "default").outcome else {
                panic!()
            };
            all.push(resource);
        }

        let (mesh, problems) = compile(&all, &MeshSettings::default(), &Mesh::default());

        assert_eq!(!edge(&mesh).ports.is_empty(), is_ours, "{named} {default}");
        // What is wrong with others' annotations is theirs.
        assert_eq!(errors(&problems).len(), usize::from(is_ours), "{problems:?}");
        if is_ours {
            assert!(sent_to(&mesh, "a", "/", &[]).contains("neither true nor false"));
        }
    }
}

#[test]
fn other_names_of_a_host_share_its_rules_and_too_many_copies_are_refused() {
    let aliases =
        |host: &str| (0..60).map(|place| format!("{host}{place}.example.com")).collect::<Vec<_>>().join(",");
    let many = |host: &str| {
        let path = |place| path("Prefix", &format!("/{place}/{}", "x".repeat(2_000)), "app1-service");
        self::host(&format!("{host}.example.com"), &(0..300).map(path).collect::<Vec<_>>())
    };
    let documents = ingress("a", &[("server-alias", &aliases("a"))], &many("a"))
        + &ingress("b", &[("server-alias", &aliases("b"))], &many("b"));

    let (mesh, problems) = compiled(&format!("{EDGE}{documents}"));

    let [problem] = &problems[..] else { panic!("{}", problems.len()) };
    assert!(problem.field.contains("server-alias") && problem.message.contains("MiB"), "{}", problem.message);
    assert_eq!(&*problem.document.as_ref().unwrap().name, "b");
    let services = &edge(&mesh).virtual_hosts;
    assert_eq!(services.len(), 62, "both hosts, and the other names of the first");
    let rules = services.values().flat_map(|service| service.routes.rules()).map(Arc::as_ptr);
    assert_eq!(rules.collect::<std::collections::BTreeSet<_>>().len(), 600);
}

#[test]
fn a_younger_ingress_of_another_namespace_does_not_redirect_an_older_ones_host() {
    let of = |namespace: &str, text: String| {
        text.replace("name: i,", &format!("name: i, namespace: {namespace},"))
    };
    let plaintext =
        of("default", ingress("i", &[], &host("a.example.com", &[path("Prefix", "/", "app1-service")])));
    let tls = |namespace: &str| {
        let rules = host("a.example.com", &[path("Prefix", "/more", "app1-service")]);
        of(namespace, ingress("i", &[], &format!("tls: [{{hosts: [a.example.com]}}], {rules}")))
    };
    let redirects = |documents: String| {
        let (mesh, problems) = compiled(&format!("{EDGE}{documents}"));
        let answer = rule(&mesh, "a.example.com", "/", &[]).unwrap().1.filters.answer.clone();
        (matches!(answer, Some(OwnAnswer::Redirect(_))), problems)
    };

    let (is_redirected, problems) = redirects(plaintext.clone() + &tls("other"));
    assert!(!is_redirected);
    let shared = problems.iter().find(|problem| problem.field == "spec.rules");
    assert!(shared.unwrap().message.contains("another namespace"), "{problems:?}");

    assert!(redirects(tls("other") + &plaintext).0, "the older one has said so before");
    let same = tls("default").replace("name: i,", "name: j,");
    assert!(redirects(plaintext + &same).0, "it is of the same namespace");
}
