//! Routes that one `VirtualService` delegates to another.

use std::collections::BTreeSet;

use selvedge_model::{StringMatch, filter::PathRewrite};

use super::{super::*, TO_REVIEWS};

/// A document without hosts.
fn delegate(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// The mesh with these routes of `reviews`, of which some are delegated.
fn delegating(http: &str, delegates: &[String]) -> (Mesh, Vec<Problem>) {
    let root = virtual_service("root", &format!("{{hosts: [reviews], http: [{http}]}}"));
    compiled(&format!("{MESH}{SUBSETS}{root}{}", delegates.concat()))
}

fn names(mesh: &Mesh) -> Vec<&str> {
    reviews(mesh).routes.rules().iter().map(|rule| &*rule.name).collect()
}

#[test]
fn a_delegates_routes_stand_in_the_place_of_the_one_that_names_it() {
    let child = "{http: [{name: deep, match: [{uri: {exact: /a/b}}], rewrite: {uri: /c}, route: [{destination: {host: reviews.default.svc.cluster.local, subset: v2}}]}, {timeout: 9s, route: [{destination: {host: reviews.default.svc.cluster.local}}]}]}";
    let (mesh, problems) = delegating(
        &format!(
            "{{name: outer, match: [{{uri: {{prefix: /a}}, headers: {{x: {{exact: y}}}}}}], delegate: {{name: child, namespace: team}}, timeout: 5s, rewrite: {{authority: z}}}}, {{{TO_REVIEWS}}}"
        ),
        &[delegate("team", "child", child)],
    );

    assert_eq!(problems, []);
    assert_eq!(
        names(&mesh),
        [
            "VirtualService default/root http[0] outer > VirtualService team/child http[0] deep",
            "VirtualService default/root http[0] outer > VirtualService team/child http[1]",
            "VirtualService default/root http[1]"
        ]
    );
    let rules = reviews(&mesh).routes.rules();
    assert_eq!(rules[0].matches[0].path, Some(StringMatch::Exact("/a/b".to_owned())));
    assert_eq!(rules[0].matches[0].headers.len(), 1);
    assert_eq!(rules[0].timeout, Some(Duration::from_secs(5)));
    assert_eq!(rules[0].filters.rewrite.path, Some(PathRewrite::Prefix("/c".to_owned())));
    assert_eq!(rules[0].filters.rewrite.authority, None, "a rewrite of its own replaces the other");
    assert_eq!(rules[1].matches[0].path, Some(StringMatch::Prefix("/a".to_owned())));
    let own = Some(Duration::from_secs(9));
    assert_eq!((rules[1].timeout, rules[1].filters.rewrite.authority.as_deref()), (own, Some("z")));
    assert_eq!(backends(reviews(&mesh), "/a/b", &[("x", "y")]), Some(vec![("v2".to_owned(), 1)]));
}

#[test]
fn documents_that_delegate_take_no_more_memory_than_their_namespace_may() {
    // Nobody's, so that what is left of it is not followed.
    let root = |times: usize| {
        let routes = vec!["{delegate: {name: child, namespace: team}}"; times].join(", ");
        virtual_service("root", &format!("{{hosts: [nobody.example], http: [{routes}]}}"))
    };
    let child = vec![format!("{{{TO_REVIEWS}}}"); 2_000].join(", ");
    let child = delegate("team", "child", &format!("{{http: [{child}]}}"));
    let told = |times: usize| {
        let (_, problems) = compiled(&format!("{MESH}{SUBSETS}{}{child}", root(times)));
        errors(&problems).iter().filter(|told| told.contains("KiB left for those of delegates")).count()
    };

    assert_eq!(told(2), 0);
    assert!(told(80) > 0);
}

#[test]
fn a_delegates_hosts_are_those_of_its_own_namespace() {
    let child = "{http: [{route: [{destination: {host: reviews}}]}]}";
    let (_, problems) =
        delegating("{delegate: {name: child, namespace: team}}", &[delegate("team", "child", child)]);

    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!(problem.document.as_ref().unwrap().to_string(), "VirtualService team/child");
    assert!(problem.message.contains("reviews.team.svc.cluster.local"), "{problem:?}");
}

#[test]
fn a_delegates_route_that_its_root_excludes_is_left_out_and_reported() {
    let root = |condition: &str| {
        format!("{{match: [{{{condition}}}], delegate: {{name: child}}}}, {{{TO_REVIEWS}}}")
    };
    for (of_root, of_child) in [
        ("uri: {exact: /a}", "uri: {exact: /b}"),
        ("uri: {exact: /a}", "uri: {prefix: /a}"),
        ("uri: {prefix: /a/b}", "uri: {prefix: /a}"),
        ("uri: {prefix: /a}", "uri: {exact: /a}, ignoreUriCase: true"),
        ("method: {exact: GET}", "method: {exact: PUT}"),
        ("headers: {x: {exact: a}}", "headers: {x: {exact: b}}"),
        ("withoutHeaders: {x: {exact: a}}", "withoutHeaders: {x: {exact: b}}"),
        ("queryParams: {x: {exact: a}}", "queryParams: {x: {exact: b}}"),
        ("port: 9080", "port: 81"),
        ("sourceNamespace: a", "sourceNamespace: b"),
        ("sourceLabels: {app: a}", "sourceLabels: {app: b}"),
    ] {
        let child = format!("{{http: [{{match: [{{{of_child}}}], {TO_REVIEWS}}}]}}");
        let (mesh, mut problems) = delegating(&root(of_root), &[delegate("default", "child", &child)]);

        assert_eq!(names(&mesh), ["VirtualService default/root http[1]"], "{of_root} {of_child}");
        problems.retain(|problem| problem.severity == Severity::Error);
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!((&*problem.field, problem.severity), ("spec.http[0].match", Severity::Error));
        assert!(
            problem.line.is_some() && problem.message.contains("default/root http[0] (mesh.yaml:"),
            "{problem:?}"
        );
    }
}

#[test]
fn each_match_of_a_delegate_stands_below_each_of_its_root_that_allows_it() {
    let child = format!(
        "{{http: [{{match: [{{uri: {{prefix: /a/x}}}}, {{method: {{exact: GET}}}}], {TO_REVIEWS}}}]}}"
    );
    let (mesh, problems) = delegating(
        "{match: [{uri: {prefix: /a}}, {uri: {prefix: /b}}], delegate: {name: child}}",
        &[delegate("default", "child", &child)],
    );

    assert_eq!(problems, []);
    let matches = &reviews(&mesh).routes.rules()[0].matches;
    let shown = matches.iter().map(|one| {
        let path = match &one.path {
            Some(StringMatch::Prefix(path)) => &**path,
            other => panic!("{other:?}"),
        };
        (path, one.method.is_some())
    });
    assert_eq!(shown.collect::<Vec<_>>(), [("/a/x", false), ("/a", true), ("/b", true)]);
}

#[test]
fn a_delegate_that_cannot_be_used_is_reported() {
    let to_child =
        format!("{{match: [{{uri: {{prefix: /a}}}}], delegate: {{name: child}}}}, {{{TO_REVIEWS}}}");
    let routes = format!("http: [{{{TO_REVIEWS}}}]");
    for (delegates, words) in [
        (vec![], "there is no VirtualService default/child"),
        (
            vec![delegate("default", "child", &format!("{{hosts: [other.example], {routes}}}"))],
            "remove its hosts",
        ),
        (
            vec![delegate("default", "child", &format!("{{exportTo: [elsewhere], {routes}}}"))],
            "not exported to default",
        ),
    ] {
        let (mesh, problems) = delegating(&to_child, &delegates);

        assert_eq!(names(&mesh), ["VirtualService default/root http[1]"], "{words}");
        let problem = problems.iter().find(|problem| problem.field == "spec.http[0].delegate");
        let problem = problem.unwrap_or_else(|| panic!("{problems:?}"));
        assert!(problem.severity == Severity::Error && problem.message.contains(words), "{problem:?}");
        assert!(problem.line.is_some());
    }
    let (_, problems) =
        delegating(&format!("{{{TO_REVIEWS}}}"), &[delegate("default", "child", &format!("{{{routes}}}"))]);
    let [unused] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((&*unused.field, unused.severity), ("spec.hosts", Severity::Warning));
}

#[test]
fn what_a_document_of_another_namespace_makes_of_a_delegate_is_told_there() {
    let told = |namespace: &str, of_root: &str, of_child: &str| -> Vec<(String, String)> {
        let root =
            format!("{{{of_root} delegate: {{name: child, namespace: {namespace}}}}}, {{{TO_REVIEWS}}}");
        let child = format!("{{http: [{{{of_child}}}]}}");
        let (_, problems) = delegating(&root, &[delegate(namespace, "child", &child)]);
        let told = |problem: Problem| (problem.document.unwrap().to_string(), problem.field);
        problems.into_iter().map(told).collect()
    };
    let to_reviews = "route: [{destination: {host: reviews.default.svc.cluster.local}}]";
    let claim = "match: [{headers: {'@request.auth.claims.sub': {exact: a}}}]";
    for (of_root, of_child, at_child) in [
        ("match: [{uri: {exact: /a}}],", format!("match: [{{uri: {{exact: /b}}}}], {to_reviews}"), "match"),
        ("", format!("{claim}, {to_reviews}"), "match[0]"),
    ] {
        let of_root_alone = ("VirtualService default/root".to_owned(), "spec.http[0].delegate".to_owned());
        assert_eq!(told("team", of_root, &of_child), [of_root_alone], "{of_child}");
        let of_child_alone = ("VirtualService default/child".to_owned(), format!("spec.http[0].{at_child}"));
        assert_eq!(told("default", of_root, &of_child), [of_child_alone], "it can be mended: {of_child}");
    }
}

#[test]
fn a_port_that_a_delegate_does_not_name_is_that_of_the_document_that_delegates_to_it() {
    let two_ports = "---\napiVersion: v1\nkind: Service\nmetadata: {name: two, namespace: team}\n\
                     spec: {clusterIP: 10.0.0.77, ports: [{port: 81, name: http-a}, {port: 82, name: http-b}]}\n";
    let told = |port: &str| -> BTreeSet<String> {
        let child = format!("{{http: [{{route: [{{destination: {{host: two{port}}}}}]}}]}}");
        let root =
            virtual_service("root", "{hosts: [reviews], http: [{delegate: {name: child, namespace: team}}]}");
        let (_, problems) =
            compiled(&format!("{MESH}{SUBSETS}{two_ports}{root}{}", delegate("team", "child", &child)));
        problems.iter().map(|one| format!("{} {}", one.document.as_ref().unwrap(), one.field)).collect()
    };

    let one = |told: &str| BTreeSet::from([told.to_owned()]);
    assert_eq!(told(""), one("VirtualService default/root spec.http[0].delegate"));
    assert_eq!(
        told(", port: {number: 83}"),
        one("VirtualService team/child spec.http[0].route[0].destination.port")
    );
}

#[test]
fn a_rules_name_is_text_of_one_line_and_no_longer_than_a_name() {
    let name = |written: &str| {
        let (mesh, _) = delegating(&format!("{{name: \"{written}\", {TO_REVIEWS}}}"), &[]);
        names(&mesh)[0].to_owned()
    };

    assert_eq!(name("a\\e[31m\\nb"), "VirtualService default/root http[0] a\\u{1b}[31m\\nb");
    assert!(name(&"x".repeat(1_000_000)).len() < 320);
}
