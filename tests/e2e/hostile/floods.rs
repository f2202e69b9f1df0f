//! Floods of cheap frames: their connection ends or stands still, and nobody else notices.

use std::net::SocketAddr;

use selvedge_api::wire;
use selvedge_tests::{credentials, poll};
use tokio::{
    io::AsyncWriteExt,
    time::{Duration, timeout},
};

use super::{
    Mesh, SOON,
    http2::{
        self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, Raw,
        SETTINGS, block, frame, request,
    },
};
use crate::mesh_client;

/// How long a flood goes on of somebody who does not read how it ends.
const FLOOD: Duration = Duration::from_secs(1);

/// `count` of the frames that `make` gives for each turn, in one piece.
fn many(count: u32, make: impl FnMut(u32) -> Vec<u8>) -> Vec<u8> {
    (0..count).flat_map(make).collect()
}

/// What became of a flooding connection.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It was ended, with this error in GOAWAY if there was one.
    Ended(Option<u32>),
    /// It is open.
    Open,
}

/// Writes `frames` as fast as they are taken, and reads how that ends; if `deaf`, it reads nothing.
async fn flood(address: SocketAddr, frames: &[u8], deaf: bool) -> End {
    let Raw(stream) = Raw::connect(address).await;
    let (mut read, mut write) = stream.into_split();
    let writing = async {
        // It may be ended before all of it is written; if it is not, it may not be read any more.
        let _ = timeout(if deaf { FLOOD } else { SOON }, write.write_all(frames)).await;
    };
    let end = async {
        while let Some(frame) = http2::read(&mut read).await {
            if frame.kind == GOAWAY {
                return End::Ended(goaway(&frame.payload));
            }
        }
        End::Ended(None)
    };
    if deaf {
        writing.await;
        return End::Open;
    }
    let ((), end) = tokio::join!(writing, timeout(SOON, end));
    end.unwrap_or(End::Open)
}

fn goaway(payload: &[u8]) -> Option<u32> {
    payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes)
}

/// Floods both listeners with `frames`, while a client that behaves is served. Returns what became of each.
async fn survive(mesh: &Mesh, frames: &[u8], deaf: bool) -> Vec<(&'static str, End)> {
    let mut ends = Vec::new();
    for (listener, address) in mesh.listeners() {
        let (end, ()) = tokio::join!(flood(address, frames, deaf), mesh.is_served());
        ends.push((listener, end));
    }
    mesh.is_well().await;
    ends
}

fn assert_ended(ends: &[(&str, End)]) {
    assert!(ends.iter().all(|(_, end)| matches!(end, End::Ended(_))), "{ends:?}");
}

#[tokio::test]
async fn rapid_resets_end_their_connection() {
    let mesh = Mesh::with_gateway(&[]).await;
    let head = block(&request("/normal"));
    let frames = many(20_000, |turn| {
        let stream = turn * 2 + 1;
        let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        both.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        both
    });

    assert_ended(&survive(&mesh, &frames, false).await);
    for workload in [mesh.client(), mesh.target()] {
        ended(workload, "client", 1).await;
    }
}

#[tokio::test]
async fn a_head_without_end_ends_its_connection() {
    let mesh = Mesh::with_gateway(&[]).await;
    let part = block(&[("x", &"y".repeat(16_000))]);
    let mut frames = frame(HEADERS, END_STREAM, 1, &block(&request("/normal")));
    frames.extend(many(2_000, |_| frame(CONTINUATION, 0, 1, &part)));
    let mut empty = frame(HEADERS, END_STREAM, 1, &block(&request("/normal")));
    empty.extend(many(100_000, |_| frame(CONTINUATION, 0, 1, &[])));

    assert_ended(&survive(&mesh, &frames, false).await);
    survive(&mesh, &empty, false).await;
}

#[tokio::test]
async fn streams_that_err_for_ever_end_their_connection() {
    let mesh = Mesh::with_gateway(&[]).await;
    let head = block(&[&request("/normal")[..], &[("connection", "close")]].concat());
    let frames = many(20_000, |turn| frame(HEADERS, END_HEADERS | END_STREAM, turn * 2 + 1, &head));

    assert_ended(&survive(&mesh, &frames, false).await);
}

#[tokio::test]
async fn frames_that_want_answers_nobody_reads_are_not_piled_up() {
    let mesh = Mesh::with_gateway(&[]).await;
    for frames in [
        many(400_000, |_| frame(PING, 0, 0, &[0; 8])),
        many(400_000, |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xFF, 0xFF])),
        many(400_000, |_| frame(SETTINGS, ACK, 0, &[])),
    ] {
        survive(&mesh, &frames, true).await;
    }
}

