//! Which way opaque connections take: by the name that their TLS asks for, by routes of Istio's and of Gateway
//! API's, and by who opens them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use selvedge_certs::tls::provider;
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::{
    mesh::{Mesh, Workload, client, server},
    namespace::Namespace,
    network::Kind,
    rights::netns,
};

/// Where the service `db` is called: no address of any workload's.
const SERVICE: &str = "10.99.0.1:7000";

/// How long a server may take to say its name.
const LIMIT: Duration = Duration::from_secs(10);

/// `db` is both versions; `db-v1` and `db-v2` are one each.
const SERVICES: &str = r#"
apiVersion: v1
kind: Service
metadata: {name: db, namespace: default}
spec: {clusterIP: 10.99.0.1, selector: {app: db}, ports: [{name: data, port: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: db-v1, namespace: default}
spec: {selector: {app: db, version: v1}, ports: [{name: data, port: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: db-v2, namespace: default}
spec: {selector: {app: db, version: v2}, ports: [{name: data, port: 7000}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: default}
spec:
  host: db
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
"#;

/// A `VirtualService` of `db` with these lists of routes.
fn virtual_service(routes: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: db, namespace: default}}\n\
         spec:\n  hosts: [db]\n{routes}"
    )
}

/// A route of Gateway API's to a whole service.
fn gateway_route(kind: &str, name: &str, hostnames: &str, backends: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1alpha2\nkind: {kind}\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  parentRefs: [{{group: \"\", kind: Service, name: db, port: 7000}}]\n{hostnames}\
         \x20 rules: [{{backendRefs: [{backends}]}}]\n"
    )
}

async fn mesh() -> Mesh {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("db.yaml", SERVICES);
    mesh.write("route.yaml", &virtual_service("  tcp: [{route: [{destination: {host: gone}}]}]\n"));
    mesh.add([
        client("client"),
        client("other"),
        client("visitor").namespace("elsewhere"),
        server("db-1", "db", "v1"),
        server("db-2", "db", "v2"),
    ])
    .await;
    for name in ["db-1", "db-2"] {
        say_name(mesh.workload(name));
    }
    // So that it shows when a test's own routes have arrived.
    for from in ["client", "other", "visitor"] {
        soon_refused(&mesh, from, plain()).await;
    }
    mesh
}

/// Listens in a workload, and says its name in capitals, which nobody else does, to whoever has said something.
pub(crate) fn say_name(workload: &Workload) {
    say(workload.namespace(), &workload.spec.name);
}

/// The same with another name, and wherever it is.
pub(crate) fn say(namespace: &Namespace, name: &str) {
    let listener = namespace.inside(|| std::net::TcpListener::bind("0.0.0.0:7000")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let name = name.to_uppercase();
    tokio::spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let name = name.clone();
            tokio::spawn(async move {
                let mut heard = [0; 5];
                stream.read_exact(&mut heard).await?;
                stream.write_all(name.as_bytes()).await
            });
        }
    });
}

/// A ClientHello that asks for `name`, as TLS clients send it.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = name.to_owned().try_into().unwrap();
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

/// Who answers a connection of `from`'s to the service that begins with these bytes.
async fn answers(mesh: &Mesh, from: &str, begin: Vec<u8>) -> std::io::Result<String> {
    answers_at(mesh, from, SERVICE.parse().unwrap(), begin).await
}

/// The same at any address.
pub(crate) async fn answers_at(
    mesh: &Mesh,
    from: &str,
    address: SocketAddr,
    begin: Vec<u8>,
) -> std::io::Result<String> {
    let exchange = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&begin).await?;
        let mut name = [0; 4];
        timeout(LIMIT, stream.read_exact(&mut name)).await??;
        Ok(String::from_utf8_lossy(&name).to_lowercase())
    };
    mesh.workload(from).namespace().run(exchange).await
}

