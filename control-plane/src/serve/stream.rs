//! The configuration stream: tells one proxy what it asked for, and keeps that current.
//!
//! At most one transaction is in progress; what changes meanwhile is in the next. So a slow proxy costs
//! nothing but its own delay, however often configuration changes. `Session` holds what was said and
//! does no I/O; the rest of this file is the conversation around it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_api::{
    ResourceName,
    encoded::{Transaction, server},
    wire::{self, client_message::Message},
};
use selvedge_certs::verify::Peer;
use selvedge_model::{Holder, Workload, WorkloadName};
use selvedge_ops::{
    Drain,
    places::{Activity, Doing},
    plain_within,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    connection::Client,
    turns::{self, Turns},
};
use crate::{
    metrics::{Metrics, TransactionOutcome},
    snapshot::{
        Snapshot, Store,
        diff::{self, Difference, Pace, Refused, Versions},
        view::{self, Subject},
    },
    status::{Proof, Proxies, Proxy, RefusedTransaction, Registration},
};

/// From the stream's start to its Hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// From the Hello to the first configuration of a control plane that is starting.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// From a transaction to its Ack.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the words at the end of a stream may take to be sent.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Subscriptions of one proxy. Each costs work on every change.
const MAX_AUTHORITIES: usize = 10_000;
/// The longest authority: a DNS name, a colon and a port.
const MAX_AUTHORITY: usize = 260;
/// Resources that a proxy may say that it holds.
const MAX_HELD: usize = 10_000;
/// The longest name of a resource: its kind, and an authority or a service's host and port.
const MAX_NAME: usize = 300;
/// The longest version of a resource.
const MAX_VERSION: usize = 128;
/// How much is kept of what a proxy says that it is, in bytes.
const MAX_PROXY_VERSION: usize = 64;
/// How much is kept of why it refused something, in bytes.
const MAX_REASON: usize = 1024;
/// Messages of one transaction that wait in memory for a slow connection.
const OUTGOING: usize = 2;

/// Serves configuration streams.
#[derive(Debug)]
pub struct Streams {
    /// What is told.
    pub store: Arc<Store>,
    /// Who is told.
    pub proxies: Arc<Proxies>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How many each workload has.
    pub turns: Arc<Turns>,
    /// Ends every stream.
    pub drain: Drain,
}

#[tonic::async_trait]
impl server::Discovery for Streams {
    type StreamStream = ReceiverStream<Result<Transaction, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<wire::ClientMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let client = request.extensions().get::<Client>().cloned();
        let client = client.ok_or_else(|| Status::internal("the connection is unknown"))?;
        let Some(peer) = client.peer else {
            self.metrics.stream_refused(reason(Code::Unauthenticated));
            return Err(Status::unauthenticated(
                "a configuration stream needs the workload's certificate; get one with Certificates.Sign",
            ));
        };
        let (outgoing, transactions) = mpsc::channel(OUTGOING);
        let conversation = Conversation {
            address: client.address,
            peer,
            root: client.root,
            snapshots: self.store.subscribe(),
            proxies: Arc::clone(&self.proxies),
            metrics: Arc::clone(&self.metrics),
            turns: Arc::clone(&self.turns),
            activity: client.activity,
            outgoing,
        };
        // Ends with the drain, with the client, or with its certificate.
        tokio::spawn(conversation.run(request.into_inner(), self.drain.clone()));
        Ok(Response::new(ReceiverStream::new(transactions)))
    }
}

/// The word for a refusal in metrics.
fn reason(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "unauthenticated",
        Code::NotFound => "unknown-workload",
        Code::PermissionDenied => "not-allowed",
        Code::InvalidArgument => "protocol",
        Code::ResourceExhausted => "too-many-subscriptions",
        Code::DeadlineExceeded => "silent",
        Code::Aborted => "replaced",
        Code::Unavailable => "stopping",
        _ => "broken",
    }
}

struct Conversation {
    address: std::net::SocketAddr,
    peer: Peer,
    root: Option<Arc<str>>,
    snapshots: watch::Receiver<Option<Arc<Snapshot>>>,
    proxies: Arc<Proxies>,
    metrics: Arc<Metrics>,
    turns: Arc<Turns>,
    activity: Activity,
    outgoing: mpsc::Sender<Result<Transaction, Status>>,
}