#[tokio::test]
async fn no_more_streams_than_the_limit_are_taken() {
    let mesh = Mesh::with_gateway(&[("--max-streams", "10")]).await;
    for (listener, address) in mesh.listeners() {
        let mut raw = Raw::connect(address).await;
        let head = block(&request("/normal"));
        let streams = many(11, |turn| frame(HEADERS, END_HEADERS, turn * 2 + 1, &head));
        raw.0.write_all(&streams).await.expect("a new connection");

        let refused = async {
            while let Some(frame) = raw.read().await {
                if frame.kind == RST_STREAM {
                    return (frame.stream, frame.payload);
                }
            }
            panic!("{listener}: the connection ended")
        };
        let refused = timeout(SOON, refused).await.expect("an answer");

        // REFUSED_STREAM: 7.
        assert_eq!(refused, (21, vec![0, 0, 0, 7]), "{listener}");
    }
    mesh.is_well().await;
}

const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Many frames that carry nothing, of each kind, after a request whose body does not end.
fn floods() -> [(&'static str, Vec<u8>); 7] {
    let begun = frame(HEADERS, END_HEADERS, 1, &block(&request("/normal")));
    let after = |frame: Vec<u8>| [begun.clone(), many(20_000, |_| frame.clone())].concat();
    [
        ("PING", after(frame(PING, 0, 0, &[0; 8]))),
        ("SETTINGS", after(frame(SETTINGS, 0, 0, &[]))),
        ("SETTINGS with ACK", after(frame(PING, ACK, 0, &[0; 8]))),
        ("PRIORITY", after(frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1]))),
        ("WINDOW_UPDATE", after(frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]))),
        ("empty DATA", after(frame(DATA, 0, 1, &[]))),
        ("a kind that nobody knows", after(frame(0x77, 0, 0, &[]))),
    ]
}

/// Waits until a sidecar has counted so many connections that were ended for a flood.
async fn ended(workload: &super::Workload, from: &str, count: usize) {
    let name = format!("selvedge_http2_floods_total{{from=\"{from}\"}} ");
    poll(SOON, &name, async || {
        let metrics = workload.admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let counted = metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse::<usize>().ok());
        match counted {
            Some(counted) if counted == count => Ok(()),
            counted => Err(format!("{counted:?} instead of {count}")),
        }
    })
    .await;
}

#[tokio::test]
async fn frames_that_carry_nothing_end_their_connection_with_a_word() {
    let mesh = Mesh::with_gateway(&[]).await;
    let floods = floods();
    for (kind, frames) in &floods {
        for (listener, end) in survive(&mesh, frames, false).await {
            assert_eq!(end, End::Ended(Some(ENHANCE_YOUR_CALM)), "{kind}, {listener}");
        }
    }
    for workload in [mesh.client(), mesh.target()] {
        ended(workload, "client", floods.len()).await;
        let sidecar = workload.sidecar_process().expect("it runs");
        poll(SOON, "each is told of", async || {
            let log = sidecar.whole_log().map_err(|error| error.to_string())?;
            let told = log.matches("ended an HTTP/2 connection that").count();
            if told >= floods.len() { Ok(()) } else { Err(log) }
        })
        .await;
    }
}

#[tokio::test]
async fn a_mesh_peer_that_floods_is_ended_like_anybody() {
    let mesh = Mesh::start(&[]).await;
    let configuration = mesh_client::configuration(credentials(&mesh.cluster, "client"));
    let mut peer = mesh_client::connect_for(wire::Carrier::Http2, &configuration, mesh.target()).await;
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("it is taken");
    peer.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("it is taken");
    let (mut read, mut write) = tokio::io::split(peer);
    let writing = async {
        let _ = timeout(SOON, write.write_all(&many(20_000, |_| frame(PING, 0, 0, &[0; 8])))).await;
    };
    let end = async {
        while let Some(frame) = http2::read(&mut read).await {
            if frame.kind == GOAWAY {
                return goaway(&frame.payload);
            }
        }
        None
    };

    let ((), end, ()) = tokio::join!(writing, timeout(SOON, end), mesh.is_served());

    assert_eq!(end.expect("it is ended"), Some(ENHANCE_YOUR_CALM));
    ended(mesh.target(), "client", 1).await;
    mesh.is_well().await;
}

#[tokio::test]
async fn an_app_that_floods_its_sidecar_is_ended_and_its_client_hears_it() {
    let around = crate::raw::Around::new().await;
    let server = around.mesh.workload(crate::raw::SERVER);
    let mut client = Raw::connect(server.inbound).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", crate::raw::APP), (":path", "/")];
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
    client.0.write_all(&head).await.expect("it is taken");
    let mut app = around.accept().await;
    app.send(frame(SETTINGS, 0, 0, &[])).await;

    // It may be ended before all of it is written.
    let _ = timeout(SOON, app.stream.write_all(&many(20_000, |_| frame(PING, 0, 0, &[0; 8])))).await;

    let answered = async {
        while let Some(frame) = client.read().await {
            if frame.kind == HEADERS {
                return;
            }
        }
        panic!("the client's connection ended without an answer");
    };
    timeout(SOON, answered).await.expect("an answer");
    ended(server, "server", 1).await;
}
