//! Opaque TCP: bytes that are carried as they are, because nothing says what they mean.
//!
//! They take the same way as requests, without the steps that need to understand them. A policy judges the connection,
//! not each request. A service's TCP and TLS routes apply, not its HTTP routes. One endpoint serves the whole
//! connection. Between sidecars, each connection has a mesh connection to itself while it lasts, so that half-closing,
//! slowness and resets mean the same at both ends. If it ends well, the mesh connection is kept for the next one
//! ([`Framed`](crate::io::Framed)).

mod answer;
pub(crate) mod copy;
mod endpoint;
pub(crate) mod inbound;
mod incoming;
pub(crate) mod outbound;
mod outgoing;
pub(crate) mod session;
mod tunnel;

pub(crate) use self::{incoming::Incoming, outgoing::Outgoing, tunnel::PromisedTunnel};