impl Conversation {
    async fn run(mut self, mut messages: Streaming<wire::ClientMessage>, drain: Drain) {
        let expired = expiry(self.peer.not_after);
        let ended = tokio::select! {
            ended = self.converse(&mut messages) => ended,
            () = expired => Err(Status::unauthenticated(
                "the certificate that this stream was opened with has expired; renew it and reconnect",
            )),
            _ = drain.drained() => Err(Status::unavailable("the control plane is stopping; reconnect")),
        };
        self.activity.set(Doing::Idle);
        let (address, identity) = (self.address, &self.peer.identity);
        match ended {
            Ok(()) => tracing::debug!(%address, %identity, "configuration stream closed by the proxy"),
            Err(status) => {
                let reason = reason(status.code());
                self.metrics.stream_refused(reason);
                tracing::info!(%address, %identity, reason, why = status.message(), "configuration stream ended");
                // Fails if the proxy is gone, and then there is nobody to tell.
                let _ = timeout(FAREWELL_TIMEOUT, self.outgoing.send(Err(status))).await;
            }
        }
    }

    async fn converse(&mut self, messages: &mut Streaming<wire::ClientMessage>) -> Result<(), Status> {
        let hello = hello(messages).await?;
        let mut session = Session::new(&self.peer, hello)?;
        self.started().await?;
        session.admit(&*self.snapshot()?)?;
        let mut turn = self.turns.take(&session.workload);
        // Its connection keeps its place from now on.
        self.activity.set(Doing::Busy);
        let registration = self.proxies.register(session.shown(self.address, self.root.clone()));
        tracing::info!(workload = %session.workload, address = %self.address, "configuration stream open");
        loop {
            if session.due && session.under_way.is_none() {
                self.send_what_is_due(&mut session).await?;
                registration.update(|proxy| session.show(proxy));
            }
            let deadline = session.under_way.as_ref().map(|under_way| under_way.deadline);
            tokio::select! {
                message = messages.message() => match message? {
                    Some(message) => self.hear(&mut session, message, &registration)?,
                    None => return Ok(()),
                },
                changed = self.snapshots.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane is stopping; reconnect"))?;
                    // At once, and not when what is in progress has been answered.
                    session.admit(&*self.snapshot()?)?;
                    session.due = true;
                }
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Err(Status::deadline_exceeded(format!("no Ack within {ACK_TIMEOUT:?}")));
                }
                () = self.outgoing.closed() => return Ok(()),
                () = turn.over() => return Err(Status::aborted(format!(
                    "{} newer streams of workload {} are open; give each proxy its own workload",
                    turns::MOST, session.workload
                ))),
            }
        }
    }

    /// Waits for the first configuration of a control plane that is starting.
    async fn started(&mut self) -> Result<(), Status> {
        match timeout(START_TIMEOUT, self.snapshots.wait_for(Option::is_some)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(Status::unavailable("the control plane has not read its configuration yet; reconnect")),
        }
    }

    fn snapshot(&mut self) -> Result<Arc<Snapshot>, Status> {
        let newest = self.snapshots.borrow_and_update().clone();
        newest.ok_or_else(|| Status::unavailable("the control plane has no configuration; reconnect"))
    }

    async fn send_what_is_due(&mut self, session: &mut Session) -> Result<(), Status> {
        let snapshot = self.snapshot()?;
        let Some(difference) = session.next(&snapshot, Instant::now() + ACK_TIMEOUT)? else {
            return Ok(());
        };
        let nonce = session.nonce;
        let (upserts, removals) = (difference.upserts.len(), difference.removals.len());
        tracing::debug!(workload = %session.workload, nonce, upserts, removals, "transaction");
        for message in difference.messages(nonce) {
            let sent = timeout(ACK_TIMEOUT, self.outgoing.send(Ok(message))).await;
            // Closed: the proxy is gone, and the loop around us sees that next.
            sent.map_err(|_| Status::deadline_exceeded(format!("nothing was read for {ACK_TIMEOUT:?}")))?
                .ok();
        }
        self.metrics.transaction(TransactionOutcome::Sent);
        Ok(())
    }

    fn hear(
        &self,
        session: &mut Session,
        message: wire::ClientMessage,
        registration: &Registration,
    ) -> Result<(), Status> {
        match session.hear(message)? {
            MessageOutcome::Nothing => {}
            // What it holds now is shown by the look at what is due next.
            MessageOutcome::Applied => self.metrics.transaction(TransactionOutcome::Acknowledged),
            MessageOutcome::Refused { nonce, reason } => {
                self.metrics.transaction(TransactionOutcome::Refused);
                let reason = plain_within(&reason, MAX_REASON);
                tracing::warn!(workload = %session.workload, nonce, reason, "the proxy refused its configuration");
                let refused = RefusedTransaction { nonce, at: SystemTime::now(), reason };
                registration.update(|proxy| {
                    session.show(proxy);
                    proxy.refused = Some(refused);
                });
            }
        }
        Ok(())
    }
}

