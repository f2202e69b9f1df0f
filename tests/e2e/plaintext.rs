//! Nothing goes out in plaintext for want of knowing better.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use selvedge_demo::{apps::reviews, call, workload::Spec};
use selvedge_tests::{Mesh, SOON, policies::peer_authentication, poll};
use tokio::net::TcpListener;

use crate::SELVEDGE;

/// A sidecar waits up to 3 s for the control plane to say what a destination is.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

#[tokio::test]
async fn an_unknown_destination_waits_for_the_control_plane_and_never_goes_out_in_plaintext() {
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller")]).await;
    let caller = mesh.workload("caller");
    let (outside, connections) = counting_server(mesh.ground().socket(240, 9085).unwrap()).await;

    let control_plane = mesh.control_plane_process().unwrap();
    control_plane.freeze().await.unwrap();
    let request = call::to(&outside.to_string(), "/").timeout(ANSWER_LIMIT);
    let answer = caller.call(request).await.unwrap();

    assert_eq!(answer.status, 503);
    assert!(answer.proxy_error().unwrap().starts_with("discovery"), "{}", answer.summary());
    assert_eq!(connections.load(Ordering::Relaxed), 0);

    // Once the control plane says that the mesh knows nothing of it, it may pass.
    control_plane.signal(Signal::CONT).unwrap();
    poll(SOON, "the destination is known to be outside", async || {
        let answer =
            caller.call(call::to(&outside.to_string(), "/")).await.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    assert!(connections.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_meshed_endpoint_without_its_sidecar_is_an_error_and_not_called_in_plaintext() {
    let specs = [Spec::client("caller"), Spec::server("reviews-v1-a", "reviews", 9080)];
    let mut mesh = Mesh::of(SELVEDGE, specs).await;
    let before = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();
    assert_eq!(before.status, 200, "{}", before.summary());

    mesh.stop_sidecar("reviews-v1-a").await.unwrap();
    let app = mesh.workload("reviews-v1-a").app;
    let direct = call::send(app, call::to("reviews:9080", "/")).await.unwrap();
    let after = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();

    assert_eq!(direct.status, 200, "the app itself still listens");
    assert_eq!(after.status, 503, "{}", after.summary());
    assert!(after.proxy_error().is_some());
}

#[tokio::test]
async fn an_endpoint_that_is_not_meshed_is_called_in_plaintext() {
    let specs = [Spec::client("caller"), Spec::server("legacy-1", "legacy", 9080).without_sidecar()];
    let mesh = Mesh::of(SELVEDGE, specs).await;

    let answer = mesh.workload("caller").call(call::to("legacy:9080", "/")).await.unwrap();

    assert_eq!(answer.status, 200, "{}", answer.summary());
    assert_eq!(answer.json::<reviews::Answer>().unwrap().client_identity, None);
}

#[tokio::test]
async fn strict_refuses_plaintext_and_permissive_lets_it_in() {
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-v1-a", "reviews", 9080)]).await;
    let inbound = mesh.workload("reviews-v1-a").inbound;

    for (mode, status) in [("STRICT", 403), ("PERMISSIVE", 200), ("STRICT", 403)] {
        mesh.write("mtls.yaml", &peer_authentication(None, mode)).unwrap();
        poll(SOON, &format!("{mode} answers plaintext with {status}"), async || {
            let answer = call::send(inbound, call::to("reviews:9080", "/")).await;
            let answer = answer.map_err(|error| error.to_string())?;
            if answer.status == status { Ok(()) } else { Err(answer.summary()) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_document_that_cannot_be_used_sends_nothing_out_in_plaintext() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [ruled, entered, worked] =
        [(241, 9086), (242, 9087), (243, 9088)].map(|(host, port)| mesh.ground().socket(host, port).unwrap());
    let entry = |name: &str, address: SocketAddr, location: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}}}\nspec:\n  \
             hosts: [{name}.test]\n  location: {location}\n  resolution: STATIC\n  \
             ports: [{{number: 80, name: http, targetPort: {}}}]\n  endpoints: [{{address: {}}}]\n",
            address.port(),
            address.ip()
        )
    };
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: ruled}\nspec: {host: \
                ruled.test, trafficPolicy: {tls: {mode: simple}}}\n";
    let workload = format!(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: worked}}\nspec: {{address: {}, \
         ports: {{http: {}}}, labels: {{security.istio.io/tlsMode: Istio}}}}\n",
        worked.ip(),
        worked.port()
    );
    mesh.write("ruled.yaml", &entry("ruled", ruled, "MESH_EXTERNAL")).unwrap();
    mesh.write("rule.yaml", rule).unwrap();
    mesh.write("entered.yaml", &entry("entered", entered, "INSIDE")).unwrap();
    mesh.write("worked.yaml", &workload).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();
    let (_, to_ruled) = counting_server(ruled).await;
    let (_, to_entered) = counting_server(entered).await;
    let (_, _to_worked) = counting_server(worked).await;
    let caller = mesh.workload("caller");

    for (authority, reason) in
        [("ruled.test", "no-backend"), ("entered.test", "no-endpoint"), (&*worked.to_string(), "tls")]
    {
        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let answer = caller.call(call::to(authority, "/").version(version)).await.unwrap();
            assert_eq!(answer.status, 503, "{authority}: {}", answer.summary());
            let why = answer.proxy_error().unwrap_or_default();
            assert!(why.starts_with(reason), "{authority}: {why}");
        }
    }
    assert_eq!((to_ruled.load(Ordering::Relaxed), to_entered.load(Ordering::Relaxed)), (0, 0));
}

/// A server outside the mesh that counts who connects.
async fn counting_server(address: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(address).await.unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let _ = stream.read(&mut [0; 4096]).await;
            let _ =
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
        }
    });
    (address, connections)
}
