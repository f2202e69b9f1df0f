//! The peer is rustls' usual client.

use std::time::{Duration, SystemTime};

use proptest::{
    prelude::{Just, ProptestConfig, prop_oneof},
    test_runner::TestRunner,
};
use selvedge_certs::tls::{Credentials, grpc_client, grpc_server, session_name};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client, rustls::ClientConfig};

use super::*;
use crate::testing::{self, identity};

const LIMIT: Duration = Duration::from_secs(10);

type Client = client::TlsStream<DuplexStream>;
type Server = TlsStream<DuplexStream>;

/// A client and a server of these authorities, with so many bytes between them.
async fn handshake(
    ours: &selvedge_certs::ca::Authority,
    theirs: &selvedge_certs::ca::Authority,
    between: usize,
) -> (io::Result<Client>, io::Result<Server>) {
    let credentials = |authority: &selvedge_certs::ca::Authority, identity| {
        let leaf = authority.issue(&identity, &[], Duration::from_secs(60), SystemTime::now()).unwrap();
        Credentials { leaf, bundle: ours.bundle() }
    };
    let own = selvedge_certs::control_plane_identity(ours.trust_domain());
    let server = grpc_server(&credentials(ours, own), None).unwrap();
    // Both trust ours.
    let client = grpc_client(&credentials(theirs, identity("shop", "frontend")));
    let (near, far) = duplex(between);
    let name = session_name("127.0.0.1:1".parse().unwrap());
    let connect = async {
        let mut stream = TlsConnector::from(client.unwrap()).connect(name, near).await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsStream::accept(server, far).await?;
        assert_eq!(stream.read_u8().await?, b'!');
        Ok(stream)
    };
    timeout(LIMIT, async { tokio::join!(connect, accept) }).await.expect("ends in time")
}

async fn connected(between: usize) -> (Client, Server) {
    let directory = tempfile::tempdir().unwrap();
    let authority = testing::authority(directory.path());
    let (client, server) = handshake(&authority, &authority, between).await;
    (client.unwrap(), server.unwrap())
}

/// Nothing of a connection is kept but its session.
fn assert_quiet(server: &Server) {
    let TlsStream { incomplete, text, outgoing, .. } = server;
    assert_eq!((incomplete.capacity(), text.capacity(), outgoing.capacity()), (0, 0, 0));
}

#[tokio::test]
async fn whatever_is_said_arrives_in_order_and_leaves_nothing_behind() {
    // Records come in pieces, or several at once.
    for between in [7, 100, 5_000, 1 << 20] {
        let (mut client, mut server) = connected(between).await;
        assert!(server.peer_certificates().is_some_and(|shown| !shown.is_empty()));
        let said: Vec<u8> = (0..100_000_u32).map(|number| number.to_be_bytes()[3]).collect();

        let echo = async {
            let mut heard = vec![0; said.len()];
            server.read_exact(&mut heard).await.unwrap();
            assert_eq!(heard, said);
            let parts: Vec<IoSlice<'_>> = heard.chunks(1_000).map(IoSlice::new).collect();
            let first = server.write_vectored(&parts).await.unwrap();
            assert_eq!(first, GRPC_RECORD);
            server.write_all(&heard[first..]).await.unwrap();
            server.flush().await.unwrap();
        };
        let ask = async {
            let (mut read, mut write) = tokio::io::split(&mut client);
            let mut heard = vec![0; said.len()];
            let write = async {
                write.write_all(&said).await.unwrap();
                write.flush().await.unwrap();
            };
            tokio::join!(write, async { read.read_exact(&mut heard).await.unwrap() });
            assert_eq!(heard, said);
        };
        timeout(LIMIT, async { tokio::join!(echo, ask) }).await.expect("ends in time");

        assert_quiet(&server);
    }
}

