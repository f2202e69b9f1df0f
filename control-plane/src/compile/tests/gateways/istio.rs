//! Istio's `Gateway`s, with the `VirtualService`s that name them.

mod tls;

use selvedge_model::{
    Layer,
    filter::{OwnAnswer, RedirectPort},
    gateway::ListenerTls,
};

use super::*;
use crate::problem::Severity;

/// The workload of `EDGE`, with the labels of Istio's own gateway.
fn labelled() -> String {
    EDGE.replace("serviceAccount: edge}", "serviceAccount: edge, labels: {istio: ingressgateway}}")
}

fn istio(kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"
    )
}

/// A `Gateway` of one server of HTTP on port 80.
fn http(name: &str, hosts: &str) -> String {
    let server = format!("{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: [{hosts}]}}");
    istio("Gateway", name, &format!("{{selector: {{istio: ingressgateway}}, servers: [{server}]}}"))
}

/// A `VirtualService` of `shop/gw`.
fn virtual_service(name: &str, hosts: &str, http: &str) -> String {
    istio("VirtualService", name, &format!("{{hosts: [{hosts}], gateways: [shop/gw], http: [{http}]}}"))
}

fn route(service: &str) -> String {
    format!("route: [{{destination: {{host: {service}}}}}]")
}

fn at(path: &str, service: &str) -> String {
    format!("{{match: [{{uri: {{prefix: {path}}}}}], {}}}", route(service))
}

fn all(service: &str) -> String {
    format!("{{{}}}", route(service))
}

fn served(text: &str) -> (Mesh, Vec<Problem>) {
    compiled(&format!("{}{text}", labelled()))
}

/// Field and severity of each problem.
fn told(problems: &[Problem]) -> Vec<(&str, Severity)> {
    problems.iter().map(|problem| (problem.field.as_str(), problem.severity)).collect()
}

#[test]
fn a_virtual_service_is_followed_at_the_gateway_that_it_names() {
    let documents = http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &at("/api", "api"));
    let (mesh, problems) = served(&documents);

    assert_eq!(problems, []);
    assert_eq!(sent_to(&mesh, 80, "any.example", "/api/v1"), "api");
    assert_eq!(sent_to(&mesh, 80, "any.example", "/other"), "404");
    let (_, rule) = rule(&mesh, 80, "any.example", "/api").unwrap();
    assert_eq!(rule.name, "VirtualService shop/a http[0]");
    assert_eq!(
        edge(&mesh).ports[&80].listeners[0].name.as_ref(),
        "Gateway.networking.istio.io shop/gw servers[0]"
    );
}

#[test]
fn routes_of_one_host_are_one_list_in_which_those_for_everything_stand_last() {
    let documents = http("shop/gw", "a.example")
        + &virtual_service("shop/first", "a.example", &format!("{}, {}", all("web"), at("/never", "api")))
        + &virtual_service("shop/second", "a.example", &format!("{}, {}", at("/api", "api"), all("api")));
    let (mesh, problems) = served(&documents);

    assert_eq!(told(&problems), [("spec.http[1]", Severity::Warning)]);
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web", "the older one's");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/api"), "api");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/never"), "web", "it stands behind the end of its list");
}

#[test]
fn a_match_for_everything_among_others_moves_alone() {
    let first = format!(
        "{{match: [{{uri: {{exact: /a}}}}, {{uri: {{prefix: /}}}}, {{uri: {{exact: /b}}}}], {}}}",
        route("web")
    );
    let documents = http("shop/gw", "a.example")
        + &virtual_service("shop/first", "a.example", &first)
        + &virtual_service(
            "shop/second",
            "a.example",
            &at("/", "api").replace("uri: {prefix: /}", "headers: {x: {exact: y}}, uri: {prefix: /}"),
        )
        + &virtual_service("shop/third", "a.example", &at("/b", "api"));
    let (mesh, _) = served(&documents);

    assert_eq!(sent_to(&mesh, 80, "a.example", "/a"), "web");
    assert_eq!(
        sent_to(&mesh, 80, "a.example", "/b"),
        "api",
        "what stands behind the match for everything never counts"
    );
    assert_eq!(sent_to(&mesh, 80, "a.example", "/c"), "web");
}

