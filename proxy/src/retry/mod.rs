//! Retries: when, how often, and with which bytes.
//!
//! Three parts that know nothing of each other. The model's policy (`decide`) says whether an attempt's end is
//! worth another one; the [`RetryBudget`](crate::budget::RetryBudget) keeps retries a small share of what a service is
//! sent, because a fixed number of attempts multiplies the load on a service just when it is failing;
//! [`Original`](crate::body::Original) keeps what was read of a request's body, so that another attempt can send it
//! again.
//!
//! The order in which they are asked: `decide`; unless the request is proven undelivered
//! [`withdraw`](crate::budget::RetryBudget::withdraw); then [`attempt`](crate::body::Original::attempt), whose `None`
//! means that the answer at hand is final.

mod attempts;
mod hedge;
mod told;

pub use selvedge_model::retry::{AttemptOutcome, Decision, Failure, decide};

pub use self::attempts::attempts;
