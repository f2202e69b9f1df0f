//! Takes connections, and gives each to one worker for the rest of its life.
//!
//! With one worker (the default) that worker accepts for itself. With more, one acceptor hands each socket
//! to the worker with the fewest connections. No SO_REUSEPORT: a second proxy must fail with "in use".

mod ports;

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinSet,
};

pub use self::ports::{PortState, Ports, keep};
use crate::{
    arrival::{Arrival, Direction, OriginalDestination, canonical},
    clients::Client,
    error::Reason,
    gateway, inbound,
    io::reset,
    outbound,
    step::{Request, Step, in_boxes},
    time::when_woken,
    worker::{Shared, Worker},
};

/// How long accepting pauses when the process has no file descriptor left.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);

/// Where connections come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entrance {
    /// Which way they go.
    pub direction: Direction,
    /// Which of the settings' upstreams they are for.
    upstream: Option<usize>,
    /// Which of a gateway's ports they came to.
    gateway: Option<u16>,
}

impl Entrance {
    /// A listener for whatever the app sends.
    pub const OUTBOUND: Self = Self { direction: Direction::Outbound, upstream: None, gateway: None };
    /// The listener for whatever is sent to the app.
    pub const INBOUND: Self = Self { direction: Direction::Inbound, upstream: None, gateway: None };

    /// A listener for what the app sends to the upstream at `place` of the settings' list.
    pub const fn upstream(place: usize) -> Self {
        Self { direction: Direction::Outbound, upstream: Some(place), gateway: None }
    }

    /// The listener for what clients send to `port` of a gateway.
    pub const fn gateway(port: u16) -> Self {
        Self { direction: Direction::Inbound, upstream: None, gateway: Some(port) }
    }
}

/// A socket on its way to a worker.
#[derive(Debug)]
pub struct Accepted {
    entrance: Entrance,
    socket: std::net::TcpStream,
    peer: SocketAddr,
}

/// Takes connections from `listener` until its direction is closed, and gives each to `take`.
///
/// # Errors
/// If the listener cannot be registered with this thread's runtime.
pub async fn accept(
    direction: Direction,
    listener: std::net::TcpListener,
    shared: &Shared,
    take: impl FnMut(TcpStream, SocketAddr),
) -> io::Result<()> {
    accept_registered(direction, TcpListener::from_std(listener)?, shared, take).await;
    Ok(())
}

