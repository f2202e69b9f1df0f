//! Names to addresses, for everything that the proxy connects to. All of it on the control thread.
//!
//! Workers [`ask`] for a name that only a request knows and wait for the answer, never for a system call.

pub mod ask;

pub use ask::{Asker, Question};
