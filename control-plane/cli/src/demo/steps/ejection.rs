//! Step 4: an app dies under load; its endpoint is ejected and no caller notices; it comes back.

use std::time::Instant;

use selvedge_demo::{load::Load, wait, workload::Workload};
use serde_json::Value;

use super::{
    super::{FRONTEND, SOON},
    Demo, Observed, failures,
};

pub(super) const NAME: &str = "one v1 app killed under load, and restarted";
pub(super) const DOING: &str = "killing an app under load";

const VICTIM: &str = "reviews-v1-a";

/// Requests per second.
const PACE: f64 = 300.0;

/// Answers that show that the app is back.
const ANSWERS_AGAIN: u64 = 20;

pub(super) fn expected(_: &Demo) -> String {
    "no request fails; the frontend's sidecar ejects the app's endpoint, and uses it again after its restart"
        .to_owned()
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    let load = demo.plan().keys(&["pod"]).pace(PACE).start();
    let outcome = kill_and_restart(demo, &load).await;
    let report = load.stop().await;
    demo.totals.add(&report);
    let words = outcome?;
    Ok(Observed { words: format!("{words}; {}", failures(&report)), passed: report.failed() == 0 })
}

async fn kill_and_restart(demo: &mut Demo, load: &Load) -> anyhow::Result<String> {
    answers_from_victim(load, 0).await?;
    let killed = Instant::now();
    demo.cluster.kill_app(VICTIM).await?;
    ejected(demo.cluster.workload(FRONTEND), true).await?;
    let out = killed.elapsed();

    let restarted = Instant::now();
    demo.cluster.start_app(VICTIM)?;
    demo.cluster.app_listens(VICTIM).await?;
    let before = load.look(|report| report.count("pod", VICTIM));
    ejected(demo.cluster.workload(FRONTEND), false).await?;
    answers_from_victim(load, before).await?;
    Ok(format!(
        "ejected {:.2} s after the kill, serving again {:.2} s after the restart",
        out.as_secs_f64(),
        restarted.elapsed().as_secs_f64()
    ))
}

async fn answers_from_victim(load: &Load, before: u64) -> Result<(), wait::TooLate> {
    wait::until(SOON, &format!("{ANSWERS_AGAIN} answers from {VICTIM}"), async || {
        let seen = load.look(|report| report.count("pod", VICTIM)) - before;
        if seen >= ANSWERS_AGAIN { Ok(()) } else { Err(format!("{seen} answers")) }
    })
    .await
}

/// Waits until the frontend's sidecar shows the victim's endpoint as ejected, or as not.
async fn ejected(frontend: &Workload, wanted: bool) -> Result<(), wait::TooLate> {
    let what = format!("{VICTIM} is {}ejected", if wanted { "" } else { "no longer " });
    wait::until(SOON, &what, async || {
        let endpoints = frontend.admin_json("/endpoints").await.map_err(|error| error.to_string())?;
        let victims = endpoints.as_array().into_iter().flatten().filter(|endpoint| is_victim(endpoint));
        let states: Vec<bool> = victims.map(|endpoint| endpoint["ejected"] == true).collect();
        if !states.is_empty() && states.contains(&true) == wanted {
            Ok(())
        } else {
            Err(endpoints.to_string())
        }
    })
    .await
}

fn is_victim(endpoint: &Value) -> bool {
    endpoint["workload"] == format!("default/{VICTIM}")
}
