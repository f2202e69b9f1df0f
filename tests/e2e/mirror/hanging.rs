//! A mirror that accepts everything and answers nothing.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::Version;
use selvedge_demo::{
    apps::grpc::wire::{EchoRequest, echo_client::EchoClient},
    call,
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use super::{ROUTES, answer, counted, counts, mesh};
use crate::BOTH_VERSIONS;

/// A server that takes connections, and nothing from them.
async fn hanging(address: SocketAddr) {
    let listener = TcpListener::bind(address).await.expect("the app's address is ours");
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            held.push(stream);
        }
    });
}

/// Calls `path` many times at once; the longest that one took.
async fn under_load(mesh: &Mesh, path: &str, body: &Bytes) -> Duration {
    let client = async |version: Version| {
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let began = Instant::now();
            answer(mesh, call::to("reviews:9080", path).version(version).body(body.clone())).await;
            longest = longest.max(began.elapsed());
        }
        longest
    };
    let clients = (0..10).map(|number| client(BOTH_VERSIONS[number % 2]));
    join_all(clients).await.into_iter().max().unwrap_or_default()
}

#[tokio::test]
async fn a_mirror_that_hangs_neither_slows_nor_fails_requests_under_load() {
    let (mesh, _shadow) = mesh(ROUTES).await;
    hanging(mesh.workload("hangs").app).await;
    let body = Bytes::from(vec![b'x'; 50_000]);

    let without = under_load(&mesh, "/alone", &body).await;
    let with = under_load(&mesh, "/hangs", &body).await;

    // A request that waited for its copy would take 9 s.
    assert!(
        with < without * 4 + Duration::from_secs(2),
        "{with:?} with a mirror that hangs, {without:?} without"
    );
    let dropped = "selvedge_outbound_mirrored_requests_dropped_total{";
    assert!(counted(&mesh, &[dropped, "reason=\"too-many\""]).await > 0.0, "there may be 256 copies");
    let held = counted(&mesh, &["selvedge_buffered_bytes "]).await;
    assert!(held <= 256.0 * 65_536.0, "{held} bytes are held");
    poll(2 * SOON, "every copy ends with the time of its route, or was none too many", async || {
        let late = ["selvedge_outbound_mirrored_requests_total{", "error_type=\"timeout\""];
        let late = counted(&mesh, &late).await;
        let too_many = counted(&mesh, &[dropped, "reason=\"too-many\""]).await;
        let held = counted(&mesh, &["selvedge_buffered_bytes "]).await;
        let all = late + too_many == 400.0 && held == 0.0;
        if all { Ok(()) } else { Err(format!("{late} late, {too_many} too many, {held} bytes held")) }
    })
    .await;

    // More than the kernel takes.
    for version in BOTH_VERSIONS {
        let long = vec![b'x'; 16 << 20];
        let call = call::to("reviews:9080", "/stuck").version(version).body(long);
        answer(&mesh, call.timeout(Duration::from_secs(30))).await;
    }
    counts(&mesh, &[dropped, "reason=\"behind\""], 2.0).await;
}

/// Calls `echo` many times at once, each time with `text`.
async fn under_load_of_grpc(mesh: &Mesh, text: &str) {
    let channel = Channel::from_shared(format!("http://{}", mesh.workload("caller").outbound)).unwrap();
    let channel = channel.origin("http://echo:9090".parse().unwrap()).connect().await.unwrap();
    let client = async |mut client: EchoClient<Channel>| {
        for _ in 0..40 {
            let request = EchoRequest { text: text.to_owned(), ..EchoRequest::default() };
            let answer = client.unary(request).await.expect("the real call is served");
            assert_eq!(answer.get_ref().text.len(), text.len());
        }
    };
    join_all((0..10).map(|_| client(EchoClient::new(channel.clone())))).await;
}

#[tokio::test]
async fn a_mirror_that_hangs_neither_fails_nor_holds_calls_of_grpc_under_load() {
    let (mesh, _shadow) = mesh(ROUTES).await;
    hanging(mesh.workload("hangs").app).await;
    let began = Instant::now();

    under_load_of_grpc(&mesh, &"x".repeat(50_000)).await;

    // A call that waited for its copy would take 9 s, and each client makes 40 in turn.
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let held = counted(&mesh, &["selvedge_buffered_bytes "]).await;
    assert!(held <= 256.0 * 65_536.0, "{held} bytes are held");
    poll(2 * SOON, "every copy ends with the time of its route, or was one too many", async || {
        let late = ["selvedge_outbound_mirrored_requests_total{", "error_type=\"timeout\""];
        let late = counted(&mesh, &late).await;
        let dropped = ["selvedge_outbound_mirrored_requests_dropped_total{", "reason=\"too-many\""];
        let too_many = counted(&mesh, &dropped).await;
        let held = counted(&mesh, &["selvedge_buffered_bytes "]).await;
        let all = too_many > 0.0 && late + too_many == 400.0 && held == 0.0;
        if all { Ok(()) } else { Err(format!("{late} late, {too_many} too many, {held} bytes held")) }
    })
    .await;
}
