//! A mesh peer's connection: its handshake and its preamble, and what it carries.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Instant, SystemTime},
};

use http::HeaderValue;
use selvedge_api::wire;
use selvedge_model::{SpiffeId, Workload};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;

use super::{
    refuse_connection, refuse_handshake,
    target::{AppTarget, app_target},
};
use crate::{
    arrival::{Arrival, Direction},
    authorize::{note_caller, note_opaque_caller},
    clients::Client,
    connect::tls::MAX_AGE,
    error::Failure,
    facts,
    identify::{Identified, identify},
    io::{Prefixed, ReadAhead},
    lifetime::{self, Until},
    opaque::{self, Incoming},
    serve,
    step::{Conn, Entry, HttpVersion, Inbound, Request, Side, Step},
    telemetry::Peer,
    trust::{Part, revoked},
    worker::Worker,
};

/// Identifies a mesh peer and carries its connection.
pub(super) async fn carry(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    hello: StartHandshake<ReadAhead<Prefixed<TcpStream>>>,
    arrival: Arrival,
    own: &Arc<Workload>,
    client: &Client,
) {
    // Boxed: a handshake's future is large, and the connection's would keep its room.
    let Identified { stream, standing, preamble } = match Box::pin(identify(hello, &worker.live)).await {
        Ok(identified) => identified,
        Err(error) => return refuse_handshake(&worker, arrival, &error),
    };
    if let Some(failure) = revoked(&worker.live, standing.peer.holder(), Part::Client) {
        return refuse_connection(&worker, arrival, true, &failure);
    }
    client.mark_known();
    let port = u16::try_from(preamble.port).unwrap_or_default();
    let target = app_target(&worker.settings, own, arrival.original, Some(port));
    if let Err(failure) = &target {
        refuse_connection(&worker, arrival, true, failure);
        // Where nobody redirects, the peer is told why: it has proven that it is of this mesh.
        if arrival.original.is_some() {
            return;
        }
    }
    let identity = standing.peer.identity.clone();
    tracing::debug!(peer = %arrival.peer, %identity, source = preamble.source, port, "mesh peer connected");
    let _open = worker.metrics.connection_opened(Direction::Inbound, true);
    let caller = worker.metrics.caller(&identity, || preamble.naming.as_ref().map(Into::into));
    let is_opaque = preamble.carrier() == wire::Carrier::Tcp;
    let _noted = target.as_ref().ok().and_then(|_| {
        let connection = facts::incoming(arrival.peer, Some(&identity), arrival.original, port);
        if is_opaque { note_opaque_caller(&worker, &connection) } else { note_caller(&worker, &connection) }
    });
    let retire_at = retire_at(standing.peer.not_after);
    let until = lifetime::until(Rc::clone(&worker), Direction::Inbound, Some((retire_at, standing)));
    let carrier = match preamble.carrier() {
        wire::Carrier::Http1 => HttpVersion::Http1,
        wire::Carrier::Http2 => HttpVersion::Http2,
        wire::Carrier::Tcp => {
            let incoming = Incoming { caller, ..incoming(stream, arrival, identity, port, &target, until) };
            return match target {
                Ok(_) => opaque::inbound::mesh(worker, incoming).await,
                Err(failure) => opaque::inbound::refuse(worker, incoming, failure).await,
            };
        }
        wire::Carrier::Unspecified => return,
    };
    let version = match preamble.app() {
        wire::AppProtocol::Http2 => HttpVersion::Http2,
        _ => HttpVersion::Http1,
    };
    let inbound = inbound(&worker, own, identity, caller, port, target);
    let conn = Conn::new(arrival, version, Side::Inbound(inbound));
    serve::serve(carrier, stream, path, Rc::new(conn), until).await;
}

/// A mesh peer's opaque connection.
fn incoming<C>(
    client: C,
    Arrival { peer, original, .. }: Arrival,
    identity: SpiffeId,
    port: u16,
    target: &Result<AppTarget, Failure>,
    until: Until,
) -> Incoming<C> {
    let counted = target.as_ref().map_or(0, AppTarget::counted);
    // Nothing is sent to where a refused connection would have gone.
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let app = target.as_ref().map_or(nowhere, |target| target.address);
    Incoming { client, peer, original, identity: Some(identity), caller: None, port, counted, app, until }
}

/// What is known of a mesh peer's connection of requests.
fn inbound(
    worker: &Worker,
    own: &Workload,
    identity: SpiffeId,
    caller: Option<Arc<Peer>>,
    port: u16,
    target: Result<AppTarget, Failure>,
) -> Inbound {
    let counted = target.as_ref().map_or(0, AppTarget::counted);
    let series = worker.metrics.inbound(&worker.settings.workload, counted, Some(&identity), caller);
    let inbound = match target {
        Ok(target) => Inbound::to(worker.apps.at(target.address, target.is_known), port, series),
        Err(failure) => Inbound { entry: Entry::to(port, None), ..Inbound::unserved(failure, series) },
    };
    Inbound { xfcc: forwarded_client_cert(own, &identity), identity: Some(identity), ..inbound }
}

/// `x-forwarded-client-cert`, as Envoy writes it: the identity of the app's sidecar, and the one that the client has proven.
fn forwarded_client_cert(own: &Workload, peer: &SpiffeId) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("By={};URI={peer}", own.identity)).ok()
}

/// When a connection takes no more requests: when the peer's certificate ends, or when it is [`MAX_AGE`] old. The
/// peer, which retires it a little earlier by the same rule, is normally first.
fn retire_at(not_after: SystemTime) -> Instant {
    Instant::now() + not_after.duration_since(SystemTime::now()).unwrap_or_default().min(MAX_AGE)
}
