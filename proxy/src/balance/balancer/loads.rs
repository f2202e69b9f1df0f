//! What share of requests each group of endpoints gets, now that some are ejected or fail their health
//! checks: here and below, these count as ejected, too.
//!
//! Envoy's rules. A priority whose endpoints are not ejected, or few of them, gets all requests: of its health counts
//! 1.4 times what is left of it, at most all of it ([`OVERPROVISIONING`]). What it cannot take spills to the next
//! priority. Groups by weight get their weights, each times its health. If all priorities together cannot take
//! everything, one of which fewer endpoints are left than `minHealthPercent` says is called as a whole, ejected
//! endpoints too (panic).
//!
//! As long as nothing is ejected, nothing is counted. Otherwise endpoints are counted again when an ejection begins or
//! ends, or the checks of an endpoint begin to fail or to pass, by whichever worker picks next; the others go on with what was counted before.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use super::Candidate;
use crate::balance::outlier::Ejection;

/// In percent: how much more a priority can take than its own share of healthy endpoints.
const OVERPROVISIONING: u64 = 140;

/// `Loads::counted_at` before anything was counted.
const NEVER: u64 = u64::MAX;

/// See the module. Shared by all workers.
#[derive(Debug)]
pub(super) struct Loads {
    /// The weights of the groups. `None`: they are priorities, the highest first.
    weights: Option<Box<[u32]>>,
    /// Where the share of each group ends while nothing is ejected, and now.
    healthy: Box<[u32]>,
    ends: Box<[AtomicU32]>,
    /// Which groups are called as a whole.
    panicking: Box<[AtomicBool]>,
    /// How many changes of ejections and checks there had been when endpoints were counted.
    counted_at: AtomicU64,
    /// When the first ejection is over that was counted: nanoseconds, as [`Ejection::since_base`] counts them.
    until: AtomicU64,
    /// Whether a worker is counting.
    is_counting: AtomicBool,
}

/// How many endpoints a group has, and how many of them are not ejected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) all: u64,
    pub(super) healthy: u64,
}

/// What of a group's share is left: 0 to 100.
fn availability(Health { all, healthy }: Health) -> u64 {
    (OVERPROVISIONING * healthy).checked_div(all).unwrap_or(0).min(100)
}

/// The share of each group, and which are called as a whole where `least` percent of their endpoints must be left.
pub(super) fn shares(groups: &[Health], weights: Option<&[u32]>, least: u8) -> (Vec<u32>, Vec<bool>) {
    let available: Vec<u64> = groups.iter().copied().map(availability).collect();
    let few = |Health { all, healthy }: Health| healthy * 100 < all * u64::from(least);
    if let Some(weights) = weights {
        // They are one priority.
        let sum = groups.iter().fold(Health::default(), |sum, one| Health {
            all: sum.all + one.all,
            healthy: sum.healthy + one.healthy,
        });
        let panicking = vec![availability(sum) < 100 && few(sum); groups.len()];
        return (weighted(&available, &panicking, weights), panicking);
    }
    let total = available.iter().sum::<u64>().min(100);
    let panicking: Vec<bool> = groups.iter().map(|group| total < 100 && few(*group)).collect();
    let all_panic = panicking.iter().all(|panics| *panics);
    let shares = if all_panic { in_panic(groups) } else { prioritized(&available, total) };
    (shares, panicking)
}

fn weighted(available: &[u64], panicking: &[bool], weights: &[u32]) -> Vec<u32> {
    let share = |((available, panics), weight): ((&u64, &bool), &u32)| {
        let available = if *panics { 100 } else { *available };
        narrow(available * u64::from(*weight))
    };
    available.iter().zip(panicking).zip(weights).map(share).collect()
}

fn prioritized(available: &[u64], total: u64) -> Vec<u32> {
    let mut left = 100;
    let mut shares: Vec<u32> = Vec::with_capacity(available.len());
    for available in available {
        let share = (available * 100).checked_div(total).unwrap_or(0).min(left);
        left -= share;
        shares.push(narrow(share));
    }
    // What rounding has left.
    let first = available.iter().position(|available| *available > 0);
    if let Some(share) = first.and_then(|first| shares.get_mut(first)) {
        *share += narrow(left);
    }
    shares
}

/// All are called as a whole: each as much as it has endpoints.
fn in_panic(groups: &[Health]) -> Vec<u32> {
    groups.iter().map(|group| narrow(group.all)).collect()
}

fn narrow(share: u64) -> u32 {
    u32::try_from(share).unwrap_or(u32::MAX)
}