/// The same, of a listener that is registered with this thread's runtime.
async fn accept_registered(
    direction: Direction,
    listener: TcpListener,
    shared: &Shared,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let mut exhausted = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.leave.closed(direction) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                exhausted = false;
                // An IPv4 client of a listener for both is shown as what it is.
                let peer = canonical(peer);
                if let Err(error) = socket.set_nodelay(true) {
                    tracing::debug!(%peer, %error, "the connection ended before it was accepted");
                    continue;
                }
                take(socket, peer);
            }
            Err(error) if of_one_connection(&error) => {
                tracing::debug!(%error, "a connection could not be accepted")
            }
            Err(error) => {
                // Told once, and not twenty times a second as long as it lasts.
                if !std::mem::replace(&mut exhausted, true) {
                    tracing::warn!(%error, "cannot accept connections; raise the limit of open files if this lasts");
                }
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

/// Whether an error of `accept` is about the connection and not about us (accept(2)).
fn of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

/// Serves connections on a worker, each in a task of its own; ends when all have ended after the drain.
#[derive(Debug)]
pub struct Server<O, I, G> {
    worker: Rc<Worker>,
    outbound: O,
    inbound: I,
    gateway: G,
    tasks: JoinSet<()>,
}

/// The server of `worker`.
pub fn server(worker: Rc<Worker>) -> Server<impl Step<Request>, impl Step<Request>, impl Step<Request>> {
    let (outbound, inbound) = (in_boxes(outbound::path(&worker)), in_boxes(inbound::path(&worker)));
    let gateway = in_boxes(gateway::path(&worker));
    Server { worker, outbound, inbound, gateway, tasks: JoinSet::new() }
}

impl<O: Step<Request>, I: Step<Request>, G: Step<Request>> Server<O, I, G> {
    /// Takes up one connection. `on_end` is dropped when it has ended.
    pub fn take(
        &mut self,
        Entrance { direction, upstream, gateway }: Entrance,
        socket: TcpStream,
        peer: SocketAddr,
        on_end: impl Sized + 'static,
    ) {
        while self.tasks.try_join_next().is_some() {}
        let worker = Rc::clone(&self.worker);
        // Before a place is taken, for which another newcomer may have to go.
        let seats = match gateway.map(|port| gateway::seats(&worker, peer, port)) {
            None => Vec::new(),
            Some(Some(seats)) => seats,
            Some(None) => return reset(&socket),
        };
        let Some(client) = worker.places.enter(direction) else {
            worker.metrics.connection_refused(direction, false, Reason::Overflow);
            tracing::debug!(%peer, "connection refused: --max-connections are open");
            return reset(&socket);
        };
        seats.into_iter().for_each(|seat| client.sit(seat));
        let Some(arrival) = arrived(&worker, direction, &socket, peer, upstream) else { return };
        let open = worker.leave.open(direction);
        match (direction, gateway) {
            (Direction::Inbound, Some(port)) => {
                let path = self.gateway.clone();
                self.tasks.spawn_local(async move {
                    let _on_end = (on_end, open);
                    let carried = pin!(gateway::connection(
                        Rc::clone(&worker),
                        path,
                        socket,
                        arrival,
                        port,
                        Rc::clone(&client),
                    ));
                    unless_dismissed(&worker, &client, peer, carried).await;
                });
            }
            (Direction::Outbound, _) => {
                let path = self.outbound.clone();
                self.tasks.spawn_local(async move {
                    let _on_end = (on_end, open, client);
                    outbound::connection(worker, path, socket, arrival).await;
                });
            }
            (Direction::Inbound, None) => {
                let path = self.inbound.clone();
                self.tasks.spawn_local(async move {
                    let _on_end = (on_end, open);
                    let carried = pin!(inbound::connection(
                        Rc::clone(&worker),
                        path,
                        socket,
                        arrival,
                        Rc::clone(&client)
                    ));
                    unless_dismissed(&worker, &client, peer, carried).await;
                });
            }
        }
    }

    /// Waits for the connections that are still open.
    pub async fn finish(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// How a connection has come. `None`: it has ended already, or it is not ours to carry.
fn arrived(
    worker: &Worker,
    direction: Direction,
    socket: &TcpStream,
    peer: SocketAddr,
    upstream: Option<usize>,
) -> Option<Arrival> {
    let original = match watched(worker, direction, socket) {
        Ok(original) => original,
        Err(error) => {
            tracing::debug!(%peer, %error, "the connection ended before it was accepted");
            return None;
        }
    };
    let arrival = Arrival { peer, via: None, original, upstream };
    if let Err(failure) = arrival.is_ours_to_carry(direction) {
        worker.metrics.connection_refused(direction, false, failure.reason);
        if let Some(left_out) = worker.says_refused(peer, &failure) {
            let original = original.map(|original| tracing::field::display(original.address));
            tracing::info!(%peer, original, %failure, left_out, "connection refused");
        }
        reset(socket);
        return None;
    }
    Some(arrival)
}

/// Carries a connection that comes in, unless others need its place before that has ended. `carried` is where it is: by
/// value it would be held twice.
async fn unless_dismissed(
    worker: &Worker,
    client: &Client,
    peer: SocketAddr,
    carried: Pin<&mut impl Future<Output = ()>>,
) {
    tokio::select! {
        biased;
        () = carried => {}
        () = when_woken(client.dismissed()) => {
            worker.metrics.connection_refused(Direction::Inbound, false, Reason::Overflow);
            tracing::debug!(%peer, "connection closed to make room for another (--max-connections)");
        }
    }
}

/// Has the kernel watch whether the peer is there; and where `socket` was going, if it was redirected.
fn watched(
    worker: &Worker,
    direction: Direction,
    socket: &TcpStream,
) -> io::Result<Option<OriginalDestination>> {
    // The app is beside us; a peer may be cut off from us.
    if direction == Direction::Inbound {
        worker.settings.liveness.watch(socket, None)?;
    }
    match worker.settings.own.redirected {
        false => Ok(None),
        true => OriginalDestination::of(socket).map(Some),
    }
}

/// What the acceptor holds of a worker: how many connections it carries, and where to send one more.
#[derive(Debug, Clone)]
pub struct WorkerHandle {
    load: Arc<AtomicUsize>,
    sockets: mpsc::UnboundedSender<Accepted>,
}

/// A worker's end of its [`WorkerHandle`].
#[derive(Debug)]
pub struct WorkerInbox {
    load: Arc<AtomicUsize>,
    sockets: mpsc::UnboundedReceiver<Accepted>,
}

/// One more connection of a worker's, as long as this lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A pair of ends.
pub fn worker_channel() -> (WorkerHandle, WorkerInbox) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let load = Arc::new(AtomicUsize::new(0));
    (WorkerHandle { load: Arc::clone(&load), sockets: sender }, WorkerInbox { load, sockets: receiver })
}

/// Gives a connection to the worker with the fewest.
pub fn hand_over(handles: &[WorkerHandle], entrance: Entrance, socket: TcpStream, peer: SocketAddr) {
    let Some(seat) = handles.iter().min_by_key(|seat| seat.load.load(Ordering::Relaxed)) else { return };
    match socket.into_std() {
        Ok(socket) => {
            seat.load.fetch_add(1, Ordering::Relaxed);
            if seat.sockets.send(Accepted { entrance, socket, peer }).is_err() {
                seat.load.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Err(error) => tracing::debug!(%peer, %error, "the connection ended before a worker had it"),
    }
}

impl WorkerInbox {
    /// Takes up connections until the acceptor is gone.
    pub async fn serve<O, I, G>(&mut self, server: &mut Server<O, I, G>)
    where
        O: Step<Request>,
        I: Step<Request>,
        G: Step<Request>,
    {
        while let Some(Accepted { entrance, socket, peer }) = self.sockets.recv().await {
            let counted = Counted(Arc::clone(&self.load));
            match TcpStream::from_std(socket) {
                Ok(socket) => server.take(entrance, socket, peer, counted),
                Err(error) => tracing::debug!(%peer, %error, "the connection ended before a worker had it"),
            }
        }
    }
}
