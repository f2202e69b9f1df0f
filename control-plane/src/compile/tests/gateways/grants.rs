//! Backends in other namespaces, which a `ReferenceGrant` permits.

use super::*;

fn grant(kind: &str, from: &str, to: &str) -> String {
    let spec = format!(
        "{{from: [{{group: gateway.networking.k8s.io, kind: {kind}, namespace: {from}}}], to: [{to}]}}"
    );
    document("ReferenceGrant", "other", "grant", &spec)
}

fn sent(grant: &str) -> (String, Vec<String>) {
    let rule = "{backendRefs: [{name: far, namespace: other, port: 80}]}";
    let text = format!("{EDGE}{}{}{grant}", gateway(HTTP), route("shop", "web", "a.example", rule));
    let (mesh, problems) = compiled(&text);
    (sent_to(&mesh, 80, "a.example", "/"), errors(&problems))
}

#[test]
fn a_backend_of_another_namespace_needs_a_grant() {
    for to in [
        "{group: '', kind: Service}",
        "{group: '', kind: Service, name: far}",
        "{group: '', kind: Service, name: ''}",
    ] {
        assert_eq!(sent(&grant("HTTPRoute", "shop", to)), ("far".to_owned(), Vec::new()), "{to}");
    }
    for grant in [
        String::new(),
        grant("GRPCRoute", "shop", "{group: '', kind: Service}"),
        grant("HTTPRoute", "third", "{group: '', kind: Service}"),
        grant("HTTPRoute", "shop", "{group: '', kind: Secret}"),
        grant("HTTPRoute", "shop", "{group: '', kind: Service, name: near}"),
        grant("HTTPRoute", "shop", "{group: '', kind: Service}")
            .replace("namespace: other}", "namespace: third}"),
    ] {
        let (status, errors) = sent(&grant);
        assert_eq!(status, "500", "{grant}");
        let expected =
            "spec.rules[0].backendRefs[0].namespace: no ReferenceGrant in other lets a HTTPRoute of shop";
        assert!(errors[0].starts_with(expected), "{errors:?}");
    }
}

#[test]
fn a_grant_for_one_route_is_none_for_another_of_the_same_host() {
    let rule = "{matches: [{path: {value: /PATH}}], backendRefs: [{name: far, namespace: other, port: 80}]}";
    let text = format!("{EDGE}{}", gateway(HTTP))
        + &route("shop", "a", "a.example", &rule.replace("PATH", "a"))
        + &route("third", "b", "a.example", &rule.replace("PATH", "b"))
        + &grant("HTTPRoute", "third", "{group: '', kind: Service}");
    let (mesh, _) = compiled(&text);

    assert_eq!(sent_to(&mesh, 80, "a.example", "/a"), "500");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/b"), "far");
}

#[test]
fn a_policys_ancestors_are_gateways_whose_routes_may_name_its_service() {
    let policy = "{targetRefs: [{group: '', kind: Service, name: far}], \
                  validation: {hostname: far.example, wellKnownCACertificates: System}}";
    let grant = "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], \
                 to: [{group: '', kind: Service}]}";
    let text = format!("{EDGE}{}", gateway(HTTP))
        + &route("shop", "a", "", "{backendRefs: [{name: far, namespace: other, port: 80}]}")
        + &document("BackendTLSPolicy", "other", "tls", policy);
    let ancestors = |text: &str| -> Vec<String> {
        let attached = Attached::new(&resources(text).0);
        let all = attached.ancestors.into_values().flatten();
        all.map(|one| format!("{} {}", one["kind"], one["name"])).collect()
    };

    assert_eq!(ancestors(&text), [r#""Service" "far""#]);
    assert_eq!(
        ancestors(&(text + &document("ReferenceGrant", "other", "all", grant))),
        [r#""Gateway" "edge""#]
    );
}
