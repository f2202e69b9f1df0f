//! A load balancer for TCP before the gateway, which names its clients by the PROXY protocol.

use std::net::SocketAddr;

use http::{StatusCode, Version};
use selvedge_demo::{
    apps::reviews,
    call::{self, Answer, Call},
};
use selvedge_tests::{Mesh, SOON, gateway::Gateway, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    gateway as gateway_of, http_listener,
    tls::{Pair, connector, listener, mesh_with, own, reviews_as, route, secret},
    to_apps::{answering, app, exchanged},
};

/// Where the load balancer connects from.
const BALANCER: &str = "127.0.0.9";

/// What the gateway is told of it.
const FLAG: &str = "--proxy-protocol-from=127.0.0.9,2001:db8::/32";

const HOST: &str = "one.test";

/// A client whom a policy keeps out.
const FORBIDDEN: &str = "203.0.113.66";

fn policy() -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: edge, namespace: default}}\n\
         spec: {{selector: {{matchLabels: {{app: edge}}}}, action: DENY, rules: [\
         {{from: [{{source: {{remoteIpBlocks: [{FORBIDDEN}]}}}}]}}]}}\n---\n"
    )
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 192.0.2.1 50000 80\r\n").into_bytes()
}

/// A header of version 2 with this command and family.
fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[0x20 | command, family][..], &length, addresses].concat()
}

/// A connection from the address `from`, that has sent `first`.
async fn connected(from: &str, at: SocketAddr, first: &[u8]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0))?;
    let mut stream = socket.connect(at).await?;
    stream.set_nodelay(true)?;
    stream.write_all(first).await?;
    Ok(stream)
}

/// What a client gets that the load balancer names by `header`; over TLS if there is a `root`.
async fn called(gateway: &Gateway, header: &[u8], root: Option<&Pair>, call: Call) -> Result<Answer, String> {
    let text = |error: std::io::Error| error.to_string();
    let answered = async {
        let Some(root) = root else {
            let stream = connected(BALANCER, gateway.at(80), header).await.map_err(text)?;
            return call::over(stream, gateway.at(80), call).await.map_err(|error| call::causes(&error));
        };
        let stream = connected(BALANCER, gateway.at(443), header).await.map_err(text)?;
        let name = HOST.try_into().unwrap();
        let stream = connector(root).connect(name, stream).await.map_err(text)?;
        call::over(stream, gateway.at(443), call).await.map_err(|error| call::causes(&error))
    };
    timeout(SOON, answered).await.map_err(|_| "no answer in time".to_owned())?
}

async fn before_reviews(root: &Pair) -> (Mesh, Gateway) {
    let listeners = format!("{}, {}", http_listener("http", 80), listener("HTTPS", "one", HOST));
    let documents = [
        secret("one", root, root),
        reviews_as("one", "two"),
        gateway_of(&listeners),
        route("HTTPRoute", "one", "http", "").replace("sectionName: http", ""),
        policy(),
    ];
    let (mesh, gateway) = mesh_with(&documents.concat(), "default/edge", &[FLAG]).await;
    poll(SOON, "the gateway serves", async || {
        let answer = called(&gateway, &v1("203.0.113.7"), Some(root), call::to(HOST, "/")).await?;
        if answer.status.is_success() { Ok(()) } else { Err(answer.summary()) }
    })
    .await;
    (mesh, gateway)
}

#[tokio::test]
async fn the_client_is_whom_the_load_balancer_names() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root).await;
    let v6 = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[1, 2, 3, 4]].concat();
    let named = [
        (v1("203.0.113.7"), "203.0.113.7"),
        (v2(1, 0x11, &[203, 0, 113, 8, 192, 0, 2, 1, 0, 1, 0, 2]), "203.0.113.8"),
        (v2(1, 0x21, &v6), "2001:db8::7"),
        (v2(0, 0, &[]), BALANCER),
        (b"PROXY UNKNOWN\r\n".to_vec(), BALANCER),
    ];
    for (header, client) in &named {
        for root in [None, Some(&root)] {
            let call = call::to(HOST, "/").header("x-forwarded-for", "10.0.0.1");
            let answer = called(&gateway, header, root, call).await.unwrap();
            let seen: reviews::Answer = answer.json().unwrap();
            assert_eq!(seen.headers["x-forwarded-for"], *client, "{root:?}", root = root.is_some());
        }
    }
    let over_http2 = call::to(HOST, "/").version(Version::HTTP_2);
    let answer = called(&gateway, &named[1].0, None, over_http2).await.unwrap();
    assert_eq!(answer.json::<reviews::Answer>().unwrap().headers["x-forwarded-for"], "203.0.113.8");

    let refused = called(&gateway, &v1(FORBIDDEN), None, call::to(HOST, "/")).await.unwrap();
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.summary());
}

