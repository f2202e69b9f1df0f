//! A fleet of simulated proxies: what a change costs the control plane, and how soon it has arrived everywhere.
//!
//! The proxies are tasks of this process with real TLS connections over loopback, each from an address of its own; so CPU time
//! and memory of the control plane are told apart from the fleet's, but both have the same machine.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use selvedge_certs::{
    ca::Authority,
    tls::{Credentials, grpc_client},
};
use selvedge_demo::call;
use selvedge_model::{SpiffeId, TrustDomain};
use serde_json::Value;
use tokio::task::JoinHandle;

use self::{
    documents::{COMMON, Documents, LARGE, host, namespace},
    proxies::{Identity, Manners, Proxy, Record},
    report::{Case, Report},
};
use crate::{
    compare::raise_descriptor_limit,
    measure::{cpu, resident_kib},
    process::Running,
};

mod documents;
mod proxies;
mod report;
mod reports;
mod sipping;
mod troubles;

/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at whether something has happened.
const GLANCE: Duration = Duration::from_millis(5);
/// A control plane is at rest when it has used no more than [`IDLE`] for so long.
const REST: Duration = Duration::from_millis(300);
const IDLE: Duration = Duration::from_millis(3);
/// Certificates last for longer than a run.
const TTL: Duration = Duration::from_secs(6 * 3600);
/// A fleet of simulated proxies on one control plane.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How many proxies; 20 of them to a service.
    #[arg(long = "fleet", value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(60..100_000))]
    proxies: u32,
    /// 300 proxies and few edits: shows that every stream ends with the final state and that no other is told anything, and
    /// no figure worth quoting.
    #[arg(long)]
    quick: bool,
    /// Only these cases of tests/bench/README.md, and what each of them needs; by default all.
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    cases: Vec<String>,
    /// Print one JSON object instead of the table.
    #[arg(long)]
    json: bool,
    /// The `selvedge` binary; by default the one beside this binary.
    #[arg(long)]
    selvedge: Option<PathBuf>,
    /// What the run is of, for the report: a commit, a profile.
    #[arg(long, default_value = "")]
    label: String,
}

impl Args {
    fn proxies(&self) -> usize {
        if self.quick { 300 } else { self.proxies as usize }
    }

    fn is_wanted(&self, case: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted == case)
    }

    /// Repetitions of each change that is measured by itself.
    fn changes(&self) -> u32 {
        if self.quick { 2 } else { 10 }
    }

    /// How often each proxy reports, and for how long that is measured.
    fn reporting(&self) -> (Duration, Duration) {
        let seconds = if self.quick { (1, 5) } else { (15, 300) };
        (Duration::from_secs(seconds.0), Duration::from_secs(seconds.1))
    }

    /// Edits of the storm, and how long it lasts.
    fn storm(&self) -> (u32, Duration) {
        if self.quick { (50, Duration::from_secs(2)) } else { (1000, Duration::from_secs(60)) }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    raise_descriptor_limit()?;
    let is_troubled = troubles::CASES.iter().any(|(name, _)| args.is_wanted(name));
    let proxies = args.proxies() + if is_troubled { troubles::EXTRA } else { 0 };
    let files = selvedge_ops::files::allowed();
    anyhow::ensure!(
        proxies <= files / 2,
        "the control plane takes half as many proxies as it may open files, which is {}; with those that come beside the fleet \
         these are {proxies}: raise the hard limit (ulimit -Hn), or ask for a smaller fleet",
        files / 2
    );
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(measure(args))
}

async fn measure(args: &Args) -> anyhow::Result<()> {
    let directory = tempfile::Builder::new().prefix("selvedge-fleet-").tempdir()?;
    let mut fleet = Fleet::prepare(args, directory.path())?;
    let mut report = Report::new(args.label.clone(), args.proxies(), fleet.documents.services())?;
    report.add(fleet.begin().await?);
    report.add(fleet.connect("connect").await?);
    let other = fleet.documents.services() / 2;
    for (case, service) in [("endpoint", other), ("endpoint-all", COMMON)] {
        if args.is_wanted(case) {
            report.add(fleet.endpoint(case, service, args.changes()).await?);
        }
    }
    if args.is_wanted("weight-all") {
        report.add(fleet.weight(args.changes()).await?);
    }
    if args.is_wanted("storm") {
        report.add(fleet.storm(args.storm()).await?);
    }
    if args.is_wanted("reports") {
        report.add(fleet.reports(args.reporting()).await?);
    }
    if args.is_wanted("restart") {
        report.add(fleet.restart().await?);
    }
    for case in troubles::CASES.into_iter().filter(|(name, _)| args.is_wanted(name)) {
        report.add(fleet.beside(case, other, args.changes()).await?);
    }
    fleet.is_final().await?;
    report.print(args.json)
}

