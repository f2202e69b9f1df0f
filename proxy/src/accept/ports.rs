//! A gateway's listening sockets. They open and close as configuration says, without touching each other's connections.
//!
//! A port that cannot be opened is tried again; the others are served meanwhile.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use selvedge_ops::{announce, listen, readiness::Condition};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use super::{Entrance, accept_registered};
use crate::{
    arrival::Direction,
    bind::{BoundPort, Life},
    worker::Shared,
};

/// What says where a gateway listens.
const SETTING: &str = "config.selvedge.io/gateway-ports";

/// How long until a port that could not be opened is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A gateway's ports, as they are now. Shared by the thread that accepts and those that tell of it.
#[derive(Debug)]
pub struct Ports {
    states: Mutex<BTreeMap<u16, PortState>>,
    ready: Condition,
}

/// How a port is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum PortState {
    /// Clients can connect here.
    Listening(SocketAddr),
    /// It could not be opened, and is tried again.
    Failed(String),
}

impl Ports {
    /// None yet. `ready` is met once those are open that configuration names.
    pub fn new(ready: Condition) -> Self {
        Self { states: Mutex::default(), ready }
    }

    /// All of them, by the port that clients call.
    pub fn states(&self) -> BTreeMap<u16, PortState> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u16, PortState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether one of them failed.
    fn have_failed(&self) -> bool {
        self.lock().values().any(|state| matches!(state, PortState::Failed(_)))
    }

    /// Says how `port` is; tells of a failure once, however often it is repeated.
    fn failed(&self, port: u16, why: &str) {
        let state = PortState::Failed(why.to_owned());
        if self.lock().insert(port, state.clone()) != Some(state) {
            tracing::error!(
                port,
                "a port of this gateway cannot be opened; it is tried again every second: {why}"
            );
        }
    }

    /// A gateway none of whose ports is open serves nobody.
    fn set_ready(&self) {
        let states = self.lock();
        let open = states.values().any(|state| matches!(state, PortState::Listening(_)));
        let ready = open || states.is_empty();
        drop(states);
        self.ready.set(ready);
    }
}

/// An open socket.
struct Open {
    /// Where configuration says that it is.
    listens: SocketAddr,
    socket: Life,
}

/// Opens and closes the ports of the table in force, and gives each connection to `take`, until the way in is closed.
pub async fn keep(shared: &Shared, ports: &Ports, take: impl Fn(Entrance, TcpStream, SocketAddr)) {
    let mut changed = shared.store.subscribe();
    let mut open: BTreeMap<u16, Open> = BTreeMap::new();
    let mut accepting = FuturesUnordered::new();
    loop {
        changed.borrow_and_update();
        let table = shared.store.table();
        close(&mut open, &table.gateway, ports);
        for (number, port) in &table.gateway {
            if open.contains_key(number) {
                continue;
            }
            match listener(port) {
                Ok((listener, at)) => {
                    announce(&format!("gateway/{number}"), at);
                    ports.lock().insert(*number, PortState::Listening(at));
                    let socket = Life::default();
                    let opened = Open { listens: port.listens, socket: socket.clone() };
                    open.insert(*number, opened);
                    accepting.push(accept_on(*number, listener, shared, socket, &take));
                }
                Err(why) => {
                    shared.metrics.control.gateway_listen_failures.inc();
                    ports.failed(*number, &why);
                }
            }
        }
        tell(shared, ports, table.own.is_some());
        drop(table);
        tokio::select! {
            changed = changed.changed() => if changed.is_err() { return },
            Some(()) = accepting.next() => {}
            () = tokio::time::sleep(RETRY), if ports.have_failed() => {}
            () = shared.leave.closed(Direction::Inbound) => return,
        }
    }
}

/// Closes the sockets of ports that are gone, or are to be elsewhere.
fn close(open: &mut BTreeMap<u16, Open>, served: &BTreeMap<u16, Arc<BoundPort>>, ports: &Ports) {
    open.retain(|number, open| {
        let stays = served.get(number).is_some_and(|port| port.listens == open.listens);
        if !stays {
            open.socket.end();
            tracing::info!(port = number, "a port of this gateway is closed");
        }
        stays
    });
    ports.lock().retain(|number, _| served.contains_key(number));
}

/// Says where we listen now, to whoever must know.
fn tell(shared: &Shared, ports: &Ports, is_configured: bool) {
    let listening = ports.states().into_values().filter_map(|state| match state {
        PortState::Listening(at) => Some(at),
        PortState::Failed(_) => None,
    });
    shared.settings.own.gateway.store(Arc::new(listening.collect()));
    if is_configured {
        ports.set_ready();
    }
}

/// Opens the socket of `port`, so that it can accept. Returns it and where it is.
fn listener(port: &BoundPort) -> Result<(TcpListener, SocketAddr), String> {
    let listener = listen::tcp(SETTING, port.listens).map_err(|error| error.to_string())?;
    let registered = TcpListener::from_std(listener).and_then(|listener| {
        let at = listener.local_addr()?;
        Ok((listener, at))
    });
    registered.map_err(|error| error.to_string())
}

async fn accept_on(
    number: u16,
    listener: TcpListener,
    shared: &Shared,
    socket: Life,
    take: impl Fn(Entrance, TcpStream, SocketAddr),
) {
    let entrance = Entrance::gateway(number);
    let accepting =
        accept_registered(Direction::Inbound, listener, shared, |tcp, peer| take(entrance, tcp, peer));
    tokio::select! {
        () = accepting => {}
        () = socket.ended() => {}
    }
}
