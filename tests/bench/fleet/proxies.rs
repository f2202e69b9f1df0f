//! The simulated proxies: each has a TLS connection and a configuration stream of its own, and decodes of what it is told
//! only what is measured.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint, skip_field},
};
use selvedge_api::wire::{self, client_message};
use selvedge_certs::tls;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream, rustls::ClientConfig};

use super::{reports::Reports, sipping::Sipping};

/// How long a real proxy waits for a connection to the only address.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two attempts, and as much again by chance.
const PAUSE_MS: u64 = 500;
/// Between two streams of a proxy that comes and goes.
const BREATH: Duration = Duration::from_millis(20);
/// What a stream may have received that was not read yet.
const WINDOW: u32 = 1 << 20;
/// Before each message of gRPC.
const GRPC_HEADER: usize = 5;
/// What the kernel keeps for a proxy that reads slowly; it makes more of it.
const SLOW_BUFFER: u32 = 4096;

/// Who a simulated proxy is.
#[derive(Debug)]
pub(super) struct Identity {
    /// `namespace/name`.
    pub(super) workload: String,
    pub(super) authorities: Vec<String>,
    pub(super) tls: Arc<ClientConfig>,
    /// Where it connects from.
    pub(super) source: Ipv4Addr,
}

/// How a simulated proxy behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manners {
    /// As a proxy does.
    Good,
    /// It acknowledges nothing.
    Silent,
    /// It takes nothing in of what its connection has read.
    Deaf,
    /// It reads a byte a second.
    Slow,
    /// It leaves as soon as it has its configuration, and comes again.
    Restless,
}

/// One simulated proxy, as others see it.
#[derive(Debug, Default)]
pub(super) struct Proxy {
    /// Transactions that it was sent, the first of each stream included.
    pub(super) transactions: AtomicU64,
    /// Whether it has a stream on which it has its configuration.
    pub(super) is_current: AtomicBool,
    /// The edit whose endpoints it has last seen, by their resource's name.
    pub(super) seen: Mutex<HashMap<String, u32>>,
}

/// What all of them tell.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// Attempts to connect that failed.
    pub(super) failed: AtomicUsize,
    /// How often each reports what it has carried; `None`: never.
    pub(super) every: watch::Sender<Option<Duration>>,
    /// How many requests they have reported.
    pub(super) reported: AtomicU64,
    /// What is listened for.
    watched: Mutex<Watched>,
    /// The edit that endpoints are of, by their resource's version.
    edits: Mutex<HashMap<String, u32>>,
}

#[derive(Debug, Default)]
struct Watched {
    /// When each edit was made, by the resource that it changes.
    edits: HashMap<String, Vec<(u32, Instant)>>,
    /// A service whose next version counts, and since when.
    service: Option<(String, Instant)>,
    /// How long each took to each proxy.
    lags: Vec<Duration>,
}

impl Record {
    /// Listens for an edit, which is made now.
    pub(super) fn edit(&self, resource: &str, number: u32) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.edits.entry(resource.to_owned()).or_default().push((number, Instant::now()));
    }

    /// Listens for the next version of a service.
    pub(super) fn shift(&self, resource: &str) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        watched.service = Some((resource.to_owned(), Instant::now()));
    }

    /// How many times of arrival there are.
    pub(super) fn arrived(&self) -> usize {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).lags.len()
    }

    /// The times of arrival, and nothing more is listened for.
    pub(super) fn take(&self) -> Vec<Duration> {
        std::mem::take(&mut *self.watched.lock().unwrap_or_else(PoisonError::into_inner)).lags
    }

    /// `proxy` was told `resource`.
    fn told(&self, proxy: &Proxy, resource: &Upsert<'_>) -> anyhow::Result<()> {
        let now = Instant::now();
        if resource.name.starts_with("service/") {
            let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, since)) = watched.service.as_ref().filter(|(name, _)| name == resource.name) {
                let lag = now - *since;
                watched.lags.push(lag);
            }
        }
        if !resource.name.starts_with("endpoints/") {
            return Ok(());
        }
        let number = self.number(resource)?;
        let mut seen = proxy.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match seen.get_mut(resource.name) {
            Some(seen) => std::mem::replace(seen, number),
            None => seen.insert(resource.name.to_owned(), number).unwrap_or(number),
        };
        drop(seen);
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let edits = watched.edits.get(resource.name).into_iter().flatten();
        let fresh = edits.filter(|(edit, _)| (before + 1..=number).contains(edit));
        let lags: Vec<Duration> = fresh.map(|(_, since)| now - *since).collect();
        watched.lags.extend(lags);
        Ok(())
    }

    /// The edit that these endpoints are of: the greatest weight, which is also among what an edit has changed. Equal contents are
    /// decoded once.
    fn number(&self, resource: &Upsert<'_>) -> anyhow::Result<u32> {
        let mut edits = self.edits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = edits.get(resource.version) {
            return Ok(*number);
        }
        let decoded = wire::Resource::decode(resource.bytes)?;
        let list = match decoded.body {
            Some(wire::resource::Body::Endpoints(endpoints)) => endpoints.list,
            Some(wire::resource::Body::EndpointsDelta(delta)) => delta.added,
            _ => bail!("{} holds no endpoints", resource.name),
        };
        let number = list.iter().map(|endpoint| endpoint.weight).max().unwrap_or(0);
        edits.insert(resource.version.to_owned(), number);
        Ok(number)
    }
}

