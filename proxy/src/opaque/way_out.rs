//! The way out: an opaque connection of the app's to an endpoint of whatever it was going to.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, atomic::AtomicU32},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use futures_util::future::{FutureExt, LocalBoxFuture};
use selvedge_model::{ConnectionLimits, Layer, facts::Connection};
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{
    answer::{Answered, refusal},
    session::Session,
};
use crate::{
    arrival::Direction,
    balance::{Held, Limit, Outcome},
    bind::{Bound, BoundBackend, BoundEndpoint, BoundShare, ClientTls, Destination, Slot, Target},
    body::{InFlight, Opened},
    connect::{Hold, Tunnel},
    detect::{
        Detected, First, detect, detect_until,
        hello::{HELLO_TIMEOUT, hello},
    },
    dispatch::{Tried, choose, count},
    error::{Failure, Reason, SaidBy},
    facts,
    io::{Abort, Duplex, Framed, Prefixed, Stream},
    lifetime,
    lookup::{at_its_address, through},
    settings::StreamLimits,
    telemetry::{Labels, TcpSeries},
    trust::lost,
    worker::Worker,
};

/// How many endpoints a connection tries. No byte of it is sent to one that does not take it.
const ATTEMPTS: usize = 3;

/// How long the client of a new tunnel may say nothing, where what it says decides on the route.
const SILENCE: Duration = Duration::from_secs(3);

/// Room for what a server says first.
const GREETING: usize = 4096;

/// What is known of a connection before it goes anywhere.
pub(crate) struct Outgoing {
    /// Where it comes from.
    pub(crate) peer: SocketAddr,
    /// The address that it was going to; `None`: it says a name.
    pub(crate) dialled: Option<SocketAddr>,
    /// What that is.
    pub(crate) destination: Arc<Destination>,
    /// Whether it begins with TLS.
    pub(crate) layer: Layer,
    /// Whom that TLS asks for.
    pub(crate) server_name: Option<String>,
}

impl Outgoing {
    /// From `peer` to `destination`; nothing is known yet of what it carries.
    pub(crate) fn to(peer: SocketAddr, dialled: Option<SocketAddr>, destination: Arc<Destination>) -> Self {
        Self { peer, dialled, destination, layer: Layer::Tcp, server_name: None }
    }

    /// Whether the name that its TLS asks for decides where it goes.
    pub(crate) fn needs_name(&self) -> bool {
        self.follows().is_some_and(|(bound, _)| bound.tcp.has_names)
    }

    /// It begins with TLS, which asks for `server_name`.
    pub(crate) fn with_tls(self, server_name: Option<String>) -> Self {
        Self { layer: Layer::Tls, server_name, ..self }
    }

    /// What it is for, in words.
    fn called(&self) -> &dyn std::fmt::Display {
        match self.follows() {
            Some((bound, _)) => &bound.key,
            None => &self.destination.authority,
        }
    }

    /// Whose routes and policy it follows, and the only address that it may go to, if there is but one. `None`: it is
    /// for nothing that the mesh knows.
    ///
    /// Who dials an endpoint of a service that has no address of its own may mean that endpoint (a replica of a
    /// database) or all of them; only if a document says where such connections go is it the latter.
    fn follows(&self) -> Option<(&Arc<Bound>, Option<SocketAddr>)> {
        let bound = self.destination.service.as_ref().or(self.destination.bound.as_ref())?;
        let is_service_of_endpoint = self.destination.service.is_some();
        let only = bound.requested || is_service_of_endpoint && !bound.tcp.is_written;
        Some((bound, only.then_some(self.dialled).flatten()))
    }
}