#[test]
fn the_hosts_served_are_those_that_both_have() {
    let documents = http("shop/gw", "'*.example.com', b.example.org")
        + &virtual_service("shop/all", "'*'", &all("web"))
        + &virtual_service("shop/one", "a.example.com", &all("api"));
    let (mesh, problems) = served(&documents);

    assert_eq!(problems, []);
    for (host, expected) in [
        ("a.example.com", "api"),
        ("z.example.com", "web"),
        ("b.example.org", "web"),
        ("example.com", "404"),
        ("other.example", "404"),
    ] {
        assert_eq!(sent_to(&mesh, 80, host, "/"), expected, "{host}");
    }
}

#[test]
fn servers_of_several_gateways_on_one_port_are_served_together() {
    let documents = http("shop/gw", "a.example")
        + &http("istio-system/second", "b.example, a.example")
        + &virtual_service("shop/a", "a.example", &at("/web", "web"))
        + &istio(
            "VirtualService",
            "other/b",
            &format!("{{hosts: ['*.example'], gateways: [istio-system/second], http: [{}]}}", all("far")),
        );
    let (mesh, problems) = served(&documents);

    assert_eq!(told(&problems), [("spec.hosts", Severity::Warning)], "they are of two namespaces");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/web"), "web");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/else"), "far");
    assert_eq!(sent_to(&mesh, 80, "b.example", "/"), "far");
}

#[test]
fn a_host_may_be_for_some_namespaces_only() {
    let documents = http("shop/gw", "./a.example, other/b.example, '*/c.example'")
        + &virtual_service("shop/own", "a.example, c.example", &all("web"))
        + &virtual_service("other/theirs", "b.example", &all("far"));
    let (mesh, problems) = served(&documents);
    assert_eq!(problems, []);
    let hosts = ["a.example", "b.example", "c.example"].map(|host| sent_to(&mesh, 80, host, "/"));
    assert_eq!(hosts, ["web", "far", "web"]);

    let foreign = http("shop/gw", "./a.example") + &virtual_service("other/theirs", "a.example", &all("far"));
    let (mesh, problems) = served(&foreign);
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "404");
    assert_eq!(told(&problems), [("spec.hosts[0]", Severity::Warning)]);
    assert!(problems[0].message.contains("for the namespace other"), "{problems:?}");
}

#[test]
fn a_match_may_be_for_a_gateway_a_port_or_a_workload() {
    let only = |condition: &str| format!("{{match: [{{{condition}}}], {}}}", route("api"));
    for (condition, expected) in [
        ("gateways: [gw]", "api"),
        ("gateways: [shop/gw, mesh]", "api"),
        ("gateways: [mesh]", "web"),
        ("gateways: [other]", "web"),
        ("port: 80", "api"),
        ("port: 81", "web"),
        ("sourceLabels: {istio: ingressgateway}", "api"),
        ("sourceLabels: {istio: other}", "web"),
        ("sourceNamespace: shop", "api"),
        ("sourceNamespace: other", "web"),
    ] {
        let list = format!("{}, {}", only(condition), all("web"));
        let (mesh, _) = served(&(http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &list)));
        assert_eq!(sent_to(&mesh, 80, "a.example", "/"), expected, "{condition}");
    }
}

#[test]
fn a_virtual_service_of_the_mesh_and_a_gateway_is_for_both() {
    let spec = |gateways: &str, match_for: &str| {
        let list = format!(
            "{{match: [{{gateways: [{match_for}]}}], {}}}, {}",
            route("api"),
            all("far.other.svc.cluster.local")
        );
        istio(
            "VirtualService",
            "shop/web",
            &format!("{{hosts: [web], gateways: [{gateways}], http: [{list}]}}"),
        )
    };
    let at_sidecar = |mesh: &Mesh| {
        let service = service(mesh, "web.shop.svc.cluster.local", 80, "shop");
        service.backends[service.routes.rules()[0].backends[0].backend].name.service.host.to_string()
    };
    let host = "web.shop.svc.cluster.local";

    let (mesh, problems) = served(&(http("shop/gw", "'*'") + &spec("mesh, gw", "gw")));
    assert_eq!(problems, []);
    assert_eq!(sent_to(&mesh, 80, host, "/"), "api");
    assert!(at_sidecar(&mesh).starts_with("far."));

    let (mesh, _) = served(&(http("shop/gw", "'*'") + &spec("mesh", "mesh")));
    assert_eq!(sent_to(&mesh, 80, host, "/"), "404", "it is for sidecars alone");
    assert!(at_sidecar(&mesh).starts_with("api."));

    let (mesh, _) = served(&(http("shop/gw", "'*'") + &spec("gw", "gw")));
    assert!(at_sidecar(&mesh).starts_with("web."), "it is for the gateway alone");
}

