//! The one copy loop: bytes both ways between two streams, until both have ended.
//!
//! Each way is read in large pieces and written at once from the same memory; a piece that the other side
//! does not take whole is kept until it does, and nothing more is read meanwhile: who reads slowly slows the
//! writer down. The end of one way is passed on as an end (half-close), and the other way goes on.
//!
//! Who closes without having read everything resets what is sent to it still, and what it said before must arrive all the
//! same: a database's reason for giving up, for instance. So when a stream cannot be written to any more, what has come from it
//! is passed on first.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{BUFFER, Buffer, HEADER, Rest};

/// The most that is read at once: with the header of a frame, what TLS sends at once.
const PIECE: usize = BUFFER - HEADER;

/// Which of the two streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// The one that was there first: the client's.
    Near,
    /// The one that was opened for it.
    Far,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Near => "client",
            Self::Far => "other side",
        })
    }
}

/// One of the two broke.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(crate) struct Broken {
    /// Which.
    pub(crate) side: Side,
    /// How.
    #[source]
    pub(crate) error: io::Error,
}

/// How many bytes went one way.
#[derive(Debug, Default)]
pub(crate) struct Meter<'a> {
    total: Cell<u64>,
    /// What else they are counted in; no other thread writes there.
    also: Option<&'a AtomicU64>,
}

impl<'a> Meter<'a> {
    /// Counts in `also`, too.
    pub(crate) fn new(also: Option<&'a AtomicU64>) -> Self {
        Self { total: Cell::new(0), also }
    }

    /// How many so far.
    pub(crate) fn total(&self) -> u64 {
        self.total.get()
    }

    pub(super) fn add(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.total.set(self.total.get().wrapping_add(bytes));
        if let Some(also) = self.also {
            also.store(also.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
        }
    }
}

/// Copies from `near` to `far` and back until both have ended; `out` and `back` count what was written.
///
/// # Errors
/// [`Broken`] once one of them has broken, and what it had said has been passed on; the other is then of no use
/// either.
pub(crate) async fn copy<N, F>(
    near: &mut N,
    far: &mut F,
    out: &Meter<'_>,
    back: &Meter<'_>,
) -> Result<(), Broken>
where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let (mut outward, mut backward) = (Way::default(), Way::default());
    std::future::poll_fn(|cx| {
        let (near_side, far_side) = (Side::Near, Side::Far);
        let out = outward
            .poll(cx, Pin::new(near), Pin::new(far), out, backward.broken.is_some())
            .map_err(|at| at.of(near_side, far_side))?;
        let back = backward
            .poll(cx, Pin::new(far), Pin::new(near), back, outward.broken.is_some())
            .map_err(|at| at.of(far_side, near_side))?;
        match (out.is_ready(), back.is_ready(), &mut outward.broken, &mut backward.broken) {
            (true, true, ..) => Poll::Ready(Ok(())),
            (_, true, Some(error), _) => Poll::Ready(Err(At::Writing(take(error)).of(near_side, far_side))),
            (true, _, _, Some(error)) => Poll::Ready(Err(At::Writing(take(error)).of(far_side, near_side))),
            _ => Poll::Pending,
        }
    })
    .await
}

/// Which end of one way broke.
enum At {
    Reading(io::Error),
    Writing(io::Error),
}

impl At {
    fn of(self, from: Side, to: Side) -> Broken {
        match self {
            Self::Reading(error) => Broken { side: from, error },
            Self::Writing(error) => Broken { side: to, error },
        }
    }
}

/// One way.
#[derive(Debug, Default)]
struct Way {
    stage: Stage,
    /// What was read and not taken.
    rest: Option<Rest>,
    /// Whether the writer may hold something back.
    unflushed: bool,
    /// Why the writer takes nothing any more.
    broken: Option<io::Error>,
}

#[derive(Debug, Default, Clone, Copy)]
enum Stage {
    #[default]
    Flowing,
    /// The reader has ended, and the writer is being told.
    Ending,
    Ended,
}

