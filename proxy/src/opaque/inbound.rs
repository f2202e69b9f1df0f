//! Opaque connections to the app, of mesh peers and of plain clients.

use std::{
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use selvedge_model::Protocol;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;

use super::{
    incoming::{Client, Incoming},
    session::Session,
};
use crate::{
    arrival::Direction,
    authorize::{admit_opaque, forbidden, note_opaque_caller, opaque_refusal},
    clients,
    detect::{First, detect},
    error::{Failure, Reason},
    facts,
    forward::{connect_timeout, unreachable},
    io::{Abort, Framed, Prefixed, ReadAhead},
    seen::Open,
    settings::Way,
    telemetry::Labels,
    worker::Worker,
};

/// How long a plain client and the app may both say nothing.
const SILENCE: Duration = Duration::from_secs(300);

/// How long a peer may take to learn that a connection takes no more sessions. A session that it began before it knew
/// is served.
const LAST_SESSION: Duration = Duration::from_secs(1);

/// Carries a mesh peer's sessions to the app, one after the other. Boxed: connections that carry HTTP would be as
/// large.
pub(crate) fn mesh<S>(
    worker: Rc<Worker>,
    incoming: Incoming<TlsStream<ReadAhead<S>>>,
) -> Pin<Box<impl Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut incoming = incoming.map(|mut client| {
        client.get_mut().0.turn_on();
        Framed::new(client)
    });
    Box::pin(async move {
        while carry(&worker, &mut incoming).await.is_ok() && another(&worker, &mut incoming).await {}
    })
}

/// Tells a mesh peer why its connection goes nowhere. Boxed as [`mesh`] is.
pub(crate) fn refuse<S>(
    worker: Rc<Worker>,
    incoming: Incoming<TlsStream<ReadAhead<S>>>,
    failure: Failure,
) -> Pin<Box<impl Future<Output = ()>>>
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut incoming = incoming.map(Framed::new);
    Box::pin(async move {
        // How it ended has been written down.
        let _ = exchange(&worker, &mut incoming, Err(failure)).await;
    })
}

/// Waits for the peer to begin another session.
async fn another<S>(worker: &Worker, incoming: &mut Incoming<Framed<S>>) -> bool
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let Incoming { client, peer, until, .. } = incoming;
    if !client.is_free() {
        return false;
    }
    let next = tokio::select! {
        biased;
        next = tokio::time::timeout(worker.settings.idle_timeout, client.next_session()) => next,
        _ = until.lost() => return false,
        _ = until.requests() => {
            if client.say_closing().await.is_err() {
                return false;
            }
            tokio::time::timeout(LAST_SESSION, client.next_session()).await
        }
    };
    match next {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "idle mesh connection ended");
            false
        }
        Err(_) => false,
    }
}

/// Carries a plain client's connection to the app.
pub(crate) async fn plain(worker: Rc<Worker>, mut incoming: Incoming<Prefixed<TcpStream>>) {
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    let _noted = noted(&worker, &incoming);
    // How it ended has been written down.
    let _ = carry(&worker, &mut incoming).await;
}

/// Notes who has come.
fn noted<C>(worker: &Worker, incoming: &Incoming<C>) -> Option<Open> {
    let Incoming { peer, original, identity, port, .. } = incoming;
    note_opaque_caller(worker, &facts::incoming(*peer, identity.as_ref(), *original, *port))
}

