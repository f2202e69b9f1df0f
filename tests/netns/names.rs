//! Whoever dials an endpoint's address means the endpoint, also where the mesh knows only its name; and all of its
//! service, if a document says where the service's connections go.

use std::{
    collections::BTreeSet,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use selvedge_demo::{apps::reviews, call};
use selvedge_tests::{SOON, poll};

use crate::{
    capture::Capture,
    mesh::{Mesh, client, server},
    network::Kind,
    rights::netns,
    routes::{answers_at, plain, say, say_name},
    scenarios::SECRET,
};

/// Selects both, and has no address of its own.
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  selector: {app: db}\n  \
     ports: [{name: data, port: 7000}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
     metadata: {name: db}\nspec:\n  host: db\n  subsets: [{name: v2, labels: {version: v2}}]\n";

const ALL_TO_V2: &str = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: db}\nspec:\n  \
     hosts: [db]\n  tcp: [{route: [{destination: {host: db, subset: v2}}]}]\n";

/// The same service once more.
const SECOND: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: second}\nspec:\n  selector: {app: db}\n  \
     ports: [{name: data, port: 7000}]\n";

/// A client, and two servers that let nobody in without mutual TLS; where the second one's port 7000 is.
async fn mesh(by_name: bool) -> (Mesh, SocketAddr, SocketAddr) {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.write("db.yaml", SERVICE);
    let servers = [server("db-1", "db", "v1"), server("db-2", "db", "v2")];
    let servers = servers.map(|server| if by_name { server.by_name() } else { server });
    mesh.add([client("client")].into_iter().chain(servers)).await;
    for name in ["db-1", "db-2"] {
        say_name(mesh.workload(name));
    }
    let at = |name| SocketAddr::new(mesh.workload(name).place.address, 7000);
    let (first, second) = (at("db-1"), at("db-2"));
    (mesh, first, second)
}

fn hosts(addresses: &[(&str, IpAddr)]) -> String {
    addresses.iter().map(|(name, address)| format!("{address} {name}.test\n")).collect()
}

async fn soon(mesh: &Mesh, address: SocketAddr, name: &str) {
    poll(SOON, &format!("{name} answers at {address}"), async || {
        match answers_at(mesh, "client", address, plain()).await {
            Ok(found) if found == name => Ok(()),
            Ok(found) => Err(found),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

/// Routes count if they are written, and the service is the only one.
async fn dialled(by_name: bool) {
    let (mesh, first, second) = mesh(by_name).await;
    mesh.hosts(&hosts(&[("db-1", first.ip()), ("db-2", second.ip())]));
    let capture = Capture::of(mesh.workload("client").namespace(), "DB-1");

    for (address, name) in [(first, "db-1"), (second, "db-2")] {
        soon(&mesh, address, name).await;
        for _ in 0..5 {
            assert_eq!(answers_at(&mesh, "client", address, plain()).await.unwrap(), name);
        }
    }
    mesh.write("route.yaml", ALL_TO_V2);
    soon(&mesh, first, "db-2").await;
    for address in [first, second, first] {
        assert_eq!(answers_at(&mesh, "client", address, plain()).await.unwrap(), "db-2");
    }
    mesh.write("second.yaml", SECOND);
    soon(&mesh, first, "db-1").await;

    assert_eq!((capture.found(), capture.frames() > 0), (0, true), "packets with a server's name in them");
}

/// An address that a name has just got is its workload's from the first connection on: never a stranger's, to whom
/// the outbound traffic policy would let it go in plaintext.
async fn at_once() {
    let (mut mesh, first, second) = mesh(true).await;
    // The sidecar knows the names, and that nothing is at these addresses.
    for address in [first, second] {
        let refused = answers_at(&mesh, "client", address, plain()).await;
        assert!(refused.is_err(), "let in without mutual TLS: {refused:?}");
    }

    mesh.add([server("db-3", "db", "v3").by_name()]).await;
    say_name(mesh.workload("db-3"));
    let third = SocketAddr::new(mesh.workload("db-3").place.address, 7000);
    let capture = Capture::of(mesh.workload("client").namespace(), "DB-3");
    mesh.hosts(&hosts(&[("db-3", third.ip())]));

    assert_eq!(answers_at(&mesh, "client", third, plain()).await.unwrap(), "db-3");
    assert_eq!(capture.found(), 0);
}

/// Nothing goes out to an address that may be a workload's, as long as the DNS does not say where its name leads.
async fn not_before_dns_has_spoken() {
    let (mut mesh, first, second) = mesh(true).await;
    let known = hosts(&[("db-1", first.ip()), ("db-2", second.ip())]);
    mesh.hosts(&known);
    soon(&mesh, first, "db-1").await;
    let stranger = mesh.network.join("stranger");
    say(&stranger.namespace, "else");
    let stranger = SocketAddr::new(stranger.address, 7000);
    let silent = mesh.network.join("dns");
    say(&silent.namespace, "main");
    let declared = SocketAddr::new(silent.address, 7000);
    let _silent = silent.namespace.inside(|| UdpSocket::bind((silent.address, 53))).unwrap();
    mesh.resolv_conf(&format!("nameserver {}\noptions timeout:1 attempts:1\n", silent.address));
    mesh.add([server("db-3", "db", "v3").by_name()]).await;
    say_name(mesh.workload("db-3"));
    let third = SocketAddr::new(mesh.workload("db-3").place.address, 7000);
    let capture = Capture::of(mesh.workload("client").namespace(), SECRET);

    // Who is who, nobody can tell yet.
    let said = || [b"\0", SECRET.as_bytes()].concat();
    for address in [third, stranger, declared] {
        let refused = answers_at(&mesh, "client", address, said()).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset, "{address}");
    }
    let refused =
        mesh.workload("client").call(stranger, call::to("else", &format!("/?{SECRET}"))).await.unwrap();
    let reason = refused.proxy_error().unwrap_or_default();
    assert!(reason.starts_with("discovery") && reason.contains("db-3.test"), "{}", refused.summary());
    assert_eq!((refused.status.as_u16(), capture.found(), capture.frames() > 0), (503, 0, true));
    // Whose names are known, or who is declared, is reached as ever.
    assert_eq!(answers_at(&mesh, "client", second, said()).await.unwrap(), "db-2");
    assert_eq!(capture.found(), 0);
    mesh.write(
        "declared.yaml",
        &format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: declared}}\nspec:\n  \
             hosts: [declared.test]\n  addresses: [{}]\n  location: MESH_EXTERNAL\n  resolution: NONE\n  \
             ports: [{{number: 7000, name: tcp, protocol: TCP}}]\n",
            silent.address
        ),
    );
    soon(&mesh, declared, "main").await;

    mesh.hosts(&(known + &hosts(&[("db-3", third.ip())])));
    soon(&mesh, third, "db-3").await;
    assert_eq!(capture.found(), 0);
    soon(&mesh, stranger, "else").await;
}

