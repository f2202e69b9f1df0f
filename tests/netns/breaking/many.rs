//! Thousands of short connections.

use std::{io::ErrorKind, net::SocketAddr};

use selvedge_demo::{call, workload::sum_of};
use selvedge_tests::{SOON, poll};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};

use super::{App, mesh};
use crate::{mesh::Workload, rights::netns};

/// Open opaque connections of a workload's sidecar.
async fn open(workload: &Workload, direction: &str) -> f64 {
    let admin = workload.loopback(4191);
    let metrics = workload.call(admin, call::to(&admin.to_string(), "/metrics")).await.unwrap().text();
    sum_of(&metrics, &format!("selvedge_{direction}_tcp_connections_open")).expect("it is counted")
}

async fn many() {
    let mesh = mesh().await;
    let mut app = App::of(mesh.workload("db"));
    let address = app.address;
    let serving = tokio::spawn(async move {
        while let Some(mut stream) = app.accepted.recv().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
    let from = mesh.workload("client");

    let failed = from
        .namespace()
        .run(move || async move {
            let mut tasks = JoinSet::new();
            for _ in 0..16 {
                tasks.spawn(async move {
                    let mut failed = Vec::new();
                    for _ in 0..125 {
                        if let Err(error) = exchange(address).await {
                            failed.push(error.to_string());
                        }
                    }
                    failed
                });
            }
            tasks.join_all().await.concat()
        })
        .await;

    assert!(failed.is_empty(), "{} of 2000 connections failed: {:?}", failed.len(), failed.first());
    for (workload, direction) in [("client", "outbound"), ("db", "inbound")] {
        poll(SOON, &format!("{workload}'s sidecar has let go of all of them"), async || {
            let open = open(mesh.workload(workload), direction).await;
            if open == 0.0 { Ok(()) } else { Err(format!("{open} open")) }
        })
        .await;
    }
    serving.abort();
}

async fn exchange(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\0hello").await?;
    stream.shutdown().await?;
    let mut heard = Vec::new();
    timeout(SOON, stream.read_to_end(&mut heard)).await??;
    if heard == b"\0hello" { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

#[test]
fn thousands_of_short_connections_all_come_through_and_leave_nothing_behind() {
    netns(many);
}
