//! Where redirected connections go: by the address that was dialled, and never out unprotected by mistake.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use selvedge_demo::{apps::reviews::Answer, call};
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    mesh::{APP_PORT, Mesh, Mode, Workload, client, server},
    namespace::Namespace,
    network::{Kind, NetworkPlace},
    rights::netns,
};

/// A service's own address, IPv4 or IPv6. No interface has it.
const CLUSTER_IPS: [&str; 2] = ["10.99.0.1", "fd99::1"];

/// What a program that is in no configuration answers.
pub(crate) const STRANGER: &str = "a stranger";

#[test]
fn a_connection_goes_where_its_address_says() {
    netns(async || everywhere(Kind::Bridge).await);
}

#[test]
fn a_connection_goes_where_its_ipv6_address_says() {
    netns(async || everywhere(Kind::Ipv6).await);
}

async fn everywhere(kind: Kind) {
    let mesh = mesh(kind).await;
    a_cluster_ip_is_the_service_whatever_the_authority(&mesh).await;
    a_dialled_workload_without_a_name_is_called_itself(&mesh).await;
    a_service_with_an_address_is_not_called_by_its_name(&mesh).await;
    a_workload_reaches_itself_through_its_own_service(&mesh).await;
    what_nobody_knows_passes_through_to_the_address_that_was_dialled(&mesh).await;
}

#[test]
fn the_listeners_themselves_let_nobody_in_who_was_not_meant_for_them() {
    netns(async || {
        let mesh = mesh(Kind::Bridge).await;
        the_outbound_listener_takes_only_what_was_redirected(&mesh).await;
        the_inbound_listener_takes_only_mesh_peers(&mesh).await;
        a_port_may_let_plain_clients_in(&mesh).await;
    });
}

#[test]
fn nothing_goes_out_before_the_control_plane_has_said_where() {
    netns(async || {
        let mut mesh = mesh(Kind::Bridge).await;
        let stranger = Stranger::at(mesh.workload("outsider"), 7001);
        let [v1, v2] = ["reviews-v1", "reviews-v2"].map(|name| mesh.workload(name).address());
        answer(&mesh, "client", v1, "reviews:9080").await;
        mesh.kill_control_plane().await;

        let asked =
            mesh.workload("client").call(stranger.address, call::to("reviews:9080", "/")).await.unwrap();

        assert_eq!(asked.status, 503, "{}", asked.summary());
        assert!(asked.proxy_error().unwrap().starts_with("discovery"), "{}", asked.summary());
        assert_eq!(stranger.accepted(), 0);
        // A service that was known before goes on, at an endpoint too that was never dialled.
        for address in [v1, v2] {
            let known = answer(&mesh, "client", address, "reviews:9080").await;
            assert_eq!(known.client_identity.as_deref(), Some(CLIENT));
        }
    });
}

#[test]
fn only_what_is_in_the_registry_goes_out_if_that_is_the_policy() {
    netns(async || {
        let mut mesh = mesh(Kind::Bridge).await;
        let strict = client("strict").flags(&["--outbound-traffic-policy", "registry-only"]);
        mesh.add([strict]).await;
        let stranger = Stranger::at(mesh.workload("outsider"), 7001);

        let refused = mesh.workload("strict").call(stranger.address, call::to("nobody", "/")).await.unwrap();

        assert_eq!(refused.status, 502, "{}", refused.summary());
        assert!(refused.proxy_error().unwrap().starts_with("registry-only"), "{}", refused.summary());
        assert_eq!(stranger.accepted(), 0);
        // Who is known, and not meshed, is in the registry.
        let outsider = answer(&mesh, "strict", mesh.workload("outsider").address(), "nobody").await;
        assert_eq!((outsider.pod.as_str(), outsider.client_identity), ("outsider", None));
    });
}

#[test]
fn opaque_connections_go_by_the_address_too() {
    netns(async || {
        let mut mesh = mesh(Kind::Bridge).await;
        let strict = client("strict").flags(&["--outbound-traffic-policy", "registry-only"]);
        mesh.add([client("db"), strict]).await;
        mesh.write(
            "db.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  clusterIP: 10.99.0.2\n  \
             selector: {app: db}\n  ports: [{name: tcp, port: 5432}]\n",
        );
        let db = Stranger::at(mesh.workload("db"), 5432);

        // Only mutual TLS is let in there: what arrives came by it.
        let cluster_ip = "10.99.0.2:5432".parse().unwrap();
        poll(SOON, "the service is reached by its address", async || {
            said(mesh.workload("client"), cluster_ip).await.map_err(|error| error.to_string())
        })
        .await;
        assert_eq!(said(mesh.workload("client"), db.address).await.unwrap(), STRANGER);
        assert_refused(mesh.workload("outsider"), db.address).await;

        let stranger = Stranger::at(mesh.workload("outsider"), 7002);
        assert_eq!(said(mesh.workload("client"), stranger.address).await.unwrap(), STRANGER);
        assert_refused(mesh.workload("strict"), stranger.address).await;
        assert_eq!(stranger.accepted(), 1, "only the registry is let out to");

        let stranger = Stranger::at(mesh.workload("outsider"), 7003);
        mesh.kill_control_plane().await;
        assert_refused(mesh.workload("client"), stranger.address).await;
        assert_eq!(stranger.accepted(), 0, "not before the control plane has said what it is");
    });
}

