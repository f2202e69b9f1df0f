//! Routes of `VirtualService`s: whose host they are for, and what is broken in them.

use std::time::Duration;

use selvedge_model::ServiceKey;

use super::{
    super::*, MESH, REVIEWS, SUBSETS, backends, compiled, errors, reviews, service, virtual_service,
};

#[test]
fn a_subset_replaces_whole_blocks_of_its_hosts_policy() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v1}, weight: 1}, {destination: {host: reviews, subset: v2}, weight: 3}]}]}";
    let (mesh, _) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    let service = reviews(&mesh);
    assert_eq!(backends(service, "/", &[]), Some(vec![("v1".to_owned(), 1), ("v2".to_owned(), 3)]));
    let [v1, v2] = service.backends.as_slice() else { panic!("{service:?}") };
    assert_eq!(v1.labels, [("version".to_owned(), "v1".to_owned())].into());
    assert_eq!(v1.policy.load_balancer, selvedge_model::LoadBalancer::RoundRobin);
    assert_eq!(v1.policy.connect_timeout, Duration::from_secs(1));
    assert_eq!(v2.policy.load_balancer, selvedge_model::LoadBalancer::RoundRobin);
    assert_eq!(v2.policy.connect_timeout, Duration::from_secs(10), "its connectionPool is another block");
    let limits = [v1, v2].map(|backend| backend.policy.connections.max_connections);
    assert_eq!(limits, [Some(5), None]);
    assert!(v1.policy.outlier_detection.is_none() && v2.policy.outlier_detection.is_some());
}

#[test]
fn a_broken_reference_keeps_its_share_and_is_reported() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v3}, weight: 90}, {destination: {host: nowhere}, weight: 10}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    let service = reviews(&mesh);
    assert!(service.backends.iter().all(|backend| backend.broken.is_some()), "{service:?}");
    assert_eq!(service.routes.rules()[0].backends.iter().map(|one| one.weight).sum::<u32>(), 100);
    let errors = errors(&problems);
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert!(
        errors[0].contains("spec.http[0].route[0].destination.subset")
            && errors[0].contains("use one of v1, v2")
    );
    assert!(errors[1].contains("nowhere.default.svc.cluster.local"));
}

#[test]
fn an_unknown_port_of_a_known_host_is_a_broken_reference() {
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, port: {number: 1}}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{}", virtual_service("a", spec)));

    assert!(reviews(&mesh).backends[0].broken.as_ref().unwrap().contains("has no port 1; use one of 9080"));
    assert_eq!(errors(&problems).len(), 1);
}

#[test]
fn an_unknown_host_of_its_own_leaves_a_document_without_effect() {
    let spec = "{hosts: [reviews.default], http: [{route: [{destination: {host: reviews}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems[0].message.contains(&format!("write {REVIEWS}")), "{problems:?}");
}

#[test]
fn the_first_document_of_a_host_wins_and_the_others_are_reported() {
    let spec = |subset: &str| {
        format!(
            "{{hosts: [reviews], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}"
        )
    };
    let text =
        format!("{MESH}{SUBSETS}{}{}", virtual_service("b", &spec("v1")), virtual_service("a", &spec("v2")));
    let (mesh, problems) = compiled(&text);

    assert_eq!(backends(reviews(&mesh), "/", &[]), Some(vec![("v1".to_owned(), 1)]));
    assert!(errors(&problems)[0].contains("VirtualService default/b (mesh.yaml:"), "{problems:?}");
}

#[test]
fn the_most_specific_host_pattern_wins() {
    let spec = |host: &str, subset: &str| {
        format!(
            "{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: reviews, subset: {subset}}}}}]}}]}}"
        )
    };
    let text = format!(
        "{MESH}{SUBSETS}{}{}",
        virtual_service("all", &spec("*", "v1")),
        virtual_service("suffix", &spec("*.default.svc.cluster.local", "v2"))
    );

    assert_eq!(backends(reviews(&compiled(&text).0), "/", &[]), Some(vec![("v2".to_owned(), 1)]));
}

