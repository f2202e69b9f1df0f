//! A connection that a load balancer has opened, which names its client by the PROXY protocol.
//!
//! Only the sources of `--proxy-protocol-from` are believed. From them the header is required: without it, whoever reaches
//! the load balancer would count as the load balancer. From all others it is refused.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use bytes::Buf;
use tokio::io::AsyncReadExt;

use super::{
    Begun,
    places::{comes_too_often, one_of_several, seat},
    refuse_connection,
};
use crate::{
    arrival::Arrival,
    clients::Whose,
    detect::proxied::{Header, begins, parse},
    error::{Failure, Reason},
    io::reset,
    settings::Settings,
    worker::Worker,
};

/// How long a load balancer may take to name its client. It knows whom it carries before it connects.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Room for a usual header.
const FIRST_READ: usize = 512;

/// Whether connections from `address` begin with a header.
pub(super) fn is_announced(settings: &Settings, address: IpAddr) -> bool {
    settings.proxied_from.iter().any(|network| network.contains(&address))
}

/// `begun` as its client's, whom its load balancer names. `None`: it names none in time, and is refused.
pub(super) async fn named(worker: &Worker, mut begun: Begun, port: u16) -> Option<Begun> {
    let balancer = begun.arrival;
    let client = match tokio::time::timeout(TIMEOUT, header(&mut begun)).await {
        Ok(Ok(client)) => client,
        Ok(Err(failure)) => {
            refuse_connection(worker, balancer, &failure);
            reset(&begun.tcp);
            return None;
        }
        Err(_) => {
            let what = format!("no PROXY protocol header came from it within {TIMEOUT:?}");
            refuse_connection(worker, balancer, &Failure::new(Reason::Timeout, what));
            reset(&begun.tcp);
            return None;
        }
    };
    if let Some(client) = client {
        begun.arrival = Arrival { peer: client, via: Some(balancer.peer.ip()), ..balancer };
        if worker.settings.trusted_hops == 0 {
            let listener = one_of_several(worker, port);
            let place = || seat(worker, client, Whose::Address(client.ip()), listener);
            let Some(place) = (!comes_too_often(worker, client)).then(place).flatten() else {
                reset(&begun.tcp);
                return None;
            };
            begun.client.sit(place);
        }
    }
    Some(begun)
}

/// Reads the header. The client that it names, if it names one.
async fn header(begun: &mut Begun) -> Result<Option<SocketAddr>, Failure> {
    let wrong = |what: String| {
        let what = format!(
            "{what}; --proxy-protocol-from names this address, so a PROXY protocol header is required"
        );
        Failure::new(Reason::Protocol, what)
    };
    loop {
        begun.read.reserve(FIRST_READ);
        match begun.tcp.read_buf(&mut begun.read).await {
            Ok(0) => return Err(wrong("the connection was closed before its header was whole".to_owned())),
            Ok(_) => {}
            Err(error) => return Err(wrong(format!("the connection broke: {error}"))),
        }
        match parse(&begun.read) {
            Header::Partial => {}
            Header::Whole { length, client } => {
                begun.read.advance(length);
                return Ok(client);
            }
            Header::Wrong(why) => return Err(wrong(format!("its header is wrong: {why}"))),
        }
    }
}

/// Why a connection is refused that begins with a header which nobody has announced. `None`: it does not.
pub(super) fn unannounced(read: &[u8]) -> Option<Failure> {
    // As long as no method of HTTP and no message of TLS can be.
    const SURE: usize = 6;
    (read.len() >= SURE && begins(read)).then(|| {
        let what =
            "it begins with a PROXY protocol header, and --proxy-protocol-from does not name this address";
        Failure::new(Reason::Protocol, what)
    })
}
