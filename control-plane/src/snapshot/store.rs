//! The mesh as it is now, with a version, told to everyone who waits for it.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use selvedge_api::{ResourceName, wire::resource::Body};
use selvedge_certs::{bundle::Bundle, facts::fingerprint};
use selvedge_model::{Mesh, WorkloadName, snapshot::Clients};
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};

use super::{
    encoding::{Encoded, Encodings, bundle_to_wire},
    watchers::{Watcher, Watchers},
};

/// How many workloads that are gone are remembered; the first to go are forgotten first.
const MOST_DEPARTED: usize = 10_000;

/// The mesh at one moment.
#[derive(Debug)]
pub struct Snapshot {
    version: u64,
    mesh: Arc<Mesh>,
    trusted: Trusted,
    encodings: Arc<Encodings>,
    members: Members,
}

/// The trust roots.
#[derive(Debug, Clone)]
struct Trusted {
    /// As they are sent.
    bundle: Encoded,
    /// The SHA-256 of each; leaves lead to the first.
    roots: Arc<[String]>,
    /// The same of roots that vouch for workloads alone.
    workload_roots: Arc<[String]>,
}

impl Trusted {
    fn new(bundle: &Bundle) -> Self {
        let [roots, workload_roots] = [&bundle.roots, &bundle.workload_roots]
            .map(|roots| roots.iter().map(|root| fingerprint(root).to_string()).collect());
        let bundle = Encoded::new(ResourceName::Bundle, Body::Bundle(bundle_to_wire(bundle)));
        Self { bundle, roots, workload_roots }
    }
}

/// Who was in the mesh before.
#[derive(Debug, Clone)]
struct Members {
    /// When this run's first mesh was published.
    since: SystemTime,
    /// Workloads that were in an earlier mesh of this run, and when they were not any more.
    departed: Arc<BTreeMap<WorkloadName, SystemTime>>,
}

impl Members {
    /// The same after `mesh` has followed on `before`, at `now`.
    fn next(&self, before: &Mesh, mesh: &Mesh, now: SystemTime) -> Self {
        if before.workloads.is(&mesh.workloads) || before.workloads.keys().eq(mesh.workloads.keys()) {
            return self.clone();
        }
        let gone = |name: &&WorkloadName| !mesh.workloads.contains_key(*name);
        let mut newly = before.workloads.keys().filter(gone).peekable();
        let back = self.departed.keys().any(|name| mesh.workloads.contains_key(name));
        if newly.peek().is_none() && !back {
            return self.clone();
        }
        let mut departed = (*self.departed).clone();
        departed.retain(|name, _| !mesh.workloads.contains_key(name));
        departed.extend(newly.map(|name| (name.clone(), now)));
        let surplus = departed.len().saturating_sub(MOST_DEPARTED);
        if surplus > 0 {
            let mut by_age: Vec<_> = departed.into_iter().collect();
            by_age.sort_by_key(|(_, gone)| *gone);
            departed = by_age.into_iter().skip(surplus).collect();
        }
        Self { since: self.since, departed: Arc::new(departed) }
    }
}

/// Whether a workload is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Membership {
    /// It is.
    Present,
    /// It was, until then.
    Left(SystemTime),
    /// Not since this run's first mesh, which was published then.
    Unknown(SystemTime),
}

impl Snapshot {
    /// Counts the snapshots of this run, from 1.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The mesh itself.
    pub fn mesh(&self) -> &Arc<Mesh> {
        &self.mesh
    }

    /// The resource `bundle`: the trust roots.
    pub fn bundle(&self) -> &Encoded {
        &self.trusted.bundle
    }

    /// The SHA-256 of each trust root. Certificates that are signed now lead to the first.
    pub fn roots(&self) -> &[String] {
        &self.trusted.roots
    }

    /// The SHA-256 of each root that vouches for workloads among each other, and for nobody else.
    pub fn workload_roots(&self) -> &[String] {
        &self.trusted.workload_roots
    }

    /// When this run's first mesh was published.
    pub fn since(&self) -> SystemTime {
        self.members.since
    }

    /// Whether `workload` is in the mesh, or was.
    pub fn membership(&self, workload: &WorkloadName) -> Membership {
        if self.mesh.workloads.contains_key(workload) {
            return Membership::Present;
        }
        match self.members.departed.get(workload) {
            Some(gone) => Membership::Left(*gone),
            None => Membership::Unknown(self.members.since),
        }
    }

    /// The mesh's parts as they are sent.
    pub fn encodings(&self) -> &Encodings {
        &self.encodings
    }
}

/// Holds the newest snapshot; the old ones live as long as somebody looks at them.
#[derive(Debug)]
pub struct Store {
    /// Held while something is published, so that what is newest is of the newest bundle and mesh.
    trusted: Mutex<Trusted>,
    encodings: Arc<Encodings>,
    versions: AtomicU64,
    newest: watch::Sender<Option<Arc<Snapshot>>>,
    watchers: Arc<Watchers>,
}

impl Store {
    /// A store without a mesh: nothing is served before the first [`Self::publish`].
    pub fn new(bundle: &Bundle) -> Self {
        Self {
            trusted: Mutex::new(Trusted::new(bundle)),
            encodings: Arc::default(),
            versions: AtomicU64::new(0),
            newest: watch::Sender::new(None),
            watchers: Arc::default(),
        }
    }

    /// Makes `mesh` the newest, and returns its version.
    pub fn publish(&self, mesh: Mesh) -> u64 {
        self.publish_change(mesh, Instant::now())
    }

