//! What has happened on one edge, by when: 15 seconds at a time of the last two minutes, and before that minute by minute.
//!
//! Each piece is kept as it is sent, which takes some hundred bytes.

use std::{collections::VecDeque, sync::Arc};

use prost::Message as _;
use selvedge_api::wire;
use selvedge_model::traffic::Counts;

/// Seconds in a fine piece: what proxies wait between two reports.
pub(super) const FINE: u64 = 15;
/// So many fine pieces are kept.
pub(super) const FINE_KEPT: u64 = 8;
/// Seconds in a coarse piece.
pub(super) const COARSE: u64 = 60;
/// What the allocator takes for a piece's bytes besides them.
const OVERHEAD: usize = 16;

/// See the module. Times are seconds since some moment of the holder's.
#[derive(Debug, Default)]
pub(super) struct Slots {
    fine: VecDeque<Slot>,
    coarse: VecDeque<Slot>,
    bytes: usize,
}

/// What has happened in one piece of time.
#[derive(Debug)]
struct Slot {
    /// Which piece, counted in its own length.
    at: u64,
    /// A [`wire::EdgeCounts`].
    counts: Arc<[u8]>,
}

impl Slot {
    fn new(at: u64, counts: Counts) -> Self {
        let counts = wire::EdgeCounts::from(&(0, counts)).encode_to_vec();
        Self { at, counts: counts.into() }
    }

    fn read(&self) -> Counts {
        read(&self.counts)
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + OVERHEAD + self.counts.len()
    }
}

impl Slots {
    /// Adds what was told at `now`.
    pub(super) fn add(&mut self, counts: &Counts, now: u64) {
        self.bytes += put(&mut self.fine, now / FINE, counts);
        self.fold(now);
    }

    /// Makes minutes of what is no longer of the last.
    fn fold(&mut self, now: u64) {
        let oldest = (now / FINE).saturating_sub(FINE_KEPT - 1);
        while let Some(slot) = self.fine.pop_front_if(|slot| slot.at < oldest) {
            self.bytes -= slot.bytes();
            self.bytes += put(&mut self.coarse, slot.at * FINE / COARSE, &slot.read());
        }
    }

    /// Forgets what was over before `from`.
    pub(super) fn forget(&mut self, from: u64) {
        for (slots, length) in [(&mut self.coarse, COARSE), (&mut self.fine, FINE)] {
            while let Some(slot) = slots.pop_front_if(|slot| (slot.at + 1) * length <= from) {
                self.bytes -= slot.bytes();
            }
        }
    }

    /// All since [`begin`], not yet read.
    pub(super) fn since(&self, from: u64, now: u64) -> Pieces {
        let begin = begin(from, now);
        // What is coarse was over before the oldest fine piece began.
        let coarse = self.coarse.iter().filter(|slot| from < oldest_fine(now) && slot.at * COARSE >= begin);
        let fine = self.fine.iter().filter(|slot| slot.at * FINE >= begin);
        Pieces(coarse.chain(fine).map(|slot| Arc::clone(&slot.counts)).collect())
    }

    /// All that is kept, not yet read, each piece with when it begins and how long it is.
    pub(super) fn pieces(&self) -> Vec<(u64, u64, Piece)> {
        let of = |slots: &VecDeque<Slot>, length: u64| {
            let piece = |slot: &Slot| (slot.at * length, length, Piece(Arc::clone(&slot.counts)));
            slots.iter().map(piece).collect::<Vec<_>>()
        };
        [of(&self.coarse, COARSE), of(&self.fine, FINE)].concat()
    }

    /// What it takes in memory, nearly.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.fine.is_empty() && self.coarse.is_empty()
    }
}

/// What has happened on one edge in several pieces of time, as it is kept. To read it takes a while.
#[derive(Debug, Default)]
pub(super) struct Pieces(Vec<Arc<[u8]>>);

