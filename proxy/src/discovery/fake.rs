//! A control plane for tests: real TLS and gRPC on loopback, its every word said by the test.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use selvedge_api::wire::{
    self,
    certificates_server::{Certificates, CertificatesServer},
    client_message::Message as Body,
    discovery_server::{Discovery, DiscoveryServer},
};
use selvedge_certs::{
    ca::Authority,
    control_plane_identity,
    tls::{self, Credentials},
};
use selvedge_model::{SpiffeId, TrustDomain};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, transport::server::Connected};

use crate::joining::Joined;

/// No test waits longer for one step of the other side.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until `is_so`, which something else makes true.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"));
}

/// The CA of a mesh, in a directory of its own.
pub(crate) struct Ca {
    pub(crate) authority: Authority,
    _directory: tempfile::TempDir,
}

impl Ca {
    pub(crate) fn new() -> Arc<Self> {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::create(directory.path(), &TrustDomain::default()).unwrap();
        Arc::new(Self { authority, _directory: directory })
    }

    pub(crate) fn credentials(&self, identity: &SpiffeId, ttl: Duration) -> Credentials {
        let leaf = self.authority.issue(identity, &[], ttl, SystemTime::now()).unwrap();
        Credentials { leaf, bundle: self.authority.bundle() }
    }

    /// What the workload `identity` connects with.
    pub(crate) fn joined(&self, identity: &SpiffeId) -> Joined {
        let credentials = self.credentials(identity, Duration::from_secs(3600));
        Joined {
            tls: tls::grpc_client(&credentials).unwrap(),
            identity: identity.clone(),
            bundle: credentials.bundle.clone(),
            not_before: credentials.leaf.not_before,
            not_after: credentials.leaf.not_after,
            root: Some(self.authority.root_sha256()),
        }
    }
}

/// A join token for the frontend, as the control plane of `ca` would make it (but for its signature,
/// which only a control plane can check).
pub(crate) fn join_token(ca: &Ca, expires: SystemTime) -> String {
    let root: String = ca.authority.root_sha256().iter().map(|byte| format!("{byte:02x}")).collect();
    let expires = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let claims = serde_json::json!({
        "ns": "shop", "sa": "frontend", "exp": expires, "jti": "1", "root": root, "td": "cluster.local",
    });
    format!("head.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// One open stream.
pub(crate) struct Session {
    pub(crate) hello: wire::Hello,
    incoming: Streaming<wire::ClientMessage>,
    outgoing: mpsc::Sender<Result<wire::Transaction, Status>>,
}

impl Session {
    pub(crate) async fn send(&self, transaction: wire::Transaction) {
        self.outgoing.send(Ok(transaction)).await.unwrap();
    }

    /// Sends one whole transaction and returns the answer to it.
    pub(crate) async fn transact(
        &mut self,
        nonce: u64,
        upserts: Vec<wire::Resource>,
        removals: &[&str],
    ) -> wire::Ack {
        let removals = removals.iter().map(ToString::to_string).collect();
        self.send(wire::Transaction { nonce, upserts, removals, more: false, taps: None, log_level: None })
            .await;
        self.ack().await
    }

    /// The next message that is no report: those come whenever it is time for one.
    pub(crate) async fn message(&mut self) -> Body {
        let message = timeout(PATIENCE, self.next()).await.expect("a message in time");
        message.expect("the stream is open, and the message of a known kind")
    }

    /// The same; `None` when the client has closed the stream.
    pub(crate) async fn next(&mut self) -> Option<Body> {
        loop {
            match self.incoming.message().await.ok().flatten().and_then(|message| message.message) {
                Some(Body::Report(_)) => {}
                other => return other,
            }
        }
    }

    /// The next report; what comes before it is passed over.
    pub(crate) async fn report(&mut self) -> wire::Report {
        let report = async {
            loop {
                let message = self.incoming.message().await.unwrap().expect("the stream is open");
                if let Some(Body::Report(report)) = message.message {
                    return *report;
                }
            }
        };
        timeout(PATIENCE, report).await.expect("a report in time")
    }

    pub(crate) async fn ack(&mut self) -> wire::Ack {
        match self.message().await {
            Body::Ack(ack) => ack,
            other => panic!("expected an Ack, got {other:?}"),
        }
    }

    pub(crate) async fn subscribe(&mut self) -> String {
        match self.message().await {
            Body::Subscribe(subscribe) => subscribe.authority,
            other => panic!("expected a Subscribe, got {other:?}"),
        }
    }
}

/// A request for a certificate, and whether it came with one.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) token: Option<String>,
    pub(crate) with_certificate: bool,
}

/// The control plane. It ends when this is dropped.
pub(crate) struct FakeControlPlane {
    pub(crate) address: SocketAddr,
    pub(crate) asked: mpsc::Receiver<Asked>,
    sessions: mpsc::Receiver<Session>,
    frozen: Arc<AtomicBool>,
    _tasks: JoinSet<()>,
}

impl FakeControlPlane {
    /// One that proves to be the control plane, and signs for `identity` with this lifetime.
    pub(crate) async fn start(ca: &Arc<Ca>, identity: SpiffeId, ttl: Duration) -> Self {
        let own = control_plane_identity(&TrustDomain::default());
        Self::start_as(ca, &own, identity, ttl).await
    }

    /// One that proves to be `own`.
    pub(crate) async fn start_as(ca: &Arc<Ca>, own: &SpiffeId, identity: SpiffeId, ttl: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = TlsAcceptor::from(
            tls::grpc_server(&ca.credentials(own, Duration::from_secs(3600)), None).unwrap(),
        );
        let frozen = Arc::new(AtomicBool::new(false));
        let (accepted, connections) = mpsc::channel(16);
        let (opened, sessions) = mpsc::channel(16);
        let (asking, asked) = mpsc::channel(64);
        let mut tasks = JoinSet::new();
        let freezing = Arc::clone(&frozen);
        tasks.spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // A client that does not believe us ends the handshake.
                let Ok(stream) = acceptor.accept(tcp).await else { continue };
                let frozen = Arc::clone(&freezing);
                if accepted.send(Ok::<_, io::Error>(Connection { stream, frozen })).await.is_err() {
                    return;
                }
            }
        });
        let service = Service { ca: Arc::clone(ca), identity, ttl, opened, asking };
        let server = tonic::transport::Server::builder()
            .add_service(DiscoveryServer::new(service.clone()))
            .add_service(CertificatesServer::new(service))
            .serve_with_incoming(ReceiverStream::new(connections));
        tasks.spawn(async move { server.await.unwrap() });
        Self { address, asked, sessions, frozen, _tasks: tasks }
    }

    pub(crate) async fn session(&mut self) -> Session {
        timeout(PATIENCE, self.sessions.recv()).await.expect("a stream in time").expect("the server runs")
    }

    /// From now on it reads nothing, as a stopped process: its kernel still takes what is sent.
    pub(crate) fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Service {
    ca: Arc<Ca>,
    identity: SpiffeId,
    ttl: Duration,
    opened: mpsc::Sender<Session>,
    asking: mpsc::Sender<Asked>,
}

