//! The ends of the intervals of `outlierDetection`, where endpoints are compared.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::sleep_until;

use super::take_over;
use crate::{
    balance::{Ejection, Outlier},
    bind::{BoundBackend, Table},
    discovery::Store,
    dispatch::announce,
    telemetry::Metrics,
};

/// The shortest interval after which endpoints are compared, whatever is asked for.
const SHORTEST: Duration = Duration::from_millis(100);

/// A backend whose endpoints are compared, and when that is due.
struct Compared {
    backend: Arc<BoundBackend>,
    due: Instant,
}

/// All of them, by their [ejections](Ejection::id).
#[derive(Default)]
struct All {
    /// The list that they are from.
    from: Arc<[Arc<BoundBackend>]>,
    compared: HashMap<usize, Compared>,
}

/// Ends intervals for as long as it is polled.
pub(super) async fn run(store: &Store, metrics: &Metrics) {
    let mut published = store.subscribe();
    let mut all = All::default();
    all.take_over(&store.table(), Instant::now());
    let mut rng = fastrand::Rng::new();
    loop {
        let next = all.compared.values().map(|one| one.due).min();
        let due = async {
            match next {
                Some(next) => sleep_until(next.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = published.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                all.take_over(&store.table(), Instant::now());
            }
            () = due => end(&mut all.compared, metrics, Instant::now(), &mut rng),
        }
    }
}

impl All {
    /// Compares the endpoints of the backends of `table` from now on. An interval that has begun goes on.
    fn take_over(&mut self, table: &Table, now: Instant) {
        if !take_over(&mut self.from, table) {
            return;
        }
        let mut before = std::mem::take(&mut self.compared);
        for backend in &*self.from {
            let Some(ejection) = backend.ejection.as_ref().filter(|one| one.settings().compares()) else {
                continue;
            };
            let latest = now + interval(ejection);
            let due = before.remove(&ejection.id()).map_or(latest, |known| known.due.min(latest));
            self.compared.insert(ejection.id(), Compared { backend: Arc::clone(backend), due });
        }
    }
}

fn interval(ejection: &Ejection) -> Duration {
    // An interval that no clock can hold is one without end; a day is as good.
    ejection.settings().interval.clamp(SHORTEST, Duration::from_secs(24 * 3600))
}

/// Ends the intervals that are over.
fn end(compared: &mut HashMap<usize, Compared>, metrics: &Metrics, now: Instant, rng: &mut fastrand::Rng) {
    for Compared { backend, due } in compared.values_mut().filter(|one| one.due <= now) {
        let Some(ejection) = &backend.ejection else { continue };
        *due = now + interval(ejection);
        let healths: Vec<_> = backend.endpoints.iter().map(|endpoint| &*endpoint.health).collect();
        for (outlier, ejected) in ejection.compare(&healths, now, rng) {
            let endpoint = &backend.endpoints[outlier.place];
            announce(metrics, 0, backend, endpoint, &ejected, &Words(&outlier));
        }
    }
}

/// What was compared.
struct Words<'a>(&'a Outlier);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outlier { requests, enough, .. } = self.0;
        let (failed, total) = (requests.failed, requests.total);
        write!(f, "{failed} of {total} requests failed in an interval, where {enough:.1} % must succeed")
    }
}
