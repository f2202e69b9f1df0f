//! What a `ServiceEntry` says of servers outside the mesh: ranges of addresses, whose clients it is for, shares of its
//! endpoints, and servers that are wherever they are dialled.

use std::{io::ErrorKind, net::SocketAddr};

use selvedge_demo::call;
use selvedge_tests::{SOON, poll};

use crate::{
    mesh::{Mesh, client},
    network::Kind,
    rights::netns,
    routes::{answers_at, hello, plain, say},
};

/// Only what is in the configuration is let out: whatever goes out goes by an entry.
const REGISTRY_ONLY: [&str; 2] = ["--outbound-traffic-policy", "registry-only"];

/// A range of addresses that nobody has.
const IN_RANGE: [&str; 2] = ["10.99.8.1:7000", "10.99.8.200:7000"];

/// A mesh of two clients in two namespaces, and servers outside of it, by the last number of their addresses.
async fn mesh(servers: &[(u8, &str)]) -> Mesh {
    let mut mesh = Mesh::on(Kind::Bridge).await;
    mesh.add([
        client("client").flags(&REGISTRY_ONLY),
        client("visitor").namespace("elsewhere").flags(&REGISTRY_ONLY),
    ])
    .await;
    for (number, name) in servers {
        let address = mesh.network.address(*number);
        say(&mesh.network.join_as(name, address).namespace, name);
    }
    mesh
}

fn entry(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: default}}\n\
         spec:\n  location: MESH_EXTERNAL\n  ports: [{{number: 7000, name: tcp, protocol: TCP}}]\n{spec}"
    )
}

async fn soon(mesh: &Mesh, from: &str, address: &str, name: &str) {
    poll(SOON, &format!("{name} answers {from} at {address}"), async || {
        match answers(mesh, from, address, plain()).await {
            Ok(found) if found == name => Ok(()),
            Ok(found) => Err(found),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
}

async fn answers(mesh: &Mesh, from: &str, address: &str, begin: Vec<u8>) -> std::io::Result<String> {
    let address: SocketAddr = address.parse().unwrap();
    answers_at(mesh, from, address, begin).await
}

async fn refused(mesh: &Mesh, from: &str, address: &str, begin: Vec<u8>) {
    let outcome = answers(mesh, from, address, begin).await;
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ConnectionReset, "{from} to {address}");
}

/// Any address of the range is the service, for those whom it is for, and its endpoints have their shares.
async fn ranges() {
    let mesh = mesh(&[(100, "main"), (101, "rest")]).await;
    let spec = |export_to: &str, weights: [u32; 2]| {
        format!(
            "  hosts: [ranges.test]\n  addresses: [10.99.8.0/24]\n  resolution: STATIC\n  exportTo: [{export_to}]\n\
             \x20 endpoints:\n  - {{address: {}, weight: {}}}\n  - {{address: {}, weight: {}}}\n",
            mesh.network.address(100),
            weights[0],
            mesh.network.address(101),
            weights[1],
        )
    };
    mesh.write("entry.yaml", &entry("ranges", &spec("\".\"", [3, 1])));

    soon(&mesh, "client", IN_RANGE[0], "main").await;
    let mut main = 0;
    for turn in 0..200 {
        let name = answers(&mesh, "client", IN_RANGE[turn % 2], plain()).await.unwrap();
        main += i32::from(name == "main");
    }
    // 150 of 200, give or take 4.5 standard deviations.
    assert!((122..=178).contains(&main), "{main} of 200 went to the endpoint with three quarters");
    refused(&mesh, "client", "10.99.9.1:7000", plain()).await;
    refused(&mesh, "visitor", IN_RANGE[0], plain()).await;

    mesh.write("entry.yaml", &entry("ranges", &spec("\".\", elsewhere", [1, 1])));
    soon(&mesh, "visitor", IN_RANGE[1], "main").await;
    soon(&mesh, "visitor", IN_RANGE[1], "rest").await;

    mesh.write("entry.yaml", &entry("ranges", &spec("elsewhere", [1, 1])));
    poll(SOON, "the client is refused", async || {
        answers(&mesh, "client", IN_RANGE[0], plain()).await.map_or(Ok(()), Err)
    })
    .await;
    soon(&mesh, "visitor", IN_RANGE[0], "rest").await;
}

/// With resolution NONE a connection goes where it was going, if the entry has that address or its TLS names a host of
/// the entry's.
async fn wherever() {
    let mesh = mesh(&[(130, "here"), (131, "next"), (160, "away")]).await;
    let at = |number| format!("{}:7000", mesh.network.address(number));
    let spec = "  hosts: [\"*.none.test\"]\n  addresses: [10.88.0.128/28]\n  resolution: NONE\n";
    mesh.write("entry.yaml", &entry("wherever", spec));

    soon(&mesh, "client", &at(130), "here").await;
    for (number, name) in [(130, "here"), (131, "next")] {
        for _ in 0..5 {
            assert_eq!(answers(&mesh, "client", &at(number), plain()).await.unwrap(), name);
        }
    }
    refused(&mesh, "client", &at(160), plain()).await;
    // By the name that it asks for: to the address that was dialled, whatever that is.
    assert_eq!(answers(&mesh, "client", &at(160), hello("one.none.test")).await.unwrap(), "away");
    refused(&mesh, "client", &at(160), hello("none.example")).await;
    let outside = call::to("nobody.example", "/");
    let refused = mesh.workload("client").call(at(160).parse().unwrap(), outside).await.unwrap();
    assert!(refused.proxy_error().unwrap_or_default().starts_with("registry-only"), "{}", refused.summary());
}

fn route(spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: route, namespace: default}}\n\
         spec:\n{spec}"
    )
}

