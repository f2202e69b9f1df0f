//! The text of `/metrics`, which callers from elsewhere share.
//!
//! The text is long in a large mesh. Callers who each get a new text could keep the thread busy; callers who read slowly
//! could fill the memory with texts. So callers share one text for a while. Compressed, it is a small part of that: who asks for
//! it so, as Prometheus does, shares that.

use std::{
    fmt,
    io::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use flate2::{Compression, write::GzEncoder};
use tokio::time::Instant;

use crate::{
    exposition::{Format, takes_gzip},
    process,
};

/// How old a shared text may be.
const SHARED_FOR: Duration = Duration::from_secs(1);
/// How often in [`SHARED_FOR`] the text is made anew for callers on this host.
const MADE_HERE: u32 = 30;

/// What metrics are asked of. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Scrape {
    render: Arc<dyn Fn() -> String + Send + Sync>,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// One of each format at most.
    texts: Vec<Text>,
    /// For callers on this host: since when so many were made.
    made_here: Option<(Instant, u32)>,
}

struct Text {
    format: Format,
    made: Instant,
    bytes: Bytes,
    /// The same compressed, if somebody has asked for that.
    gzip: Option<Bytes>,
}

impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Scrape {
    /// `render` makes the text in OpenMetrics format.
    pub(crate) fn new(render: Arc<dyn Fn() -> String + Send + Sync>) -> Self {
        Self { render, shared: Arc::default() }
    }

    /// The answer to a request with `headers`. A caller on this host (`here`) gets a new text, unless it asks all the
    /// time.
    pub(crate) fn answer(&self, headers: &HeaderMap, here: bool) -> Response {
        let (format, now) = (Format::asked_for(headers), Instant::now());
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let anew = here && shared.may_be_made(now);
        let text = shared.text(format, now, anew, || format.of(with_process((self.render)())).into());
        let gzip = takes_gzip(headers).then(|| text.gzip());
        let bytes = gzip.clone().unwrap_or_else(|| text.bytes.clone());
        drop(shared);
        let mut answer = Body::from(bytes).into_response();
        let fields = answer.headers_mut();
        fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        fields.insert(header::VARY, HeaderValue::from_static("accept, accept-encoding"));
        if gzip.is_some() {
            fields.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        answer
    }
}

/// `text`, and what the system says of this process.
fn with_process(mut text: String) -> String {
    const END: &str = "# EOF\n";
    text.truncate(text.strip_suffix(END).map_or(text.len(), str::len));
    text.push_str(&process::text());
    text.push_str(END);
    text
}

impl Shared {
    fn may_be_made(&mut self, now: Instant) -> bool {
        let (_, made) = match &mut self.made_here {
            Some(made) if now.saturating_duration_since(made.0) < SHARED_FOR => made,
            before => before.insert((now, 0)),
        };
        *made += 1;
        *made <= MADE_HERE
    }

    fn text(&mut self, format: Format, now: Instant, anew: bool, make: impl FnOnce() -> Bytes) -> &mut Text {
        let is_fresh = |text: &Text| now.saturating_duration_since(text.made) < SHARED_FOR;
        self.texts.retain(|text| is_fresh(text) && !(anew && text.format == format));
        let place = self.texts.iter().position(|text| text.format == format).unwrap_or_else(|| {
            self.texts.push(Text { format, made: now, bytes: make(), gzip: None });
            self.texts.len() - 1
        });
        &mut self.texts[place]
    }
}

impl Text {
    /// Compressed quickly: most of a page is the same words again and again.
    fn gzip(&mut self) -> Bytes {
        let compress = || {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&self.bytes).expect("a Vec takes whatever is written to it");
            Bytes::from(encoder.finish().expect("a Vec takes whatever is written to it"))
        };
        self.gzip.get_or_insert_with(compress).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use axum::body::to_bytes;
    use flate2::read::GzDecoder;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_for_gzip_gets_the_same_text_compressed() {
        let line = "a_requests_total{server_address=\"reviews.books.svc.cluster.local\",mtls=\"true\"} 1\n";
        let scrape =
            Scrape::new(Arc::new(|| format!("# TYPE a_requests counter\n{}# EOF\n", line.repeat(1_000))));
        let ask = async |coding: Option<&'static str>| {
            let coding = coding.map(|coding| (header::ACCEPT_ENCODING, HeaderValue::from_static(coding)));
            let answer = scrape.answer(&coding.into_iter().collect(), false);
            let fields = answer.headers().clone();
            assert_eq!(fields[header::CONTENT_TYPE], Format::Prometheus.content_type());
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            (fields.get(header::CONTENT_ENCODING).cloned(), body)
        };
        let (coding, plain) = ask(None).await;
        assert_eq!(coding, None);

        for _ in 0..2 {
            let (coding, short) = ask(Some("gzip")).await;
            assert_eq!(coding.unwrap(), "gzip");
            assert!(short.len() * 10 < plain.len(), "{} of {} bytes", short.len(), plain.len());
            let mut text = Vec::new();
            GzDecoder::new(&*short).read_to_end(&mut text).unwrap();
            assert_eq!(text, plain);
        }
        assert_eq!(ask(Some("br")).await, (None, plain));
    }

    #[tokio::test(start_paused = true)]
    async fn callers_elsewhere_share_a_text_and_those_here_are_told_the_newest() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let scrape = Scrape::new(Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            "# EOF\n".to_owned()
        }));
        let ask = |here| drop(scrape.answer(&HeaderMap::new(), here));

        (0..100).for_each(|_| ask(false));
        assert_eq!(made.load(Ordering::Relaxed), 1);
        tokio::time::advance(SHARED_FOR).await;
        ask(false);
        assert_eq!(made.load(Ordering::Relaxed), 2);
        (0..3).for_each(|_| ask(true));
        assert_eq!(made.load(Ordering::Relaxed), 5);
        (0..1000).for_each(|_| ask(true));
        assert_eq!(made.load(Ordering::Relaxed), 2 + MADE_HERE as usize, "within reason");
    }
}
