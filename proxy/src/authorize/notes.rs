//! Notes who is let in, once per connection.

use selvedge_model::{facts::Connection, seen::Caller};

use super::{opaque_refusal, refusal};
use crate::{seen::Open, worker::Worker};

/// Notes that a connection has come in which may carry requests. `None`: policy lets none of them in, or nothing is kept.
pub(crate) fn note_caller(worker: &Worker, connection: &Connection<'_>) -> Option<Open> {
    if refusal(worker, connection).is_some() { None } else { noted(worker, connection) }
}

/// The same of a connection that carries opaque bytes.
pub(crate) fn note_opaque_caller(worker: &Worker, connection: &Connection<'_>) -> Option<Open> {
    if opaque_refusal(worker, connection).is_some() { None } else { noted(worker, connection) }
}

fn noted(worker: &Worker, connection: &Connection<'_>) -> Option<Open> {
    let source = &connection.source;
    let caller = match source.identity {
        Some(identity) => Caller::Identity(identity.clone()),
        None => Caller::Address(source.address?.to_canonical()),
    };
    // What is for no port of ours is served to nobody.
    let port = Some(connection.port).filter(|port| *port != 0)?;
    worker.seen.note(worker.index, caller, port)
}
