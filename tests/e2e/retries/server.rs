//! A server in the test's own process, outside the mesh or as the app of a workload, that answers as the test says.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::net::TcpListener;

/// How many requests a server was sent.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked(Arc<AtomicUsize>);

impl Asked {
    /// So many until now.
    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Answers requests that come to `listener`, over HTTP/1.1 or HTTP/2: `answer` is given the number of the request, from 0, and its head.
pub(crate) fn serve<F, A>(listener: TcpListener, answer: F) -> Asked
where
    F: Fn(usize, Request<()>) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let asked = Asked::default();
    let counted = asked.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (answer, counted) = (answer.clone(), counted.clone());
            let respond = service_fn(move |request: Request<Incoming>| {
                let number = counted.0.fetch_add(1, Ordering::Relaxed);
                let answer = answer.clone();
                async move {
                    let (head, body) = request.into_parts();
                    // Read to its end, so that the connection can be used again.
                    let _ = body.collect().await;
                    Ok::<_, Infallible>(answer(number, Request::from_parts(head, ())).await)
                }
            });
            tokio::spawn(async move {
                // A client that goes away gets nothing, and its test sees that.
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), respond).await;
            });
        }
    });
    asked
}

/// An answer with this `status` and body.
pub(crate) fn answer(status: u16, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
    answer
}
