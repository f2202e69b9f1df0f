//! Strangers at the control plane's gRPC port: what they can hold of it is bounded, and who has a right to it is
//! served meanwhile.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use prost::Message as _;
use selvedge_api::wire::{
    self, SignRequest, certificates_client::CertificatesClient, client_message::Message,
    discovery_client::DiscoveryClient,
};
use selvedge_certs::{ca::Authority, csr::KeyAndCsr, tls};
use selvedge_model::{SpiffeId, TrustDomain};
use selvedge_tests::{credentials, poll};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, Instant, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{
    Mesh, SOON,
    admin::from_address,
    http2::{
        self, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS,
        block, frame,
    },
    resident_mib,
};

const SIGN: &str = "/selvedge.v1.Certificates/Sign";
const STREAM: &str = "/selvedge.v1.Discovery/Stream";

/// How long a certificate may take: less than the 5 s that a stranger's handshake may, so that nobody waits for those.
const SIGNED: Duration = Duration::from_secs(4);

/// The most that any attack may cost, in MiB.
const MOST: u64 = 64;

impl Mesh {
    fn grpc(&self) -> SocketAddr {
        self.cluster.control_plane_address()
    }

    fn memory(&self) -> u64 {
        resident_mib(self.cluster.control_plane_process().expect("it was started").pid())
    }

    /// What a stranger connects with.
    fn stranger(&self) -> Arc<ClientConfig> {
        let authority = Authority::load(&self.cluster.data_dir()).expect("a CA");
        tls::bootstrap_client(&[authority.root_sha256()], authority.trust_domain())
    }

    /// What the sidecar of `target` connects with.
    fn known(&self) -> Arc<ClientConfig> {
        tls::grpc_client(&credentials(&self.cluster, "target")).expect("credentials")
    }

    /// A newcomer with a token, and a workload with a certificate, get certificates, and soon.
    async fn signs(&self) {
        let token = self.cluster.token("target", "1h").await.expect("a token");
        let identity = SpiffeId::new(&TrustDomain::default(), "default", "target").expect("a name");
        for (tls, token) in [(self.stranger(), Some(token)), (self.known(), None)] {
            let who = if token.is_some() { "a newcomer" } else { "who is known" };
            let request = SignRequest {
                csr: KeyAndCsr::generate(&identity).expect("a key").der.into(),
                workload: "default/target".to_owned(),
                token,
                ttl_seconds: Some(60),
            };
            let began = Instant::now();
            let signing = async {
                let channel = channel(self.grpc(), tls).await?;
                CertificatesClient::new(channel).sign(request).await.map_err(|status| status.to_string())
            };
            let signed = timeout(SIGNED, signing).await;
            let signed = signed.unwrap_or_else(|_| Err("no answer".to_owned()));
            assert!(signed.is_ok(), "{who} after {:?}: {signed:?}", began.elapsed());
        }
    }
}

async fn channel(address: SocketAddr, tls: Arc<ClientConfig>) -> Result<Channel, String> {
    let connector = tower::service_fn(move |_| {
        let tls = TlsConnector::from(Arc::clone(&tls));
        async move {
            let tcp = TcpStream::connect(address).await?;
            let stream = tls.connect(tls::session_name(address), tcp).await?;
            std::io::Result::Ok(hyper_util::rt::TokioIo::new(stream))
        }
    });
    let channel = Endpoint::from_static("http://control-plane").connect_with_connector(connector).await;
    channel.map_err(|error| format!("{error:?}"))
}

/// A connection from one of many addresses, with HTTP/2's preface behind it.
async fn raw(number: u32, mesh: &Mesh, tls: &Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
    let tcp = from_address(number, mesh.grpc()).await?;
    let connector = TlsConnector::from(Arc::clone(tls));
    let mut stream = connector.connect(tls::session_name(mesh.grpc()), tcp).await?;
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    Ok(stream)
}

/// A call that has begun: its head, and the beginning of a message of `length` bytes.
fn begun(path: &str, stream: u32, length: u32, sent: usize) -> Vec<u8> {
    let mut bytes = head(path, stream);
    bytes.extend(frame(DATA, 0, stream, &[&[0][..], &length.to_be_bytes()].concat()));
    for piece in vec![0; sent].chunks(16 << 10) {
        bytes.extend(frame(DATA, 0, stream, piece));
    }
    bytes
}

