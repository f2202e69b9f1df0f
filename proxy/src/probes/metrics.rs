//! The app's metrics, passed on as they are.
//!
//! They are not merged with the proxy's own: the app chooses the format that it is asked for, and two expositions in
//! one text are valid in neither format.

use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::Limited;
use hyper::{
    HeaderMap, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName},
};
use selvedge_ops::places::{Limits, Place};
use tokio::{task::JoinSet, time::timeout};

use super::{Asking, Failed, http::Answer};

/// How many scrapes pass through at once; a further one takes the place of one from the same address, or from the
/// address that has most.
pub(super) const AT_ONCE: Limits = Limits { strangers: 8, per_address: 2, known: 8, busy_stay: false };
/// The longest header of a scraper's that is passed on, in bytes.
const MAX_HEADER: usize = 1024;

/// The longest text of metrics, in bytes, so that the proxy cannot be made to carry other things.
const MAX_BYTES: usize = 256 << 20;
/// The longest time for it, whatever the scraper's own is.
const MAX_TIME: Duration = Duration::from_secs(60);
/// What a scraper says of how it wants them.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// The query of a scraper is not passed on: with it, anybody could ask the app for anything below that path.
pub(super) async fn scrape(State(asking): State<Arc<Asking>>, request: Request) -> Response {
    let Some(metrics) = &asking.asked.metrics else {
        let words = "this sidecar does not scrape the app's metrics: its pod had no annotation \
                     prometheus.io/scrape: \"true\" when it was injected\n";
        return (StatusCode::NOT_FOUND, words).into_response();
    };
    let at = SocketAddr::new(asking.asked.app, metrics.port);
    let Some(mut place) = asking.place(&request) else { return too_many() };
    let mut get = metrics.get.clone();
    for name in [ACCEPT, ACCEPT_ENCODING, SCRAPE_TIMEOUT] {
        let said = request.headers().get(&name).filter(|value| value.len() <= MAX_HEADER);
        get.headers.extend(said.map(|value| (name, value.clone())));
    }
    let limit = limit(request.headers());
    let headers = request.headers();
    let asked = async {
        asking.asked.refuse_own(at)?;
        get.ask(at, headers).await
    };
    let asked = tokio::select! {
        asked = timeout(limit, asked) => asked,
        () = place.taken() => return too_many(),
    };
    let failed = match asked {
        Ok(Ok(answer)) => return passed_on(answer, limit, place),
        Ok(Err(failed)) => failed,
        Err(_) => Failed::Timeout(limit),
    };
    tracing::info!(%failed, "the app's metrics at {at} cannot be scraped");
    (StatusCode::BAD_GATEWAY, format!("GET {} of the app at {at}: {failed}\n", get.path)).into_response()
}

impl Asking {
    fn place(&self, request: &Request) -> Option<Place> {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::from([127, 0, 0, 1]), |ConnectInfo(peer)| peer.ip());
        self.scrapes.enter(peer, peer.to_canonical().is_loopback())
    }
}

fn too_many() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "too many scrapes of the app's metrics at once\n").into_response()
}

/// How long the scraper waits, as it says itself.
fn limit(headers: &HeaderMap) -> Duration {
    let said = headers.get(SCRAPE_TIMEOUT).and_then(|value| value.to_str().ok()?.parse::<f64>().ok());
    let said = said.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    said.map_or(MAX_TIME, |said| said.min(MAX_TIME))
}

fn passed_on(answer: Answer, limit: Duration, place: Place) -> Response {
    let Answer { response, mut driver } = answer;
    let (head, body) = response.into_parts();
    // Without its connection a body ends with an error.
    let mut timed = JoinSet::new();
    timed.spawn(async move {
        let _ = timeout(limit, driver.join_next()).await;
    });
    let mut passed =
        Response::new(Body::new(Limited::new(Driven { body, place, _driver: timed }, MAX_BYTES)));
    *passed.status_mut() = head.status;
    for name in [CONTENT_TYPE, CONTENT_ENCODING, CONTENT_LENGTH] {
        if let Some(value) = head.headers.get(&name) {
            passed.headers_mut().insert(name, value.clone());
        }
    }
    passed
}

/// A body, with the task that drives its connection.
struct Driven {
    body: Incoming,
    place: Place,
    _driver: JoinSet<()>,
}

impl hyper::body::Body for Driven {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.place.poll_taken(context).is_ready() {
            return Poll::Ready(Some(Err("dropped to make room for another scrape".into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