impl Pieces {
    pub(super) fn read(&self) -> Counts {
        let mut sum = Counts::default();
        for piece in &self.0 {
            sum.add(&read(piece));
        }
        sum
    }
}

/// What has happened on one edge in one piece of time, as it is kept.
#[derive(Debug, Clone)]
pub(super) struct Piece(Arc<[u8]>);

impl Piece {
    pub(super) fn read(&self) -> Counts {
        read(&self.0)
    }
}

fn read(counts: &[u8]) -> Counts {
    let read = wire::EdgeCounts::decode(counts).ok().and_then(|counts| counts.try_into().ok());
    let (_, counts): (u32, Counts) = read.expect("we have written it");
    counts
}

/// When the oldest of the fine pieces begins.
pub(super) fn oldest_fine(now: u64) -> u64 {
    (now / FINE).saturating_sub(FINE_KEPT - 1) * FINE
}

/// When what is shown begins if at `now` everything since `from` is asked for: with a whole piece.
pub(super) fn begin(from: u64, now: u64) -> u64 {
    let length = if from < oldest_fine(now) { COARSE } else { FINE };
    from / length * length
}

/// Adds `counts` to the newest of `slots`, or after it. Returns how many bytes there are more.
fn put(slots: &mut VecDeque<Slot>, at: u64, counts: &Counts) -> usize {
    let newest = slots.pop_back_if(|slot| slot.at >= at);
    let (at, sum, before) = match newest {
        Some(newest) => {
            let mut sum = newest.read();
            sum.add(counts);
            (newest.at, sum, newest.bytes())
        }
        None => (at, counts.clone(), 0),
    };
    let slot = Slot::new(at, sum);
    let more = slot.bytes().saturating_sub(before);
    slots.push_back(slot);
    more
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvedge_model::traffic::{Outcome, bucket_of};

    use super::*;

    fn requests(count: u64) -> Counts {
        let mut counts = Counts::default();
        counts.ended(&Outcome { status: Some(200), ..Outcome::default() }, count);
        counts.latencies.note(bucket_of(Duration::from_millis(3)), count);
        counts
    }

    #[test]
    fn nothing_is_lost_when_quarters_of_minutes_become_minutes() {
        let mut slots = Slots::default();
        for now in (0..3600).step_by(5) {
            slots.add(&requests(1), now);
        }

        let since = |from| slots.since(from, 3600).read();
        assert_eq!((since(0).ends(), since(0).latencies.count()), (720, 720));
        assert_eq!(since(3600 - 60).ends(), 12, "the last minute, of fine pieces");
        assert_eq!(since(1800).ends(), 360);
        assert_eq!((since(1790).ends(), begin(1790, 3600)), (372, 1740), "with a whole minute");
        assert_eq!((since(3550).ends(), begin(3550, 3600)), (12, 3540), "with a whole quarter of one");
        assert_eq!((slots.fine.len(), slots.coarse.len()), (8, 58));
        let bytes: usize = slots.fine.iter().chain(&slots.coarse).map(Slot::bytes).sum();
        assert_eq!(slots.bytes(), bytes);
        assert!(bytes < 8_000, "{bytes}");
    }

    #[test]
    fn what_is_shown_is_of_just_the_time_that_it_is_said_to_be_of() {
        let mut slots = Slots::default();
        for now in (0..=1_234).step_by(5) {
            slots.add(&requests(1), now);
        }
        for from in 600..1_234 {
            let shown = slots.since(from, 1_234).read().ends();
            assert_eq!(shown, (1_230 - begin(from, 1_234)) / 5 + 1, "since {from}");
        }
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut slots = Slots::default();
        slots.add(&requests(1), 10);
        slots.add(&requests(2), 1000);
        slots.forget(60);
        assert_eq!(slots.since(0, 1000).read().ends(), 2);

        slots.forget(1005);
        assert!(slots.is_empty() && slots.bytes() == 0);
    }
}
