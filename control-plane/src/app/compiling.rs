//! The step from documents to the mesh that is served.

use std::{path::PathBuf, sync::Arc};

use selvedge_model::Mesh;
use selvedge_ops::Condition;
use tokio::{sync::watch, time::Instant};

use crate::{
    compile::{MeshSettings, compile},
    metrics::Metrics,
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
}

impl Compiling {
    /// Until the source is gone.
    pub(super) async fn run(self, mut loaded: watch::Receiver<Arc<Loaded>>) {
        let mut first = true;
        let mut compiled_last: Option<(Arc<Loaded>, Vec<Problem>)> = None;
        while self.changed(&mut loaded, std::mem::take(&mut first)).await {
            let newest = Arc::clone(&loaded.borrow_and_update());
            if self.is_unread(&newest) {
                self.report(newest.problems.clone(), &newest);
                continue;
            }
            // A source that only has other words for its troubles changes nothing for the mesh.
            if let Some((before, between)) = &compiled_last
                && before.resources == newest.resources
            {
                self.report(newest.problems.iter().chain(between).cloned().collect(), &newest);
                continue;
            }
            let previous = self.store.current().map(|snapshot| Arc::clone(snapshot.mesh()));
            let settings = self.settings.clone();
            let start = Instant::now();
            let source = Arc::clone(&newest);
            // Large configurations take long enough to hold up the streams of a worker thread.
            let compiled = tokio::task::spawn_blocking(move || {
                let previous = previous.unwrap_or_default();
                compile(&source.resources, &settings, &previous)
            });
            let Ok((mesh, problems)) = compiled.await else {
                tracing::error!("the configuration could not be compiled; the last good one stays in use");
                continue;
            };
            self.metrics.compiled(start.elapsed());
            self.report(newest.problems.iter().chain(&problems).cloned().collect(), &newest);
            compiled_last = Some((newest, problems));
            self.publish(mesh);
        }
    }

    /// Waits for changes to pause, except before the first: a start is not kept waiting.
    async fn changed(&self, loaded: &mut watch::Receiver<Arc<Loaded>>, first: bool) -> bool {
        if first { loaded.changed().await.is_ok() } else { self.debounce.changed(loaded).await }
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

    fn report(&self, mut problems: Vec<Problem>, loaded: &Loaded) {
        if self.settings.allow_unenforced {
            problems = problems.into_iter().map(Problem::accepted).collect();
        }
        self.metrics.set_problems(&problems);
        self.problems.replace(problems, &loaded.objects);
    }

    fn publish(&self, mesh: Mesh) {
        let (workloads, services) = (mesh.workloads.len(), mesh.services.len());
        let version = self.store.publish(mesh);
        self.metrics.published(version);
        self.configuration.met();
        tracing::info!(version, workloads, services, "configuration published");
    }
}
