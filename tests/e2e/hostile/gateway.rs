//! What strangers send to a gateway's listener for TLS, while others are served there and at its other listener.

use std::net::SocketAddr;

use selvedge_demo::call;
use selvedge_tests::poll;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::{
    Mesh, SERVER_NAME, SOON,
    http2::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS, block, frame},
};
use crate::gateway::tls::{connector_for, own};

/// Longer than the gateway waits for a hello that does not come to its end: 10 seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the gateway says to `first`, until it closes.
async fn said_to(at: SocketAddr, first: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).await.expect("the listener is there");
    // It may be refused before all of it is sent.
    let _ = stream.write_all(first).await;
    let mut said = Vec::new();
    // A reset is an end, too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said)).await.expect("it is closed in time");
    said
}

/// A record of TLS with a handshake message.
fn record(payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("small").to_be_bytes();
    [&[0x16, 3, 1][..], &length, payload].concat()
}

/// A hello of TLS 1.2 that asks for `name`.
fn hello(name: &str) -> Vec<u8> {
    fn sized(bytes: &[u8]) -> Vec<u8> {
        [&u16::try_from(bytes.len()).expect("small").to_be_bytes()[..], bytes].concat()
    }
    let server_name = sized(&[&[0][..], &sized(name.as_bytes())].concat());
    let versions = [2, 3, 4];
    let groups = sized(&[0, 0x1d]);
    let schemes = sized(&[4, 3]);
    let share = sized(&[&[0, 0x1d][..], &sized(&[9; 32])].concat());
    let extension = |kind: u16, data: &[u8]| [&kind.to_be_bytes()[..], &sized(data)].concat();
    let extensions = [
        extension(0, &server_name),
        extension(10, &groups),
        extension(13, &schemes),
        extension(43, &versions),
        extension(51, &share),
    ];
    let body =
        [&[3, 3][..], &[7; 32], &[0], &sized(&[0x13, 1]), &[1, 0], &sized(&extensions.concat())].concat();
    let length = u32::try_from(body.len()).expect("small").to_be_bytes();
    record(&[&[1][..], &length[1..], &body].concat())
}

