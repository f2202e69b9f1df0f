//! How long answers took, counted without a lock: in groups of times that are at most a sixteenth apart.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How many groups double the time.
const PER_OCTAVE: usize = 16;
/// What is told apart: about a microsecond, to more than two minutes.
const UNIT: u32 = 10;
const OCTAVES: usize = 28;
const GROUPS: usize = (OCTAVES - 3) * PER_OCTAVE;

/// See the module.
#[derive(Debug)]
pub(super) struct Samples {
    groups: Box<[AtomicU32]>,
    count: AtomicU64,
}

impl Default for Samples {
    fn default() -> Self {
        Self { groups: (0..GROUPS).map(|_| AtomicU32::new(0)).collect(), count: AtomicU64::new(0) }
    }
}

impl Samples {
    /// Counts one more. Returns how many there are.
    pub(super) fn add(&self, time: Duration) -> u64 {
        if let Some(group) = self.groups.get(group(time)) {
            group.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Their median; zero if there are none.
    pub(super) fn median(&self) -> Duration {
        let counts = || self.groups.iter().map(|group| u64::from(group.load(Ordering::Relaxed)));
        let half = counts().sum::<u64>().div_ceil(2);
        let mut seen = 0;
        let place = counts().position(|count| {
            seen += count;
            seen >= half && half > 0
        });
        place.map_or(Duration::ZERO, middle)
    }

    /// Forgets them.
    pub(super) fn clear(&self) {
        for group in &self.groups {
            group.store(0, Ordering::Relaxed);
        }
        self.count.store(0, Ordering::Relaxed);
    }
}

/// The group of `time`.
fn group(time: Duration) -> usize {
    let units = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX) >> UNIT;
    let units = units.min((1 << OCTAVES) - 1) as usize;
    if units < PER_OCTAVE {
        return units;
    }
    let octave = units.ilog2() as usize;
    (octave - 3) * PER_OCTAVE + ((units >> (octave - 4)) - PER_OCTAVE)
}

/// The middle of the times in `group`.
fn middle(group: usize) -> Duration {
    let (octave, within) = (group / PER_OCTAVE, group % PER_OCTAVE);
    let twice = match octave {
        0 => 2 * within + 1,
        _ => (2 * (PER_OCTAVE + within) + 1) << (octave - 1),
    };
    Duration::from_nanos((twice as u64) << (UNIT - 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_median_is_as_near_as_the_groups_are(
            mut micros in prop::collection::vec(2..100_000_000_u64, 1..100),
        ) {
            let samples = Samples::default();
            for (number, micros) in micros.iter().enumerate() {
                prop_assert_eq!(samples.add(Duration::from_micros(*micros)), number as u64 + 1);
            }
            micros.sort_unstable();
            let exact = micros[(micros.len() - 1) / 2] as f64 * 1e-6;
            let found = samples.median().as_secs_f64();
            prop_assert!((found - exact).abs() <= exact / 16.0 + 2e-6, "{} for {}", found, exact);
            samples.clear();
            prop_assert_eq!((samples.count(), samples.median()), (0, Duration::ZERO));
        }
    }

    #[test]
    fn every_time_has_a_group() {
        let samples = Samples::default();
        for time in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(1 << 40), Duration::MAX] {
            samples.add(time);
            assert!(group(time) < GROUPS, "{time:?}");
        }
    }
}
