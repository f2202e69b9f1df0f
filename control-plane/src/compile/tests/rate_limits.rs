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
    for short in ["'ratings.default:9080'", "'ratings.default.svc:9080'", "'RATINGS.default..:9080'"] {
        assert_eq!(&*server(short).0, "ratings.default.svc.cluster.local:9080", "{short}");
    }
}

#[test]
fn a_short_name_is_a_service_entrys_where_no_service_has_the_full_one() {
    const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: limits}\nspec: \
                         {hosts: [limits.infra], ports: [{number: 1, name: grpc, protocol: GRPC}], resolution: DNS}\n---\n";
    let server = |more: &str| {
        let (found, problems) = asks("'limits.infra:1'", "", more);
        (found[0].global.as_ref().unwrap().server.clone().unwrap().to_string(), problems)
    };

    let (of_entry, problems) = server(ENTRY);
    assert_eq!(of_entry, "limits.infra:1");
    assert!(!problems.contains("nobody answers"), "{problems}");
    assert_eq!(server(&format!("{ENTRY}{LIMITS}")).0, "limits.infra.svc.cluster.local:1");
}

#[test]
fn a_server_is_not_asked_whether_it_may_be_asked() {
    for service in ["reviews:9080", "reviews.default:9080", "reviews.default.svc:9080"] {
        let (found, _) = asks(&format!("'{service}'"), "", "");

        assert!(found[0].global.is_none(), "{service}: {found:?}");
    }
}

/// A server in another namespace.
const LIMITS: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: limits, namespace: infra}\nspec: {clusterIP: \
                      10.96.0.7, selector: {app: limits}, ports: [{name: grpc, port: 1}]}\n---\n";

#[test]
fn a_gateway_asks_in_another_namespace_only_whom_it_may_name_there() {
    const GATEWAY: &str = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: none}], ";
    const GRANT: &str = "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {name: a, namespace: infra}\nspec: {from: [{group: selvedge.io, kind: RateLimit, namespace: \
         default}], to: [{group: '', kind: Service}]}\n";
    for service in [
        "infra/limits:1",
        "limits.infra:1",
        "LIMITS.infra.svc:1",
        "limits.infra.svc.cluster.local..:1",
        "10.96.0.7:1",
        "10.96.0.7.:1",
    ] {
        let asks = |more: &str| asks(&format!("'{service}'"), GATEWAY, &format!("{LIMITS}{more}")).1;
        let (without, with) = (asks(""), asks(GRANT));

        let told = "no ReferenceGrant in infra lets a RateLimit of default name Service limits";
        assert!(without.contains(told), "{service}: {without}");
        assert!(!without.contains("nobody answers"), "{service}: {without}");
        assert!(!with.contains("ReferenceGrant"), "{service}: {with}");
    }
    let unknown = asks("'10.96.0.8:1'", GATEWAY, "").1;
    assert!(unknown.contains("is the address of no Service"), "{unknown}");
    assert!(!asks("'infra/limits:1'", "", "").1.contains("ReferenceGrant"), "a sidecar may ask anybody");
}
