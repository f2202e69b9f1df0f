//! `RateLimit`: which workloads and routes it is for, and what is reported.

use selvedge_model::limit::{By, RateLimit};

use super::*;

fn limit(name: &str, whom: &str, limits: &str) -> String {
    format!(
        "apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{{whom}limits: [{limits}]}}\n---\n"
    )
}

const TEN: &str = "{requests: 10}";

/// The limits of reviews, and what is reported.
fn limits(documents: &str) -> (Vec<RateLimit>, String) {
    let (mesh, problems) = compiled(&format!("{MESH}{documents}"));
    let workload = &mesh.workloads[&"default/reviews-v1".parse().unwrap()];
    let limits = workload.policy.limits.iter().flat_map(|limits| limits.all.clone());
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (limits.collect(), problems.concat())
}

#[test]
fn a_rate_limit_is_for_what_it_names_and_says_what_there_is_not() {
    let documents = [
        limit("here", "", "{requests: 10, exempt: [10.0.0.0/8]}"),
        limit("selected", "selector: {matchLabels: {app: reviews}}, ", TEN),
        limit("others", "selector: {matchLabels: {app: none}}, ", TEN),
        limit("service", "targetRefs: [{kind: Service, name: reviews}], ", TEN),
        limit("nobody", "targetRefs: [{kind: Service, name: none}], ", TEN),
        limit("edge", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: none}], ", TEN),
        limit(
            "route",
            "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: none, sectionName: a}], ",
            TEN,
        ),
    ];

    let (found, problems) = limits(&documents.concat());

    let told: Vec<String> = found.iter().map(|limit| format!("{} {:?}", limit.name, limit.ports)).collect();
    let expected = [
        "RateLimit default/here None",
        "RateLimit default/selected None",
        "RateLimit default/service Some({9001})",
    ];
    assert_eq!(told, expected);
    assert!(found[0].limits[0].exempt.contains("10.1.2.3".parse().unwrap()));
    assert_eq!(found[0].limits[0].by, By::Everyone);
    for missing in [
        "selects no workload, so nothing is limited",
        "there is no Service none in namespace default",
        "there is no Gateway none in namespace default",
        "there is no HTTPRoute none in namespace default",
    ] {
        assert!(problems.contains(missing), "{missing}: {problems}");
    }
}

#[test]
fn one_that_can_never_limit_anything_is_reported_with_the_reason() {
    let documents = [
        "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {selector: {app: reviews}, ports: [{name: tcp-db, port: 5432}]}\n---\n".to_owned(),
        "apiVersion: v1\nkind: Service\nmetadata: {name: away}\nspec: {selector: {app: away}, ports: [{name: http, port: 80}]}\n---\n".to_owned(),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: tcp}\nspec: {gatewayClassName: any, listeners: [{name: a, port: 70, protocol: TCP}]}\n---\n".to_owned(),
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: lost}\nspec: {parentRefs: [{name: none}], rules: [{backendRefs: [{name: reviews, port: 9080}]}]}\n---\n".to_owned(),
        limit("a", "targetRefs: [{kind: Service, name: db}], ", TEN),
        limit("b", "targetRefs: [{kind: Service, name: away}], ", TEN),
        limit("c", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: tcp}], ", TEN),
        limit("d", "targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: lost}], ", TEN),
    ];

    let (_, problems) = compiled(&format!("{MESH}{}", documents.concat()));

    for (name, words) in [
        ("a", "none of its ports carries HTTP"),
        ("b", "no workload with a sidecar is behind this"),
        ("c", "none of its listeners carries HTTP"),
        ("d", "there is none of the Gateways that HTTPRoute default/lost names"),
    ] {
        let mut of_it = problems.iter().filter(|problem| {
            problem.document.as_ref().is_some_and(|of| &*of.kind == "RateLimit" && *of.name == *name)
        });
        assert!(of_it.any(|problem| problem.message.contains(words)), "{name}: {problems:?}");
    }
}

/// The limits of reviews that ask `service`, in a document for whom `whom` says, beside `more`.
fn asks(service: &str, whom: &str, more: &str) -> (Vec<RateLimit>, String) {
    limits(&format!(
        "apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: asks, namespace: default}}\n\
         spec: {{{whom}global: {{service: {service}, domain: a, descriptors: [{{entries: [{{value: a}}]}}]}}}}\n---\n{more}"
    ))
}

#[test]
fn a_server_is_known_by_its_full_name_and_one_that_there_is_not_is_reported() {
    const RATINGS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: ratings}\nspec: {selector: {app: ratings}, \
                           ports: [{port: 9080}]}\n";
    let server = |service: &str| {
        let (found, problems) = asks(service, "", RATINGS);
        let [RateLimit { global: Some(global), .. }] = &found[..] else { panic!("{found:?}") };
        (global.server.clone().unwrap(), problems)
    };

    for service in ["'ratings:9080'", "'default/ratings:9080'"] {
        let (server, problems) = server(service);
        assert_eq!(&*server, "ratings.default.svc.cluster.local:9080");
        assert!(!problems.contains("nobody answers"), "{problems}");
    }
    let (there_is_none, problems) = server("'limits.example.com:1'");
    assert_eq!(&*there_is_none, "limits.example.com:1");
    assert!(problems.contains("has the host limits.example.com, so nobody answers"), "{problems}");
    assert!(server("'ratings:1'").1.contains("has no port 1"));
}

#[test]
fn a_server_is_not_asked_whether_it_may_be_asked() {
    let (found, _) = asks("'reviews:9080'", "", "");

    assert!(found[0].global.is_none(), "{found:?}");
}

#[test]
fn a_gateway_asks_in_another_namespace_only_whom_it_may_name_there() {
    const GATEWAY: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: none}], ";
    const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {name: a, namespace: infra}\nspec: {from: [{group: selvedge.io, kind: RateLimit, namespace: \
         default}], to: [{group: '', kind: Service}]}\n";
    let without = asks("'infra/limits:1'", GATEWAY, "").1;
    let with = asks("'infra/limits:1'", GATEWAY, GRANT).1;

    assert!(without.contains("no ReferenceGrant in infra lets a RateLimit of default name"), "{without}");
    assert!(!with.contains("ReferenceGrant"), "{with}");
    assert!(!asks("'infra/limits:1'", "", "").1.contains("ReferenceGrant"), "a sidecar may ask anybody");
}