#[test]
fn a_match_on_a_claim_never_holds_at_a_sidecar() {
    for fields in ["headers", "withoutHeaders"] {
        let asked = format!("match: [{{{fields}: {{'@request.auth.claims.sub': {{exact: a}}}}}}]");
        let to = |subset: &str| format!("route: [{{destination: {{host: reviews, subset: {subset}}}}}]");
        let with_others = format!("[{{{asked}, {}}}, {{{}}}]", to("v2"), to("v1"));
        let alone = format!("[{{{asked}, {}}}]", to("v2"));
        let followed = |gateways: &str, routes: &str| {
            let spec = format!("{{hosts: [reviews], {gateways} http: {routes}}}");
            let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", &spec)));
            let warnings = problems.into_iter().filter(|problem| problem.severity == Severity::Warning);
            let places: Vec<_> = warnings.map(|problem| (problem.line, problem.field)).collect();
            (backends(reviews(&mesh), "/", &[]), places)
        };

        let (to_others, told) = followed("", &with_others);
        assert_eq!(to_others, Some(vec![("v1".to_owned(), 1)]), "{fields}");
        let [(Some(_), field)] = &told[..] else { panic!("{told:?}") };
        assert_eq!(field, "spec.http[0].match[0]");
        assert_eq!(followed("", &alone).0, None, "{fields}: answered 404, not sent to everyone");
        let for_both = followed("gateways: [edge, mesh],", &with_others);
        assert_eq!(for_both, (Some(vec![("v1".to_owned(), 1)]), Vec::new()), "{fields}");
    }
}

#[test]
fn a_match_on_a_claim_without_a_name_is_refused() {
    let spec = "{hosts: [reviews], http: [{match: [{headers: {'@request.auth.claims': {exact: a}}}], route: [{destination: {host: reviews}}]}]}";
    let (_, problems) = compiled(&format!("{MESH}{}", virtual_service("a", spec)));

    let errors = errors(&problems);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("write @request.auth.claims[NAME]"), "{errors:?}");
}

#[test]
fn routes_for_another_port_leave_the_default() {
    let spec = "{hosts: [reviews], http: [{match: [{port: 1}], route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, _) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
}

#[test]
fn a_virtual_service_for_gateways_is_not_followed_by_sidecars() {
    let spec =
        "{hosts: [reviews], gateways: [edge], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, problems) = compiled(&format!("{MESH}{SUBSETS}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems.iter().any(|problem| problem.field == "spec.gateways[0]"));
}

#[test]
fn a_clients_own_namespace_beats_the_services_and_that_the_root() {
    let rule = |namespace: &str, host: &str, simple: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {{host: '{host}', trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}}}\n---\n"
        )
    };
    let balancer = |mesh: &Mesh, namespace: &str| {
        service(mesh, REVIEWS, 9080, namespace).backends[0].policy.load_balancer.clone()
    };
    use selvedge_model::LoadBalancer::{LeastRequest, Random, RoundRobin};

    let (root_only, _) = compiled(&format!("{MESH}{}", rule("istio-system", "*", "RANDOM")));
    assert_eq!((balancer(&root_only, "default"), balancer(&root_only, "other")), (Random, Random));

    let text = format!(
        "{MESH}{}{}{}",
        rule("istio-system", "*", "RANDOM"),
        rule("default", "reviews", "ROUND_ROBIN"),
        rule("shop", REVIEWS, "LEAST_REQUEST")
    );
    let (mesh, _) = compiled(&text);
    assert_eq!((balancer(&mesh, "default"), balancer(&mesh, "other")), (RoundRobin, RoundRobin));
    assert_eq!(balancer(&mesh, "shop"), LeastRequest);
    let views = &mesh.services[&ServiceKey::new(REVIEWS, 9080)];
    let own: Vec<_> = views.by_namespace.keys().map(|name| &**name).collect();
    assert_eq!(own, ["shop"], "clients in the root namespace follow the host's, too");
}

#[test]
fn http_routes_do_not_apply_to_a_tcp_port() {
    let text = MESH.replace("name: http, port", "name: tcp, port");
    let spec = "{hosts: [reviews], http: [{route: [{destination: {host: reviews, subset: v2}}]}]}";
    let (mesh, problems) = compiled(&format!("{text}{}", virtual_service("a", spec)));

    assert_eq!(reviews(&mesh).routes.rules()[0].name, "default");
    assert!(problems.iter().any(|problem| problem.message.contains("no HTTP port")), "{problems:?}");
}
