//! Each identity's share of the first audit file.

use std::{
    collections::HashMap,
    time::{Duration, SystemTime},
};

/// So many lines an identity has in one hour: as many certificates as it usually gets in a minute, all at once.
pub(super) const LINES: u64 = 600;
const HOUR: Duration = Duration::from_secs(3600);
/// With more identities than this, no further one is counted until an hour is over.
const MOST: usize = 100_000;
/// Between two looks for hours that are over.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What each identity has used.
#[derive(Debug, Default)]
pub(super) struct Shares {
    used: HashMap<String, Used>,
    swept_at: Option<SystemTime>,
}

#[derive(Debug)]
struct Used {
    since: SystemTime,
    lines: u64,
}

/// In which file a line is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Where {
    First,
    /// It `is_first` that is there in this hour.
    Second {
        is_first: bool,
    },
}

/// Whether so much time is over since `then`. A clock that was set back begins anew.
fn is_over(then: SystemTime, time: Duration, now: SystemTime) -> bool {
    now.duration_since(then).map_or(true, |since| since >= time)
}

impl Shares {
    /// Where the next line of `identity` is.
    pub(super) fn place(&mut self, identity: &str, now: SystemTime) -> Where {
        if self.used.len() >= MOST && !self.used.contains_key(identity) {
            return Where::First;
        }
        let used = self.used.entry(identity.to_owned()).or_insert(Used { since: now, lines: 0 });
        used.lines += 1;
        match used.lines.checked_sub(LINES) {
            None | Some(0) => Where::First,
            Some(more) => Where::Second { is_first: more == 1 },
        }
    }

    /// Those whose hour is over and of whom lines were in the second file, and how many. Their hours begin anew.
    pub(super) fn over(&mut self, now: SystemTime) -> Vec<(String, u64)> {
        if self.swept_at.is_some_and(|at| !is_over(at, SWEEP_EVERY, now)) {
            return Vec::new();
        }
        self.swept_at = Some(now);
        let over = self.used.extract_if(|_, used| is_over(used.since, HOUR, now));
        let more = |(identity, used): (String, Used)| {
            let more = used.lines.checked_sub(LINES).filter(|more| *more > 0)?;
            Some((identity, more))
        };
        over.filter_map(more).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_of_each_hour() {
        let (mut shares, start) = (Shares::default(), SystemTime::UNIX_EPOCH + HOUR);
        assert!(shares.over(start).is_empty());
        for _ in 0..LINES {
            assert_eq!(shares.place("loud", start), Where::First);
        }
        for more in 0..3 {
            assert_eq!(shares.place("loud", start), Where::Second { is_first: more == 0 });
        }
        assert_eq!(shares.place("quiet", start), Where::First);

        assert!(shares.over(start + HOUR / 2).is_empty());
        assert_eq!(shares.over(start + HOUR), [("loud".to_owned(), 3)]);
        assert!(shares.used.is_empty());
        assert_eq!(shares.place("loud", start + HOUR), Where::First);
    }

    #[test]
    fn of_very_many_no_more_are_counted() {
        let mut shares = Shares::default();
        for number in 0..MOST + 10 {
            shares.place(&number.to_string(), SystemTime::UNIX_EPOCH);
        }
        assert_eq!(shares.used.len(), MOST);
    }
}
