//! What a sidecar lets out, and where to.

use std::{io::ErrorKind, net::SocketAddr};

use selvedge_demo::call;
use selvedge_tests::{SOON, poll};

use super::{
    CLIENT, answer, mesh,
    stranger::said,
    stranger::{STRANGER, Stranger},
};
use crate::{
    mesh::{Mesh, Workload, client},
    network::Kind,
    rights::netns,
};

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
