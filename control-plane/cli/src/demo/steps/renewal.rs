//! Step 7: a short-lived certificate is renewed under load, and outlived.

use std::time::{Duration, SystemTime};

use selvedge_certs::verify::Peer;
use selvedge_demo::{load::Load, wait};

use super::{
    super::{V2, mesh_client},
    Demo, Observed, failures,
    strict::credentials,
    weights::answers,
};

pub(super) const NAME: &str = "a 10 s certificate renewed under load";
pub(super) const DOING: &str =
    "restarting v2's sidecar with short-lived certificates, and waiting for one to expire";

/// Requests per second.
const PACE: f64 = 200.0;

/// Longer than the certificate lives.
const LIMIT: Duration = Duration::from_secs(30);

/// The certificate's end, in seconds since 1970, as the sidecar's metrics say it.
const METRIC: &str = "selvedge_certificate_expiry_timestamp_seconds";

pub(super) fn expected(_: &Demo) -> String {
    "v2's sidecar has a new certificate before the old one expires, in its metrics and in TLS handshakes; traffic \
     goes on after that; no request fails"
        .to_owned()
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    demo.cluster.restart_sidecar(V2, &[("--certificate-ttl", "10s")]).await?;
    let load = demo.plan().header("end-user", "jason").keys(&["version"]).pace(PACE).start();
    let outcome = outlive(demo, &load).await;
    let report = load.stop().await;
    demo.totals.add(&report);

    let Renewal { first, second, renewed, metric_moved } = outcome?;
    let early = first.not_after.duration_since(renewed).unwrap_or_default();
    let longer = second.not_after.duration_since(first.not_after).unwrap_or_default();
    let all_v2 = report.count("version", "v2") == report.requests;
    Ok(Observed {
        words: format!(
            "a new certificate {:.1} s before the old one expired, valid for {:.1} s more; {}",
            early.as_secs_f64(),
            longer.as_secs_f64(),
            failures(&report)
        ),
        passed: !early.is_zero() && !longer.is_zero() && metric_moved && all_v2 && report.failed() == 0,
    })
}

struct Renewal {
    first: Peer,
    second: Peer,
    /// When the second was seen.
    renewed: SystemTime,
    metric_moved: bool,
}

async fn outlive(demo: &Demo, load: &Load) -> anyhow::Result<Renewal> {
    let credentials = credentials(demo, None)?;
    let sidecar = demo.cluster.workload(V2);
    let metric = sidecar.metric(METRIC).await?;
    let first = mesh_client::certificate(sidecar.inbound, &credentials).await?;
    let second = wait::until(LIMIT, "another certificate on the wire", async || {
        let peer = mesh_client::certificate(sidecar.inbound, &credentials).await?;
        if peer.not_after > first.not_after { Ok(peer) } else { Err(anyhow::anyhow!("the first one still")) }
    });
    let second = second.await?;
    let renewed = SystemTime::now();
    let metric_moved = metric.is_some() && sidecar.metric(METRIC).await? > metric;

    wait::until(LIMIT, "the first certificate has ended", async || {
        if SystemTime::now() > first.not_after { Ok(()) } else { Err("not yet") }
    })
    .await?;
    // A second of answers that no connection of the first certificate's can have carried.
    answers(load, load.look(|report| report.requests) + 200).await?;
    Ok(Renewal { first, second, renewed, metric_moved })
}
