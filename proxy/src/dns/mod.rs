//! DNS for everything that the proxy connects to. It runs on the control thread.
//!
//! Names of endpoints are looked up again and again while they are configured (`watch`), and become endpoints with
//! addresses (`reach`). Workers `ask` for a name that only a request knows, and wait for the answer, never for a
//! system call.

pub mod ask;
mod families;
pub mod listed;
pub mod reach;
mod watch;

pub use self::{
    ask::{Asker, Question},
    listed::Listed,
    reach::{DnsName, Doubt, Found, Names, Reached},
};
