//! The step from documents to the mesh that is served.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_model::Mesh;
use selvedge_ops::Condition;
use tokio::{sync::watch, time::Instant};

use super::kept_owners::KeptOwners;
use crate::{
    compile::{Attached, Compiled, Compiler, MeshSettings, next_advice},
    keys::{FetchedKeys, Keys},
    metrics::{Metrics, Stage},
    problem::{Problem, Severity},
    resources::Resources,
    snapshot::{Store, store::Debounce},
    sources::Loaded,
    status::Problems,
};

/// Turns what the source has into the mesh that is served.
pub(super) struct Compiling {
    pub(super) settings: MeshSettings,
    pub(super) debounce: Debounce,
    pub(super) store: Arc<Store>,
    pub(super) problems: Arc<Problems>,
    pub(super) metrics: Arc<Metrics>,
    /// `None` where a source waits until it has read everything.
    pub(super) config_dir: Option<PathBuf>,
    pub(super) configuration: Condition,
    /// Which namespace has which address by files.
    pub(super) owners: KeptOwners,
    /// The keys that documents only name.
    pub(super) keys: Keys,
}

/// How long the first configuration waits for keys that were never tried: a proxy that comes to a control plane which has
/// just started would lose keys that it has.
const FIRST_KEYS: Duration = Duration::from_secs(5);
/// How long a change waits for keys that it is the first to name.
const NEW_KEYS: Duration = Duration::from_secs(1);

/// Between two compilations there is this many times the time that the last one took, however much changes: a storm of changes
/// takes a third of a core, and a change that comes alone waits for nothing.
const BREATHER: u32 = 2;
/// But no more than this: where one compilation takes longer than half of it, a storm takes more of a core.
const LONGEST_BREATHER: Duration = Duration::from_millis(500);

/// How often the clock is looked at while something is to be said at a certain time.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

impl Compiling {
    /// Until the source is gone.
    pub(super) async fn run(mut self, mut loaded: watch::Receiver<Arc<Loaded>>) {
        let mut first = true;
        let mut compiled_last: Option<(Arc<Loaded>, FetchedKeys, Vec<Problem>)> = None;
        let mut attached: Arc<Attached> = Arc::default();
        let mut compiler = Compiler::default();
        let mut due = None;
        let mut breather = Instant::now();
        while let Some(since) = self.changed(&mut loaded, std::mem::take(&mut first), due).await {
            tokio::time::sleep_until(breather).await;
            let is_due = due.is_some_and(|due| due <= SystemTime::now());
            let newest = Arc::clone(&loaded.borrow_and_update());
            if self.is_unread(&newest) {
                self.report(newest.problems.clone(), &newest, &attached);
                continue;
            }
            self.keys.want(&newest.resources);
            self.keys.tried(if compiled_last.is_none() { FIRST_KEYS } else { NEW_KEYS }).await;
            let keys = self.keys.now();
            // A source that only has other words for its troubles changes nothing for the mesh.
            if !is_due
                && let Some((before, keys_before, between)) = &compiled_last
                && before.resources == newest.resources
                && *keys_before == keys
            {
                self.report(newest.problems.iter().chain(between).cloned().collect(), &newest, &attached);
                continue;
            }
            let previous = self.store.current().map(|snapshot| Arc::clone(snapshot.mesh()));
            let previous = previous.unwrap_or_else(|| Arc::new(self.owners.mesh()));
            let before = Arc::clone(&previous);
            let settings = MeshSettings { keys: keys.clone(), ..self.settings.clone() };
            let start = Instant::now();
            let source = Arc::clone(&newest);
            let mut last = std::mem::take(&mut compiler);
            let attached_before = Arc::clone(&attached);
            // Large configurations take long enough to hold up the streams of a worker thread.
            let compiled = tokio::task::spawn_blocking(move || {
                let compiled = match is_due {
                    true => last.compile_whole(&source.resources, &settings, &previous),
                    false => last.compile(&source.resources, &settings, &previous),
                };
                // Workloads and endpoints have no part in it.
                let attached = match compiled.is_of_workloads {
                    true => attached_before,
                    false => Arc::new(Attached::new(&source.resources)),
                };
                (last, compiled, attached)
            });
            let Ok((last, Compiled { mesh, problems, .. }, newly_attached)) = compiled.await else {
                tracing::error!("the configuration could not be compiled; the last good one stays in use");
                // Tried again when something changes, and not over and over because its time has come.
                due = due.filter(|due| *due > SystemTime::now());
                continue;
            };
            self.metrics.compiled(start.elapsed());
            (compiler, attached) = (last, newly_attached);
            self.report(newest.problems.iter().chain(&problems).cloned().collect(), &newest, &attached);
            due = next_advice(&newest.resources, SystemTime::now());
            compiled_last = Some((newest, keys, problems));
            self.owners.keep(&mesh, &before);
            self.publish(mesh, since);
            breather = Instant::now() + LONGEST_BREATHER.min(start.elapsed() * BREATHER);
        }
    }

    /// Waits for changes to pause, except before the first: a start is not kept waiting. Gives when the first of them came.
    /// At the moment `due`, other things are to be said of what has not changed.
    async fn changed(
        &mut self,
        loaded: &mut watch::Receiver<Arc<Loaded>>,
        first: bool,
        due: Option<SystemTime>,
    ) -> Option<Instant> {
        if first {
            return loaded.changed().await.ok().map(|()| Instant::now());
        }
        let keys = self.keys.changes();
        tokio::select! {
            more = self.debounce.changed(loaded) => more,
            more = self.debounce.changed(keys) => more,
            () = until(due) => Some(Instant::now()),
        }
    }

    /// A directory that could never be read says nothing: an empty mesh would take away what proxies
    /// still hold from before.
    fn is_unread(&self, loaded: &Loaded) -> bool {
        let Some(directory) = self.config_dir.as_deref() else { return false };
        let unreadable = |problem: &Problem| {
            problem.severity == Severity::Error && problem.path.as_deref() == Some(directory)
        };
        self.store.current().is_none()
            && loaded.resources == Resources::default()
            && loaded.problems.iter().any(unreadable)
    }

    fn report(&self, mut problems: Vec<Problem>, loaded: &Loaded, attached: &Arc<Attached>) {
        if self.settings.allow_unenforced {
            problems = problems.into_iter().map(Problem::accepted).collect();
        }
        self.metrics.set_problems(&problems);
        self.problems.replace(problems, &loaded.objects, attached);
    }

    fn publish(&self, mesh: Mesh, since: Instant) {
        let (workloads, services) = (mesh.workloads.len(), mesh.services.len());
        let start = Instant::now();
        let version = self.store.publish_change(mesh, since);
        self.metrics.spent(Stage::Publish, start.elapsed());
        self.metrics.published(version);
        self.configuration.met();
        tracing::info!(version, workloads, services, "configuration published");
    }
}

/// Completes when this host's clock says `due`, however often that is set meanwhile. Never, if nothing is due.
async fn until(due: Option<SystemTime>) {
    let Some(due) = due else { return std::future::pending().await };
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK_AT_CLOCK)).await;
    }
}
