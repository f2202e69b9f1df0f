//! A worker: one thread that carries connections, and owns everything that it needs for that.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use selvedge_certs::tls::Live;

use crate::{
    budget::Budget,
    clients::{Clients, Patience, Places},
    connect::{self, Apps, Instance, Pools},
    discovery::store::{Store, View},
    dns::Asker,
    leave::Leave,
    settings::Settings,
    telemetry::{Metrics, Sparing},
    time::Deadlines,
    tokens::Tokens,
};

/// How often idle connections are looked through.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// What is shared between threads; cheap to clone.
#[derive(Debug, Clone)]
pub struct Shared {
    /// What all workers have in common.
    pub settings: Arc<Settings>,
    /// The configuration in force.
    pub store: Arc<Store>,
    /// Our certificate and the trust roots.
    pub live: Live,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the bytes draw on that have arrived and nobody has taken.
    pub budget: Arc<Budget>,
    /// Clients' connections, of all workers.
    pub clients: Arc<Clients>,
    /// Whom to ask for the addresses of names.
    pub names: Asker,
    /// How far leaving has come.
    pub leave: Leave,
}

/// What one worker owns.
#[derive(Debug)]
pub struct Worker {
    /// Its number, from 0: its shard of every metric.
    pub index: usize,
    /// What all workers have in common.
    pub settings: Arc<Settings>,
    /// The configuration in force, as this thread sees it.
    pub view: View,
    /// Our certificate and the trust roots.
    pub live: Live,
    /// Open connections to endpoints and to the app.
    pub pools: Pools,
    /// Where the app is reached.
    pub apps: Apps,
    /// The tokens that it has verified.
    pub tokens: Tokens,
    /// Notices clients that keep the proxy waiting.
    pub patience: Rc<Patience>,
    /// The time limits of requests.
    pub deadlines: Rc<Deadlines>,
    /// Draws backends and endpoints.
    pub rng: RefCell<fastrand::Rng>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What was said of policies lately.
    pub said: Sparing,
    /// What the bytes draw on that have arrived and nobody has taken.
    pub budget: Arc<Budget>,
    /// The places of clients' connections.
    pub places: Places,
    /// Whom to ask for the addresses of names.
    pub names: Asker,
    /// How far leaving has come.
    pub leave: Leave,
}

impl Worker {
    /// Worker number `index`. Must be called on a local runtime; its own housekeeping is spawned there.
    pub fn start(index: usize, shared: &Shared) -> Rc<Self> {
        let settings = Arc::clone(&shared.settings);
        let pools = Pools::new(connect::PoolSettings {
            live: shared.live.clone(),
            carrier: settings.carrier,
            preserve_header_case: settings.preserve_header_case,
            source: settings.workload.to_string(),
            budget: Arc::clone(&shared.budget),
            metrics: Arc::clone(&shared.metrics),
            liveness: settings.liveness,
            own: Arc::clone(&settings.own),
            instance: Instance::random(),
            max_connection_age: settings.max_connection_age,
        });
        let patience = Patience::new(settings.header_timeout, settings.idle_timeout);
        let deadlines = Rc::new(Deadlines::default());
        let worker = Rc::new(Self {
            index,
            patience: Rc::clone(&patience),
            settings,
            view: View::new(Arc::clone(&shared.store)),
            live: shared.live.clone(),
            pools,
            apps: Apps::default(),
            tokens: Tokens::default(),
            deadlines: Rc::clone(&deadlines),
            rng: RefCell::new(fastrand::Rng::new()),
            metrics: Arc::clone(&shared.metrics),
            said: Sparing::default(),
            budget: Arc::clone(&shared.budget),
            places: Places::new(Arc::clone(&shared.clients)),
            names: shared.names.clone(),
            leave: shared.leave.clone(),
        });
        tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        tokio::task::spawn_local(wait(patience));
        tokio::task::spawn_local(deadlines.keep());
        worker
    }
}

async fn sweep(worker: Rc<Worker>) {
    let mut revocations = worker.live.revocations();
    loop {
        tokio::select! {
            () = tokio::time::sleep(SWEEP_INTERVAL) => {}
            // Idle connections to whom is revoked wait for no sweep.
            Ok(()) = revocations.changed() => {}
        }
        // An idle worker holds on to an old table, and with it to targets, until it looks again.
        worker.view.refresh();
        worker.pools.sweep(std::time::Instant::now());
    }
}

async fn wait(patience: Rc<Patience>) {
    loop {
        tokio::time::sleep(patience.tick()).await;
        patience.advance();
    }
}