    /// The same of a change that was noticed at `since`.
    pub fn publish_change(&self, mesh: Mesh, since: Instant) -> u64 {
        let trusted = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.send(&trusted, Arc::new(mesh), false, since);
        self.encodings.forget_unused();
        version
    }

    /// Has proxies trust the roots of `bundle` and no others.
    pub fn believe(&self, bundle: &Bundle) {
        let mut current = self.trusted.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Trusted::new(bundle);
        if let Some(snapshot) = self.current() {
            self.send(&current, Arc::clone(snapshot.mesh()), true, Instant::now());
        }
    }

    fn send(&self, trusted: &Trusted, mesh: Arc<Mesh>, all: bool, since: Instant) -> u64 {
        let version = self.versions.fetch_add(1, Ordering::Relaxed) + 1;
        let now = SystemTime::now();
        let before = self.current();
        let members = match &before {
            Some(before) => before.members.next(&before.mesh, &mesh, now),
            None => Members { since: now, departed: Arc::default() },
        };
        let snapshot = Arc::new(Snapshot {
            version,
            mesh,
            trusted: trusted.clone(),
            encodings: Arc::clone(&self.encodings),
            members,
        });
        let send = || drop(self.newest.send_replace(Some(Arc::clone(&snapshot))));
        self.watchers.publish(before.as_deref(), &snapshot, all, since, send);
        version
    }

    #[cfg(test)]
    pub(super) fn watchers(&self) -> &Watchers {
        &self.watchers
    }

    /// A place for a stream of `workload` among those who are told of changes that concern them. It belongs to `clients` by a
    /// snapshot that need not be the newest any more.
    pub fn watch(&self, workload: &WorkloadName, clients: Clients) -> Watcher {
        self.watchers.watch(workload, clients)
    }

    /// The newest snapshot; `None` before the first.
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.newest.borrow().clone()
    }

    /// Tells of every newer snapshot; one that is slow sees only the newest.
    pub fn subscribe(&self) -> watch::Receiver<Option<Arc<Snapshot>>> {
        self.newest.subscribe()
    }
}

/// How long to wait for further changes before acting on one.
#[derive(Debug, Clone, Copy)]
pub struct Debounce {
    /// Act once nothing has changed for this long.
    pub quiet: Duration,
    /// Act after this long, however much is changing.
    pub longest: Duration,
}

impl Debounce {
    /// Waits for a change, and then until changes pause; the newest value is then marked as seen. Gives when the first of
    /// these changes came.
    ///
    /// `None` if nothing can change any more, because the other side is gone. Cancel-safe: a change that
    /// was waited for is found again.
    pub async fn changed<T>(&self, values: &mut watch::Receiver<T>) -> Option<Instant> {
        values.changed().await.ok()?;
        let first = Instant::now();
        let deadline = first + self.longest;
        loop {
            let quiet = deadline.min(Instant::now() + self.quiet);
            match timeout_at(quiet, values.changed()).await {
                // The last value of a source that is gone counts like any other.
                Err(_) | Ok(Err(_)) => return Some(first),
                Ok(Ok(())) if Instant::now() >= deadline => return Some(first),
                Ok(Ok(())) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEBOUNCE: Debounce =
        Debounce { quiet: Duration::from_millis(50), longest: Duration::from_millis(500) };

    #[test]
    fn a_workload_that_is_gone_is_remembered_until_it_is_back() {
        use crate::testing;
        let name: WorkloadName = "shop/a".parse().unwrap();
        let store = Store::new(&testing::bundle());
        let mut with = testing::mesh();
        testing::add_workload(&mut with, "shop/a", "a");
        let membership = || store.current().unwrap().membership(&name);

        store.publish(testing::mesh());
        assert!(matches!(membership(), Membership::Unknown(_)));
        store.publish(with.clone());
        assert_eq!(membership(), Membership::Present);
        store.publish(testing::mesh());
        let Membership::Left(gone) = membership() else { panic!("{:?}", membership()) };
        store.publish(testing::mesh());
        assert_eq!(membership(), Membership::Left(gone), "since it was seen last");
        store.publish(with);
        assert_eq!(membership(), Membership::Present);
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_follow_each_other_count_as_one() {
        let (sender, mut receiver) = watch::channel(0);
        let start = Instant::now();
        tokio::spawn(async move {
            for value in 1..=5 {
                sender.send_replace(value);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        });

        assert!(DEBOUNCE.changed(&mut receiver).await.is_some());

        assert_eq!(*receiver.borrow(), 5);
        assert_eq!(start.elapsed().as_millis() / 10, 13, "80 ms of changes and 50 ms of quiet");
    }

    #[tokio::test(start_paused = true)]
    async fn changes_that_never_pause_are_acted_on_in_time() {
        let (sender, mut receiver) = watch::channel(0);
        let start = Instant::now();
        tokio::spawn(async move {
            loop {
                sender.send_modify(|value| *value += 1);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });

        assert!(DEBOUNCE.changed(&mut receiver).await.is_some());

        assert!(start.elapsed() <= DEBOUNCE.longest + DEBOUNCE.quiet, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_change_of_a_source_that_is_gone_counts() {
        let (sender, mut receiver) = watch::channel(0);
        sender.send_replace(1);
        drop(sender);

        assert!(DEBOUNCE.changed(&mut receiver).await.is_some());
        assert!(DEBOUNCE.changed(&mut receiver).await.is_none());
    }
}
