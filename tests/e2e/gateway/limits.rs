//! What one client's address may take of a gateway, while others are served.

use std::net::SocketAddr;

use selvedge_demo::{apps::reviews, call, workload::sum_of};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::{Duration, timeout},
};

use super::{
    gateway as gateway_of, http_listener,
    tls::{Pair, ask, listener, mesh_with, own, reviews_as, route, secret, served},
};

const HOST: &str = "one.test";

/// Half a request: its body does not come.
const SLOW: &[u8] = b"POST / HTTP/1.1\r\nhost: one.test\r\ncontent-length: 100\r\n\r\na";

async fn before_reviews(root: &Pair, flags: &[&str]) -> (Mesh, Gateway) {
    let listeners = format!("{}, {}", http_listener("http", 80), listener("HTTPS", "one", HOST));
    let documents = [
        secret("one", root, root),
        reviews_as("one", "two"),
        gateway_of(&listeners),
        route("HTTPRoute", "one", "http", "").replace("sectionName: http", ""),
    ];
    let (mesh, gateway) = mesh_with(&documents.concat(), "default/edge", flags).await;
    served(&gateway, HOST, root, None).await;
    (mesh, gateway)
}

/// Connections from `from`, each of which has sent `first`.
async fn crowd(from: &str, at: SocketAddr, first: &[u8], count: usize) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
        // It may be turned away before its own call is over.
        let Ok(mut stream) = socket.connect(at).await else { continue };
        if stream.write_all(first).await.is_ok() {
            crowd.push(stream);
        }
    }
    crowd
}

/// How many of `crowd` are open.
async fn open(crowd: &mut [TcpStream]) -> usize {
    let mut open = 0;
    for stream in crowd {
        open += usize::from(timeout(Duration::from_millis(1), stream.read(&mut [0])).await.is_err());
    }
    open
}

/// Waits until at most `most` of `crowd` are open, and at least one is.
async fn shrinks(crowd: &mut [TcpStream], most: usize) {
    poll(SOON, "the others are refused", async || match open(crowd).await {
        left if (1..=most).contains(&left) => Ok(()),
        left => Err(format!("{left} are open")),
    })
    .await;
}

/// An honest client is served on both listeners.
async fn serves(gateway: &Gateway, root: &Pair) {
    let plain = gateway.call(80, call::to(HOST, "/")).await.unwrap();
    assert_eq!(plain.status, 200, "{}", plain.summary());
    let tls = ask(gateway, HOST, root, None, call::to(HOST, "/")).await.unwrap();
    assert_eq!(tls.status, 200, "{}", tls.summary());
}

async fn refusals(gateway: &Gateway) -> f64 {
    counted(gateway, "selvedge_gateway_client_limit_refusals_total ").await
}

async fn counted(gateway: &Gateway, name: &str) -> f64 {
    let metrics = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
    metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok()).unwrap()
}

/// A request of which no other follows on its connection.
fn last(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: one.test\r\n{more}connection: close\r\n\r\n")
}

/// The answer to `request` from `from`; empty: the connection was reset.
async fn answer(from: &str, at: SocketAddr, request: &str) -> String {
    let mut answer = Vec::new();
    if let Some(mut stream) = crowd(from, at, request.as_bytes(), 1).await.pop() {
        let _ = timeout(SOON, stream.read_to_end(&mut answer)).await.unwrap();
    }
    String::from_utf8(answer).unwrap()
}

/// Asks from `from` until an answer is such.
async fn until(from: &str, at: SocketAddr, request: &str, is_so: impl Fn(&str) -> bool) -> String {
    poll(SOON, "an answer is such", async || {
        let answer = answer(from, at, request).await;
        if is_so(&answer) { Ok(answer) } else { Err(answer) }
    })
    .await
}

fn is_good(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 200")
}

fn is_too_many(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 429")
}

#[tokio::test]
async fn a_client_sends_no_more_requests_in_a_second_than_it_may() {
    let root = own(HOST);
    let flags = ["--max-request-rate-per-client=2", "--proxy-protocol-from=127.0.0.9"];
    let (_mesh, gateway) = before_reviews(&root, &flags).await;

    let refused = until("127.0.0.2", gateway.at(80), &last(""), is_too_many).await;
    for says in ["selvedge-error: rate-limit", "retry-after: 1", "x-ratelimit-limit: 2"] {
        assert!(refused.contains(says), "{refused}");
    }
    assert!(is_good(&answer("127.0.0.3", gateway.at(80), &last("")).await), "another client is served");
    until("127.0.0.2", gateway.at(80), &last(""), is_good).await;
    // Whom a load balancer names is the client, and a network of IPv6 is one.
    let through = |client: &str| format!("PROXY TCP6 {client} ::1 50000 80\r\n{}", last(""));
    let crowded =
        async |client: &str| until("127.0.0.9", gateway.at(80), &through(client), is_too_many).await;
    crowded("2001:db8::1").await;
    assert!(is_good(&answer("127.0.0.9", gateway.at(80), &through("2001:db8:0:1::1")).await));
    crowded("2001:db8::2").await;

    assert!(counted(&gateway, "selvedge_gateway_client_rate_refusals_total ").await >= 3.0);
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("requests refused: their client sends more in a second than it may"), "{log}");
    assert!(log.contains("--max-request-rate-per-client"), "{log}");
}

