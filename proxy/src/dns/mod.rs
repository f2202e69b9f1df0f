//! Names to addresses, for everything that the proxy connects to. All of it on the control thread.
//!
//! Endpoints by name are [`watch`]ed for as long as they are configured and become endpoints with
//! addresses in [`reach`]; workers [`ask`] for a name that only a request knows and wait for the answer,
//! never for a system call.

pub mod ask;
pub mod reach;
mod watch;

pub use self::{
    ask::{Asker, Question},
    reach::{DnsName, Doubt, Names, Reached},
};