/// What is dialled is outside, and a document says that it is here: HTTP and opaque connections, at loopback and at the
/// workload's own address.
#[test]
fn no_document_leads_to_a_sidecars_own_ports() {
    netns(async || {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        mesh.add([client("client").flags(&["--log", "selvedge_proxy=debug"])]).await;
        let client = mesh.workload("client");
        let mut documents = String::new();
        let mut doors = Vec::new();
        for (number, ip) in ["127.0.0.1".to_owned(), client.place.address.to_string()].iter().enumerate() {
            for (port, reason) in [(4191, "policy"), (4143, "loop")] {
                for protocol in ["HTTP", "TCP"] {
                    let address = SocketAddr::from(([10, 99, 1, u8::try_from(doors.len()).unwrap()], 7000));
                    documents.push_str(&format!(
                        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
                         metadata: {{name: door-{number}-{port}-{}}}\nspec:\n\
                         \x20 hosts: [door-{number}-{port}-{protocol}.example]\n  addresses: [\"{}\"]\n\
                         \x20 location: MESH_EXTERNAL\n  resolution: STATIC\n\
                         \x20 ports: [{{number: 7000, name: door, protocol: {protocol}, targetPort: {port}}}]\n\
                         \x20 endpoints: [{{address: {ip}}}]\n---\n",
                        protocol.to_lowercase(),
                        address.ip(),
                    ));
                    doors.push((address, protocol, reason));
                }
            }
        }
        mesh.write("doors.yaml", &documents);

        for (address, protocol, reason) in doors {
            poll(SOON, &format!("{address} is known, and refused"), async || {
                if protocol == "TCP" {
                    let error = said(client, address).await.expect_err("nothing answers");
                    let log = mesh.sidecar_log("client");
                    let is_told =
                        log.lines().any(|line| line.contains("own listener") || line.contains("admin port"));
                    return if is_told { Ok(()) } else { Err(error.to_string()) };
                }
                let answer = client.call(address, call::to("door", "/config")).await;
                let answer = answer.map_err(|error| error.to_string())?;
                let said = answer.proxy_error().unwrap_or_default();
                if said.starts_with(reason) { Ok(()) } else { Err(answer.summary()) }
            })
            .await;
        }
    });
}

async fn assert_refused(from: &Workload, address: SocketAddr) {
    let error = said(from, address).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}: {error}");
}

/// What a server says to a few bytes that are no HTTP.
async fn said(from: &Workload, address: SocketAddr) -> std::io::Result<String> {
    said_in(from.namespace(), address).await
}

/// The same from a namespace.
pub(crate) async fn said_in(from: &Namespace, address: SocketAddr) -> std::io::Result<String> {
    let exchange = move || async move {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"\x00hello\n").await?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await?;
        Ok::<_, std::io::Error>(said)
    };
    let said = from.run(exchange).await?;
    Ok(said.split("\r\n\r\n").last().unwrap_or_default().to_owned())
}

const CLIENT: &str = "spiffe://cluster.local/ns/default/sa/client";