#[test]
fn a_virtual_service_that_is_not_exported_to_the_gateway_does_not_count_there() {
    let of = |export_to: &str| {
        let spec =
            format!("{{exportTo: [{export_to}], hosts: ['*'], gateways: [shop/gw], http: [{}]}}", all("far"));
        let (mesh, _) = served(&(http("shop/gw", "'*'") + &istio("VirtualService", "other/a", &spec)));
        sent_to(&mesh, 80, "a.example", "/")
    };

    assert_eq!(of("'*'"), "far");
    assert_eq!(of("shop"), "far");
    assert_eq!(of("."), "404");
}

#[test]
fn a_server_that_redirects_to_https_serves_nothing_else() {
    let redirecting = http("shop/gw", "a.example, '*.example.com'")
        .replace("protocol: HTTP}", "protocol: HTTP}, tls: {httpsRedirect: true}");
    let other = http("shop/second", "b.example");
    let documents = redirecting
        + &other
        + &virtual_service("shop/a", "a.example", &all("web"))
        + &istio(
            "VirtualService",
            "shop/b",
            &format!("{{hosts: ['*'], gateways: [second], http: [{}]}}", all("api")),
        );
    let (mesh, problems) = served(&documents);

    assert_eq!(problems, []);
    for host in ["a.example", "any.example.com"] {
        let (_, rule) = rule(&mesh, 80, host, "/x").unwrap();
        let Some(OwnAnswer::Redirect(redirect)) = &rule.filters.answer else { panic!("{rule:?}") };
        assert_eq!((redirect.status, redirect.scheme.as_deref()), (301, Some("https")));
        assert_eq!(redirect.port, RedirectPort::Default);
    }
    // What a trusted proxy got over TLS follows the routes, as with Envoy.
    let (service, redirect) = rule(&mesh, 80, "a.example", "/x").unwrap();
    let told = |proto: &'static str| {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static("x-forwarded-proto"),
            HeaderValue::from_static(proto),
        )]);
        let request = facts::Request {
            connection: &facts::Connection::new(facts::Source::UNKNOWN, 80),
            method: &Method::GET,
            scheme: proto,
            authority: "a.example",
            path: "/x",
            query: "",
            headers: &headers,
            token: None,
        };
        service.routes.find(&request).map(|found| service.routes.rules()[found.rule].name.clone())
    };
    assert_eq!(told("http").as_deref(), Some(&*redirect.name));
    assert_eq!(told("https").as_deref(), Some("VirtualService shop/a http[0]"));
    assert_eq!(sent_to(&mesh, 80, "b.example", "/"), "api");
}

#[test]
fn claims_are_asked_for_at_gateways() {
    let list = format!(
        "{{match: [{{headers: {{'@request.auth.claims.group': {{exact: dev}}}}}}], {}}}, {}",
        route("api"),
        all("web")
    );
    let (mesh, problems) = served(&(http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &list)));

    assert_eq!(problems, []);
    let (service, rule) = rule(&mesh, 80, "a.example", "/").unwrap();
    assert_eq!(rule.name, "VirtualService shop/a http[1]", "without a token");
    assert!(service.routes.rules()[0].matches[0].asks_for_claims());
}

