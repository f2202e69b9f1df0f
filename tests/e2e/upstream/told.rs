//! What servers outside the mesh are told before anything else: whose connection it is, and where it is to lead.

use std::{io, net::SocketAddr};

use bytes::{Bytes, BytesMut};
use futures_util::stream;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Empty, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use selvedge_demo::workload::Spec;
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

use super::{LIMIT, echo, is_echo, upstream};
use crate::SELVEDGE;

/// `host`, whose port 5432 is at `address` outside the mesh and speaks `protocol`; with this `trafficPolicy`.
fn outside(host: &str, protocol: &str, address: SocketAddr, policy: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {host}}}\nspec:\n  hosts: [{host}]\n  \
         resolution: STATIC\n  ports: [{{number: 5432, name: {protocol}, targetPort: {}}}]\n  \
         endpoints: [{{address: {}}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
         metadata: {{name: {host}}}\nspec: {{host: {host}, trafficPolicy: {{{policy}}}}}\n",
        address.port(),
        address.ip()
    )
}

/// What the server at `address` hears of each connection until it `ends`; it answers as a server of HTTP would.
async fn heard(address: SocketAddr, ends: &'static [u8]) -> UnboundedReceiver<Vec<u8>> {
    let listener = TcpListener::bind(address).await.unwrap();
    let (says, hears) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let says = says.clone();
            tokio::spawn(async move {
                let mut read = Vec::new();
                while !read.ends_with(ends) && stream.read_buf(&mut read).await? > 0 {}
                let _ = says.send(read);
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
                // Kept open, as servers do.
                stream.read_u8().await
            });
        }
    });
    hears
}

#[tokio::test]
async fn a_server_outside_the_mesh_is_told_the_client_by_the_proxy_protocol() {
    let mut mesh = Mesh::empty(SELVEDGE);
    let [text, bytes] = [201, 202].map(|host| mesh.ground().socket(host, 9005).unwrap());
    let first = outside("text.test", "http", text, "proxyProtocol: {}");
    mesh.write("text.yaml", &first).unwrap();
    mesh.write("bytes.yaml", &outside("bytes.test", "tcp", bytes, "proxyProtocol: {version: V2}")).unwrap();
    let (mut of_text, mut of_bytes) = (heard(text, b"\r\n\r\n").await, heard(bytes, b"hello").await);
    mesh.start_control_plane().await.unwrap();
    mesh.add([Spec::client("caller").flag("--upstream", "0=bytes.test:5432")]).await.unwrap();

    // Two requests on one connection of the client's.
    let mut client = TcpStream::connect(mesh.workload("caller").outbound).await.unwrap();
    let own = client.local_addr().unwrap();
    for _ in 0..2 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: text.test:5432\r\n\r\n").await.unwrap();
        let mut answer = [0; 15];
        timeout(LIMIT, client.read_exact(&mut answer)).await.expect("in time").unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n\r\n") {
            timeout(LIMIT, client.read_buf(&mut rest)).await.expect("in time").unwrap();
        }
        let heard = String::from_utf8(of_text.recv().await.unwrap()).unwrap();
        let (header, request) = heard.split_once("\r\n").unwrap();
        let expected = format!("PROXY TCP4 {} {} {} {}", own.ip(), text.ip(), own.port(), text.port());
        assert_eq!(header, expected);
        assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    }

    let mut client = TcpStream::connect(upstream(&mesh, "bytes.test:5432").await).await.unwrap();
    let SocketAddr::V4(own) = client.local_addr().unwrap() else { panic!("an IPv4 address") };
    let SocketAddr::V4(bytes) = bytes else { panic!("an IPv4 address") };
    client.write_all(b"hello").await.unwrap();
    let heard = timeout(LIMIT, of_bytes.recv()).await.expect("in time").unwrap();
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    for ip in [own.ip(), bytes.ip()] {
        expected.extend(ip.octets());
    }
    for port in [own.port(), bytes.port()] {
        expected.extend(port.to_be_bytes());
    }
    expected.extend(b"hello");
    assert_eq!(heard, expected);
}