async fn hello(messages: &mut Streaming<wire::ClientMessage>) -> Result<wire::Hello, Status> {
    let first = timeout(HELLO_TIMEOUT, messages.message()).await;
    let first =
        first.map_err(|_| Status::deadline_exceeded(format!("no Hello within {HELLO_TIMEOUT:?}")))??;
    match first.and_then(|message| message.message) {
        Some(Message::Hello(hello)) => Ok(hello),
        _ => Err(Status::invalid_argument("the first message on a configuration stream is Hello")),
    }
}

/// By the wall clock, looked at again every minute: it may be set, and a host may sleep.
async fn expiry(not_after: SystemTime) {
    const LOOK: Duration = Duration::from_secs(60);
    while let Ok(left) = not_after.duration_since(SystemTime::now())
        && !left.is_zero()
    {
        sleep(left.min(LOOK)).await;
    }
}

/// What was said on one stream, and what follows from it.
#[derive(Debug)]
struct Session {
    peer: Peer,
    workload: WorkloadName,
    proxy_version: String,
    authorities: BTreeSet<Arc<str>>,
    held: Arc<Versions>,
    refused: Refused,
    pace: Pace,
    nonce: u64,
    under_way: Option<PendingTransaction>,
    acknowledged: Option<u64>,
    /// The configuration version that the proxy is up to date with.
    configuration: Option<u64>,
    /// Something may have changed since the last look.
    due: bool,
    greeted: bool,
}

#[derive(Debug)]
struct PendingTransaction {
    nonce: u64,
    /// What is held once it is applied.
    applied: Versions,
    /// What it consists of.
    parts: Refused,
    deadline: Instant,
}

/// What a message from the proxy came to.
#[derive(Debug, PartialEq, Eq)]
enum MessageOutcome {
    Nothing,
    Applied,
    Refused { nonce: u64, reason: String },
}

impl Session {
    fn new(peer: &Peer, hello: wire::Hello) -> Result<Self, Status> {
        let workload =
            hello.workload.parse().map_err(|error| Status::invalid_argument(format!("{error}")))?;
        if hello.held.len() > MAX_HELD {
            return Err(Status::resource_exhausted(format!("more than {MAX_HELD} resources are held")));
        }
        let within =
            |(name, version): &(String, String)| name.len() <= MAX_NAME && version.len() <= MAX_VERSION;
        // A name that we do not know is a newer control plane's; we will never change what it stands for.
        let known = |(name, version): (String, String)| Some((name.parse().ok()?, Arc::from(version)));
        let mut session = Self {
            peer: peer.clone(),
            workload,
            proxy_version: plain_within(&hello.proxy_version, MAX_PROXY_VERSION),
            authorities: BTreeSet::new(),
            held: Arc::new(hello.held.into_iter().filter(within).filter_map(known).collect()),
            refused: Refused::new(),
            pace: Pace::default(),
            nonce: 0,
            under_way: None,
            acknowledged: None,
            configuration: None,
            due: true,
            greeted: false,
        };
        for authority in hello.authorities {
            session.add(authority)?;
        }
        Ok(session)
    }

    /// Whether the workload exists, is who the certificate says, and is not revoked.
    fn admit(&self, snapshot: &Snapshot) -> Result<Arc<Workload>, Status> {
        let name = &self.workload;
        if let Some(bound) = self.peer.workload.as_ref().filter(|bound| bound.name != *name) {
            return Err(Status::permission_denied(format!(
                "the certificate is for workload {}, not for {name}",
                bound.name
            )));
        }
        let holder = Holder { workload: Some(name), ..self.peer.holder() };
        if let Some(found) = snapshot.mesh().revocations.find(holder, SystemTime::now()) {
            return Err(Status::permission_denied(format!("{found}; ask the author of that document")));
        }
        let Some(workload) = snapshot.mesh().workloads.get(name) else {
            return Err(Status::not_found(format!(
                "no document declares workload {name}; add a WorkloadEntry with metadata.namespace: {}, \
                 metadata.name: {}, spec.serviceAccount: {} and spec.address",
                name.namespace(),
                name.name(),
                self.peer.identity.service_account(),
            )));
        };
        if workload.identity != self.peer.identity {
            return Err(Status::permission_denied(format!(
                "workload {name} is {}, and the certificate is for {}",
                workload.identity, self.peer.identity
            )));
        }
        Ok(Arc::clone(workload))
    }

