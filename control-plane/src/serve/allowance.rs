//! How many certificates one identity may get in a minute, so that none keeps the CA from the others.
//!
//! Only who has proven its identity uses its allowance up: a stranger cannot use up another's.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use selvedge_model::SpiffeId;

/// With more identities than this, those that have not asked for long are forgotten.
const MOST: usize = 10_000;
const MINUTE: f64 = 60.0;

/// The allowance of every identity. All have the same.
#[derive(Debug)]
pub struct Allowance {
    per_minute: NonZeroU32,
    used: Mutex<HashMap<SpiffeId, Used>>,
}

/// What one identity may still ask for.
#[derive(Debug, Clone, Copy)]
struct Used {
    left: f64,
    at: Instant,
}

/// An identity has asked too often.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{identity} has asked for more than {per_minute} certificates in a minute; try again in {} s, look for a workload \
     that asks again and again, or set --certificates-per-minute of the control plane higher",
    wait.as_secs() + 1
)]
pub struct UsedUp {
    identity: SpiffeId,
    per_minute: NonZeroU32,
    wait: Duration,
}

impl Allowance {
    /// `per_minute` certificates for each identity, all at once or one after another.
    pub fn new(per_minute: NonZeroU32) -> Self {
        Self { per_minute, used: Mutex::default() }
    }

    /// One certificate less for `identity`.
    ///
    /// # Errors
    /// If none is left.
    pub fn take(&self, identity: &SpiffeId, now: Instant) -> Result<(), UsedUp> {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(identity) {
            all.retain(|_, used| self.left(used, now) < self.most());
        }
        let used = all.entry(identity.clone()).or_insert(Used { left: self.most(), at: now });
        *used = Used { left: self.left(used, now), at: now };
        self.check(identity, used.left)?;
        used.left -= 1.0;
        Ok(())
    }

    /// Whether one is left for `identity`, of which nothing is proven yet.
    ///
    /// # Errors
    /// If none is left.
    pub fn look(&self, identity: &SpiffeId, now: Instant) -> Result<(), UsedUp> {
        let all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let left = all.get(identity).map_or(self.most(), |used| self.left(used, now));
        self.check(identity, left)
    }

    fn check(&self, identity: &SpiffeId, left: f64) -> Result<(), UsedUp> {
        if left >= 1.0 {
            return Ok(());
        }
        let wait = Duration::from_secs_f64((1.0 - left) * MINUTE / self.most());
        Err(UsedUp { identity: identity.clone(), per_minute: self.per_minute, wait })
    }

    fn left(&self, used: &Used, now: Instant) -> f64 {
        let since = now.saturating_duration_since(used.at).as_secs_f64();
        (used.left + since / MINUTE * self.most()).min(self.most())
    }

    fn most(&self) -> f64 {
        f64::from(self.per_minute.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::identity;

    fn allowance(per_minute: u32) -> Allowance {
        Allowance::new(NonZeroU32::new(per_minute).unwrap())
    }

    #[test]
    fn one_identity_uses_up_its_own_allowance_and_no_others() {
        let (allowance, now) = (allowance(3), Instant::now());
        let (busy, quiet) = (identity("shop", "busy"), identity("shop", "quiet"));
        for _ in 0..3 {
            allowance.take(&busy, now).unwrap();
        }

        let refused = allowance.take(&busy, now).unwrap_err();

        assert_eq!(allowance.look(&busy, now).unwrap_err(), refused);
        assert!(refused.to_string().contains("more than 3 certificates in a minute"), "{refused}");
        allowance.take(&quiet, now).unwrap();
    }

    #[test]
    fn it_comes_back_with_time_and_not_beyond_a_minutes() {
        let (allowance, start) = (allowance(2), Instant::now());
        let busy = identity("shop", "busy");
        allowance.take(&busy, start).unwrap();
        allowance.take(&busy, start).unwrap();

        assert!(allowance.take(&busy, start + Duration::from_secs(29)).is_err());
        allowance.take(&busy, start + Duration::from_secs(31)).unwrap();
        let later = start + Duration::from_secs(3600);
        for _ in 0..2 {
            allowance.take(&busy, later).unwrap();
        }
        allowance.take(&busy, later).unwrap_err();
    }

    #[test]
    fn asking_before_anything_is_proven_uses_nothing_up() {
        let (allowance, now) = (allowance(1), Instant::now());
        let asked = identity("shop", "reviews");

        for _ in 0..5 {
            allowance.look(&asked, now).unwrap();
        }
        allowance.take(&asked, now).unwrap();
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (allowance, now) = (allowance(60), Instant::now());
        for index in 0..MOST {
            allowance.take(&identity("shop", &format!("account-{index}")), now).unwrap();
        }

        allowance.take(&identity("shop", "one-more"), now + Duration::from_secs(2)).unwrap();

        assert_eq!(allowance.used.lock().unwrap().len(), 1);
    }
}
