//! Unfinished HTTP/1 heads. Their bytes count as those of bodies do. When there are too many, the oldest head is
//! refused.
//!
//! The rest of a head may come late or never. A head that is whole in one read, as nearly all are, is never here.

use std::{
    cell::RefCell,
    collections::VecDeque,
    sync::{Arc, Weak},
};

use crate::{
    budget::{Action, Budget},
    clients::Watch,
};

thread_local! {
    /// Those of this worker, the oldest first, each with the number that its connection gave it.
    static HEADS: RefCell<VecDeque<(Weak<Watch>, u32)>> = const { RefCell::new(VecDeque::new()) };
}

/// The head on one connection that has not ended, if there is one. What it holds is noted with its `watch`, so that it
/// can be given up by others.
#[derive(Debug)]
pub(super) struct Unfinished {
    budget: Arc<Budget>,
    watch: Arc<Watch>,
}

impl Unfinished {
    /// None yet.
    pub(super) fn new(budget: Arc<Budget>, watch: Arc<Watch>) -> Self {
        Self { budget, watch }
    }

    /// Notes that it has this many bytes. 0: there is none, or it has ended.
    pub(super) fn holds(&self, bytes: u32) {
        let before = self.watch.head_holds(bytes);
        if bytes <= before {
            return self.budget.remove((before - bytes).into());
        }
        self.budget.add((bytes - before).into());
        if before == 0 {
            list(&self.watch);
        }
        if self.budget.is_exhausted()
            && let Some(given_up) = refuse_oldest()
        {
            self.budget.remove(given_up.into());
            self.budget.acted(Action::RefusedRequest);
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.holds(0);
    }
}

fn list(watch: &Arc<Watch>) {
    HEADS.with_borrow_mut(|heads| {
        if heads.len() == heads.capacity() {
            heads.retain(|(watch, number)| watch.upgrade().is_some_and(|watch| watch.is_in_head(*number)));
        }
        heads.push_back((Arc::downgrade(watch), watch.begin_head()));
    });
}

/// Returns how many bytes it held; `None`: there is none.
fn refuse_oldest() -> Option<u32> {
    HEADS.with_borrow_mut(|heads| {
        while let Some((oldest, number)) = heads.pop_front() {
            if let Some(oldest) = oldest.upgrade().filter(|oldest| oldest.is_in_head(number)) {
                return Some(oldest.overload());
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clients::{Patience, WaitingFor};

    #[test]
    fn the_oldest_head_that_has_not_ended_is_refused() {
        let (budget, patience) =
            (Arc::new(Budget::new(250)), Patience::new(Duration::from_secs(1), Duration::from_secs(1)));
        let begin = || {
            let watch = patience.watch();
            watch.wait(WaitingFor::Head);
            let head = Unfinished::new(Arc::clone(&budget), Arc::clone(&watch));
            head.holds(100);
            (watch, head)
        };
        let (ended, head) = begin();
        ended.wait(WaitingFor::Request);
        head.holds(0);
        let (oldest, _head) = begin();
        let (next, head) = begin();
        assert!(![&ended, &oldest, &next].iter().any(|watch| watch.is_overloaded()));

        head.holds(200);

        assert_eq!([&ended, &oldest, &next].map(|watch| watch.is_overloaded()), [false, true, false]);
        assert_eq!(budget.held(), 200, "what is refused counts no more");
        drop((head, _head));
        assert_eq!(budget.held(), 0);
    }
}
