//! What a collector of OpenTelemetry's is sent: spans, and lines of the access log.
//!
//! All of it happens on the control thread, about once a second. A collector that is dead or slow costs what waits for it: it
//! is tried twice, and then given up and counted.

mod collector;
mod otlp;
mod send;

use std::{path::PathBuf, sync::Arc, time::Duration};

use prost::Message;
use selvedge_model::WorkloadName;
use selvedge_ops::Resolver;
use tokio::time::sleep;

pub use self::collector::{Collector, Protocol};
use self::send::{Link, Parcel, SendError};
use crate::{
    discovery::Store,
    joining::Complaint,
    telemetry::{Told, Watched},
};

/// How many requests are put into messages at once.
const AT_ONCE: usize = 512;
/// How large what one message tells of may be, in bytes. Collectors refuse more than 4 MiB over gRPC unless they are told
/// otherwise.
const LARGEST: usize = 2 << 20;
/// How long it is waited before what was not taken is sent again.
const PAUSE: Duration = Duration::from_secs(1);

/// What is needed to send.
#[derive(Debug)]
pub struct Exporter {
    /// Where to; `None`: nothing is sent.
    pub collector: Option<Collector>,
    /// By which protocol.
    pub protocol: Protocol,
    /// Has the authorities that a collector is believed by over TLS; `None`: the system's are.
    pub ca_file: Option<PathBuf>,
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
    let Exporter { collector, protocol, ca_file, workload, store, watched, resolver } = exporter;
    let Some(collector) = collector else { return std::future::pending().await };
    if protocol == Protocol::Grpc && !collector.path().is_empty() {
        tracing::warn!(%collector, "the path of --otlp-endpoint is not used: gRPC has paths of its own");
    }
    let mut link = Link::new(collector, protocol, resolver, ca_file);
    // Apart: many collectors take spans and no lines.
    let mut about_spans = Complaint::new("spans for the collector are lost (--otlp-endpoint)");
    let mut about_lines = Complaint::new("lines for the collector are lost (--otlp-endpoint)");
    loop {
        let told = watched.outbox.next().await;
        let own = store.table().own.clone();
        let resource = otlp::resource(&workload, own.as_deref());
        for some in told.chunks(AT_ONCE) {
            for parcel in parcels(some, &resource) {
                let (spans, lines) = parcel.counts();
                let complaint = if spans > 0 { &mut about_spans } else { &mut about_lines };
                match deliver(&mut link, &parcel).await {
                    Ok(rejected) => {
                        if rejected > 0 {
                            complaint.raise(&"it rejects some of them");
                        } else {
                            complaint.settle();
                        }
                        // What it has taken, but for what it says that it has not.
                        let left = |count: u64| count.min(rejected);
                        watched.outbox.sent(spans - left(spans), lines - left(lines));
                        watched.outbox.lost(left(spans), left(lines));
                    }
                    Err(error) => {
                        complaint.raise_as(error.kind, &error.what);
                        watched.outbox.lost(spans, lines);
                    }
                }
            }
        }
    }
}

/// What `told` is in OpenTelemetry's words: spans and lines apart.
fn parcels(told: &[Told], resource: &otlp::Resource) -> Vec<Parcel> {
    let spans = pieces(told.iter().flat_map(|told| otlp::spans(&told.finished)));
    let lines = told.iter().filter(|told| told.is_line).map(|told| otlp::line(&told.finished));
    let spans = spans.into_iter().map(|spans| Parcel::spans(resource.clone(), spans));
    spans.chain(pieces(lines).into_iter().map(|lines| Parcel::lines(resource.clone(), lines))).collect()
}

/// `all` in pieces of [`LARGEST`] bytes at most; what is larger by itself is alone.
fn pieces<M: Message>(all: impl Iterator<Item = M>) -> Vec<Vec<M>> {
    let mut pieces: Vec<Vec<M>> = Vec::new();
    let mut left = 0;
    for one in all {
        // With its tag and its length.
        let bytes = one.encoded_len() + 8;
        match pieces.last_mut() {
            Some(piece) if bytes <= left => {
                piece.push(one);
                left -= bytes;
            }
            _ => {
                pieces.push(vec![one]);
                left = LARGEST.saturating_sub(bytes);
            }
        }
    }
    pieces
}

/// Sends it, and once more if that fails. Returns how many the collector has rejected.
async fn deliver(link: &mut Link, parcel: &Parcel) -> Result<u64, SendError> {
    match link.send(parcel).await {
        Ok(rejected) => Ok(rejected),
        Err(error) if error.is_final => Err(error),
        Err(_) => {
            sleep(PAUSE).await;
            link.send(parcel).await
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_api::otlp::trace::v1::Span;

    use super::*;

    fn span(bytes: usize) -> Span {
        Span { name: "x".repeat(bytes), ..Span::default() }
    }

    #[test]
    fn no_message_is_larger_than_collectors_take_and_nothing_is_left_out() {
        let sizes = [10, LARGEST, 10, LARGEST / 2, LARGEST / 4, LARGEST / 2];

        let pieces = pieces(sizes.into_iter().map(span));

        let found: Vec<Vec<usize>> =
            pieces.iter().map(|piece| piece.iter().map(|span| span.name.len()).collect()).collect();
        assert_eq!(found, [vec![10], vec![LARGEST], vec![10, LARGEST / 2, LARGEST / 4], vec![LARGEST / 2]]);
        assert!(super::pieces(std::iter::empty::<Span>()).is_empty(), "no message without content");
    }
}
