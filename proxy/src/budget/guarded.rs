//! An HTTP/2 connection's bytes, read only as long as there is room for what they bring.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{
    Action, Ledger, PATIENCE, SHARE,
    calm::Calm,
    frames::{
        CONTINUATION, DATA, END_HEADERS, Frame, Frames, HEADERS, RST_STREAM, Seen, WINDOW_UPDATE, goaway,
    },
    unfinished::room_of_head,
};

/// How often a connection that is not read from looks whether it may be. A timer only while there is too
/// much; the others' threads would be hard to be told by.
const LOOK: Duration = Duration::from_millis(50);

/// Streams that were given up last: data for them may still be on its way.
const GIVEN_UP: usize = 16;

/// Which side of a connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// We accepted it.
    Server,
    /// We opened it.
    Client,
}

/// See the module.
#[derive(Debug)]
pub struct Guarded<S> {
    inner: S,
    ledger: Rc<Ledger>,
    side: Side,
    /// The other side.
    peer: SocketAddr,
    arriving: Frames,
    leaving: Leaving,
    calm: Calm,
    unfinished: Unfinished,
    pause: Option<Box<Pause>>,
}

/// What has not come to its end: a frame, or a head, which may have several.
#[derive(Debug, Default)]
struct Unfinished {
    bytes: u64,
    is_head: bool,
    /// Whether its end is the frame's.
    ends: bool,
}

impl Unfinished {
    fn begins(&mut self, frame: Frame) {
        if self.ends || frame.kind != CONTINUATION {
            self.bytes = 0;
        }
        self.is_head = matches!(frame.kind, HEADERS | CONTINUATION);
        self.ends = !self.is_head || frame.flags & END_HEADERS != 0;
    }

    /// `between`: no frame has begun that has not ended.
    fn account(&mut self, between: bool, ledger: &Rc<Ledger>) {
        if between && self.ends {
            self.bytes = 0;
        }
        let room = if self.is_head { room_of_head(self.bytes) } else { self.bytes };
        ledger.unfinished(self.bytes, room);
    }
}

/// What is sent, as far as it says something about what arrives.
#[derive(Debug)]
struct Leaving {
    frames: Frames,
    /// The streams that were reset last, and the place of the oldest.
    given_up: [u32; GIVEN_UP],
    oldest: usize,
    /// A window update's payload so far.
    increment: u32,
    seen: usize,
}

/// A time in which the connection is not read from.
#[derive(Debug)]
struct Pause {
    look: Pin<Box<Sleep>>,
    /// What it held when that last became less, and when that was.
    held: u64,
    since: Instant,
}

impl<S> Guarded<S> {
    /// A connection with `peer` whose bytes are kept account of in `ledger`.
    pub fn new(inner: S, ledger: Rc<Ledger>, side: Side, peer: SocketAddr) -> Self {
        let (arriving, leaving) = match side {
            Side::Server => (Frames::of_client(), Frames::of_server()),
            Side::Client => (Frames::of_server(), Frames::of_client()),
        };
        let leaving = Leaving { frames: leaving, given_up: [0; GIVEN_UP], oldest: 0, increment: 0, seen: 0 };
        let calm = Calm::new(Instant::now().into_std());
        let unfinished = Unfinished::default();
        Self { inner, ledger, side, peer, arriving, leaving, calm, unfinished, pause: None }
    }

    fn has_room(&self) -> bool {
        !self.ledger.budget().is_exhausted() || self.ledger.held() < SHARE
    }

    /// Ready when it may be read from.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.has_room() {
                self.pause = None;
                return Poll::Ready(Ok(()));
            }
            let held = self.ledger.held();
            let pause = self.pause.get_or_insert_with(|| {
                let (look, since) = (Box::pin(tokio::time::sleep(LOOK)), Instant::now());
                Box::new(Pause { look, held, since })
            });
            if held < pause.held {
                (pause.held, pause.since) = (held, Instant::now());
            }
            if pause.since.elapsed() >= PATIENCE {
                self.ledger.budget().acted(Action::ClosedConnection);
                // Whoever does not take a body does not notice that it has broken off.
                self.ledger.let_go();
                let what = format!("it held {held} unread bytes while --buffer-budget was exhausted");
                return Poll::Ready(Err(io::Error::other(what)));
            }
            ready!(pause.look.as_mut().poll(cx));
            pause.look.as_mut().reset(Instant::now() + LOOK);
        }
    }

    /// Takes account of what has come. The frame that is one too many, if there is one.
    fn arrived(&mut self, bytes: &[u8]) -> Option<Frame> {
        let Self { arriving, ledger, leaving, calm, unfinished, .. } = self;
        let mut too_many = None;
        arriving.pass(bytes, |frame, seen| match (seen, frame.kind) {
            (Seen::Head, _) => {
                unfinished.begins(frame);
                if !calm.arrived(frame, || Instant::now().into_std()) {
                    too_many = Some(frame);
                }
            }
            (Seen::Piece(piece), DATA) => {
                ledger.received(piece.len(), leaving.given_up.contains(&frame.stream));
            }
            (Seen::Piece(piece), _) => unfinished.bytes += piece.len() as u64,
        });
        unfinished.account(arriving.is_between(), ledger);
        too_many
    }
}

