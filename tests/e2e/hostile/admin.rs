//! Strangers at the admin ports of both daemons: whatever they do there, probes are answered, since one that is not
//! has the pod restarted.

use std::net::{Ipv4Addr, SocketAddr};

use selvedge_demo::call;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, Instant, timeout},
};

use super::{Mesh, SOON, resident_mib};

/// How long a probe may take. The kubelet waits for one second; a machine that tests many things at once is slower.
const PROBE_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection from one of many addresses of loopback.
pub(super) async fn from_address(number: u32, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let address = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 251, 0, 1)) + number % 60_000);
    socket.bind((address, 0).into())?;
    socket.connect(to).await
}

/// `count` connections from as many addresses, each with `sent` said.
async fn strangers(to: SocketAddr, count: u32, sent: &str) -> Vec<TcpStream> {
    let mut strangers = Vec::new();
    for number in 0..count {
        let Ok(mut stream) = from_address(number, to).await else { continue };
        // One whose place has been given away says so.
        let _ = stream.write_all(sent.as_bytes()).await;
        strangers.push(stream);
    }
    strangers
}

impl Mesh {
    /// The admin ports of both daemons.
    async fn admins(&self) -> [(&'static str, SocketAddr, u32); 2] {
        let control_plane = self.cluster.control_plane_process().expect("it was started");
        let address = control_plane.listener("admin", SOON).await.expect("it listens");
        let sidecar = self.target().sidecar_process().expect("it was started");
        [("sidecar", self.target().admin, sidecar.pid()), ("control plane", address, control_plane.pid())]
    }
}

/// Probes as the kubelet makes them, again and again.
async fn are_probed(name: &str, admin: SocketAddr, times: u32) {
    for path in ["/live", "/ready"] {
        for _ in 0..times {
            let began = Instant::now();
            let answer = call::send(admin, call::to(&admin.to_string(), path).timeout(PROBE_TIMEOUT)).await;
            let answer =
                answer.unwrap_or_else(|error| panic!("{name}, after {:?}: {error}", began.elapsed()));
            assert_eq!(answer.status, 200, "{name} {path}: {}", answer.summary());
        }
    }
}

#[tokio::test]
async fn probes_are_answered_while_strangers_say_nothing_or_do_not_come_to_an_end() {
    let mesh = Mesh::start(&[]).await;
    for (name, admin, _) in mesh.admins().await {
        for sent in
            ["", "GET /live HTTP/1.1\r\nHost: a\r\nx: ", "POST /live HTTP/1.1\r\nContent-Length: 99\r\n\r\n"]
        {
            // More than there are places, and as many as may wait to be let in.
            let _held = strangers(admin, 3_000, sent).await;
            are_probed(name, admin, 10).await;
        }
    }
}

#[tokio::test]
async fn who_says_nothing_or_too_slowly_is_closed() {
    let mesh = Mesh::start(&[]).await;
    for (_, admin, _) in mesh.admins().await {
        let mut silent = TcpStream::connect(admin).await.unwrap();
        let slow = TcpStream::connect(admin).await.unwrap();
        let (mut reads, mut writes) = slow.into_split();
        let dripping = async {
            while writes.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let ends = async {
            let mut rest = Vec::new();
            // Closed, or reset: there was something that nobody has read.
            let _ = timeout(SOON, reads.read_to_end(&mut rest)).await.expect("the slow one is closed");
            let _ = timeout(SOON, silent.read_to_end(&mut rest)).await.expect("the silent one is closed");
        };
        // Whichever of its ends sees it first, the slow one is closed; and in any case the silent one.
        tokio::join!(dripping, ends);
    }
}

#[tokio::test]
async fn answers_that_nobody_reads_hold_up_no_probe_and_no_memory() {
    let mesh = Mesh::start(&[]).await;
    for (name, admin, pid) in mesh.admins().await {
        let before = resident_mib(pid);
        let many = "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n".repeat(200);

        let _held = strangers(admin, 400, &many).await;

        are_probed(name, admin, 10).await;
        let after = resident_mib(pid);
        assert!(after < before + 64, "{name}: {before} MiB, then {after}");
    }
}

/// About how many connections come each second. Without optimization and beside other tests, a daemon takes no more than some
/// 3,000; beyond that it is the flood's queue that probes would wait in, on the machine and not in the daemon.
const RATE: u32 = 2_000;

#[tokio::test]
async fn probes_are_answered_while_thousands_of_connections_come_each_second() {
    let mesh = Mesh::start(&[]).await;
    for (name, admin, pid) in mesh.admins().await {
        let before = resident_mib(pid);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let flood = std::thread::spawn(move || flood(admin, &stopped));

        are_probed(name, admin, 40).await;

        drop(stop);
        let sent = flood.join().unwrap();
        let after = resident_mib(pid);
        println!("{name}: {sent} connections, {before} MiB, then {after}");
        assert!(after < before + 64, "{name}: {before} MiB, then {after}");
    }
}

/// Silent connections, of which the newest hundred stay open, until it is to stop; returns how many there were.
fn flood(to: SocketAddr, stopped: &std::sync::mpsc::Receiver<()>) -> u32 {
    let (began, mut held) = (std::time::Instant::now(), std::collections::VecDeque::new());
    for number in 0.. {
        held.extend(std::net::TcpStream::connect_timeout(&to, Duration::from_millis(100)));
        if held.len() > 100 {
            held.pop_front();
        }
        // Not a state to wait for: the pace of the flood.
        let pause = (Duration::from_secs(1) / RATE * number).saturating_sub(began.elapsed());
        let stop = stopped.recv_timeout(pause);
        if stop == Err(std::sync::mpsc::RecvTimeoutError::Disconnected) {
            return number;
        }
    }
    0
}
