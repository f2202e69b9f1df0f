//! `selvedge top`: what `selvedge stat` shows, again and again, of the last seconds.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use rustix::termios::tcgetwinsize;
use tokio::time::sleep;

use super::{
    again::Answering,
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
/// If the control plane goes away, as when it restarts, that is said on standard error, and it goes on when it is back. With --max
/// it is waited for 45 seconds at most.
///
/// Exit status: 0 after --max; 2 if the control plane does not answer when it is asked first, or with --max for 45 seconds; 130 by
/// Ctrl-C.
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

async fn look(args: &Args) -> anyhow::Result<Report> {
    let traffic = args.place.traffic_now(SECONDS).await?;
    let report = Report::of(&traffic, args.by, &args.filter);
    report.explained(&args.place, &traffic, &args.filter).await
}

async fn watch(args: &Args) -> anyhow::Result<()> {
    let (mut shown, mut answering) = (0, Answering::new(args.max.is_some()));
    loop {
        let answer = patiently(look(args)).await;
        let Some(mut report) = answering.heard(answer, None).await? else { continue };
        report.sort_by_load();
        let mut out = io::stdout().lock();
        if args.output.is_json() {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            let text = report.to_text();
            match tcgetwinsize(&out) {
                // From the top, over what was there.
                Ok(size) => {
                    write!(out, "\x1b[H\x1b[2J{}", within(&text, size.ws_col.into(), size.ws_row.into()))?
                }
                Err(_) => write!(out, "{text}")?,
            }
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

/// As many lines of `text` as a terminal of `width` and `height` shows without scrolling, with how many are missing. It is all of
/// it if the terminal does not know how large it is.
fn within(text: &str, width: usize, height: usize) -> String {
    let rows = |line: &str| line.chars().count().div_ceil(width.max(1)).max(1);
    // The last row is where the cursor stands.
    let is_whole = text.lines().map(rows).sum::<usize>() < height;
    if is_whole || width == 0 || height < 3 {
        return text.to_owned();
    }
    let mut left = height - 2;
    let has_room = |&line: &&str| {
        let rows = rows(line);
        let has_room = rows <= left;
        left = left.saturating_sub(rows);
        has_room
    };
    let shown: Vec<&str> = text.lines().take_while(has_room).collect();
    let more = text.lines().count() - shown.len();
    format!("{}\n{more} lines more: selvedge stat shows all\n", shown.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_stay_on_the_screen() {
        let text = "HEAD\nbusiest\nbusy\nlazy\n";

        assert_eq!(within(text, 80, 5), text);
        let cut = "HEAD\nbusiest\n2 lines more: selvedge stat shows all\n";
        assert_eq!(within(text, 80, 4), cut);
        assert_eq!(within(text, 4, 5), cut, "the second takes two rows");
        assert_eq!(within(text, 0, 0), text, "nobody knows how large it is");
    }
}
