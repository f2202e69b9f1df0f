//! More than there is room for: refused at once and counted, until there is room again.

use std::io::ErrorKind;

use selvedge_certs::tls::Current;
use selvedge_demo::{call, workload::Workload};
use selvedge_tests::{credentials, policies::peer_authentication, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::{
    Mesh, SOON, TARGET,
    http2::{ACK, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, Raw, SETTINGS, block, frame},
};
use crate::mesh_client;

/// Longer than a connection may hold too much ([`selvedge_proxy::budget::PATIENCE`]).
const LATER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_nobody_reads_is_held_up_to_a_budget_and_then_let_go() {
    // Without pings: this client answers none, and would be closed for that on a busy machine before it is for this.
    let mesh = Mesh::start(&[("--buffer-budget", "1"), ("--ping-interval", "0s")]).await;
    let outbound = mesh.client().outbound;
    let mut hostile = Raw::connect(outbound).await;
    // SETTINGS_INITIAL_WINDOW_SIZE 0: it takes nothing of its eight large answers.
    hostile.0.write_all(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).await.expect("it is read");
    for stream in 0..8 {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", TARGET), (":path", "/large")];
        let head = frame(HEADERS, END_STREAM | END_HEADERS, 2 * stream + 1, &block(&fields));
        hostile.0.write_all(&head).await.expect("it is read");
    }

    let refused = poll(SOON, "new requests are refused", async || {
        let answer = call::send(outbound, call::to(TARGET, "/normal").timeout(SOON)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 503 { Ok(answer) } else { Err(answer.summary()) }
    })
    .await;
    let why = refused.proxy_error().expect("the proxy says why");
    assert!(why.starts_with("overflow: ") && why.contains("--buffer-budget"), "{why}");
    // By the client's sidecar or by the target's, whichever had too much first.
    let sidecars = [mesh.client(), mesh.target()];
    poll(SOON, "it is held", async || {
        let mut all = Vec::new();
        for sidecar in sidecars {
            let held = sidecar.metric("selvedge_buffered_bytes").await.map_err(|error| error.to_string())?;
            all.push(held.unwrap_or_default());
        }
        assert!(all.iter().all(|held| *held < 16_000_000.0), "{all:?}");
        if all.iter().any(|held| *held > 1_048_576.0) { Ok(()) } else { Err(format!("{all:?}")) }
    })
    .await;

    poll(LATER, "they are served again", async || {
        let answer = call::send(outbound, call::to(TARGET, "/normal").timeout(SOON)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    for action in ["refused-request", "closed-connection"] {
        let line = format!("selvedge_buffer_overflows_total{{action=\"{action}\"}} ");
        let mut counted = 0;
        for sidecar in sidecars {
            let metrics = sidecar.admin("/metrics").await.expect("metrics").text();
            let here = metrics.lines().find_map(|text| text.strip_prefix(&line)).expect("it is counted");
            counted += here.parse::<u64>().expect("a number");
        }
        assert_ne!(counted, 0, "{action}");
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_and_counted() {
    let mesh = Mesh::start(&[("--max-connections", "20")]).await;
    for (listener, address) in mesh.listeners() {
        let (mut crowd, mut reset) = (Vec::new(), 0);
        for _ in 0..30 {
            match TcpStream::connect(address).await {
                Ok(client) => crowd.push(client),
                // It may be turned away before its own call is over.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => reset += 1,
                Err(error) => panic!("{listener} cannot be reached: {error}"),
            }
        }
        let refused = poll(SOON, "some are closed", async || {
            let mut closed = reset;
            for client in &mut crowd {
                let read = timeout(Duration::from_millis(1), client.read(&mut [0])).await;
                closed += usize::from(read.is_ok());
            }
            if closed >= 10 { Ok(closed) } else { Err(closed) }
        })
        .await;
        // The mesh's own connections count as well.
        assert!(refused < 20, "{listener}: {refused} of 30 were refused");

        drop(crowd);
        poll(SOON, "there is room again", async || {
            let answer = call::send(address, call::to(TARGET, "/normal").timeout(SOON)).await;
            answer.map(drop).map_err(|error| error.to_string())
        })
        .await;
    }
    mesh.is_well().await;
    for (workload, direction) in [(mesh.client(), "outbound"), (mesh.target(), "inbound")] {
        let metrics = workload.admin("/metrics").await.expect("metrics").text();
        let name = format!("selvedge_{direction}_connections_total{{mtls=\"false\",result=\"overflow\"}} ");
        let counted: f64 = metrics
            .lines()
            .find_map(|line| line.strip_prefix(&name)?.parse().ok())
            .unwrap_or_else(|| panic!("{name} is not in {metrics}"));
        assert!(counted >= 10.0, "{direction}: {counted}");
    }
}

const GET: &str = "GET /normal HTTP/1.1\r\nhost: target:9080\r\n\r\n";

/// A new connection that has sent `bytes`.
async fn sent(address: std::net::SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("the listener is there");
    // It may be closed before all of it is sent: that is what some of these tests are about.
    let _ = client.write_all(bytes).await;
    client
}

/// What comes until the other end closes; `None`: it does not.
async fn rest(client: &mut TcpStream, limit: Duration) -> Option<String> {
    let mut rest = Vec::new();
    let _ = timeout(limit, client.read_to_end(&mut rest)).await.ok()?;
    Some(String::from_utf8_lossy(&rest).into_owned())
}

/// Whether the other end has closed.
async fn is_closed(client: &mut TcpStream) -> bool {
    timeout(Duration::from_millis(1), client.read(&mut [0; 1024]))
        .await
        .is_ok_and(|read| !matches!(read, Ok(1..)))
}

/// A mesh peer that comes anew is served.
async fn a_new_peer_is_served(configuration: &Current, target: &Workload) {
    let asked = async {
        let mut peer = mesh_client::connect(configuration, target).await;
        peer.write_all(GET.as_bytes()).await.expect("it is taken");
        let mut answer = [0; 12];
        peer.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200");
        peer
    };
    drop(timeout(SOON, asked).await.expect("in time"));
}

#[tokio::test]
async fn a_stranger_that_is_refused_is_closed() {
    let mesh = Mesh::start(&[("--max-connections", "20")]).await;
    let strict = peer_authentication(None, "STRICT");
    mesh.cluster.write("strict.yaml", &strict).expect("a writable directory");
    let inbound = mesh.target().inbound;
    poll(SOON, "strangers are refused", async || {
        let once = GET.replace("\r\n\r\n", "\r\nconnection: close\r\n\r\n");
        let answer = rest(&mut sent(inbound, once.as_bytes()).await, SOON).await.unwrap_or_default();
        if answer.starts_with("HTTP/1.1 403 ") { Ok(()) } else { Err(answer) }
    })
    .await;

    for _ in 0..60 {
        let answer = rest(&mut sent(inbound, GET.as_bytes()).await, SOON).await.expect("it is closed");
        assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains("connection: close"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    let mut over_http2 = Raw::connect(inbound).await;
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", TARGET), (":path", "/normal")];
    let head = frame(HEADERS, END_STREAM | END_HEADERS, 1, &block(&fields));
    over_http2.0.write_all(&head).await.expect("it is read");
    let told = timeout(SOON, async {
        let (mut answered, mut told) = (false, false);
        while let Some(frame) = over_http2.read().await {
            answered |= frame.kind == HEADERS;
            // NO_ERROR: it may have had other requests in progress.
            told |= frame.kind == GOAWAY && frame.payload[4..8] == [0; 4];
            if told && answered {
                break;
            }
        }
        (answered, told)
    });
    assert_eq!(told.await.expect("in time"), (true, true));
    let mut takes_nothing = Raw::connect(inbound).await;
    let window_0 = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    takes_nothing.0.write_all(&[window_0, head].concat()).await.expect("it is read");
    let answers_pings = async {
        while let Some(ping) = takes_nothing.read().await {
            if ping.kind == PING {
                let _ = takes_nothing.0.write_all(&frame(PING, ACK, 0, &ping.payload)).await;
            }
        }
    };
    timeout(SOON, answers_pings).await.expect("it is closed, and does not stay because it takes no answer");

    let answer = call::send(mesh.client().outbound, call::to(TARGET, "/normal").timeout(SOON)).await;
    assert_eq!(answer.expect("an answer").status, 200, "the way out is open");
}

#[tokio::test]
async fn strangers_keep_out_no_mesh_peer_and_close_no_way_out() {
    let mesh = Mesh::start(&[("--max-connections", "20")]).await;
    let configuration = mesh_client::configuration(credentials(&mesh.cluster, "client"));
    let mut crowd = Vec::new();
    for workload in [mesh.target(), mesh.client()] {
        for _ in 0..40 {
            // Some say nothing, some have been answered, and some are in the middle of something.
            crowd.push(sent(workload.inbound, b"").await);
            crowd.push(sent(workload.inbound, GET.as_bytes()).await);
            crowd.push(sent(workload.inbound, b"GET / HTTP/1.1\r\nhost: ").await);
            crowd.push(
                sent(workload.inbound, b"POST / HTTP/1.1\r\nhost: target:9080\r\ncontent-length: 9\r\n\r\n")
                    .await,
            );
            crowd.push(sent(workload.inbound, &[0x16, 3, 1, 0x20, 0]).await);
        }
    }

    for _ in 0..10 {
        a_new_peer_is_served(&configuration, mesh.target()).await;
        let answer = call::send(mesh.client().outbound, call::to(TARGET, "/normal").timeout(SOON)).await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    drop(crowd);
}

#[tokio::test]
async fn heads_that_do_not_end_count_and_the_oldest_is_refused_first() {
    let mesh = Mesh::start(&[("--buffer-budget", "1")]).await;
    let start = format!("GET /normal HTTP/1.1\r\nhost: target:9080\r\nx: {}", "y".repeat(50_000));
    for (listener, address) in mesh.listeners() {
        let mut slow = Vec::new();
        for _ in 0..40 {
            slow.push(sent(address, start.as_bytes()).await);
        }

        // There is room for twenty at the most.
        for oldest in &mut slow[..20] {
            let answer = rest(oldest, SOON).await.expect("it is refused");
            assert!(answer.starts_with("HTTP/1.1 503 "), "{listener}: {answer}");
            assert!(
                answer.contains("selvedge-error: overflow: ") && answer.contains("--buffer-budget"),
                "{answer}"
            );
        }
        let newest = slow.last_mut().expect("there are some");
        newest.write_all(b"\r\nconnection: close\r\n\r\n").await.expect("it is open");
        let answer = rest(newest, SOON).await.expect("it is answered");
        assert!(answer.starts_with("HTTP/1.1 200 "), "{listener}: {answer}");
        drop(slow);
        mesh.is_well().await;
    }
}

#[tokio::test]
async fn hellos_that_do_not_end_count_and_the_oldest_is_closed_first() {
    let mesh = Mesh::start(&[("--buffer-budget", "1")]).await;
    let configuration = mesh_client::configuration(credentials(&mesh.cluster, "client"));
    // A handshake message of 64 KiB, in records of 16,000 bytes.
    let mut hello = Vec::new();
    for number in 0..3 {
        hello.extend([0x16, 3, 1, 0x3E, 0x80]);
        let body = [if number == 0 { &[1, 0, 0xFF, 0][..] } else { &[0; 4] }, &[0; 15_996]].concat();
        hello.extend(body);
    }
    let mut slow = Vec::new();
    for _ in 0..40 {
        slow.push(sent(mesh.target().inbound, &hello).await);
    }

    poll(SOON, "the oldest are closed", async || {
        let mut open = 0;
        for client in &mut slow[..10] {
            open += usize::from(!is_closed(client).await);
        }
        if open == 0 { Ok(()) } else { Err(format!("{open} of 10 are open")) }
    })
    .await;
    assert!(!is_closed(slow.last_mut().expect("there are some")).await, "there is room for the newest");
    drop(slow);
    a_new_peer_is_served(&configuration, mesh.target()).await;
    mesh.is_well().await;
}

#[tokio::test]
async fn http2_frames_that_do_not_end_count_and_the_oldest_is_closed_first() {
    let mesh = Mesh::start(&[("--buffer-budget", "1")]).await;
    // A frame of 250,000 bytes of which 100,000 come. Of a head, each byte may stand for a whole field.
    let unknown = [&[0x03, 0xD0, 0x90, 0x55, 0, 0, 0, 0, 0][..], &[0; 100_000]].concat();
    let whole_head = [&[0x03, 0xD0, 0x90, 1, 4, 0, 0, 0, 1][..], &[0; 100_000]].concat();
    let many_fields = [&[0, 0x27, 0x10, 1, 0, 0, 0, 0, 1][..], &[0x90; 10_000]].concat();
    for (listener, address) in mesh.listeners() {
        for begun in [&unknown, &whole_head, &many_fields] {
            let start = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &begun[..]].concat();
            let mut slow = Vec::new();
            for _ in 0..40 {
                slow.push(sent(address, &start).await);
            }

            poll(SOON, "the oldest are closed", async || {
                let mut open = 0;
                for client in &mut slow[..25] {
                    open += usize::from(!is_closed(client).await);
                }
                if open == 0 { Ok(()) } else { Err(format!("{listener}: {open} of 25 are open")) }
            })
            .await;
            assert!(!is_closed(slow.last_mut().expect("there are some")).await, "{listener}");
            mesh.is_served().await;
            drop(slow);
        }
    }
    poll(SOON, "all is given back", async || {
        let mut held = 0.0;
        for workload in [mesh.client(), mesh.target()] {
            let gauge =
                workload.metric("selvedge_buffered_bytes").await.map_err(|error| error.to_string())?;
            held += gauge.ok_or("no such metric")?;
        }
        if held == 0.0 { Ok(()) } else { Err(format!("{held} bytes are held")) }
    })
    .await;
}