/// Connects to the app for a plain client that says nothing: perhaps the app speaks first. If so, the connection is
/// carried to its end. If the client speaks first, nothing has happened yet, and the client is returned with what its
/// bytes in `read` say.
pub(crate) async fn speculate(
    worker: Rc<Worker>,
    incoming: Incoming<TcpStream>,
    read: &mut BytesMut,
    place: &Rc<clients::Client>,
) -> Option<(TcpStream, First)> {
    let Incoming { mut client, peer, original, identity, caller, port, counted, app, until } = incoming;
    let app_end = match connect(&worker, port, app).await {
        Ok(app_end) => app_end,
        Err(failure) => {
            let series = worker.metrics.tcp(&Labels::inbound(&worker.settings.workload, counted, None));
            let direction = Direction::Inbound;
            let (destination, started) = (format_args!("{app}"), Instant::now());
            let session = Session {
                worker: &worker,
                series: &series,
                direction,
                peer,
                identity: None,
                mtls: false,
                destination,
                started,
                told: None,
            };
            session.refused(&failure);
            client.abort();
            return None;
        }
    };
    tokio::select! {
        biased;
        first = tokio::time::timeout(SILENCE, detect(&mut client, read, None)) => {
            return Some((client, first.ok()?.ok()?));
        }
        // The app has sent bytes, or has closed.
        _ = app_end.readable() => {}
        () = worker.leave.closed(Direction::Inbound) => return None,
    }
    if !worker.places.admit_plain(place) {
        worker.metrics.connection_refused(Direction::Inbound, false, Reason::Overflow);
        client.abort();
        return None;
    }
    let client = Prefixed::new(read.split().freeze(), client);
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    let mut incoming = Incoming { client, peer, original, identity, caller, port, counted, app, until };
    let _noted = noted(&worker, &incoming);
    // How it ended has been written down.
    let _ = exchange(&worker, &mut incoming, Ok(app_end)).await;
    None
}

/// Carries a connection to the app, as long as policy lets it.
async fn carry<C: Client>(worker: &Rc<Worker>, incoming: &mut Incoming<C>) -> Result<(), Failure> {
    let Incoming { peer, original, identity, port, .. } = incoming;
    let connection = facts::incoming(*peer, identity.as_ref(), *original, *port);
    let refused = admit_opaque(worker, &connection).err();
    let opened = match refused.or_else(|| speaks_http(worker, incoming.port)) {
        Some(failure) => Err(failure),
        None => connect(worker, incoming.port, incoming.app).await,
    };
    exchange(worker, incoming, opened).await
}

/// Why no opaque connection may come in to `port`. An HTTP app learns from header fields who calls it; a client that
/// could write them itself could call as anybody. Checked for each session, by the configuration in force.
fn speaks_http(worker: &Worker, port: u16) -> Option<Failure> {
    let declared = worker.view.with(|table| {
        let own = table.own.as_ref()?;
        own.protocols.get(&port).copied()
    });
    match worker.settings.spoken(declared.unwrap_or_default(), port) {
        Protocol::Http | Protocol::Http2 => {
            let what = format!(
                "port {port} is declared to speak HTTP and does not accept opaque connections; declare it as tcp if that is what its \
                 app speaks"
            );
            Some(Failure::new(Reason::Policy, what))
        }
        Protocol::Tcp | Protocol::Unspecified => None,
    }
}

async fn exchange<C: Client>(
    worker: &Rc<Worker>,
    incoming: &mut Incoming<C>,
    opened: Result<TcpStream, Failure>,
) -> Result<(), Failure> {
    let Incoming { client, peer, original, identity, caller, port, counted, app, until } = incoming;
    let (identity, app) = (identity.as_ref(), *app);
    let connection = facts::incoming(*peer, identity, *original, *port);
    let labels = Labels::inbound(&worker.settings.workload, *counted, identity);
    let series = worker.metrics.tcp(&Labels { peer: caller.clone(), ..labels });
    let session = Session {
        worker,
        series: &series,
        direction: Direction::Inbound,
        peer: *peer,
        identity,
        mtls: identity.is_some(),
        destination: format_args!("{app}"),
        started: Instant::now(),
        told: None,
    };
    let mut app_end = match opened {
        Ok(opened) => opened,
        Err(failure) => {
            session.refused(&failure);
            client.refuse(&failure).await;
            return Err(failure);
        }
    };
    client.accept();
    let until = async {
        tokio::select! {
            failure = forbidden(worker, |worker| opaque_refusal(worker, &connection)) => failure,
            failure = until.end() => failure,
        }
    };
    session.carry(client, &mut app_end, app, worker.settings.tcp, until).await
}

async fn connect(worker: &Worker, port: u16, app: SocketAddr) -> Result<TcpStream, Failure> {
    worker.settings.own.refuse_own(app, Way::App)?;
    let opened = tokio::time::timeout(connect_timeout(worker, port), TcpStream::connect(app)).await;
    let opened = opened.map_err(|_| unreachable(worker, app, &"no answer in time"))?;
    let opened = opened.map_err(|error| unreachable(worker, app, &error))?;
    opened.set_nodelay(true).map_err(|error| unreachable(worker, app, &error))?;
    Ok(opened)
}