#[tokio::test]
async fn an_end_that_was_said_is_told_from_one_that_was_not() {
    let (mut client, mut server) = connected(1 << 16).await;
    client.shutdown().await.unwrap();
    assert_eq!(server.read(&mut [0; 8]).await.unwrap(), 0);
    server.write_all(b"still").await.unwrap();
    server.shutdown().await.unwrap();
    let mut last = Vec::new();
    client.read_to_end(&mut last).await.unwrap();
    assert_eq!(last, b"still");
    assert!(server.write_all(b"more").await.is_err(), "it has said that it says no more");

    let (client, mut server) = connected(1 << 16).await;
    drop(client);
    assert_eq!(server.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn new_keys_are_answered() {
    let (mut client, mut server) = connected(1 << 16).await;
    for _ in 0..3 {
        client.get_mut().1.refresh_traffic_keys().unwrap();
        client.write_all(b"with new keys").await.unwrap();
        client.flush().await.unwrap();
        let mut heard = [0; 13];
        server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"with new keys");
        server.write_all(&heard).await.unwrap();
        server.flush().await.unwrap();
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"with new keys");
    }
    assert_quiet(&server);
}

#[tokio::test]
async fn whoever_is_not_trusted_is_told_so() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [ours, theirs] = [0, 1].map(|place| testing::authority(directories[place].path()));

    let (client, server) = handshake(&ours, &theirs, 1 << 16).await;

    let refused = server.unwrap_err();
    assert!(selvedge_certs::tls::peer_error(&refused).is_some(), "{refused}");
    // It may find that out with its first read.
    if let Ok(mut client) = client {
        assert!(client.read_u8().await.is_err());
    }
}

#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let authority = testing::authority(directory.path());
    let own = selvedge_certs::control_plane_identity(authority.trust_domain());
    let leaf = authority.issue(&own, &[], Duration::from_secs(60), SystemTime::now()).unwrap();
    let config = grpc_server(&Credentials { leaf, bundle: authority.bundle() }, None).unwrap();
    for said in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &[22, 3, 1, 0xff, 0xff], &[22, 3, 1, 0, 5, 1, 0xff, 0xff, 0xff, 0]]
    {
        let (mut near, far) = duplex(1 << 16);
        near.write_all(said).await.unwrap();
        near.shutdown().await.unwrap();

        let accepted =
            timeout(LIMIT, TlsStream::accept(Arc::clone(&config), far)).await.expect("ends in time");

        assert!(accepted.is_err(), "{said:?}");
    }
}

/// A client's handshake and first word, of which a byte on the way to the server is another, in pieces of some length.
async fn spoilt(config: Arc<ServerConfig>, client: Arc<ClientConfig>, place: usize, flip: u8, piece: usize) {
    let ((near, mut from), (mut to, far)) = (duplex(1 << 16), duplex(1 << 16));
    let connect = async {
        let name = session_name("127.0.0.1:1".parse().unwrap());
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"a word").await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await
    };
    let between = async {
        let (mut heard, mut answer, mut passed) = (vec![0; piece], vec![0; 1 << 16], 0);
        loop {
            tokio::select! {
                Ok(read @ 1..) = from.read(&mut heard) => {
                    if let Some(byte) = place.checked_sub(passed).and_then(|at| heard[..read].get_mut(at)) {
                        *byte ^= flip;
                    }
                    passed += read;
                    to.write_all(&heard[..read]).await?;
                }
                Ok(read @ 1..) = to.read(&mut answer) => from.write_all(&answer[..read]).await?,
                else => return Ok::<_, io::Error>(()),
            }
        }
    };
    let accept = async {
        let mut stream = TlsStream::accept(config, far).await?;
        stream.read_to_end(&mut Vec::new()).await?;
        stream.shutdown().await
    };
    // However it ends: nobody panics, and who waits for more waits.
    let all = async { drop(tokio::join!(connect, between, accept)) };
    let _ = timeout(LIMIT, all).await;
}

#[test]
fn no_byte_of_a_clients_makes_the_server_panic() {
    let directory = tempfile::tempdir().unwrap();
    let authority = testing::authority(directory.path());
    let credentials = |identity| {
        let leaf = authority.issue(&identity, &[], Duration::from_secs(60), SystemTime::now()).unwrap();
        Credentials { leaf, bundle: authority.bundle() }
    };
    let own = selvedge_certs::control_plane_identity(authority.trust_domain());
    let server = grpc_server(&credentials(own), None).unwrap();
    let client = grpc_client(&credentials(identity("shop", "frontend"))).unwrap();
    let mut runner =
        TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) });
    let spoils = (0_usize..4_500, 1_u8.., prop_oneof![Just(1_usize << 16), 1_usize..600]);

    let run = runner.run(&spoils, |(place, flip, piece)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(spoilt(Arc::clone(&server), Arc::clone(&client), place, flip, piece));
        Ok(())
    });

    run.unwrap();
}
