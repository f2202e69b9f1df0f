//! More than there is room for: refused at once and counted, until there is room again.

use std::io::ErrorKind;

use selvedge_demo::call;
use selvedge_tests::poll;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::{
    Mesh, SOON, TARGET,
    http2::{END_HEADERS, END_STREAM, HEADERS, Raw, SETTINGS, block, frame},
};

/// Longer than a connection may hold too much ([`selvedge_proxy::budget::PATIENCE`]).
const LATER: Duration = Duration::from_secs(30);

#[tokio::test]
async fn what_nobody_reads_is_held_up_to_a_budget_and_then_let_go() {
    let mesh = Mesh::start(&[("--buffer-budget", "1")]).await;
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
    let held = mesh.client().metric("selvedge_buffered_bytes").await.expect("metrics").expect("a gauge");
    assert!(held > 1_048_576.0 && held < 16_000_000.0, "{held}");

    poll(LATER, "they are served again", async || {
        let answer = call::send(outbound, call::to(TARGET, "/normal").timeout(SOON)).await;
        let answer = answer.map_err(|error| error.to_string())?;
        if answer.status == 200 { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    let metrics = mesh.client().admin("/metrics").await.expect("metrics").text();
    for action in ["refused-request", "closed-connection"] {
        let line = format!("selvedge_buffer_overflows_total{{action=\"{action}\"}} ");
        let counted = metrics.lines().find_map(|text| text.strip_prefix(&line)).expect("it is counted");
        assert_ne!(counted, "0", "{action}");
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