/// What is needed of one resource.
#[derive(Debug)]
struct Upsert<'m> {
    name: &'m str,
    version: &'m str,
    bytes: &'m [u8],
}

impl<'m> Upsert<'m> {
    fn read(bytes: &'m [u8]) -> anyhow::Result<Self> {
        let (mut name, mut version) = (None, None);
        // They are the first fields of a resource.
        let mut rest = bytes;
        while name.is_none() || version.is_none() {
            let (tag, kind) = decode_key(&mut rest)?;
            if kind != WireType::LengthDelimited {
                bail!("a field of a resource is not of the kind that was expected");
            }
            let length = usize::try_from(decode_varint(&mut rest)?)?;
            let (value, after) = rest.split_at_checked(length).context("a resource is cut off")?;
            match tag {
                1 => name = Some(std::str::from_utf8(value)?),
                2 => version = Some(std::str::from_utf8(value)?),
                _ => {}
            }
            rest = after;
        }
        let (name, version) = name.zip(version).context("a resource has no name")?;
        Ok(Self { name, version, bytes })
    }
}

/// Runs one proxy until its task is ended.
pub(super) fn spawn(
    identity: Arc<Identity>,
    manners: Manners,
    control_plane: SocketAddr,
    proxy: Arc<Proxy>,
    record: Arc<Record>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut held = HashMap::new();
        loop {
            match timeout(PATIENCE, connect(&identity, manners, control_plane)).await {
                Ok(Ok(connection)) => {
                    // However it ends, the next is tried.
                    drop(stream(connection, &identity, manners, &mut held, &proxy, &record).await);
                    proxy.is_current.store(false, Ordering::Release);
                }
                Ok(Err(_)) | Err(_) => drop(record.failed.fetch_add(1, Ordering::Relaxed)),
            }
            let pause = match manners {
                Manners::Restless => BREATH,
                _ => Duration::from_millis(PAUSE_MS + fastrand::u64(0..PAUSE_MS)),
            };
            tokio::time::sleep(pause).await;
        }
    })
}

type Connection = TlsStream<Sipping<TcpStream>>;

async fn connect(
    identity: &Identity,
    manners: Manners,
    control_plane: SocketAddr,
) -> anyhow::Result<Connection> {
    let socket = TcpSocket::new_v4()?;
    if manners == Manners::Slow {
        socket.set_recv_buffer_size(SLOW_BUFFER)?;
    }
    socket.bind(SocketAddr::from((identity.source, 0)))?;
    let tcp = socket.connect(control_plane).await?;
    tcp.set_nodelay(true)?;
    let connector = TlsConnector::from(Arc::clone(&identity.tls));
    let mut stream = connector.connect(tls::session_name(control_plane), Sipping::new(tcp)).await?;
    if manners == Manners::Slow {
        stream.get_mut().0.sip();
    }
    Ok(stream)
}

async fn stream(
    connection: Connection,
    identity: &Identity,
    manners: Manners,
    held: &mut HashMap<String, String>,
    proxy: &Proxy,
    record: &Record,
) -> anyhow::Result<()> {
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .handshake::<_, Bytes>(connection)
        .await?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    let outcome = converse(sender, identity, manners, held, proxy, record).await;
    driver.abort();
    outcome
}

