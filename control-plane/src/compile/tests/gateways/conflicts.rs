//! Listeners that exclude each other, of one document and of several.

use crate::problem::{Fault, ListenerFault};

use super::*;

/// The listeners that are served, by their ports.
fn served(mesh: &Mesh) -> Vec<String> {
    let ports = edge(mesh).ports.values();
    ports.flat_map(|port| port.listeners.iter().map(|one| format!("{} {}", port.port, one.name))).collect()
}

/// The places of listeners that are not served, with the reasons.
type Refusals = &'static [(usize, ListenerFault)];

/// The fields of the listeners that are not, with the reasons.
fn refused(problems: &[Problem]) -> Vec<(String, ListenerFault)> {
    let faults = problems.iter().filter_map(|problem| match problem.fault {
        Fault::Listener(why) => Some((format!("{} {}", problem.document.as_ref()?, problem.field), why)),
        _ => None,
    });
    faults.collect()
}

#[test]
fn of_listeners_of_one_gateway_that_exclude_each_other_none_is_served() {
    use ListenerFault::{OtherProtocol, SameHostname};

    let http = |name: &str, port: u16, host: &str| {
        format!("{{name: {name}, port: {port}, protocol: HTTP, hostname: {host}}}")
    };
    let plain = |name: &str, port: u16, protocol: &str| {
        format!("{{name: {name}, port: {port}, protocol: {protocol}}}")
    };
    let pass = |name: &str, host: &str| {
        format!("{{name: {name}, port: 443, protocol: TLS, hostname: {host}, tls: {{mode: Passthrough}}}}")
    };
    let cases: [(Vec<String>, Refusals); 5] = [
        (vec![http("a", 80, "x.org"), http("b", 80, "y.org"), plain("c", 81, "HTTP")], &[]),
        (
            vec![http("a", 80, "x.org"), http("b", 80, "x.org"), http("c", 80, "y.org")],
            &[(0, SameHostname), (1, SameHostname)],
        ),
        (vec![http("a", 80, "x.org"), plain("b", 80, "TCP")], &[(0, OtherProtocol), (1, OtherProtocol)]),
        (
            vec![http("a", 443, "x.org"), http("b", 443, "y.org"), pass("c", "z.org")],
            &[(0, OtherProtocol), (1, OtherProtocol), (2, OtherProtocol)],
        ),
        (vec![pass("a", "x.org"), pass("b", "'*.org'"), pass("c", "y.org")], &[]),
    ];
    for (listeners, expected) in cases {
        let (mesh, problems) = compiled(&format!("{EDGE}{}", gateway(&listeners.join(", "))));

        let field = |(index, why): &(usize, ListenerFault)| {
            (format!("Gateway shop/edge spec.listeners[{index}]"), *why)
        };
        let expected: Vec<_> = expected.iter().map(field).collect();
        assert_eq!(refused(&problems), expected, "{listeners:?}");
        assert_eq!(served(&mesh).len(), listeners.len() - expected.len(), "{listeners:?}");
    }
}

/// A `ListenerSet` of `shop/edge`, made at this second.
fn set(namespace: &str, name: &str, second: u32, listeners: &str) -> String {
    let spec = format!("{{parentRef: {{name: edge, namespace: shop}}, listeners: [{listeners}]}}");
    document("ListenerSet", namespace, name, &spec)
        .replace("metadata: {", &format!("metadata: {{creationTimestamp: '2026-01-01T00:00:{second:02}Z', "))
}

/// A gateway that takes listeners of these namespaces.
fn allowing(from: &str, listeners: &str) -> String {
    let spec = format!(
        "{{gatewayClassName: any, allowedListeners: {{namespaces: {from}}}, listeners: [{listeners}]}}"
    );
    document("Gateway", "shop", "edge", &spec)
}

#[test]
fn the_listeners_of_sets_come_behind_those_of_their_gateway_the_oldest_first() {
    let http =
        |name: &str, host: &str| format!("{{name: {name}, port: 80, protocol: HTTP, hostname: {host}}}");
    let text = [
        allowing("{from: All}", &http("own", "a.org")),
        set("team", "old", 1, &[http("x", "a.org"), http("y", "b.org")].join(", ")),
        set("team", "young", 2, &[http("x", "b.org"), http("y", "c.org")].join(", ")),
        // Whoever excludes himself keeps his place, and whoever is excluded has none.
        set("team", "third", 3, &[http("x", "d.org"), http("y", "d.org")].join(", ")),
        set(
            "team",
            "fourth",
            4,
            &[http("x", "d.org"), "{name: y, port: 80, protocol: TCP}".to_owned()].join(", "),
        ),
        set("team", "fifth", 5, "{name: x, port: 80, protocol: HTTP, hostname: e.org}"),
    ];
    let (mesh, problems) = compiled(&format!("{EDGE}{}", text.concat()));

    assert_eq!(
        served(&mesh),
        [
            "80 Gateway shop/edge own",
            "80 ListenerSet team/old y",
            "80 ListenerSet team/young y",
            "80 ListenerSet team/fifth x",
        ]
    );
    let mut found: Vec<String> =
        refused(&problems).into_iter().map(|(field, why)| format!("{field} {why:?}")).collect();
    found.sort();
    assert_eq!(
        found,
        [
            "ListenerSet team/fourth spec.listeners[0] SameHostname",
            "ListenerSet team/fourth spec.listeners[1] OtherProtocol",
            "ListenerSet team/old spec.listeners[0] SameHostname",
            "ListenerSet team/third spec.listeners[0] SameHostname",
            "ListenerSet team/third spec.listeners[1] SameHostname",
            "ListenerSet team/young spec.listeners[0] SameHostname",
        ]
    );
}

