//! What the `http` routes of `VirtualService`s do besides choosing a backend.

mod delegates;

use std::fs;

use selvedge_model::{
    ClientMatch, StringMatch,
    filter::{Fraction, OwnAnswer},
};

use super::*;
use crate::resources::Resource;

/// The mesh with these `http` routes of `reviews`, and what is wrong with them.
fn routed(http: &str) -> (Mesh, Vec<Problem>) {
    let spec = format!("{{hosts: [reviews], http: [{http}]}}");
    compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", &spec)))
}

const TO_REVIEWS: &str = "route: [{destination: {host: reviews}}]";

#[test]
fn a_route_without_such_fields_has_no_filters() {
    let (mesh, problems) = routed(&format!("{{{TO_REVIEWS}}}"));

    assert_eq!(problems, []);
    let rule = &reviews(&mesh).routes.rules()[0];
    assert!(rule.filters.is_empty() && rule.backends[0].filters.is_none(), "{rule:?}");
    assert_eq!(rule.unusable_status, 503);
}

#[test]
fn headers_become_filters_of_the_rule_and_of_a_share() {
    let (mesh, problems) = routed(
        "{headers: {request: {set: {x: y, host: other}}}, route: [{destination: {host: reviews, subset: v1}, weight: 1, headers: {request: {set: {':authority': v1.example}}, response: {add: {x: '1'}}}}, {destination: {host: reviews, subset: v2}, weight: 1}]}",
    );

    assert_eq!(problems, []);
    let rule = &reviews(&mesh).routes.rules()[0];
    assert_eq!(rule.filters.rewrite.authority.as_deref(), Some("other"));
    assert_eq!(rule.filters.request_headers.set[0].name.as_str(), "x");
    let of_share = rule.backends[0].filters.as_deref().unwrap();
    assert_eq!(of_share.rewrite.authority.as_deref(), Some("v1.example"));
    assert_eq!(of_share.response_headers.add[0].name.as_str(), "x");
    assert_eq!(rule.backends[1].filters, None);
}

#[test]
fn an_answer_of_our_own_needs_no_destination() {
    let (mesh, problems) = routed(
        "{match: [{uri: {exact: /old}}], redirect: {uri: /new}}, {directResponse: {status: 410, body: {string: gone}}}",
    );

    assert_eq!(problems, []);
    let rules = reviews(&mesh).routes.rules();
    assert!(matches!(rules[0].filters.answer, Some(OwnAnswer::Redirect(_))), "{rules:?}");
    assert!(matches!(rules[1].filters.answer, Some(OwnAnswer::Direct(_))), "{rules:?}");
    assert!(rules.iter().all(|rule| rule.backends.is_empty()));
}

#[test]
fn a_rewrite_of_a_match_without_a_path_is_of_the_prefix_slash() {
    let slash = Some(StringMatch::Prefix("/".to_owned()));
    let paths = |http: &str| {
        let (mesh, _) = routed(http);
        let rule = &reviews(&mesh).routes.rules()[0];
        rule.matches.iter().map(|one| one.path.clone()).collect::<Vec<_>>()
    };

    assert_eq!(paths(&format!("{{rewrite: {{uri: /v1/}}, {TO_REVIEWS}}}")), vec![slash.clone()]);
    let of_two = format!(
        "{{match: [{{uri: {{exact: /a}}}}, {{method: {{exact: GET}}}}], rewrite: {{uri: /v1/}}, {TO_REVIEWS}}}"
    );
    assert_eq!(paths(&of_two), vec![Some(StringMatch::Exact("/a".to_owned())), slash]);
    assert_eq!(paths(&format!("{{rewrite: {{authority: a}}, {TO_REVIEWS}}}")), []);
}

#[test]
fn who_the_client_is_stands_in_the_match() {
    let (mesh, problems) =
        routed(&format!("{{match: [{{sourceLabels: {{app: web}}, source_namespace: shop}}], {TO_REVIEWS}}}"));

    assert_eq!(problems, []);
    let client = ClientMatch {
        labels: [("app".to_owned(), "web".to_owned())].into(),
        namespace: Some("shop".to_owned()),
    };
    assert_eq!(reviews(&mesh).routes.rules()[0].matches[0].client, client);
}

/// Istio's samples, in the directory beside the checkout where the acceptance documents are; a plain clone has none.
#[test]
fn nothing_in_the_samples_routes_is_passed_over() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let mut directories = vec![shared.join("acceptance-yaml/istio/samples"), shared.join("seed-yaml")];
    let (mut files, mut faults) = (0, 0);
    while let Some(directory) = directories.pop() {
        for path in fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            if path.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            files += 1;
            let text = fs::read_to_string(&path).unwrap();
            for decoded in decode(&text, &Arc::from(&*path), "default") {
                let of_routes = decoded.problems.iter().filter(|problem| {
                    let of_kind =
                        problem.document.as_ref().is_some_and(|name| &*name.kind == "VirtualService");
                    of_kind && !problem.field.contains("gateways")
                });
                assert_eq!(of_routes.collect::<Vec<_>>(), Vec::<&Problem>::new(), "{}", path.display());
                if let DecodeOutcome::Understood(Resource::VirtualService(document)) = &decoded.outcome {
                    faults += document.spec.http.iter().filter(|route| route.fault.is_some()).count();
                }
            }
        }
    }
    println!("{files} files below {}", shared.display());
    assert!(files == 0 || faults > 0);
}

