//! A connection for a request that no pooled one has room for.

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::pin,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use hyper::client::conn::http2::{Builder, Connection as HttpConnection};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_api::wire;

use super::{
    super::{
        Pool,
        carry::carry,
        open,
        settings::PoolSettings,
        terms::{Named, Opening, Terms},
        tls::Lifetime,
    },
    CONNECTION_WINDOW, MAX_ANSWER_HEAD, MAX_FRAME, STREAM_WINDOW,
    pooled::{Connection, Load},
};
use crate::{
    balance::Held,
    bind::Target,
    body::Body,
    budget::{Budget, Guarded, Ledger, Side},
    error::{Failure, Reason},
    io::{Gathered, Gathering, Stream},
    telemetry::Metrics,
};

/// What HTTP/2 is spoken on.
type Io = Guarded<Stream>;

/// How many requests a mesh peer is assumed to allow before it says how many: the default of sidecars.
const USUAL_STREAMS: usize = 1024;

/// The most connections of one worker to one target if no policy limits them. A request that finds no room waits.
const MAX_CONNECTIONS: usize = 32;

/// Finds a connection with room: a new one, or, where there may be no more of them, one on which a request has ended.
pub(super) async fn open_or_wait(
    pool: &Rc<Pool>,
    place: usize,
    target: &Arc<Target>,
    settings: &PoolSettings,
    terms: &Terms<'_>,
) -> Result<Connection, Failure> {
    let (connections, named) = (&pool.http2[place], pool.named);
    let _pending = terms.pending(target)?;
    loop {
        let open = connections.open.borrow().len();
        let counted = match connections.is_opening() {
            true => Some(None),
            false if open >= MAX_CONNECTIONS => None,
            false => terms.connection(open == 0),
        };
        match counted {
            None => connections.waiting.wait().await,
            Some(counted) => {
                let opening = connections.opening(|| {
                    let (pool, target, settings) =
                        (Rc::downgrade(pool), Arc::clone(target), settings.clone());
                    let wanted = Wanted::new(terms, named, place, counted);
                    async move { open_for(&pool, &target, &settings, wanted).await }.boxed_local()
                });
                opening.await?;
            }
        }
        if let Some(connection) = connections.find(terms) {
            return Ok(connection);
        }
    }
}

/// What a new connection is to be like.
struct Wanted {
    place: usize,
    opening: Opening,
    idle: Option<Duration>,
    counted: Option<Held>,
}

impl Wanted {
    fn new(terms: &Terms<'_>, named: Option<Named>, place: usize, counted: Option<Held>) -> Self {
        Self { place, opening: terms.opening(named), idle: terms.pool.idle_timeout, counted }
    }
}

/// How a connection to `target` is spoken on.
fn builder(target: &Target, settings: &PoolSettings, gathering: Gathering<Io>) -> Builder<Gathering<Io>> {
    let mut builder = Builder::new(gathering);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_ANSWER_HEAD)
        .keep_alive_interval(settings.liveness.pings())
        .keep_alive_timeout(settings.liveness.ping_timeout);
    if target.identity.is_some() {
        builder.initial_max_send_streams(USUAL_STREAMS);
    }
    builder
}

/// Opens a connection and adds it to the pool's.
async fn open_for(
    pool: &Weak<Pool>,
    target: &Target,
    settings: &PoolSettings,
    wanted: Wanted,
) -> Result<(), Failure> {
    let app = if wanted.place == 0 { wire::AppProtocol::Http1 } else { wire::AppProtocol::Http2 };
    let opened = open::open(target, settings, wire::Carrier::Http2, app, wanted.opening).await?;
    let dial = target.dial;
    let ledger = Ledger::new(&settings.budget, CONNECTION_WINDOW);
    let guarded = Guarded::new(opened.stream, Rc::clone(&ledger), Side::Client, dial);
    let (io, gathering) = Gathered::new(guarded);
    let (sender, connection) = builder(target, settings, gathering)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/2 with {dial}: {error}")))?;
    let allowed = connection.current_max_send_streams();
    let lifetime = opened.lifetime.clone();
    let kept = (lifetime.clone(), Rc::clone(&ledger));
    let load = Rc::new(Load::new(pool, wanted.place, allowed, wanted.idle, kept));
    let open = open::counted(target, settings);
    let counted = (Arc::clone(&settings.metrics), Arc::clone(&settings.budget));
    let driven = drive(connection, dial, lifetime, counted, Rc::clone(&load), Rc::clone(&ledger));
    tokio::task::spawn_local(async move {
        let _open = open;
        driven.await;
    });
    let connection =
        Connection { sender, lifetime: opened.lifetime, load, ledger, counted: wanted.counted.map(Rc::new) };
    // Without a pool nothing waits for it.
    if let Some(pool) = pool.upgrade() {
        pool.http2[wanted.place].open.borrow_mut().push(connection);
    }
    Ok(())
}

/// Carries a connection to its end, and notes how many requests its endpoint allows on it.
async fn drive(
    connection: HttpConnection<TokioIo<Gathered<Io>>, Body, Gathering<Io>>,
    dial: SocketAddr,
    lifetime: Lifetime,
    counted: (Arc<Metrics>, Arc<Budget>),
    load: Rc<Load>,
    ledger: Rc<Ledger>,
) {
    // hyper is done when nothing new can be sent; what is in progress goes on until the connection is closed.
    let carried = async {
        {
            // Dropped then: as long as it is there, h2 waits for more and does not close.
            let mut connection = pin!(connection);
            poll_fn(|cx| {
                let ended = connection.as_mut().poll(cx);
                load.allowed.set(connection.current_max_send_streams());
                ended
            })
            .await?;
        }
        ledger.closed().await;
        Ok(())
    };
    if carry(carried, dial, lifetime, counted, || load.streams.get()).await.is_err() {
        ledger.cut();
    }
}