#[tonic::async_trait]
impl Discovery for Service {
    type StreamStream = ReceiverStream<Result<wire::Transaction, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<wire::ClientMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, transactions) = mpsc::channel(16);
        let opened = self.opened.clone();
        tokio::spawn(async move {
            if let Ok(Some(wire::ClientMessage { message: Some(Body::Hello(hello)) })) =
                incoming.message().await
            {
                // It fails only when the test is over.
                drop(opened.send(Session { hello, incoming, outgoing }).await);
            }
        });
        Ok(Response::new(ReceiverStream::new(transactions)))
    }
}

#[tonic::async_trait]
impl Certificates for Service {
    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let with_certificate = request.extensions().get() == Some(&HasCertificate(true));
        let wire::SignRequest { csr, token, .. } = request.into_inner();
        drop(self.asking.send(Asked { token, with_certificate }).await);
        let chain = self.ca.authority.sign(&csr, &self.identity, self.ttl, SystemTime::now());
        let chain = chain.map_err(|error| Status::invalid_argument(error.to_string()))?;
        let bundle = self.ca.authority.bundle();
        Ok(Response::new(wire::SignResponse {
            chain: chain.iter().map(|der| der.to_vec().into()).collect(),
            bundle: Some(wire::Bundle {
                trust_domain: bundle.trust_domain.to_string(),
                roots: bundle.roots.iter().map(|der| der.to_vec().into()).collect(),
                workload_roots: bundle.workload_roots.iter().map(|der| der.to_vec().into()).collect(),
            }),
            time: 0,
        }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct HasCertificate(bool);

struct Connection {
    stream: TlsStream<TcpStream>,
    frozen: Arc<AtomicBool>,
}

impl Connected for Connection {
    type ConnectInfo = HasCertificate;

    fn connect_info(&self) -> HasCertificate {
        HasCertificate(self.stream.get_ref().1.peer_certificates().is_some())
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.frozen.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
