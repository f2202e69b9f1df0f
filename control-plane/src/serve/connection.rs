//! Connections to one of our TLS ports: TCP, our own TLS, and who is at the other end.
//!
//! TLS is ours and not tonic's, so that a renewed certificate is used from the next connection on, and every request
//! knows the identity that its client proved. Handshakes run in parallel, so a silent client delays nobody. A stranger
//! has little time and few bytes for its handshake, and then one of few places. Clients that have proven their identity
//! have their own places.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use selvedge_certs::verify::Peer;
use selvedge_ops::{
    Drain, Remark,
    http2::Calm,
    memory,
    places::{Activity, Doing, Limits, Place, Places},
    seated::{Patience, Reading, Seated},
    sparing::Sparing,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::sleep,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    exchange::Heard,
    own::{Caller, OwnCertificate, UnknownClient},
};

/// For a handshake: a ClientHello with a post-quantum key share has 2 KiB, a certificate with its issuer's as much.
const HANDSHAKE: Patience = Patience {
    reading: Reading::Whole(Duration::from_secs(5)),
    writing: Duration::from_secs(5),
    bytes: 16 << 10,
};
/// The most handshakes at once, and those from one address.
const HANDSHAKES: (usize, usize) = (1024, 256);
/// When so many handshakes are in progress, the next connection is accepted when one of them is done: more at once would be
/// none sooner, and all of them later than their clients wait. The kernel keeps the others in the order in which they came.
const IN_TURN: usize = 256;
/// Of these, the most from one address; what it has beyond keeps nobody waiting. Few, so that it takes many addresses to
/// have all the turns.
const IN_TURN_OF_ONE: usize = 4;
/// For how long a client that says nothing keeps others waiting, and then for how long one that does not go on. A client that
/// goes on later has not lost anything: it only keeps nobody waiting any more.
const HOLDS_UP: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(300)];
/// So many handshakes are a herd, which has passed when none ended for [`QUIET`].
const HERD: u64 = 200;
/// See [`HERD`].
const QUIET: Duration = Duration::from_millis(200);
/// The most connections at once of clients that have proven nothing, and those from one address.
const STRANGERS: (usize, usize) = (256, 64);
/// Of the files that we may open, the parts for handshakes, for strangers and for those who are known.
const SHARES: (usize, usize, usize) = (8, 16, 2);
/// Pause after a failed accept: without one, too many open files would be a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who sent a request; in the extensions of every one.
#[derive(Debug, Clone)]
pub struct Client {
    /// Where the connection comes from.
    pub address: SocketAddr,
    /// What the client certificate proved; `None` = it sent none.
    pub peer: Option<Arc<Peer>>,
    /// The SHA-256 of the root that its certificate leads to.
    pub root: Option<Arc<str>>,
    /// Where it is said what the connection does: one that is busy keeps its place.
    pub activity: Activity,
    /// Whoever says Hello on a stream of this connection has it: one that is long takes half a MiB until all of it is here.
    pub greeting: Arc<Semaphore>,
}

/// A connection whose handshake is done.
#[derive(Debug)]
pub struct Connection {
    pub(crate) stream: TlsStream<Seated<TcpStream>>,
    pub(crate) client: Client,
}

/// How long connections may take once their handshake is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionTimeouts {
    /// Those that have proven nothing.
    pub(crate) stranger: Patience,
    /// Those that have shown a certificate.
    pub(crate) known: Patience,
}

/// Where connections go whose handshake is done.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    /// Those that have proven nothing.
    pub(crate) strangers: mpsc::Sender<io::Result<Connection>>,
    /// Those that have shown a certificate.
    pub(crate) known: mpsc::Sender<io::Result<Connection>>,
}

/// Why a connection was not accepted.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("TLS handshake: {0}")]
    Tls(#[from] io::Error),
    #[error("all places for clients without a certificate are taken by ones that are busy")]
    Crowded,
    #[error(
        "all {0} places for clients with a certificate are taken by ones that are busy; these are half of the files that the \
         process may open: raise its hard limit (ulimit -Hn, LimitNOFILE), or add a replica"
    )]
    Full(usize),
    #[error("the client has left before it was its turn")]
    Left,
    #[error(transparent)]
    Peer(#[from] UnknownClient),
}

/// One of our TLS ports.
#[derive(Debug)]
pub(crate) struct Port {
    /// What it is called in the log.
    pub(crate) name: &'static str,
    /// What it is served with.
    pub(crate) own: Arc<OwnCertificate>,
    /// What is expected of its clients.
    pub(crate) manners: ConnectionTimeouts,
    /// Holds while clients come faster than they can be let in.
    pub(crate) crowded: Option<Remark>,
}

