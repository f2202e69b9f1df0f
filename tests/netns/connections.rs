//! Routes and limits of opaque connections: to a clusterIP, by subset, changed live, and no more than allowed.

use std::{net::SocketAddr, time::Duration};

use selvedge_demo::{call, workload::sum_of};
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    mesh::{Mesh, Workload, client, server},
    network::Kind,
    rights::netns,
};

/// Where the service is called: no address of any workload's.
const SERVICE: &str = "10.99.0.1:7000";

/// How long a greeting may take.
const LIMIT: Duration = Duration::from_secs(10);

const DOCUMENTS: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: 10.99.0.1, selector: {app: db}, ports: [{name: data, port: 7000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: default}
spec:
  host: db
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"#;

/// A `VirtualService` that sends all connections to one subset.
fn all_to(subset: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: db, namespace: default}}\n\
         spec: {{hosts: [db], tcp: [{{route: [{{destination: {{host: db, subset: {subset}}}}}]}}]}}\n"
    )
}

/// Greets whoever connects with the workload's name, and then waits for them to leave.
fn greet(workload: &Workload) {
    let listener = workload.namespace().inside(|| std::net::TcpListener::bind("0.0.0.0:7000")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let name = workload.spec.name.clone();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let name = name.clone();
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.ok();
                tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.ok();
            });
        }
    });
}

/// A connection of the client's to the service, and who greeted it; an error if it was cut off.
async fn connect(mesh: &Mesh) -> std::io::Result<(TcpStream, String)> {
    let address: SocketAddr = SERVICE.parse().unwrap();
    let opened = mesh.workload("client").namespace().run(move || async move {
        timeout(LIMIT, TcpStream::connect(address)).await.unwrap().and_then(TcpStream::into_std)
    });
    let mut stream = TcpStream::from_std(opened.await?)?;
    let mut name = [0; 4];
    timeout(LIMIT, stream.read_exact(&mut name)).await.expect("a greeting or an end")?;
    Ok((stream, String::from_utf8_lossy(&name).into_owned()))
}

/// Waits until new connections are greeted by `name`.
async fn greeted_by(mesh: &Mesh, name: &str) {
    poll(SOON, &format!("connections go to {name}"), async || match connect(mesh).await {
        Ok((_, found)) if found == name => Ok(()),
        Ok((_, found)) => Err(found),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

async fn metrics(mesh: &Mesh) -> String {
    let client = mesh.workload("client");
    let admin = client.loopback(4191);
    client.call(admin, call::to(&admin.to_string(), "/metrics")).await.unwrap().text()
}

/// Mesh connections that the client's sidecar has opened.
async fn opened(mesh: &Mesh) -> f64 {
    sum_of(&metrics(mesh).await, "selvedge_outbound_connections_total").unwrap_or_default()
}

async fn refused(mesh: &Mesh) -> f64 {
    let metrics = metrics(mesh).await;
    let overflow = metrics.lines().filter(|line| line.contains("error_type=\"overflow\""));
    let overflow: String = overflow.flat_map(|line| [line, "\n"]).collect();
    sum_of(&overflow, "selvedge_outbound_tcp_connections_refused_total").unwrap_or_default()
}

async fn routes_and_limits() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("db.yaml", DOCUMENTS);
    mesh.write("route.yaml", &all_to("v2"));
    mesh.add([client("client"), server("db-1", "db", "v1"), server("db-2", "db", "v2")]).await;
    greet(mesh.workload("db-1"));
    greet(mesh.workload("db-2"));

    greeted_by(&mesh, "db-2").await;
    for _ in 0..10 {
        // The one before counts until the sidecar has heard that it has ended.
        greeted_by(&mesh, "db-2").await;
    }
    mesh.write("route.yaml", &all_to("v1"));
    greeted_by(&mesh, "db-1").await;

    // One after the other, they share mesh connections: no more than there may be at once.
    let before = opened(&mesh).await;
    for _ in 0..20 {
        greeted_by(&mesh, "db-1").await;
    }
    let more = opened(&mesh).await - before;
    assert!(more <= 2.0, "{more} mesh connections for 20 of the app's");

    // One whose sidecar has gone is not used again.
    mesh.kill_sidecar("db-1").await;
    assert!(connect(&mesh).await.is_err(), "there is no sidecar");
    mesh.restart_sidecar("db-1").await;
    connect(&mesh).await.expect("a new mesh connection");

    // Two at once and no third, until one of them ends.
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(connect(&mesh).await.ok());
    }
    let before = refused(&mesh).await;
    assert!(connect(&mesh).await.is_err(), "a third connection");
    assert_eq!(refused(&mesh).await, before + 1.0);
    held.pop();
    greeted_by(&mesh, "db-1").await;
}

#[test]
fn opaque_connections_follow_routes_and_keep_to_limits() {
    netns(routes_and_limits);
}

/// A server's host that vanished while a mesh connection to it was kept for the next of the app's.
async fn a_kept_connection_to_nobody() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("db.yaml", DOCUMENTS);
    mesh.add([client("client").flags(&["--tcp-keepalive", "3s"]), server("db-1", "db", "v1")]).await;
    greet(mesh.workload("db-1"));
    greeted_by(&mesh, "db-1").await;
    greeted_by(&mesh, "db-1").await;
    // What was silent for a second is doubted. Nothing tells from outside that it was.
    tokio::time::sleep(Duration::from_secs(1)).await;

    mesh.network.cut(&mesh.workload("db-1").place);
    let before = opened(&mesh).await;
    assert!(connect(&mesh).await.is_err(), "cut off, and not left to wait");
    assert_eq!(opened(&mesh).await, before, "it was a kept connection that was tried");

    mesh.network.heal(&mesh.workload("db-1").place);
    greeted_by(&mesh, "db-1").await;
}

#[test]
fn a_kept_connection_to_a_host_that_vanished_is_given_up_soon() {
    netns(a_kept_connection_to_nobody);
}

/// Whoever's sidecar is gone is left out, and no client hears of it: nothing was sent to him yet.
async fn ejection() {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    let eject = "trafficPolicy: {outlierDetection: {consecutiveGatewayErrors: 2, baseEjectionTime: 300s, \
                 maxEjectionPercent: 100}}";
    mesh.write(
        "db.yaml",
        &DOCUMENTS.replace("trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}", eject),
    );
    mesh.add([client("client"), server("db-1", "db", "v1"), server("db-2", "db", "v2")]).await;
    greet(mesh.workload("db-1"));
    greet(mesh.workload("db-2"));
    greeted_by(&mesh, "db-1").await;

    mesh.kill_sidecar("db-1").await;
    let client = mesh.workload("client");
    poll(SOON, "db-1 is ejected", async || {
        let (_, name) = connect(&mesh).await.map_err(|error| format!("a client was told: {error}"))?;
        assert_eq!(name, "db-2");
        let admin = client.loopback(4191);
        let endpoints = client.call(admin, call::to(&admin.to_string(), "/endpoints")).await;
        let endpoints: Vec<serde_json::Value> =
            endpoints.and_then(|answer| answer.json()).map_err(|error| error.to_string())?;
        let out: Vec<_> = endpoints.iter().filter(|endpoint| endpoint["ejected"] == true).collect();
        match out[..] {
            [one] if one["workload"] == "default/db-1" => Ok(()),
            _ => Err(format!("{endpoints:?}")),
        }
    })
    .await;
}

#[test]
fn an_endpoint_that_cannot_be_connected_to_is_ejected() {
    netns(ejection);
}
