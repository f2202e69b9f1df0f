//! Who gets copies of requests, as routes of either kind say.

use selvedge_model::{Rule, filter::Filters};

use super::*;
use crate::problem::{Fault, Unresolved};

const TO_REVIEWS: &str = "route: [{destination: {host: reviews}}]";

/// The mesh with these `http` routes of `reviews`, some of which others stand for.
fn routed(http: &str, delegates: &str) -> (Mesh, Vec<Problem>) {
    let root = virtual_service("root", &format!("{{hosts: [reviews], http: [{http}]}}"));
    compiled(&format!("{MESH}{SUBSETS}{root}{delegates}"))
}

/// The mesh with a route of `kind` of `reviews` that has these rules.
fn gateway(kind: &str, rules: &str) -> (Mesh, Vec<Problem>) {
    compiled(&format!(
        "{MESH}---\napiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{parentRefs: [{{group: '', kind: Service, name: reviews}}], rules: [{rules}]}}\n"
    ))
}

fn rule(mesh: &Mesh) -> &Rule {
    &reviews(mesh).routes.rules()[0]
}

/// What gets copies by `filters`: the backend, and how many of a million.
fn copied(mesh: &Mesh, filters: &Filters) -> Vec<(String, u32)> {
    let name = |backend: usize| reviews(mesh).backends[backend].name.to_string();
    filters.mirrors.iter().map(|mirror| (name(mirror.backend), mirror.fraction.parts())).collect()
}

fn whole(host: &str) -> String {
    format!("{host}.svc.cluster.local:9080")
}

#[test]
fn a_mirror_is_a_backend_of_its_own_with_a_share_of_all() {
    let one = |percentage: &str| {
        let (mesh, problems) =
            routed(&format!("{{mirror: {{host: reviews, subset: v2}}, {percentage}{TO_REVIEWS}}}"), "");
        assert_eq!(problems, []);
        copied(&mesh, &rule(&mesh).filters).into_iter().map(|(_, parts)| parts).collect::<Vec<_>>()
    };
    assert_eq!(one(""), [1_000_000]);
    assert_eq!(one("mirrorPercentage: {value: 0.5}, "), [5_000]);
    assert_eq!(one("mirror_percent: 7, "), [70_000]);
    assert_eq!(one("mirrorPercentage: {value: 1}, mirrorPercent: 7, "), [10_000]);
    assert_eq!(one("mirrorPercent: 0, "), Vec::<u32>::new());

    let (mesh, problems) = routed(
        &format!(
            "{{mirrors: [{{destination: {{host: reviews, subset: v1}}}}, {{destination: {{host: reviews, subset: v2}}, percentage: {{value: 20}}}}], {TO_REVIEWS}}}"
        ),
        "",
    );
    assert_eq!(problems, []);
    let found = copied(&mesh, &rule(&mesh).filters);
    assert_eq!(found.iter().map(|(_, parts)| *parts).collect::<Vec<_>>(), [1_000_000, 200_000]);
    assert!(found[0].0.contains("v1") && found[1].0.contains("v2"), "{found:?}");
}

#[test]
fn a_mirror_that_cannot_be_used_is_said_and_takes_nothing_from_the_requests() {
    for (mirror, field) in [
        ("mirror: {host: nobody}", "spec.http[0].mirror.host"),
        ("mirror: {host: reviews, port: {number: 1}}", "spec.http[0].mirror.port"),
        (
            "mirrors: [{destination: {host: reviews, subset: v9}}]",
            "spec.http[0].mirrors[0].destination.subset",
        ),
    ] {
        let (mesh, problems) = routed(&format!("{{{mirror}, {TO_REVIEWS}}}"), "");

        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!((&*problem.field, problem.severity), (field, Severity::Error));
        assert!(problem.message.contains("no copies are sent"), "{problem:?}");
        assert_eq!(problem.line, Some(46), "{problem:?}");
        let rule = rule(&mesh);
        assert!(reviews(&mesh).backends[rule.filters.mirrors[0].backend].broken.is_some());
        assert_eq!(backends(reviews(&mesh), "/", &[]), Some(vec![("whole".to_owned(), 1)]));
    }
}