/// The port, and its places.
#[derive(Debug)]
struct Open {
    port: Port,
    arriving: Arc<Places>,
    staying: Arc<Places>,
    /// Whose turn it is to shake hands.
    turns: Arc<Semaphore>,
    /// How many handshakes are over.
    handshakes: AtomicU64,
    /// How many clients may be known.
    known: usize,
    /// What was written of clients for whom there was no place.
    said: Mutex<Sparing>,
}

impl Port {
    /// Accepts connections and gives away those whose handshake is done, until the drain begins.
    ///
    /// # Errors
    /// If the listener cannot be given to the runtime.
    pub(crate) async fn accept(
        self,
        listener: std::net::TcpListener,
        accepted: Accepted,
        drain: Drain,
    ) -> io::Result<()> {
        let listener = TcpListener::from_std(listener)?;
        let files = selvedge_ops::files::raise();
        let few = |(all, of_address): (usize, usize), known| {
            let all = all.min(files / if known == 0 { SHARES.0 } else { SHARES.1 }).max(1);
            Places::new(Limits { strangers: all, per_address: of_address.min(all), known, busy_stay: true })
        };
        let known = (files / SHARES.2).max(1);
        let (arriving, staying) = (few(HANDSHAKES, 0), few(STRANGERS, known));
        let open = Arc::new(Open {
            port: self,
            arriving,
            staying,
            turns: Arc::new(Semaphore::new(IN_TURN)),
            handshakes: AtomicU64::new(0),
            known,
            said: Mutex::default(),
        });
        tokio::select! {
            () = Arc::clone(&open).accept_all(listener, accepted) => {}
            () = open.give_back_after_herds() => {}
            _ = drain.drained() => {}
        }
        Ok(())
    }
}

