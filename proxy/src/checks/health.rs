//! Health checks: endpoints outside the mesh are asked again and again whether they are well.
//!
//! Each endpoint is asked by one task, however many backends have it, and only as long as a backend of the table in force
//! has it. So what is known of an endpoint outlives each change of configuration that leaves it there.

use std::{collections::HashMap, sync::Arc, time::Duration};

use selvedge_model::HealthCheck;
use tokio::{
    sync::{Semaphore, mpsc},
    task::{AbortHandle, JoinSet},
    time::sleep,
};

use super::{ask::Asked, standing::Standing, take_over};
use crate::{
    bind::{BoundBackend, Table},
    discovery::Store,
    settings::OwnListeners,
    telemetry::Metrics,
};

/// The most endpoints that are asked at once. If more are due, they wait, and their intervals grow.
const AT_ONCE: usize = 64;
/// The answers that wait to be noted.
const ANSWERS: usize = 64;

/// What an endpoint is known by: its target, the question, and the host that is called.
type Key = (usize, HealthCheck, Arc<str>);

/// An endpoint that is asked.
struct Watched {
    asked: Arc<Asked>,
    standing: Standing,
    /// Why its last answer was bad.
    failure: Option<Arc<str>>,
    /// The backends that have it, and its places there.
    places: Vec<(Arc<BoundBackend>, usize)>,
    task: AbortHandle,
}

/// An answer: of whom, and why it is bad if it is.
type Answer = (Arc<Asked>, Result<(), String>);

/// All endpoints that are asked.
struct Checks<'a> {
    metrics: &'a Metrics,
    own: Arc<OwnListeners>,
    /// The backends whose endpoints those are, and others.
    backends: Arc<[Arc<BoundBackend>]>,
    watched: HashMap<Key, Watched>,
    at_once: Arc<Semaphore>,
    tasks: JoinSet<()>,
    said: mpsc::Sender<Answer>,
}

/// Asks endpoints for as long as it is polled.
pub(super) async fn run(store: &Store, metrics: &Metrics, own: Arc<OwnListeners>) {
    let mut published = store.subscribe();
    let (said, mut answers) = mpsc::channel(ANSWERS);
    let mut checks = Checks {
        metrics,
        own,
        backends: Arc::default(),
        watched: HashMap::new(),
        at_once: Arc::new(Semaphore::new(AT_ONCE)),
        tasks: JoinSet::new(),
        said,
    };
    checks.take_over(&store.table());
    loop {
        tokio::select! {
            // Before answers: those for the table before would be written where the new one has cleared what it does not ask.
            biased;
            changed = published.changed() => {
                if changed.is_err() {
                    return std::future::pending().await;
                }
                checks.take_over(&store.table());
            }
            Some((asked, answer)) = answers.recv() => checks.note(&asked, answer),
            Some(_) = checks.tasks.join_next() => {}
        }
    }
}

impl Checks<'_> {
    /// Asks the endpoints of `table` from now on, and no others.
    fn take_over(&mut self, table: &Table) {
        if !take_over(&mut self.backends, table) {
            return;
        }
        let mut before = std::mem::take(&mut self.watched);
        // Another question to the same endpoint goes on from what is known of it.
        let known = before.values().map(|one| (one.asked.key().0, (one.standing, one.failure.clone())));
        let known: HashMap<_, _> = known.collect();
        for backend in &*table.looked_after {
            let Some(check) = &backend.policy.health_check else { continue };
            for (place, endpoint) in backend.endpoints.iter().enumerate() {
                if !endpoint.target.is_outside() {
                    continue;
                }
                let (target, host) = (&endpoint.target, &backend.name.service.host);
                let asked = Asked::new(target, check, host, &self.own, &table.egress);
                let key = asked.key();
                let again = || Some(Watched { places: Vec::new(), ..before.remove(&key)? });
                let mut watched = match self.watched.remove(&key).or_else(again) {
                    Some(watched) => watched,
                    None => self.begin(asked, known.get(&key.0).cloned().unwrap_or_default()),
                };
                watched.places.push((Arc::clone(backend), place));
                self.watched.insert(key, watched);
            }
        }
        before.values().for_each(|gone| gone.task.abort());
        self.watched.values().for_each(Watched::tell);
        self.count();
    }

    fn begin(&mut self, asked: Asked, (standing, failure): (Standing, Option<Arc<str>>)) -> Watched {
        let asked = Arc::new(asked);
        let asking = keep_asking(Arc::clone(&asked), Arc::clone(&self.at_once), self.said.clone());
        let task = self.tasks.spawn(asking);
        Watched { asked, standing, failure, places: Vec::new(), task }
    }

    /// Notes an answer.
    fn note(&mut self, asked: &Arc<Asked>, answer: Result<(), String>) {
        // It may have left since it was asked.
        let Some(watched) = self.watched.get_mut(&asked.key()) else { return };
        let control = &self.metrics.control;
        control.health_checks.inc();
        if answer.is_err() {
            control.health_checks_failed.inc();
        }
        let failure = answer.err().map(Arc::from);
        let turned = watched.standing.note(failure.is_none(), &watched.asked.check);
        watched.failure = failure;
        if let Some(is_well) = turned {
            watched.log(is_well);
        }
        watched.tell();
        if turned.is_some() {
            self.count();
        }
    }

    fn count(&self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let ill = self.watched.values().filter(|one| one.standing.is_well == Some(false)).count();
        self.metrics.control.endpoints_checked.set(number(self.watched.len()));
        self.metrics.control.endpoints_unhealthy.set(number(ill));
    }
}

impl Watched {
    /// Writes what is known where workers and people look.
    fn tell(&self) {
        for (backend, place) in &self.places {
            let (Some(ejection), Some(endpoint)) = (&backend.ejection, backend.endpoints.get(*place)) else {
                continue;
            };
            ejection.checked(&endpoint.health, self.standing.is_well, self.failure.as_ref());
        }
    }

    fn log(&self, is_well: bool) {
        let endpoint = self.asked.dial;
        let backend = self.places.first().map(|(backend, _)| backend.name.to_string()).unwrap_or_default();
        match &self.failure {
            Some(failure) if !is_well => {
                tracing::warn!(%backend, %endpoint, %failure, "fails its health check, and gets no requests");
            }
            _ => tracing::info!(%backend, %endpoint, "passes its health check"),
        }
    }
}

/// Asks one endpoint until it is aborted.
async fn keep_asking(asked: Arc<Asked>, at_once: Arc<Semaphore>, said: mpsc::Sender<Answer>) {
    loop {
        let answer = {
            let Ok(_place) = at_once.acquire().await else { return };
            asked.ask().await
        };
        if said.send((Arc::clone(&asked), answer)).await.is_err() {
            return;
        }
        sleep(jittered(asked.check.interval)).await;
    }
}

impl Asked {
    fn key(&self) -> Key {
        (Arc::as_ptr(&self.target).addr(), self.check.clone(), Arc::clone(&self.host))
    }
}

/// Give or take a tenth, so that what began together does not go on together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.9 + 0.2 * fastrand::f64())
}