#[test]
fn a_gateway_takes_sets_of_the_namespaces_that_it_allows() {
    let team = "apiVersion: v1\nkind: Namespace\nmetadata: {name: team, labels: {team: a}}\n---\n";
    let sets = ["shop", "team"].map(|namespace| {
        set(
            namespace,
            "more",
            1,
            &format!("{{name: x, port: 80, protocol: HTTP, hostname: {namespace}.org}}"),
        )
    });
    for (from, expected) in [
        ("{from: All}", vec!["shop", "team"]),
        ("{from: Same}", vec!["shop"]),
        ("{from: Selector, selector: {matchLabels: {team: a}}}", vec!["team"]),
        ("{from: None}", vec![]),
        ("{}", vec![]),
    ] {
        let own = "{name: own, port: 81, protocol: HTTP}";
        let (mesh, problems) = compiled(&format!("{EDGE}{team}{}{}", allowing(from, own), sets.concat()));

        let added: Vec<String> =
            expected.iter().map(|namespace| format!("80 ListenerSet {namespace}/more x")).collect();
        let mut served = served(&mesh);
        assert_eq!(served.pop().as_deref(), Some("81 Gateway shop/edge own"));
        assert_eq!(served, added, "{from}");
        assert_eq!(problems.len(), 2 - expected.len(), "{from}: {problems:?}");
        for problem in problems {
            assert!(problem.message.contains("change its spec.allowedListeners.namespaces"), "{problem}");
        }
    }
}

#[test]
fn routes_of_a_set_are_those_that_name_it_and_its_namespace_is_what_counts() {
    let listener = "{name: x, port: 80, protocol: HTTP}";
    let to_set = |namespace: &str, name: &str, host: &str, parent: &str| {
        let rules = "[{backendRefs: [{name: web, namespace: shop, port: 80}]}]";
        let spec = format!("{{parentRefs: [{{{parent}}}], hostnames: [{host}], rules: {rules}}}");
        document("HTTPRoute", namespace, name, &spec)
    };
    let grant = "{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: team}], \
                 to: [{group: '', kind: Service}]}";
    let text = [
        allowing(
            "{from: All}",
            "{name: own, port: 81, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}",
        ),
        set("team", "more", 1, listener),
        to_set("team", "a", "a.org", "kind: ListenerSet, name: more"),
        to_set("team", "b", "b.org", "name: edge, namespace: shop"),
        to_set("shop", "c", "c.org", "kind: ListenerSet, name: more, namespace: team"),
        to_set("team", "d", "d.org", "kind: ListenerSet, name: less"),
        to_set("team", "e", "e.org", "kind: ListenerSet, name: more, sectionName: y"),
        document("ReferenceGrant", "shop", "team", grant),
    ];
    let (mesh, problems) = compiled(&format!("{EDGE}{}", text.concat()));

    assert_eq!(sent_to(&mesh, 80, "a.org", "/"), "web");
    assert_eq!(sent_to(&mesh, 81, "a.org", "/"), "404", "it names the set");
    assert_eq!(sent_to(&mesh, 81, "b.org", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "b.org", "/"), "404", "it names the gateway");
    assert_eq!(sent_to(&mesh, 80, "c.org", "/"), "404", "the set takes routes of its own namespace");
    let words: Vec<String> = problems.iter().map(|problem| problem.message.clone()).collect();
    assert_eq!(words.len(), 3, "{problems:?}");
    for expected in [
        "the listener x of ListenerSet team/more takes no routes of the namespace shop",
        "there is no ListenerSet team/less",
        "ListenerSet team/more has no such listener; name one of x (port 80)",
    ] {
        assert!(words.iter().any(|words| words.contains(expected)), "{expected}: {words:?}");
    }
}

#[test]
fn the_old_kind_means_the_same_and_both_may_have_one_name() {
    let set = |kind: &str, group: &str, host: &str| {
        format!(
            "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: more, namespace: shop}}\nspec: {{parentRef: {{name: edge}}, \
             listeners: [{{name: x, port: 80, protocol: HTTP, hostname: {host}}}]}}\n---\n"
        )
    };
    let text = [
        allowing("{from: Same}", "{name: own, port: 81, protocol: HTTP}"),
        set("ListenerSet", "gateway.networking.k8s.io/v1", "a.org"),
        set("XListenerSet", "gateway.networking.x-k8s.io/v1alpha1", "b.org"),
        document(
            "HTTPRoute",
            "shop",
            "web",
            &format!(
                "{{parentRefs: [{{kind: ListenerSet, name: more}}, \
                 {{group: gateway.networking.x-k8s.io, kind: XListenerSet, name: more}}], rules: [{}]}}",
                to("web")
            ),
        ),
    ];
    let mesh = mesh_of(&text.concat());

    assert_eq!(sent_to(&mesh, 80, "a.org", "/"), "web");
    assert_eq!(sent_to(&mesh, 80, "b.org", "/"), "web");
    assert_eq!(sent_to(&mesh, 81, "a.org", "/"), "404");
}
