//! The pages' routes: each page is one URL, which answers with the whole page, or to whoever asks for a stream of events
//! with the page's content whenever that changes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{Path, Query, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{
        IntoResponse, Redirect, Response,
        sse::{Event, Sse},
    },
    routing::get,
};
use futures_util::stream::{self, Stream};
use maud::{Markup, PreEscaped};
use selvedge_control_plane::status::Overview;
use serde::Deserialize;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};

use super::{
    assets,
    facts::{Facts, Shared},
    frame,
    page::{self, Asked, Page},
    told::{Told, Wanted},
};
use crate::replicas::MAX_ANSWER;

/// The longest answer of a replica, in bytes: a little less than is read of it.
const MOST_TOLD: usize = (64 << 20) - (64 << 10);
const _: () = assert!((MOST_TOLD as u64) < MAX_ANSWER);
/// So many may look on at a time.
const MOST_LISTENERS: usize = 16;
/// Between two looks for somebody who looks on.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// After so long a stream ends, and the page asks for another: a connection of the admin port may not be silent for much longer.
const STREAM_TIME: Duration = Duration::from_secs(24);
/// For so long what was found out is shown again.
const FRESH: Duration = Duration::from_secs(1);
/// For so many times as long as it took to find it out, too.
const FRESH_FACTOR: u32 = 10;
/// Nothing is shown again for longer: a replica that does not answer takes long, and then people look.
const STALE: Duration = Duration::from_secs(30);
/// How many answers to different questions are kept.
const MOST_KEPT: usize = 16;
/// What pages may do: show what they have, and ask where they come from.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Where facts come from.
pub(super) trait Source: Send + Sync + 'static {
    /// What is known now.
    fn look(&self, wanted: Wanted) -> impl Future<Output = Result<Facts, String>> + Send;
}

/// What one replica of the control plane knows.
#[derive(Debug, Clone)]
struct Own(Overview);

impl Source for Own {
    async fn look(&self, wanted: Wanted) -> Result<Facts, String> {
        let told = self.told(wanted).await?;
        Ok(Facts::of(wanted, vec![(told.replica.clone(), told)], BTreeMap::new(), false))
    }
}

impl Own {
    async fn told(&self, wanted: Wanted) -> Result<Told, String> {
        self.found_out(wanted, |told| told).await
    }

    /// What becomes of all that is known by `work`.
    async fn found_out<T: Send + 'static>(
        &self,
        wanted: Wanted,
        work: impl FnOnce(Told) -> T + Send + 'static,
    ) -> Result<T, String> {
        let overview = self.0.clone();
        if wanted.often {
            overview.look_often();
        }
        // It may take a while, in which this thread has streams to serve.
        tokio::task::spawn_blocking(move || work(Told::of(&overview, wanted)))
            .await
            .map_err(|error| error.to_string())
    }
}

/// The pages, of what this replica of the control plane knows.
pub fn pages(overview: Overview) -> Router {
    let own = Own(overview);
    let facts = Router::new().route("/dashboard/facts", get(tell)).with_state(own.clone());
    facts.merge(routes(own))
}

async fn tell(
    State(own): State<Own>,
    Query(wanted): Query<Wanted>,
) -> Result<Response, (StatusCode, String)> {
    let wanted = Wanted { since: wanted.since.clamp(1, 3600), ..wanted };
    let text = own.found_out(wanted, |told| told.into_json(MOST_TOLD)).await;
    match text.and_then(|text| text.map_err(|error| error.to_string())) {
        Ok(text) => Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response()),
        Err(error) => Err((StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))),
    }
}

/// The pages, of what `source` knows.
pub(super) fn routes<S: Source>(source: S) -> Router {
    let board = Arc::new(Board {
        source,
        kept: Mutex::default(),
        listeners: Arc::new(Semaphore::new(MOST_LISTENERS)),
    });
    let pages = Router::new()
        .route("/dashboard", get(show_first))
        .route("/dashboard/{page}", get(show::<S>))
        .route("/dashboard/service/{name}", get(show_service::<S>))
        .with_state(board);
    Router::new()
        .route("/", get(|| async { Redirect::temporary("/dashboard/overview") }))
        .route("/dashboard/assets/{name}", get(asset))
        .merge(pages)
        .layer(middleware::from_fn(guard))
}