#[test]
fn nothing_goes_out_to_what_may_be_a_workload_of_which_dns_says_nothing() {
    netns(not_before_dns_has_spoken);
}

#[test]
fn an_endpoints_address_is_the_endpoint_or_its_service_if_that_has_routes() {
    netns(async || dialled(false).await);
}

#[test]
fn an_address_that_a_name_has_is_the_endpoint_or_its_service_if_that_has_routes() {
    netns(async || dialled(true).await);
}

#[test]
fn an_address_that_a_name_has_just_got_is_no_strangers() {
    netns(at_once);
}

/// Selects both versions of `reviews`, and has no address of its own.
const OWN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: own}\nspec:\n  selector: {app: reviews}\n  \
     ports: [{name: http, port: 9080}]\n";

const PASSTHROUGH: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: own}\nspec:\n  \
     host: own\n  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}\n";

/// Which versions answer 24 requests for `own` that are sent to the address of `dialled`.
async fn versions(mesh: &Mesh, dialled: &str) -> BTreeSet<String> {
    let address = mesh.workload(dialled).address();
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        let answer = mesh.workload("client").call(address, call::to("own:9080", "/")).await.unwrap();
        let answer: reviews::Answer = answer.json().unwrap();
        assert!(answer.client_identity.is_some(), "never without mutual TLS");
        seen.insert(answer.version);
    }
    seen
}

#[test]
fn with_passthrough_a_request_goes_to_the_endpoint_that_its_app_dialled() {
    netns(async || {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        mesh.write("own.yaml", OWN);
        let servers = [server("reviews-v1", "reviews", "v1"), server("reviews-v2", "reviews", "v2")];
        mesh.add([client("client")].into_iter().chain(servers)).await;
        let soon = async |dialled: &str, expected: &[&str]| {
            let expected: BTreeSet<String> = expected.iter().map(|version| (*version).to_owned()).collect();
            poll(SOON, &format!("{expected:?} answer at {dialled}"), async || {
                let seen = versions(&mesh, dialled).await;
                if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) }
            })
            .await;
        };

        soon("reviews-v2", &["v1", "v2"]).await;
        mesh.write("passthrough.yaml", PASSTHROUGH);
        soon("reviews-v2", &["v2"]).await;
        soon("reviews-v1", &["v1"]).await;
    });
}
