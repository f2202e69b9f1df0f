//! HTTP/1.1 for ports that anybody may call: with small limits, on a connection that says what it does.

use std::net::SocketAddr;

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::{server::conn::http1, service::Service as _, service::service_fn};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::places::{Activity, Doing};

/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// The most header fields.
const MAX_FIELDS: usize = 64;

/// Serves one connection of HTTP/1.1, from `peer`, until it ends. `activity`: of its place, which bounds how long
/// that may take ([`crate::seated`]).
pub async fn carry(
    peer: SocketAddr,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    activity: Activity,
    router: Router,
) {
    let inner = TowerToHyperService::new(router.layer(Extension(ConnectInfo(peer))));
    let service = service_fn(move |request| {
        activity.set(Doing::Busy);
        let (answering, activity) = (inner.call(request), activity.clone());
        async move {
            // However many requests have come in one piece, others have their turn in between.
            tokio::task::yield_now().await;
            let answer = answering.await;
            // What it is still sent is bounded by the time for writing.
            activity.set(Doing::Idle);
            answer
        }
    });
    let served = http1::Builder::new()
        .header_read_timeout(None)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
}