async fn show_first() -> Redirect {
    Redirect::temporary("/dashboard/overview")
}

async fn asset(Path(name): Path<String>) -> Response {
    match assets::find(&name) {
        Some(asset) => {
            let headers = [
                (header::CONTENT_TYPE, asset.media_type),
                (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
            ];
            (headers, asset.content).into_response()
        }
        None => (StatusCode::NOT_FOUND, "there is no such file\n").into_response(),
    }
}

/// Adds what every answer says of itself.
async fn guard(request: Request, next: Next) -> Response {
    let mut answer = next.run(request).await;
    let headers = answer.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    answer
}

/// What a page's URL says after the `?`.
#[derive(Debug, Clone, Default, Deserialize)]
struct Said {
    since: Option<String>,
    ns: Option<String>,
    focus: Option<String>,
    often: Option<String>,
}

impl Said {
    fn asked(self) -> Asked {
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let since = some(self.since);
        Asked {
            since: page::window(since.as_deref()),
            namespace: some(self.ns),
            focus: some(self.focus),
            other_time: since.filter(|since| !page::is_window(since)),
        }
    }
}

async fn show<S: Source>(
    State(board): State<Arc<Board<S>>>,
    Path(name): Path<String>,
    Query(said): Query<Said>,
    headers: HeaderMap,
) -> Response {
    match Page::named(&name) {
        Some(page) => board.answer(page, said, &headers).await,
        None => not_found(&format!("There is no page {name}.")),
    }
}

async fn show_service<S: Source>(
    State(board): State<Arc<Board<S>>>,
    Path(name): Path<String>,
    Query(said): Query<Said>,
    headers: HeaderMap,
) -> Response {
    match page::service_named(&name) {
        Some(page) => board.answer(page, said, &headers).await,
        None => not_found(
            "A service is named by its host and its port, such as reviews.default.svc.cluster.local:9080.",
        ),
    }
}

fn not_found(why: &str) -> Response {
    (StatusCode::NOT_FOUND, html(&frame::plain("Not found", why))).into_response()
}

fn html(page: &Markup) -> Response {
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.0.clone()).into_response()
}

/// Pages, and what they are made of.
struct Board<S> {
    source: S,
    kept: Mutex<BTreeMap<Wanted, Kept>>,
    listeners: Arc<Semaphore>,
}

/// What was found out, or why nothing was, and until when that is shown again.
struct Kept {
    until: Instant,
    found: Result<Shared, String>,
}

impl<S: Source> Board<S> {
    /// What is known now, or was a moment ago. All who want to know it wait for one look.
    async fn facts(&self, wanted: Wanted) -> Result<Shared, String> {
        let question = Wanted { often: false, ..wanted };
        let mut kept = self.kept.lock().await;
        let began = Instant::now();
        if let Some(known) = kept.get(&question).filter(|known| known.until > began) {
            return known.found.clone();
        }
        let found = self.source.look(wanted).await.map(Arc::new);
        let now = Instant::now();
        kept.retain(|_, known| known.until > now);
        if kept.len() < MOST_KEPT {
            // A failure is for those who have waited with us: who comes later looks anew.
            let until = now + if found.is_ok() { shown_for(now - began) } else { FRESH };
            kept.insert(question, Kept { until, found: found.clone() });
        }
        found
    }

    /// The whole page, and whether there is what it is about.
    async fn whole(&self, page: Page, asked: Asked) -> Result<(StatusCode, Markup), String> {
        let facts = self.facts(page.wants(&asked, false)).await?;
        let status = if page.is_there(&facts) { StatusCode::OK } else { StatusCode::NOT_FOUND };
        Ok((status, drawn(move || frame::whole(&page, &asked, &facts)).await?))
    }

    /// What is on the page, and changes; and its footer.
    async fn content(&self, page: Page, asked: Asked, often: bool) -> Result<(Markup, Markup), String> {
        let facts = self.facts(page.wants(&asked, often)).await?;
        drawn(move || frame::content(&page, &asked, &facts)).await
    }

    async fn answer(self: &Arc<Self>, page: Page, said: Said, headers: &HeaderMap) -> Response {
        let often = said.often.is_some();
        let asked = said.asked();
        if is_for_events(headers) {
            return Arc::clone(self).follow(page, asked, often);
        }
        match self.whole(page, asked).await {
            Ok((status, page)) => (status, html(&page)).into_response(),
            Err(error) => {
                let page = frame::plain("The control plane does not answer", &error);
                (StatusCode::BAD_GATEWAY, html(&page)).into_response()
            }
        }
    }

