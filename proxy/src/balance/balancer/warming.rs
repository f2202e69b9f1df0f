//! The shares of endpoints that joined lately (`loadBalancer.warmup`).
//!
//! An endpoint that a draw or a turn falls on is taken with a chance that grows while it warms up. So all others keep
//! their shares of each other. Where all endpoints are new, as after a start, only their differences count.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use selvedge_model::Warmup;

use super::Member;

/// What stands for an endpoint and for who is there: another workload at the same address is new.
type Who = (u64, u64);

/// See the module.
#[derive(Debug)]
pub(super) struct Warming {
    settings: Warmup,
    /// When each endpoint joined, and what stands for it and for who is there; `None`: before anybody looked.
    joined: Box<[(Who, Option<Instant>)]>,
    /// When all have warmed up.
    until: Instant,
    /// When the first of them joined; `None`: before anybody looked, or there is none.
    first: Option<Instant>,
}

impl Warming {
    /// The warm-up of `members`. `before`: those of all groups before this change; empty: nobody looked.
    pub(super) fn over(
        settings: Warmup,
        members: &[Member],
        before: Option<Vec<&Self>>,
        now: Instant,
    ) -> Self {
        let known: Option<Option<HashMap<Who, Option<Instant>>>> = before.map(|before| {
            (!before.is_empty())
                .then(|| before.iter().flat_map(|before| before.joined.iter().copied()).collect())
        });
        let joined_at = |who: Who| match &known {
            // The first endpoints that we know: they join now, all together.
            None => Some(now),
            Some(None) => None,
            Some(Some(known)) => known.get(&who).copied().unwrap_or(Some(now)),
        };
        let who = |member: &Member| (member.key(), member.occupant);
        let joined: Box<[_]> = members.iter().map(who).map(|who| (who, joined_at(who))).collect();
        let last = joined.iter().filter_map(|(_, joined)| *joined).max();
        let first = joined.iter().map(|(_, joined)| *joined).min().flatten();
        let until = last.map_or(now, |last| last + settings.duration);
        Self { settings, joined, until, first }
    }

    fn is_over(&self, now: Instant) -> bool {
        now >= self.until
    }

    /// What part of its share an endpoint gets now, where the one that is warmest gets all of its own.
    pub(super) fn factor(&self, index: usize, now: Instant) -> f64 {
        let factor =
            |joined: Option<Instant>| joined.map_or(1.0, |joined| self.settings.factor(since(joined, now)));
        if self.is_over(now) {
            return 1.0;
        }
        (factor(self.joined[index].1) / factor(self.first)).min(1.0)
    }

    /// Whether the endpoint is taken that a draw has fallen on.
    pub(super) fn takes(&self, index: usize, now: Instant, rng: &mut fastrand::Rng) -> bool {
        self.is_over(now) || {
            let factor = self.factor(index, now);
            factor >= 1.0 || rng.f64() < factor
        }
    }

    /// Whether any endpoint gets less than its share.
    pub(super) fn is_in_progress(&self, now: Instant) -> bool {
        !self.is_over(now)
    }
}

fn since(joined: Instant, now: Instant) -> Duration {
    now.saturating_duration_since(joined)
}
