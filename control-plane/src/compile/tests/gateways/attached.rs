//! Which routes a gateway takes, and what the others are told.

use super::*;
use crate::problem::{Detached, Fault};

/// What a route with this parent and these hostnames at a gateway with `listeners` is told, with the reason.
fn told(listeners: &str, namespace: &str, parent: &str, hostnames: &str) -> Vec<(String, &'static str)> {
    let spec = format!(
        "{{parentRefs: [{parent}], hostnames: [{hostnames}], rules: [{{backendRefs: [{{name: web, namespace: shop, port: 80}}]}}]}}"
    );
    let grant = "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}, \
                 {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: third}], to: [{group: '', kind: Service}]}";
    let namespaces = "apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {team: blue}}\n---\n";
    let text = format!("{EDGE}{namespaces}{}", gateway(listeners))
        + &document("HTTPRoute", namespace, "web", &spec)
        + &document("ReferenceGrant", "shop", "all", grant);
    let (_, problems) = compiled(&text);
    let reason = |problem: &Problem| match problem.fault {
        Fault::Parent { why, .. } => Detached::gateway_reason(why).unwrap(),
        _ => "",
    };
    problems.iter().map(|problem| (problem.message.clone(), reason(problem))).collect()
}

#[test]
fn a_route_is_attached_where_its_parent_its_namespace_and_its_host_names_fit() {
    let listener =
        |more: &str| format!("{{name: http, port: 80, protocol: HTTP, hostname: '*.example.com'{more}}}");
    let same = listener("");
    let all = listener(", allowedRoutes: {namespaces: {from: All}}");
    let blue =
        listener(", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: blue}}}}");
    let none = listener(", allowedRoutes: {namespaces: {from: None}}");
    let grpc = listener(", allowedRoutes: {kinds: [{kind: GRPCRoute}]}");
    let third = listener(
        ", allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: third}}}}",
    );
    let (edge, host) = ("{name: edge, namespace: shop}", "a.example.com");
    for (listeners, namespace, parent, hostnames, reason) in [
        (&same, "shop", edge, host, None),
        (&same, "shop", edge, "", None),
        (&same, "shop", "{name: edge, sectionName: http}", host, None),
        (&same, "shop", "{name: edge, port: 80}", host, None),
        (&all, "other", edge, host, None),
        (&blue, "other", edge, host, None),
        (&third, "third", edge, host, None),
        (&same, "shop", "{name: edge, sectionName: https}", host, Some("NoMatchingParent")),
        (&same, "shop", "{name: edge, port: 81}", host, Some("NoMatchingParent")),
        (&same, "shop", "{name: ege}", host, Some("NoMatchingParent")),
        (&same, "other", edge, host, Some("NotAllowedByListeners")),
        (&none, "shop", edge, host, Some("NotAllowedByListeners")),
        (&third, "other", edge, host, Some("NotAllowedByListeners")),
        (&grpc, "shop", edge, host, Some("NotAllowedByListeners")),
        (&same, "shop", edge, "a.example.org", Some("NoMatchingListenerHostname")),
        (&same, "shop", "{name: edge}, {name: edge}", host, Some("UnsupportedValue")),
    ] {
        let found = told(listeners, namespace, parent, hostnames);
        let reasons: Vec<_> = found.iter().map(|(_, reason)| *reason).collect();
        assert_eq!(
            reasons,
            Vec::from_iter(reason),
            "{listeners} {namespace} {parent} {hostnames}: {found:?}"
        );
    }
}

#[test]
fn a_route_that_one_listener_takes_is_not_told_of_the_others() {
    let listeners = "{name: a, port: 80, protocol: HTTP, hostname: a.example}, {name: b, port: 81, protocol: HTTP, hostname: b.example}";

    assert_eq!(told(listeners, "shop", "{name: edge}", "b.example"), []);
    let (message, _) = told(listeners, "shop", "{name: edge}", "c.example").remove(0);
    assert!(message.contains("which the listener b of Gateway shop/edge is for"), "{message}");
}

#[test]
fn a_limit_for_a_gateway_and_for_one_of_its_routes_counts_once_there() {
    let limit = |targets: &str| {
        format!(
            "apiVersion: selvedge.io/v1alpha1\nkind: RateLimit\nmetadata: {{name: l, namespace: shop}}\nspec: {{targetRefs: \
             [{targets}], limits: [{{requests: 9}}]}}\n---\n"
        )
    };
    let of =
        |kind: &str, name: &str| format!("{{group: gateway.networking.k8s.io, kind: {kind}, name: {name}}}");
    let counted = |targets: &str| {
        let web = route("shop", "web", "a.example.com", &to("web"));
        let other =
            document("Gateway", "shop", "other", &format!("{{gatewayClassName: any, listeners: [{HTTP}]}}"));
        let (mesh, _) = compiled(&format!("{EDGE}{}{other}{web}{}", gateway(HTTP), limit(targets)));
        let at_gateway = &mesh.workloads[&"shop/edge-1".parse().unwrap()].policy.limits;
        let at_route = rule(&mesh, 80, "a.example.com", "/").unwrap().1.filters.limits.len();
        (at_gateway.as_ref().map_or(0, |limits| limits.all.len()), at_route)
    };
    let (edge, other, web) = (of("Gateway", "edge"), of("Gateway", "other"), of("HTTPRoute", "web"));

    assert_eq!(counted(&edge), (1, 0));
    assert_eq!(counted(&web), (0, 1));
    assert_eq!(counted(&format!("{edge}, {web}")), (1, 0));
    assert_eq!(counted(&format!("{other}, {web}")), (0, 1), "at another gateway the route's counts");
}