#[test]
fn a_sample_with_a_fault_aborts_all_requests_that_match() {
    let (mesh, problems) = routed(
        "{match: [{headers: {end-user: {exact: jason}}}], fault: {abort: {percentage: {value: 100.0}, httpStatus: 500}, delay: {fixedDelay: 7s, percent: 50}}, route: [{destination: {host: reviews, subset: v1}}]}, {route: [{destination: {host: reviews, subset: v1}}]}",
    );

    assert_eq!(problems, []);
    let rules = reviews(&mesh).routes.rules();
    let fault = rules[0].filters.fault.as_ref().unwrap();
    let (abort, delay) = (fault.abort.as_ref().unwrap(), fault.delay.as_ref().unwrap());
    assert_eq!((abort.status, abort.grpc, abort.fraction), (500, None, Fraction::ALL));
    assert_eq!((delay.time, delay.fraction.parts()), (Duration::from_secs(7), 500_000));
    assert_eq!(rules[1].filters.fault, None);
}

/// The rules of `reviews` for a client with the label `app`, in `namespace`.
fn rules_for(mesh: &Mesh, app: &str, namespace: &str) -> Vec<String> {
    let table =
        reviews(mesh).routes.clone().for_client(&[("app".to_owned(), app.to_owned())].into(), namespace);
    table.rules().iter().map(|rule| rule.name.clone()).collect()
}

#[test]
fn a_client_that_no_route_is_for_follows_the_default_route_of_the_service() {
    let (of_a, of_shop) = ("match: [{sourceLabels: {app: a}}]", "match: [{sourceNamespace: shop}]");
    let (mesh, problems) =
        routed(&format!("{{{of_a}, name: a, {TO_REVIEWS}}}, {{{of_shop}, name: shop, {TO_REVIEWS}}}"));

    assert_eq!(errors(&problems), [""; 0]);
    assert_eq!(rules_for(&mesh, "b", "elsewhere"), ["default"]);
    assert_eq!(rules_for(&mesh, "a", "elsewhere"), ["VirtualService default/a http[0] a"]);
    assert_eq!(rules_for(&mesh, "b", "shop"), ["VirtualService default/a http[1] shop"]);

    let for_gateways = format!("{{match: [{{gateways: [edge]}}], {TO_REVIEWS}}}");
    assert_eq!(rules_for(&routed(&for_gateways).0, "b", "shop"), ["default"]);
    let for_all_on_a_path =
        format!("{{{of_a}, {TO_REVIEWS}}}, {{match: [{{uri: {{exact: /}}}}], {TO_REVIEWS}}}");
    assert_eq!(rules_for(&routed(&for_all_on_a_path).0, "b", "shop"), ["VirtualService default/a http[1]"]);
}

#[test]
fn a_match_that_cannot_be_checked_might_be_for_any_client() {
    let unchecked = "match: [{headers: {a: {suffix: x}}}]";
    let of_a = "match: [{sourceLabels: {app: a}}]";
    let (mesh, problems) = routed(&format!("{{{unchecked}, {TO_REVIEWS}}}, {{{of_a}, {TO_REVIEWS}}}"));

    assert_eq!(errors(&problems).len(), 1, "{problems:?}");
    assert_eq!(rules_for(&mesh, "b", "default"), Vec::<String>::new());
}

#[test]
fn what_a_service_says_in_annotations_of_linkerd_holds_where_a_rule_says_nothing() {
    let service = "metadata: {name: reviews, annotations: {retry.linkerd.io/http: 5xx, timeout.linkerd.io/request: 7s, \
                   timeout.linkerd.io/response: 6s}}";
    let annotated = MESH.replace("metadata: {name: reviews}", service);
    assert_ne!(annotated, MESH);
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let times = |documents: &str| {
        let (mesh, problems) = compiled(&format!("{annotated}{SUBSETS}{documents}"));
        assert_eq!(problems, []);
        let rule = &reviews(&mesh).routes.rules()[0];
        (rule.timeout, rule.stream.response, rule.retry.attempts, rule.retry.on.any_5xx)
    };
    let of_vs = |fields: &str| {
        times(&virtual_service("a", &format!("{{hosts: [reviews], http: [{{{fields}{TO_REVIEWS}}}]}}")))
    };
    let of_route = |annotations: &str, fields: &str| {
        times(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r, annotations: {{{annotations}}}}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: reviews}}], rules: [{{{fields}backendRefs: \
             [{{name: reviews, port: 9080}}]}}]}}\n---\n"
        ))
    };

    let of_service = (seconds(7), seconds(6), 1, true);
    assert_eq!(times(""), of_service, "without a route");
    assert_eq!(of_vs(""), of_service);
    assert_eq!(of_vs("timeout: 3s, "), (seconds(3), None, 1, true));
    assert_eq!(of_vs("retries: {attempts: 4}, "), (seconds(7), seconds(6), 4, false));
    assert_eq!(of_route("", ""), of_service);
    assert_eq!(of_route("", "timeouts: {request: 2s}, "), (seconds(2), None, 1, true));
    assert_eq!(of_route("timeout.linkerd.io/idle: 5s", ""), (None, None, 1, true));
    assert_eq!(of_route("retry.linkerd.io/limit: '3'", ""), (seconds(7), seconds(6), 3, false));
}
