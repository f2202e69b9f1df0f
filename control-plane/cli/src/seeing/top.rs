//! `selvedge top`: what `selvedge stat` shows, again and again, of the last seconds.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use tokio::time::sleep;

use super::{
    filter::FilterArgs,
    stat::{By, Report},
};
use crate::{cluster, output::OutputArgs, patience::patiently, replicas::PlaceArgs};

/// Of how many seconds it is: as few as the control plane tells apart.
const SECONDS: u64 = 15;

/// Show how requests and connections do now, the busiest first, again and again
///
/// While it runs, sidecars report every second. It is of the last 15 to 30 seconds. With -o json each line is one JSON object.
///
/// Exit status: 0; 2 if the control plane does not answer.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: PlaceArgs,

    /// What a row stands for
    #[arg(long, value_enum, value_name = "WHAT", default_value = "service")]
    by: By,

    #[command(flatten)]
    filter: FilterArgs,

    /// How long to wait before it is shown again
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    every: Duration,

    /// End after it was shown so often
    #[arg(long, value_name = "NUMBER")]
    max: Option<u64>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Prints again and again.
///
/// # Errors
/// If it cannot be written.
#[allow(clippy::needless_pass_by_value)] // the shape of every subcommand
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    match cluster::runtime()?.block_on(watch(&args)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if crate::is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            Ok(ExitCode::from(2))
        }
    }
}

async fn watch(args: &Args) -> anyhow::Result<()> {
    let mut shown = 0;
    loop {
        let traffic = patiently(args.place.traffic_now(SECONDS)).await?;
        let mut report = Report::of(&traffic, args.by, &args.filter);
        report.sort_by_load();
        let mut out = io::stdout().lock();
        if args.output.is_json() {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            // From the top, over what was there.
            let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
            write!(out, "{clear}{}", report.to_text())?;
        }
        out.flush()?;
        drop(out);
        shown += 1;
        if args.max.is_some_and(|max| shown >= max) {
            return Ok(());
        }
        // As often as sidecars report, at the most.
        sleep(args.every.max(Duration::from_secs(1))).await;
    }
}
