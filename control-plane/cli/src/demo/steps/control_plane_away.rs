//! Step 6: the control plane dies under load. Traffic goes on; a change made meanwhile arrives when it is back.

use std::time::Duration;

use selvedge_demo::load::Load;

use super::{
    super::{statistics::Share, weights},
    Demo, Observed, failures,
    weights::{answers, change},
};

pub(super) const NAME: &str = "control plane killed under load, and restarted";
pub(super) const DOING: &str = "killing the control plane under load";

/// Requests per second.
const PACE: f64 = 400.0;

/// Answers to see while it is away: two seconds and a half.
const ANSWERS: u64 = 1000;

pub(super) fn expected(_: &Demo) -> String {
    "no request fails; 50 % v2 while it is away, despite an edit; 90 % v2 once it is back".to_owned()
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    // As step 3 left it, whether that went well or not.
    demo.cluster.edit(weights::FILE, |text| weights::edited(text, [50, 50]))?;
    let load = demo.plan().keys(&["version"]).pace(PACE).start();
    answers(&load, ANSWERS / 5).await?;
    let outcome = kill_edit_restart(demo, &load).await;
    let report = load.stop().await;
    demo.totals.add(&report);

    let Moments { killed, back, seen } = outcome?;
    let away = Share::of(&report.timeline, &(killed..back), "v2");
    let after = Share::of(&report.timeline, &(seen..Duration::MAX), "v2");
    Ok(Observed {
        words: format!(
            "v2 {away} during {:.1} s without it, then {after}; the change arrived {} ms after its restart; {}",
            (back - killed).as_secs_f64(),
            (seen - back).as_millis(),
            failures(&report)
        ),
        passed: away.agrees_with(0.5) && after.agrees_with(0.9) && report.failed() == 0,
    })
}

/// Counted from the start of the load.
struct Moments {
    killed: Duration,
    /// Its new process was started.
    back: Duration,
    /// Callers saw the change.
    seen: Duration,
}

async fn kill_edit_restart(demo: &mut Demo, load: &Load) -> anyhow::Result<Moments> {
    let killed = load.began().elapsed();
    demo.cluster.kill_control_plane().await?;
    demo.cluster.edit(weights::FILE, |text| weights::edited(text, [10, 90]))?;
    answers(load, load.look(|report| report.requests) + ANSWERS).await?;

    let back = load.began().elapsed();
    demo.cluster.start_control_plane().await?;
    let seen = change(load, back, 0.5..0.9).await?;
    answers(load, load.look(|report| report.requests) + ANSWERS).await?;
    Ok(Moments { killed, back, seen })
}
