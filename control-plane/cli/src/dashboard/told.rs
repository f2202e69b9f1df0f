//! What one replica tells for pages: what its admin port answers at `/dashboard/facts`.

use std::{fs, path::Path};

use selvedge_control_plane::{
    problem::{Problem, Severity},
    snapshot::Authorities,
    status::{Config, HistorySeen, Overview, SeenTraffic, ServicesShown, TrafficSeen},
};
use selvedge_model::{Mesh, WorkloadName};
use selvedge_ops::{build, memory, plain};
use serde::{Deserialize, Serialize};

use crate::authz::matrix::{self, Cell, Pair};

/// The most problems of which all is told.
const MOST_PROBLEMS: usize = 1_000;
/// The most pairs of workloads of which it is told who may call whom.
const MOST_PAIRS: usize = 200_000;

/// What is asked of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Wanted {
    /// Of how many seconds traffic is told.
    pub(super) since: u64,
    /// Whether it is told who may call whom.
    #[serde(default)]
    pub(super) matrix: bool,
    /// Whether sidecars are to report every second for a while.
    #[serde(default)]
    pub(super) often: bool,
}

/// What one replica knows.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Told {
    /// Its host's name, which in a cluster is its pod's.
    pub(super) replica: String,
    /// Whether there may be others.
    pub(super) is_in_cluster: bool,
    pub(super) version: String,
    pub(super) memory_bytes: Option<u64>,
    pub(super) traffic: TrafficSeen,
    pub(super) history: HistorySeen,
    pub(super) services: ServicesShown,
    pub(super) config: Config,
    pub(super) problems: Vec<Found>,
    pub(super) problems_left_out: usize,
    pub(super) seen: SeenTraffic,
    /// Who may call whom; `None`: it was not asked, or there are too many pairs.
    #[serde(default)]
    pub(super) matrix: Option<Vec<May>>,
    /// What is left out of this, because it would be too long.
    #[serde(default)]
    pub(super) left_out: Vec<String>,
}

/// Whether somebody may call somebody.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct May {
    #[serde(flatten)]
    pub(super) pair: Pair,
    #[serde(flatten)]
    pub(super) cell: Cell,
    /// What the client runs as: the namespace and the service account.
    pub(super) client_account: String,
    /// The same of the server.
    pub(super) server_account: String,
}

/// Something that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Found {
    pub(super) severity: Bad,
    /// The document's kind, namespace and name.
    pub(super) document: Option<String>,
    /// The file.
    pub(super) path: Option<String>,
    pub(super) line: Option<u64>,
    pub(super) field: String,
    pub(super) message: String,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Bad {
    Error,
    Warning,
    NotActedOn,
}

impl Told {
    /// What this replica knows. It may take a while.
    pub(super) fn of(overview: &Overview, wanted: Wanted) -> Self {
        let problems = overview.problems();
        let snapshot = overview.snapshot();
        let matrix = snapshot.as_ref().filter(|_| wanted.matrix).and_then(|one| matrix_of(one.mesh()));
        Self {
            replica: host_name(),
            is_in_cluster: overview.is_in_cluster(),
            version: build::VERSION.to_owned(),
            memory_bytes: memory::resident(),
            traffic: overview.traffic(wanted.since),
            history: overview.history(),
            services: overview.services(),
            config: overview.config(),
            problems: problems.iter().take(MOST_PROBLEMS).map(Found::of).collect(),
            problems_left_out: problems.len().saturating_sub(MOST_PROBLEMS),
            seen: overview.seen(),
            matrix,
            left_out: Vec::new(),
        }
    }

    /// The same in JSON, without as much of it as does not fit into `most` bytes: first what the fewest pages need.
    pub(super) fn into_json(mut self, most: usize) -> serde_json::Result<Vec<u8>> {
        type LeaveOut = fn(&mut Told);
        const PARTS: [(&str, LeaveOut); 6] = [
            ("who may call whom", |told| told.matrix = None),
            ("what proxies have asked for", |told| {
                // Not theirs, which streams go on using.
                told.config.proxies.iter_mut().for_each(|proxy| proxy.authorities = Authorities::default());
            }),
            ("who has called whom", |told| told.seen.workloads.clear()),
            ("what was when in the last hour", |told| told.history.lines.clear()),
            ("services", |told| told.services.services.clear()),
            ("traffic", |told| told.traffic.workloads.clear()),
        ];
        let mut text = serde_json::to_vec(&self)?;
        for (what, leave_out) in PARTS {
            if text.len() <= most {
                break;
            }
            leave_out(&mut self);
            self.left_out.push(what.to_owned());
            text = serde_json::to_vec(&self)?;
        }
        Ok(text)
    }
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// `None`: there are too many pairs.
fn matrix_of(mesh: &Mesh) -> Option<Vec<May>> {
    let workloads = mesh.workloads.len();
    let ports: usize = mesh.workloads.values().map(|workload| workload.ports.len()).sum();
    if workloads.saturating_mul(ports) > MOST_PAIRS {
        return None;
    }
    let account = |name: &str| {
        let workload = name.parse().ok().and_then(|name: WorkloadName| mesh.workloads.get(&name));
        workload.map_or_else(
            || name.to_owned(),
            |one| format!("{}/{}", one.identity.namespace(), one.identity.service_account()),
        )
    };
    let may = |(pair, cell): (Pair, Cell)| May {
        client_account: account(&pair.from),
        server_account: account(&pair.to),
        pair,
        cell,
    };
    Some(matrix::of(mesh).into_iter().map(may).collect())
}

impl Found {
    fn of(problem: &Problem) -> Self {
        Self {
            severity: match problem.severity {
                Severity::Error => Bad::Error,
                Severity::Warning => Bad::Warning,
                Severity::NotActedOn => Bad::NotActedOn,
            },
            document: problem.document.as_ref().map(|name| plain(&name.to_string()).into_owned()),
            path: problem.path.as_deref().map(|path: &Path| plain(&path.display().to_string()).into_owned()),
            line: problem.line,
            field: plain(&problem.field).into_owned(),
            message: plain(&problem.message).into_owned(),
        }
    }
}
