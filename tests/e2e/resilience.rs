//! Failures that callers do not see, and those that they do, in the words of the proxy.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use selvedge_demo::{
    call,
    load::{Plan, Report},
    workload::Spec,
};
use selvedge_tests::{Mesh, SOON, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
};

use crate::SELVEDGE;

fn two_servers() -> [Spec; 3] {
    [
        Spec::client("caller"),
        Spec::server("reviews-a", "reviews", 9080),
        Spec::server("reviews-b", "reviews", 9080),
    ]
}

fn route(rule: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  \
         hosts: [reviews]\n  http:\n    - route: [{{destination: {{host: reviews}}}}]\n      {rule}\n"
    )
}

fn nothing_failed(report: &Report) {
    assert_eq!(report.failed(), 0, "{}", report.summary());
}

#[tokio::test]
async fn what_never_reached_an_app_is_sent_to_another_whatever_its_method() {
    let mut mesh = Mesh::of(SELVEDGE, two_servers()).await;
    let caller = mesh.workload("caller");
    let before = caller.call(call::to("reviews:9080", "/echo").body("once")).await.unwrap();
    assert_eq!(before.body, "once");

    mesh.kill_app("reviews-a").await.unwrap();

    let caller = mesh.workload("caller");
    for n in 0..50 {
        let body = format!("round {n}");
        let answer = caller.call(call::to("reviews:9080", "/echo").body(body.clone())).await.unwrap();
        assert_eq!((answer.status.as_u16(), answer.text()), (200, body), "{}", answer.summary());
    }
}