fn head(path: &str, stream: u32) -> Vec<u8> {
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "control-plane"),
        (":path", path),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&head))
}

#[tokio::test]
async fn requests_for_certificates_that_do_not_come_to_an_end_hold_little() {
    let mesh = Mesh::start(&[]).await;
    let (before, tls) = (mesh.memory(), mesh.stranger());
    let mut held = Vec::new();
    for (length, sent) in [(3_900_000, 3_900_000), (60_000, 59_000)] {
        for number in 0..150 {
            let Ok(mut stream) = raw(number, &mesh, &tls).await else { continue };
            for id in [1, 3, 5, 7] {
                // As far as the window goes, or until it is ended.
                let _ = timeout(SOON, stream.write_all(&begun(SIGN, id, length, sent))).await;
            }
            held.push(stream);
        }
        mesh.signs().await;
    }
    let after = mesh.memory();
    assert!(after < before + MOST, "{before} MiB, then {after}");
}

#[tokio::test]
async fn silent_connections_delay_nobody() {
    let mesh = Mesh::start(&[]).await;
    let before = mesh.memory();
    let mut held = Vec::new();
    for number in 0..1_500 {
        held.extend(from_address(number, mesh.grpc()).await);
    }

    mesh.signs().await;

    // One address alone, with the beginning of a hello.
    for _ in 0..600 {
        let Ok(mut stream) = TcpStream::connect(mesh.grpc()).await else { continue };
        let _ = stream.write_all(&[0x16, 3, 1, 0x3F, 0xFF, 1, 0, 0x3F, 0xFB]).await;
        let _ = stream.write_all(&vec![0; 12 << 10]).await;
        held.push(stream);
    }
    mesh.signs().await;
    let after = mesh.memory();
    assert!(after < before + MOST, "{before} MiB, then {after}");
}

