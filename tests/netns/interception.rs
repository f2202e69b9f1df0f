//! Where redirected connections go: by the address that was dialled, and never out unprotected by mistake.

mod outbound;
mod stranger;

use std::{io::ErrorKind, net::SocketAddr};

use selvedge_demo::{apps::reviews::Answer, call};
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    mesh::{APP_PORT, Mesh, Mode, Workload, client, server},
    network::Kind,
    rights::netns,
};
pub(crate) use stranger::{STRANGER, Stranger, said_in};

/// A service's own address, IPv4 or IPv6. No interface has it.
const CLUSTER_IPS: [&str; 2] = ["10.99.0.1", "fd99::1"];

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
