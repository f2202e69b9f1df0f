//! `selvedge demo`: a whole mesh on loopback, and seven things that it does, each shown and checked.
//!
//! Real processes, real certificates, real YAML: the demo drives them from outside, by files, sockets and
//! signals, and trusts only what it sees there. The steps run in order on one mesh, as a day in its life.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use selvedge_demo::{
    cluster::Cluster,
    load::{Plan, Report},
    processes::Exits,
    workload::Spec,
};
use tokio::signal::unix::{SignalKind, signal};

mod latency;
mod mesh_client;
mod report;
mod statistics;
mod steps;
mod weights;

use report::{Output, Summary, progress};

/// The workload that asks.
const FRONTEND: &str = "frontend";

/// Whom it asks.
const REVIEWS: &str = "reviews:9080";

/// The version on its way in, and its one workload.
const V2: &str = "reviews-v2";

/// Run a whole mesh on loopback, in seven steps, and check each of them
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print only one JSON object on standard output, at the end
    #[arg(long)]
    json: bool,

    /// How many requests the first step sends; later steps send as many as they need
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(200..=10_000_000))]
    requests: u64,

    /// Leave the mesh running at the end, and print its addresses
    #[arg(long)]
    keep: bool,

    /// A directory for the processes' logs; default: the logs are thrown away
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

/// Runs the demo.
///
/// # Errors
/// If a step failed, if a process ended that should not have, or if the mesh could not be set up.
pub fn run(args: Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(demonstrate(args))
}

/// The mesh, and what was counted in it.
struct Demo {
    cluster: Cluster,
    voice: Output,
    requests: u64,
    /// Everything that was sent through the mesh, by all steps.
    totals: Report,
}

impl Demo {
    /// What the frontend sends to `reviews`, through its sidecar.
    fn plan(&self) -> Plan {
        Plan::new(self.cluster.workload(FRONTEND).outbound, REVIEWS)
    }
}

async fn demonstrate(args: Args) -> anyhow::Result<()> {
    let voice = Output::new(args.json);
    let began = Instant::now();
    let binary = std::env::current_exe().context("cannot find this program's own file")?;
    let (cluster, mut exits) = Cluster::create(&binary, args.logs.as_deref())?;
    let mut demo = Demo { cluster, voice, requests: args.requests, totals: Report::default() };
    let mut summary = Summary::default();

    let outcome = unless_it_ends_early(&mut exits, play(&mut demo, &mut summary)).await;
    summary.error = outcome.as_ref().err().map(|error| format!("{error:#}"));
    summary.passed = outcome.is_ok() && summary.steps.iter().all(|step| step.passed);
    summary.requests = demo.totals.requests;
    summary.succeeded = demo.totals.ok;
    summary.seconds = began.elapsed().as_secs_f64();
    voice.summary(&summary)?;
    outcome?;
    if args.keep {
        voice.say(&addresses(&demo.cluster))?;
        unless_it_ends_early(&mut exits, std::future::pending()).await?;
    }
    let failed: Vec<_> = summary.steps.iter().filter(|step| !step.passed).map(|step| step.name).collect();
    if !failed.is_empty() {
        bail!("not as expected: {}", failed.join("; "));
    }
    Ok(())
}

/// Does `what`, unless a process ends that nobody ended, or somebody ends us.
async fn unless_it_ends_early(
    exits: &mut Exits,
    what: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        biased;
        exit = exits.next() => Err(exit.into()),
        _ = interrupt.recv() => bail!("interrupted; every process of the mesh is stopped"),
        _ = terminate.recv() => bail!("terminated; every process of the mesh is stopped"),
        _ = hangup.recv() => bail!("the terminal was closed; every process of the mesh is stopped"),
        outcome = what => outcome,
    }
}

async fn play(demo: &mut Demo, summary: &mut Summary) -> anyhow::Result<()> {
    set_up(demo).await?;
    steps::run_all(demo, &mut summary.steps).await?;
    progress("measuring what a pair of sidecars adds to a direct call");
    let measured = latency::measure(demo).await?;
    (summary.direct, summary.pair) = (measured.direct, measured.pair);
    summary.added = measured.pair.beyond(measured.direct);
    Ok(())
}

/// A control plane on the canary example's YAML, a frontend, two `reviews` v1 and one v2.
async fn set_up(demo: &mut Demo) -> anyhow::Result<()> {
    let began = Instant::now();
    let cluster = &mut demo.cluster;
    cluster.write_canary()?;
    cluster.start_control_plane().await?;
    progress(&format!("control plane on {}", cluster.control_plane_address()));
    cluster
        .add([
            Spec::frontend(FRONTEND),
            Spec::reviews("reviews-v1-a", "v1"),
            Spec::reviews("reviews-v1-b", "v1"),
            Spec::reviews(V2, "v2"),
        ])
        .await?;
    let took = began.elapsed();
    for workload in cluster.workloads() {
        progress(&format!("{} on {}, with its own sidecar", workload.spec.name, workload.app.ip()));
    }
    progress(&format!("ready after {:.1} s\n", took.as_secs_f64()));
    Ok(())
}

/// Where everything is, for whoever wants to go on by hand.
fn addresses(cluster: &Cluster) -> String {
    let mut text = format!("\nconfiguration   {} (edit it)\n", cluster.config_dir().display());
    writeln!(text, "control plane   {}", cluster.control_plane_address()).expect("a String grows");
    writeln!(text, "dashboard       http://{}/dashboard/overview", cluster.control_plane_admin_address())
        .expect("a String grows");
    for workload in cluster.workloads() {
        let (name, app, outbound, admin) =
            (&workload.spec.name, workload.app, workload.outbound, workload.admin);
        writeln!(text, "{name:<15} app {app}, outbound {outbound}, admin http://{admin}/endpoints")
            .expect("a String grows");
    }
    let outbound = cluster.workload(FRONTEND).outbound;
    write!(text, "try             curl -H 'host: {REVIEWS}' http://{outbound}/\nCtrl-C stops everything.")
        .expect("a String grows");
    text
}

/// How long to go on asking for a state that must come.
const SOON: Duration = Duration::from_secs(15);