impl Way {
    /// `is_last`: the reader can be written to no more, so that its end is not one to be passed on as such.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: Pin<&mut R>,
        to: Pin<&mut W>,
        meter: &Meter<'_>,
        is_last: bool,
    ) -> Poll<Result<(), At>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        if self.broken.is_some() {
            return Poll::Pending;
        }
        match ready!(self.flow(cx, from, to, meter, is_last)) {
            Err(At::Writing(error)) if is_gone(&error) && !is_last => {
                self.rest = None;
                self.broken = Some(error);
                Poll::Pending
            }
            ended => Poll::Ready(ended),
        }
    }

    fn flow<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        mut from: Pin<&mut R>,
        mut to: Pin<&mut W>,
        meter: &Meter<'_>,
        is_last: bool,
    ) -> Poll<Result<(), At>>
    where
        R: AsyncRead,
        W: AsyncWrite,
    {
        loop {
            match self.stage {
                Stage::Flowing => {
                    ready!(self.pass_on_rest(cx, to.as_mut(), meter)).map_err(At::Writing)?;
                    let mut buffer = Buffer::take();
                    let mut into = ReadBuf::new(&mut buffer[..PIECE]);
                    match from.as_mut().poll_read(cx, &mut into) {
                        Poll::Ready(result) => result.map_err(At::Reading)?,
                        Poll::Pending => {
                            ready!(self.flush(cx, to.as_mut())).map_err(At::Writing)?;
                            return Poll::Pending;
                        }
                    }
                    match into.filled().len() {
                        0 => self.stage = Stage::Ending,
                        read => self.rest = Some(Rest::new(buffer, read)),
                    }
                }
                Stage::Ending if is_last => {
                    ready!(self.flush(cx, to.as_mut())).map_err(At::Writing)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ending => {
                    ready!(to.as_mut().poll_shutdown(cx)).or_else(already_gone).map_err(At::Writing)?;
                    self.stage = Stage::Ended;
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn pass_on_rest(
        &mut self,
        cx: &mut Context<'_>,
        mut to: Pin<&mut impl AsyncWrite>,
        meter: &Meter<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(rest) = &mut self.rest {
            let written = ready!(to.as_mut().poll_write(cx, rest.bytes()))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            meter.add(written);
            self.unflushed = true;
            rest.advance(written);
            if rest.is_empty() {
                self.rest = None;
            }
        }
        Poll::Ready(Ok(()))
    }

    fn flush(&mut self, cx: &mut Context<'_>, to: Pin<&mut impl AsyncWrite>) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(to.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

/// Whether a stream's other end takes nothing more; it may have said something before.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Takes an error out of a place that nobody looks at again.
fn take(error: &mut io::Error) -> io::Error {
    std::mem::replace(error, io::ErrorKind::BrokenPipe.into())
}

/// Whoever has already closed need not be told that nothing more comes.
fn already_gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotConnected { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// The two ends of a copy, as those who talk through it see them; each pipe holds `room` bytes.
    fn through(
        room: usize,
    ) -> (DuplexStream, DuplexStream, impl Future<Output = (Result<(), Broken>, u64, u64)>) {
        let (client, mut near) = duplex(room);
        let (server, mut far) = duplex(room);
        let copying = async move {
            let (out, back) = (Meter::default(), Meter::default());
            let ended = copy(&mut near, &mut far, &out, &back).await;
            (ended, out.total(), back.total())
        };
        (client, server, copying)
    }

    #[tokio::test]
    async fn the_end_of_one_way_is_passed_on_and_the_other_goes_on() {
        let (mut client, mut server, copying) = through(1024);
        let talking = async {
            client.write_all(b"question").await.unwrap();
            client.shutdown().await.unwrap();
            let mut question = String::new();
            server.read_to_string(&mut question).await.unwrap();
            assert_eq!(question, "question", "the server sees the end");

            server.write_all(b"a longer answer").await.unwrap();
            drop(server);
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer, "a longer answer");
        };

        let ((), (ended, out, back)) = tokio::join!(talking, copying);

        assert!(ended.is_ok());
        assert_eq!((out, back), (8, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_stops_stops_the_writer() {
        let room = 1 << 10;
        let (mut client, server, copying) = through(room);
        let writing = async {
            let mut sent = 0;
            while let Ok(written) =
                tokio::time::timeout(Duration::from_secs(1), client.write(&[7; 4096])).await
            {
                sent += written.unwrap();
            }
            sent
        };

        let sent = tokio::select! {
            sent = writing => sent,
            _ = copying => unreachable!("nobody has closed"),
        };

        let held = 2 * room + BUFFER;
        assert!(sent <= held, "{sent} bytes were taken in for somebody who reads none");
        drop(server);
    }

    /// A stream whose other end is gone.
    struct Gone;

    impl AsyncRead for Gone {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }
    }

    impl AsyncWrite for Gone {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
        }
    }

    /// A stream that takes nothing, and has something to say.
    struct Leaving(&'static [u8]);

    impl AsyncRead for Leaving {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_read(cx, buf)
        }
    }

    impl AsyncWrite for Leaving {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_was_said_before_a_stream_broke_is_passed_on() {
        for is_server in [true, false] {
            let (mut talking, mut end) = duplex(4);
            let mut leaving = Leaving(b"why it leaves");
            let (out, back) = (Meter::default(), Meter::default());
            let copying = async {
                if is_server {
                    copy(&mut end, &mut leaving, &out, &back).await
                } else {
                    copy(&mut leaving, &mut end, &out, &back).await
                }
            };
            let (mut ended, mut heard) = (None, vec![0; 13]);
            talking.write_all(b"more").await.unwrap();

            tokio::join!(async { ended = Some(copying.await) }, async {
                _ = talking.read_exact(&mut heard).await
            },);

            assert_eq!(heard, b"why it leaves");
            let side = if is_server { Side::Far } else { Side::Near };
            assert_eq!(ended.unwrap().expect_err("it broke").side, side);
        }
    }

    #[tokio::test]
    async fn whoever_breaks_is_named() {
        let (_client, mut near) = duplex(8);

        let ended = copy(&mut near, &mut Gone, &Meter::default(), &Meter::default()).await;

        assert_eq!(ended.expect_err("it broke").side, Side::Far);
    }

    #[test]
    fn an_open_connection_needs_little() {
        let (_client, mut near) = duplex(8);
        let (_server, mut far) = duplex(8);
        let (out, back) = (Meter::default(), Meter::default());

        let copying = copy(&mut near, &mut far, &out, &back);

        assert!(size_of_val(&copying) <= 240, "{}", size_of_val(&copying));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever the sizes of what is written and of what is taken, the bytes arrive as they were sent.
        #[test]
        fn bytes_arrive_in_their_order(
            room in 1_usize..300,
            out in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..8),
            back in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..400), 0..8),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (outward, backward) = (out.concat(), back.concat());
            let (at_server, at_client) = runtime.block_on(async {
                let (client, server, copying) = through(room);
                let exchange = |stream: DuplexStream, pieces: Vec<Vec<u8>>| async move {
                    let (mut reader, mut writer) = tokio::io::split(stream);
                    let writing = async {
                        for piece in pieces {
                            writer.write_all(&piece).await.unwrap();
                        }
                        writer.shutdown().await.unwrap();
                    };
                    let mut read = Vec::new();
                    let (_, ended) = tokio::join!(writing, reader.read_to_end(&mut read));
                    ended.unwrap();
                    read
                };
                let (at_client, at_server, (ended, ..)) =
                    tokio::join!(exchange(client, out), exchange(server, back), copying);
                ended.unwrap();
                (at_server, at_client)
            });
            prop_assert_eq!(at_server, outward);
            prop_assert_eq!(at_client, backward);
        }
    }
}
