//! Requests that are over on their way to a collector: bounded by count and by bytes, and nobody waits.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time::timeout};

use super::finished::Finished;

/// How many requests of one worker wait, beyond which they are lost.
const WAITING: usize = 2_048;
/// How many bytes those have, nearly. Usual ones have less than a tenth: a client who makes all its texts long takes no more.
const WAITING_BYTES: usize = 4 << 20;
/// How long they are gathered before they are sent.
const GATHER: Duration = Duration::from_secs(1);

/// What is told of a request.
#[derive(Debug)]
pub struct Told {
    /// The request.
    pub finished: Finished,
    /// Its line of the access log, too.
    pub is_line: bool,
}

/// What waits of one worker.
#[derive(Debug, Default)]
struct Waiting {
    told: Vec<Told>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    /// One for each worker.
    shards: Box<[Mutex<Waiting>]>,
    /// Whether there are any that were not taken up.
    are_waiting: AtomicBool,
    /// How many are on their way.
    sending: AtomicUsize,
    news: Notify,
    hurry: Notify,
    /// Those that were not sent: spans, and lines.
    lost: [AtomicU64; 2],
    sent: [AtomicU64; 2],
}

impl Outbox {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(workers).collect(),
            are_waiting: AtomicBool::new(false),
            sending: AtomicUsize::new(0),
            news: Notify::new(),
            hurry: Notify::new(),
            lost: Default::default(),
            sent: Default::default(),
        }
    }

    pub(super) fn put(&self, worker: usize, told: Told) {
        let Some(shard) = self.shards.get(worker) else { return };
        let bytes = told.finished.bytes();
        let mut waiting = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.told.len() >= WAITING || waiting.bytes.saturating_add(bytes) > WAITING_BYTES {
            drop(waiting);
            let spans = told.finished.trace().map_or(0, |trace| 1 + trace.attempts().len());
            return self.lost(spans as u64, told.is_line.into());
        }
        waiting.told.push(told);
        waiting.bytes += bytes;
        drop(waiting);
        // Who sees the flag need not set it: it is taken back before the buffers are emptied. All workers share it.
        if !self.are_waiting.load(Ordering::Relaxed) && !self.are_waiting.swap(true, Ordering::AcqRel) {
            self.news.notify_one();
        }
    }

    /// The next that are to be sent; waits for some.
    pub async fn next(&self) -> Vec<Told> {
        self.sending.store(0, Ordering::Release);
        loop {
            while !self.are_waiting.load(Ordering::Acquire) {
                self.news.notified().await;
            }
            // Later is as good as now, and more of them are cheaper together.
            let _ = timeout(GATHER, self.hurry.notified()).await;
            self.are_waiting.store(false, Ordering::Release);
            let mut taken = Vec::new();
            for shard in &self.shards {
                let mut waiting = shard.lock().unwrap_or_else(PoisonError::into_inner);
                taken.append(&mut waiting.told);
                waiting.bytes = 0;
            }
            if !taken.is_empty() {
                self.sending.store(taken.len(), Ordering::Release);
                return taken;
            }
        }
    }

    /// Waits until all are sent, for `longest` at most.
    pub async fn finish(&self, longest: Duration) {
        let all_sent = async {
            while self.are_waiting.load(Ordering::Acquire) || self.sending.load(Ordering::Acquire) > 0 {
                self.hurry.notify_one();
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = timeout(longest, all_sent).await;
    }

    /// So many spans and lines were not sent.
    pub fn lost(&self, spans: u64, lines: u64) {
        self.lost[0].fetch_add(spans, Ordering::Relaxed);
        self.lost[1].fetch_add(lines, Ordering::Relaxed);
    }

    /// So many spans and lines were sent.
    pub fn sent(&self, spans: u64, lines: u64) {
        self.sent[0].fetch_add(spans, Ordering::Relaxed);
        self.sent[1].fetch_add(lines, Ordering::Relaxed);
    }

    /// Spans and lines that were sent, and those that were not.
    pub(super) fn counts(&self) -> [[u64; 2]; 2] {
        let read = |counts: &[AtomicU64; 2]| counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        [read(&self.sent), read(&self.lost)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_bounded_by_bytes_too_and_what_has_no_room_is_counted() {
        let outbox = Outbox::new(1);
        let long = "x".repeat(50_000);
        let request = http::Request::get(format!("/{long}")).body(()).expect("a valid request");
        let put = || outbox.put(0, Told { finished: Finished::of(&request), is_line: true });
        let room = WAITING_BYTES / long.len();
        assert!(room < WAITING);
        for _ in 0..2 * room {
            put();
        }

        outbox.hurry.notify_one();
        let taken = outbox.next().await;

        let (kept, lost) = (taken.len(), outbox.counts()[1][1]);
        assert_eq!(kept as u64 + lost, 2 * room as u64);
        assert!(kept <= room && kept + 2 > room, "{kept} of {room}");
        put();
        outbox.hurry.notify_one();
        assert_eq!(outbox.next().await.len(), 1, "there is room again");
    }
}