impl Open {
    async fn accept_all(self: Arc<Self>, listener: TcpListener, accepted: Accepted) {
        let mut handshakes = JoinSet::new();
        while !accepted.known.is_closed() {
            let arrived = tokio::select! {
                // What a handshake needed is given back when it is over, and not when somebody else comes.
                Some(_) = handshakes.join_next() => continue,
                arrived = listener.accept() => arrived,
            };
            match arrived {
                Ok((stream, address)) => {
                    let turn = self.turn(address).await;
                    if let Some(place) = self.arriving.enter(address.ip(), false) {
                        let (open, accepted) = (Arc::clone(&self), accepted.clone());
                        let activity = place.activity();
                        handshakes.spawn(async move {
                            // In its place at once: there is room for whatever is moved in both of its places.
                            let welcome = pin!(open.welcome(stream, address, place, accepted));
                            holding(turn, &activity, welcome).await;
                            open.calm_down();
                        });
                    }
                    // What it has said already is read before the next is let in, who may need its place.
                    tokio::task::yield_now().await;
                }
                Err(error) => {
                    tracing::warn!(%error, "{} cannot accept", self.port.name);
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits until a client from `address` may shake hands. `None`: it keeps nobody waiting.
    async fn turn(&self, address: SocketAddr) -> Option<OwnedSemaphorePermit> {
        if self.arriving.strangers_from(address.ip()) >= IN_TURN_OF_ONE {
            return None;
        }
        let turns = Arc::clone(&self.turns);
        if let Ok(turn) = Arc::clone(&turns).try_acquire_owned() {
            return Some(turn);
        }
        if let Some(crowded) = &self.port.crowded {
            crowded.set(true);
        }
        // Nobody closes it.
        turns.acquire_owned().await.ok()
    }

    /// Handshakes need memory for a moment. When many are over and no more come, it is given back.
    async fn give_back_after_herds(&self) {
        let mut given_back_at = 0;
        let mut before = 0;
        loop {
            sleep(QUIET).await;
            let done = self.handshakes.load(Ordering::Relaxed);
            if done == before && done - given_back_at >= HERD {
                given_back_at = done;
                // It fails only when the process ends.
                drop(tokio::task::spawn_blocking(memory::give_back).await);
            }
            before = done;
        }
    }

    /// A handshake is over.
    fn calm_down(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
        if let Some(crowded) =
            self.port.crowded.as_ref().filter(|_| self.turns.available_permits() > IN_TURN / 2)
        {
            crowded.set(false);
        }
    }

    async fn welcome(&self, stream: TcpStream, address: SocketAddr, place: Place, accepted: Accepted) {
        match self.shake_hands(stream, address, place).await {
            Ok(connection) => {
                let Accepted { strangers, known } = accepted;
                let to = if connection.client.peer.is_some() { known } else { strangers };
                // It fails only when nobody serves any more.
                drop(to.send(Ok(connection)).await);
            }
            Err(error @ HandshakeError::Full(_)) => {
                let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(left_out) = said.says(self.port.name, Instant::now()) {
                    tracing::warn!(%address, %error, left_out, "{} refused a connection", self.port.name);
                }
            }
            // Of strangers there may be many.
            Err(error @ (HandshakeError::Tls(_) | HandshakeError::Left)) => {
                tracing::debug!(%address, %error, "{} refused a connection", self.port.name);
            }
            Err(error) => tracing::info!(%address, %error, "{} refused a connection", self.port.name),
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        place: Place,
    ) -> Result<Connection, HandshakeError> {
        stream.set_nodelay(true)?;
        let own = &self.port.own;
        let acceptor = TlsAcceptor::from(own.tls());
        // In a herd most of a client's wait is over when its connection is accepted. A handshake with somebody who has given
        // up would only make the others wait for longer.
        if has_left(&stream) {
            return Err(HandshakeError::Left);
        }
        let mut stream = acceptor.accept(Seated::new(stream, place, HANDSHAKE)).await?;
        let caller = own.caller(&stream)?;
        let is_known = !matches!(caller, Caller::Stranger);
        let manners = &self.port.manners;
        let patience = if is_known { manners.known } else { manners.stranger };
        let full = || if is_known { HandshakeError::Full(self.known) } else { HandshakeError::Crowded };
        let place = self.staying.enter(address.ip(), is_known).ok_or_else(full)?;
        let activity = place.activity();
        stream.get_mut().0.move_to(place, patience);
        let (peer, root) = if let Caller::Workload(peer, root) = caller {
            (Some(Arc::new(peer)), root)
        } else {
            (None, None)
        };
        Ok(Connection {
            stream,
            client: Client { address, peer, root, activity, greeting: Arc::new(Semaphore::new(1)) },
        })
    }
}

/// Does `work`, and keeps the `turn` until it is done, or its client takes too long.
async fn holding(
    turn: Option<OwnedSemaphorePermit>,
    activity: &Activity,
    mut work: Pin<&mut impl Future<Output = ()>>,
) {
    let [silent, slow] = HOLDS_UP;
    for limit in [silent, slow] {
        tokio::select! {
            biased;
            () = &mut work => return,
            () = sleep(limit) => {}
        }
        if activity.now() == Doing::Silent {
            break;
        }
    }
    drop(turn);
    work.await;
}

/// Whether the client has closed its side, though what it said before may not have been read yet.
fn has_left(stream: &TcpStream) -> bool {
    let mut polled = [PollFd::new(stream, PollFlags::RDHUP)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&at_once)).is_ok_and(|ready| ready > 0)
}

/// A connection of gRPC.
#[derive(Debug)]
pub(crate) struct GrpcConnection {
    /// By itself, because its task has room for each value that is moved into it twice.
    stream: Box<Calm<TlsStream<Seated<TcpStream>>>>,
    heard: Heard,
}

impl GrpcConnection {
    /// The connection, and who has it.
    pub(super) fn new(connection: Connection) -> (Self, Client) {
        let Connection { stream, client } = connection;
        (Self { stream: Box::new(Calm::new(stream)), heard: Heard::now() }, client)
    }

    /// When something was last heard of its client.
    pub(super) fn heard(&self) -> Heard {
        self.heard.clone()
    }
}

impl AsyncRead for GrpcConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.heard.again();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for GrpcConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant as Clock;

    use super::*;

    /// How long a client that does `doing` and never ends keeps others waiting.
    async fn holds_up(doing: Doing) -> Duration {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).try_acquire_owned().ok();
        let places = Places::new(Limits { strangers: 1, per_address: 1, known: 1, busy_stay: false });
        let place = places.enter("192.0.2.1".parse().unwrap(), false).unwrap();
        let activity = place.activity();
        activity.set(doing);
        let began = Clock::now();
        let endless = async move { holding(turn, &activity, pin!(std::future::pending())).await };
        tokio::select! {
            () = endless => unreachable!("it never ends"),
            _ = turns.acquire() => began.elapsed(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_keeps_others_waiting_for_a_moment_and_who_does_not_go_on_for_a_longer_one() {
        assert_eq!(holds_up(Doing::Silent).await.as_millis() / 10, 10);
        assert_eq!(holds_up(Doing::Speaking).await.as_millis() / 10, 40);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_has_its_turn_when_a_handshake_is_done() {
        let turns = Arc::new(Semaphore::new(1));
        let turn = Arc::clone(&turns).try_acquire_owned().ok();
        let places = Places::new(Limits { strangers: 1, per_address: 1, known: 1, busy_stay: false });
        let activity = places.enter("192.0.2.1".parse().unwrap(), false).unwrap().activity();
        let began = Clock::now();

        holding(turn, &activity, pin!(sleep(Duration::from_millis(30)))).await;

        assert_eq!(turns.available_permits(), 1);
        assert_eq!(began.elapsed().as_millis() / 10, 3);
    }
}