/// How a configuration stream ends.
async fn end(stream: Result<tonic::Response<tonic::Streaming<wire::Transaction>>, tonic::Status>) -> Code {
    let mut stream = match stream {
        Ok(stream) => stream.into_inner(),
        Err(status) => return status.code(),
    };
    loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Code::Ok,
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test]
async fn what_a_proxy_says_that_it_holds_is_bounded() {
    let mesh = Mesh::start(&[]).await;
    let before = mesh.memory();
    let held = |bytes: usize| -> std::collections::HashMap<String, String> {
        (0..bytes / 100).map(|n| (format!("lookup/{n:060}:80"), "x".repeat(20))).collect()
    };
    let (huge, large) = (held(11 << 20), held(400 << 10));
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let mut senders = Vec::new();
    for held in [&huge, &large] {
        for _ in 0..12 {
            let mut client =
                DiscoveryClient::new(channel(mesh.grpc(), mesh.known()).await.expect("a channel"));
            let hello = wire::Hello {
                workload: "default/target".to_owned(),
                proxy_version: "\u{1b}[2J\n".repeat(1000),
                held: held.clone().into_iter().collect(),
                authorities: Vec::new(),
                takes_taps: false,
                takes_log_levels: false,
                takes_endpoint_deltas: false,
            };
            let (sender, messages) = tokio::sync::mpsc::channel(1);
            let message = wire::ClientMessage { message: Some(Message::Hello(hello)) };
            sender.send(message).await.expect("it is open");
            let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
            senders.push(sender);
            let (stream, ended) = (client.stream(messages).await, ended.clone());
            tokio::spawn(async move { ended.send(end(stream).await) });
        }
    }
    mesh.signs().await;

    // The huge ones are refused; of the others and the sidecar's own, the newest two stay.
    let mut ended = BTreeMap::new();
    poll(SOON, "all but the newest end", async || {
        while let Ok(code) = ends.try_recv() {
            *ended.entry(format!("{code:?}")).or_insert(0) += 1;
        }
        let enough = ended.get("OutOfRange") == Some(&12) && ended.get("Aborted") >= Some(&10);
        if enough { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
    let after = mesh.memory();
    assert!(after < before + MOST, "{before} MiB, then {after}");
    assert!(ended.len() == 2 && ended["Aborted"] <= 11, "{ended:?}");
    let shown = mesh.cluster.control_plane_admin("/config").await.expect("an answer").text();
    assert!(!shown.contains("\\u001b") && shown.contains("\\\\u{1b}[2J"), "{shown}");
}

#[tokio::test]
async fn floods_of_frames_end_with_goaway() {
    let mesh = Mesh::start(&[]).await;
    let many = |count: u32, make: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(make).collect::<Vec<u8>>();
    let head = begun(STREAM, 1, 0, 0);
    let reset = |turn: u32| {
        let stream = turn * 2 + 1;
        let head = &begun(SIGN, stream, 0, 0)[..];
        [head, &frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    };
    let part = block(&[("x", &"y".repeat(8_000))]);
    let endless = [
        frame(HEADERS, END_STREAM, 1, &block(&[(":method", "POST")])),
        many(2_000, &|_| frame(CONTINUATION, 0, 1, &part)),
    ];
    let floods = [
        ("pings", many(20_000, &|_| frame(PING, 0, 0, &[0; 8]))),
        ("settings", many(20_000, &|_| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xFF, 0xFF]))),
        ("empty data", [head.clone(), many(20_000, &|_| frame(DATA, 0, 1, &[]))].concat()),
        ("priorities", many(20_000, &|_| frame(2, 0, 1, &[0, 0, 0, 0, 1]))),
        ("window updates", many(20_000, &|_| frame(8, 0, 0, &1_u32.to_be_bytes()))),
        ("resets", many(5_000, &reset)),
        ("a head without end", endless.concat()),
    ];
    for (who, tls) in [("known", mesh.known()), ("a stranger", mesh.stranger())] {
        for (what, frames) in &floods {
            let (stream, frames) = (raw(1, &mesh, &tls).await.expect("a connection"), frames.clone());
            let (mut read, mut write) = tokio::io::split(stream);
            let writing = tokio::spawn(async move {
                let _ = write.write_all(&frames).await;
                write
            });
            let end = async {
                while let Some(frame) = http2::read(&mut read).await {
                    if frame.kind == GOAWAY {
                        return true;
                    }
                }
                false
            };
            let goaway = timeout(SOON, end).await.unwrap_or_else(|_| panic!("{what} of {who} goes on"));
            // A stranger's bytes are counted, too: which of the two ends it first is all one.
            assert!(goaway || who == "a stranger", "{what} of {who} ended without GOAWAY");
            writing.abort();
        }
        mesh.signs().await;
    }
}

/// Workloads of their own whose proxies misbehave.
const STRANGE: usize = 12;
/// The subscriptions of each.
const ASKED: usize = 200;
/// The Service whose endpoint changes.
const LATE: &str = "late.default.svc.cluster.local:80";

/// A Hello of the proxy of `default/NAME`, with [`LATE`] among what it asks for.
fn hello(name: &str, asked: usize) -> wire::ClientMessage {
    let others = (1..asked).map(|number| format!("service-{number}.example:80"));
    let hello = wire::Hello {
        workload: format!("default/{name}"),
        authorities: others.chain([LATE.to_owned()]).collect(),
        ..wire::Hello::default()
    };
    wire::ClientMessage { message: Some(Message::Hello(hello)) }
}

type Talk = (tokio::sync::mpsc::Sender<wire::ClientMessage>, tonic::Streaming<wire::Transaction>);

/// A stream that has said this Hello.
async fn talk(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    hello: wire::ClientMessage,
) -> Result<Talk, String> {
    let (sender, messages) = tokio::sync::mpsc::channel(4);
    sender.send(hello).await.map_err(|error| error.to_string())?;
    let mut client = DiscoveryClient::new(channel(address, tls).await?);
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let stream = client.stream(messages).await.map_err(|status| status.to_string())?;
    Ok((sender, stream.into_inner()))
}

/// Takes every transaction and acknowledges none.
async fn never_acknowledges((_sender, mut stream): Talk) {
    while let Ok(Some(_)) = stream.message().await {}
}

/// Reads a byte at a time.
async fn reads_slowly(mut stream: TlsStream<TcpStream>, hello: &wire::ClientMessage) {
    let message = hello.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message");
    let prefixed = [&[0][..], &length.to_be_bytes(), &message].concat();
    let call = [head(STREAM, 1), frame(DATA, 0, 1, &prefixed)].concat();
    if stream.write_all(&call).await.is_err() {
        return;
    }
    while stream.read_u8().await.is_ok() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn proxies_that_acknowledge_nothing_read_nothing_or_never_stay_hold_up_nobody() {
    let mesh = Mesh::start(&[]).await;
    let entry = |name: &str, address: &str, weight: usize| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {{name: {name}}}\nspec:\n  \
             address: {address}\n  serviceAccount: {name}\n  weight: {weight}\n  labels: {{app: late}}\n---\n"
        )
    };
    let names: Vec<String> = (0..STRANGE).map(|number| format!("strange-{number}")).collect();
    let strange: String = names.iter().map(|name| entry(name, "127.9.9.9", 1)).collect();
    let service = selvedge_demo::documents::service("late", "default", 80);
    mesh.cluster.write("strange.yaml", &(strange + &service)).expect("a file");
    let (address, before) = (mesh.grpc(), mesh.memory());
    let connects = |name: &str| tls::grpc_client(&credentials(&mesh.cluster, name)).expect("credentials");

    let rounds = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for (number, name) in names.iter().enumerate() {
        let (tls, hello) = (connects(name), hello(name, ASKED));
        let known = poll(SOON, "the workload is known", async || {
            let (_sender, mut stream) = talk(address, Arc::clone(&tls), hello.clone()).await?;
            stream.message().await.map_err(|status| status.to_string())
        });
        known.await;
        let rounds = Arc::clone(&rounds);
        match number % 3 {
            0 => {
                let silent = talk(address, tls, hello).await.expect("a stream");
                tasks.spawn(never_acknowledges(silent));
            }
            1 => {
                let stream =
                    raw(u32::try_from(number).expect("small"), &mesh, &tls).await.expect("a connection");
                tasks.spawn(async move { reads_slowly(stream, &hello).await });
            }
            _ => {
                tasks.spawn(async move {
                    loop {
                        if let Ok((_sender, mut stream)) =
                            talk(address, Arc::clone(&tls), hello.clone()).await
                        {
                            drop(stream.message().await);
                            rounds.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        }
    }

    // Who behaves is told of each change, and soon.
    let good = hello("target", 1);
    let (sender, mut stream) = talk(address, mesh.known(), good).await.expect("a stream");
    for weight in 2..12 {
        mesh.cluster.write("late.yaml", &entry("late", "127.9.9.10", weight)).expect("a file");
        let told = async {
            loop {
                let transaction = stream.message().await.expect("it goes on").expect("it goes on");
                let ack = wire::Ack { nonce: transaction.nonce, refused: None };
                let ack = wire::ClientMessage { message: Some(Message::Ack(ack)) };
                sender.send(ack).await.expect("it is open");
                if weights(&transaction).contains(&u32::try_from(weight).expect("small")) {
                    return;
                }
            }
        };
        timeout(SOON, told).await.unwrap_or_else(|_| panic!("weight {weight} has not arrived"));
    }
    let began = rounds.load(Ordering::Relaxed);
    poll(SOON, "they have come and gone all the while", async || {
        let rounds = rounds.load(Ordering::Relaxed);
        if rounds > began + 20 { Ok(()) } else { Err(format!("{rounds} rounds")) }
    })
    .await;
    mesh.signs().await;
    mesh.is_served().await;
    let after = mesh.memory();
    assert!(after < before + MOST, "{before} MiB, then {after}");
    tasks.abort_all();
}

/// The weights of all endpoints in `transaction`.
fn weights(transaction: &wire::Transaction) -> Vec<u32> {
    let bodies = transaction.upserts.iter().filter_map(|resource| resource.body.as_ref());
    let lists = bodies.filter_map(|body| match body {
        wire::resource::Body::Endpoints(endpoints) => Some(&endpoints.list),
        _ => None,
    });
    lists.flatten().map(|endpoint| endpoint.weight).collect()
}