/// Where each share ends.
fn ends(shares: &[u32]) -> impl Iterator<Item = u32> {
    shares.iter().scan(0_u32, |sum, share| {
        *sum = sum.saturating_add(*share);
        Some(*sum)
    })
}

impl Loads {
    /// Those of groups with so many endpoints each. `weights`: theirs, if they are no priorities.
    pub(super) fn of(sizes: impl Iterator<Item = usize>, weights: Option<Box<[u32]>>) -> Self {
        let groups: Vec<Health> =
            sizes.map(|size| Health { all: size as u64, healthy: size as u64 }).collect();
        let (shares, _) = shares(&groups, weights.as_deref(), 0);
        let healthy: Box<[u32]> = ends(&shares).collect();
        Self {
            weights,
            ends: healthy.iter().map(|end| AtomicU32::new(*end)).collect(),
            panicking: groups.iter().map(|_| AtomicBool::new(false)).collect(),
            healthy,
            counted_at: AtomicU64::new(NEVER),
            until: AtomicU64::new(0),
            is_counting: AtomicBool::new(false),
        }
    }

    /// Whether the groups are priorities.
    pub(super) fn are_priorities(&self) -> bool {
        self.weights.is_none()
    }

    /// Counts the endpoints in `groups` that are ejected, if that may have changed.
    pub(super) fn count<C: Candidate>(
        &self,
        candidates: &[C],
        groups: impl Iterator<Item = Range<usize>>,
        ejection: &Ejection,
        now: Instant,
    ) {
        let changes = ejection.changes();
        let is_old = self.counted_at.load(Ordering::Acquire) != changes
            || self.until.load(Ordering::Relaxed) <= ejection.since_base(now);
        if !is_old || self.is_counting.swap(true, Ordering::Acquire) {
            return;
        }
        let mut until = u64::MAX;
        let mut health = Vec::with_capacity(self.ends.len());
        for group in groups {
            let members = candidates.get(group).unwrap_or_default();
            let mut healthy = 0;
            for candidate in members {
                match candidate.out_until(now) {
                    None => healthy += 1,
                    Some(end) => until = until.min(end),
                }
            }
            health.push(Health { all: members.len() as u64, healthy });
        }
        let least = ejection.settings().min_health_percent;
        let (shares, panicking) = shares(&health, self.weights.as_deref(), least);
        for (end, is) in self.ends.iter().zip(ends(&shares)) {
            end.store(is, Ordering::Relaxed);
        }
        for (panics, is) in self.panicking.iter().zip(panicking) {
            panics.store(is, Ordering::Relaxed);
        }
        self.until.store(until, Ordering::Relaxed);
        self.counted_at.store(changes, Ordering::Release);
        self.is_counting.store(false, Ordering::Release);
    }

    /// Where the share of a group ends.
    fn end(&self, some_out: bool, group: usize) -> u32 {
        match some_out {
            true => self.ends.get(group).map_or(0, |end| end.load(Ordering::Relaxed)),
            false => self.healthy.get(group).copied().unwrap_or(0),
        }
    }

    /// A group, each as likely as its share: by `key` always the same one, as long as shares stay the same.
    pub(super) fn draw(&self, some_out: bool, key: Option<u64>, rng: &mut fastrand::Rng) -> Option<usize> {
        let end = |group: usize| self.end(some_out, group);
        let sum = end(self.healthy.len().checked_sub(1)?);
        if sum == 0 {
            return None;
        }
        let drawn = match key {
            Some(key) => narrow((u128::from(key) * u128::from(sum)).wrapping_shr(64) as u64),
            None => rng.u32(..sum),
        };
        (0..self.healthy.len()).find(|group| drawn < end(*group))
    }

    /// Whether a group is called as a whole, where some endpoints are ejected.
    pub(super) fn is_panicking(&self, group: usize) -> bool {
        self.panicking.get(group).is_some_and(|panics| panics.load(Ordering::Relaxed))
    }

    /// What part of requests a group gets, in percent.
    pub(super) fn percent(&self, some_out: bool, group: usize) -> f64 {
        let end = |group: usize| self.end(some_out, group);
        let sum = self.healthy.len().checked_sub(1).map_or(0, end);
        let share = end(group).saturating_sub(group.checked_sub(1).map_or(0, end));
        if sum == 0 { 0.0 } else { f64::from(share) * 100.0 / f64::from(sum) }
    }
}

#[cfg(test)]
mod tests;
