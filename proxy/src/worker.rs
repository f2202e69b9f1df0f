//! A worker: one thread that carries connections, and owns everything that it needs for that.

use std::{
    cell::RefCell,
    fmt,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_certs::tls::Live;
use selvedge_ops::sparing::Sparing;

use crate::{
    bind::{BoundEndpoint, Denied},
    budget::{Budget, Concurrency, GivenUp},
    clients::{Clients, Patience, Places},
    connect::{self, Apps, Instance, Pools},
    credentials::{Credentials, Verifier},
    discovery::store::{Store, View},
    dns::Asker,
    error::Failure,
    leave::Leave,
    seen::Seen,
    settings::Settings,
    step::Admitted,
    telemetry::Metrics,
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
    /// Calls of our app that were given up, of all workers.
    pub given_up: Arc<GivenUp>,
    /// What limits the requests that the app has in progress; `None`: nothing does.
    pub concurrency: Option<Arc<Concurrency>>,
    /// Clients' connections, of all workers.
    pub clients: Arc<Clients>,
    /// What verifies passwords, of all workers.
    pub verifier: Arc<Verifier>,
    /// Who has called, of all workers.
    pub seen: Arc<Seen>,
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
    /// The passwords that it has seen verified.
    pub credentials: Credentials,
    /// The requests in progress that policy has looked into.
    pub admitted: Admitted,
    /// Notices clients that keep the proxy waiting.
    pub patience: Rc<Patience>,
    /// The time limits of requests.
    pub deadlines: Rc<Deadlines>,
    /// Whose answer was waited for by the request that was given up last because its time was over.
    pub late: RefCell<Option<Arc<BoundEndpoint>>>,
    /// Draws backends and endpoints.
    pub rng: RefCell<fastrand::Rng>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What was logged lately of what clients could cause without end.
    pub said: Sparing,
    /// What the bytes draw on that have arrived and nobody has taken.
    pub budget: Arc<Budget>,
    /// Calls of our app that were given up, of all workers.
    pub given_up: Arc<GivenUp>,
    /// What limits the requests that the app has in progress; `None`: nothing does.
    pub concurrency: Option<Arc<Concurrency>>,
    /// The places of clients' connections.
    pub places: Places,
    /// Who has called.
    pub seen: Arc<Seen>,
    /// Whom to ask for the addresses of names.
    pub names: Asker,
    /// How far leaving has come.
    pub leave: Leave,
}

impl Worker {
    /// Whether the log is to say now that a connection from `peer` is refused because of `why`: once in a while for each
    /// address and cause. If so, how many were left out.
    pub fn says_refused(&self, peer: SocketAddr, why: &impl fmt::Display) -> Option<u64> {
        self.said.says(("connection refused", peer.ip(), why.to_string()), Instant::now())
    }

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
        let patience = Patience::limited(settings.header_timeout, settings.idle_timeout, settings.read);
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
            credentials: Credentials::new(Arc::clone(&shared.verifier)),
            admitted: Admitted::default(),
            deadlines: Rc::clone(&deadlines),
            late: RefCell::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            metrics: Arc::clone(&shared.metrics),
            said: Sparing::default(),
            budget: Arc::clone(&shared.budget),
            given_up: Arc::clone(&shared.given_up),
            concurrency: shared.concurrency.clone(),
            places: Places::new(Arc::clone(&shared.clients)),
            seen: Arc::clone(&shared.seen),
            names: shared.names.clone(),
            leave: shared.leave.clone(),
        });
        tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        tokio::task::spawn_local(wait(patience));
        tokio::task::spawn_local(deadlines.keep());
        worker
    }

    /// Counts and logs a request or connection that goes nowhere because of network policies.
    pub fn denied(&self, denied: &Denied) -> Failure {
        let Denied { address, rule, why } = denied;
        self.metrics.egress_denied(rule, self.index);
        self.seen.note_refused(self.index, *address, rule);
        if let Some(left_out) = self.said.says((rule, address), Instant::now()) {
            tracing::info!(direction = "outbound", %address, %rule, %why, left_out, "refused by policy");
        }
        denied.failure()
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
        selvedge_blocks::review();
    }
}

async fn wait(patience: Rc<Patience>) {
    loop {
        tokio::time::sleep(patience.tick()).await;
        patience.advance();
    }
}