#[test]
fn a_delegate_is_followed_at_a_gateway() {
    let root = "{match: [{uri: {prefix: /api}}], delegate: {name: part, namespace: other}}";
    let part = format!("{{http: [{{match: [{{uri: {{prefix: /api/v1}}}}], {}}}]}}", route("far"));
    let documents = http("shop/gw", "'*'")
        + &virtual_service("shop/a", "'*'", root)
        + &istio("VirtualService", "other/part", &part);
    let (mesh, problems) = served(&documents);

    assert_eq!(problems, []);
    assert_eq!(sent_to(&mesh, 80, "a.example", "/api/v1"), "far");
    assert_eq!(sent_to(&mesh, 80, "a.example", "/api/v2"), "404");
}

#[test]
fn what_does_not_fit_together_is_reported_by_line() {
    let no_gateway = istio(
        "VirtualService",
        "shop/a",
        &format!("{{hosts: [a.example], gateways: [mesh, gw, elsewhere/gw], http: [{}]}}", all("web")),
    );
    let (_, problems) = served(&(http("shop/gw", "'*'") + &no_gateway));
    let problems: Vec<_> =
        problems.into_iter().filter(|problem| problem.severity == Severity::Error).collect();
    assert_eq!(told(&problems), [("spec.gateways[2]", Severity::Error)]);
    assert!(problems[0].line.is_some() && problems[0].message.contains("no Gateway elsewhere/gw"));

    let hosts = virtual_service("shop/a", "a.example, b.example, 10.0.0.1", &all("web"));
    let (_, problems) = served(&(http("shop/gw", "a.example") + &hosts));
    let expected = [("spec.hosts[1]", Severity::Warning), ("spec.hosts[2]", Severity::Warning)];
    assert_eq!(told(&problems), expected);
    assert!(problems[0].message.contains("no server of Gateway.networking.istio.io shop/gw"));

    let nobody = http("shop/gw", "'*'").replace("ingressgateway", "elsewhere");
    let broken = virtual_service("shop/a", "'*'", &all("nowhere"));
    let (mesh, problems) = served(&(nobody + &broken));
    assert!(edge(&mesh).ports.is_empty());
    let mut fields = told(&problems);
    fields.sort();
    assert_eq!(
        fields,
        [("spec.http[0].route[0].destination.host", Severity::Error), ("spec.selector", Severity::Warning)]
    );
}

#[test]
fn an_older_listener_of_another_kind_keeps_its_host_names() {
    let (mesh, problems) =
        served(&(gateway(HTTP) + &http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &all("web"))));

    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "404");
    assert_eq!(told(&problems), [("spec.servers[0]", Severity::Error)]);
    let message = &problems[0].message;
    assert!(
        message.starts_with("Gateway shop/edge http has the same host names (*) at port 80"),
        "{message}"
    );
}

#[test]
fn another_namespace_takes_no_hosts_of_a_gateway_that_somebody_owns() {
    let theirs = |namespace: &str| {
        let taken =
            format!("{{hosts: [a.example], gateways: [gw], http: [{}]}}", all("web.shop.svc.cluster.local"));
        http(&format!("{namespace}/gw"), "a.example")
            + &istio("VirtualService", &format!("{namespace}/a"), &taken)
    };

    let owned = gateway(HTTP) + &super::route("shop", "api", "a.example", &to("api"));
    let (mesh, problems) = served(&(owned.clone() + &theirs("other")));
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "api");
    assert_eq!(told(&problems), [("spec.selector", Severity::Warning)]);
    assert!(problems[0].message.contains("move this to the namespace shop or istio-system"), "{problems:?}");

    let (mesh, problems) = served(&(owned + &theirs("istio-system")));
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web");
    assert_eq!(told(&problems), []);

    let (mesh, problems) = served(&theirs("other"));
    assert_eq!(sent_to(&mesh, 80, "a.example", "/"), "web");
    assert_eq!(told(&problems), []);
}

/// The names and rules of the opaque connections to `port` that ask for `name`, and what happens to TLS.
fn opaque(mesh: &Mesh, port: u16, name: Option<&str>) -> (Option<String>, Option<ListenerTls>) {
    let port = &edge(mesh).ports[&port];
    let Some(listener) = port.listener(name).map(|place| &port.listeners[place]) else { return (None, None) };
    let host = listener.virtual_host(name).map(|place| &listener.virtual_hosts[place].service);
    let connection = facts::Connection {
        layer: if name.is_some() { Layer::Tls } else { Layer::Tcp },
        server_name: name,
        ..facts::Connection::new(facts::Source::UNKNOWN, port.port)
    };
    let rule = host.and_then(|host| {
        let table = &edge(mesh).virtual_hosts[host].tcp;
        table.find(&connection).map(|found| table.rules[found].name.clone())
    });
    (rule, listener.tls.clone())
}

