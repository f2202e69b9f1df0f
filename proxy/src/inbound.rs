//! The inbound path: from a mesh peer or a plain client, past policy, to the app.

mod mesh;
mod plain;
mod target;

use std::{rc::Rc, time::Duration};

use bytes::BytesMut;
use selvedge_model::{Protocol, Workload, normalize::path::Slashes};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tower::ServiceBuilder;

use self::{
    plain::{Carried, Plain},
    target::{AppTarget, app_target},
};
use crate::{
    arrival::{Arrival, Direction},
    authenticate::authenticate,
    authorize::{authorize, opaque_refusal},
    clients::Client,
    detect::{
        Detected, First, detect_until,
        hello::{Hello, hello},
    },
    error::Failure,
    facts,
    forward::forward,
    identify::{HandshakeError, counted, in_time},
    io::{Prefixed, ReadAhead},
    limit::{self, limit},
    normalize::normalize,
    observe::observe,
    opaque,
    refuse::refuse,
    respond::respond,
    step::{Request, Step},
    worker::Worker,
};

/// How long a client may take to send its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(10);

/// The path of a request that comes in to this workload, first step first.
pub fn path(worker: &Rc<Worker>) -> impl Step<Request> + use<> {
    let unknown = worker.metrics.unknown_source(&worker.settings.workload);
    ServiceBuilder::new()
        .layer(observe(worker, Direction::Inbound, unknown)) // keeps one record of each request; sees every answer, the proxy's own included
        .layer(respond(Rc::clone(worker))) // our failures become HTTP or gRPC answers
        .layer(refuse(Rc::clone(worker))) // what is malformed or too large, or comes while too much is held
        .layer(normalize(Slashes::Kept)) // one path and one authority, for all that follows
        .layer(authenticate(Rc::clone(worker))) // whose token is not accepted goes no further
        .layer(authorize(Rc::clone(worker))) // by the policy in force now, not when the connection came
        .layer(limit(Rc::clone(worker))) // no more of them than its rate limits let in
        .layer(limit::concurrency(Rc::clone(worker))) // no more at once than the app answers without delay
        .service(forward(Rc::clone(worker)))
}

/// Carries one connection to our workload.
pub async fn connection(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    mut tcp: TcpStream,
    arrival: Arrival,
    client: Rc<Client>,
) {
    worker.view.refresh();
    let Some(own) = worker.view.with(|table| table.own.clone()) else {
        // Nothing is let in before our own policy has arrived.
        return;
    };
    // Where it goes, unless it turns out to be a mesh peer's.
    let target = app_target(&worker.settings, &own, arrival.original, None);
    let declared = target.as_ref().map_or(Protocol::Unspecified, |target| declared(&worker, &own, target));
    let may_be_opaque = matches!(declared, Protocol::Unspecified | Protocol::Tcp);
    let silence = match &target {
        Ok(target) if may_be_opaque && may_be_silent(&worker, arrival, target) => {
            Some(worker.settings.detect_timeout)
        }
        _ => None,
    };
    let mut read = BytesMut::new();
    let Some(mut begun) = first(&worker, &mut tcp, &mut read, silence).await else { return };
    if let (First::Silence, Ok(target)) = (begun, &target) {
        let incoming = plain::incoming(&worker, tcp, &arrival, target);
        let carried = opaque::inbound::speculate(Rc::clone(&worker), incoming, &mut read, &client);
        let Some(speaks) = Box::pin(carried).await else { return };
        (tcp, begun) = speaks;
    }
    let First::Bytes(detected) = begun else { return };
    if detected == Detected::Tls {
        let hello = {
            let mut counting = counted(&worker, &client, &mut tcp);
            in_time(&client, hello(&mut counting, &mut read)).await
        };
        match hello {
            Ok(Hello::Mesh { accepted, rest }) => {
                let stream = ReadAhead::new(Prefixed::new(rest.freeze(), tcp));
                let hello = StartHandshake::from_parts(*accepted, stream);
                return mesh::carry(worker, path, hello, arrival, &own, &client).await;
            }
            Ok(Hello::Other { .. }) if may_be_opaque => {}
            Ok(Hello::Other { .. }) => {
                return refuse_handshake(&worker, arrival, &HandshakeError::NotMesh);
            }
            Err(error) => return refuse_handshake(&worker, arrival, &error),
        }
    }
    let plain = Plain { tcp, read, detected, arrival, target, declared, client };
    match plain.go_on(&worker) {
        Some(Carried::Requests(stream, conn)) => plain::serve(worker, path, stream, conn).await,
        Some(Carried::Opaque(incoming)) => Box::pin(opaque::inbound::plain(worker, incoming)).await,
        None => {}
    }
}

/// Whether policy lets in a plain client that says nothing.
fn may_be_silent(worker: &Worker, arrival: Arrival, target: &AppTarget) -> bool {
    let connection = facts::incoming(arrival.peer, None, arrival.original, target.port);
    opaque_refusal(worker, &connection).is_none()
}

/// The protocol that is declared for the port where a connection goes.
fn declared(worker: &Worker, own: &Workload, target: &AppTarget) -> Protocol {
    let declared = own.protocols.get(&target.port).copied().unwrap_or_default();
    worker.settings.spoken(declared, target.port)
}

/// Waits for a connection's first bytes. `None`: it failed, or they did not come in time or before the proxy drained.
async fn first(
    worker: &Worker,
    tcp: &mut TcpStream,
    read: &mut BytesMut,
    silence: Option<Duration>,
) -> Option<First> {
    let over = worker.leave.closed(Direction::Inbound);
    detect_until(tcp, read, silence, FIRST_BYTE, over).await
}

/// Counts and logs a handshake that came to nothing.
fn refuse_handshake(worker: &Worker, arrival: Arrival, error: &HandshakeError) {
    worker.metrics.connection_refused(Direction::Inbound, true, error.reason());
    if let Some(left_out) = worker.says_refused(arrival.peer, error) {
        tracing::info!(peer = %arrival.peer, %error, left_out, "connection refused");
    }
}

/// Counts and logs a connection that is not let in.
fn refuse_connection(worker: &Worker, arrival: Arrival, mtls: bool, failure: &Failure) {
    worker.metrics.connection_refused(Direction::Inbound, mtls, failure.reason);
    let Arrival { peer, original, .. } = arrival;
    if let Some(left_out) = worker.says_refused(peer, failure) {
        let original = original.map(|original| tracing::field::display(original.address));
        tracing::info!(%peer, original, %failure, left_out, "connection refused");
    }
}
