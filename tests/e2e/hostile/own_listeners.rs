//! Nothing is carried to a listener of ours, however it is named, and nothing goes round in circles.
//!
//! What only this host may do at an admin port, a proxy on this host could do for anybody who may send it requests.

mod circles;

use std::net::SocketAddr;

use http::Method;
use selvedge_demo::{
    call::{self, Answer},
    cluster::START_LIMIT,
    workload::Spec,
};
use selvedge_tests::{Mesh, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::SOON;
use crate::{BOTH_VERSIONS, SELVEDGE};

/// A client whose sidecar listens on every address, a neighbour, and their control plane, all on this host.
struct Scene {
    mesh: Mesh,
    /// The client's sidecar, by its ports.
    outbound: SocketAddr,
    admin: SocketAddr,
    hosts: tempfile::NamedTempFile,
}

/// How this host is called by those who mean themselves.
const HERE: [&str; 8] =
    ["127.0.0.1", "127.9.9.9", "0.0.0.0", "[::]", "[::1]", "[::ffff:127.0.0.1]", "localhost", "inside.test"];

impl Scene {
    async fn start() -> Self {
        let hosts = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(hosts.path(), "127.0.0.1 localhost\n127.0.0.1 inside.test\n").unwrap();
        let mut mesh =
            Mesh::of(SELVEDGE, [Spec::server("reviews-a", "reviews", 9080), Spec::client("neighbour")]).await;
        let control_plane = mesh.control_plane_process().unwrap();
        let control_plane = control_plane.listener("admin", START_LIMIT).await.unwrap();
        let wide = Spec::client("wide")
            .flag("--outbound", "0.0.0.0:0")
            .flag("--admin", "[::]:0")
            .flag("--upstream", &format!("0={control_plane}"))
            .flag("--hosts-file", &hosts.path().display().to_string())
            .flag("--resolv-conf", "/dev/null");
        mesh.place(wide).unwrap();
        mesh.start_sidecar("wide").await.unwrap();
        let process = mesh.workload("wide").sidecar_process().unwrap();
        let [outbound, admin] = ["outbound", "admin"].map(|name| process.listener(name, START_LIMIT));
        let (outbound, admin) = (loopback(outbound.await.unwrap()), loopback(admin.await.unwrap()));
        let scene = Self { mesh, outbound, admin, hosts };
        poll(SOON, "the sidecar serves", async || {
            let answer = scene.ask(call::to("reviews:9080", "/")).await;
            if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
        scene
    }

    async fn ask(&self, call: call::Call) -> Answer {
        call::send(self.outbound, call.timeout(SOON)).await.unwrap()
    }

    /// Every listener that nobody may reach, as authorities, and the reason that is given.
    async fn listeners(&self) -> Vec<(String, &'static str)> {
        let control_plane = self.mesh.control_plane_process().unwrap();
        let neighbour = self.mesh.workload("neighbour");
        let exact = [
            (control_plane.listener("admin", START_LIMIT).await.unwrap(), "policy"),
            (self.mesh.control_plane_address(), "policy"),
            (neighbour.admin, "policy"),
            (neighbour.outbound, "loop"),
            (self.mesh.workload("wide").inbound, "loop"),
        ];
        let mapped = |address: SocketAddr| format!("[::ffff:{}]:{}", address.ip(), address.port());
        let exact =
            exact.into_iter().flat_map(|(at, reason)| [(at.to_string(), reason), (mapped(at), reason)]);
        let own_admin = HERE.iter().map(|host| (format!("{host}:{}", self.admin.port()), "policy"));
        // It has no IPv6.
        let is_v4 = |host: &&&str| !host.starts_with("[::]") && !host.starts_with("[::1]");
        let own_outbound = HERE.iter().filter(is_v4);
        let own_outbound = own_outbound.map(|host| (format!("{host}:{}", self.outbound.port()), "loop"));
        exact.chain(own_admin).chain(own_outbound).collect()
    }

    /// All of them go on, whatever was asked of them by way of a sidecar.
    async fn is_well(&self) {
        let neighbour = self.mesh.workload("neighbour");
        let control_plane = self.mesh.control_plane_process().unwrap().listener("admin", START_LIMIT).await;
        for admin in [self.admin, neighbour.admin, control_plane.unwrap()] {
            let answer = call::send(admin, call::to(&admin.to_string(), "/ready")).await.unwrap();
            assert_eq!(answer.status, 200, "{admin}: {}", answer.text());
        }
        assert!(self.hosts.path().exists());
    }
}

fn loopback(address: SocketAddr) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], address.port()))
}

fn refused(answer: &Answer, reason: &str, asked: &str) {
    let said = answer.proxy_error().unwrap_or_default();
    assert!(said.starts_with(&format!("{reason}:")), "{asked}: {} {}", answer.summary(), answer.text());
    assert_eq!(answer.status, if reason == "loop" { 508 } else { 403 }, "{asked}: {}", answer.summary());
}

#[tokio::test]
async fn no_listener_of_ours_is_reached_by_way_of_a_sidecar() {
    let scene = Scene::start().await;
    for (authority, reason) in scene.listeners().await {
        for version in BOTH_VERSIONS {
            let config = scene.ask(call::to(&authority, "/config").version(version)).await;
            refused(&config, reason, &authority);
            let shutdown = call::to(&authority, "/shutdown").method(Method::POST).version(version);
            refused(&scene.ask(shutdown).await, reason, &authority);
        }
        for head in [format!("GET http://{authority}/config"), format!("CONNECT {authority}")] {
            let said = raw(scene.outbound, &head, &authority).await;
            assert!(said.contains(&format!("selvedge-error: {reason}:")), "{head}: {said}");
        }
    }
    scene.is_well().await;
}

