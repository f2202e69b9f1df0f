//! The soak: a mesh at moderate load for as long as wanted, while its parts are killed, cut off and edited.
//!
//! It looks for what short tests cannot see: memory and descriptors that grow, and requests that fail outside
//! the rule. The rule: a GET never fails, since another endpoint is always there to try; a request with a body
//! fails only with a reason that its fault explains, and seldom.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use selvedge_demo::cluster::Cluster;
use selvedge_demo::documents;
use selvedge_demo::load::Plan;
use selvedge_demo::workload::Spec;

use self::faults::Faults;
use self::traffic::Traffic;
use self::watch::Watch;

mod faults;
mod traffic;
mod watch;

/// Who asks, and who answers.
const CALLER: &str = "caller";
const SERVERS: [&str; 2] = ["reviews-a", "reviews-b"];
const AUTHORITY: &str = "reviews:9080";

/// How often memory and descriptors are looked at.
const LOOK: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
    /// GETs per second, beside uploads, cut connections and slow clients.
    #[arg(long, default_value_t = 300.0)]
    rate: f64,
    /// Print every look at memory and descriptors as one JSON object in the end.
    #[arg(long)]
    json: bool,
    /// The `selvedge` binary; by default the one beside this binary.
    #[arg(long)]
    selvedge: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(soak(args))
}

async fn soak(args: &Args) -> anyhow::Result<()> {
    let duration =
        Duration::try_from_secs_f64(args.minutes * 60.0).context("--minutes is no length of time")?;
    let binary = match &args.selvedge {
        Some(given) => given.clone(),
        None => std::env::current_exe()?.with_file_name("selvedge"),
    };
    let (mut cluster, mut exits) = Cluster::create(&binary, None)?;
    cluster.write("service.yaml", &documents::service("reviews", "default", 9080))?;
    faults::write_route(&cluster, 0)?;
    cluster.start_control_plane().await?;
    let servers = SERVERS.map(|name| Spec::server(name, "reviews", 9080));
    cluster.add(servers.into_iter().chain([Spec::client(CALLER)])).await?;

    let outbound = cluster.workload(CALLER).outbound;
    let mut watch = Watch::of(&cluster);
    let gets = Plan::new(outbound, AUTHORITY).connections(16).pace(args.rate).start();
    let traffic = Traffic::start(outbound);
    let mut faults = Faults::default();
    let began = Instant::now();
    let mut next_look = began;
    while began.elapsed() < duration {
        if Instant::now() >= next_look {
            next_look += LOOK;
            let (asked, failed) = gets.look(|report| (report.requests, report.failed()));
            watch.look(began.elapsed(), asked, failed)?;
        }
        tokio::select! {
            fault = faults.next(&mut cluster, began.elapsed()) => fault?,
            exit = exits.next() => return Err(exit.into()),
            () = tokio::time::sleep_until(next_look.into()) => {}
        }
    }
    faults.repair(&mut cluster).await?;
    let gets = gets.stop().await;
    let traffic = traffic.stop().await;

    println!("{faults}");
    println!("GET: {}; p99 {:?}", gets.summary(), gets.quantile(0.99));
    gets.failures.iter().for_each(|failure| println!("  {failure}"));
    println!("{traffic}");
    println!("{watch}");
    if args.json {
        println!("{}", serde_json::to_string(&watch)?);
    }
    let mut wrong = watch.leaks();
    if gets.failed() > 0 {
        wrong.push(format!("{} GETs failed", gets.failed()));
    }
    wrong.extend(traffic.outside_the_rule());
    ensure!(wrong.is_empty(), "the soak failed:\n  {}", wrong.join("\n  "));
    println!("no leak, and no error outside the rule");
    Ok(())
}
