//! What parents and backends may be, and what is said of those that cannot.

use selvedge_model::draw;

use super::{super::*, Asked, ECHO, document, http, mesh_of, one, rule, sent_to, to};
use crate::problem::Unresolved;

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
    assert!(problems[0].message.contains("there is no Gateway mesh/edge"), "{problems:?}");
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