#[tokio::test]
async fn behind_trusted_proxies_each_client_that_they_name_has_its_own_rate() {
    let root = own(HOST);
    let (_mesh, gateway) =
        before_reviews(&root, &["--max-request-rate-per-client=2", "--trusted-hops=1"]).await;
    let of = |client: &str| last(&format!("x-forwarded-for: 192.0.2.99, {client}\r\n"));

    until("127.0.0.2", gateway.at(80), &of("192.0.2.1"), is_too_many).await;

    assert!(is_good(&answer("127.0.0.2", gateway.at(80), &of("192.0.2.2")).await));
}

#[tokio::test]
async fn a_client_opens_no_more_connections_in_a_second_than_it_may() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root, &["--max-connection-rate-per-client=3"]).await;

    until("127.0.0.2", gateway.at(80), &last(""), str::is_empty).await;

    assert!(is_good(&answer("127.0.0.3", gateway.at(80), &last("")).await), "another client is served");
    until("127.0.0.2", gateway.at(80), &last(""), is_good).await;
    assert!(refusals(&gateway).await >= 1.0);
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("as many have come in this second from 127.0.0.2 as one may have"), "{log}");
    assert!(log.contains("--max-connection-rate-per-client"), "{log}");
}

/// As it is without any setting: connections take turns.
#[tokio::test]
async fn a_flood_of_requests_from_one_address_keeps_nobody_from_being_served() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root, &[]).await;
    let at = gateway.at(80);
    let flood: Vec<_> = (0..64)
        .map(|_| {
            tokio::spawn(async move {
                let request = b"GET / HTTP/1.1\r\nhost: one.test\r\n\r\n".repeat(16);
                loop {
                    let Some(stream) = crowd("127.0.0.2", at, &request, 1).await.pop() else { continue };
                    let (mut read, mut write) = stream.into_split();
                    let sending = async { while write.write_all(&request).await.is_ok() {} };
                    let mut sink = tokio::io::sink();
                    let reading = tokio::io::copy(&mut read, &mut sink);
                    tokio::select! { () = sending => {}, _ = reading => {} }
                }
            })
        })
        .collect();

    for _ in 0..20 {
        let answer = timeout(SOON, answer("127.0.0.3", at, &last(""))).await.expect("served in time");
        assert!(is_good(&answer), "{answer}");
    }
    assert!(flood.iter().all(|one| !one.is_finished()));
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn clients_that_take_what_they_can_get_leave_places_for_others() {
    let root = own(HOST);
    // Of which 300 are for clients without certificates.
    let (_mesh, gateway) = before_reviews(&root, &["--max-connections=400"]).await;

    let mut first = crowd("127.0.0.2", gateway.at(80), SLOW, 400).await;
    shrinks(&mut first, 240).await;
    serves(&gateway, &root).await;
    let second = crowd("127.0.0.3", gateway.at(80), SLOW, 200).await;
    serves(&gateway, &root).await;
    let third = crowd("127.0.0.4", gateway.at(80), SLOW, 200).await;
    serves(&gateway, &root).await;

    assert!(refusals(&gateway).await >= 400.0);
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("connection refused: as many are open from 127.0.0.2 as one may have"), "{log}");
    assert!(log.contains("--max-connections-per-client"), "{log}");
    drop((first, second, third));
    poll(SOON, "what was taken is free again", async || {
        match open(&mut crowd("127.0.0.2", gateway.at(80), SLOW, 20).await).await {
            20 => Ok(()),
            left => Err(format!("{left} are open")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_limit_that_is_set_holds_for_each_address_by_itself() {
    let root = own(HOST);
    let flags = ["--max-connections-per-client=5", "--proxy-protocol-from=127.0.0.9"];
    let (_mesh, gateway) = before_reviews(&root, &flags).await;

    let mut direct = crowd("127.0.0.2", gateway.at(80), SLOW, 20).await;
    shrinks(&mut direct, 5).await;
    assert_eq!(open(&mut direct).await, 5);
    // Clients of one load balancer are told apart, and those of one IPv6 network are not.
    let through = async |client: &str, count: usize| {
        let header = format!("PROXY TCP6 {client} ::1 50000 80\r\n");
        let first = [header.as_bytes(), SLOW].concat();
        crowd("127.0.0.9", gateway.at(80), &first, count).await
    };
    let mut one = through("2001:db8::1", 10).await;
    shrinks(&mut one, 5).await;
    let mut neighbour = through("2001:db8::2", 5).await;
    poll(SOON, "its network has as many already", async || match open(&mut neighbour).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    let mut other = through("2001:db8:0:1::1", 5).await;
    serves(&gateway, &root).await;
    assert_eq!((open(&mut one).await, open(&mut other).await), (5, 5));
}

#[tokio::test]
async fn handshakes_that_do_not_come_to_an_end_are_few_for_each_address() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root, &["--max-handshakes-per-client=5"]).await;

    for (from, first) in [("127.0.0.2", &b""[..]), ("127.0.0.3", &[0x16, 3, 1, 0, 200, 1])] {
        let mut half_open = crowd(from, gateway.at(443), first, 30).await;
        shrinks(&mut half_open, 5).await;
        serves(&gateway, &root).await;
    }
    // Whoever has ended its handshake does not count.
    let kept = crowd("127.0.0.4", gateway.at(80), SLOW, 20).await;
    poll(SOON, "they are in progress", async || {
        let open = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
        let open = open
            .lines()
            .find_map(|line| line.strip_prefix("selvedge_inbound_connections_open ")?.parse().ok());
        if open >= Some(5_u64) { Ok(()) } else { Err(format!("{open:?}")) }
    })
    .await;
    drop(kept);
    let answer = gateway.call(80, call::to(HOST, "/")).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().version, "v1");
}

#[tokio::test]
async fn a_port_that_is_flooded_from_many_addresses_leaves_places_at_another() {
    let root = own(HOST);
    // Of which 300 are for clients without certificates.
    let (_mesh, gateway) = before_reviews(&root, &["--max-connections=400"]).await;

    let mut all = Vec::new();
    for address in 2..120 {
        all.extend(crowd(&format!("127.0.1.{address}"), gateway.at(80), SLOW, 4).await);
    }
    shrinks(&mut all, 240).await;

    let tls = ask(&gateway, HOST, &root, None, call::to(HOST, "/")).await.unwrap();
    assert_eq!(tls.status, 200, "{}", tls.summary());
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("connection refused: as many are open to port 80 as one may have"), "{log}");
}

#[tokio::test]
async fn idle_connections_of_an_address_make_room_for_its_next_ones() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root, &["--max-connections-per-client=5"]).await;
    let request = b"GET / HTTP/1.1\r\nhost: one.test\r\n\r\n";
    let mut idle = Vec::new();
    for _ in 0..5 {
        let mut stream = crowd("127.0.0.2", gateway.at(80), request, 1).await.remove(0);
        let mut answer = vec![0; 1 << 16];
        assert!(timeout(SOON, stream.read(&mut answer)).await.unwrap().unwrap() > 0);
        idle.push(stream);
    }

    // Once the gateway has noticed that an answer is over, its connection is idle.
    poll(SOON, "another one is served", async || {
        let mut stream = crowd("127.0.0.2", gateway.at(80), request, 1).await.pop().ok_or("refused")?;
        let mut answer = vec![0; 12];
        match timeout(SOON, stream.read_exact(&mut answer)).await {
            Ok(Ok(_)) if answer == b"HTTP/1.1 200" => Ok(()),
            _ => Err("not served"),
        }
    })
    .await;

    assert!(open(&mut idle).await < 5, "one of them has gone");
}

