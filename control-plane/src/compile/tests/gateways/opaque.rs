//! Listeners of TLS and of TCP, with the routes for connections that are attached to them.

use selvedge_model::gateway::{Carries, ListenerTls};

use super::*;

const PASSTHROUGH: &str =
    "{name: tls, port: 443, protocol: TLS, hostname: '*.example', tls: {mode: Passthrough}}";
const TCP: &str = "{name: tcp, port: 5432, protocol: TCP}";

fn connections(kind: &str, name: &str, more: &str, service: &str) -> String {
    let parent = "parentRefs: [{name: edge}]";
    document(kind, "shop", name, &format!("{{{parent}, {more}rules: [{}]}}", to(service)))
}

/// The rule of a connection to `port` whose TLS asks for `name`, and the first label of the host that it goes to.
fn taken(mesh: &Mesh, port: u16, name: Option<&str>) -> Option<(String, String)> {
    let gateway = edge(mesh);
    let port = &gateway.ports[&port];
    let listener = &port.listeners[port.listener(name)?];
    let host = &listener.virtual_hosts[listener.virtual_host(name)?];
    let service = &gateway.virtual_hosts[&host.service];
    let connection = facts::Connection::new(facts::Source::UNKNOWN, port.port);
    let rule = &service.tcp.rules[service.tcp.find(&connection)?];
    let backend = &service.backends[rule.backends[0].backend];
    let host = match backend.broken {
        Some(_) => "broken",
        None => backend.name.service.host.split('.').next().unwrap(),
    };
    Some((rule.name.clone(), host.to_owned()))
}

fn of(rule: &str, service: &str) -> Option<(String, String)> {
    Some((rule.to_owned(), service.to_owned()))
}

#[test]
fn a_listener_of_tls_passes_connections_on_by_the_name_that_they_ask_for() {
    let routes = connections("TLSRoute", "web", "hostnames: [a.example, a.example.org], ", "web")
        + &connections("TLSRoute", "api", "", "api");
    let mesh = mesh_of(&(gateway(PASSTHROUGH) + &routes));

    assert_eq!(edge(&mesh).ports[&443].carries, Carries::Tls);
    assert_eq!(edge(&mesh).ports[&443].listeners[0].tls, Some(ListenerTls::Passthrough));
    assert_eq!(taken(&mesh, 443, Some("a.example")), of("TLSRoute shop/web", "web"));
    assert_eq!(taken(&mesh, 443, Some("b.example")), of("TLSRoute shop/api", "api"));
    assert_eq!(taken(&mesh, 443, Some("a.example.org")), None, "it is not the listener's");
    assert_eq!(taken(&mesh, 443, None), None);
}

#[test]
fn of_routes_of_one_name_that_counts_whose_own_host_name_is_closest() {
    let listener = PASSTHROUGH.replace("'*.example'", "abc.example.com");
    let routes = connections("TLSRoute", "older", "hostnames: ['*.example.com'], ", "web")
        + &connections("TLSRoute", "newer", "hostnames: [abc.example.com], ", "api");
    let (mesh, problems) = compiled(&format!("{EDGE}{}{routes}", gateway(&listener)));

    assert_eq!(taken(&mesh, 443, Some("abc.example.com")), of("TLSRoute shop/newer", "api"));
    let [told] = errors(&problems).try_into().unwrap();
    assert!(told.contains("has no effect for abc.example.com: TLSRoute shop/newer"), "{told}");
}

#[test]
fn a_listener_of_tcp_has_one_route_and_the_others_are_told() {
    let routes = connections("TCPRoute", "first", "", "web") + &connections("TCPRoute", "second", "", "api");
    let (mesh, problems) = compiled(&format!("{EDGE}{}{routes}", gateway(TCP)));

    assert_eq!(edge(&mesh).ports[&5432].carries, Carries::Tcp);
    assert_eq!(taken(&mesh, 5432, None), of("TCPRoute shop/first", "web"));
    let [told] = errors(&problems).try_into().unwrap();
    assert!(told.starts_with("spec.parentRefs[0]: has no effect for *: TCPRoute shop/first"), "{told}");
}

#[test]
fn listeners_of_one_port_agree_in_what_clients_begin_with() {
    let tls = PASSTHROUGH.replace("443", "80");
    let (mesh, problems) = compiled(&format!("{EDGE}{}", gateway(&format!("{HTTP}, {tls}"))));

    assert!(edge(&mesh).ports.is_empty());
    let [first, second] = errors(&problems).try_into().unwrap();
    assert!(
        first.starts_with("spec.listeners[0]: port 80 also carries TLS for Gateway shop/edge"),
        "{first}"
    );
    assert!(
        second.starts_with("spec.listeners[1]: port 80 also carries HTTP for Gateway shop/edge"),
        "{second}"
    );
}

#[test]
fn what_connections_cannot_have_is_reported() {
    let far = connections("TCPRoute", "far", "", "web").replace("name: web,", "name: far, namespace: other,");
    let (mesh, problems) = compiled(&format!("{EDGE}{}{far}", gateway(TCP)));
    assert_eq!(taken(&mesh, 5432, None), of("TCPRoute shop/far", "broken"));
    assert!(
        errors(&problems)[0].contains("no ReferenceGrant in other lets a TCPRoute of shop"),
        "{problems:?}"
    );

    let at_http = connections("TLSRoute", "web", "", "web");
    let (_, problems) = compiled(&format!("{EDGE}{}{at_http}", gateway(HTTP)));
    assert!(errors(&problems)[0].contains("takes no TLSRoute"), "{problems:?}");

    let named = TCP.replace("protocol", "hostname: a.example, protocol");
    let (_, problems) = compiled(&format!("{EDGE}{}", gateway(&named)));
    assert!(problems[0].message.contains("TCP names no host"), "{problems:?}");

    let passed = PASSTHROUGH.replace("TLS", "HTTPS");
    let (_, problems) = compiled(&format!("{EDGE}{}", gateway(&passed)));
    assert!(errors(&problems)[0].contains("Passthrough is for the protocol TLS"), "{problems:?}");
}
