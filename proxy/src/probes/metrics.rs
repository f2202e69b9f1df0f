//! The app's metrics, passed on as they are.
//!
//! Beside the proxy's own and not merged with them: the app chooses the format that it is asked for, and two
//! expositions in one text are valid in neither.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::Limited;
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName},
};
use tokio::{task::JoinSet, time::timeout};

use super::{Asked, Failed, http::Answer};

/// The longest text of metrics, so that nobody makes the proxy carry anything else for good.
const MAX_BYTES: usize = 256 << 20;
/// The longest time for it, whatever the scraper's own is.
const MAX_TIME: Duration = Duration::from_secs(60);
/// What a scraper says of how it wants them.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

pub(super) async fn scrape(State(asked): State<Arc<Asked>>, request: Request) -> Response {
    let Some(metrics) = &asked.metrics else {
        let words = "the app's metrics are not scraped through this sidecar: its pod had no annotation \
                     prometheus.io/scrape: \"true\" when it was injected\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let at = std::net::SocketAddr::new(asked.app, metrics.port);
    let mut get = metrics.get.clone();
    if let Some(query) = request.uri().query() {
        let separator = if get.path.contains('?') { '&' } else { '?' };
        get.path = format!("{}{separator}{query}", get.path);
    }
    for name in [ACCEPT, ACCEPT_ENCODING, SCRAPE_TIMEOUT] {
        get.headers.extend(request.headers().get(&name).map(|value| (name, value.clone())));
    }
    let limit = limit(request.headers());
    let failed = match asked.refuse_own(at) {
        Err(failed) => failed,
        Ok(()) => match timeout(limit, get.ask(at, request.headers())).await {
            Ok(Ok(answer)) => return passed_on(answer, limit),
            Ok(Err(failed)) => failed,
            Err(_) => Failed::Timeout(limit),
        },
    };
    tracing::info!(%failed, "the app's metrics at {at} cannot be scraped");
    (StatusCode::BAD_GATEWAY, format!("GET {} of the app at {at}: {failed}\n", get.path)).into_response()
}

/// How long the scraper waits, as it says itself.
fn limit(headers: &HeaderMap) -> Duration {
    let said = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let said = said.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    said.map_or(MAX_TIME, |said| said.min(MAX_TIME))
}

fn passed_on(answer: Answer, limit: Duration) -> Response {
    let Answer { response, mut driver } = answer;
    let (head, body) = response.into_parts();
    // Without its connection a body ends as an error, whoever waits for it.
    let mut timed = JoinSet::new();
    timed.spawn(async move {
        let _ = timeout(limit, driver.join_next()).await;
    });
    let mut passed = Response::new(Body::new(Limited::new(Driven { body, _driver: timed }, MAX_BYTES)));
    *passed.status_mut() = head.status;
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        if let Some(value) = head.headers.get(&name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    passed
}

/// A body with whoever reads its connection.
struct Driven {
    body: Incoming,
    _driver: JoinSet<()>,
}

impl hyper::body::Body for Driven {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