#[test]
fn a_percentage_without_a_mirror_is_said_and_an_answer_of_our_own_is_not_copied() {
    let (mesh, problems) = routed(&format!("{{mirrorPercentage: {{value: 1}}, {TO_REVIEWS}}}"), "");
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert_eq!((&*problem.field, problem.severity), ("spec.http[0]", Severity::Warning));
    assert!(rule(&mesh).filters.mirrors.is_empty());

    let (mesh, _) = routed("{mirror: {host: reviews}, directResponse: {status: 200}}", "");
    assert!(rule(&mesh).filters.mirrors.is_empty());
}

#[test]
fn a_delegate_takes_over_each_field_that_it_does_not_say_itself_and_hosts_are_of_who_names_them() {
    let delegated = |root: &str, child: &str| {
        let child = format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: child, namespace: team}}\nspec: {{http: [{{{child} route: [{{destination: {{host: reviews.default.svc.cluster.local}}}}]}}]}}\n"
        );
        let root = format!("{{{root} delegate: {{name: child, namespace: team}}}}");
        let (mesh, problems) = routed(&root, &child);
        (copied(&mesh, &rule(&mesh).filters), problems)
    };

    let (found, problems) = delegated("mirror: {host: reviews}, mirrorPercent: 5,", "");
    assert_eq!((found, problems), (vec![(whole("reviews.default"), 50_000)], vec![]));
    let (found, problems) =
        delegated("mirror: {host: reviews}, mirrorPercent: 5,", "mirrorPercentage: {value: 9},");
    assert_eq!((found, problems), (vec![(whole("reviews.default"), 90_000)], vec![]));
    let (found, _) = delegated("mirror: {host: reviews}, mirrorPercent: 5,", "mirror: {host: other},");
    assert_eq!(found, [(whole("other.team"), 50_000)]);
    let (found, problems) = delegated(
        "mirrors: [{destination: {host: reviews}, percentage: {value: 2}}],",
        "mirror: {host: reviews.default.svc.cluster.local},",
    );
    let both = vec![(whole("reviews.default"), 1_000_000), (whole("reviews.default"), 20_000)];
    assert_eq!((found, problems), (both, vec![]));
}

#[test]
fn a_request_mirror_is_of_a_rule_or_of_one_backend_in_either_kind_of_route() {
    let mirror = |name: &str, more: &str| {
        format!(
            "filters: [{{type: RequestMirror, requestMirror: {{backendRef: {{name: {name}, port: 9080}}{more}}}}}]"
        )
    };
    for kind in ["HTTPRoute", "GRPCRoute"] {
        let (mesh, problems) = gateway(
            kind,
            &format!(
                "{{{}, backendRefs: [{{name: reviews, port: 9080, {}}}]}}",
                mirror("reviews", ", percent: 42"),
                mirror("reviews", ", fraction: {numerator: 1, denominator: 8}")
            ),
        );
        assert_eq!(problems, []);
        let rule = rule(&mesh);
        assert_eq!(copied(&mesh, &rule.filters), [(whole("reviews.default"), 420_000)]);
        let of_share = rule.backends[0].filters.as_deref().unwrap();
        assert_eq!(copied(&mesh, of_share), [(whole("reviews.default"), 125_000)]);

        let broken = format!("{{{}, backendRefs: [{{name: reviews, port: 9080}}]}}", mirror("nobody", ""));
        let (_, problems) = gateway(kind, &broken);
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!(problem.field, "spec.rules[0].filters[0].requestMirror.backendRef.name");
        assert_eq!(problem.fault, Fault::Backend(Unresolved::NoSuchHost));
    }
}
