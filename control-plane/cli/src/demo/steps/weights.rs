//! Step 3: weights change under load, without a restart.

use std::time::Duration;

use selvedge_demo::{load::Load, wait};

use super::{
    super::{SOON, statistics, statistics::Share, weights},
    Demo, Observed, failures,
};

pub(super) const NAME: &str = "weights edited to 50/50 while load runs";
pub(super) const DOING: &str = "editing the VirtualService under load";

/// Requests per second.
const PACE: f64 = 500.0;

/// Answers to see on either side of the change.
const ANSWERS: u64 = 1000;

pub(super) fn expected(_: &Demo) -> String {
    format!("10 % v2 before and 50 % after (4.5 σ, {ANSWERS} answers each); no restart; no request fails")
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    let running = demo.cluster.running();
    let load = demo.plan().keys(&["version"]).pace(PACE).start();
    answers(&load, ANSWERS).await?;
    let edit = load.began().elapsed();
    demo.cluster.edit(weights::FILE, |text| weights::edited(text, [50, 50]))?;
    let seen = change(&load, edit, 0.1..0.5).await;
    if seen.is_ok() {
        answers(&load, load.look(|report| report.requests) + ANSWERS).await?;
    }
    let report = load.stop().await;
    demo.totals.add(&report);

    let seen = seen?;
    let before = Share::of(&report.timeline, &(Duration::ZERO..edit), "v2");
    let after = Share::of(&report.timeline, &(seen..Duration::MAX), "v2");
    let restarted = demo.cluster.running() != running;
    Ok(Observed {
        words: format!(
            "v2 {before}, then {after}; in effect {} ms after the edit; {}{}",
            (seen - edit).as_millis(),
            failures(&report),
            if restarted { "; but processes were restarted" } else { "" }
        ),
        passed: before.agrees_with(0.1) && after.agrees_with(0.5) && report.failed() == 0 && !restarted,
    })
}

/// Waits for so many answers in all.
pub(super) async fn answers(load: &Load, requests: u64) -> Result<(), wait::TooLate> {
    wait::until(SOON, &format!("{requests} answers"), async || {
        let seen = load.look(|report| report.requests);
        if seen >= requests { Ok(()) } else { Err(format!("{seen} answers")) }
    })
    .await
}

/// Waits until callers see v2's share change, and says when it did.
pub(super) async fn change(
    load: &Load,
    from: Duration,
    weights: std::ops::Range<f64>,
) -> Result<Duration, wait::TooLate> {
    wait::until(SOON, "the new weights are in effect", async || {
        load.look(|report| statistics::changed(&report.timeline, from, "v2", weights.clone()))
            .ok_or("the old weights still")
    })
    .await
}
