//! What is known of a condition: that it holds, that it does not, or neither.

use std::ops::{BitAnd, BitOr, Not};

/// Whether something holds. Of what is not known, `U` says why, where there is more than one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Truth<U = ()> {
    No,
    Unknown(U),
    Yes,
}

impl<U> From<bool> for Truth<U> {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

impl<U> Not for Truth<U> {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Yes => Self::No,
            unknown @ Self::Unknown(_) => unknown,
        }
    }
}

impl BitAnd for Truth {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.min(other)
    }
}

impl BitOr for Truth {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.max(other)
    }
}
