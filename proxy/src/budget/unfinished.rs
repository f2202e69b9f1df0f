//! Unfinished HTTP/2 frames and heads: h2 keeps them until they are whole.
//!
//! The rest may come late or never. Their bytes count as those of bodies do. When there are too many, the oldest is
//! given up, with its connection. An honest client finishes a frame or a head quickly, so the oldest is hardly ever an
//! honest client's.

use std::{
    cell::RefCell,
    collections::VecDeque,
    rc::{Rc, Weak},
};

use super::{Action, Budget, Ledger};

/// What h2 takes for a field of a head beside its bytes; a byte may stand for one (RFC 7541, section 6.1).
const FIELD: u64 = 88;

/// About as many fields are taken (`max_header_list_size`, of which each takes 33 bytes at least).
const FIELDS: u64 = 4096;

thread_local! {
    /// The connections of this worker on which something has not ended, the oldest first, each with its number there.
    static BEGUN: RefCell<VecDeque<(Weak<Ledger>, u32)>> = const { RefCell::new(VecDeque::new()) };
}

/// How much memory a head takes of which `bytes` have come.
pub(super) fn room_of_head(bytes: u64) -> u64 {
    bytes + FIELD * bytes.min(FIELDS)
}

/// Something has begun on the connection of `ledger`.
pub(super) fn list(ledger: &Rc<Ledger>) {
    let Some(number) = ledger.begun() else { return };
    BEGUN.with_borrow_mut(|begun| {
        if begun.len() == begun.capacity() {
            begun.retain(|(ledger, number)| {
                ledger.upgrade().is_some_and(|ledger| ledger.begun() == Some(*number))
            });
        }
        begun.push_back((Rc::downgrade(ledger), number));
    });
}

/// Gives up the oldest as long as `budget` is exhausted, and unfinished frames and heads hold most of it.
pub(super) fn make_room(budget: &Budget) {
    while budget.is_exhausted_by_unfinished()
        && let Some(oldest) = oldest()
    {
        oldest.give_up();
        budget.acted(Action::ClosedConnection);
    }
}

fn oldest() -> Option<Rc<Ledger>> {
    BEGUN.with_borrow_mut(|begun| {
        while let Some((oldest, number)) = begun.pop_front() {
            if let Some(oldest) = oldest.upgrade().filter(|oldest| oldest.begun() == Some(number)) {
                return Some(oldest);
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn ledger(budget: &Arc<Budget>) -> Rc<Ledger> {
        Ledger::new(budget, 1 << 20)
    }

    #[test]
    fn the_oldest_goes_first_and_what_ends_in_time_stays() {
        let budget = Arc::new(Budget::new(1000));
        let [ends, oldest, other, newest] = [(); 4].map(|()| ledger(&budget));
        for begun in [&ends, &oldest, &other] {
            begun.unfinished(300, 300);
        }
        ends.unfinished(0, 0);
        ends.unfinished(100, 100);

        newest.unfinished(400, 400);

        assert_eq!(budget.held(), 800);
        assert_eq!([&ends, &oldest, &other, &newest].map(|ledger| ledger.held()), [100, 0, 300, 400]);
        drop((ends, oldest, other, newest));
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn who_is_in_the_middle_of_something_pays_not_for_what_others_hold() {
        let budget = Arc::new(Budget::new(1000));
        let [holds, begins] = [(); 2].map(|()| ledger(&budget));
        holds.body_begins();
        holds.received(2000, false);

        begins.unfinished(100, 100);

        assert_eq!((begins.held(), budget.held()), (100, 2100));
    }
}
