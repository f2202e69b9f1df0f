//! Time limits that cost nothing while nothing has to end.

mod deadline;
mod when_woken;

pub use self::{
    deadline::{Deadline, Deadlines},
    when_woken::{WhenWoken, when_woken},
};
