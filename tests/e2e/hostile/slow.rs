//! Clients that take their time, and more of them than there are file descriptors.

use std::net::SocketAddr;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use selvedge_demo::{processes::Process, wait};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use super::{Mesh, SOON};

/// `count` connections that have sent `start`.
async fn clients(address: SocketAddr, count: usize, start: &str) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(address).await.expect("the listener is there");
        client.write_all(start.as_bytes()).await.expect("a new connection");
        clients.push(client);
    }
    clients
}

/// All that comes until the other end closes.
async fn rest(client: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let read = timeout(SOON, client.read_to_end(&mut rest)).await.expect("it is closed in time");
    read.expect("it is closed without an error");
    String::from_utf8_lossy(&rest).into_owned()
}

/// Waits until so much of an answer has arrived that its client holds it up.
async fn full(client: &TcpStream) {
    let mut beginning = vec![0; 64 * 1024];
    wait::until(SOON, "the answer has begun", async || match client.peek(&mut beginning).await {
        Ok(length) if length == beginning.len() => Ok(()),
        Ok(length) => Err(format!("{length} bytes")),
        Err(error) => Err(error.to_string()),
    })
    .await
    .expect("the app answers");
}

#[tokio::test]
async fn heads_that_do_not_come_to_an_end_time_out() {
    let mesh = Mesh::with_gateway(&[("--header-timeout", "1s")]).await;
    for (listener, address) in mesh.listeners() {
        let mut slow = clients(address, 200, "GET /slow HTTP/1.1\r\nHost: target:9080\r\nx: ").await;

        mesh.is_served().await;

        for client in &mut slow {
            let answer = rest(client).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{listener}: {answer}");
            assert!(answer.contains("selvedge-error: request-timeout: "), "{listener}: {answer}");
        }
    }
    assert!(!mesh.app.seen().contains(&"/slow".to_owned()));
    mesh.is_well().await;
}

#[tokio::test]
async fn bodies_that_come_too_slowly_are_refused_and_others_take_their_time() {
    let mesh = Mesh::start(&[("--body-timeout", "3s"), ("--min-body-rate", "1000")]).await;
    let post =
        |path: &str, length: &str| format!("POST /{path} HTTP/1.1\r\nHost: target:9080\r\n{length}\r\n\r\n");
    for (listener, address) in mesh.listeners() {
        let start = post("slow", "Content-Length: 1000000") + "a";
        let mut slow = clients(address, 100, &start).await;
        // These keep the pace, or none is asked of them.
        let mut steady = clients(address, 1, &post("steady", "Content-Length: 8000")).await;
        let mut silent = clients(address, 1, &post("silent", "Transfer-Encoding: chunked")).await;
        // Longer than anybody may be silent.
        for round in 0..8 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            steady[0].write_all(&[b'x'; 1000]).await.expect("it is read");
            if round == 0 {
                for client in &mut slow {
                    client.write_all(b"a").await.expect("its time is not over");
                }
            }
        }

        for client in &mut slow {
            let answer = rest(client).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{listener}: {answer}");
            assert!(answer.contains("selvedge-error: request-timeout: "), "{listener}: {answer}");
        }
        silent[0].write_all(b"0\r\n\r\n").await.expect("it is read");
        for client in steady.iter_mut().chain(&mut silent) {
            let mut answer = vec![0; 12];
            timeout(SOON, client.read_exact(&mut answer)).await.expect("in time").expect("an answer");
            assert_eq!(answer, b"HTTP/1.1 200", "{listener}");
        }
        let mut seen = mesh.app.seen();
        seen.retain(|path| path != "/normal");
        seen.sort();
        assert_eq!(seen, ["/silent", "/steady"], "{listener}");
    }
    mesh.is_well().await;
}

#[tokio::test]
async fn connections_without_requests_are_closed() {
    let mesh = Mesh::with_gateway(&[("--idle-timeout", "1s")]).await;
    for (_, address) in mesh.listeners() {
        let mut client =
            clients(address, 1, "GET /normal HTTP/1.1\r\nHost: target:9080\r\n\r\n").await.remove(0);

        let answer = rest(&mut client).await;

        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "closed without another word");
    }
}

#[tokio::test]
async fn bodies_that_do_not_come_hold_up_nobody_else() {
    let mesh = Mesh::with_gateway(&[]).await;
    for (_, address) in mesh.listeners() {
        let head = "POST /slow HTTP/1.1\r\nHost: target:9080\r\nContent-Length: 1000000\r\n\r\n";
        let mut slow = clients(address, 200, head).await;
        for client in &mut slow {
            client.write_all(b"a").await.expect("nobody has closed it");
        }

        mesh.is_well().await;
    }
    assert!(!mesh.app.seen().contains(&"/slow".to_owned()));
}

#[tokio::test]
async fn answers_that_are_not_read_hold_up_nobody_else() {
    let mesh = Mesh::with_gateway(&[]).await;
    for (_, address) in mesh.listeners() {
        let slow = clients(address, 30, "GET /large HTTP/1.1\r\nHost: target:9080\r\n\r\n").await;
        for client in &slow {
            full(client).await;
        }

        mesh.is_well().await;
    }
}

#[tokio::test]
async fn without_file_descriptors_it_waits_and_recovers() {
    let mesh = Mesh::start(&[]).await;
    for (workload, (listener, address)) in [mesh.client(), mesh.target()].into_iter().zip(mesh.listeners()) {
        let process = workload.sidecar_process().expect("it was started");
        let before = limit_files(process, open_files(process) + 20);
        let waiting = clients(address, 200, "").await;
        exhausted(process).await;

        let spent = processor_ticks(process);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let spent = processor_ticks(process) - spent;

        // Of a hundred in a second.
        assert!(spent < 30, "{listener}: {spent} hundredths of a second of work for nothing");
        assert!(process.exit().is_none(), "{listener}: it ended");
        drop(waiting);
        mesh.is_served().await;
        prlimit(pid(process), Resource::Nofile, before).expect("it was so before");
        mesh.is_well().await;
    }
}

fn pid(process: &Process) -> Option<Pid> {
    Pid::from_raw(process.pid().cast_signed())
}

/// Lets `process` have `limit` files; returns what it could have before.
fn limit_files(process: &Process, limit: u64) -> Rlimit {
    let maximum = rustix::process::getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(limit), maximum };
    prlimit(pid(process), Resource::Nofile, limit).expect("a child of ours")
}

fn open_files(process: &Process) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).expect("it runs").count();
    u64::try_from(files).expect("64 bits")
}

/// Waits until `process` says that it cannot accept.
async fn exhausted(process: &Process) {
    wait::until(SOON, "no file descriptor is left", async || match process.whole_log() {
        Ok(log) if log.contains("cannot accept connections") => Ok(()),
        Ok(log) => Err(log.lines().last().unwrap_or("nothing").to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await
    .expect("it is told");
}

/// Hundredths of a second that `process` has worked.
fn processor_ticks(process: &Process) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).expect("it runs");
    let (_, after_name) = stat.rsplit_once(')').expect("proc(5)");
    let fields: Vec<_> = after_name.split_whitespace().collect();
    // Fields 14 and 15 of proc(5), of which the first two are gone.
    [11, 12].iter().map(|&place| fields[place].parse::<u64>().expect("a number")).sum()
}
