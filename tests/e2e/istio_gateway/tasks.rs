//! Istio's tasks "Egress Gateways" and "TCP Traffic Shifting", as their pages have them.

use std::net::SocketAddr;

use selvedge_demo::{call, workload::Spec};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{gateway, istio, mesh_of, routes, version};
use crate::SELVEDGE;

/// A server outside of the mesh, which answers each request with its head.
async fn outside() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && matches!(stream.read_buf(&mut head).await, Ok(1..)) {}
                let status =
                    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", head.len());
                let _ = stream.write_all(&[status.as_bytes(), &head].concat()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn connections_are_shifted_from_one_version_to_the_other() {
    let subsets = "subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]";
    let documents = |v1: u32, v2: u32| {
        let to = |subset: &str, weight: u32| {
            format!(
                "{{destination: {{host: tcp-echo, port: {{number: 9000}}, subset: {subset}}}, weight: {weight}}}"
            )
        };
        let route =
            format!("tcp: [{{match: [{{port: 31400}}], route: [{}, {}]}}]", to("v1", v1), to("v2", v2));
        gateway("edge", 31400, "TCP", "hosts: ['*']")
            + &istio("DestinationRule", "tcp-echo", &format!("{{host: tcp-echo, {subsets}}}"))
            + &routes("tcp-echo", "*", &route)
    };
    let (mesh, gateway) = mesh_of(&documents(100, 0), &[31400]).await;
    let of_v2 = async |connections: usize| {
        let mut count = 0;
        for _ in 0..connections {
            count += usize::from(version(&gateway, 31400, call::to("echo", "/")).await == "v2");
        }
        count
    };
    assert_eq!(of_v2(20).await, 0);

    mesh.write("edge.yaml", &documents(80, 20)).unwrap();
    poll(SOON, "some go to the other version", async || {
        let count = of_v2(100).await;
        // Twenty, give or take; it is less than five once in a hundred thousand times.
        if (5..=40).contains(&count) { Ok(()) } else { Err(count.to_string()) }
    })
    .await;

    mesh.write("edge.yaml", &documents(0, 100)).unwrap();
    poll(SOON, "all go there", async || {
        let count = of_v2(20).await;
        if count == 20 { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn what_leaves_the_mesh_for_a_host_goes_by_way_of_an_egress_gateway() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let server = outside().await;
    let entry = format!(
        "{{hosts: [edition.example], ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {}}}], resolution: STATIC, \
         endpoints: [{{address: {}}}]}}",
        server.port(),
        server.ip()
    );
    mesh.write("outside.yaml", &istio("ServiceEntry", "edition", &entry)).unwrap();
    let call = || call::to("edition.example", "/politics");
    let asked = async || {
        let answer = mesh.workload("caller").call(call()).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(answer.text()) } else { Err(answer.summary()) }
    };
    let direct = poll(SOON, "the server is called", asked).await;
    assert!(!direct.contains("x-forwarded-for"), "{direct}");

    let labels = "istio: egressgateway";
    let gateway = Gateway::start_with_labels(&mesh, "default/egress", &[80], labels).await;
    let service = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: istio-egressgateway}}\nspec: {{selector: {{{labels}}}, ports: [{{name: \
         http, port: 80, targetPort: {}}}]}}\n---\n",
        gateway.at(80).port()
    );
    let host = "istio-egressgateway.default.svc.cluster.local";
    let task = service
        + &istio(
            "Gateway",
            "istio-egressgateway",
            &format!(
                "{{selector: {{{labels}}}, servers: [{{port: {{number: 80, name: http, protocol: HTTP}}, hosts: \
                 [edition.example]}}]}}"
            ),
        )
        + &istio(
            "DestinationRule",
            "egressgateway-for-edition",
            &format!("{{host: {host}, subsets: [{{name: edition}}]}}"),
        )
        + &istio(
            "VirtualService",
            "edition-through-egress-gateway",
            &format!(
                "{{hosts: [edition.example], gateways: [istio-egressgateway, mesh], http: [{{match: [{{gateways: [mesh], port: \
                 80}}], route: [{{destination: {{host: {host}, subset: edition, port: {{number: 80}}}}, weight: 100}}]}}, \
                 {{match: [{{gateways: [istio-egressgateway], port: 80}}], route: [{{destination: {{host: edition.example, \
                 port: {{number: 80}}}}, weight: 100}}]}}]}}"
            ),
        );
    mesh.write("task.yaml", &task).unwrap();

    let through = poll(SOON, "requests go through the gateway", async || {
        let text = asked().await?;
        if text.contains("x-forwarded-for") { Ok(text) } else { Err(text) }
    })
    .await;
    assert!(through.starts_with("GET /politics HTTP/1.1\r\n"), "{through}");
    assert!(through.contains("\r\nhost: edition.example\r\n"), "{through}");
    let metrics = call::send(gateway.admin, call::to("gateway", "/metrics")).await.unwrap().text();
    let counted = metrics.lines().any(|line| {
        line.starts_with("selvedge_outbound_requests_total")
            && line.contains("destination_service=\"edition.example:80\"")
    });
    assert!(counted, "{metrics}");
}
