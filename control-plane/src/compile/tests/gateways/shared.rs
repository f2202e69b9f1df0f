//! What a document costs that is at many listeners and host names: its rules are kept once, and what would be sent too often
//! is refused.

use super::*;

/// Listeners on port 80 for as many host names.
fn listeners(count: usize) -> String {
    let listener =
        |place| format!("{{name: l{place}, port: 80, protocol: HTTP, hostname: h{place}.example.com}}");
    (0..count).map(listener).collect::<Vec<_>>().join(", ")
}

/// A rule to `service` with 800 KB of paths.
fn large(service: &str) -> String {
    let path = |place| format!("{{path: {{value: /{service}/{place}/{}}}}}", "x".repeat(1000));
    let matches = |from| (from..from + 8).map(path).collect::<Vec<_>>().join(", ");
    let rule = |place| {
        let matches = matches(place * 8);
        format!("{{matches: [{matches}], backendRefs: [{{name: {service}, port: 80}}]}}")
    };
    (0..100).map(rule).collect::<Vec<_>>().join(", ")
}

/// The rules of all virtual hosts of a gateway.
fn rules(gateway: &Gateway) -> Vec<&Arc<Rule>> {
    gateway.virtual_hosts.values().flat_map(|service| service.routes.rules()).collect()
}

fn addresses(rules: &[&Arc<Rule>]) -> usize {
    rules.iter().map(|rule| Arc::as_ptr(rule)).collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn a_rule_is_kept_once_however_many_listeners_and_hosts_have_it() {
    let routes = route("shop", "web", "", &to("web")) + &route("shop", "api", "'*.example.com'", &to("api"));

    let mesh = mesh_of(&(gateway(&listeners(20)) + &routes));

    let rules = rules(edge(&mesh));
    assert_eq!((rules.len(), addresses(&rules)), (40, 2));
}

#[test]
fn labels_that_no_document_asks_for_make_no_second_gateway() {
    let pods = (2..5).map(|pod| {
        EDGE.split("---\n").next().unwrap().replace("edge-1", &format!("edge-{pod}")).replace(
            "serviceAccount: edge",
            &format!("serviceAccount: edge, labels: {{statefulset.kubernetes.io/pod-name: edge-{pod}}}"),
        ) + "---\n"
    });
    let pods: String = pods.collect();

    let mesh = mesh_of(&(pods + &gateway(HTTP) + &route("shop", "web", "", &to("web"))));

    let own = |pod: usize| &mesh.gateways[&format!("shop/edge-{pod}").parse().unwrap()];
    assert!((2..5).all(|pod| Arc::ptr_eq(own(pod), edge(&mesh))));
}

#[test]
fn what_one_namespace_would_be_sent_too_often_is_refused_and_the_older_and_the_others_are_served() {
    let routes = route("shop", "a", "", &large("web"))
        + &route("shop", "b", "", &large("api"))
        + &route("shop", "small", "", &to("web"));
    let gateway =
        gateway(&listeners(40).replace("port: 80,", "port: 80, allowedRoutes: {namespaces: {from: All}},"));
    let others = route("other", "c", "", &to("far"));

    let (mesh, problems) = compiled(&format!("{EDGE}{gateway}{routes}{others}"));

    assert_eq!(errors(&problems).len(), 1, "{problems:?}");
    let problem = problems.iter().find(|problem| problem.severity == Severity::Error).unwrap();
    assert_eq!(&*problem.document.as_ref().unwrap().name, "b");
    assert!(problem.message.contains("MiB"), "{}", problem.message);
    let names: std::collections::BTreeSet<_> =
        rules(edge(&mesh)).iter().map(|rule| rule.name.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["other/c", "shop/a", "shop/small"]);
}