/// Waits until a change has arrived at `from`'s sidecar: `name` answers.
async fn soon_answers(mesh: &Mesh, from: &str, begin: Vec<u8>, name: &str) {
    poll(SOON, &format!("{name} answers {from}"), async || match answers(mesh, from, begin.clone()).await {
        Ok(found) if found == name => Ok(()),
        Ok(found) => Err(found),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

/// Waits until `from`'s connections that begin so are refused.
async fn soon_refused(mesh: &Mesh, from: &str, begin: Vec<u8>) {
    poll(SOON, &format!("{from} is refused"), async || match answers(mesh, from, begin.clone()).await {
        Ok(name) => Err(name),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error.to_string()),
    })
    .await;
}

/// Bytes that are no HTTP and no TLS.
pub(crate) fn plain() -> Vec<u8> {
    b"\x00\x01\x02\x03\x04".to_vec()
}

async fn by_server_name() {
    let mesh = mesh().await;
    mesh.write(
        "route.yaml",
        &virtual_service(
            "  tls:\n\
             \x20 - match: [{port: 7000, sniHosts: [one.test]}]\n\
             \x20   route: [{destination: {host: db, subset: v1}}]\n\
             \x20 - match: [{port: 7000, sniHosts: [\"*.test\"]}]\n\
             \x20   route: [{destination: {host: db, subset: v2}}]\n\
             \x20 tcp:\n\
             \x20 - route: [{destination: {host: db, subset: v1}}]\n",
        )
        .replace("hosts: [db]", "hosts: [db, \"*.test\"]"),
    );

    soon_answers(&mesh, "client", hello("two.test"), "db-2").await;
    for _ in 0..10 {
        assert_eq!(answers(&mesh, "client", hello("one.test")).await.unwrap(), "db-1");
        assert_eq!(answers(&mesh, "client", hello("two.test")).await.unwrap(), "db-2");
        assert_eq!(answers(&mesh, "client", plain()).await.unwrap(), "db-1");
    }
    // Where there are routes for names, a name that none of them has goes nowhere.
    soon_refused(&mesh, "client", hello("elsewhere.example")).await;

    mesh.write(
        "route.yaml",
        &(gateway_route("TLSRoute", "one", "  hostnames: [one.test]\n", "{name: db-v2, port: 7000}")
            + &gateway_route("TLSRoute", "two", "  hostnames: [\"*.test\"]\n", "{name: db-v1, port: 7000}")),
    );
    soon_answers(&mesh, "client", hello("one.test"), "db-2").await;
    for _ in 0..10 {
        assert_eq!(answers(&mesh, "client", hello("one.test")).await.unwrap(), "db-2");
        assert_eq!(answers(&mesh, "client", hello("two.test")).await.unwrap(), "db-1");
    }
    soon_refused(&mesh, "client", hello("elsewhere.example")).await;
}

async fn by_weight() {
    let mesh = mesh().await;
    let weights = "{name: db-v1, port: 7000, weight: 0}, {name: db-v2, port: 7000, weight: 7}";
    mesh.write("route.yaml", &gateway_route("TCPRoute", "db", "", weights));
    soon_answers(&mesh, "client", plain(), "db-2").await;
    for _ in 0..20 {
        assert_eq!(answers(&mesh, "client", plain()).await.unwrap(), "db-2");
    }

    let weights = "{name: db-v1, port: 7000, weight: 3}, {name: db-v2, port: 7000, weight: 1}";
    mesh.write("route.yaml", &gateway_route("TCPRoute", "db", "", weights));
    soon_answers(&mesh, "client", plain(), "db-1").await;
    let mut first = 0;
    for _ in 0..200 {
        first += i32::from(answers(&mesh, "client", plain()).await.unwrap() == "db-1");
    }
    // 150 of 200, give or take 4.5 standard deviations.
    assert!((122..=178).contains(&first), "{first} of 200 went to the backend with three quarters");

    // A backend that is nowhere refuses its share, and nobody else gets it.
    mesh.write("route.yaml", &gateway_route("TCPRoute", "db", "", "{name: gone, port: 7000}"));
    soon_refused(&mesh, "client", plain()).await;
}

async fn by_client() {
    let mesh = mesh().await;
    mesh.write(
        "route.yaml",
        &virtual_service(
            "  tcp:\n\
             \x20 - match: [{sourceLabels: {app: other}}, {sourceNamespace: elsewhere}]\n\
             \x20   route: [{destination: {host: db, subset: v2}}]\n\
             \x20 - match: [{sourceNamespace: default}]\n\
             \x20   route: [{destination: {host: db, subset: v1}}]\n",
        ),
    );

    for (from, name) in [("other", "db-2"), ("visitor", "db-2"), ("client", "db-1")] {
        soon_answers(&mesh, from, plain(), name).await;
    }
    for _ in 0..10 {
        for (from, name) in [("other", "db-2"), ("visitor", "db-2"), ("client", "db-1")] {
            assert_eq!(answers(&mesh, from, plain()).await.unwrap(), name, "to {from}");
        }
    }
}

#[test]
fn an_apps_own_tls_goes_where_its_server_name_is_routed() {
    netns(by_server_name);
}

#[test]
fn a_tcp_route_splits_connections_by_weight() {
    netns(by_weight);
}

#[test]
fn connections_go_where_routes_for_their_client_say() {
    netns(by_client);
}
