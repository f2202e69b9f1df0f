//! Memory that what is over leaves to what comes next on the same worker, for which malloc would take longer.

use std::{cell::RefCell, thread::LocalKey};

/// What nobody has now, at most so many.
#[derive(Debug)]
pub struct Spare<T> {
    left: RefCell<Vec<T>>,
    most: usize,
}

impl<T> Spare<T> {
    /// A place for `most`, with none in it.
    pub const fn new(most: usize) -> Self {
        Self { left: RefCell::new(Vec::new()), most }
    }

    /// One that was left.
    pub fn take(&self) -> Option<T> {
        self.left.borrow_mut().pop()
    }

    /// Leaves `one` for whoever takes it next, if there is room.
    pub fn leave(&self, one: T) {
        let mut left = self.left.borrow_mut();
        if left.len() < self.most {
            left.push(one);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.left.borrow().len()
    }
}

/// Leaves `one` in its thread's place. At the end of the thread there may be none any more.
pub fn leave<T>(place: &'static LocalKey<Spare<T>>, one: T) {
    let _ = place.try_with(|spare| spare.leave(one));
}
