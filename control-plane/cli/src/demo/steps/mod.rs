//! The seven steps, in their order: each says what must be seen, does something, and looks.

use selvedge_demo::load::Report;

use super::{
    Demo,
    report::{Step, progress},
};

mod canary;
mod control_plane_away;
mod ejection;
mod header;
mod renewal;
mod strict;
mod weights;

/// What a step saw.
struct Observed {
    words: String,
    passed: bool,
}

/// Runs all steps. One that fails does not keep the next from being tried.
///
/// # Errors
/// If a verdict cannot be printed.
pub(super) async fn run_all(demo: &mut Demo, verdicts: &mut Vec<Step>) -> anyhow::Result<()> {
    macro_rules! steps {
        ($($step:ident),*) => {$(
            progress($step::DOING);
            let expected = $step::expected(demo);
            let observed = $step::run(demo).await;
            let observed = observed.unwrap_or_else(|error| Observed { words: format!("{error:#}"), passed: false });
            let Observed { words, passed } = observed;
            let step = Step { name: $step::NAME, expected, observed: words, passed };
            demo.voice.step(verdicts.len() + 1, &step)?;
            verdicts.push(step);
        )*};
    }
    steps!(canary, header, weights, ejection, strict, control_plane_away, renewal);
    Ok(())
}

/// The sentence about failures that every step under load ends with.
fn failures(report: &Report) -> String {
    match report.failures.first() {
        None => format!("{} requests, none failed", report.requests),
        Some(first) => {
            format!("{} requests, {} failed (first {first})", report.requests, report.failed())
        }
    }
}
