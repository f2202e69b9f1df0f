//! What a collector of OpenTelemetry's is sent: spans, and lines of the access log.
//!
//! All of it happens on the control thread, about once a second. A collector that is dead or slow costs what waits for it: it
//! is tried twice, and then given up and counted.

mod collector;
mod otlp;
mod send;

use std::{sync::Arc, time::Duration};

use selvedge_model::WorkloadName;
use selvedge_ops::Resolver;
use tokio::time::sleep;

pub use self::collector::{Collector, Protocol};
use self::send::{Link, Parcel};
use crate::{
    discovery::Store,
    joining::Complaint,
    telemetry::{Told, Watched},
};

/// How many requests one message tells of.
const AT_ONCE: usize = 512;
/// How long it is waited before what was not taken is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is needed to send.
#[derive(Debug)]
pub struct Exporter {
    /// Where to; `None`: nothing is sent.
    pub collector: Option<Collector>,
    /// By which protocol.
    pub protocol: Protocol,
    /// Who we are.
    pub workload: WorkloadName,
    /// Knows more of that.
    pub store: Arc<Store>,
    /// Has what is to be sent.
    pub watched: Arc<Watched>,
    /// Knows where the collector is.
    pub resolver: Arc<Resolver>,
}

/// Sends for as long as it is polled.
pub async fn run(exporter: Exporter) {
    let Exporter { collector, protocol, workload, store, watched, resolver } = exporter;
    let Some(collector) = collector else { return std::future::pending().await };
    let mut link = Link::new(collector, protocol, resolver);
    let mut complaint = Complaint::new("spans and lines for the collector are lost (--otlp-endpoint)");
    loop {
        let told = watched.outbox.next().await;
        let own = store.table().own.clone();
        let resource = otlp::resource(&workload, own.as_deref());
        for some in told.chunks(AT_ONCE) {
            for parcel in parcels(some, &resource) {
                let (spans, lines) = parcel.counts();
                match deliver(&mut link, &parcel).await {
                    Ok(rejected) => {
                        if !complaint_of(rejected, &mut complaint) {
                            complaint.settle();
                        }
                        // What it has taken, but for what it says that it has not.
                        let left = |count: u64| count.min(rejected);
                        watched.outbox.sent(spans - left(spans), lines - left(lines));
                        watched.outbox.lost(left(spans), left(lines));
                    }
                    Err(error) => {
                        complaint.raise(&error);
                        watched.outbox.lost(spans, lines);
                    }
                }
            }
        }
    }
}

fn complaint_of(rejected: u64, complaint: &mut Complaint) -> bool {
    if rejected > 0 {
        complaint.raise(&"it rejects some of them");
    }
    rejected > 0
}

/// What `told` is in OpenTelemetry's words: spans and lines apart.
fn parcels(told: &[Told], resource: &otlp::Resource) -> Vec<Parcel> {
    let spans: Vec<_> = told.iter().flat_map(|told| otlp::spans(&told.finished)).collect();
    let lines = told.iter().filter(|told| told.is_line).map(|told| otlp::line(&told.finished));
    let lines: Vec<_> = lines.collect();
    let mut parcels = Vec::new();
    if !spans.is_empty() {
        parcels.push(Parcel::spans(resource.clone(), spans));
    }
    if !lines.is_empty() {
        parcels.push(Parcel::lines(resource.clone(), lines));
    }
    parcels
}

/// Sends it, and once more if that fails. Returns how many the collector has rejected.
async fn deliver(link: &mut Link, parcel: &Parcel) -> Result<u64, String> {
    match link.send(parcel).await {
        Ok(rejected) => Ok(rejected),
        Err(error) if error.is_final => Err(error.what),
        Err(_) => {
            sleep(PAUSE).await;
            link.send(parcel).await.map_err(|error| error.what)
        }
    }
}
