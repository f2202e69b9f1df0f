//! The end-to-end harness and the benchmark's programs.
//!
//! Thin: meshes are the demo's own [`Cluster`], so that what the tests prove is what the demo shows. A test
//! never sleeps to wait for a state: it [`poll`]s, with a deadline.

pub mod collector;

pub mod dns;

pub mod fuzz;

pub mod gateway;

pub mod issuer;

pub mod kubernetes;

pub mod manifests;

pub mod needs;

pub mod netns;

pub mod policies;

pub mod spiffe;

pub mod statuses;

use std::{
    fmt,
    ops::{Deref, DerefMut},
    path::Path,
    time::{Duration, SystemTime},
};

use selvedge_certs::{ca::Authority, tls::Credentials};
use selvedge_demo::{cluster::Cluster, documents, processes::Exits, wait, workload::Spec};
use selvedge_model::SpiffeId;

/// How long to poll for a state that must come.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks `look` until it is `Ok`; its `Err` says what is there instead.
///
/// # Panics
/// If that does not happen within `limit`.
pub async fn poll<T, E: fmt::Display>(
    limit: Duration,
    what: &str,
    look: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    wait::until(limit, what, look).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A mesh of a test's own. If the test fails, the ends of all logs are printed.
#[derive(Debug)]
pub struct Mesh {
    cluster: Cluster,
    /// Processes that ended although the test did not end them.
    pub exits: Exits,
}

impl Mesh {
    /// Addresses and an empty configuration; nothing runs.
    ///
    /// # Panics
    /// If it cannot be had.
    pub fn empty(binary: &str) -> Self {
        let (cluster, exits) =
            Cluster::create(Path::new(binary), None).expect("a part of the loopback network");
        Self { cluster, exits }
    }

    /// A control plane and these workloads, all ready, each behind the service that its `app` label names.
    ///
    /// # Panics
    /// If one does not become ready.
    pub async fn of(binary: &str, specs: impl IntoIterator<Item = Spec>) -> Self {
        let specs: Vec<Spec> = specs.into_iter().collect();
        let mut mesh = Self::empty(binary);
        for spec in &specs {
            mesh.service(&spec.labels[0].1, spec.port);
        }
        mesh.start_control_plane().await.expect("a control plane");
        mesh.add(specs).await.expect("workloads");
        mesh
    }

    /// A `Service` of the workloads labelled `app: <name>`.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn service(&self, name: &str, port: u16) {
        let text = documents::service(name, "default", port);
        self.write(&format!("service-{name}.yaml"), &text).expect("a writable directory");
    }

    /// Has the `Service` called `name` say no longer what is spoken on `port`, and waits until the sidecar of its
    /// `workload` knows: what comes there may be anything from then on.
    ///
    /// # Panics
    /// If that does not happen soon.
    pub async fn undeclare(&self, name: &str, port: u16, workload: &str) {
        let text = documents::service(name, "default", port).replace("- name: http\n      port", "- port");
        self.write(&format!("service-{name}.yaml"), &text).expect("a writable directory");
        poll(SOON, "nothing is declared", async || {
            let config = self.workload(workload).admin("/config").await.map_err(|error| error.to_string())?;
            let text = config.text();
            if text.contains("\"protocols\":{}") { Ok(()) } else { Err(text) }
        })
        .await;
    }

    /// A certificate for `service_account`, straight from the mesh's CA, and the mesh's roots.
    ///
    /// # Panics
    /// If the control plane has not made its CA yet.
    pub fn credentials(&self, service_account: &str) -> Credentials {
        credentials(&self.cluster, service_account)
    }
}

/// A certificate for `service_account`, straight from the CA of `cluster`, and the mesh's roots.
///
/// # Panics
/// If the control plane has not made its CA yet.
pub fn credentials(cluster: &Cluster, service_account: &str) -> Credentials {
    let authority = Authority::load(&cluster.data_dir()).expect("the control plane's CA");
    let identity = SpiffeId::new(authority.trust_domain(), "default", service_account).expect("a name");
    let leaf = authority.issue(&identity, &[], Duration::from_secs(600), SystemTime::now());
    Credentials { leaf: leaf.expect("a certificate"), bundle: authority.bundle() }
}

impl Deref for Mesh {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl DerefMut for Mesh {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.cluster.log_tails());
        } else {
            nobody_panicked(&self.cluster);
        }
    }
}

/// Whatever a test does to them, no process of `cluster` has panicked, be it in one connection's task.
///
/// # Panics
/// If one has.
pub fn nobody_panicked(cluster: &Cluster) {
    let panics = cluster.panics();
    assert!(panics.is_empty(), "{panics:#?}");
}