#[test]
fn tcp_and_tls_that_does_not_end_here_follow_their_own_routes() {
    let server = |port: u16, protocol: &str, more: &str| {
        format!(
            "{{port: {{number: {port}, name: p{port}, protocol: {protocol}}}, hosts: ['*.example'], {more}}}"
        )
    };
    let servers = [
        server(5000, "TCP", ""),
        server(443, "TLS", "tls: {mode: PASSTHROUGH}"),
        server(8443, "HTTPS", "tls: {mode: PASSTHROUGH}"),
    ];
    let to = "route: [{destination: {host: web}}]";
    let routes = format!(
        "tcp: [{{match: [{{port: 5001}}], {to}}}, {{match: [{{sourceLabels: {{istio: other}}}}], {to}}}, {{match: [{{port: 5000, sourceNamespace: shop}}], {to}}}], \
         tls: [{{match: [{{port: 443, sniHosts: [a.example]}}], {to}}}, {{match: [{{sniHosts: ['*.example'], gateways: [gw]}}], {to}}}]"
    );
    let documents = istio("Gateway", "shop/gw", &format!("{{servers: [{}]}}", servers.join(", ")))
        + &istio("VirtualService", "shop/a", &format!("{{hosts: ['*'], gateways: [gw], {routes}}}"));
    let (mesh, problems) = served(&documents);

    let unused = ["spec.tcp[0].match[0].port", "spec.tcp[1].match[0].sourceLabels"];
    let expected = ["spec.selector", unused[0], unused[1]].map(|field| (field, Severity::Warning));
    assert_eq!(told(&problems), expected, "every gateway serves it");
    let rule = |place: &str| Some(format!("VirtualService shop/a {place}"));
    assert_eq!(opaque(&mesh, 5000, None), (rule("tcp[2]"), None));
    let passed = Some(ListenerTls::Passthrough);
    assert_eq!(opaque(&mesh, 443, Some("a.example")), (rule("tls[0]"), passed.clone()));
    assert_eq!(opaque(&mesh, 443, Some("b.example")), (rule("tls[1]"), passed.clone()));
    assert_eq!(opaque(&mesh, 8443, Some("a.example")), (rule("tls[1]"), passed));
    assert_eq!(opaque(&mesh, 443, Some("a.example.org")), (None, None));
}

#[test]
fn a_virtual_service_at_many_hosts_has_its_rules_once_and_too_many_copies_are_refused() {
    let hosts = (0..40).map(|place| format!("h{place}.example.com")).collect::<Vec<_>>().join(", ");
    let large = |place| at(&format!("/{place}/{}", "x".repeat(10_000)), "web");
    let large = (0..120).map(large).collect::<Vec<_>>().join(", ");
    let small = http("shop/gw", "'*'") + &virtual_service("shop/a", &hosts, &at("/api", "api"));

    let (mesh, problems) = served(&small);
    assert_eq!(problems, []);
    let rules = edge(&mesh).virtual_hosts.values().flat_map(|service| service.routes.rules());
    let addresses: std::collections::BTreeSet<_> = rules.clone().map(Arc::as_ptr).collect();
    assert_eq!((rules.count(), addresses.len()), (40, 1));

    let more = hosts.replace("h", "i");
    let large = virtual_service("shop/b", &hosts.replace(".example", ".b.example"), &large)
        + &virtual_service("shop/c", &more, &large);
    let (mesh, problems) = served(&(small + &large));
    let [problem] = &problems[..] else { panic!("{}", problems.len()) };
    assert!(problem.message.starts_with("is not served at gateways"), "{}", problem.message);
    assert_eq!(&*problem.document.as_ref().unwrap().name, "c");
    assert_eq!(edge(&mesh).virtual_hosts.len(), 80, "those of the others");
}

