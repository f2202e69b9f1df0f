//! Configuration: asked for, received, checked, bound, put in force.
//!
//! The way of a transaction: `client` receives it, `held` takes it in whole or not at all, `binder`
//! ties what is held to the state that it acts on, and `store` puts the result in force. While the
//! control plane is away everything that was last good stays in force; nothing here ever expires.

pub mod binder;
pub mod client;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod held;
pub mod status;
pub mod store;
pub mod subscriptions;

pub use client::{Discovery, count_out, run};
pub use status::Status;
pub use store::{Store, View, Wanted};