/// The endpoint's end of a connection, and what hangs on it.
struct EndpointSide {
    stream: Answered<Framed<Stream>>,
    hold: Hold,
    /// What the server has said already.
    greeting: BytesMut,
    endpoint: SocketAddr,
    series: Arc<TcpSeries>,
    limits: StreamLimits,
    /// Who is to blame if it breaks off before it has begun.
    judged: Option<(Arc<BoundBackend>, Arc<BoundEndpoint>)>,
    /// Its share of the endpoint's load, and its place among the connections that the backend may have.
    _counted: Option<(InFlight, Held)>,
}

/// Why a connection is not carried, and where that is counted.
struct Refused {
    failure: Failure,
    series: Arc<TcpSeries>,
}

/// Who speaks first on a connection whose client was silent.
pub(crate) enum Speaker {
    /// The client, after all.
    Client(TcpStream, First),
    /// Nobody any more: the server spoke, and the connection has been carried to its end; or it was refused.
    Over,
}

/// Carries `client`, of which `read` has been read, to an endpoint.
pub(crate) async fn carry(worker: Rc<Worker>, outgoing: Outgoing, client: TcpStream, read: BytesMut) {
    let started = Instant::now();
    match open(&worker, &outgoing).await {
        Err(refused) => refuse(&worker, &outgoing, &client, &refused, started),
        Ok(far) => exchange(&worker, &outgoing, Prefixed::new(read.freeze(), client), far, started).await,
    }
}

/// A tunnel that its client is going to be told of.
pub(crate) struct Promised {
    worker: Rc<Worker>,
    outgoing: Outgoing,
    /// `None`: where it goes depends on what its client says first.
    far: Option<EndpointSide>,
    started: Instant,
}

impl std::fmt::Debug for Promised {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Promised").field("to", &self.outgoing.destination.authority).finish_non_exhaustive()
    }
}

impl Promised {
    /// Connects to an endpoint, unless it is not known yet to which.
    ///
    /// # Errors
    /// If there is no way to one; it has been counted and written down.
    pub(crate) async fn open(worker: Rc<Worker>, outgoing: Outgoing) -> Result<Self, Failure> {
        let started = Instant::now();
        if outgoing.needs_name() {
            return Ok(Self { worker, outgoing, far: None, started });
        }
        match open(&worker, &outgoing).await {
            Ok(far) => Ok(Self { worker, outgoing, far: Some(far), started }),
            Err(refused) => {
                note(&worker, &outgoing, &refused, started);
                Err(refused.failure)
            }
        }
    }

    async fn carry(self, mut client: Box<dyn Duplex>) {
        let Self { worker, outgoing, far, started } = self;
        let mut read = BytesMut::new();
        let (outgoing, far) = match far {
            Some(far) => (outgoing, far),
            None => {
                let Some(outgoing) = heard(&worker, outgoing, &mut client, &mut read).await else { return };
                match open(&worker, &outgoing).await {
                    Ok(far) => (outgoing, far),
                    Err(refused) => return refuse(&worker, &outgoing, &client, &refused, started),
                }
            }
        };
        exchange(&worker, &outgoing, Prefixed::new(read.freeze(), client), far, started).await;
    }
}

impl Opened for Promised {
    fn carry(self: Box<Self>, client: Box<dyn Duplex>) -> LocalBoxFuture<'static, ()> {
        Self::carry(*self, client).boxed_local()
    }
}

/// The same with the name that the client's TLS asks for, once it has spoken or been silent for a while. `None`: it has
/// left.
async fn heard(
    worker: &Worker,
    outgoing: Outgoing,
    client: &mut impl Duplex,
    read: &mut BytesMut,
) -> Option<Outgoing> {
    let over = worker.leave.closed(Direction::Outbound);
    match detect_until(client, read, Some(SILENCE), HELLO_TIMEOUT, over).await? {
        First::End => None,
        First::Bytes(Detected::Tls) => {
            let hello = tokio::time::timeout(HELLO_TIMEOUT, hello(client, read)).await.ok()?.ok()?;
            Some(outgoing.with_tls(hello.server_name()))
        }
        First::Bytes(_) | First::Silence => Some(outgoing),
    }
}

