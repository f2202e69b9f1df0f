//! Step 2: a header routes.

use super::{Demo, Observed, failures};

pub(super) const NAME: &str = "routing by header: end-user jason sees v2, always";
pub(super) const DOING: &str = "sending requests as jason";

pub(super) fn expected(demo: &Demo) -> String {
    format!("{0} of {0} answers from v2", requests(demo))
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    let plan = demo.plan().header("end-user", "jason").keys(&["version"]);
    let report = plan.requests(requests(demo)).run().await;
    demo.totals.add(&report);
    let v2 = report.count("version", "v2");
    Ok(Observed {
        words: format!("{v2} of {} answers from v2; {}", report.requests, failures(&report)),
        passed: v2 == requests(demo) && report.failed() == 0,
    })
}

fn requests(demo: &Demo) -> u64 {
    demo.requests / 4
}