    fn follow(self: Arc<Self>, page: Page, asked: Asked, often: bool) -> Response {
        match Arc::clone(&self.listeners).try_acquire_owned() {
            Ok(place) => {
                let follower = Follower::new(self, page, asked, often, place);
                Sse::new(follower.events()).into_response()
            }
            // To a browser an error would be the end.
            Err(_) => {
                let full = Event::default().event("full").retry(Duration::from_secs(30)).data("");
                Sse::new(stream::iter([Ok::<_, Infallible>(full)])).into_response()
            }
        }
    }
}

/// What `draw` makes. Of a large mesh it takes a while, in which this thread has streams to serve.
async fn drawn<T: Send + 'static>(draw: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(draw).await.map_err(|error| error.to_string())
}

/// For how long that is shown which it took so long to find out.
fn shown_for(took: Duration) -> Duration {
    took.saturating_mul(FRESH_FACTOR).clamp(FRESH, STALE)
}

fn is_for_events(headers: &HeaderMap) -> bool {
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accepts.split(',').any(|one| one.trim().starts_with("text/event-stream"))
}

/// Somebody who looks on.
struct Follower<S> {
    board: Arc<Board<S>>,
    page: Page,
    asked: Asked,
    often: bool,
    _place: OwnedSemaphorePermit,
    begun: Instant,
    last: String,
    has_begun: bool,
}

impl<S: Source> Follower<S> {
    fn new(board: Arc<Board<S>>, page: Page, asked: Asked, often: bool, place: OwnedSemaphorePermit) -> Self {
        let begun = Instant::now();
        Self { board, page, asked, often, _place: place, begun, last: String::new(), has_begun: false }
    }

    /// The page's content, whenever it is another.
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut follower| async move {
            if follower.begun.elapsed() > STREAM_TIME {
                return None;
            }
            if follower.has_begun {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            let event = follower.next().await;
            follower.has_begun = true;
            Some((Ok(event), follower))
        })
    }

    async fn next(&mut self) -> Event {
        let event = Event::default();
        let event = if self.has_begun { event } else { event.retry(Duration::from_secs(1)) };
        match self.board.content(self.page.clone(), self.asked.clone(), self.often).await {
            Ok((content, footer)) => {
                let (name, data) = self.told(content, &footer);
                event.event(name).data(data.replace('\r', " "))
            }
            Err(error) => event.event("away").data(error.replace(['\r', '\n'], " ")),
        }
    }

    /// What he is told: the page's content, or if that is the same as before, its footer, which says that it still is.
    fn told(&mut self, PreEscaped(content): Markup, PreEscaped(footer): &Markup) -> (&'static str, String) {
        if content == self.last {
            return ("same", footer.clone());
        }
        let whole = [content.as_str(), footer.as_str()].concat();
        self.last = content;
        ("content", whole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One that is never asked.
    struct Nobody;

    impl Source for Nobody {
        async fn look(&self, _: Wanted) -> Result<Facts, String> {
            Err("nobody".to_owned())
        }
    }

    #[test]
    fn who_looks_on_is_sent_a_page_that_has_not_changed_once_and_then_its_footer() {
        let listeners = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&listeners).try_acquire_owned().unwrap();
        let board = Arc::new(Board { source: Nobody, kept: Mutex::default(), listeners });
        let mut follower = Follower::new(board, Page::Overview, Said::default().asked(), false, place);
        let text = |text: &str| PreEscaped(text.to_owned());
        let mut told = |content: &str, footer: &str| follower.told(text(content), &text(footer));

        assert_eq!(told("a", "1"), ("content", "a1".to_owned()));
        assert_eq!(told("a", "2"), ("same", "2".to_owned()));
        assert_eq!(told("b", "3"), ("content", "b3".to_owned()));
    }

    #[test]
    fn what_took_long_is_shown_for_longer_and_nothing_for_too_long() {
        let shown = [10, 500, 30_000].map(|took| shown_for(Duration::from_millis(took)).as_secs());
        assert_eq!(shown, [1, 5, 30]);
    }
}
