//! Time limits that cost nothing while nothing has to end.

mod deadline;

pub use selvedge_ops::{WhenWoken, when_woken};

pub use self::deadline::{Deadline, Deadlines};