async fn converse(
    sender: h2::client::SendRequest<Bytes>,
    identity: &Identity,
    manners: Manners,
    held: &mut HashMap<String, String>,
    proxy: &Proxy,
    record: &Record,
) -> anyhow::Result<()> {
    let request = http::Request::post("http://control-plane/selvedge.v1.Discovery/Stream")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (response, mut outgoing) = sender.ready().await?.send_request(request, false)?;
    let hello = wire::Hello {
        workload: identity.workload.clone(),
        proxy_version: "fleet".to_owned(),
        held: held.iter().map(|(name, version)| (name.clone(), version.clone())).collect(),
        authorities: identity.authorities.clone(),
        takes_taps: false,
        takes_log_levels: false,
        takes_endpoint_deltas: true,
    };
    outgoing.send_data(message(client_message::Message::Hello(hello)), false)?;
    let mut body = response.await?.into_body();
    if manners == Manners::Deaf {
        return std::future::pending().await;
    }
    let mut buffer = BytesMut::new();
    let mut reports = Reports::new(identity, record);
    loop {
        let data = tokio::select! {
            data = body.data() => data.context("the stream has ended")??,
            () = reports.due() => {
                outgoing.send_data(message(client_message::Message::Report(reports.next().into())), false)?;
                continue;
            }
        };
        body.flow_control().release_capacity(data.len())?;
        buffer.extend_from_slice(&data);
        while let Some(transaction) = next_message(&mut buffer)? {
            let Some(nonce) = apply(&transaction, held, proxy, record)? else { continue };
            proxy.transactions.fetch_add(1, Ordering::AcqRel);
            if manners == Manners::Silent {
                continue;
            }
            let ack = wire::Ack { nonce, refused: None };
            outgoing.send_data(message(client_message::Message::Ack(ack)), false)?;
            proxy.is_current.store(true, Ordering::Release);
            if manners == Manners::Restless {
                return Ok(());
            }
        }
    }
}

/// As gRPC frames it.
fn message(message: client_message::Message) -> Bytes {
    let message = wire::ClientMessage { message: Some(message) };
    let mut bytes = BytesMut::with_capacity(GRPC_HEADER + message.encoded_len());
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap_or(u32::MAX));
    message.encode_raw(&mut bytes);
    bytes.freeze()
}

fn next_message(buffer: &mut BytesMut) -> anyhow::Result<Option<Bytes>> {
    if buffer.len() < GRPC_HEADER {
        return Ok(None);
    }
    if buffer[0] != 0 {
        bail!("a message is compressed");
    }
    let length = (&buffer[1..GRPC_HEADER]).get_u32() as usize;
    if buffer.len() < GRPC_HEADER + length {
        return Ok(None);
    }
    buffer.advance(GRPC_HEADER);
    let message = buffer.split_to(length).freeze();
    if buffer.is_empty() {
        // What the largest message took is given back.
        *buffer = BytesMut::new();
    }
    Ok(Some(message))
}

/// Takes in one message; its nonce, if it is the transaction's last.
fn apply(
    message: &Bytes,
    held: &mut HashMap<String, String>,
    proxy: &Proxy,
    record: &Record,
) -> anyhow::Result<Option<u64>> {
    let (mut nonce, mut more) = (0, false);
    let mut rest = &**message;
    while !rest.is_empty() {
        match decode_key(&mut rest)? {
            (1, WireType::Varint) => nonce = decode_varint(&mut rest)?,
            (4, WireType::Varint) => more = decode_varint(&mut rest)? != 0,
            (tag @ (2 | 3), WireType::LengthDelimited) => {
                let length = usize::try_from(decode_varint(&mut rest)?)?;
                let (value, after) = rest.split_at_checked(length).context("a message is cut off")?;
                rest = after;
                if tag == 3 {
                    held.remove(std::str::from_utf8(value)?);
                    continue;
                }
                let upsert = Upsert::read(value)?;
                record.told(proxy, &upsert)?;
                held.insert(upsert.name.to_owned(), upsert.version.to_owned());
            }
            (tag, kind) => {
                skip_field(kind, tag, &mut rest, prost::encoding::DecodeContext::default())?;
            }
        }
    }
    Ok((!more).then_some(nonce))
}
