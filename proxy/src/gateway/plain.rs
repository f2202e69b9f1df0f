//! A client that begins in plaintext: with HTTP, or with anything on a port for opaque TCP.

use std::{rc::Rc, sync::Arc};

use futures_util::future::FutureExt;

use super::{Begun, Served, TLS_AT_PLAINTEXT, admit, first, proxied::unannounced, refuse_connection};
use crate::{
    arrival::Direction,
    authorize::admit_opaque,
    bind::BoundPort,
    detect::{Detected, First},
    error::{Failure, Reason},
    facts,
    io::{Prefixed, reset},
    lifetime, lookup,
    opaque::{self, Outgoing},
    serve,
    step::{AtGateway, Conn, HttpVersion, Request, Side, Step},
    worker::Worker,
};

/// Begins to serve a client's requests. `None`: it is refused.
pub(super) async fn http(
    worker: Rc<Worker>,
    path: impl Step<Request>,
    begun: Begun,
    port: Arc<BoundPort>,
) -> Option<Served> {
    let Begun { mut tcp, mut read, arrival, client } = begun;
    let Some(First::Bytes(detected)) = first(&worker, &mut tcp, &mut read, &port).await else { return None };
    if let Some(failure) = unannounced(&read) {
        refuse_connection(&worker, arrival, &failure);
        reset(&tcp);
        return None;
    }
    let version = match detected {
        Detected::Http2 => HttpVersion::Http2,
        // What is neither is refused in HTTP's own words.
        Detected::Http1 | Detected::Opaque => HttpVersion::Http1,
        Detected::Tls => {
            refuse_connection(&worker, arrival, &Failure::new(Reason::Protocol, TLS_AT_PLAINTEXT));
            reset(&tcp);
            return None;
        }
    };
    if !admit(&worker, arrival, &client, &tcp) {
        return None;
    }
    let open = worker.metrics.connection_opened(Direction::Inbound, false);
    let until = lifetime::until(Rc::clone(&worker), Direction::Inbound, None).within(port.life.clone());
    let gateway = AtGateway::new(arrival, port, client, worker.settings.trusted_hops);
    let conn = Conn::new(arrival, version, Side::Gateway(Box::new(gateway)));
    let served = serve::serve(version, Prefixed::new(read.freeze(), tcp), path, Rc::new(conn), until);
    Some(served.map(|()| drop(open)).boxed_local())
}

/// Carries what a client sends as it is, to where the port's rules say.
pub(super) async fn opaque(worker: Rc<Worker>, begun: Begun, port: Arc<BoundPort>) {
    let Begun { tcp, read, arrival, client } = begun;
    let connection = facts::at_gateway(arrival.peer, arrival.via, port.served.port);
    let destination = admit_opaque(&worker, &connection).and_then(|()| lookup::opaque_host(&port, None));
    let destination = match destination {
        Ok(destination) => destination,
        Err(failure) => {
            refuse_connection(&worker, arrival, &failure);
            return reset(&tcp);
        }
    };
    if !admit(&worker, arrival, &client, &tcp) {
        return;
    }
    let _open = worker.metrics.connection_opened(Direction::Inbound, false);
    let outgoing = Outgoing::to(arrival.peer, None, destination);
    let outgoing = outgoing.through_gateway(port.served.port, arrival.via, port.life.clone());
    opaque::outbound::carry(worker, outgoing, tcp, read).await;
}
