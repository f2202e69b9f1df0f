//! Limits for the bodies of reviews, because anybody may send one: their size, their number, and their time.
//!
//! A pod fits into [`FREE`]. Bytes beyond that count in one budget for all bodies. When the budget is used up, a new body
//! takes the share of the oldest one, so that nobody can hold the budget for long.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::timeout,
};

/// The largest body: an object as large as etcd takes one (1.5 MiB), what it was before, and what is around them.
pub(super) const MAX_BODY: usize = 4 << 20;
/// So much of each body is not counted.
const FREE: usize = 64 << 10;
/// What all bodies may hold beyond that.
const BUDGET: usize = 16 << 20;
/// How long one may take to come; the API server waits for the whole answer for 10 s.
const TIME: Duration = Duration::from_secs(5);
/// The most values in a body. Each takes a hundred bytes, however short it is written.
const MAX_VALUES: usize = 200_000;
/// The most values of all reviews together that are being looked at. Until there is room, a body waits as the text that it is.
const ALL_VALUES: usize = 3 * MAX_VALUES;

/// Why a body was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the body has more than {MAX_BODY} bytes")]
    TooLong,
    #[error("the body has more than {MAX_VALUES} values")]
    TooMany,
    #[error("the body did not arrive within {TIME:?}")]
    Slow,
    #[error("the body was dropped to make room for another review: there are too many at once")]
    Dropped,
    #[error("the body ended early")]
    Broken,
}

/// All bodies that are coming.
#[derive(Debug)]
pub(super) struct Bodies {
    coming: Mutex<ArrivingBodies>,
    values: Arc<Semaphore>,
}

/// A whole body.
#[derive(Debug)]
pub(super) struct WholeBody {
    pub(super) bytes: Bytes,
    /// To be held as long as there is anything that was made of it.
    pub(super) room: Room,
}

/// What a review takes of what all of them may take.
#[derive(Debug)]
pub(super) struct Room {
    _values: OwnedSemaphorePermit,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { coming: Mutex::default(), values: Arc::new(Semaphore::new(ALL_VALUES)) }
    }
}

#[derive(Debug, Default)]
struct ArrivingBodies {
    next: u64,
    counted: usize,
    held: BTreeMap<u64, (usize, oneshot::Sender<()>)>,
}

/// One body's part.
struct ArrivingBody<'a> {
    bodies: &'a Bodies,
    id: u64,
}

impl Bodies {
    /// All of `body`, once there is room for what will be made of it.
    pub(super) async fn read(self: &Arc<Self>, body: Body) -> Result<WholeBody, BodyError> {
        let (stay, dropped) = oneshot::channel();
        let part = self.enter(stay);
        tokio::select! {
            whole = timeout(TIME, self.whole(&part, body)) => whole.unwrap_or(Err(BodyError::Slow)),
            _ = dropped => Err(BodyError::Dropped),
        }
    }

    async fn whole(&self, part: &ArrivingBody<'_>, body: Body) -> Result<WholeBody, BodyError> {
        let bytes = part.collect(body).await?;
        let values = values(&bytes);
        if values > MAX_VALUES {
            return Err(BodyError::TooMany);
        }
        let values = u32::try_from(values).map_err(|_| BodyError::TooMany)?;
        let room = Arc::clone(&self.values).acquire_many_owned(values).await;
        let room = Room { _values: room.map_err(|_| BodyError::Dropped)? };
        Ok(WholeBody { bytes: bytes.into(), room })
    }

