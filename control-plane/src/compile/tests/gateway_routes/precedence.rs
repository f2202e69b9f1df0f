//! Which route decides: of several kinds on a port, and of a client's own namespace.

use super::{super::*, Asked, ECHO, HOST, OF_ECHO, document, http, mesh_of, one, sent_to, to};
use crate::problem::Detached;

#[test]
fn a_route_is_for_the_ports_that_its_parents_name_by_number_or_name() {
    let all = [80, 8080, 7070];
    for (parent, expected) in [
        ("{group: \"\", kind: Service, name: echo, port: 80}", vec![80]),
        ("{group: core, kind: Service, name: echo, sectionName: http-alt}", vec![8080]),
        ("{group: \"\", kind: Service, name: echo, sectionName: http, port: 80}", vec![80]),
        ("{group: \"\", kind: Service, name: echo}", all.to_vec()),
        (
            "{group: \"\", kind: Service, name: echo, port: 80}, {group: \"\", kind: Service, name: echo, port: 7070}",
            vec![80, 7070],
        ),
    ] {
        let spec = format!("{{parentRefs: [{parent}], rules: [{{{}}}]}}", to("echo-v1"));
        let mesh = mesh_of(&document("HTTPRoute", "mesh", "ports", &spec));

        let follow = |port: &u16| sent_to(&mesh, "mesh", *port, &Asked::get("/")) == one("echo-v1");
        assert_eq!(all.into_iter().filter(follow).collect::<Vec<_>>(), expected, "{parent}");
    }
}

#[test]
fn a_consumers_route_beats_the_producers_for_its_own_clients_alone() {
    let producer = http("mesh", "producer", &format!("[{{{}}}]", to("echo-v1")));
    let consumer = http("consumer", "own", &format!("[{{{}}}]", to("echo-v2")));
    for text in [format!("{producer}{consumer}"), format!("{consumer}{producer}")] {
        let mesh = mesh_of(&text);

        for (client, expected) in [("mesh", "echo-v1"), ("other", "echo-v1"), ("consumer", "echo-v2")] {
            assert_eq!(sent_to(&mesh, client, 80, &Asked::get("/")), one(expected), "{client}");
        }
    }
    let alone = mesh_of(&consumer);
    assert_eq!(sent_to(&alone, "mesh", 80, &Asked::get("/")), one("echo"));
    assert_eq!(sent_to(&alone, "consumer", 80, &Asked::get("/")), one("echo-v2"));
}

#[test]
fn of_several_kinds_on_a_port_one_decides_and_the_others_are_told() {
    let http = http("mesh", "web", &format!("[{{{}}}]", to("echo-v1")));
    let grpc =
        document("GRPCRoute", "mesh", "calls", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let tcp =
        document("TCPRoute", "mesh", "bytes", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let istio = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: old, namespace: mesh}\n\
         spec: {hosts: [echo], http: [{route: [{destination: {host: echo-v2}}]}]}\n---\n";
    let told = |problems: &[Problem], kind: &str| {
        let mut own = problems.iter().filter(|problem| &*problem.document.as_ref().unwrap().kind == kind);
        own.find(|problem| problem.message.contains("echo.mesh.svc.cluster.local:80:")).cloned()
    };

    let lost = |why| Fault::Parent { index: 0, why };
    let (mesh, problems) = compiled(&format!("{ECHO}{http}{grpc}"));
    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), one("echo-v2"));
    let loser = told(&problems, "HTTPRoute").unwrap();
    assert_eq!(
        (loser.field.as_str(), loser.fault),
        ("spec.parentRefs[0]", lost(Detached::Overruled)),
        "{loser}"
    );

    let (mesh, problems) = compiled(&format!("{ECHO}{istio}{http}"));
    assert_eq!(sent_to(&mesh, "mesh", 80, &Asked::get("/")), one("echo-v1"));
    assert_eq!(told(&problems, "VirtualService").unwrap().fault, Fault::Overruled);

    // What is spoken on 6000 shows only when it is spoken.
    let (mesh, problems) = compiled(&format!("{ECHO}{tcp}{http}"));
    let overruled = |problem: &Problem| {
        problem.fault == lost(Detached::OverruledInPart) && problem.message.contains("cluster.local:6000:")
    };
    assert!(problems.iter().any(overruled), "{problems:?}");
    assert_eq!(service(&mesh, HOST, 6000, "mesh").tcp.rules[0].name, "default");
    assert_eq!(service(&mesh, HOST, 9090, "mesh").tcp.rules[0].name, "TCPRoute mesh/bytes");
}

#[test]
fn on_one_port_grpc_goes_before_http_before_tls_before_tcp() {
    let of_6000 = "parentRefs: [{group: \"\", kind: Service, name: echo, namespace: mesh, port: 6000}]";
    let route = |kind: &str, namespace: &str| {
        let spec = format!("{{{of_6000}, rules: [{{{}}}]}}", to("echo-v1"));
        document(kind, namespace, &kind.to_lowercase(), &spec)
    };
    let losers = |text: &str| {
        let (_, problems) = compiled(&format!("{ECHO}{text}"));
        let lost = |problem: &Problem| problem.fault == Fault::Parent { index: 0, why: Detached::Overruled };
        assert!(problems.iter().all(lost), "{problems:?}");
        let kinds: Vec<String> =
            problems.iter().map(|problem| problem.document.as_ref().unwrap().to_string()).collect();
        kinds
    };

    let ranked = ["GRPCRoute", "HTTPRoute", "TLSRoute", "TCPRoute"];
    for (place, winner) in ranked.into_iter().enumerate() {
        for loser in &ranked[place + 1..] {
            let both = route(loser, "mesh") + &route(winner, "mesh");
            assert_eq!(losers(&both), [format!("{loser} mesh/{}", loser.to_lowercase())], "{winner}");
        }
    }
    let all: String = ranked.iter().map(|kind| route(kind, "mesh")).collect();
    assert_eq!(losers(&all).len(), 3);

    // What clients of one namespace follow is nothing that the service's own routes would lose by.
    let foreign = route("GRPCRoute", "consumer") + &route("TCPRoute", "mesh");
    assert_eq!(losers(&foreign), [""; 0]);
}

#[test]
fn a_consumers_route_of_connections_beats_the_producers_of_requests() {
    let consumer =
        document("TCPRoute", "consumer", "own", &format!("{{{OF_ECHO}, rules: [{{{}}}]}}", to("echo-v2")));
    let producer = http("mesh", "producer", &format!("[{{{}}}]", to("echo-v1")));

    let (mesh, problems) = compiled(&format!("{ECHO}{consumer}{producer}"));

    assert_eq!(problems, []);
    let names = |client| {
        let rules = &service(&mesh, HOST, 6000, client).tcp.rules;
        rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names("consumer"), ["TCPRoute consumer/own"]);
    assert_eq!(names("mesh"), ["default"]);
    assert_eq!(sent_to(&mesh, "mesh", 6000, &Asked::get("/")), one("echo-v1"));
}