/// An HTTP proxy at `address`: it leads to `database`, wherever it is asked to lead, if that is `db.example.com:5432`.
async fn proxy(address: SocketAddr, database: SocketAddr) {
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await? > 0 {}
                let expected = b"CONNECT db.example.com:5432 HTTP/1.1\r\nHost: db.example.com:5432\r\n\r\n";
                if head != expected {
                    return stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n").await;
                }
                let mut server = TcpStream::connect(database).await?;
                stream.write_all(b"HTTP/1.1 200 Connection established\r\nvia: test\r\n\r\n").await?;
                copy_bidirectional(&mut stream, &mut server).await.map(drop)
            });
        }
    });
}

/// A server at `address` that carries the body of a POST to `database`, and what that says back as the body of the answer,
/// if it is asked for `db.example.com:5432`.
async fn by_post(address: SocketAddr, database: SocketAddr) {
    let carry = move |request: Request<Incoming>| async move {
        if request.method() != Method::POST || request.headers()["host"] != "db.example.com:5432" {
            let mut refused = Response::new(Either::Left(Empty::<Bytes>::new()));
            *refused.status_mut() = StatusCode::FORBIDDEN;
            return Ok::<_, io::Error>(refused);
        }
        let (from, mut to) = TcpStream::connect(database).await?.into_split();
        tokio::spawn(async move {
            let mut body = request.into_body();
            while let Some(Ok(frame)) = body.frame().await {
                if let Ok(piece) = frame.into_data() {
                    to.write_all(&piece).await?;
                }
            }
            to.shutdown().await
        });
        let said = stream::unfold(from, |mut from| async move {
            let mut piece = BytesMut::new();
            match from.read_buf(&mut piece).await {
                Ok(0) => None,
                read => Some((read.map(|_| Frame::data(piece.freeze())), from)),
            }
        });
        Ok(Response::new(Either::Right(StreamBody::new(said))))
    };
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = auto::Builder::new(TokioExecutor::new());
                // A client that goes away gets nothing, and its test sees that.
                let _ = server.serve_connection(TokioIo::new(stream), service_fn(carry)).await;
            });
        }
    });
}

#[tokio::test]
async fn tcp_goes_through_an_http_proxy_outside_the_mesh() {
    is_tunnelled("CONNECT").await;
}

#[tokio::test]
async fn tcp_goes_as_the_bodies_of_a_post_and_its_answer() {
    is_tunnelled("POST").await;
}

async fn is_tunnelled(method: &str) {
    let mut mesh = Mesh::empty(SELVEDGE);
    let at = mesh.ground().socket(201, 9006).unwrap();
    let database = echo("127.0.0.1:0".parse().unwrap()).await;
    match method {
        "POST" => by_post(at, database).await,
        _ => proxy(at, database).await,
    }
    for (host, target) in [("good.test", "db.example.com"), ("bad.test", "other.example.com")] {
        let policy = format!("tunnel: {{protocol: {method}, targetHost: {target}, targetPort: 5432}}");
        mesh.write(&format!("{host}.yaml"), &outside(host, "tcp", at, &policy)).unwrap();
    }
    mesh.start_control_plane().await.unwrap();
    let caller = ["good.test", "bad.test"]
        .into_iter()
        .fold(Spec::client("caller"), |caller, host| caller.flag("--upstream", &format!("0={host}:5432")));
    mesh.add([caller]).await.unwrap();

    for _ in 0..3 {
        is_echo(&mut TcpStream::connect(upstream(&mesh, "good.test:5432").await).await.unwrap()).await;
    }

    // The server is waited for, because it might speak first; and then there is none.
    let mut refused = TcpStream::connect(upstream(&mesh, "bad.test:5432").await).await.unwrap();
    let error = timeout(LIMIT, refused.read_u8()).await.expect("in time").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}
