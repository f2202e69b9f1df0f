//! Whether a client's connection gets a place: by how often its address connects, by how many connections its address has
//! open, and by how many its listener has.

use std::{net::SocketAddr, time::Instant};

use super::proxied;
use crate::{
    arrival::Direction,
    clients::{Reached, Seat, Whose},
    error::Reason,
    worker::Worker,
};

/// Places for a connection from `peer` to `port`: among those of its address, and among those of its listener if there are
/// several. `None`: there is none, and it is refused.
///
/// Connections of a load balancer count for the clients that it names. Proxies that speak HTTP (`--trusted-hops`) name another
/// client with each request.
pub fn seats(worker: &Worker, peer: SocketAddr, port: u16) -> Option<Vec<Seat>> {
    let listener = one_of_several(worker, port);
    let is_clients = worker.settings.trusted_hops == 0 && !proxied::is_announced(&worker.settings, peer.ip());
    let mut seats = Vec::new();
    // That of its address first: no connection of others is closed for a client that is refused all the same.
    if is_clients {
        if comes_too_often(worker, peer) {
            return None;
        }
        seats.push(seat(worker, peer, Whose::Address(peer.ip()), listener)?);
    }
    if let Some(port) = listener {
        seats.push(seat(worker, peer, Whose::Listener(port), None)?);
    }
    Some(seats)
}

/// `port`, if the gateway has others.
pub(super) fn one_of_several(worker: &Worker, port: u16) -> Option<u16> {
    worker.view.with(|table| table.gateway.len() > 1).then_some(port)
}

/// Whether the client at `peer` connects more often than it may. It is refused then.
pub(super) fn comes_too_often(worker: &Worker, peer: SocketAddr) -> bool {
    let too_often = worker.places.rates().connect(peer.ip(), Instant::now()).is_err();
    if too_often {
        refuse_place(worker, peer, Whose::Address(peer.ip()), Reached::Rate);
    }
    too_often
}

/// A place among those of `whose`, who comes to `listener` if that is one of several. `None`: there are as many as there may
/// be, and `peer` is refused.
pub(super) fn seat(worker: &Worker, peer: SocketAddr, whose: Whose, listener: Option<u16>) -> Option<Seat> {
    match worker.places.seat(whose, listener) {
        Ok(seat) => Some(seat),
        Err(reached) => {
            refuse_place(worker, peer, whose, reached);
            None
        }
    }
}

/// Counts and logs a connection of `peer` that gets no place, because `whose` has `reached` a limit.
fn refuse_place(worker: &Worker, peer: SocketAddr, whose: Whose, reached: Reached) {
    worker.metrics.connection_refused(Direction::Inbound, false, Reason::Overflow);
    worker.metrics.control.client_limit_refusals.inc();
    if let Some(left_out) = worker.said.says(("a client's limit", reached), Instant::now()) {
        let limit = reached.setting();
        let whose = match whose {
            Whose::Address(address) => format!("from {address}"),
            Whose::Listener(port) => format!("to port {port}"),
        };
        let what = reached.what();
        tracing::info!(%peer, limit, left_out, "connection refused: {what} {whose} as one may have");
    }
}
