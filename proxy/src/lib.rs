//! The sidecar: the story of a request.
//!
//! [`outbound`] and [`inbound`] are the two paths, each one readable list of steps; the other modules are
//! the steps, in the order in which a request meets them.

pub mod accept;
pub mod admin;
pub mod app;
pub mod arrival;
pub mod authorize;
pub mod balance;
pub mod bind;
pub mod body;
pub mod budget;
pub mod cli;
pub mod connect;
pub mod control;
pub mod detect;
pub mod discovery;
pub mod error;
pub mod facts;
pub mod fields;
pub mod forward;
pub mod identify;
pub mod inbound;
pub mod io;
pub mod leave;
pub mod listens;
pub mod names;
pub mod normalize;
pub mod opaque;
pub mod outbound;
pub mod own_listeners;
pub mod probes;
pub mod respond;
pub mod retry;
pub mod route;
pub mod seldom;
pub mod serve;
pub mod step;
pub mod telemetry;
pub mod time;
pub mod trust;
pub mod upgrade;
pub mod upstream;
pub mod worker;

pub use app::run;
