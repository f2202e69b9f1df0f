//! `selvedge dashboard`: opens the pages in a browser.

use std::{
    collections::BTreeMap,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    process::{Command, ExitCode, Stdio},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use selvedge_control_plane::status::Summary;
use selvedge_kubernetes::Client;
use selvedge_ops::admin;

use super::{
    facts::Facts,
    serve::{Source, routes},
    told::{Told, Wanted},
};
use crate::replicas::{Answers, PlaceArgs, REPLICA_TIME, ask_admin, ask_replicas_soon};

/// How long a page waits for other replicas once one has answered.
const LINGER: Duration = Duration::from_secs(2);
/// The same for one that has lately not answered.
const LINGER_OF_SILENT: Duration = Duration::from_millis(200);
/// After so long one that has not answered is waited for as any other again: it may just be slower than the first.
const LATELY: Duration = Duration::from_secs(30);

/// Open the dashboard: pages that show how the mesh does
///
/// In a cluster it serves the pages on a port of this host's loopback, of what all replicas of the control plane know, until
/// Ctrl-C. With --admin they are those of a control plane on this host. Whoever uses this host can see them meanwhile.
///
/// Exit status: 0; 2 if no control plane answers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    /// The port of this host where the pages of a cluster are served; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, conflicts_with = "admin")]
    port: u16,

    /// Only print where the pages are, and start no browser
    #[arg(long)]
    no_browser: bool,
}

/// Shows where the pages are, and in a cluster serves them.
///
/// # Errors
/// If where they are cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let opened = match args.place.admin {
        Some(admin) => runtime.block_on(of_host(&args, admin)),
        None => runtime.block_on(of_cluster(&args)),
    };
    match opened {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if crate::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

/// The control plane's own pages.
async fn of_host(args: &Args, admin: SocketAddr) -> anyhow::Result<()> {
    ask_admin::<Summary>(admin, "/status", REPLICA_TIME).await?;
    show(args, &format!("http://{admin}/dashboard/overview"))
}

/// Pages of what all replicas know.
async fn of_cluster(args: &Args) -> anyhow::Result<()> {
    let client = args.place.connect().await?;
    let namespace = args.place.cluster.namespace.clone();
    let source = Replicas { client, namespace, silent: Mutex::default() };
    source.look(Wanted { since: 60, matrix: false, often: false }).await.map_err(anyhow::Error::msg)?;
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, args.port))
        .with_context(|| format!("port {} of this host", args.port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    show(args, &format!("http://{address}/dashboard/overview"))?;
    eprintln!("it is served until Ctrl-C");
    let serving = admin::serve(listener, admin::for_this_host(routes(source)));
    tokio::select! {
        ended = serving => match ended { Err(error) => Err(error.into()) },
        interrupted = tokio::signal::ctrl_c() => Ok(interrupted?),
    }
}

fn show(args: &Args, url: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{url}")?;
    out.flush()?;
    if !args.no_browser {
        let mut browser = Command::new("xdg-open");
        // There may be none: where the pages are has been said.
        let _ = browser.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    }
    Ok(())
}

/// All replicas of the control plane in a cluster.
struct Replicas {
    client: Client,
    namespace: String,
    /// Those that have not answered, and until when they are waited for less.
    silent: Mutex<BTreeMap<String, Instant>>,
}

impl Source for Replicas {
    async fn look(&self, wanted: Wanted) -> Result<Facts, String> {
        let Wanted { since, matrix, often } = wanted;
        let path = format!("/dashboard/facts?since={since}&matrix={matrix}&often={often}");
        let silent = self.silent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let asked = Instant::now();
        let is_silent = |pod: &str| silent.get(pod).is_some_and(|until| *until > asked);
        let linger = |pod: &str| if is_silent(pod) { LINGER_OF_SILENT } else { LINGER };
        let answers =
            ask_replicas_soon::<Told>(&self.client, &self.namespace, &path, REPLICA_TIME, linger).await;
        let until =
            |pod: &String| silent.get(pod).copied().filter(|until| *until > asked).unwrap_or(asked + LATELY);
        *self.silent.lock().unwrap_or_else(PoisonError::into_inner) = answers
            .iter()
            .filter(|(_, answer)| answer.is_err())
            .map(|(pod, _)| (pod.clone(), until(pod)))
            .collect();
        let Answers { told, unknown } =
            Answers::of(answers, &self.namespace).map_err(|error| error.to_string())?;
        Ok(Facts::of(wanted, told.into_iter().collect(), unknown, true))
    }
}
