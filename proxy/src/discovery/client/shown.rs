//! Sends live requests on to the control plane, where somebody asks to see them. Never at the cost of configuration.

use std::time::Duration;

use prost::Message as _;
use selvedge_api::wire::{self, client_message::Message as Body};
use selvedge_model::tap::Sample;
use tokio::{sync::mpsc, time::Instant};

use super::{Client, MAX_OUTGOING};
use crate::seen::REPORT_EVERY;

/// The most samples in one message, and the bytes after which no other is added.
const MOST: usize = 64;
const MOST_BYTES: usize = 128 << 10;
/// Between two reports while somebody looks at them.
const REPORT_OFTEN: Duration = Duration::from_secs(1);

/// Live requests, each with the number of who asks.
pub(super) type Samples = mpsc::Receiver<(u64, Sample)>;

/// The next live request.
pub(super) async fn next(samples: &mut Option<Samples>) -> (u64, Sample) {
    if let Some(samples) = samples
        && let Some(sample) = samples.recv().await
    {
        return sample;
    }
    std::future::pending().await
}

impl Client {
    /// Sends on `first`, and what has come meanwhile. If the control plane is slow to read, it is lost.
    pub(super) fn show(&mut self, first: (u64, Sample)) {
        let has_room = self.outgoing.as_ref().is_some_and(|outgoing| outgoing.capacity() > MAX_OUTGOING / 2);
        let (mut list, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some((tap, sample)) = next {
            if has_room {
                let shown = wire::TapShown { tap, sample: Some((&sample).into()) };
                bytes += shown.encoded_len();
                list.push(shown);
            } else {
                self.discovery.metrics.tap.missed(tap);
            }
            let is_full = list.len() >= MOST || bytes >= MOST_BYTES;
            next = self.samples.as_mut().filter(|_| !is_full).and_then(|samples| samples.try_recv().ok());
        }
        if !list.is_empty() {
            let missed = self.missed();
            self.send(Body::TapSamples(wire::TapSamples { list, missed }));
        }
    }

    /// Reports every second while somebody looks at reports, or as seldom as usual.
    pub(super) fn report_often(&mut self, often: bool) {
        self.report_every = if often { REPORT_OFTEN } else { REPORT_EVERY };
        self.report_at = self.report_at.min(Instant::now() + self.report_every);
    }

    /// Tells what was not shown, if nothing is shown that it could be told with.
    pub(super) fn tell_missed(&mut self) {
        let missed = self.missed();
        if !missed.is_empty() {
            self.send(Body::TapSamples(wire::TapSamples { list: Vec::new(), missed }));
        }
    }

    fn missed(&self) -> Vec<wire::TapMissed> {
        let missed = self.discovery.metrics.tap.take_missed().into_iter();
        missed.map(|(tap, count)| wire::TapMissed { tap, count }).collect()
    }
}