#[tokio::test]
async fn a_header_in_parts_is_waited_for_and_its_rest_is_the_clients() {
    let (_mesh, gateway) = before_reviews(&own(HOST)).await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n");
    let all = [&v1("203.0.113.7")[..], request.as_bytes()].concat();

    for piece in [1, 7, all.len()] {
        let mut stream = connected(BALANCER, gateway.at(80), b"").await.unwrap();
        for part in all.chunks(piece) {
            stream.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "pieces of {piece}: {answer}");
        assert!(answer.contains("203.0.113.7"), "pieces of {piece}: {answer}");
    }
}

/// Whether the gateway closes a connection from `from` that has sent `first`, and answers nothing.
async fn is_closed(from: &str, at: SocketAddr, first: &[u8]) -> bool {
    let Ok(mut stream) = connected(from, at, first).await else { return true };
    match timeout(SOON, stream.read(&mut [0; 64])).await.expect("it is closed in time") {
        Ok(read) => read == 0,
        Err(_) => true,
    }
}

#[tokio::test]
async fn a_header_is_required_from_the_load_balancer_and_refused_from_others() {
    let root = own(HOST);
    let (_mesh, gateway) = before_reviews(&root).await;
    let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n").into_bytes();
    for port in [80, 443] {
        let at = gateway.at(port);
        assert!(is_closed(BALANCER, at, &request).await, "without a header");
        assert!(is_closed(BALANCER, at, b"PROXY TCP4 nonsense\r\n").await);
        assert!(is_closed(BALANCER, at, b"").await, "with nothing");
        assert!(is_closed(BALANCER, at, b"PROXY TCP4 203.").await, "with half of one");
        assert!(
            is_closed("127.0.0.1", at, &[v1("203.0.113.7"), request.clone()].concat()).await,
            "a stranger's"
        );
        assert!(is_closed("127.0.0.1", at, &v2(1, 0x11, &[1; 12])).await, "a stranger's");
    }
    // Two headers are one too many.
    let twice = [v1("203.0.113.7"), v1("203.0.113.8"), request.clone()].concat();
    assert!(is_closed(BALANCER, gateway.at(80), &twice).await);

    let direct = gateway.call(80, call::to(HOST, "/")).await.unwrap();
    assert_eq!(direct.json::<reviews::Answer>().unwrap().headers["x-forwarded-for"], "127.0.0.1");
    let log = gateway.process.whole_log().unwrap();
    for told in [
        "--proxy-protocol-from names this address, so a PROXY protocol header is required",
        "no PROXY protocol header came from it within",
        "it begins with a PROXY protocol header, and --proxy-protocol-from does not name this address",
    ] {
        assert!(log.contains(told), "{told}: {log}");
    }
    let metrics = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
    for result in ["protocol", "timeout"] {
        let counted = format!("selvedge_inbound_connections_total{{mtls=\"false\",result=\"{result}\"}}");
        assert!(metrics.contains(&counted), "{metrics}");
    }
}

#[tokio::test]
async fn what_is_not_http_is_carried_without_the_header_and_by_the_clients_address() {
    let pass = own("a.pass.test");
    let plain = answering(None, |bytes| format!("plain: {bytes}")).await;
    let inside = answering(Some(&pass), |bytes| format!("inside: {bytes}")).await;
    let passing = "{name: pass, port: 443, protocol: TLS, hostname: '*.pass.test', tls: {mode: Passthrough}}";
    let documents = [
        gateway_of(&format!("{{name: plain, port: 9000, protocol: TCP}}, {passing}")),
        route("TCPRoute", "plain", "plain", ""),
        route("TLSRoute", "a", "pass", "hostnames: [a.pass.test],"),
        app("plain", "tcp", plain),
        app("a", "tls", inside),
        policy(),
    ];
    let (_mesh, gateway) = mesh_with(&documents.concat(), "default/edge", &[FLAG]).await;
    let tcp = async |client: &str| {
        let stream = connected(BALANCER, gateway.at(9000), &v1(client)).await;
        exchanged(stream.map_err(|error| error.to_string())?).await
    };
    let tls = async |client: &str| {
        let stream =
            connected(BALANCER, gateway.at(443), &v1(client)).await.map_err(|error| error.to_string())?;
        let stream = connector(&pass).connect("a.pass.test".try_into().unwrap(), stream).await;
        exchanged(stream.map_err(|error| error.to_string())?).await
    };

    poll(SOON, "TCP is carried", async || match tcp("203.0.113.7").await? {
        answer if answer == "plain: hello" => Ok(()),
        answer => Err(answer),
    })
    .await;
    poll(SOON, "TLS is carried", async || match tls("203.0.113.7").await? {
        answer if answer == "inside: hello" => Ok(()),
        answer => Err(answer),
    })
    .await;
    assert_ne!(tcp(FORBIDDEN).await.unwrap_or_default(), "plain: hello");
    tls(FORBIDDEN).await.unwrap_err();
    let direct = TcpStream::connect(gateway.at(9000)).await.unwrap();
    assert_eq!(exchanged(direct).await.unwrap(), "plain: hello");
}