impl<S: AsyncWrite + Unpin> Guarded<S> {
    /// Ends a connection that floods us, of which `frame` is one too many: with GOAWAY, if that can be said at once.
    fn end(&mut self, cx: &mut Context<'_>, frame: Frame) -> io::Error {
        let Self { peer, side, .. } = *self;
        self.ledger.budget().flooded(side);
        tracing::info!(%peer, ?side, kind = frame.kind, "ended an HTTP/2 connection that sends too many frames without content");
        if self.leaving.frames.is_between() {
            let highest = if side == Side::Server { self.calm.highest() } else { 0 };
            let goaway = goaway(highest);
            // Who takes nothing is told nothing.
            let mut inner = Pin::new(&mut self.inner);
            if let Poll::Ready(Ok(_)) = inner.as_mut().poll_write(cx, &goaway) {
                let _ = inner.poll_flush(cx);
            }
        }
        io::Error::other("it sent too many frames without content")
    }
}

impl Leaving {
    fn pass(&mut self, bytes: &[u8], ledger: &Ledger, calm: &mut Calm) {
        let Self { frames, given_up, oldest, increment, seen } = self;
        frames.pass(bytes, |frame, part| match (part, frame.kind) {
            (Seen::Head, RST_STREAM) if !given_up.contains(&frame.stream) => {
                given_up[*oldest] = frame.stream;
                *oldest = (*oldest + 1) % GIVEN_UP;
            }
            (Seen::Head, _) => calm.sent(frame),
            (Seen::Piece(piece), WINDOW_UPDATE) if frame.stream == 0 => {
                for byte in piece {
                    *increment = *increment << 8 | u32::from(*byte);
                    *seen += 1;
                }
                if *seen == size_of::<u32>() {
                    ledger.returned(*increment & !(1 << 31));
                    (*increment, *seen) = (0, 0);
                }
            }
            _ => {}
        });
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ledger.is_cut(cx.waker()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        ready!(this.poll_room(cx))?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        match this.arrived(&buf.filled()[before..]) {
            None => Poll::Ready(Ok(())),
            Some(frame) => Poll::Ready(Err(this.end(cx, frame))),
        }
    }
}

impl<S> Drop for Guarded<S> {
    fn drop(&mut self) {
        self.ledger.close();
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, buf))?;
        this.leaving.pass(&buf[..written], &this.ledger, &mut this.calm);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, bufs))?;
        let mut left = written;
        for buf in bufs {
            let part = left.min(buf.len());
            this.leaving.pass(&buf[..part], &this.ledger, &mut this.calm);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::{
        super::{Budget, frames::GOAWAY},
        *,
    };

    const WINDOW: u32 = 1 << 24;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    /// A server's end that has just told its client how large its window is.
    async fn guarded(budget: u64) -> (DuplexStream, Guarded<DuplexStream>, Rc<Ledger>, Arc<Budget>) {
        let budget = Arc::new(Budget::new(budget));
        let ledger = Ledger::new(&budget, WINDOW);
        let (mut client, server) = duplex(1 << 20);
        let mut server = Guarded::new(server, Rc::clone(&ledger), Side::Server, ([127, 0, 0, 1], 1).into());
        server.write_all(&frame(WINDOW_UPDATE, 0, &(WINDOW - 65_535).to_be_bytes())).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        (client, server, ledger, budget)
    }

    /// Reads all that has arrived and may be read.
    fn read(server: &mut Guarded<DuplexStream>) -> Option<io::Error> {
        let mut bytes = Vec::new();
        loop {
            match server.read_buf(&mut bytes).now_or_never()? {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(error),
            }
        }
    }

    #[tokio::test]
    async fn data_is_held_and_nothing_else() {
        let (mut client, mut server, ledger, _) = guarded(1000).await;
        ledger.body_begins();

        client.write_all(&frame(4, 0, &[0; 48])).await.unwrap();
        client.write_all(&frame(DATA, 1, &[0; 300])).await.unwrap();
        read(&mut server);
        assert_eq!(ledger.held(), 300);

        server.write_all(&frame(RST_STREAM, 1, &[0; 4])).await.unwrap();
        client.write_all(&frame(DATA, 1, &[0; 40])).await.unwrap();
        client.write_all(&frame(DATA, 3, &[0; 7])).await.unwrap();
        read(&mut server);
        assert_eq!(ledger.held(), 307, "what comes for a stream that was reset is not kept");

        server.write_all(&frame(WINDOW_UPDATE, 1, &300_u32.to_be_bytes())).await.unwrap();
        assert_eq!(ledger.held(), 307, "that was the stream's window");
        let update = frame(WINDOW_UPDATE, 0, &340_u32.to_be_bytes());
        server.write_all(&update[..11]).await.unwrap();
        server.write_all(&update[11..]).await.unwrap();
        assert_eq!(ledger.held(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_too_much_is_not_read_from_until_it_is_taken() {
        let (mut client, mut server, ledger, budget) = guarded(100_000).await;
        ledger.body_begins();
        let large = vec![0; 70_000];
        for _ in 0..3 {
            client.write_all(&frame(DATA, 1, &large)).await.unwrap();
        }
        assert!(read(&mut server).is_none());
        assert!(budget.is_exhausted() && ledger.held() < 210_000, "{}", ledger.held());

        ledger.taken(usize::try_from(ledger.held()).unwrap() - 1000);
        tokio::time::advance(LOOK).await;
        assert!(read(&mut server).is_none());
        assert!(ledger.held() > 1000, "it is read from again");
    }

    #[tokio::test]
    async fn a_flood_ends_with_a_word_and_is_counted() {
        let (mut client, mut server, _, budget) = guarded(1000).await;
        client.write_all(&frame(HEADERS, 5, &[0; 5])).await.unwrap();
        client.write_all(&frame(6, 0, &[0; 8]).repeat(1_001)).await.unwrap();

        assert!(read(&mut server).unwrap().to_string().contains("too many frames"));

        drop(server);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert!(told.ends_with(&frame(GOAWAY, 0, &[0, 0, 0, 5, 0, 0, 0, 0xb])), "{told:?}");
        assert_eq!(budget.floods().map(|(_, count)| count).collect::<Vec<_>>(), [1, 0]);
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_ends_while_it_is_waited_for() {
        let (_client, mut server, ledger, _) = guarded(1000).await;
        assert!(read(&mut server).is_none());
        let mut buffer = [0];
        let mut reading = std::pin::pin!(server.read(&mut buffer));
        assert!(reading.as_mut().now_or_never().is_none());
        let cutting = async {
            tokio::task::yield_now().await;
            ledger.cut();
        };

        let (end, ()) = tokio::join!(reading, cutting);

        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn a_frame_of_any_kind_that_has_not_ended_is_held_and_the_oldest_goes() {
        for kind in [77, HEADERS, 4, GOAWAY] {
            let (mut client, mut server, ledger, budget) = guarded(1 << 20).await;
            let mut begun = frame(kind, 0, &[0; 9_000]);
            begun[4] = END_HEADERS;
            client.write_all(&begun[..8_009]).await.unwrap();
            assert!(read(&mut server).is_none());
            assert_eq!(ledger.held(), 8_000, "kind {kind}");
            assert!(budget.held() >= 8_000);

            client.write_all(&begun[8_009..]).await.unwrap();
            assert!(read(&mut server).is_none());
            assert_eq!((ledger.held(), budget.held()), (0, 0), "kind {kind}");
        }

        let (mut client, mut server, ledger, budget) = guarded(10_000).await;
        client.write_all(&frame(77, 0, &[0; 20_000])[..15_000]).await.unwrap();
        assert_eq!(read(&mut server).unwrap().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!((ledger.held(), budget.held()), (0, 0));
    }

    #[tokio::test]
    async fn a_head_that_has_not_ended_is_held() {
        let (mut client, mut server, ledger, budget) = guarded(200_000).await;
        client.write_all(&frame(HEADERS, 1, &[0; 600])).await.unwrap();
        client.write_all(&frame(CONTINUATION, 1, &[0; 700])).await.unwrap();
        assert!(read(&mut server).is_none());
        assert_eq!(ledger.held(), 1300);
        assert!(budget.held() > 100_000, "each byte may be a field: {}", budget.held());

        let last = [&[0, 0, 1, CONTINUATION, END_HEADERS, 0, 0, 0, 1, 0][..]].concat();
        client.write_all(&last).await.unwrap();
        assert!(read(&mut server).is_none());
        assert_eq!((ledger.held(), budget.held()), (0, 0));

        client.write_all(&frame(HEADERS, 3, &[0; 600])).await.unwrap();
        assert!(read(&mut server).is_none());
        drop((server, ledger));
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_takes_ends_its_connection() {
        let (mut client, mut server, ledger, budget) = guarded(10).await;
        ledger.body_begins();
        client.write_all(&frame(DATA, 1, &vec![0; 70_000])).await.unwrap();
        assert!(read(&mut server).is_none());

        tokio::time::advance(PATIENCE).await;

        assert!(read(&mut server).unwrap().to_string().contains("--buffer-budget"));
        let closed = budget.actions().find(|(action, _)| *action == Action::ClosedConnection);
        assert_eq!(closed, Some((Action::ClosedConnection, 1)));
        drop((server, ledger));
        assert_eq!(budget.held(), 0);
    }
}
