//! Stage 6: what became of the configuration: problems in documents, and what each proxy holds.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use selvedge_certs::{facts::Utc, holder::Basis, verify::Peer};
use selvedge_model::{Serial, SpiffeId, WorkloadName};
use serde::{Serialize, Serializer};
use tokio::sync::watch;

use crate::{
    metrics::Metrics,
    problem::{DocumentName, Problem, Severity},
    snapshot::diff::Versions,
    sources::Object,
};

mod certificates;

pub use self::certificates::{Life, OwnCertificates, Purpose};

/// The problems of the configuration as it is now.
#[derive(Debug, Default)]
pub struct Problems {
    now: watch::Sender<Arc<Verdicts>>,
}

/// What became of every document, at one moment.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// The documents whose status can be written in the cluster.
    pub objects: Arc<Vec<Object>>,
    /// Every problem.
    pub problems: Arc<Vec<Problem>>,
}

/// What makes two problems one and the same: everything but the line, which moves with every edit above.
type Same<'a> = (Severity, Option<&'a DocumentName>, Option<&'a Path>, &'a str, &'a str);

fn same(problem: &Problem) -> Same<'_> {
    let (document, path) = (problem.document.as_ref(), problem.path.as_deref());
    (problem.severity, document, path, &problem.field, &problem.message)
}

impl Problems {
    /// Replaces all problems; logs those that are new, and those that are gone, once each.
    pub fn replace(&self, problems: Vec<Problem>, objects: &Arc<Vec<Object>>) {
        let problems = Arc::new(problems);
        let newest = Arc::new(Verdicts { objects: Arc::clone(objects), problems: Arc::clone(&problems) });
        let before = Arc::clone(&self.now.send_replace(newest).problems);
        let known: HashSet<Same<'_>> = before.iter().map(same).collect();
        let still: HashSet<Same<'_>> = problems.iter().map(same).collect();
        problems.iter().filter(|problem| !known.contains(&same(problem))).for_each(appeared);
        for problem in before.iter().filter(|problem| !still.contains(&same(problem))) {
            tracing::info!("solved: {problem}");
        }
    }

    /// All of them.
    pub fn now(&self) -> Arc<Vec<Problem>> {
        Arc::clone(&self.now.borrow().problems)
    }

    /// Tells of every change.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Verdicts>> {
        self.now.subscribe()
    }
}

fn appeared(problem: &Problem) {
    match problem.severity {
        Severity::Error => tracing::error!("{problem}"),
        Severity::Warning => tracing::warn!("{problem}"),
        Severity::NotActedOn => tracing::info!("not acted on: {problem}"),
    }
}

/// How the workload of a proxy is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proof {
    /// Its first token was for that workload alone.
    Proven,
    /// It said so for its first certificate, by a token that is valid for every workload of its service account; it can
    /// be no other since.
    Claimed,
    /// Its certificate names a service account alone, so it may be any workload of that.
    ServiceAccount,
}

impl Proof {
    /// That of whoever has shown this certificate.
    pub fn of(peer: &Peer) -> Self {
        match peer.workload.as_ref().map(|workload| workload.basis) {
            Some(Basis::Proven) => Self::Proven,
            Some(Basis::Claimed) => Self::Claimed,
            None => Self::ServiceAccount,
        }
    }
}

/// One proxy with an open configuration stream.
#[derive(Debug, Clone, Serialize)]
pub struct Proxy {
    /// The workload of the sidecar; `proof` says how it is known.
    pub workload: WorkloadName,
    /// What it proved to be.
    pub identity: SpiffeId,
    /// How the workload of the sidecar is known.
    pub proof: Proof,
    /// The serial number of its certificate.
    pub certificate_serial: Serial,
    /// Where its connection comes from.
    pub address: SocketAddr,
    /// What it says it is.
    pub proxy_version: String,
    /// When the stream was opened.
    #[serde(serialize_with = "rfc3339")]
    pub connected_at: SystemTime,
    /// When its certificate, and with it the stream, ends.
    #[serde(serialize_with = "rfc3339")]
    pub certificate_expires_at: SystemTime,
    /// What it asked for.
    pub authorities: BTreeSet<Arc<str>>,
    /// What it holds, by name, with versions.
    #[serde(serialize_with = "by_name")]
    pub holds: Arc<Versions>,
    /// The configuration version that it is up to date with.
    pub configuration_version: Option<u64>,
    /// The last transaction that it applied.
    pub acknowledged: Option<u64>,
    /// A transaction that it has not answered yet.
    pub under_way: Option<u64>,
    /// The last transaction that it refused.
    pub refused: Option<RefusedTransaction>,
}

/// A transaction that a proxy refused.
#[derive(Debug, Clone, Serialize)]
pub struct RefusedTransaction {
    /// Which.
    pub nonce: u64,
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
    /// Why, in the proxy's words.
    pub reason: String,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Utc(*time))
}

fn by_name<S: Serializer>(versions: &Versions, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(versions.iter().map(|(name, version)| (name.to_string(), version)))
}

/// Every connected proxy.
#[derive(Debug)]
pub struct Proxies {
    metrics: Arc<Metrics>,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    connected: BTreeMap<u64, Proxy>,
}

impl Proxies {
    /// No proxy is connected yet.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, inner: Mutex::default() }
    }

    /// Adds a proxy for as long as its registration lives.
    pub fn register(self: &Arc<Self>, proxy: Proxy) -> Registration {
        let mut inner = self.lock();
        let id = inner.next;
        inner.next += 1;
        inner.connected.insert(id, proxy);
        self.metrics.set_connected_proxies(inner.connected.len());
        Registration { proxies: Arc::clone(self), id }
    }

    /// All of them, in the order in which they came.
    pub fn connected(&self) -> Vec<Proxy> {
        self.lock().connected.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A proxy's place among the connected.
#[derive(Debug)]
pub struct Registration {
    proxies: Arc<Proxies>,
    id: u64,
}

impl Registration {
    /// Changes what is shown of the proxy.
    pub fn update(&self, change: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.proxies.lock().connected.get_mut(&self.id) {
            change(proxy);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut inner = self.proxies.lock();
        inner.connected.remove(&self.id);
        self.proxies.metrics.set_connected_proxies(inner.connected.len());
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn problem(line: u64, message: &str) -> Problem {
        let problem = Problem::with_path(Severity::Error, Path::new("a.yaml"), message);
        Problem { line: Some(line), ..problem }
    }

    #[test]
    fn a_problem_is_logged_when_it_appears_and_when_it_is_solved() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_writer(move || writer.clone())
            .finish();
        let problems = Problems::default();
        let none = Arc::default();

        tracing::subscriber::with_default(subscriber, || {
            problems.replace(vec![problem(3, "no such host")], &none);
            problems.replace(vec![problem(4, "no such host"), problem(9, "no such subset")], &none);
            problems.replace(vec![problem(9, "no such subset")], &none);
        });

        let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = log.lines().map(|line| line.trim().split_once(": ").unwrap().1).collect();
        assert_eq!(
            lines,
            ["a.yaml:3: no such host", "a.yaml:9: no such subset", "solved: a.yaml:4: no such host"]
        );
        assert_eq!(problems.now().len(), 1);
    }
}
