//! An app that is sent copies, and writes down what it sees.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use selvedge_tests::{SOON, poll};
use tokio::net::TcpListener;

/// A request, as far as it has come.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) version: Version,
    pub(super) path: String,
    pub(super) authority: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    /// Whether its body has come to its end.
    pub(super) whole: bool,
}

/// This test as the app that gets copies. It answers each with the status 500, and gRPC's DATA_LOSS.
#[derive(Debug, Clone, Default)]
pub(super) struct Shadow(Arc<Mutex<Vec<Seen>>>);

impl Shadow {
    pub(super) async fn serve(&self, address: SocketAddr) {
        let listener = TcpListener::bind(address).await.expect("the app's address is ours");
        let this = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let this = this.clone();
                let respond = service_fn(move |request| this.clone().note(request));
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    drop(server.serve_connection(TokioIo::new(stream), respond).await);
                });
            }
        });
    }

    pub(super) fn all<T>(&self, look: impl FnOnce(&mut Vec<Seen>) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn note(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, hyper::Error>>, hyper::Error> {
        let (head, mut body) = request.into_parts();
        let host = head.headers.get("host").map(|host| host.to_str().unwrap().to_owned());
        let place = self.all(|all| {
            all.push(Seen {
                version: head.version,
                path: head.uri.path().to_owned(),
                authority: host.or(head.uri.authority().map(ToString::to_string)).unwrap_or_default(),
                headers: head.headers,
                body: Vec::new(),
                trailers: None,
                whole: false,
            });
            all.len() - 1
        });
        while let Some(frame) = body.frame().await {
            match frame?.into_data() {
                Ok(data) => self.all(|all| all[place].body.extend_from_slice(&data)),
                Err(frame) => self.all(|all| all[place].trailers = frame.into_trailers().ok()),
            }
        }
        self.all(|all| all[place].whole = true);
        let trailers = HeaderMap::from_iter([(http::HeaderName::from_static("grpc-status"), 15.into())]);
        let body = StreamBody::new(futures_util::stream::iter([Ok(Frame::trailers(trailers))]));
        let mut response = Response::new(body.boxed_unsync());
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        Ok(response)
    }

    /// What it has got, as soon as that is `is`.
    pub(super) async fn seen(&self, what: &str, is: impl Fn(&[Seen]) -> bool) -> Vec<Seen> {
        poll(SOON, what, async || {
            let all = self.all(|all| all.clone());
            if is(&all) { Ok(all) } else { Err(format!("{all:?}")) }
        })
        .await
    }
}