/// The answer to a request with a target as clients of a proxy write it.
async fn raw(proxy: SocketAddr, head: &str, authority: &str) -> String {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    let request = format!("{head} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn no_document_makes_a_listener_of_ours_an_endpoint() {
    let scene = Scene::start().await;
    let control_plane = scene.mesh.control_plane_process().unwrap();
    let control_plane = control_plane.listener("admin", START_LIMIT).await.unwrap();
    let neighbour = scene.mesh.workload("neighbour");
    let doors = [scene.admin, scene.outbound, control_plane, neighbour.admin, neighbour.outbound];
    let named = doors.iter().enumerate().map(|(number, door)| format!("{} door-{number}.test\n", door.ip()));
    std::fs::write(scene.hosts.path(), named.collect::<String>()).unwrap();
    let mut documents = String::new();
    let mut called = Vec::new();
    for (number, door) in doors.into_iter().enumerate() {
        let (ip, port) = (door.ip(), door.port());
        documents.push_str(&service_entry(
            &format!("static-{number}"),
            port,
            "STATIC",
            &format!("[{{address: {ip}}}]"),
        ));
        documents.push_str(&service_entry(
            &format!("dns-{number}"),
            port,
            "DNS",
            &format!("[{{address: door-{number}.test}}]"),
        ));
        called.extend(["static", "dns"].map(|kind| format!("{kind}-{number}.example:{port}")));
        for (kind, label, inbound) in [
            ("plain", "", String::new()),
            ("meshed", ", security.istio.io/tlsMode: istio", String::new()),
            // A sidecar's inbound listener, they say, to be called in plaintext.
            (
                "door",
                ", security.istio.io/tlsMode: istio",
                format!("annotations: {{config.selvedge.io/inbound: \"{door}\"}}, "),
            ),
        ] {
            let name = format!("{kind}-{number}");
            let own_port = if kind == "door" { 8000 } else { port };
            if kind == "door" {
                documents.push_str(&in_plaintext(&name));
            }
            documents.push_str(&workload(&name, &ip.to_string(), own_port, label, &inbound));
            called.push(format!("{name}:{own_port}"));
        }
    }
    scene.mesh.write("doors.yaml", &documents).unwrap();

    for authority in &called {
        let what = format!("{authority} is known, and refused");
        poll(SOON, &what, async || {
            let answer = scene.ask(call::to(authority, "/config")).await;
            assert!(!answer.text().contains("workload\":"), "{authority}: {}", answer.text());
            let said = answer.proxy_error().unwrap_or_default().to_owned();
            let is_known = ["policy:", "loop:", "tls:"].iter().any(|reason| said.starts_with(reason));
            if is_known { Ok(()) } else { Err(format!("{} {}", answer.summary(), answer.text())) }
        })
        .await;
    }
    scene.is_well().await;
}

/// Not even one that the sidecar was told to have.
#[tokio::test]
async fn no_port_of_an_upstream_leads_to_a_listener_of_ours() {
    let scene = Scene::start().await;
    let control_plane = scene.mesh.control_plane_process().unwrap();
    let control_plane = control_plane.listener("admin", START_LIMIT).await.unwrap();
    let sidecar = scene.mesh.workload("wide").sidecar_process().unwrap();
    let upstream = sidecar.listener(&format!("upstream {control_plane}"), START_LIMIT).await.unwrap();
    for request in [&b"GET /config HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"[..], b"\0raw\r\n\r\n"] {
        let mut stream = TcpStream::connect(upstream).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut said = vec![0; 4096];
        let read = tokio::time::timeout(SOON, stream.read(&mut said)).await.unwrap();
        let said =
            read.map(|length| String::from_utf8_lossy(&said[..length]).into_owned()).unwrap_or_default();
        assert!(said.is_empty() || said.contains("selvedge-error: policy:"), "{said}");
    }
    scene.is_well().await;
}

fn service_entry(name: &str, port: u16, resolution: &str, endpoints: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n\
         \x20 hosts: [{name}.example]\n  location: MESH_EXTERNAL\n  resolution: {resolution}\n\
         \x20 ports: [{{number: {port}, name: http, protocol: HTTP}}]\n  endpoints: {endpoints}\n---\n"
    )
}

fn in_plaintext(host: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: {host}}}\nspec:\n\
         \x20 host: {host}\n  trafficPolicy: {{tls: {{mode: DISABLE}}}}\n---\n"
    )
}

/// A workload, and a service that has it alone.
fn workload(name: &str, address: &str, port: u16, label: &str, annotations: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{{annotations}name: {name}}}\nspec:\n\
         \x20 address: {address}\n  serviceAccount: reviews\n  ports: {{http: {port}}}\n\
         \x20 labels: {{app: {name}{label}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n\
         \x20 clusterIP: None\n  selector: {{app: {name}}}\n  ports: [{{name: http, port: {port}}}]\n---\n"
    )
}

#[tokio::test]
async fn an_app_that_is_a_listener_of_ours_is_refused_at_the_start() {
    let scene = Scene::start().await;
    let control_plane = scene.mesh.control_plane_process().unwrap();
    let control_plane = control_plane.listener("admin", START_LIMIT).await.unwrap();
    let neighbour = scene.mesh.workload("neighbour");
    for app in [control_plane, scene.admin, neighbour.outbound, neighbour.inbound] {
        let mut command = std::process::Command::new(SELVEDGE);
        command.args(["proxy", "--workload", "default/x", "--token", "x", "--app", &app.to_string()]);
        command.args(["--outbound", "127.0.0.1:0", "--inbound", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);

        let output = command.output().unwrap();

        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{app}: it started");
        assert!(said.contains(&format!("--app {app}")), "{said}");
    }
}
