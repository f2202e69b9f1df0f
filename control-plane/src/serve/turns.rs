//! How many streams one workload may have, and how much work they may cause together. The newest ones stay: an old one may
//! belong to a proxy that is gone, and whose connection has not ended yet.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use selvedge_model::WorkloadName;
use tokio::{sync::oneshot, time::Instant};

/// Streams of one workload.
pub const MOST: usize = 2;

/// Of the time of one thread, the looks at what is due that a workload causes may take the so-manyth part.
const SHARE: u32 = 10;

/// So much sooner may looks be taken, all together. So a proxy may cause half a second of work at once.
const EARLY: Duration = Duration::from_secs(5);

/// What one workload has.
#[derive(Debug)]
struct Streams {
    /// Oldest first, each with what is dropped when its turn is over.
    open: VecDeque<(u64, oneshot::Sender<()>)>,
    look_at: LookAt,
}

/// When the next look would be, if looks had taken no more than their share. It outlives the streams: whoever comes back
/// causes no more work than who stays. All streams of a workload share one, and look for no other's.
#[derive(Debug, Clone)]
struct LookAt(Arc<Mutex<Instant>>);

impl LookAt {
    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, now: Instant) -> bool {
        *self.lock() <= now
    }
}

/// What every workload has.
#[derive(Debug, Default)]
struct All {
    of: HashMap<WorkloadName, Streams>,
    /// With so many, those are looked for that have no stream and wait for nothing.
    sweep_at: usize,
}

/// The open streams of every workload.
#[derive(Debug, Default)]
pub struct Turns {
    next: AtomicU64,
    streams: Mutex<All>,
}

/// One stream's turn.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Arc<Turns>,
    workload: WorkloadName,
    id: u64,
    look_at: LookAt,
}

/// The end of a turn.
#[derive(Debug)]
pub(super) struct Over(oneshot::Receiver<()>);

impl Over {
    /// Returns once newer streams have the workload's turns.
    pub(super) async fn reached(&mut self) {
        // Dropped with the turn.
        let _ = (&mut self.0).await;
    }
}

impl Turns {
    /// A turn for one more stream of `workload`; the turn of the oldest of too many is over.
    pub(super) fn take(self: &Arc<Self>, workload: &WorkloadName) -> (Turn, Over) {
        let (stay, over) = oneshot::channel();
        let mut all = self.lock();
        let now = Instant::now();
        if all.of.len() >= all.sweep_at {
            all.of.retain(|_, streams| !streams.open.is_empty() || !streams.look_at.is_over(now));
            all.sweep_at = 2 * all.of.len() + 16;
        }
        let new = || Streams { open: VecDeque::new(), look_at: LookAt(Arc::new(Mutex::new(now))) };
        let streams = all.of.entry(workload.clone()).or_insert_with(new);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.open.push_back((id, stay));
        if streams.open.len() > MOST {
            streams.open.pop_front();
        }
        let look_at = streams.look_at.clone();
        drop(all);
        (Turn { turns: Arc::clone(self), workload: workload.clone(), id, look_at }, Over(over))
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    /// Until when the next look at what is due waits, because those before have taken long; `None`: it may be now.
    pub(super) fn look_waits_until(&self) -> Option<Instant> {
        self.look_at.lock().checked_sub(EARLY).filter(|at| *at > Instant::now())
    }

    /// Notes that a look has taken this long. One that is for a change of configuration is not the workload's doing: such looks
    /// use up what others may have had at once, and keep nobody waiting.
    pub(super) fn looked(&self, took: Duration, is_for_change: bool) {
        let now = Instant::now();
        let mut look_at = self.look_at.lock();
        let next = (*look_at).max(now) + took * SHARE;
        let latest = if is_for_change { (*look_at).max(now + EARLY) } else { next };
        *look_at = next.min(latest);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut all = self.turns.lock();
        let Some(streams) = all.of.get_mut(&self.workload) else { return };
        streams.open.retain(|(id, _)| *id != self.id);
        if streams.open.is_empty() && streams.look_at.is_over(Instant::now()) {
            all.of.remove(&self.workload);
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
        assert!(first.1.reached().now_or_never().is_none());

        let mut third = turns.take(&workload);

        assert!(first.1.reached().now_or_never().is_some());
        let stay = [&mut second, &mut third, &mut other];
        assert!(stay.into_iter().all(|(_, over)| over.reached().now_or_never().is_none()));
        drop((first, second, third, other));
        assert!(turns.lock().of.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn looks_that_take_long_wait_for_each_other_although_the_workload_comes_back() {
        let turns = Arc::new(Turns::default());
        let workload = "shop/reviews-1".parse().unwrap();
        let (turn, _) = turns.take(&workload);
        turn.looked(EARLY / SHARE, false);
        assert_eq!(turn.look_waits_until(), None);
        turn.looked(Duration::from_millis(20), false);

        let after = |of: &Turn| of.look_waits_until().map(|at| at.duration_since(Instant::now()));
        assert_eq!(after(&turn), Some(Duration::from_millis(200)));
        drop(turn);
        let (again, _) = turns.take(&workload);
        assert_eq!(after(&again), Some(Duration::from_millis(200)));
        assert_eq!(after(&turns.take(&"shop/reviews-2".parse().unwrap()).0), None);

        tokio::time::advance(Duration::from_millis(200)).await;
        assert_eq!(again.look_waits_until(), None);
        drop(again);
        tokio::time::advance(EARLY).await;
        let names = (0..100).map(|number| format!("shop/web-{number}").parse().unwrap());
        drop(names.map(|name| turns.take(&name)).collect::<Vec<_>>());
        assert!(turns.lock().of.is_empty(), "what waits for nothing is forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn looks_for_changes_keep_nobody_waiting_however_many_there_were() {
        let turns = Arc::new(Turns::default());
        let (turn, _) = turns.take(&"shop/reviews-1".parse().unwrap());
        for _ in 0..1_000 {
            turn.looked(EARLY, true);
        }
        assert_eq!(turn.look_waits_until(), None);

        turn.looked(Duration::from_millis(20), false);
        let wait = Duration::from_millis(20) * SHARE;
        assert_eq!(turn.look_waits_until(), Some(Instant::now() + wait));
        turn.looked(EARLY, true);
        assert_eq!(turn.look_waits_until(), Some(Instant::now() + wait), "nor do they let it look sooner");
    }
}
