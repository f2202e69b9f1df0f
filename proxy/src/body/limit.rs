//! How long a request's body may be. A body that declares its length is refused before it is read; any other is cut off
//! where it exceeds the limit.

use std::cell::Cell;

/// The limit of one body.
#[derive(Debug)]
pub struct SizeLimit {
    most: u64,
    left: Cell<u64>,
    exceeded: Cell<bool>,
}

impl SizeLimit {
    /// At most `most` bytes.
    pub fn new(most: u64) -> Self {
        Self { most, left: Cell::new(most), exceeded: Cell::new(false) }
    }

    /// Notes that `bytes` have come. `false`: they are too many.
    pub fn takes(&self, bytes: usize) -> bool {
        match self.left.get().checked_sub(bytes as u64) {
            Some(left) => self.left.set(left),
            None => self.exceeded.set(true),
        }
        !self.exceeded.get()
    }

    /// How many bytes it may have, if it had more.
    pub fn exceeded(&self) -> Option<u64> {
        self.exceeded.get().then_some(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_up_to_the_limit_are_taken_and_not_one_more() {
        let limit = SizeLimit::new(10);

        assert!(limit.takes(4) && limit.takes(6) && limit.takes(0));
        assert_eq!(limit.exceeded(), None);
        assert!(!limit.takes(1));
        assert!(!limit.takes(0), "it is over");
        assert_eq!(limit.exceeded(), Some(10));
    }
}