    fn add(&mut self, authority: String) -> Result<(), Status> {
        if authority.is_empty() || authority.len() > MAX_AUTHORITY {
            return Err(Status::invalid_argument(format!(
                "an authority has 1 to {MAX_AUTHORITY} bytes, not {}",
                authority.len()
            )));
        }
        self.authorities.insert(Arc::from(authority));
        if self.authorities.len() > MAX_AUTHORITIES {
            return Err(Status::resource_exhausted(format!("more than {MAX_AUTHORITIES} subscriptions")));
        }
        Ok(())
    }

    /// Takes in one message.
    fn hear(&mut self, message: wire::ClientMessage) -> Result<MessageOutcome, Status> {
        match message.message {
            Some(Message::Subscribe(subscribe)) => self.subscribe(subscribe.authority)?,
            Some(Message::Unsubscribe(unsubscribe)) => self.unsubscribe(&unsubscribe.authority),
            Some(Message::Ack(ack)) => return Ok(self.acknowledge(ack)),
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument("Hello comes once, at the start of a stream"));
            }
            None => tracing::debug!(workload = %self.workload, "a message that this version does not know"),
        }
        Ok(MessageOutcome::Nothing)
    }

    fn subscribe(&mut self, authority: String) -> Result<(), Status> {
        // Forgotten, so that it is answered even if the answer is the same.
        let name = ResourceName::Lookup(authority.clone());
        Arc::make_mut(&mut self.held).remove(&name);
        if let Some(under_way) = &mut self.under_way {
            under_way.applied.remove(&name);
        }
        self.refused.remove(&Subject::Authority(Arc::from(authority.as_str())));
        self.due = true;
        self.add(authority)
    }

    fn unsubscribe(&mut self, authority: &str) {
        self.authorities.remove(authority);
        self.refused.remove(&Subject::Authority(Arc::from(authority)));
        self.due = true;
    }

    fn acknowledge(&mut self, ack: wire::Ack) -> MessageOutcome {
        let Some(under_way) = self.under_way.take_if(|under_way| under_way.nonce == ack.nonce) else {
            tracing::debug!(workload = %self.workload, nonce = ack.nonce, "an Ack for no update");
            return MessageOutcome::Nothing;
        };
        let Some(reason) = ack.refused else {
            self.held = Arc::new(under_way.applied);
            self.acknowledged = Some(under_way.nonce);
            self.due = true;
            return MessageOutcome::Applied;
        };
        if under_way.parts.len() > 1 {
            self.pace = Pace::OneByOne;
            self.due = true;
        } else {
            // Not sent again before it changes. Refused removals wait for any change, too.
            self.due |= !under_way.parts.is_empty();
            self.refused.extend(under_way.parts);
        }
        MessageOutcome::Refused { nonce: under_way.nonce, reason }
    }

    /// The next transaction; `None` if the proxy lacks nothing, or nothing that it would take.
    fn next(&mut self, snapshot: &Snapshot, deadline: Instant) -> Result<Option<Difference>, Status> {
        self.due = false;
        let workload = self.admit(snapshot)?;
        let parts = view::view(snapshot, &workload, &self.authorities);
        let difference = diff::next(&parts, &self.held, &self.refused, self.pace);
        if difference.is_empty() {
            self.pace = Pace::default();
            self.configuration = Some(snapshot.version());
            if self.greeted {
                return Ok(None);
            }
        }
        self.greeted = true;
        self.nonce += 1;
        self.under_way = Some(PendingTransaction {
            nonce: self.nonce,
            applied: difference.applied_to(&self.held),
            parts: difference.parts.clone(),
            deadline,
        });
        Ok(Some(difference))
    }

    fn shown(&self, address: std::net::SocketAddr, root: Option<Arc<str>>) -> Proxy {
        Proxy {
            workload: self.workload.clone(),
            identity: self.peer.identity.clone(),
            proof: Proof::of(&self.peer),
            certificate_serial: self.peer.serial.clone(),
            certificate_root: root,
            address,
            proxy_version: self.proxy_version.clone(),
            connected_at: SystemTime::now(),
            certificate_expires_at: self.peer.not_after,
            authorities: self.authorities.clone(),
            holds: Arc::clone(&self.held),
            configuration_version: None,
            acknowledged: None,
            under_way: None,
            refused: None,
        }
    }

    fn show(&self, proxy: &mut Proxy) {
        if proxy.authorities != self.authorities {
            proxy.authorities.clone_from(&self.authorities);
        }
        proxy.holds = Arc::clone(&self.held);
        proxy.configuration_version = self.configuration;
        proxy.acknowledged = self.acknowledged;
        proxy.under_way = self.under_way.as_ref().map(|under_way| under_way.nonce);
    }
}
