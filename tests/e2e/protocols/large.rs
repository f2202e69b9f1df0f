//! Large bodies pass without being held.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::raw::{APP, Around, CALLERS, LIMIT, SERVER};

/// A body that would not fit into the memory that the sidecars may use.
const LARGE: usize = 100 << 20;

/// By how much a sidecar's memory may have grown at its peak: windows of HTTP/2 both ways.
const GROWTH: u64 = 36 << 20;

#[tokio::test]
async fn large_bodies_pass_without_being_held() {
    let around = Around::new().await;
    let peak = |sidecar| peak_memory(around.mesh.workload(sidecar).sidecar_process().expect("it runs").pid());
    let before = CALLERS.map(peak).into_iter().chain([peak(SERVER)]).min().unwrap_or_default();
    for caller in CALLERS {
        let mut client = around.client(caller).await;
        client.send(format!("POST /x HTTP/1.1\r\nhost: {APP}\r\ncontent-length: {LARGE}\r\n\r\n")).await;
        let mut app = around.accept().await;
        let request = app.head().await;
        assert_eq!(request.header("content-length"), Some(LARGE.to_string().as_str()));

        // Nobody reads at first: whoever writes must come to a halt long before the end.
        let (mut from_client, mut to_client) = (app.stream, client.stream);
        let mut sent = until_it_stops(&mut to_client).await;
        let upload = send(&mut to_client, LARGE - sent);
        let received = whole(upload, read(&mut from_client, LARGE)).await;
        assert_eq!(received, LARGE, "{caller}");

        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\nconnection: close\r\n\r\n");
        from_client.write_all(head.as_bytes()).await.expect("the sidecar takes it");
        sent = until_it_stops(&mut from_client).await;
        let download = send(&mut from_client, LARGE - sent);
        let received = whole(download, read(&mut to_client, LARGE)).await;
        assert!(received >= LARGE, "{caller}: {received} bytes");

        for sidecar in [caller, SERVER] {
            let grown = peak(sidecar) - before;
            assert!(
                grown < GROWTH,
                "{sidecar}: {} MiB more at its peak than the {} at first",
                grown >> 20,
                before >> 20
            );
        }
    }
}

static CHUNK: [u8; 64 << 10] = [b'x'; 64 << 10];

/// Writes until no more is taken; returns how much was.
async fn until_it_stops(to: &mut TcpStream) -> usize {
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), to.write(&CHUNK)).await {
        sent += written.expect("the sidecar takes it");
        assert!(sent < LARGE / 2, "{sent} bytes went to somebody who reads none");
    }
    sent
}

async fn send(to: &mut TcpStream, mut length: usize) {
    while length > 0 {
        length -= to.write(&CHUNK[..CHUNK.len().min(length)]).await.expect("the sidecar takes it");
    }
}

/// Both ends of a transfer; what was received.
pub(super) async fn whole(
    sending: impl Future<Output = ()>,
    receiving: impl Future<Output = usize>,
) -> usize {
    let both = async { tokio::join!(sending, receiving).1 };
    tokio::time::timeout(LIMIT * 6, both).await.expect("100 MiB take no minute")
}

/// Reads at least `length` bytes; returns how many.
pub(super) async fn read(from: &mut TcpStream, length: usize) -> usize {
    let mut buffer = vec![0; 64 << 10];
    let mut received = 0;
    while received < length {
        match from.read(&mut buffer).await.expect("the sidecar sends it") {
            0 => break,
            some => received += some,
        }
    }
    received
}

/// The most memory that a process has had, in bytes (proc(5), `VmHWM`).
fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux says it");
    let kib: u64 = line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number");
    kib << 10
}
