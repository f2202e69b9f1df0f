//! A client without mutual TLS. Whether it may come in is decided for each request, so that it is told.

use std::rc::Rc;

use bytes::BytesMut;
use selvedge_model::Protocol;
use tokio::net::TcpStream;

use super::{refuse_connection, target::AppTarget};
use crate::{
    arrival::{Arrival, Direction},
    authorize::note_caller,
    clients::Client,
    detect::Detected,
    error::{Failure, Reason},
    io::{Prefixed, reset},
    lifetime,
    opaque::Incoming,
    serve,
    step::{Conn, Entry, HttpVersion, Inbound, Request, Side, Step},
    worker::Worker,
};

/// Why a plain client is turned away.
const NO_PLACE: &str = "all places that --max-connections leaves for clients without a certificate are taken";

/// A plain client's connection, and what is known of it once its first bytes have come.
pub(super) struct Plain {
    pub(super) tcp: TcpStream,
    /// What was read of it.
    pub(super) read: BytesMut,
    /// What its first bytes are.
    pub(super) detected: Detected,
    pub(super) arrival: Arrival,
    /// Where it goes, or why nowhere.
    pub(super) target: Result<AppTarget, Failure>,
    /// The protocol that is declared there.
    pub(super) declared: Protocol,
    /// Its place among the clients that come in.
    pub(super) client: Rc<Client>,
}

/// How a plain client's connection goes on.
pub(super) enum Carried {
    /// Its requests are served.
    Requests(Prefixed<TcpStream>, Conn),
    /// As opaque TCP.
    Opaque(Incoming<Prefixed<TcpStream>>),
}

impl Plain {
    /// How it goes on. `None`: it is refused.
    pub(super) fn go_on(self, worker: &Rc<Worker>) -> Option<Carried> {
        let Self { tcp, read, detected, arrival, target, declared, client } = self;
        let target = match target {
            Ok(target) => target,
            Err(failure) => {
                return unserved(worker, Prefixed::new(read.freeze(), tcp), arrival, detected, failure);
            }
        };
        if !worker.places.admit_plain(&client) {
            refuse_connection(worker, arrival, false, &Failure::new(Reason::Overflow, NO_PLACE));
            reset(&tcp);
            return None;
        }
        let stream = Prefixed::new(read.freeze(), tcp);
        let may_be_opaque = matches!(declared, Protocol::Unspecified | Protocol::Tcp);
        let version = match detected {
            Detected::Http1 if declared != Protocol::Tcp => HttpVersion::Http1,
            Detected::Http2 if declared != Protocol::Tcp => HttpVersion::Http2,
            // Refused in HTTP's own words.
            Detected::Opaque if !may_be_opaque => HttpVersion::Http1,
            _ => return Some(Carried::Opaque(incoming(worker, stream, &arrival, &target))),
        };
        let app = worker.apps.at(target.address, target.is_known);
        let series = worker.metrics.inbound(&worker.settings.workload, target.counted(), None, None);
        let inbound =
            Inbound { entry: Entry::to(target.port, Some(client)), ..Inbound::to(app, target.port, series) };
        Some(Carried::Requests(stream, Conn::new(arrival, version, Side::Inbound(inbound))))
    }
}

/// A connection whose requests are forwarded nowhere: each of them is answered with the `failure`, where HTTP is spoken
/// and nobody redirects.
fn unserved(
    worker: &Worker,
    stream: Prefixed<TcpStream>,
    arrival: Arrival,
    detected: Detected,
    failure: Failure,
) -> Option<Carried> {
    refuse_connection(worker, arrival, false, &failure);
    let version = match detected {
        Detected::Http1 if arrival.original.is_none() => HttpVersion::Http1,
        Detected::Http2 if arrival.original.is_none() => HttpVersion::Http2,
        _ => {
            reset(stream.get_ref());
            return None;
        }
    };
    let series = worker.metrics.inbound(&worker.settings.workload, 0, None, None);
    let conn = Conn::new(arrival, version, Side::Inbound(Inbound::unserved(failure, series)));
    Some(Carried::Requests(stream, conn))
}

/// A plain client's connection that is opaque.
pub(super) fn incoming<C>(
    worker: &Rc<Worker>,
    client: C,
    arrival: &Arrival,
    target: &AppTarget,
) -> Incoming<C> {
    let until = lifetime::until(Rc::clone(worker), Direction::Inbound, None);
    Incoming {
        client,
        peer: arrival.peer,
        original: arrival.original,
        identity: None,
        caller: None,
        port: target.port,
        counted: target.counted(),
        app: target.address,
        until,
    }
}

/// Serves a plain client's requests.
pub(super) async fn serve(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    stream: Prefixed<TcpStream>,
    conn: Conn,
) {
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    let is_served = conn.inbound().is_some_and(|inbound| inbound.entry.client.is_some());
    let _noted = if is_served { note_caller(&worker, &conn.incoming()) } else { None };
    let (version, until) = (conn.version, lifetime::until(Rc::clone(&worker), Direction::Inbound, None));
    serve::serve(version, stream, path, Rc::new(conn), until).await;
}
