//! `reviews`: answers what it saw of a request, over HTTP/1.1 or HTTP/2 without TLS.
//!
//! A test orders the answer that it needs by the query: `?delay=50ms`, `?status=503`, `?bytes=65536`;
//! `/echo` streams the request's body back, `/trailers` ends its answer with trailers.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use super::{Common, identity};

/// A frame of a generated body: what a TLS record holds.
const FRAME: usize = 16 * 1024;

/// The settings of one instance.
#[derive(Debug, Clone, clap::Args)]
#[command(disable_version_flag = true)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// The version that it answers as.
    #[arg(long, default_value = "v1")]
    version: String,
}

/// What every answer says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Always `reviews`.
    pub app: String,
    /// As it was told.
    pub version: String,
    /// The instance's name.
    pub pod: String,
    /// The method that it saw.
    pub method: String,
    /// The path and query that it saw.
    pub path: String,
    /// The caller's SPIFFE ID, if the connection came over mutual TLS.
    pub client_identity: Option<String>,
    /// All headers that it saw; several values of one name are joined with `,`.
    pub headers: BTreeMap<String, String>,
}

type Body = BoxBody<Bytes, hyper::Error>;

/// Serves until it is told to end.
///
/// # Errors
/// If its address cannot be listened on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = super::listen(&args.common).await?;
    serve(listener, &args.common.name, &args.version).await;
    Ok(())
}

/// Answers on `listener` until SIGTERM.
pub async fn serve(listener: TcpListener, pod: &str, version: &str) {
    let instance = Arc::new(Instance { pod: pod.to_owned(), version: version.to_owned() });
    let server = auto::Builder::new(TokioExecutor::new());
    super::serve(listener, |stream| {
        let instance = Arc::clone(&instance);
        let respond = service_fn(move |request| respond(request, Arc::clone(&instance)));
        server.serve_connection(TokioIo::new(stream), respond).into_owned()
    })
    .await;
}

/// What one process calls itself.
#[derive(Debug)]
struct Instance {
    pod: String,
    version: String,
}

async fn respond(request: Request<Incoming>, instance: Arc<Instance>) -> Result<Response<Body>, Infallible> {
    let order = Order::read(request.uri().query().unwrap_or_default());
    if let Some(delay) = order.delay {
        tokio::time::sleep(delay).await;
    }
    let (parts, body) = request.into_parts();
    let mut response = match parts.uri.path() {
        "/echo" => echo(&parts.headers, body),
        "/trailers" => trailers(),
        _ => match order.bytes {
            Some(length) => zeroes(length),
            None => {
                // Read to its end, so that the connection can be used again.
                let _ = body.collect().await;
                answer(&parts, &instance)
            }
        },
    };
    if parts.method == Method::HEAD {
        *response.body_mut() = full(Bytes::new());
    }
    if let Some(status) = order.status {
        *response.status_mut() = status;
    }
    Ok(response)
}

fn answer(parts: &http::request::Parts, instance: &Instance) -> Response<Body> {
    let path = parts.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let mut headers = BTreeMap::new();
    for (name, value) in &parts.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        let seen: &mut String = headers.entry(name.to_string()).or_default();
        if !seen.is_empty() {
            seen.push(',');
        }
        seen.push_str(&value);
    }
    let answer = Answer {
        app: "reviews".to_owned(),
        version: instance.version.clone(),
        pod: instance.pod.clone(),
        method: parts.method.to_string(),
        path,
        client_identity: identity::caller(&parts.headers),
        headers,
    };
    let text = serde_json::to_vec(&answer).expect("text keys and values only");
    typed("application/json", full(Bytes::from(text)))
}

fn echo(headers: &HeaderMap, body: Incoming) -> Response<Body> {
    let mut response = Response::new(body.boxed());
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        response.headers_mut().insert(header::CONTENT_TYPE, value.clone());
    }
    response
}

/// A body in two frames, then a trailer.
fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("sha-of-hello"));
    let frames = ["hel", "lo"].map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    let frames = frames.into_iter().chain([Ok(Frame::trailers(trailers))]);
    let mut response = typed("text/plain", StreamBody::new(stream::iter(frames)).boxed());
    response.headers_mut().insert(header::TRAILER, HeaderValue::from_static("x-checksum"));
    response
}

fn zeroes(length: usize) -> Response<Body> {
    const ZEROES: [u8; FRAME] = [0; FRAME];
    let frames = (0..length.div_ceil(FRAME)).map(move |n| {
        let size = FRAME.min(length - n * FRAME);
        Ok(Frame::data(Bytes::from_static(&ZEROES).slice(..size)))
    });
    let mut response = typed("application/octet-stream", StreamBody::new(stream::iter(frames)).boxed());
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    response
}

fn typed(content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed()
}

/// What a query orders; what cannot be read is not ordered.
#[derive(Debug, Default, PartialEq)]
struct Order {
    delay: Option<Duration>,
    status: Option<StatusCode>,
    bytes: Option<usize>,
}

impl Order {
    fn read(query: &str) -> Self {
        let mut order = Self::default();
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            match key {
                "delay" => order.delay = duration(value),
                "status" => order.status = value.parse().ok(),
                "bytes" => order.bytes = value.parse().ok(),
                _ => {}
            }
        }
        order
    }
}

/// `50ms` or `2s`.
fn duration(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().map(Duration::from_millis),
        None => text.strip_suffix('s')?.parse().ok().map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call;

    async fn started() -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { serve(listener, "reviews-v1-a", "v1").await });
        address
    }

    #[tokio::test]
    async fn an_answer_says_what_was_seen() {
        let address = started().await;

        let request = call::to("reviews:9080", "/ratings?x=1")
            .header("end-user", "jason")
            .header(identity::HEADER, "By=a;URI=spiffe://td/ns/default/sa/frontend");
        let answer: Answer = call::send(address, request).await.unwrap().json().unwrap();

        assert_eq!((answer.version.as_str(), answer.pod.as_str()), ("v1", "reviews-v1-a"));
        assert_eq!(answer.path, "/ratings?x=1");
        assert_eq!(answer.client_identity.as_deref(), Some("spiffe://td/ns/default/sa/frontend"));
        assert_eq!(answer.headers["end-user"], "jason");
        assert_eq!(answer.headers["host"], "reviews:9080");
    }

    #[tokio::test]
    async fn status_size_and_delay_are_answered_to_order() {
        let address = started().await;
        let before = std::time::Instant::now();

        let query = "/?status=503&bytes=40000&delay=30ms";
        let answer = call::send(address, call::to("reviews:9080", query)).await.unwrap();

        assert_eq!(answer.status, 503);
        assert_eq!(answer.body.len(), 40_000);
        assert!(before.elapsed() >= Duration::from_millis(30));
    }

    #[tokio::test]
    async fn bodies_are_echoed_and_trailers_sent_over_either_protocol() {
        let address = started().await;

        for version in [http::Version::HTTP_11, http::Version::HTTP_2] {
            let request = call::to("reviews:9080", "/echo").version(version).body("round and round");
            assert_eq!(call::send(address, request).await.unwrap().body, "round and round");

            let request = call::to("reviews:9080", "/trailers").version(version).header("te", "trailers");
            let answer = call::send(address, request).await.unwrap();
            assert_eq!(answer.body, "hello");
            assert_eq!(answer.trailers.unwrap()["x-checksum"], "sha-of-hello");
        }
    }

    #[test]
    fn an_unreadable_order_is_no_order() {
        assert_eq!(Order::read("delay=soon&status=9&bytes=-1&x&=&status=abc"), Order::default());
    }
}
