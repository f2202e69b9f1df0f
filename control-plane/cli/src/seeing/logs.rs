//! `selvedge logs`: what a sidecar or the control plane logs, while it runs and for a while.

use std::{collections::BTreeSet, fmt::Write as _, process::ExitCode, time::Duration};

use selvedge_control_plane::status::LevelAnswer;
use selvedge_model::WorkloadName;
use serde::Serialize;

use super::{Answer, encoded, print};
use crate::{
    output::OutputArgs,
    replicas::{Answers, PlaceArgs, REPLICA_TIME},
};

/// The word for what is set when a daemon starts.
const CONFIGURED: &str = "configured";

/// Change what sidecars log while they run, or the control plane, for a while
///
/// When the time is over, each goes back to its own setting by itself.
///
/// Exit status: 0; 1 if no sidecar was told, some are too old, or a replica of the control plane does not answer; 2 if none does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// error, warn, info or debug; directives, such as info,selvedge_proxy=debug; or configured: its own setting. A released
    /// binary says no more with trace than with debug
    #[arg(value_name = "LEVEL", value_parser = level)]
    level: String,

    /// The workload whose sidecars are meant, or all of a namespace
    #[arg(value_name = "NAMESPACE/NAME|NAMESPACE/*", required_unless_present = "control_plane")]
    workload: Option<String>,

    /// The control plane itself is meant: each of its replicas
    #[arg(long, conflicts_with = "workload")]
    control_plane: bool,

    /// For how long, 24h at most
    #[arg(long = "for", value_name = "TIME", default_value = "10m", value_parser = time)]
    duration: Duration,

    #[command(flatten)]
    place: PlaceArgs,

    #[command(flatten)]
    output: OutputArgs,
}

fn level(text: &str) -> Result<String, String> {
    if text == CONFIGURED {
        return Ok(String::new());
    }
    selvedge_ops::logging::check(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time.as_secs() {
        1..=86_400 => Ok(time),
        _ => Err("it is 1s to 24h".to_owned()),
    }
}

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Done {
    /// What is logged now; empty = as it is set.
    filter: String,
    /// For so many seconds.
    seconds: u64,
    /// Workloads whose sidecars were told.
    told: BTreeSet<WorkloadName>,
    /// Those whose sidecars are too old.
    too_old: BTreeSet<WorkloadName>,
    /// Replicas of the control plane that log otherwise now.
    control_planes: usize,
    /// Replicas that could not be asked, and why.
    unknown: std::collections::BTreeMap<String, String>,
}

/// Changes the level.
///
/// # Errors
/// If what was done cannot be written.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let output = args.output;
    print(done(args), output)
}

async fn done(args: Args) -> anyhow::Result<Answer<Done>> {
    let Args { level, workload, duration, place, .. } = args;
    let seconds = duration.as_secs();
    let mut path = format!("/logs?seconds={seconds}&filter={}", encoded(&level));
    if let Some(workload) = &workload {
        let _ = write!(path, "&of={}", encoded(workload));
    }
    let Answers { told: answers, unknown } = place.ask::<LevelAnswer>(&path, REPLICA_TIME).await?;
    let mut done = Done { filter: level, seconds, unknown, ..Done::default() };
    for answer in answers.into_values() {
        done.told.extend(answer.told);
        done.too_old.extend(answer.too_old);
        done.control_planes += usize::from(answer.is_own);
    }
    done.too_old.retain(|name| !done.told.contains(name));
    let is_well = done.unknown.is_empty()
        && done.too_old.is_empty()
        && (!done.told.is_empty() || done.control_planes > 0);
    Ok(Answer { text: text(&done, workload.as_deref()), found: done, is_well, is_early: false })
}

fn text(done: &Done, workload: Option<&str>) -> String {
    let what = if done.filter.is_empty() { "what it is set to" } else { &done.filter };
    let time = humantime::format_duration(Duration::from_secs(done.seconds));
    let until = if done.filter.is_empty() { String::new() } else { format!(" for {time}") };
    let mut text = String::new();
    // A String takes whatever is written to it.
    for name in &done.told {
        let _ = writeln!(text, "{name}: its sidecar logs {what}{until}");
    }
    if done.control_planes > 0 {
        let replicas = match done.control_planes {
            1 => "1 replica".to_owned(),
            more => format!("{more} replicas"),
        };
        let _ = writeln!(text, "the control plane ({replicas}) logs {what}{until}");
    }
    for name in &done.too_old {
        let _ =
            writeln!(text, "{name}: its sidecar is too old to be told; ask its admin port (PUT /log-level)");
    }
    for (replica, why) in &done.unknown {
        let _ = writeln!(text, "{replica}: {why}");
    }
    if let Some(workload) = workload.filter(|_| done.told.is_empty() && done.too_old.is_empty()) {
        let _ =
            writeln!(text, "no sidecar of {workload} is connected; one that connects in this time is told");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_and_a_time_are_checked_before_anybody_is_asked() {
        assert_eq!(level("debug").as_deref(), Ok("debug"));
        assert_eq!(level("configured").as_deref(), Ok(""));
        assert!(level("x=loud").is_err() && level("debgu").is_err() && level("info,loud").is_err());
        assert!(time("10m").is_ok() && time("0s").is_err() && time("2days").is_err());
    }

    #[test]
    fn people_are_told_who_logs_what_and_how_long() {
        let told = ["shop/a".parse().unwrap()].into();
        let done = Done { filter: "debug".to_owned(), seconds: 600, told, ..Done::default() };

        assert_eq!(text(&done, Some("shop/a")), "shop/a: its sidecar logs debug for 10m\n");
        crate::documented::is_documented("logs", &done);
        let nobody = Done { filter: "debug".to_owned(), ..Done::default() };
        assert!(text(&nobody, Some("shop/a")).contains("no sidecar of shop/a is connected"));
    }
}
