//! A client and an app of HTTP/2, with the sidecars between them and without.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    client::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

use super::{super::*, Frames, Plan};
use crate::raw::within;

fn body(
    (frames, breaks): Frames,
) -> StreamBody<impl tokio_stream::Stream<Item = Result<Frame<Bytes>, &'static str>> + Send> {
    let error = breaks.then_some(Err("as ordered"));
    StreamBody::new(tokio_stream::iter(frames.into_iter().map(Ok).chain(error)))
}

/// A message as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Method and target, or status.
    pub(super) first: String,
    pub(super) fields: Fields,
    pub(super) body: Bytes,
    pub(super) trailers: Fields,
    pub(super) is_whole: bool,
}

pub(super) async fn seen(first: String, headers: &HeaderMap, mut body: Incoming) -> Seen {
    let (mut data, mut trailers, mut is_whole) = (Vec::new(), Fields::new(), true);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            is_whole = false;
            break;
        };
        match frame.into_data() {
            Ok(more) => data.extend_from_slice(&more),
            Err(frame) => trailers = fields(&frame.into_trailers().unwrap_or_default()),
        }
    }
    Seen { first, fields: fields(headers), body: data.into(), trailers, is_whole }
}

pub(super) fn fields(headers: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in headers {
        let value = value.as_bytes().iter().map(|&byte| char::from(byte)).collect();
        fields.entry(name.to_string()).or_default().push(value);
    }
    fields
}

/// What the app answers: a head, and what follows it.
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) fields: HeaderMap,
    pub(super) frames: Frames,
    /// Whether the head ends the stream, if nothing follows.
    pub(super) ends_at_once: bool,
}

pub(super) struct Apparatus2 {
    pub(super) mesh: Mesh,
    pub(super) plan: Plan,
    pub(super) requests: mpsc::UnboundedReceiver<Seen>,
}

impl Apparatus2 {
    pub(super) async fn new() -> Self {
        let mesh = mesh(&[]).await;
        let listener =
            TcpListener::bind(mesh.workload("app-1").app).await.expect("the app's address is ours");
        let (plan, (notes, requests)) = (Plan::default(), mpsc::unbounded_channel());
        let told = Arc::clone(&plan);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (told, notes) = (Arc::clone(&told), notes.clone());
                let service = service_fn(move |request| answer(request, Arc::clone(&told), notes.clone()));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { mesh, plan, requests }
    }

    pub(super) fn tell(&self, told: Told) {
        *self.plan.lock().expect("no one panics with it") = Some(told);
    }

    /// What the app sees of a request, and what its client sees of the answer.
    pub(super) async fn exchange(
        &mut self,
        way: Way,
        request: Request<()>,
        frames: Option<Frames>,
    ) -> (Option<Seen>, Option<Seen>) {
        let stream = TcpStream::connect(address(&self.mesh, way)).await.expect("somebody listens");
        let answered = async {
            let (parts, ()) = request.into_parts();
            let (mut sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
            let connection = tokio::spawn(connection);
            let body = frames.map_or_else(
                || http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync(),
                |frames| body(frames).boxed_unsync(),
            );
            let answer = sender.send_request(Request::from_parts(parts, body)).await.ok();
            let answer = match answer {
                Some(answer) => {
                    let (parts, body) = answer.into_parts();
                    Some(seen(parts.status.to_string(), &parts.headers, body).await)
                }
                None => None,
            };
            connection.abort();
            answer
        };
        let answer = within("an answer", answered).await;
        (self.requests.try_recv().ok(), answer)
    }
}

pub(super) async fn answer(
    request: Request<Incoming>,
    plan: Plan,
    notes: mpsc::UnboundedSender<Seen>,
) -> Result<Response<http_body_util::combinators::UnsyncBoxBody<Bytes, &'static str>>, Infallible> {
    let (parts, incoming) = request.into_parts();
    let first = format!("{} {}", parts.method, parts.uri);
    // The test is gone if nobody wants to know.
    let _ = notes.send(seen(first, &parts.headers, incoming).await);
    let plan = plan.lock().expect("no one panics with it");
    let told = plan.as_ref().expect("told before it is asked");
    let frames = (told.frames.0.iter().map(copy).collect(), told.frames.1);
    let body = if told.ends_at_once {
        http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync()
    } else {
        body(frames).boxed_unsync()
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(told.status).expect("a status");
    *response.headers_mut() = told.fields.clone();
    Ok(response)
}

fn copy(frame: &Frame<Bytes>) -> Frame<Bytes> {
    match (frame.data_ref(), frame.trailers_ref()) {
        (Some(data), _) => Frame::data(data.clone()),
        (_, Some(trailers)) => Frame::trailers(trailers.clone()),
        _ => unreachable!("there are no others"),
    }
}
