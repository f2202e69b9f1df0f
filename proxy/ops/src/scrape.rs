//! The text of `/metrics`, which callers from elsewhere share.
//!
//! The text is long in a large mesh. Callers who each get a new text could keep the thread busy; callers who read slowly
//! could fill the memory with texts. So callers share one text for a while.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use tokio::time::Instant;

use crate::{exposition::Format, process};

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
        let bytes = shared.text(format, now, anew, || format.of(with_process((self.render)())).into());
        drop(shared);
        ([(header::CONTENT_TYPE, format.content_type())], Body::from(bytes)).into_response()
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

    fn text(&mut self, format: Format, now: Instant, anew: bool, make: impl FnOnce() -> Bytes) -> Bytes {
        let is_fresh = |text: &Text| now.saturating_duration_since(text.made) < SHARED_FOR;
        self.texts.retain(|text| is_fresh(text) && !(anew && text.format == format));
        if let Some(text) = self.texts.iter().find(|text| text.format == format) {
            return text.bytes.clone();
        }
        let bytes = make();
        self.texts.push(Text { format, made: now, bytes: bytes.clone() });
        bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

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
