//! How many streams one workload may have: the newest ones stay. An old one may belong to a proxy that is gone, and whose
//! connection has not ended yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use selvedge_model::WorkloadName;
use tokio::sync::oneshot;

/// Streams of one workload.
pub const MOST: usize = 2;

/// Streams, oldest first, each with what is dropped when its turn is over.
type Streams = VecDeque<(u64, oneshot::Sender<()>)>;

/// The open streams of every workload.
#[derive(Debug, Default)]
pub struct Turns {
    next: AtomicU64,
    streams: Mutex<HashMap<WorkloadName, Streams>>,
}

/// One stream's turn.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    workload: WorkloadName,
    id: u64,
    over: oneshot::Receiver<()>,
}

impl Turns {
    /// A turn for one more stream of `workload`; the turn of the oldest of too many is over.
    pub(super) fn take(self: &Arc<Self>, workload: &WorkloadName) -> Turn {
        let (stay, over) = oneshot::channel();
        let mut all = self.lock();
        let streams = all.entry(workload.clone()).or_default();
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.push_back((id, stay));
        if streams.len() > MOST {
            streams.pop_front();
        }
        drop(all);
        Turn { turns: Arc::clone(self), workload: workload.clone(), id, over }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<WorkloadName, Streams>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Returns once newer streams have the workload's turns.
    pub(super) async fn over(&mut self) {
        // Dropped with the turn.
        let _ = (&mut self.over).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        let Some(streams) = all.get_mut(&self.workload) else { return };
        streams.retain(|(id, _)| *id != self.id);
        if streams.is_empty() {
            all.remove(&self.workload);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_newest_streams_of_a_workload_stay() {
        let turns = Arc::new(Turns::default());
        let workload = "shop/reviews-1".parse().unwrap();
        let mut first = turns.take(&workload);
        let mut other = turns.take(&"shop/reviews-2".parse().unwrap());
        let mut second = turns.take(&workload);
        assert!(first.over().now_or_never().is_none());

        let mut third = turns.take(&workload);

        assert!(first.over().now_or_never().is_some());
        let stay = [&mut second, &mut third, &mut other];
        assert!(stay.into_iter().all(|turn| turn.over().now_or_never().is_none()));
        drop((first, second, third, other));
        assert!(turns.lock().is_empty());
    }
}