#[test]
fn a_delegate_counts_among_the_copies_as_often_as_a_document_delegates_to_it() {
    let hosts = (0..200).map(|place| format!("h{place}.example.com")).collect::<Vec<_>>().join(", ");
    let part = format!("{{http: [{}]}}", at(&format!("/{}", "x".repeat(10_000)), "web"));
    let part = istio("VirtualService", "shop/part", &part);
    let told = |times: usize| {
        let routes = vec!["{delegate: {name: part}}"; times].join(", ");
        let (_, problems) =
            served(&(http("shop/gw", "'*'") + &virtual_service("shop/a", &hosts, &routes) + &part));
        problems.iter().filter(|problem| problem.message.starts_with("is not served at gateways")).count()
    };

    assert_eq!((told(1), told(50)), (0, 1));
}

#[test]
fn a_virtual_service_of_another_namespace_silences_no_gateway() {
    let silent = |namespace: &str| {
        let document =
            virtual_service(&format!("{namespace}/a"), "a.example", &all("web.shop.svc.cluster.local"));
        let off = "metadata: {annotations: {config.selvedge.io/access-log: 'off'}, ";
        let (mesh, problems) = served(&(http("shop/gw", "'*'") + &document.replacen("metadata: {", off, 1)));
        let (_, rule) = rule(&mesh, 80, "a.example", "/").unwrap();
        (
            rule.access_log.is_some(),
            told(&problems).into_iter().map(|(_, severity)| severity).collect::<Vec<_>>(),
        )
    };

    assert_eq!(silent("shop"), (true, Vec::new()));
    assert_eq!(silent("istio-system"), (true, Vec::new()));
    assert_eq!(silent("other"), (false, vec![Severity::NotActedOn]));
}

#[test]
fn who_leads_a_gateway_of_another_namespace_to_its_own_host_is_told() {
    let entry = |namespace: &str, spec: &str| {
        let spec = format!("{{hosts: [out.example.com], ports: [{{number: 80, name: http}}], {spec}}}");
        istio("ServiceEntry", &format!("{namespace}/out"), &spec)
    };
    let name = "apiVersion: v1\nkind: Service\nmetadata: {name: out, namespace: other}\n\
                spec: {type: ExternalName, externalName: localhost, ports: [{port: 80, name: http}]}\n---\n";
    let led = |document: &str, host: &str| -> Vec<String> {
        let route = virtual_service("shop/a", "a.example", &all(host));
        let (_, problems) = served(&(http("shop/gw", "'*'") + &route + document));
        let of_own_host = |told: &String| told.contains("on the host of whoever calls it");
        problems.into_iter().map(|problem| problem.message).filter(of_own_host).collect()
    };

    let at = |address: &str, resolution: &str| {
        format!("resolution: {resolution}, endpoints: [{{address: {address}}}]")
    };
    for spec in
        [at("127.0.0.1", "STATIC"), at("'::1'", "STATIC"), at("localhost", "DNS"), at("a.localhost", "DNS")]
    {
        let told = led(&entry("other", &spec), "out.example.com");
        assert!(told.len() == 1 && told[0].contains("the gateway shop/edge leads"), "{spec}: {told:?}");
        assert_eq!(led(&entry("shop", &spec), "out.example.com"), [""; 0], "its own namespace may: {spec}");
        assert_eq!(led(&entry("other", &spec), "web"), [""; 0], "nothing leads there: {spec}");
    }
    assert_eq!(led(name, "out.other.svc.cluster.local").len(), 1);
    assert_eq!(led(&entry("other", &at("192.0.2.1", "STATIC")), "out.example.com"), [""; 0]);
}

/// A document of `kind` that `shop/gw` may lead to, in the API group `group`.
fn backend(group: &str, kind: &str, name: &str, spec: &str) -> String {
    let (namespace, name) = name.split_once('/').unwrap();
    format!(
        "apiVersion: {group}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\n{spec}\n---\n"
    )
}

