//! Opaque connections of the app, each to an endpoint of its destination.

use std::{io, rc::Rc, sync::Arc, time::Instant};

use bytes::BytesMut;
use selvedge_model::facts::Connection;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{
    answer::refusal,
    endpoint::{EndpointSide, Refused, judge, open},
    outgoing::Outgoing,
    session::Session,
};
use crate::{
    arrival::Direction,
    authorize::{forbidden, opaque_refusal},
    detect::{First, detect},
    error::{Failure, Reason},
    facts,
    io::{Abort, Duplex, Prefixed},
    lifetime::{self, Until},
    telemetry::TcpSeries,
    worker::Worker,
};

/// Room for what a server says first.
const GREETING: usize = 4096;

/// Who speaks first on a connection whose client was silent.
pub(crate) enum Speaker {
    /// The client, after all.
    Client(TcpStream, First),
    /// The connection is over: the server spoke and it was carried to its end, or it was refused.
    Over,
}

/// Carries `client`, of which `read` has been read, to an endpoint.
pub(crate) async fn carry(worker: Rc<Worker>, outgoing: Outgoing, client: impl Duplex, read: BytesMut) {
    let started = Instant::now();
    match open(&worker, &outgoing).await {
        Err(refused) => refuse(&worker, &outgoing, &client, &refused, started),
        Ok(endpoint) => {
            exchange(&worker, &outgoing, Prefixed::new(read.freeze(), client), endpoint, started).await
        }
    }
}

/// Connects to an endpoint for a client that says nothing: perhaps it waits for the server to speak first. If the
/// client speaks first, nothing has happened yet, and the caller decides what that means.
pub(crate) async fn speculate(
    worker: Rc<Worker>,
    outgoing: Outgoing,
    mut client: TcpStream,
    read: &mut BytesMut,
) -> io::Result<Speaker> {
    let started = Instant::now();
    let mut endpoint = match open(&worker, &outgoing).await {
        Ok(endpoint) => endpoint,
        Err(refused) => {
            refuse(&worker, &outgoing, &client, &refused, started);
            return Ok(Speaker::Over);
        }
    };
    endpoint.greeting.reserve(GREETING);
    let greeted = tokio::select! {
        biased;
        first = detect(&mut client, read, None) => return Ok(Speaker::Client(client, first?)),
        greeted = endpoint.stream.read_buf(&mut endpoint.greeting) => greeted,
        () = worker.leave.closed(Direction::Outbound) => return Ok(Speaker::Over),
    };
    if let Err(error) = greeted {
        let failure = refusal(&error).cloned();
        let failure = failure.unwrap_or_else(|| {
            Failure::new(Reason::Reset, format!("the connection to the server broke: {error}"))
        });
        judge(&worker, endpoint.judged.as_ref(), Some(&failure));
        let refused = Refused { failure, series: Arc::clone(&endpoint.series), mtls: endpoint.mtls };
        refuse(&worker, &outgoing, &client, &refused, started);
        return Ok(Speaker::Over);
    }
    let client = Prefixed::new(read.split().freeze(), client);
    exchange(&worker, &outgoing, client, endpoint, started).await;
    Ok(Speaker::Over)
}

/// Notes that a connection is not carried, and resets it.
pub(super) fn refuse(
    worker: &Worker,
    outgoing: &Outgoing,
    client: &impl Abort,
    refused: &Refused,
    started: Instant,
) {
    note(worker, outgoing, refused, started);
    client.abort();
}

/// Counts and writes down a connection that is not carried.
pub(super) fn note(worker: &Worker, outgoing: &Outgoing, refused: &Refused, started: Instant) {
    let Refused { failure, series, .. } = refused;
    let called = outgoing.called();
    let destination = format_args!("{called}");
    let session = session(worker, outgoing, series, started, destination);
    Session { mtls: refused.mtls, ..session }.refused(failure);
}

/// How long it is carried. A stranger's comes in, and ends with what it came to.
fn until(worker: &Rc<Worker>, outgoing: &Outgoing) -> Until {
    match &outgoing.gateway {
        None => lifetime::until(Rc::clone(worker), Direction::Outbound, None),
        Some(gateway) => {
            lifetime::until(Rc::clone(worker), Direction::Inbound, None).within(gateway.life.clone())
        }
    }
}

/// Completes when a policy no longer lets a stranger's connection in. Our own app may always go out.
async fn forbidden_meanwhile(worker: &Worker, outgoing: &Outgoing) -> Failure {
    let Some(gateway) = &outgoing.gateway else { return std::future::pending().await };
    let connection = facts::at_gateway(outgoing.peer, gateway.via, gateway.port);
    let connection =
        Connection { layer: outgoing.layer, server_name: outgoing.server_name.as_deref(), ..connection };
    forbidden(worker, |worker| opaque_refusal(worker, &connection)).await
}

fn session<'a>(
    worker: &'a Worker,
    outgoing: &'a Outgoing,
    series: &'a TcpSeries,
    started: Instant,
    destination: std::fmt::Arguments<'a>,
) -> Session<'a> {
    let (direction, peer) = (Direction::Outbound, outgoing.peer);
    let told = outgoing.told.as_deref();
    Session { worker, series, direction, peer, identity: None, mtls: false, destination, started, told }
}

/// Carries bytes between `client` and `endpoint` until both have ended, and judges the endpoint by how that went.
pub(super) async fn exchange(
    worker: &Rc<Worker>,
    outgoing: &Outgoing,
    mut client: Prefixed<impl Duplex>,
    mut endpoint: EndpointSide,
    started: Instant,
) {
    let until = until(worker, outgoing);
    let forbidden = forbidden_meanwhile(worker, outgoing);
    let lifetime = endpoint.hold.lifetime.clone();
    let until = async {
        tokio::select! {
            failure = until.end() => failure,
            failure = forbidden => failure,
            failure = lifetime.lost() => failure,
        }
    };
    let series = Arc::clone(&endpoint.series);
    let (address, limits) = (endpoint.address, endpoint.limits);
    let called = outgoing.called();
    let destination = format_args!("{called}");
    let mtls = endpoint.mtls;
    let session = Session { mtls, ..session(worker, outgoing, &series, started, destination) };
    let greeting = endpoint.greeting.split().freeze();
    let mut stream = Prefixed::new(greeting, endpoint.stream);
    let ended = session.carry(&mut client, &mut stream, address, limits, until).await;
    let failed = ended.err();
    match failed.as_ref().filter(|_| !stream.get_ref().is_heard()) {
        // It is not known whose fault it is: a client may leave, or a limit be reached, before the first byte.
        Some(failure) if failure.reason != Reason::AppUnreachable => {}
        failure => judge(worker, endpoint.judged.as_ref(), failure),
    }
    if failed.is_none() {
        endpoint.hold.give_back(stream.into_inner().into_inner(), Instant::now());
    }
}