#[tokio::test]
async fn a_killed_sidecar_under_load_of_gets_fails_no_request() {
    let mesh = Mesh::of(SELVEDGE, two_servers()).await;
    let caller = mesh.workload("caller");
    let load = Plan::new(caller.outbound, "reviews:9080").keys(&["pod"]).pace(300.0).start();
    poll(SOON, "both answer", async || {
        let counts = load.look(|report| [report.count("pod", "reviews-a"), report.count("pod", "reviews-b")]);
        if counts.iter().all(|count| *count > 20) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;

    mesh.workload("reviews-a").sidecar_process().unwrap().kill().await.unwrap();
    let from = load.look(|report| report.count("pod", "reviews-b"));
    poll(SOON, "the other one serves on", async || {
        let count = load.look(|report| report.count("pod", "reviews-b"));
        if count > from + 300 { Ok(()) } else { Err(count) }
    })
    .await;

    nothing_failed(&load.stop().await);
}

#[tokio::test]
async fn an_app_that_is_down_is_named_if_there_is_no_other() {
    let specs = [Spec::client("caller"), Spec::server("reviews-a", "reviews", 9080)];
    let mut mesh = Mesh::of(SELVEDGE, specs).await;
    mesh.kill_app("reviews-a").await.unwrap();

    let answer = mesh.workload("caller").call(call::to("reviews:9080", "/")).await.unwrap();

    assert_eq!(answer.status, 503);
    assert!(answer.proxy_error().unwrap().starts_with("app-unreachable"), "{}", answer.summary());
}

#[tokio::test]
async fn the_time_limit_of_a_route_ends_a_slow_request() {
    let mesh = Mesh::of(SELVEDGE, two_servers()).await;
    mesh.write("route.yaml", &route("timeout: 1s")).unwrap();

    only_slow_requests_end(&mesh).await;
}

/// A time limit is in effect that a request of 3 s exceeds, and one of 10 ms does not.
async fn only_slow_requests_end(mesh: &Mesh) {
    let caller = mesh.workload("caller");
    poll(SOON, "the time limit is in effect", async || {
        let answer = caller.call(call::to("reviews:9080", "/?delay=3s")).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let in_time =
            answer.status == 504 && answer.proxy_error().is_some_and(|reason| reason.starts_with("timeout"));
        if in_time { Ok(()) } else { Err(answer.summary()) }
    })
    .await;

    let quick = caller.call(call::to("reviews:9080", "/?delay=10ms")).await.unwrap();

    assert_eq!(quick.status, 200, "{}", quick.summary());
}

#[tokio::test]
async fn a_sidecar_with_two_workers_serves_and_counts_like_one_with_one() {
    let workers = |spec: Spec| spec.flag("--workers", "2");
    let mesh = Mesh::of(SELVEDGE, two_servers().map(workers)).await;
    let caller = mesh.workload("caller");

    let report = Plan::new(caller.outbound, "reviews:9080").connections(16).requests(1000).run().await;

    nothing_failed(&report);
    // The client sees the last answer's end a moment before the sidecars count it.
    poll(SOON, "all are counted, once", async || {
        let mut served = 0.0;
        for server in ["reviews-a", "reviews-b"] {
            let count = mesh.workload(server).metric("selvedge_inbound_requests_total").await;
            served += count.map_err(|error| error.to_string())?.unwrap_or(0.0);
        }
        let sent = caller.metric("selvedge_outbound_requests_total").await;
        let sent = sent.map_err(|error| error.to_string())?.unwrap_or(0.0);
        assert!(sent <= 1000.0 && served <= 1000.0, "{sent} sent, {served} served");
        if (sent, served) == (1000.0, 1000.0) { Ok(()) } else { Err(format!("{sent} sent, {served} served")) }
    })
    .await;
}

#[tokio::test]
async fn the_time_limit_of_an_attempt_ends_it() {
    let mesh = Mesh::of(SELVEDGE, two_servers()).await;
    mesh.write("route.yaml", &route("retries: {attempts: 1, retryOn: connect-failure, perTryTimeout: 1s}"))
        .unwrap();

    only_slow_requests_end(&mesh).await;
}

/// `host` is at `address`, outside the mesh; with this `connectionPool`.
fn outside(host: &str, address: SocketAddr, pool: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec:\n  \
         hosts: [{host}.test]\n  resolution: STATIC\n  ports: [{{number: 80, name: http, targetPort: {}}}]\n  \
         endpoints: [{{address: {}}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: \
         {{name: {host}}}\nspec: {{host: {host}.test, trafficPolicy: {{connectionPool: {pool}}}}}\n",
        address.port(),
        address.ip()
    )
}

#[tokio::test]
async fn the_time_to_connect_is_as_long_as_the_rule_says() {
    let mut mesh = Mesh::empty(SELVEDGE);
    // Whoever takes no connection, and whose queue is full, looks like a host that is not there.
    let address = mesh.ground().socket(202, 9001).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(address).unwrap();
    let _silent = socket.listen(1).unwrap();
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await
    {
        filling.push(stream);
    }
    mesh.write("outside.yaml", &outside("silent", address, "{tcp: {connectTimeout: 300ms}}")).unwrap();
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    let start = Instant::now();
    let answer = mesh.workload("caller").call(call::to("silent.test", "/").timeout(SOON)).await.unwrap();

    assert_eq!(answer.status, 503, "{}", answer.summary());
    assert!(answer.proxy_error().unwrap().starts_with("connect-failure"), "{}", answer.summary());
    // Three attempts; one by the default alone takes 10 s.
    assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
}

/// When the kernel will ask the server at `address` next whether it is there, in seconds, for each connection to it.
fn keepalives(address: SocketAddr) -> Vec<u64> {
    let SocketAddr::V4(address) = address else { panic!("an IPv4 address") };
    let remote = format!("{:08X}:{:04X}", u32::from(*address.ip()).swap_bytes(), address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let timers = table.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // proc(5): 2 is the keep-alive timer, and what follows are hundredths of a second.
        let (kind, left) = words.get(5)?.split_once(':')?;
        (words[2] == remote && kind == "02").then(|| u64::from_str_radix(left, 16).unwrap() / 100)
    });
    timers.collect()
}

#[tokio::test]
async fn the_kernel_asks_whether_a_server_is_there_as_the_rule_says() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [said, unsaid] = [205, 206].map(|host| mesh.ground().socket(host, 9002).unwrap());
    let keepalive = "{tcp: {tcpKeepalive: {probes: 7, time: 20000s, interval: 30s}}}";
    mesh.write("said.yaml", &outside("said", said, keepalive)).unwrap();
    mesh.write("unsaid.yaml", &outside("unsaid", unsaid, "{}")).unwrap();
    let (_said, _unsaid) = (keeping_server(said).await, keeping_server(unsaid).await);
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();

    for host in ["said.test", "unsaid.test"] {
        let answer = mesh.workload("caller").call(call::to(host, "/")).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.summary());
    }

    let [said, unsaid] = [said, unsaid].map(keepalives);
    assert!(matches!(said[..], [19_900..=20_000]), "{said:?}");
    assert!(matches!(unsaid[..], [0..=7200]), "as the proxy's settings say: {unsaid:?}");
}

/// A server that answers every request and keeps its connections, and how many it has taken.
async fn keeping_server(address: SocketAddr) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind(address).await.unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    connections
}

#[tokio::test]
async fn a_connection_takes_no_more_requests_after_its_time() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [ends, lasts] = [203, 204].map(|host| mesh.ground().socket(host, 9002).unwrap());
    mesh.write("ends.yaml", &outside("ends", ends, "{tcp: {maxConnectionDuration: 1s}}")).unwrap();
    mesh.write("lasts.yaml", &outside("lasts", lasts, "{}")).unwrap();
    let (of_one, of_other) = (keeping_server(ends).await, keeping_server(lasts).await);
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller")]).await.unwrap();
    let caller = mesh.workload("caller");

    poll(SOON, "a third connection, one after the other", async || {
        for host in ["ends.test", "lasts.test"] {
            let answer = caller.call(call::to(host, "/")).await.map_err(|error| error.to_string())?;
            assert_eq!(answer.status, 200, "{}", answer.summary());
        }
        let count = of_one.load(Ordering::Relaxed);
        if count >= 3 { Ok(()) } else { Err(format!("{count} connections")) }
    })
    .await;
    assert_eq!(of_other.load(Ordering::Relaxed), 1, "without a limit it is used again and again");
}
