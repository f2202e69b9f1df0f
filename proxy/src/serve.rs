//! Serving HTTP on a connection until it ends, is told to end, or has lived long enough.
//!
//! hyper and h2 parse what a client sends, within our limits. HTTP/1 passes a stricter reader of ours first (the module
//! `strict`); h2 is as strict as RFC 9113 by itself. What h2 refuses carries no `selvedge-error` and is not counted as
//! a request. h2 resets a malformed stream, answers a head that is longer than twice our limit with a bare 431 (a
//! shorter one is answered and counted as HTTP/1's is), and ends a connection that floods us with GOAWAY.

mod chunks;
mod ending;
mod head;
mod requests;
mod service;
mod strict;
mod unfinished;

use std::{cell::RefCell, pin::Pin, rc::Rc, sync::Arc};

use futures_util::future::Either;
use hyper::{
    server::conn::{http1, http2},
    upgrade::Upgraded,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use self::{ending::carry, service::Connected, strict::Strict};
use crate::{
    body::Local,
    budget::{Guarded, Ledger, Side, is_flood},
    clients::Watch,
    connect::http2::{CONNECTION_WINDOW, MAX_FRAME, STREAM_WINDOW},
    io::{Abort, Duplex, Gathered, Liveness, Prefixed},
    lifetime::Until,
    settings::{HeadLimits, RequestLimits},
    step::{Conn, HttpVersion, Request, Step},
    upgrade,
};

/// Header fields that hyper takes if nobody says how many.
const HYPER_FIELDS: usize = 100;

/// How large hyper's read buffer may grow: its own default.
const HYPER_BUFFER: usize = 8192 + 4096 * 100;

/// The most streams that a client has reset before we took them up (rapid reset, CVE-2023-44487). With more of them
/// waiting, its connection ends.
const MAX_RESET_STREAMS: usize = 20;

/// The most streams that we reset because of a client's errors, before its connection ends.
const MAX_ERROR_STREAMS: usize = 256;

/// Serves `path` on `io`, which speaks `version`. When `until` says so, no more requests are taken, and those in progress go on.
///
/// The connection is in a box from the first: every future that is given it by value would keep room for it, as long as it
/// lasts.
pub fn serve<I, S>(
    version: HttpVersion,
    io: I,
    path: S,
    conn: Rc<Conn>,
    until: Until,
) -> impl Future<Output = ()>
where
    I: AsyncRead + AsyncWrite + Abort + Unpin + Send + 'static,
    S: Step<Request>,
{
    let settings = &until.worker.settings;
    let limits = settings.limits;
    // A sidecar has added to what its own client may use to the last byte.
    let head = if conn.identity().is_some() { limits.head.with_room_for_a_sidecar() } else { limits.head };
    let watch = until.worker.patience.watch();
    if let Some(client) = conn.entry().and_then(|entry| entry.client.as_ref()) {
        client.watch_with(&watch);
    }
    if conn.gateway().is_some() {
        watch.readers.limit();
    }
    let ledger =
        (version == HttpVersion::Http2).then(|| Ledger::new(&until.worker.budget, CONNECTION_WINDOW));
    let service = Connected {
        path: RefCell::new(path),
        conn: Rc::clone(&conn),
        watch: Arc::clone(&watch),
        worker: Rc::clone(&until.worker),
        ledger: ledger.clone(),
    };
    match ledger {
        None => {
            let io = Strict::new(io, head, Arc::clone(&watch), &until.worker.budget);
            let offers_tunnels = conn.outbound().is_some_and(|outbound| outbound.offers_tunnels);
            let io = TokioIo::new(io.with_tunnels(offers_tunnels));
            // Set once: the connection is served once.
            let _ = conn.watch.set(Arc::clone(&watch));
            let serving = Box::pin(
                http1(head, settings.preserve_header_case).serve_connection(io, service).with_upgrades(),
            );
            Either::Left(carried(serving, |serving| serving.graceful_shutdown(), until, conn, watch))
        }
        Some(ledger) => {
            let (io, gathering) = Gathered::new(Guarded::new(io, ledger, Side::Server, conn.peer));
            let serving = http2(limits, settings.liveness).serve_connection(TokioIo::new(io), service);
            let serving = Box::pin(gathering.sending(serving));
            Either::Right(carried(
                serving,
                |serving| serving.get_pin().graceful_shutdown(),
                until,
                conn,
                watch,
            ))
        }
    }
}

/// Carries a connection to its end, and then the tunnel that it may have become.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
fn carried<C: Future<Output = hyper::Result<()>>>(
    mut serving: Pin<Box<C>>,
    retire: impl Fn(Pin<&mut C>),
    until: Until,
    conn: Rc<Conn>,
    watch: Arc<Watch>,
) -> impl Future<Output = ()> {
    async move {
        let ended = carry(serving.as_mut(), retire, &until, &conn, &watch).await;
        drop(serving);
        let peer = conn.peer;
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) if is_flood(&error) => {
                until.worker.budget.flooded(Side::Server);
                tracing::info!(%peer, error = &error as &dyn std::error::Error, "ended an HTTP/2 connection that floods this proxy");
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "connection ended"),
            Err(failure) => {
                if let Some(tunnel) = conn.tunnel.take() {
                    upgrade::given_up(*tunnel, failure.reason);
                }
                return;
            }
        }
        if let Some(tunnel) = conn.tunnel.take() {
            // Boxed: few connections need it, and all would carry its room.
            Box::pin(upgrade::carry(tunnel, &until.worker, until.end(), bytes_of)).await;
        }
    }
}

