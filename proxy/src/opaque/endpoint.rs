//! The endpoint's side of an opaque connection: chosen, connected, and judged by how it went.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::BytesMut;
use selvedge_model::{ConnectionLimits, facts::Connection};

use super::{answer::Answered, outgoing::Outgoing};
use crate::{
    balance::{Flight, Held, Limit, Outcome},
    bind::{Affinity, Bound, BoundBackend, BoundEndpoint, BoundShare, ClientTls, Others, Slot, Target},
    body::InFlight,
    connect::{Hold, Named, Opening, Tunnel},
    dispatch::{Asked, Tried, affinity::of_address, choose, count, succeeded},
    error::{Failure, Reason, SaidBy},
    facts,
    io::{Framed, Stream},
    lookup::{at_its_address, through},
    settings::StreamLimits,
    telemetry::{Labels, TcpSeries},
    worker::Worker,
};

/// How many endpoints a connection tries. No byte of it is sent to one that does not take it.
const ATTEMPTS: usize = 3;

/// The endpoint's side of a connection, and what belongs to it.
pub(super) struct EndpointSide {
    pub(super) stream: Answered<Framed<Stream>>,
    pub(super) hold: Hold,
    /// What the server has said already.
    pub(super) greeting: BytesMut,
    pub(super) address: SocketAddr,
    pub(super) series: Arc<TcpSeries>,
    /// Whether the mesh's mutual TLS leads there.
    pub(super) mtls: bool,
    pub(super) limits: StreamLimits,
    /// The endpoint that is blamed if the connection breaks off before it has begun.
    pub(super) judged: Option<(Arc<BoundBackend>, Arc<BoundEndpoint>)>,
    /// Its share of the endpoint's load, and its place among the connections that the backend may have.
    _counted: Option<(InFlight, Held)>,
}

/// Why a connection is not carried, and where that is counted.
pub(super) struct Refused {
    pub(super) failure: Failure,
    pub(super) series: Arc<TcpSeries>,
    /// Whether the mesh's mutual TLS would have led to the endpoint that was tried last.
    pub(super) mtls: bool,
}

/// Counts for the endpoint, or against it if there was a `failure`.
pub(super) fn judge(
    worker: &Worker,
    judged: Option<&(Arc<BoundBackend>, Arc<BoundEndpoint>)>,
    failure: Option<&Failure>,
) {
    let Some((backend, endpoint)) = judged else { return };
    match failure {
        // Our own limits apply before there is an endpoint to judge.
        Some(failure) if failure.reason.blames_endpoint(SaidBy::Peer) => {
            count(worker, backend, endpoint, Outcome::NoAnswer, failure);
        }
        Some(_) => {}
        None => succeeded(backend, endpoint),
    }
}

/// Opens a connection to an endpoint of the rule that this one follows.
pub(super) async fn open(worker: &Worker, outgoing: &Outgoing) -> Result<EndpointSide, Refused> {
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
    let refused = |failure| Refused { failure, series: Arc::clone(&bound.tcp.unrouted), mtls: false };
    let share = route(worker, outgoing, bound).map_err(refused)?;
    let BoundShare { backend, series, .. } = &**share;
    let refused = |failure| Refused { failure, series: Arc::clone(&series.plain), mtls: false };
    // Only a connection to the service itself goes to the address that was dialled; a route may lead elsewhere.
    let only = only.filter(|_| backend.name.service == bound.key);
    let slot = take_place(worker, backend).map_err(refused)?;
    let mut tried = Tried::default();
    let asked = asked(worker, outgoing, backend);
    loop {
        let endpoint = match only {
            None => choose(worker, backend, &tried, Instant::now(), asked),
            Some(address) => at(worker, address, bound, backend),
        };
        let endpoint = endpoint.map_err(refused)?;
        let in_flight = InFlight::of_connection(&endpoint);
        let meshed = endpoint.target.identity.is_some();
        let series = Arc::clone(series.at(Some(&*endpoint)));
        let named = Named { client: outgoing.peer, called: outgoing.dialled.unwrap_or(endpoint.target.dial) };
        let opening = Opening::opaque(&backend.policy, named);
        match worker.pools.opaque(&endpoint.target, opening, backend.policy.tunnel.as_ref()).await {
            Ok(tunnel) => {
                return Ok(EndpointSide {
                    limits: limits(worker, &backend.policy.connections),
                    judged: Some((Arc::clone(backend), Arc::clone(&endpoint))),
                    _counted: Some((in_flight, slot)),
                    ..connected(tunnel, meshed, endpoint.address, series, worker.settings.tcp)
                });
            }
            Err(failure) => {
                let judged = (Arc::clone(backend), Arc::clone(&endpoint));
                judge(worker, Some(&judged), Some(&failure));
                tried.note(backend, &endpoint);
                if only.is_some() || tried.len() >= ATTEMPTS.min(backend.endpoints.len()) {
                    return Err(Refused { failure, series, mtls: meshed });
                }
            }
        }
    }
}