/// Connects to an endpoint for a client that says nothing: perhaps it waits for the server to speak first.
/// If it is the client that speaks, nothing has happened yet, and it is up to the caller what that means.
pub(crate) async fn speculate(
    worker: Rc<Worker>,
    outgoing: Outgoing,
    mut client: TcpStream,
    read: &mut BytesMut,
) -> io::Result<Speaker> {
    let started = Instant::now();
    let mut far = match open(&worker, &outgoing).await {
        Ok(far) => far,
        Err(refused) => {
            refuse(&worker, &outgoing, &client, &refused, started);
            return Ok(Speaker::Over);
        }
    };
    far.greeting.reserve(GREETING);
    let greeted = tokio::select! {
        biased;
        first = detect(&mut client, read, None) => return Ok(Speaker::Client(client, first?)),
        greeted = far.stream.read_buf(&mut far.greeting) => greeted,
        () = worker.leave.closed(Direction::Outbound) => return Ok(Speaker::Over),
    };
    if let Err(error) = greeted {
        let failure = refusal(&error).cloned();
        let failure = failure.unwrap_or_else(|| {
            Failure::new(Reason::Reset, format!("the connection to the server broke: {error}"))
        });
        judge_by(&worker, far.judged.as_ref(), Some(&failure));
        let refused = Refused { failure, series: Arc::clone(&far.series) };
        refuse(&worker, &outgoing, &client, &refused, started);
        return Ok(Speaker::Over);
    }
    let client = Prefixed::new(read.split().freeze(), client);
    exchange(&worker, &outgoing, client, far, started).await;
    Ok(Speaker::Over)
}

/// Notes that a connection is not carried, and resets it.
fn refuse(worker: &Worker, outgoing: &Outgoing, client: &impl Abort, refused: &Refused, started: Instant) {
    note(worker, outgoing, refused, started);
    client.abort();
}

/// Counts and writes down a connection that is not carried.
fn note(worker: &Worker, outgoing: &Outgoing, refused: &Refused, started: Instant) {
    let Refused { failure, series } = refused;
    let called = outgoing.called();
    session(worker, outgoing, series, started, format_args!("{called}")).refused(failure);
}

fn session<'a>(
    worker: &'a Worker,
    outgoing: &'a Outgoing,
    series: &'a TcpSeries,
    started: Instant,
    destination: std::fmt::Arguments<'a>,
) -> Session<'a> {
    let (direction, peer) = (Direction::Outbound, outgoing.peer);
    Session { worker, series, direction, peer, identity: None, destination, started }
}

async fn exchange(
    worker: &Rc<Worker>,
    outgoing: &Outgoing,
    mut client: Prefixed<impl Duplex>,
    mut far: EndpointSide,
    started: Instant,
) {
    let until = lifetime::until(Rc::clone(worker), Direction::Outbound, None);
    let standing = far.hold.lifetime.standing().cloned();
    let until = async {
        tokio::select! {
            failure = until.end() => failure,
            failure = lost(standing.as_deref()) => failure,
        }
    };
    let series = Arc::clone(&far.series);
    let (endpoint, limits) = (far.endpoint, far.limits);
    let called = outgoing.called();
    let destination = format_args!("{called}");
    let session = session(worker, outgoing, &series, started, destination);
    let greeting = far.greeting.split().freeze();
    let mut stream = Prefixed::new(greeting, far.stream);
    let ended = session.carry(&mut client, &mut stream, endpoint, limits, until).await;
    let failed = ended.err();
    match failed.as_ref().filter(|_| !stream.get_ref().is_heard()) {
        // Nobody's fault that can be told: a client may leave, or a limit be reached, before a word is said.
        Some(failure) if failure.reason != Reason::AppUnreachable => {}
        failure => judge_by(worker, far.judged.as_ref(), failure),
    }
    if failed.is_none() {
        far.hold.give_back(stream.into_inner().into_inner(), Instant::now());
    }
}

