//! What became of the configuration: problems in documents, and what each proxy holds.
//!
//! What the admin port says of it are public types, which the command line reads again.

mod answers;
mod certificates;
mod overview;
mod problems;
mod proxies;
mod written;

pub(crate) use self::overview::Overview;
pub use self::{
    answers::{Arrival, Config, Counts, Summary},
    certificates::{Life, OwnCertificates, Purpose},
    problems::{Problems, Verdicts},
    proxies::{Proof, Proxies, Proxy, RefusedTransaction, Registration},
};