/// The documents that are told that they lead `shop/edge` where it should not go, each with its field, if a route of it names
/// `host`.
fn led_by(documents: &str, host: &str) -> Vec<String> {
    let route = virtual_service("shop/a", "a.example", &all(host));
    let (_, problems) = served(&(http("shop/gw", "'*'") + &route + documents));
    let is_told = |problem: &&Problem| problem.message.contains("the gateway shop/edge");
    let by = |problem: &Problem| format!("{} {}", problem.document.as_ref().unwrap(), problem.field);
    problems.iter().filter(is_told).map(by).collect()
}

#[test]
fn however_a_document_leads_a_gateway_to_its_own_host_it_is_told() {
    let workload = |namespace: &str, address: &str, more: &str| {
        let spec = format!("spec: {{address: {address}, labels: {{app: out{more}}}}}");
        backend("networking.istio.io/v1", "WorkloadEntry", &format!("{namespace}/w"), &spec)
    };
    let ports = "ports: [{port: 80, name: http}]";
    let service = |spec: &str| backend("v1", "Service", "other/out", &format!("spec: {{{spec}, {ports}}}"));
    let selecting = service("selector: {app: out}");
    let of_service = "out.other.svc.cluster.local";
    let entry = |spec: &str| {
        let spec = format!("{{hosts: [out.example.com], ports: [{{number: 80, name: http}}], {spec}}}");
        istio("ServiceEntry", "other/out", &spec)
    };
    let selected = entry("resolution: STATIC, workloadSelector: {labels: {app: out}}");
    let slice = "metadata: {name: out, namespace: other, labels: {kubernetes.io/service-name: out}}\n\
                 addressType: IPv4\nendpoints: [{addresses: [127.0.0.9]}]\nports: [{name: http, port: 80}]\n---\n";
    let slice = format!("apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n{slice}");

    for address in
        ["127.0.0.9", "'::1'", "0.0.0.0", "'64:ff9b::127.0.0.1'", "localhost.", "localhost.localdomain"]
    {
        let workload = workload("other", address, "");
        let by = ["WorkloadEntry other/w spec.address"];
        assert_eq!(led_by(&format!("{selecting}{workload}"), of_service), by, "{address}");
        assert_eq!(led_by(&format!("{selected}{workload}"), "out.example.com"), by, "{address}");
    }
    let meshed = workload("other", "127.0.0.9", ", security.istio.io/tlsMode: istio");
    assert_eq!(led_by(&format!("{selecting}{meshed}"), of_service), [""; 0], "it proves who it is");
    assert_eq!(
        led_by(&format!("{}{slice}", service("type: ClusterIP")), of_service),
        ["EndpointSlice other/out endpoints"]
    );
    let by_host = entry("resolution: DNS").replace("out.example.com", "localhost.localdomain");
    assert_eq!(led_by(&by_host, "localhost.localdomain"), ["ServiceEntry other/out spec"]);
}

#[test]
fn a_name_for_what_is_on_a_gateways_own_host_leads_it_there_as_well() {
    let entry = |namespace: &str| {
        let spec = "{hosts: [out.example.com], ports: [{number: 80, name: http}], resolution: STATIC, \
                    endpoints: [{address: 127.0.0.1}]}";
        istio("ServiceEntry", &format!("{namespace}/out"), spec)
    };
    let name = |of: &str, target: &str| {
        let spec = format!(
            "spec: {{type: ExternalName, externalName: {target}, ports: [{{port: 80, name: http}}]}}"
        );
        backend("v1", "Service", of, &spec)
    };
    let own = entry("shop");

    let by = led_by(&format!("{}{own}", name("other/n", "out.example.com")), "n.other.svc.cluster.local");
    assert_eq!(by, ["Service other/n spec.externalName"], "the gateway's own, by the name of another");
    let chain = name("other/n", "m.shop.svc.cluster.local") + &name("shop/m", "out.example.com");
    let by = led_by(&format!("{chain}{own}"), "n.other.svc.cluster.local");
    assert_eq!(by, ["Service other/n spec.externalName"]);
    let by = led_by(&(name("shop/m", "out.example.com") + &entry("other")), "m.shop.svc.cluster.local");
    assert_eq!(by, ["ServiceEntry other/out spec.endpoints"]);
    let by = led_by(&format!("{}{own}", name("shop/m", "out.example.com")), "m.shop.svc.cluster.local");
    assert_eq!(by, [""; 0], "all of it is its own");
}