/// Counts for the endpoint, or against it if there was a `failure`.
fn judge_by(
    worker: &Worker,
    judged: Option<&(Arc<BoundBackend>, Arc<BoundEndpoint>)>,
    failure: Option<&Failure>,
) {
    let Some((backend, endpoint)) = judged else { return };
    match failure {
        // Our own limits are kept before there is an endpoint to judge.
        Some(failure) if failure.reason.blames_endpoint(SaidBy::Peer) => {
            count(worker, backend, endpoint, Outcome::GatewayFailure, failure);
        }
        Some(_) => {}
        None => endpoint.health.forgive(),
    }
}

/// Opens a connection to an endpoint of the rule that this one follows.
async fn open(worker: &Worker, outgoing: &Outgoing) -> Result<EndpointSide, Refused> {
    match outgoing.follows() {
        Some((bound, only)) => open_to(worker, outgoing, bound, only).await,
        None => open_through(worker, outgoing).await,
    }
}

/// Opens a connection to an endpoint of `bound`, or to the `only` one that it may go to.
async fn open_to(
    worker: &Worker,
    outgoing: &Outgoing,
    bound: &Arc<Bound>,
    only: Option<SocketAddr>,
) -> Result<EndpointSide, Refused> {
    let refused = |failure| Refused { failure, series: Arc::clone(&bound.tcp.unrouted) };
    let share = route(worker, outgoing, bound).map_err(refused)?;
    let BoundShare { backend, series, .. } = &**share;
    let refused = |failure| Refused { failure, series: Arc::clone(&series.plain) };
    // Only what goes to the service itself goes to the address that was dialled; a route may lead elsewhere.
    let only = only.filter(|_| backend.name.service == bound.key);
    let slot = take_place(worker, backend).map_err(refused)?;
    let mut tried = Tried::default();
    loop {
        let endpoint = match only {
            None => choose(worker, backend, &tried, Instant::now()),
            Some(address) => at(address, bound, backend),
        };
        let endpoint = endpoint.map_err(refused)?;
        let in_flight = InFlight::new(&endpoint.target, None);
        let meshed = endpoint.target.identity.is_some();
        let series = Arc::clone(series.of(meshed));
        match worker.pools.opaque(&endpoint.target, backend.policy.connect_timeout).await {
            Ok(tunnel) => {
                return Ok(EndpointSide {
                    limits: limits(worker, &backend.policy.connections),
                    judged: Some((Arc::clone(backend), Arc::clone(&endpoint))),
                    _counted: Some((in_flight, slot)),
                    ..far(tunnel, meshed, endpoint.address, series, worker.settings.tcp)
                });
            }
            Err(failure) => {
                let judged = (Arc::clone(backend), Arc::clone(&endpoint));
                judge_by(worker, Some(&judged), Some(&failure));
                tried.note(backend, &endpoint);
                if only.is_some() || tried.len() >= ATTEMPTS.min(backend.endpoints.len()) {
                    return Err(Refused { failure, series });
                }
            }
        }
    }
}

/// The endpoint at the address that was dialled.
fn at(address: SocketAddr, bound: &Bound, backend: &BoundBackend) -> Result<Arc<BoundEndpoint>, Failure> {
    if let Some(endpoint) = backend.endpoints.iter().find(|endpoint| endpoint.address == address) {
        return Ok(Arc::clone(endpoint));
    }
    // Wherever it was going, in the way in which the host that it names is called.
    let tls = match backend.endpoints.first() {
        Some(endpoint) if bound.requested => endpoint.target.tls.clone(),
        None if bound.requested && backend.policy.tls.is_none() => ClientTls::ByIdentity,
        _ => {
            let what = format!("{} has no endpoint at {address}", bound.key);
            return Err(Failure::new(Reason::NoEndpoint, what));
        }
    };
    let (slot, identity, in_flight) = (Slot::None, None, AtomicU32::new(0));
    Ok(Arc::new(BoundEndpoint {
        target: Arc::new(Target {
            slot,
            dial: address,
            port: address.port(),
            identity,
            workload: None,
            tls,
            in_flight,
        }),
        address,
        workload: None,
        origin: None,
        health: Arc::default(),
        ejection: None,
    }))
}

