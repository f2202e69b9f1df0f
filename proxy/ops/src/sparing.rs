//! Lines of the log that a client could cause without end: each is written once in a while, with a count of those that
//! were left out.

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    time::{Duration, Instant},
};

/// After a line about one thing, no other is written for this long.
const PAUSE: Duration = Duration::from_secs(10);
/// How many things are told apart. Those beyond share one.
const MOST: usize = 1024;
/// What they share.
const OTHERS: u64 = 0;

/// What was written lately, by one thread.
#[derive(Debug, Default)]
pub struct Sparing {
    /// Its keys are not for clients to choose.
    hasher: RandomState,
    /// By the hash of what a line is about: two things with one hash share a pause, and no harm is done.
    said: RefCell<HashMap<u64, Said>>,
}

#[derive(Debug)]
struct Said {
    at: Instant,
    left_out: u64,
}

impl Sparing {
    /// Whether a line about `what` is to be written now; if so, how many were left out since the last one.
    pub fn says(&self, what: impl Hash, now: Instant) -> Option<u64> {
        let mut said = self.said.borrow_mut();
        let mut key = self.hasher.hash_one(what);
        if said.len() >= MOST && !said.contains_key(&key) {
            said.retain(|_, said| now.duration_since(said.at) < PAUSE);
            if said.len() >= MOST {
                key = OTHERS;
            }
        }
        let Some(last) = said.get_mut(&key) else {
            said.insert(key, Said { at: now, left_out: 0 });
            return Some(0);
        };
        if now.duration_since(last.at) < PAUSE {
            last.left_out += 1;
            return None;
        }
        last.at = now;
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_is_written_at_a_time_and_the_next_says_how_many_were_left_out() {
        let (sparing, start) = (Sparing::default(), Instant::now());

        assert_eq!(sparing.says("a", start), Some(0));
        assert_eq!(sparing.says("a", start), None);
        assert_eq!(sparing.says("b", start), Some(0), "something else");
        assert_eq!(sparing.says("a", start + PAUSE / 2), None);
        assert_eq!(sparing.says("a", start + PAUSE), Some(2));
        assert_eq!(sparing.says("a", start + 2 * PAUSE), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (sparing, start) = (Sparing::default(), Instant::now());
        let written = (0..10 * MOST).filter(|what| sparing.says(what, start).is_some()).count();

        assert_eq!(written, MOST + 1, "those beyond share one line");
        assert!(sparing.said.borrow().len() <= MOST + 1);
        assert_eq!(sparing.says(10 * MOST, start + PAUSE), Some(0));
        assert!(sparing.said.borrow().len() <= 2);
    }
}
