//! Whether a client's connection gets a place: by how often its address connects, by how many connections its address has
//! open, and by how many its listener has.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

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
    if is_clients && comes_too_often(worker, peer) {
        return None;
    }
    in_order(is_clients.then(|| peer.ip()), listener, |whose, listener| seat(worker, peer, whose, listener))
}

/// Places from `seat` for a client with this address that comes to this listener, each if it is to be counted. That of the
/// address first: no connection of others is closed for a client that is refused all the same.
fn in_order(
    address: Option<IpAddr>,
    listener: Option<u16>,
    mut seat: impl FnMut(Whose, Option<u16>) -> Option<Seat>,
) -> Option<Vec<Seat>> {
    let mut seats = Vec::new();
    if let Some(address) = address {
        seats.push(seat(Whose::Address(address), listener)?);
    }
    if let Some(port) = listener {
        seats.push(seat(Whose::Listener(port), None)?);
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

#[cfg(test)]
mod tests {
    use std::{rc::Rc, sync::Arc, time::Duration};

    use futures_util::FutureExt;

    use super::*;
    use crate::clients::{Client, ClientLimits, ClientRates, Clients, Patience, Places};

    const LIMITS: ClientLimits = ClientLimits { connections: Some(2), unfinished: 0, listener: Some(3) };

    /// A client of `address` at port 80, if it gets its places; an idle one, if `is_idle`.
    fn come(places: &Places, address: &str, is_idle: bool) -> Option<Rc<Client>> {
        let client = places.enter(Direction::Inbound).expect("there is room for all");
        let seats = in_order(Some(address.parse().unwrap()), Some(80), |whose, listener| {
            places.seat(whose, listener).ok()
        })?;
        seats.into_iter().for_each(|seat| client.sit(seat));
        assert!(places.admit_plain(&client));
        if is_idle {
            client.watch_with(&Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch());
        }
        Some(client)
    }

    #[test]
    fn no_connection_of_others_is_closed_for_an_address_that_has_all_that_it_may_have() {
        let places = Places::new(Arc::new(Clients::new(Some(100), LIMITS, ClientRates::default())));
        let idle = come(&places, "192.0.2.1", true).unwrap();
        let greedy = [come(&places, "192.0.2.2", false).unwrap(), come(&places, "192.0.2.2", false).unwrap()];

        // The listener has as many as it may have, and the idle one would have to go for another.
        assert!(come(&places, "192.0.2.2", false).is_none());
        assert!(idle.dismissed().now_or_never().is_none());

        assert!(come(&places, "192.0.2.3", false).is_some());
        assert!(idle.dismissed().now_or_never().is_some(), "it goes for one that may come");
        drop(greedy);
    }
}