/// A client, two versions of `reviews`, a service `second` of v2 with an address of its own, and somebody
/// who is known and has no sidecar.
async fn mesh(kind: Kind) -> Mesh {
    let mut mesh = Mesh::on(kind).await;
    let own = CLUSTER_IPS[usize::from(kind == Kind::Ipv6)];
    mesh.write(
        "second.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: second}}\nspec:\n  clusterIP: \"{own}\"\n\
             \x20 selector: {{app: reviews, version: v2}}\n  ports: [{{name: http, port: 80, targetPort: {APP_PORT}}}]\n"
        ),
    );
    mesh.add([
        client("client"),
        server("reviews-v1", "reviews", "v1"),
        server("reviews-v2", "reviews", "v2"),
        server("outsider", "outsider", "v0").mode(Mode::NoSidecar),
    ])
    .await;
    // Documents are taken up in no order: the last one must have arrived.
    poll(SOON, "the service's own address is known", async || {
        let called = mesh.workload("client").call(cluster_ip(&mesh), call::to("second", "/")).await;
        match called {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.summary()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    mesh
}

/// The address of `second`, to which nobody answers.
fn cluster_ip(mesh: &Mesh) -> SocketAddr {
    let cluster_ip = CLUSTER_IPS[usize::from(mesh.workload("client").place.address.is_ipv6())];
    SocketAddr::new(cluster_ip.parse().unwrap(), 80)
}

async fn answer(mesh: &Mesh, from: &str, address: SocketAddr, authority: &str) -> Answer {
    let answer = mesh.workload(from).call(address, call::to(authority, "/")).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.summary());
    answer.json().unwrap()
}

async fn a_cluster_ip_is_the_service_whatever_the_authority(mesh: &Mesh) {
    let address = cluster_ip(mesh);
    for authority in ["second", "reviews:9080", "nobody.example.com", &address.to_string()] {
        let answer = answer(mesh, "client", address, authority).await;

        assert_eq!(answer.pod, "reviews-v2", "{authority}");
        assert_eq!(answer.client_identity.as_deref(), Some(CLIENT));
    }
}

/// No route is followed: the canary would send nine in ten to v1.
async fn a_dialled_workload_without_a_name_is_called_itself(mesh: &Mesh) {
    let address = mesh.workload("reviews-v2").address();
    for authority in [address.to_string(), "reviews-v2.nowhere".to_owned()] {
        for _ in 0..10 {
            let answer = answer(mesh, "client", address, &authority).await;

            assert_eq!(answer.pod, "reviews-v2", "{authority}");
            assert_eq!(answer.client_identity.as_deref(), Some(CLIENT), "mutual TLS is kept");
        }
    }
}

async fn a_service_with_an_address_is_not_called_by_its_name(mesh: &Mesh) {
    let answer = answer(mesh, "client", mesh.workload("reviews-v1").address(), "second:80").await;

    assert_eq!(answer.pod, "reviews-v1");
    assert_eq!(answer.client_identity.as_deref(), Some(CLIENT));
}

async fn a_workload_reaches_itself_through_its_own_service(mesh: &Mesh) {
    let answer = answer(mesh, "reviews-v2", cluster_ip(mesh), "second").await;

    assert_eq!(answer.pod, "reviews-v2");
    let own = "spiffe://cluster.local/ns/default/sa/reviews";
    assert_eq!(answer.client_identity.as_deref(), Some(own), "by way of its own sidecar, and as policy asks");
}

async fn what_nobody_knows_passes_through_to_the_address_that_was_dialled(mesh: &Mesh) {
    let stranger = Stranger::at(mesh.workload("outsider"), 7000);

    for authority in ["nobody.example.com", "second"] {
        let call = call::to(authority, "/");
        let answer = mesh.workload("client").call(stranger.address, call).await.unwrap();
        assert_eq!(answer.text(), STRANGER, "{authority}: {}", answer.summary());
    }
    // A name of the mesh is the mesh's, whichever address its client had for it.
    let named = answer(mesh, "client", stranger.address, "reviews:9080").await;
    assert_eq!(named.client_identity.as_deref(), Some(CLIENT));
}

async fn the_outbound_listener_takes_only_what_was_redirected(mesh: &Mesh) {
    let client = mesh.workload("client");

    assert_reset(client, client.loopback(4140)).await;
}

async fn the_inbound_listener_takes_only_mesh_peers(mesh: &Mesh) {
    let reviews = mesh.workload("reviews-v1").place.address;

    assert_reset(mesh.workload("outsider"), SocketAddr::new(reviews, 4143)).await;
    // The proxy's other port is no app either.
    assert_reset(mesh.workload("outsider"), SocketAddr::new(reviews, 4140)).await;
}

/// A request from `from` to `address` ends with a reset, and no answer.
async fn assert_reset(from: &Workload, address: SocketAddr) {
    let ended = from
        .namespace()
        .run(move || async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nhost: reviews\r\n\r\n").await?;
            let mut read = Vec::new();
            stream.read_to_end(&mut read).await?;
            Ok::<_, std::io::Error>(read)
        })
        .await;
    let error = ended.map(|read| String::from_utf8_lossy(&read).into_owned()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{address}: {error}");
}

async fn a_port_may_let_plain_clients_in(mesh: &Mesh) {
    let reviews = mesh.workload("reviews-v1").address();
    let plain = || call::to("reviews:9080", "/");
    let refused = mesh.workload("outsider").call(reviews, plain()).await.unwrap();
    assert_eq!(refused.status, 403, "{}", refused.summary());

    mesh.write(
        "permissive.yaml",
        &format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: permissive}}\nspec:\n\
             \x20 selector: {{matchLabels: {{app: reviews}}}}\n  mtls: {{mode: STRICT}}\n\
             \x20 portLevelMtls: {{{APP_PORT}: {{mode: PERMISSIVE}}}}\n"
        ),
    );

    poll(SOON, "plain clients are let in at that port", async || {
        match mesh.workload("outsider").call(reviews, plain()).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.summary()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// A program that is in no configuration; it answers every connection with [`STRANGER`].
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

impl Stranger {
    /// One beside the app of `workload`.
    fn at(workload: &Workload, port: u16) -> Self {
        Self::in_place(&workload.place, port)
    }

    /// One there.
    pub(crate) fn in_place(place: &NetworkPlace, port: u16) -> Self {
        let address = SocketAddr::new(place.address, port);
        let listener = place.namespace.inside(|| TcpListener::bind(address)).unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&accepted);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counted.fetch_add(1, Ordering::Relaxed);
                thread::spawn(move || speak(stream));
            }
        });
        Self { address, accepted }
    }

    /// How many connections came.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

/// Answers once, whatever comes.
fn speak(mut stream: std::net::TcpStream) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
    if matches!(stream.read(&mut [0; 4096]), Ok(1..)) {
        let length = STRANGER.len();
        let _ = write!(
            stream,
            "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{STRANGER}"
        );
    }
}