/// A route for one name below a wildcard is followed by what asks for that name, and by nothing else.
async fn below_a_wildcard() {
    let mesh = mesh(&[(130, "here"), (131, "else")]).await;
    let at = |number| format!("{}:7000", mesh.network.address(number));
    let wild = entry("wild", "  hosts: [\"*.wild.test\"]\n  resolution: NONE\n");
    let other = format!(
        "  hosts: [other.test]\n  resolution: STATIC\n  endpoints: [{{address: {}}}]\n",
        mesh.network.address(131)
    );
    mesh.write("entry.yaml", &format!("{wild}---\n{}", entry("other", &other)));
    let named = |name: &str| hello(name);
    poll(SOON, "the wildcard has arrived", async || {
        let found = answers(&mesh, "client", &at(130), named("one.wild.test")).await;
        found.map_err(|error| error.to_string())
    })
    .await;

    for hosts in ["one.wild.test", "\"*.wild.test\"", "ONE.Wild.test."] {
        mesh.write(
            "route.yaml",
            &route("  hosts: [gone.test]\n  tcp: [{route: [{destination: {host: gone}}]}]\n"),
        );
        poll(SOON, "no route leads elsewhere", async || {
            match answers(&mesh, "client", &at(130), named("one.wild.test")).await {
                Ok(found) if found == "here" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        mesh.write(
            "route.yaml",
            &route(&format!(
                "  hosts: [{hosts}]\n  tls:\n  - match: [{{port: 7000, sniHosts: [one.wild.test]}}]\n    route: [{{destination: {{host: other.test}}}}]\n"
            )),
        );
        poll(SOON, &format!("the route for {hosts} is followed"), async || {
            match answers(&mesh, "client", &at(130), named("one.wild.test")).await {
                Ok(found) if found == "else" => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        // The routes of a wildcard are all that there are for the names below it, as in Istio.
        if hosts.contains('*') {
            refused(&mesh, "client", &at(130), named("two.wild.test")).await;
        } else {
            let found = answers(&mesh, "client", &at(130), named("two.wild.test")).await;
            assert_eq!(found.unwrap(), "here", "{hosts}");
        }
    }
}

#[test]
fn a_route_for_a_name_below_a_wildcard_is_followed_by_what_asks_for_it() {
    netns(below_a_wildcard);
}

#[test]
fn every_address_of_a_range_is_the_service_for_those_whom_it_is_for() {
    netns(ranges);
}

#[test]
fn a_connection_to_an_entry_without_endpoints_goes_where_it_was_going() {
    netns(wherever);
}