#[test]
fn whoever_leads_a_gateway_to_credentials_is_told_that_it_does_not_go_there() {
    for address in ["169.254.169.254", "'fd00:ec2::254'", "metadata.google.internal", "100.100.100.200"] {
        let spec = format!(
            "{{hosts: [out.example.com], ports: [{{number: 80, name: http}}], resolution: DNS, endpoints: [{{address: {address}}}]}}"
        );
        let own = istio("ServiceEntry", "shop/out", &spec);
        assert_eq!(led_by(&own, "out.example.com"), ["ServiceEntry shop/out spec.endpoints"], "{address}");
    }
}

/// A `Gateway` of one server on port 80.
fn on_80(name: &str, server: &str) -> String {
    istio("Gateway", name, &format!("{{selector: {{istio: ingressgateway}}, servers: [{{{server}}}]}}"))
}

#[test]
fn a_younger_gateway_of_another_protocol_does_not_take_the_port_of_an_older_one() {
    let older = http("shop/gw", "'*'") + &virtual_service("shop/a", "'*'", &at("/api", "api"));
    let tls = "port: {number: 80, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ['*']";
    let opaque = "port: {number: 80, name: tcp, protocol: TCP}, hosts: ['*']";

    for server in [tls, opaque] {
        let (mesh, problems) = served(&format!("{older}{}", on_80("other/gw", server)));

        assert_eq!(sent_to(&mesh, 80, "a.example.com", "/api"), "api", "{server}");
        assert_eq!(told(&problems), [("spec.servers[0]", Severity::Error)], "{server}");
        assert_eq!(&*problems[0].document.as_ref().unwrap().namespace, "other");
    }
}

#[test]
fn all_that_a_port_of_another_protocol_keeps_out_are_told() {
    let tls = "port: {number: 80, name: tls, protocol: TLS}, tls: {mode: PASSTHROUGH}, hosts: ['*']";
    let younger = http("shop/gw", "a.example.com") + &http("other/gw", "b.example.com");

    let (_, problems) = served(&(on_80("shop/first", tls) + &younger));

    assert_eq!(told(&problems), [("spec.servers[0]", Severity::Error); 2]);
}

#[test]
fn a_younger_gateway_of_another_namespace_does_not_redirect_what_an_older_one_serves() {
    let redirecting = |name| {
        on_80(
            name,
            "port: {number: 80, name: http, protocol: HTTP}, tls: {httpsRedirect: true}, hosts: ['*']",
        )
    };
    let documents = http("shop/gw", "'*'") + &virtual_service("shop/a", "a.example.com", &all("api"));

    let (mesh, problems) = served(&(documents.clone() + &redirecting("other/gw")));
    assert_eq!(sent_to(&mesh, 80, "a.example.com", "/"), "api");
    assert!(rule(&mesh, 80, "b.example.com", "/").unwrap().1.filters.answer.is_some(), "nobody's");
    assert_eq!(told(&problems), [("spec.servers[0].tls.httpsRedirect", Severity::Error)]);

    let (mesh, problems) = served(&(documents + &redirecting("shop/other")));
    assert_eq!(problems, []);
    assert!(rule(&mesh, 80, "a.example.com", "/").unwrap().1.filters.answer.is_some(), "its own namespace's");
}

#[test]
fn a_host_that_two_namespaces_serve_is_reported_at_the_younger() {
    let documents = http("shop/gw", "'*'")
        + &virtual_service("shop/a", "a.example.com", &at("/api", "api"))
        + &virtual_service("shop/b", "a.example.com", &at("/web", "web"))
        + &virtual_service("other/c", "a.example.com", &at("/far", "far"));

    let (mesh, problems) = served(&documents);

    assert_eq!(sent_to(&mesh, 80, "a.example.com", "/far"), "far");
    assert_eq!(told(&problems), [("spec.hosts", Severity::Warning)]);
    assert_eq!(&*problems[0].document.as_ref().unwrap().name, "c");
    assert!(problems[0].message.contains("shop/a"), "{}", problems[0].message);
}
