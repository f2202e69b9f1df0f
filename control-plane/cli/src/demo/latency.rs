//! What a pair of sidecars adds: calls to one app, in turn directly and through the mesh.
//!
//! In turn, and within one run, because on a busy machine only such a comparison means anything.

use selvedge_demo::load::{Plan, Report};

use super::{Demo, V2, report::Latency};

/// How often the two ways take turns.
const ROUNDS: u64 = 10;

/// Requests of one way in one round: so many that the first of each connection, which waits for it to be
/// made, is less than one in a hundred.
const REQUESTS: u64 = 400;

/// Requests in progress at once: enough to keep connections busy, too few to queue.
const CONNECTIONS: usize = 2;

/// Both ways.
pub(super) struct Latencies {
    /// To the app itself.
    pub(super) direct: Latency,
    /// Through its caller's sidecar and its own.
    pub(super) pair: Latency,
}

/// Calls `reviews` v2 both ways.
pub(super) async fn measure(demo: &mut Demo) -> anyhow::Result<Latencies> {
    let app = demo.cluster.workload(V2).app;
    let (mut direct, mut pair) = (Report::default(), Report::default());
    for _ in 0..ROUNDS {
        direct.add(&sent(Plan::new(app, super::REVIEWS)).await?);
        // The header that routes to v2, so that both ways end at the same app.
        pair.add(&sent(demo.plan().header("end-user", "jason")).await?);
    }
    demo.totals.add(&pair);
    Ok(Latencies { direct: latency(&direct), pair: latency(&pair) })
}

async fn sent(plan: Plan) -> anyhow::Result<Report> {
    let report = plan.connections(CONNECTIONS).requests(REQUESTS).run().await;
    anyhow::ensure!(report.failed() == 0, "while latencies were measured: {}", report.summary());
    Ok(report)
}

fn latency(report: &Report) -> Latency {
    let micros = |quantile| u64::try_from(report.quantile(quantile).as_micros()).unwrap_or(u64::MAX);
    Latency { p50_us: micros(0.5), p99_us: micros(0.99) }
}
