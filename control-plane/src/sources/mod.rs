//! Where documents come from. Every source yields the same thing: all resources, and what is wrong.

pub mod directory;
mod expressions;
mod files;
mod follow;
pub mod kubernetes;
mod last_good;
mod notices;

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crate::{
    problem::Problem,
    resources::{Object, Resource, Resources, StandIn},
};

/// All that a source has, at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// Every document that is in use.
    pub resources: Resources,
    /// What is wrong with single documents, files, or the source itself.
    pub problems: Vec<Problem>,
    /// The objects that people wrote and may be told about.
    pub objects: Arc<Vec<Object>>,
}

/// The most threads that read at once.
const MOST_READERS: usize = 8;
/// Fewer things than this are sooner done than shared out.
const WORTH_A_THREAD: usize = 32;

/// What `each` makes of `all`, in their order; of many, on as many threads as there are cores.
fn in_parallel<T: Send, R: Send>(all: Vec<T>, each: impl Fn(T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = cores.min(MOST_READERS).min(all.len() / WORTH_A_THREAD);
    if threads < 2 {
        return all.into_iter().map(each).collect();
    }
    let count = all.len();
    let waiting = Mutex::new(all.into_iter().enumerate());
    let take = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work =
        || -> Vec<(usize, R)> { std::iter::from_fn(take).map(|(place, one)| (place, each(one))).collect() };
    let done = thread::scope(|scope| {
        // Where there is no room for another thread, the others do its part.
        let another = |_| thread::Builder::new().spawn_scoped(scope, work).ok();
        let others: Vec<_> = (1..threads).filter_map(another).collect();
        let mut done = work();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        done
    });
    let mut in_order: Vec<Option<R>> = (0..count).map(|_| None).collect();
    for (place, one) in done {
        in_order[place] = Some(one);
    }
    in_order.into_iter().flatten().collect()
}

/// What is in use of a document that cannot be used: its last good version, or else what it is taken for.
fn consequence(good: Option<&Resource>, stand_in: Option<&StandIn>) -> String {
    match (good, stand_in) {
        (Some(_), _) => "; its last good version stays in use".to_owned(),
        (None, Some(stand_in)) => format!("; {}", stand_in.words),
        (None, None) => "; nothing of it is in use".to_owned(),
    }
}

#[cfg(test)]
mod tests;
