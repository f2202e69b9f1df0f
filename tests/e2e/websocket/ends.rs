//! What ends an open WebSocket: silence, a policy, draining.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use selvedge_demo::workload::sum_of;
use selvedge_tests::{SOON, policies::peer_authentication, poll};
use tokio::net::TcpStream;

use super::{handshake, opened_raw};
use crate::raw::{Around, CALLERS, SERVER};

#[tokio::test]
async fn a_silent_websocket_ends_after_its_limit_and_is_counted() {
    let around = Around::with(&[("--websocket-idle-timeout", "3s")]).await;
    for caller in CALLERS {
        let (mut client, mut app) = opened_raw(&around, caller).await;
        client.send("four").await;
        assert_eq!(app.exactly(4).await, "four");
        app.send("seventh").await;
        assert_eq!(client.exactly(7).await, "seventh");
        let open = async || {
            around.mesh.workload(caller).metric("selvedge_outbound_websocket_connections_open").await
        };
        assert_eq!(open().await.unwrap(), Some(1.0));

        assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()), "{caller}");

        poll(SOON, &format!("{caller} has counted it"), async || {
            let metrics = around.mesh.workload(caller).admin("/metrics").await;
            let metrics = metrics.map_err(|error| error.to_string())?.text();
            let wrong = [
                ("connections_open", 0.0),
                ("connections_opened_total", 1.0),
                ("connections_closed_total", 1.0),
                ("received_bytes_total", 4.0),
                ("sent_bytes_total", 7.0),
            ]
            .into_iter()
            .find(|(name, value)| {
                sum_of(&metrics, &format!("selvedge_outbound_websocket_{name}")) != Some(*value)
            });
            wrong.map_or(Ok(()), |(name, value)| Err(format!("{name} is not {value} in {metrics}")))
        })
        .await;
    }
}

#[tokio::test]
async fn a_policy_that_comes_to_forbid_a_websockets_client_ends_it() {
    let around = Around::new().await;
    let mut client = around.plain_client().await;
    let mut app = handshake(&around, &mut client).await;
    let (mut of_the_mesh, mut its_app) = opened_raw(&around, CALLERS[1]).await;

    let strict = peer_authentication(Some("app"), "STRICT");
    around.mesh.write("policy.yaml", &strict).unwrap();

    assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()));
    let server = around.mesh.workload(SERVER);
    poll(SOON, "its end is counted", async || {
        let metrics = server.admin("/metrics").await.map_err(|error| error.to_string())?.text();
        let closed = metrics.lines().find(|line| {
            line.starts_with("selvedge_inbound_websocket_connections_closed_total{")
                && line.contains("error_type=\"policy\"")
        });
        if closed.is_some_and(|line| line.ends_with(" 1")) { Ok(()) } else { Err(metrics) }
    })
    .await;

    // Who may come in is not disturbed.
    of_the_mesh.send("still here").await;
    assert_eq!(its_app.exactly(10).await, "still here");
}

#[tokio::test]
async fn an_open_websocket_counts_and_has_the_drain_timeout_to_end() {
    let around = Around::new().await;
    for caller in CALLERS {
        let (mut client, mut app) = opened_raw(&around, caller).await;
        let workload = around.mesh.workload(caller);
        poll(SOON, "the WebSocket is in flight", async || {
            let endpoints = workload.admin_json("/endpoints").await.map_err(|error| error.to_string())?;
            let busy = endpoints.as_array().into_iter().flatten().any(|endpoint| endpoint["in_flight"] == 1);
            if busy { Ok(()) } else { Err(endpoints.to_string()) }
        })
        .await;
        drop((client.finish().await, app.finish().await));
        assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()));
    }

    let (mut client, mut app) = opened_raw(&around, CALLERS[0]).await;
    let sidecar = around.mesh.workload(SERVER).sidecar_process().unwrap();
    let began = Instant::now();
    sidecar.signal(Signal::TERM).unwrap();
    poll(SOON, "the sidecar drains", async || {
        match TcpStream::connect(around.mesh.workload(SERVER).inbound).await {
            Ok(_) => Err("it still accepts connections"),
            Err(_) => Ok(()),
        }
    })
    .await;
    client.send("still here").await;
    assert_eq!(app.exactly(10).await, "still here");
    assert_eq!((client.rest().await, app.rest().await), (String::new(), String::new()));
    let status = sidecar.wait(SOON).await.unwrap();

    assert!(status.success(), "{status}");
    assert!(began.elapsed() >= Duration::from_secs(2), "its time: {:?}", began.elapsed());
}
