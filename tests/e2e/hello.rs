//! A ClientHello that arrives in pieces, cut anywhere.
//!
//! With an ML-KEM share it is longer than a segment, so in a real network it does arrive in pieces.

use std::{io::Read, net::SocketAddr, sync::Arc, time::Duration};

use selvedge_certs::tls::{Current, session_name};
use selvedge_demo::workload::Spec;
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::rustls::ClientConnection;

use crate::{SELVEDGE, mesh_client};

/// Between the two pieces: long enough that they are read one after the other.
const PAUSE: Duration = Duration::from_millis(10);

/// How long a handshake and a request may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Handshakes at once.
const AT_ONCE: usize = 32;

#[tokio::test]
async fn a_hello_cut_at_any_byte_completes() {
    let mesh = Mesh::of(SELVEDGE, [Spec::server("reviews-v1-a", "reviews", 9080)]).await;
    let server = mesh.workload("reviews-v1-a");
    let configuration = mesh_client::configuration(mesh.credentials("caller"));
    let request: Arc<[u8]> = mesh_client::request(server.app).into();
    let inbound = server.inbound;
    let length = hello(&mut client(&configuration, inbound)).len();
    assert!(length > 1200, "{length} bytes hold no ML-KEM share");

    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut exchanges = JoinSet::new();
    for cut in 1..length {
        let (places, configuration, request) =
            (Arc::clone(&places), Arc::clone(&configuration), Arc::clone(&request));
        exchanges.spawn(async move {
            let _place = places.acquire().await.unwrap();
            let exchange = exchange(&configuration, inbound, cut, &request);
            let answer = tokio::time::timeout(LIMIT, exchange).await;
            let answer = answer.unwrap_or_else(|_| panic!("cut after {cut} of {length} bytes: no answer"));
            let answer = answer.unwrap_or_else(|error| panic!("cut after {cut} of {length} bytes: {error}"));
            assert!(
                answer.starts_with(b"HTTP/1.1 200"),
                "cut after {cut}: {:?}",
                String::from_utf8_lossy(&answer)
            );
        });
    }
    while let Some(exchange) = exchanges.join_next().await {
        exchange.unwrap();
    }
}

fn client(configuration: &Current, inbound: SocketAddr) -> ClientConnection {
    ClientConnection::new(Arc::clone(&configuration.client), session_name(inbound)).unwrap()
}

fn hello(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

/// One connection: a hello in two pieces, then everything as it should be. Returns the answer.
async fn exchange(
    configuration: &Current,
    inbound: SocketAddr,
    cut: usize,
    request: &[u8],
) -> std::io::Result<Vec<u8>> {
    let mut client = client(configuration, inbound);
    let hello = hello(&mut client);
    let (first, second) = hello.split_at(cut);
    let mut tcp = TcpStream::connect(inbound).await?;
    tcp.set_nodelay(true)?;
    tcp.write_all(first).await?;
    tokio::time::sleep(PAUSE).await;
    tcp.write_all(second).await?;

    let mut asked = false;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if !client.is_handshaking() && !asked {
            std::io::Write::write_all(&mut client.writer(), request)?;
            asked = true;
        }
        let mut records = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut records)?;
        }
        tcp.write_all(&records).await?;
        let read = tcp.read(&mut buffer).await?;
        if read == 0 {
            return Ok(answer);
        }
        let mut bytes = &buffer[..read];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes)?;
            let state = client.process_new_packets().map_err(std::io::Error::other)?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            client.reader().read_exact(&mut plain)?;
            answer.extend_from_slice(&plain);
        }
    }
}