/// The control plane, and its proxies.
struct Fleet {
    selvedge: PathBuf,
    directory: PathBuf,
    documents: Documents,
    /// Those of the proxies, and behind them those of proxies that misbehave.
    identities: Vec<Arc<Identity>>,
    proxies: Vec<Arc<Proxy>>,
    tasks: Vec<JoinHandle<()>>,
    record: Arc<Record>,
    /// The services that each proxy has asked for.
    asked: Vec<Vec<usize>>,
    control_plane: Option<ControlPlane>,
    /// The number of the last edit.
    edits: u32,
    /// Whether proxies come and go, so that the control plane always has something to do.
    is_restless: bool,
}

struct ControlPlane {
    process: Running,
    grpc: SocketAddr,
    admin: SocketAddr,
}

impl Fleet {
    fn prepare(args: &Args, directory: &Path) -> anyhow::Result<Self> {
        let count = args.proxies();
        let all = count + troubles::EXTRA;
        let documents = Documents::write(&directory.join("config"), all)?;
        let beside = std::env::current_exe()?.with_file_name("selvedge");
        let trust_domain = TrustDomain::default();
        let authority = Authority::load_or_create(&directory.join("data"), &trust_domain)?;
        let bundle = authority.bundle();
        let mut identities = Vec::with_capacity(all);
        let mut asked = Vec::with_capacity(all);
        for workload in 0..all {
            let namespace = namespace(workload % documents.services());
            let spiffe = SpiffeId::new(&trust_domain, &namespace, &format!("w{workload}"))?;
            let leaf = authority.issue(&spiffe, &[], TTL, SystemTime::now())?;
            let tls = grpc_client(&Credentials { leaf, bundle: bundle.clone() })?;
            let services = documents.asked_by(workload);
            let mut authorities: Vec<_> =
                services.iter().map(|service| format!("{}:80", host(*service))).collect();
            if workload.checked_sub(count).is_some_and(troubles::asks_for_large) {
                authorities.push(LARGE.to_owned());
            }
            let [_, a, b, c] = u32::try_from(workload + 256)?.to_be_bytes();
            identities.push(Arc::new(Identity {
                workload: format!("{namespace}/w{workload}"),
                authorities,
                tls,
                source: Ipv4Addr::new(127, 1 + a, b, c),
            }));
            asked.push(services);
        }
        asked.truncate(count);
        Ok(Self {
            selvedge: args.selvedge.clone().unwrap_or(beside),
            directory: directory.to_owned(),
            documents,
            identities,
            proxies: (0..count).map(|_| Arc::default()).collect(),
            tasks: Vec::new(),
            record: Arc::default(),
            asked,
            control_plane: None,
            edits: 1,
            is_restless: false,
        })
    }

    fn control_plane(&self) -> anyhow::Result<&ControlPlane> {
        self.control_plane.as_ref().context("the control plane is not started")
    }

    fn pid(&self) -> anyhow::Result<u32> {
        Ok(self.control_plane()?.process.id())
    }