/// What a connection asks of the balancer. Of what may keep it together with others, it has only its client's address.
fn asked(worker: &Worker, outgoing: &Outgoing, backend: &BoundBackend) -> Asked {
    let app = outgoing.gateway.is_none().then_some(&worker.settings.workload);
    let hash = match &backend.affinity {
        Some(Affinity::SourceAddress) => Some(of_address(outgoing.peer.ip(), app)),
        _ => None,
    };
    Asked { hash, dialled: outgoing.dialled }
}

/// The endpoint at the address that was dialled.
fn at(
    worker: &Worker,
    address: SocketAddr,
    bound: &Bound,
    backend: &BoundBackend,
) -> Result<Arc<BoundEndpoint>, Failure> {
    if let Some(endpoint) = backend.at(address) {
        return Ok(Arc::clone(endpoint));
    }
    // It goes where it was going, in the way in which the host that it names is called.
    let tls = match backend.endpoints.first() {
        Some(endpoint) if bound.requested => endpoint.target.tls.clone(),
        None if bound.requested && backend.policy.tls.is_none() => ClientTls::ByIdentity,
        _ => {
            if let Some(denied) = &backend.denied {
                return Err(worker.denied(denied));
            }
            let what = format!("{} has no endpoint at {address}", bound.key);
            return Err(Failure::new(Reason::NoEndpoint, what));
        }
    };
    let (slot, identity, flight) = (Slot::None, None, Flight::default());
    let permit = worker.view.with(|table| table.egress.permit(address, address, None));
    if let Some(denied) = permit.denied() {
        return Err(worker.denied(&denied));
    }
    Ok(Arc::new(BoundEndpoint {
        peer: None,
        target: Arc::new(Target {
            slot,
            dial: address,
            port: address.port(),
            identity,
            workload: None,
            permit: Some(permit),
            tls,
            proxy_protocol: backend.policy.proxy_protocol,
            flight,
            others: Others::default(),
        }),
        address,
        workload: None,
        place: None,
        dns_name: None,
        health: Arc::default(),
        counts: Arc::clone(&backend.counts),
        ejection: None,
        latency: None,
        load: None,
    }))
}

/// The endpoint's side that `tunnel` is. If it is `meshed`, a sidecar's answer comes first. TLS alone tells nothing: a
/// server outside the mesh may speak it too.
fn connected(
    tunnel: Tunnel,
    meshed: bool,
    address: SocketAddr,
    series: Arc<TcpSeries>,
    limits: StreamLimits,
) -> EndpointSide {
    let Tunnel { stream, hold, doubted, said } = tunnel;
    let stream = if meshed { Answered::expected(stream, doubted) } else { Answered::unexpected(stream) };
    EndpointSide {
        stream,
        hold,
        greeting: said,
        address,
        series,
        mtls: meshed,
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
        Refused { failure, series: worker.metrics.tcp(&labels), mtls: false }
    };
    let known = Arc::clone(&outgoing.destination);
    let destination = at_its_address(worker, known).await.map_err(refused)?;
    let dialled = outgoing.dialled.or_else(|| destination.authority.parse().ok());
    let outgoing = Outgoing {
        destination,
        dialled,
        server_name: outgoing.server_name.clone(),
        gateway: outgoing.gateway.clone(),
        told: outgoing.told.clone(),
        ..*outgoing
    };
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

/// Counts one more connection to `backend`, if its policy allows one.
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
