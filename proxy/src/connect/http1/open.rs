//! A connection for a request that no pooled one could take.

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use hyper::client::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use selvedge_api::wire;

use super::{
    super::{Pool, carry::carry, interim::ListenedTo, open, settings::PoolSettings, terms::Terms},
    driven::Driven,
    pooled::{Connection, Keeping, Place},
};
use crate::{
    bind::Target,
    error::{Failure, Reason},
    io::LastAnswer,
};

/// How long an idle connection to an app or an endpoint without a sidecar is kept, unless the
/// backend's policy says. Shorter than the keep-alive of common servers (Node.js closes after 5 s), so that it is this side that lets go.
pub(super) const IDLE_PLAIN: Duration = Duration::from_secs(4);

/// How long an idle connection between sidecars is kept, unless the backend's policy says.
pub(in crate::connect) const IDLE_MESH: Duration = Duration::from_secs(60);

/// Opens a connection. Where there may be no more of them, waits for one that comes back. Also returns whether it was
/// used before.
///
/// There is always one to wait for: the first of each target is never refused.
pub(super) async fn open_or_wait(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    terms: &Terms<'_>,
    idempotent: bool,
) -> Result<(Box<Connection>, bool), Failure> {
    let connections = &pool.http1;
    let _pending = terms.pending(target)?;
    loop {
        let place = || terms.connection(connections.open.get() == 0);
        // One over HTTP/2 that nothing is in progress on is better closed than waited for.
        if let Some(counted) = place().or_else(|| pool.yield_idle().then(place).flatten()) {
            let place = Place::new(pool, counted);
            let opened = open_in(pool, target, settings, terms, place).await?;
            return Ok((Box::new(opened), false));
        }
        connections.waiting.wait().await;
        if let Some(kept) = connections.take(idempotent, terms).await {
            return Ok((kept, true));
        }
    }
}

/// Opens a connection, which takes `place`.
async fn open_in(
    pool: &Rc<Pool>,
    target: &Target,
    settings: &PoolSettings,
    terms: &Terms<'_>,
    place: Place,
) -> Result<Connection, Failure> {
    let (carrier, app) = (wire::Carrier::Http1, wire::AppProtocol::Http1);
    let opened = open::open(target, settings, carrier, app, terms.opening(pool.named)).await?;
    let dial = target.dial;
    let (stream, listener) = ListenedTo::new(LastAnswer::new(opened.stream));
    let (sender, connection) = Builder::new()
        .preserve_header_case(settings.preserve_header_case)
        // RFC 9112, section 5.1: a proxy removes such spaces.
        .allow_spaces_after_header_name_in_responses(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| Failure::new(Reason::ConnectFailure, format!("no HTTP/1.1 with {dial}: {error}")))?;
    let open = open::counted(target, settings);
    let lifetime = opened.lifetime.clone();
    let counted = (Arc::clone(&settings.metrics), Arc::clone(&settings.budget));
    let in_use = Rc::new(Cell::new(true));
    let (is_used, taken) = (Rc::clone(&in_use), place.taken());
    let (driven, keeping) = Driven::new(connection.with_upgrades());
    tokio::task::spawn_local(async move {
        let _open = (open, place);
        let in_progress = || usize::from(is_used.get());
        // Dropped either way, and with it what is in progress.
        let _ = carry(keeping, dial, lifetime, counted, in_progress).await;
    });
    let now = Instant::now();
    Ok(Connection {
        sender,
        driven,
        listener,
        taken,
        lifetime: opened.lifetime,
        in_use,
        opened: now,
        idle_since: now,
        promised: Duration::MAX,
        requests: 0,
        kept: Keeping::by(terms, target.identity.is_some()),
    })
}
