//! The kubelet's `portForward`: connections into pods, as `kubectl port-forward` and `selvedge status` ask for them.
//!
//! The API server passes them on, by TLS and with a certificate of its own, as it does to any node. Over a WebSocket
//! each port has two channels, for data and for an error; on both the first message is the port, low byte first.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, StatusCode};
use selvedge_certs::tls::provider;
use selvedge_tests::netns::{namespace::Namespace, network::NetworkPlace};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
    },
};

/// The port that nodes say they have.
pub(super) const PORT: u16 = 10250;
/// What is spoken: binary messages, each beginning with its channel's number.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;

/// Where each pod is, by its namespace and name.
type Pods = Arc<Mutex<BTreeMap<(String, String), Namespace>>>;

/// The server, until it is dropped.
pub(super) struct Forwarding {
    pods: Pods,
    serving: JoinHandle<()>,
}

impl Forwarding {
    /// Serves at the node's address with the certificate and key in these files, to whom `authority` vouches for.
    pub(super) fn start(node: &NetworkPlace, (certificate, key): (&Path, &Path), authority: &Path) -> Self {
        let address = SocketAddr::new(node.address, PORT);
        let listener = node.namespace.inside(|| std::net::TcpListener::bind(address)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(certificate, key, authority)));
        let pods = Pods::default();
        let known = Arc::clone(&pods);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, known) = (acceptor.clone(), Arc::clone(&known));
                tokio::spawn(async move {
                    if let Err(error) = serve(stream, &acceptor, &known).await {
                        eprintln!("the kubelet's port-forward: {error}");
                    }
                });
            }
        });
        Self { pods, serving }
    }

    /// From now on it leads into this pod.
    pub(super) fn add(&self, namespace: &str, name: &str, place: &NetworkPlace) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.insert((namespace.to_owned(), name.to_owned()), place.namespace.clone());
    }

    /// And no longer.
    pub(super) fn remove(&self, namespace: &str, name: &str) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.remove(&(namespace.to_owned(), name.to_owned()));
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn tls(certificate: &Path, key: &Path, authority: &Path) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build().unwrap();
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&fs::read(certificate).unwrap()).unwrap()];
    let key = PrivateKeyDer::from_pem_file(key).unwrap();
    builder.with_client_cert_verifier(verifier).with_single_cert(chain, key).unwrap()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, pods: &Pods) -> Result<(), Failure> {
    let stream = acceptor.accept(stream).await?;
    let mut asked = None;
    #[expect(clippy::result_large_err, reason = "the shape of tungstenite's callback")]
    let answer = |request: &Request, mut response: Response| {
        let found = target(request, pods);
        let protocol = HeaderValue::from_static(PROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        asked = found.as_ref().ok().cloned();
        found.map(|_| response).map_err(|(status, why)| {
            let mut refusal = ErrorResponse::new(Some(why.to_owned()));
            *refusal.status_mut() = status;
            refusal
        })
    };
    let mut socket = accept_hdr_async(stream, answer).await?;
    let (namespace, port) = asked.ok_or("nothing was asked for")?;
    for channel in [DATA, ERROR] {
        let [low, high] = port.to_le_bytes();
        socket.send(Message::binary(vec![channel, low, high])).await?;
    }
    let loopback = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port);
    let connected = namespace.inside(|| std::net::TcpStream::connect(loopback));
    let connected = match connected {
        Ok(connected) => connected,
        Err(error) => {
            let mut words = vec![ERROR];
            words.extend(format!("connecting to {loopback} in the pod: {error}").into_bytes());
            socket.send(Message::binary(words)).await?;
            return Ok(socket.close(None).await?);
        }
    };
    connected.set_nonblocking(true)?;
    let (mut from_pod, mut to_pod) = TcpStream::from_std(connected)?.into_split();
    let (mut to_client, mut from_client) = socket.split();
    let there = async {
        while let Some(message) = from_client.next().await {
            match message? {
                Message::Binary(bytes) if bytes.first() == Some(&DATA) => {
                    to_pod.write_all(&bytes[1..]).await?;
                }
                Message::Close(_) => break,
                _ => {}
            }
        }
        Ok::<_, Failure>(())
    };
    let back = async {
        let mut bytes = vec![0; 16 << 10];
        loop {
            let count = from_pod.read(&mut bytes).await?;
            if count == 0 {
                return Ok::<_, Failure>(to_client.close().await?);
            }
            let mut message = vec![DATA];
            message.extend(&bytes[..count]);
            to_client.send(Message::binary(message)).await?;
        }
    };
    // Whoever ends first ends it.
    tokio::select! {
        ended = there => ended,
        ended = back => ended,
    }
}

/// The pod and the port that a request such as `/portForward/selvedge/web-1?port=80` means.
fn target(request: &Request, pods: &Pods) -> Result<(Namespace, u16), (StatusCode, &'static str)> {
    let mut parts = request.uri().path().trim_start_matches('/').split('/');
    let (Some("portForward"), Some(namespace), Some(name), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err((StatusCode::NOT_FOUND, "this kubelet only forwards ports"));
    };
    let offered = request.headers().get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    if !offered.unwrap_or_default().split(',').any(|one| one.trim() == PROTOCOL) {
        return Err((StatusCode::BAD_REQUEST, "only v4.channel.k8s.io is spoken here"));
    }
    let ports = request.uri().query().unwrap_or_default().split('&');
    let mut ports = ports.filter_map(|pair| pair.strip_prefix("port=")?.parse().ok());
    let (Some(port), None) = (ports.next(), ports.next()) else {
        return Err((StatusCode::BAD_REQUEST, "name one port"));
    };
    let pods = pods.lock().unwrap_or_else(PoisonError::into_inner);
    let pod = pods.get(&(namespace.to_owned(), name.to_owned()));
    pod.map(|pod| (pod.clone(), port)).ok_or((StatusCode::NOT_FOUND, "no such pod runs here"))
}
