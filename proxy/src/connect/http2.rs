//! HTTP/2 connections: shared by all requests to a target for one application protocol. There is one of
//! them, and another only when all are full: when their endpoint allows no more requests on them.

mod open;
mod pooled;

use std::{rc::Rc, sync::Arc, time::Instant};

use http::uri::Scheme;

use self::open::open_or_wait;
pub(super) use self::pooled::Connections;
use super::{
    Pool,
    answered::{SendError, answer, failed},
    rewrite,
    settings::PoolSettings,
    terms::Terms,
};
use crate::{
    bind::Target,
    body::{Body, Lease, Shared},
    step::HttpVersion,
};

/// The flow-control window of a stream, in bytes. The protocol's default of 64 KiB halves bulk throughput.
pub const STREAM_WINDOW: u32 = 1 << 20;
/// The window of all streams of a connection together, in bytes. An answer that its client does not read keeps up to a
/// stream's window from all others, so this has room for some of those. With more of them the connection is full.
pub const CONNECTION_WINDOW: u32 = 32 << 20;
/// The largest frame that we accept, in bytes.
pub const MAX_FRAME: u32 = 256 << 10;
/// The longest headers and trailers of an answer, in bytes. h2 silently drops trailers beyond it, so it is far above
/// what a server sends. hyper's own 16 KiB cut off gRPC's large metadata.
const MAX_ANSWER_HEAD: u32 = 256 << 10;

/// How often a request moves to another connection because the one it had did not take it.
const MOVES: usize = 3;

/// Sends one request on a shared connection, opening one if need be.
#[expect(clippy::manual_async_fn, reason = "an async fn would hold its arguments twice")]
pub(super) fn send(
    pool: &Rc<Pool>,
    target: &Arc<Target>,
    settings: &PoolSettings,
    version: HttpVersion,
    mut request: Box<http::Request<Body>>,
    terms: &Terms<'_>,
) -> impl Future<Output = Result<Box<http::Response<Body>>, SendError>> {
    async move {
        let scheme = if target.is_tls_outside() { Scheme::HTTPS } else { Scheme::HTTP };
        rewrite::for_http2(&mut request, scheme)?;
        let place = usize::from(version == HttpVersion::Http2);
        let mut moves = 0;
        loop {
            let connections = &pool.http2[place];
            let in_turn = terms.circuit.is_some() && connections.waiting.is_busy();
            let found = if in_turn { None } else { connections.find(terms) };
            let mut connection = match found {
                Some(connection) if connection.is_doubtful(Instant::now()) => {
                    // As with HTTP/1.1: its task has seen an end when we go on.
                    tokio::task::yield_now().await;
                    if connection.sender.is_closed() {
                        continue;
                    }
                    connection
                }
                Some(connection) => connection,
                // Boxed: rare, and larger than a request's future.
                None => match Box::pin(open_or_wait(pool, place, target, settings, terms)).await {
                    Ok(connection) => connection,
                    Err(failure) => return Err(SendError { failure, request: Some(request) }),
                },
            };
            let stream = connection.enter(terms);
            match connection.sender.try_send_request(*request).await {
                Ok(response) => {
                    let ledger = Some(&connection.ledger);
                    let response = Box::new(response.map(|body| Body::arriving(body, ledger, None)));
                    let (mut response, _) = answer(target, response)?;
                    response.body_mut().end().lease = Some(Lease::PoolPlace(stream));
                    return Ok(response);
                }
                Err(mut error) => {
                    let failure = failed(target, error.error(), || connection.load.refusal());
                    match error.take_message() {
                        Some(unsent) if moves < MOVES => {
                            moves += 1;
                            *request = unsent;
                        }
                        Some(unsent) => {
                            let failure = failure.never_delivered();
                            return Err(SendError { failure, request: Some(Box::new(unsent)) });
                        }
                        None => return Err(failure.into()),
                    }
                }
            }
        }
    }
}