/// The end of `tunnel`. Where it is `meshed`, a sidecar's answer comes first. TLS alone tells nothing: a server
/// outside the mesh may speak it too.
fn far(
    tunnel: Tunnel,
    meshed: bool,
    endpoint: SocketAddr,
    series: Arc<TcpSeries>,
    limits: StreamLimits,
) -> EndpointSide {
    let Tunnel { stream, hold, doubted } = tunnel;
    let stream = if meshed { Answered::expected(stream, doubted) } else { Answered::unexpected(stream) };
    EndpointSide {
        stream,
        hold,
        greeting: BytesMut::new(),
        endpoint,
        series,
        limits,
        judged: None,
        _counted: None,
    }
}

/// Opens a connection to an address that the mesh does not know; or to a workload, if a name that the mesh does not know
/// leads there.
async fn open_through(worker: &Worker, outgoing: &Outgoing) -> Result<EndpointSide, Refused> {
    let refused = |failure| {
        let labels = Labels::unknown_destination(&worker.settings.workload);
        Refused { failure, series: worker.metrics.tcp(&labels) }
    };
    let known = Arc::clone(&outgoing.destination);
    let destination = at_its_address(worker, known).await.map_err(refused)?;
    let dialled = outgoing.dialled.or_else(|| destination.authority.parse().ok());
    let outgoing = Outgoing { destination, dialled, server_name: outgoing.server_name.clone(), ..*outgoing };
    if let Some((bound, only)) = outgoing.follows() {
        return open_to(worker, &outgoing, bound, only).await;
    }
    let bound = through(worker, &outgoing.destination).map_err(refused)?;
    open_to(worker, &outgoing, &bound, None).await
}

/// Finds the rule that a connection follows, and draws one of its shares.
fn route<'a>(
    worker: &Worker,
    outgoing: &Outgoing,
    bound: &'a Bound,
) -> Result<&'a Arc<BoundShare<TcpSeries>>, Failure> {
    let found = worker.view.with(|table| {
        bound.tcp.find(&Connection {
            layer: outgoing.layer,
            server_name: outgoing.server_name.as_deref(),
            destination: outgoing.dialled,
            ..facts::outgoing(worker, table.own.as_deref(), outgoing.peer, bound.key.port)
        })
    });
    let rule = found.ok_or_else(|| {
        let what = format!("{} has tcp or tls routes, and none matches this connection", bound.key);
        Failure::new(Reason::NoRoute, what)
    })?;
    BoundShare::draw(&rule.shares, &mut worker.rng.borrow_mut()).ok_or_else(|| {
        let what = format!("all weights of {} are 0", rule.name);
        Failure::new(Reason::NoBackend, what)
    })
}

/// One more connection to `backend`, if it may have one.
fn take_place(worker: &Worker, backend: &BoundBackend) -> Result<Held, Failure> {
    let Some(circuit) = &backend.circuit else { return Ok(backend.counts.enter(Limit::Connections)) };
    circuit.enter(Limit::Connections).ok_or_else(|| {
        worker.metrics.overflow(&backend.name, Limit::Connections, worker.index);
        let what = format!("{} has reached its limit connectionPool.tcp.maxConnections", backend.name);
        Failure::new(Reason::Overflow, what)
    })
}

fn limits(worker: &Worker, policy: &ConnectionLimits) -> StreamLimits {
    let own = worker.settings.tcp;
    StreamLimits {
        idle: policy.idle_timeout.map_or(own.idle, |idle| (!idle.is_zero()).then_some(idle)),
        longest: policy.max_duration.or(own.longest),
    }
}