#[tokio::test]
async fn a_client_that_sends_slowly_has_no_endpoint_ejected() {
    let ejects = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: one}\n\
        spec: {host: one, trafficPolicy: {outlierDetection: {consecutive5xxErrors: 1, consecutiveGatewayErrors: 1, \
        baseEjectionTime: 60s, maxEjectionPercent: 100}}}\n---\n";
    let limited =
        route("HTTPRoute", "one", "http", "").replace("rules: [{", "rules: [{timeouts: {request: 500ms}, ");
    let documents =
        [reviews_as("one", "two"), gateway_of(&http_listener("http", 80)), ejects.to_owned(), limited];
    let (_mesh, gateway) = mesh_with(&documents.concat(), "default/edge", &[]).await;
    let get = async || gateway.call(80, call::to(HOST, "/")).await.map_err(|error| error.to_string());
    poll(SOON, "the gateway serves", async || match get().await? {
        answer if answer.status.is_success() => Ok(()),
        answer => Err(answer.summary()),
    })
    .await;

    for _ in 0..3 {
        let mut slow = crowd("127.0.0.2", gateway.at(80), SLOW, 1).await.pop().unwrap();
        let mut read = [0; 12];
        timeout(SOON, slow.read_exact(&mut read)).await.expect("in time").unwrap();
        assert_eq!(&read, b"HTTP/1.1 504");
    }

    let answer = get().await.unwrap();
    assert!(answer.status.is_success(), "{}", answer.summary());
    let metrics = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
    assert_eq!(sum_of(&metrics, "selvedge_outbound_endpoint_ejections_total").unwrap_or_default(), 0.0);
}