    fn enter(&self, stay: oneshot::Sender<()>) -> ArrivingBody<'_> {
        let mut coming = self.lock();
        coming.next += 1;
        let id = coming.next;
        coming.held.insert(id, (0, stay));
        ArrivingBody { bodies: self, id }
    }

    fn lock(&self) -> MutexGuard<'_, ArrivingBodies> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ArrivingBody<'_> {
    async fn collect(&self, body: Body) -> Result<Vec<u8>, BodyError> {
        let mut whole = Vec::new();
        let mut pieces = body.into_data_stream();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|_| BodyError::Broken)?;
            if whole.len() + piece.len() > MAX_BODY {
                return Err(BodyError::TooLong);
            }
            self.count((whole.len() + piece.len()).saturating_sub(FREE));
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }

    /// Says how much is held beyond what is free. The oldest others make room.
    fn count(&self, now: usize) {
        let mut coming = self.bodies.lock();
        let Some((held, _)) = coming.held.get_mut(&self.id) else { return };
        let before = std::mem::replace(held, now);
        coming.counted = coming.counted + now - before;
        while coming.counted > BUDGET {
            let oldest = coming.held.iter().find(|(id, (held, _))| **id != self.id && *held > 0);
            let Some(oldest) = oldest.map(|(id, _)| *id) else { return };
            coming.leave(oldest);
        }
    }
}

impl ArrivingBodies {
    fn leave(&mut self, id: u64) {
        if let Some((held, _)) = self.held.remove(&id) {
            self.counted -= held;
        }
    }
}

impl Drop for ArrivingBody<'_> {
    fn drop(&mut self) {
        self.bodies.lock().leave(self.id);
    }
}

/// About how many values a JSON text has, without reading it: what separates them, outside of strings.
fn values(json: &[u8]) -> usize {
    let (mut values, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' | b':' if !in_string => values += 1,
            _ => {}
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::task::JoinSet;

    use super::*;

    /// A body of `length` bytes that never ends.
    fn unfinished(length: usize) -> Body {
        let piece = Ok::<_, std::io::Error>(Bytes::from(vec![b' '; length]));
        Body::from_stream(stream::iter([piece]).chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_bodies_hold_no_more_than_the_budget_and_only_for_a_time() {
        let bodies = Arc::new(Bodies::default());
        let mut readers = JoinSet::new();
        for _ in 0..60 {
            let bodies = Arc::clone(&bodies);
            readers.spawn(async move { bodies.read(unfinished(MAX_BODY)).await });
        }
        tokio::time::advance(Duration::from_millis(1)).await;

        let small = bodies.read(Body::from("{}")).await.unwrap();
        let large = bodies.read(Body::from(vec![b' '; MAX_BODY])).await.unwrap();
        assert_eq!((&small.bytes[..], large.bytes.len()), (&b"{}"[..], MAX_BODY));
        assert!(bodies.lock().counted <= BUDGET);

        let ends = readers.join_all().await;
        assert!(ends.iter().all(|end| matches!(end, Err(BodyError::Dropped | BodyError::Slow))), "{ends:?}");
        let coming = bodies.lock();
        assert_eq!((coming.counted, coming.held.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_all_reviews_become_has_a_limit_and_others_wait_as_text() {
        let bodies = Arc::new(Bodies::default());
        let many = || Body::from(format!("[{}0]", "0,".repeat(MAX_VALUES - 1)));
        let mut looked_at = Vec::new();
        for _ in 0..ALL_VALUES / MAX_VALUES {
            looked_at.push(bodies.read(many()).await.unwrap());
        }

        assert_eq!(bodies.read(Body::from("{}")).await.unwrap_err(), BodyError::Slow);
        let waiting = tokio::spawn({
            let bodies = Arc::clone(&bodies);
            async move { bodies.read(many()).await.map(|whole| whole.bytes.len()) }
        });
        tokio::task::yield_now().await;
        assert!(bodies.lock().counted > MAX_VALUES, "it counts as long as it waits");
        looked_at.pop();
        assert_eq!(waiting.await.unwrap(), Ok(2 * MAX_VALUES + 1));
    }

    #[tokio::test]
    async fn what_would_be_large_once_it_is_read_is_refused() {
        let bodies = Arc::new(Bodies::default());

        let many = format!("[{}0]", "0,".repeat(MAX_VALUES));
        assert_eq!(bodies.read(Body::from(many)).await.unwrap_err(), BodyError::TooMany);
        let long = Body::from(vec![b' '; MAX_BODY + 1]);
        assert_eq!(bodies.read(long).await.unwrap_err(), BodyError::TooLong);
        let words = format!("\"{}\\\",\"", ",".repeat(MAX_VALUES));
        assert!(bodies.read(Body::from(words)).await.is_ok());
    }
}
