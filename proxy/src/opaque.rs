//! Opaque TCP: bytes that are carried as they are, because nobody has said what they mean.
//!
//! The same way as requests take, without what needs to understand them: a policy's verdict on the
//! connection and not on each request, a service's TCP and TLS routes instead of its HTTP routes, one
//! endpoint for the whole connection. Between sidecars each of the app's has a mesh connection to itself while it
//! lasts, so that half-closing, slowness and resets mean at one end what they meant at the other; when it has
//! ended well, the mesh connection is there for the next one ([`Framed`](crate::io::Framed)).

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