/// What carries the tunnel that an app's connection has become, with what was read of it already.
fn bytes_of(upgraded: Upgraded) -> Box<dyn Duplex> {
    match upgraded.downcast::<TokioIo<Strict<Prefixed<TcpStream>>>>() {
        Ok(parts) => Box::new(Prefixed::new(parts.read_buf, parts.io.into_inner())),
        Err(upgraded) => Box::new(TokioIo::new(upgraded)),
    }
}

fn http1(head: HeadLimits, keeps_case: bool) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.preserve_header_case(keeps_case);
    // Not `pipeline_flush`: with it hyper takes in answers without end for a client that does not read.
    // `Strict` looks for a client that has left. hyper would not while it writes an answer.
    builder.half_close(true);
    // Without a word, hyper has room for its default without allocating.
    if head.count > HYPER_FIELDS {
        builder.max_headers(head.count);
    }
    // So that it is never hyper that refuses a head for its size.
    builder.max_buf_size(HYPER_BUFFER.max(head.bytes.saturating_mul(2)));
    builder
}

fn http2(limits: RequestLimits, liveness: Liveness) -> http2::Builder<Local> {
    // So that it is never h2 that refuses a head for its size, also where the limit is small and a sidecar has added to it.
    let head = limits.head;
    let longest = head.bytes.saturating_mul(2).max(head.with_room_for_a_sidecar().bytes);
    let mut builder = http2::Builder::new(Local);
    builder
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(MAX_FRAME)
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(longest).unwrap_or(u32::MAX))
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_local_error_reset_streams(MAX_ERROR_STREAMS)
        .keep_alive_interval(liveness.pings())
        .keep_alive_timeout(liveness.ping_timeout);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::{Error, Response};

    fn size_of_output<A, B, C, R>(_: impl FnOnce(A, B, C) -> R) -> usize {
        size_of::<R>()
    }

    /// Every connection holds it, beside what hyper needs; most of it waits for the end.
    #[test]
    fn what_serves_a_connection_stays_small() {
        let path = tower::service_fn(|_: Request| std::future::pending::<Result<Response, Error>>());
        let size = size_of_output(|io: Prefixed<TcpStream>, conn, until| {
            serve(HttpVersion::Http1, io, path, conn, until)
        });
        assert!(size <= 3_072, "{size}");
    }
}