    /// Starts the control plane where it was before, or anywhere, and waits until it is ready.
    async fn start(&mut self, at: Option<(SocketAddr, SocketAddr)>) -> anyhow::Result<Duration> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (grpc, admin) = at.unwrap_or((any, any));
        let mut command = Command::new(&self.selvedge);
        command.args(["control-plane", "--exit-on-stdin-close", "--log", "warn"]);
        command.args(["--listen", &grpc.to_string(), "--admin", &admin.to_string()]);
        command.arg("--config-dir").arg(self.directory.join("config"));
        command.arg("--data-dir").arg(self.directory.join("data"));
        let began = Instant::now();
        let mut process = Running::start("control-plane", command, &self.directory)?;
        let (grpc, admin) = (process.address_of("grpc")?, process.address_of("admin")?);
        self.control_plane = Some(ControlPlane { process, grpc, admin });
        until("the control plane is ready", async || {
            let answer = call::send(admin, call::to(&admin.to_string(), "/ready")).await;
            Ok(answer.is_ok_and(|answer| answer.status == 200))
        })
        .await?;
        Ok(began.elapsed())
    }

    /// The control plane by itself.
    async fn begin(&mut self) -> anyhow::Result<Case> {
        self.start(None).await?;
        // Once more, with what it has kept of the first time.
        let before = self.control_plane.take().context("the control plane is not started")?;
        let at = (before.grpc, before.admin);
        before.process.finish(Signal::TERM, LIMIT)?;
        let took = self.start(Some(at)).await?;
        let pid = self.pid()?;
        self.rest().await?;
        let memory = resident_kib(&[pid])?[0];
        Ok(Case {
            name: "start",
            seconds: vec![took],
            cpu: Some(cpu(&[pid])?),
            memory_kib: Some(memory),
            ..Case::default()
        })
    }

    /// Until every proxy has its configuration.
    async fn all_current(&self) -> anyhow::Result<()> {
        until("every proxy has its configuration", async || {
            Ok(self.proxies.iter().all(|proxy| proxy.is_current.load(Ordering::Acquire)))
        })
        .await
    }

    /// All proxies connect at once.
    async fn connect(&mut self, name: &'static str) -> anyhow::Result<Case> {
        let pid = self.pid()?;
        let (used, memory, own) = (cpu(&[pid])?, resident_kib(&[pid])?[0], cpu(&[std::process::id()])?);
        let began = Instant::now();
        let grpc = self.control_plane()?.grpc;
        for (identity, proxy) in self.identities.iter().zip(&self.proxies) {
            let (identity, proxy, record) =
                (Arc::clone(identity), Arc::clone(proxy), Arc::clone(&self.record));
            self.tasks.push(proxies::spawn(identity, Manners::Good, grpc, proxy, record));
        }
        self.all_current().await?;
        let took = began.elapsed();
        self.rest().await?;
        let used = cpu(&[pid])?.saturating_sub(used);
        let own = cpu(&[std::process::id()])?.saturating_sub(own);
        let memory = resident_kib(&[pid])?[0].saturating_sub(memory);
        let failed = self.record.failed.swap(0, Ordering::Relaxed);
        let for_each = memory as f64 / self.proxies.len() as f64;
        let seconds = vec![took];
        Ok(Case {
            name,
            seconds,
            cpu: Some(used),
            own: Some(own),
            failed: Some(failed),
            kib_for_each: Some(for_each),
            ..Case::default()
        })
    }

    /// How many transactions each proxy has had.
    fn transactions(&self) -> Vec<u64> {
        self.proxies.iter().map(|proxy| proxy.transactions.load(Ordering::Acquire)).collect()
    }

    /// Those who have not asked for `service` were told nothing since.
    fn nobody_else(&self, service: usize, before: &[u64]) -> anyhow::Result<()> {
        for ((now, before), asked) in self.transactions().iter().zip(before).zip(&self.asked) {
            ensure!(
                asked.contains(&service) || now == before,
                "a proxy was told of what it had not asked for"
            );
        }
        Ok(())
    }

    fn subscribers(&self, service: usize) -> usize {
        self.asked.iter().filter(|asked| asked.contains(&service)).count()
    }

    /// One endpoint of `service` has another weight.
    async fn endpoint(&mut self, name: &'static str, service: usize, times: u32) -> anyhow::Result<Case> {
        self.endpoint_after(name, service, times, |_| Ok(())).await
    }

    /// The same, each time after something else.
    async fn endpoint_after(
        &mut self,
        name: &'static str,
        service: usize,
        times: u32,
        mut first: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Case> {
        let resource = format!("endpoints/{}:80", host(service));
        self.changes(name, service, times, |fleet| {
            first(fleet)?;
            fleet.edits += 1;
            fleet.record.edit(&resource, fleet.edits);
            fleet.documents.edit(service, fleet.edits)
        })
        .await
    }

    /// The common service's route has other weights.
    async fn weight(&mut self, times: u32) -> anyhow::Result<Case> {
        let resource = format!("service/{}:80", host(COMMON));
        self.changes("weight-all", COMMON, times, |fleet| {
            fleet.record.shift(&resource);
            fleet.documents.shift()
        })
        .await
    }

    async fn changes(
        &mut self,
        name: &'static str,
        service: usize,
        times: u32,
        mut change: impl FnMut(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Case> {
        let (pid, wanted) = (self.pid()?, self.subscribers(service));
        let before = self.transactions();
        let compiling = self.compiling().await?;
        let (mut seconds, mut used, mut own) = (Vec::new(), Duration::ZERO, Duration::ZERO);
        for _ in 0..times {
            self.rest().await?;
            let (cpu_before, own_before) = (cpu(&[pid])?, cpu(&[std::process::id()])?);
            change(self)?;
            until("a change has arrived", async || Ok(self.record.arrived() >= wanted)).await?;
            own += cpu(&[std::process::id()])?.saturating_sub(own_before);
            self.rest().await?;
            used += cpu(&[pid])?.saturating_sub(cpu_before);
            seconds.extend(self.record.take());
        }
        self.nobody_else(service, &before)?;
        let compile = self.compiling().await?.saturating_sub(compiling) / times;
        // Beside proxies that come and go, what was used is not a change's own.
        let (cpu, own) =
            if self.is_restless { (None, None) } else { (Some(used / times), Some(own / times)) };
        Ok(Case { name, seconds, cpu, own, compile: Some(compile), ..Case::default() })
    }

    /// Edits all over the mesh, evenly over a time.
    async fn storm(&mut self, (edits, lasting): (u32, Duration)) -> anyhow::Result<Case> {
        let pid = self.pid()?;
        self.rest().await?;
        let (used, memory) = (cpu(&[pid])?, resident_kib(&[pid])?[0]);
        let own = cpu(&[std::process::id()])?;
        let compiling = self.compiling().await?;
        let began = Instant::now();
        let mut wanted = 0;
        for edit in 0..edits {
            tokio::time::sleep_until((began + lasting * edit / edits).into()).await;
            let service = fastrand::usize(0..self.documents.services());
            self.edits += 1;
            wanted += self.subscribers(service);
            self.record.edit(&format!("endpoints/{}:80", host(service)), self.edits);
            self.documents.edit(service, self.edits)?;
        }
        until("the storm's edits have arrived", async || Ok(self.record.arrived() >= wanted)).await?;
        let more = resident_kib(&[pid])?[0].saturating_sub(memory);
        self.rest().await?;
        let used = cpu(&[pid])?.saturating_sub(used);
        let own = cpu(&[std::process::id()])?.saturating_sub(own);
        let compile = self.compiling().await?.saturating_sub(compiling);
        let seconds = self.record.take();
        Ok(Case {
            name: "storm",
            seconds,
            cpu: Some(used),
            own: Some(own),
            compile: Some(compile),
            memory_kib: Some(more),
            ..Case::default()
        })
    }

    /// The control plane is gone, and comes again.
    async fn restart(&mut self) -> anyhow::Result<Case> {
        self.record.failed.store(0, Ordering::Relaxed);
        let began = {
            let before = self.control_plane.take().context("the control plane is not started")?;
            let at = (before.grpc, before.admin);
            before.process.finish(Signal::KILL, LIMIT)?;
            until("every proxy has noticed", async || {
                Ok(self.proxies.iter().all(|proxy| !proxy.is_current.load(Ordering::Acquire)))
            })
            .await?;
            self.record.failed.store(0, Ordering::Relaxed);
            let began = Instant::now();
            self.start(Some(at)).await?;
            began
        };
        self.all_current().await?;
        let took = began.elapsed();
        self.rest().await?;
        let pid = self.pid()?;
        let (failed, memory) = (self.record.failed.swap(0, Ordering::Relaxed), resident_kib(&[pid])?[0]);
        Ok(Case {
            name: "restart",
            seconds: vec![took],
            cpu: Some(cpu(&[pid])?),
            failed: Some(failed),
            memory_kib: Some(memory),
            ..Case::default()
        })
    }

    /// Every stream has what the last edit of each of its services has made of it, and the control plane knows.
    async fn is_final(&self) -> anyhow::Result<()> {
        for (proxy, asked) in self.proxies.iter().zip(&self.asked) {
            let seen = proxy.seen.lock().unwrap_or_else(PoisonError::into_inner);
            for service in asked {
                let (name, wanted) =
                    (format!("endpoints/{}:80", host(*service)), self.documents.edited(*service));
                let has = seen.get(&name).copied();
                ensure!(has == Some(wanted), "a proxy has edit {has:?} of {name} and not {wanted}");
            }
        }
        let wanted = self.proxies.len();
        until("the control plane counts every proxy as up to date", async || {
            let status = self.ask("/status").await?;
            let status: Value = serde_json::from_str(&status)?;
            Ok(status["proxies"]["up_to_date"].as_u64().is_some_and(|count| count >= wanted as u64))
        })
        .await
    }

    async fn ask(&self, path: &str) -> anyhow::Result<String> {
        let admin = self.control_plane()?.admin;
        let answer = call::send(admin, call::to(&admin.to_string(), path).timeout(LIMIT)).await?;
        ensure!(answer.status == 200, "the control plane answers {} to {path}", answer.status);
        Ok(answer.text())
    }

    /// The time that compiling has taken since the control plane was started.
    async fn compiling(&self) -> anyhow::Result<Duration> {
        let metrics = self.ask("/metrics").await?;
        let sum = metrics.lines().find_map(|line| {
            line.strip_prefix("selvedge_control_plane_compile_duration_seconds_sum ")?.trim().parse().ok()
        });
        Ok(Duration::from_secs_f64(sum.context("no metric says how long compiling takes")?))
    }

    /// Until the control plane has nothing to do; for a moment only, where proxies see to it that it always has.
    async fn rest(&self) -> anyhow::Result<()> {
        let pid = self.pid()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let before = cpu(&[pid])?;
            tokio::time::sleep(REST).await;
            if self.is_restless || cpu(&[pid])?.saturating_sub(before) <= IDLE {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "after {LIMIT:?} the control plane is still busy");
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Looks until `what` is so.
async fn until(what: &str, so: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !so().await? {
        ensure!(Instant::now() < deadline, "after {LIMIT:?} it is not so that {what}");
        tokio::time::sleep(GLANCE).await;
    }
    Ok(())
}