#[tokio::test]
async fn what_is_not_tls_gets_an_alert_or_nothing() {
    let mesh = Mesh::with_gateway(&[]).await;
    let at = mesh.edge().at(443);
    let whole = hello(SERVER_NAME);
    let garbage: [Vec<u8>; 10] = [
        b"GET / HTTP/1.1\r\nhost: edge.test\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.9\r\n".to_vec(),
        vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10],
        vec![0xff; 5000],
        record(&[0xff; 200]),
        record(&[]),
        [&whole[..9], &[0xff; 300]].concat(),
        [&[0x16, 3, 1, 0xff, 0xff][..], &[0; 300]].concat(),
        [&whole[..], &[0x17, 3, 3, 0, 5, 1, 2, 3, 4, 5]].concat(),
    ];
    for (number, bytes) in garbage.iter().enumerate() {
        let said = said_to(at, bytes).await;
        assert!(said.is_empty() || said.len() >= 7 && [0x15, 0x16].contains(&said[0]), "{number}: {said:?}");
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn many_names_that_nobody_serves_each_get_an_alert() {
    let mesh = Mesh::with_gateway(&[]).await;
    let at = mesh.edge().at(443);
    for round in 0..500 {
        let name = format!("{}.{round}.test", "a".repeat(50));
        let said = said_to(at, &hello(&name)).await;
        // A fatal alert: unrecognized_name.
        assert_eq!(said.get(..7), Some(&[0x15, 3, 3, 0, 2, 2, 112][..]), "{round}: {said:?}");
        if round % 100 == 0 {
            mesh.is_served().await;
        }
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn handshakes_that_stop_half_way_are_ended_and_hold_up_nobody() {
    let mesh = Mesh::with_gateway(&[]).await;
    let at = mesh.edge().at(443);
    let whole = hello(SERVER_NAME);
    let mut half_open = Vec::new();
    for first in [&b""[..], &whole[..1], &whole[..60], &whole[..]] {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(at).await.expect("the listener is there");
            stream.write_all(first).await.expect("a new connection");
            half_open.push(stream);
        }
    }
    mesh.is_well().await;

    // Ten seconds for the first byte, for the hello, and for the handshake.
    let limit = Duration::from_secs(40);
    for stream in &mut half_open {
        let mut said = Vec::new();
        let ended = timeout(limit, stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "it is still open");
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn floods_inside_tls_end_their_connection() {
    let mesh = Mesh::with_gateway(&[]).await;
    let (gateway, pair) = mesh.gateway.as_ref().expect("it has one");
    let fields =
        [(":method", "GET"), (":scheme", "https"), (":authority", SERVER_NAME), (":path", "/normal")];
    let head = block(&fields);
    let resets = (0..20_000_u32).flat_map(|turn| {
        let stream = turn * 2 + 1;
        let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &head);
        both.extend(frame(RST_STREAM, 0, stream, &8u32.to_be_bytes()));
        both
    });
    let pings = (0..20_000).flat_map(|_| frame(PING, 0, 0, &[0; 8]));
    let settings = (0..20_000).flat_map(|_| frame(SETTINGS, 0, 0, &[]));
    let floods: [Vec<u8>; 3] = [resets.collect(), pings.collect(), settings.collect()];
    for (number, frames) in floods.iter().enumerate() {
        let tcp = TcpStream::connect(gateway.at(443)).await.expect("the listener is there");
        let name = SERVER_NAME.try_into().expect("a name");
        let stream = connector_for(pair, &["h2"]).connect(name, tcp).await.expect("TLS");
        let (mut read, mut write) = tokio::io::split(stream);
        let writing = async {
            // It may be ended before all of it is written.
            let _ = write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
            let _ = write.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            let _ = timeout(SOON, write.write_all(frames)).await;
        };
        let end = async {
            while let Some(frame) = http2::read(&mut read).await {
                if frame.kind == GOAWAY {
                    return;
                }
            }
        };
        let ((), end, ()) = tokio::join!(writing, timeout(SOON, end), mesh.is_served());
        assert!(end.is_ok(), "flood {number} goes on");
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn a_client_that_trusts_another_root_ends_its_own_handshake_alone() {
    let mesh = Mesh::with_gateway(&[]).await;
    let stranger = own(SERVER_NAME);
    let roots = [stranger.der.der().clone()];
    for _ in 0..50 {
        let refused = mesh.edge().call_tls(443, SERVER_NAME, &roots, call::to(SERVER_NAME, "/")).await;
        refused.expect_err("it is not its root");
    }
    mesh.is_well().await;
}

/// Sends `head`, and reads until the connection is closed.
async fn answer_to(at: SocketAddr, head: &str) -> String {
    String::from_utf8_lossy(&said_to(at, head.as_bytes()).await).into_owned()
}

#[tokio::test]
async fn a_body_without_a_length_has_to_come_until_it_is_answered() {
    let mesh = Mesh::with_gateway(&[("--body-timeout", "2s"), ("--min-body-rate", "1000")]).await;
    let at = mesh.edge().at(80);
    let head = "POST /slow HTTP/1.1\r\nHost: target:9080\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";

    let (answer, ()) = tokio::join!(answer_to(at, head), mesh.is_served());

    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("selvedge-error: request-timeout"), "{answer}");
    assert!(!mesh.app.seen().contains(&"/slow".to_owned()));
    mesh.is_well().await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answers_is_closed_and_a_slow_one_is_not() {
    let mesh = Mesh::with_gateway(&[("--answer-timeout", "2s")]).await;
    let (gateway, _) = mesh.gateway.as_ref().expect("it has one");
    let at = gateway.at(80);
    let head = b"GET /large HTTP/1.1\r\nHost: target:9080\r\n\r\n";
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(at).await.expect("the listener is there");
        stream.write_all(head).await.expect("a new connection");
        deaf.push(stream);
    }
    // SETTINGS_INITIAL_WINDOW_SIZE 1: it takes a byte of each.
    let mut narrow = http2::Raw::connect(at).await;
    narrow.0.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1])).await.expect("it is read");
    for stream in 0..8 {
        let fields =
            [(":method", "GET"), (":scheme", "http"), (":authority", super::TARGET), (":path", "/large")];
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &block(&fields));
        narrow.0.write_all(&head).await.expect("it is read");
    }

    let steady = async {
        let mut stream = TcpStream::connect(at).await.expect("the listener is there");
        stream.write_all(head).await.expect("a new connection");
        let (mut part, mut whole) = (vec![0; 256 << 10], 0);
        while whole < super::LARGE {
            match timeout(SOON, stream.read(&mut part)).await.expect("it goes on").expect("it is open") {
                0 => panic!("it ended after {whole} bytes"),
                read => whole += read,
            }
            // Longer in all than a deaf client may take.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let ended = async {
        let told = "the client reads its answers too slowly";
        poll(SOON, "all of them are ended", async || {
            let log = gateway.process.whole_log().map_err(|error| error.to_string())?;
            match log.matches(told).count() {
                21.. => Ok(()),
                count => Err(format!("{count}: {log}")),
            }
        })
        .await;
    };
    tokio::join!(steady, ended, mesh.is_served());

    while timeout(SOON, narrow.read()).await.expect("it is closed").is_some() {}
    drop(deaf);
    mesh.is_well().await;
}
