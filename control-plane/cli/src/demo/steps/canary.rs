//! Step 1: weights hold, and every answer came over mutual TLS.

use selvedge_demo::{apps::frontend::Page, call};

use super::{super::statistics::Share, Demo, Observed, failures};
use crate::demo::{FRONTEND, SOON};

pub(super) const NAME: &str = "canary: 90 % to v1, 10 % to v2, over mutual TLS";
pub(super) const DOING: &str = "sending requests through the frontend's sidecar";

/// The frontend's identity, as the servers' sidecars must have proven it.
const IDENTITY: &str = "spiffe://cluster.local/ns/default/sa/frontend";

pub(super) fn expected(demo: &Demo) -> String {
    let all = Share { part: 0, whole: demo.requests };
    format!(
        "v2 answers {:.0} ± {:.0} of {} (4.5 σ); no request fails; each server saw {IDENTITY}",
        demo.requests as f64 * 0.1,
        all.tolerance(0.1),
        demo.requests
    )
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    let page = page(demo).await?;
    let report = demo.plan().keys(&["version", "client_identity"]).requests(demo.requests).run().await;
    demo.totals.add(&report);

    let v2 = Share { part: report.count("version", "v2"), whole: report.requests };
    let proven = report.count("client_identity", IDENTITY);
    let page_proven = page.reviews.is_some_and(|answer| answer.client_identity.as_deref() == Some(IDENTITY));
    Ok(Observed {
        words: format!("v2 answered {v2}; {}; {proven} answers over mutual TLS", failures(&report)),
        passed: v2.agrees_with(0.1) && report.failed() == 0 && proven == report.requests && page_proven,
    })
}

/// One page of the frontend app itself: an app that knows nothing of the mesh, calling another.
async fn page(demo: &Demo) -> anyhow::Result<Page> {
    let app = demo.cluster.workload(FRONTEND).app;
    let answer = call::send(app, call::to("frontend:8080", "/").timeout(SOON)).await?;
    let page: Page = answer.json()?;
    match page.error {
        None => Ok(page),
        Some(error) => anyhow::bail!("the frontend has no reviews: {error}"),
    }
}
