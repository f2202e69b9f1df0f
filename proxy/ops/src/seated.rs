//! A connection with a place: it ends when another connection gets its place, when it is silent for too long, and when
//! it does not read what it asked for.
//!
//! This is below HTTP, because a hostile stranger mostly does not send or does not read, and the HTTP library has no
//! limit for that.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::places::{Activity, Doing, Place};

/// How long a connection may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For what it has to say.
    pub reading: Reading,
    /// To take all of what it is sent at once.
    pub writing: Duration,
    /// How many bytes it may say in all.
    pub bytes: u64,
}

/// How long a connection may take for what it has to say.
#[derive(Debug, Clone, Copy)]
pub enum Reading {
    /// One request after the other, as HTTP/1 has it. While one is served, nothing is expected.
    Requests {
        /// For the head of a request, from its first byte; of the first request from the connection's beginning.
        head: Duration,
        /// From one request to the next.
        idle: Duration,
    },
    /// For all of it together.
    Whole(Duration),
    /// No limit here: the server has limits of its own.
    Endless,
}

impl Reading {
    fn clock(self) -> Option<Pin<Box<Sleep>>> {
        match self {
            Self::Requests { head: limit, .. } | Self::Whole(limit) => Some(Box::pin(sleep(limit))),
            Self::Endless => None,
        }
    }
}

/// A connection with its place.
#[derive(Debug)]
pub struct Seated<S> {
    stream: S,
    place: Place,
    activity: Activity,
    patience: Patience,
    said: u64,
    /// What `clock` was set for.
    seen: Doing,
    clock: Option<Pin<Box<Sleep>>>,
    /// Runs from the first byte that was not taken at once until all are.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Seated<S> {
    /// `stream`, for as long as it has `place`.
    pub fn new(stream: S, place: Place, patience: Patience) -> Self {
        let (clock, activity) = (patience.reading.clock(), place.activity());
        Self { stream, place, activity, patience, said: 0, seen: Doing::Silent, clock, stalled: None }
    }

    /// Goes on in another place, with another patience, as if it had just come.
    pub fn move_to(&mut self, place: Place, patience: Patience) {
        self.activity = place.activity();
        (self.place, self.patience) = (place, patience);
        (self.said, self.seen, self.stalled) = (0, Doing::Silent, None);
        self.clock = patience.reading.clock();
    }

    /// Where it says what it does.
    pub fn activity(&self) -> Activity {
        self.activity.clone()
    }

    /// The connection itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    fn check_place(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.place.poll_taken(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "closed to make room for another connection",
            )),
            Poll::Pending => Ok(()),
        }
    }

    /// Sets the clock for what the connection does now.
    fn follow(&mut self) {
        let now = self.activity.now();
        let Reading::Requests { head, idle } = self.patience.reading else { return };
        if now == self.seen {
            return;
        }
        match (self.seen, now) {
            // The first head's clock runs from the beginning.
            (Doing::Silent, Doing::Speaking) => {}
            (_, Doing::Speaking | Doing::Silent) => self.clock = Some(Box::pin(sleep(head))),
            (_, Doing::Idle) => self.clock = Some(Box::pin(sleep(idle))),
            (_, Doing::Busy) => self.clock = None,
        }
        self.seen = now;
    }

    fn check_clock(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        self.follow();
        match self.clock.as_mut().map(|clock| clock.as_mut().poll(context)) {
            Some(Poll::Ready(())) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "took too long to send its request"))
            }
            _ => Ok(()),
        }
    }

    /// Passes on `written`; what is not taken must be in time.
    fn written<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let limit = self.patience.writing;
            let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
            ready!(stalled.as_mut().poll(context));
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "did not read what was sent to it",
            )));
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Seated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_place(context)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let said = buffer.filled().len() - before;
        if said > 0 && self.activity.now() < Doing::Speaking {
            self.activity.set(Doing::Speaking);
        }
        self.said += said as u64;
        if self.said > self.patience.bytes {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "sends more than is allowed",
            )));
        }
        // Also of one that always has another byte to say.
        self.check_clock(context)?;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Seated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_place(context)?;
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check_place(context)?;
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_place(context)?;
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() {
            self.stalled = None;
        }
        self.written(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(shut, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;
    use crate::places::{Limits, Places};

    const HEAD: Duration = Duration::from_secs(2);
    const IDLE: Duration = Duration::from_secs(30);
    const WRITING: Duration = Duration::from_secs(10);

    fn seated() -> (DuplexStream, Seated<DuplexStream>) {
        let (theirs, ours) = duplex(64);
        let places = Places::new(Limits { strangers: 1, per_address: 1, known: 1, busy_stay: false });
        let place = places.enter("192.0.2.1".parse().unwrap(), false).unwrap();
        let patience = Patience {
            reading: Reading::Requests { head: HEAD, idle: IDLE },
            writing: WRITING,
            bytes: u64::MAX,
        };
        (theirs, Seated::new(ours, place, patience))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_byte_by_byte_has_the_time_of_a_head() {
        let (mut theirs, mut ours) = seated();
        let began = Instant::now();
        tokio::spawn(async move {
            while theirs.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });

        let mut all = Vec::new();
        let ended = ours.read_to_end(&mut all).await.unwrap_err();

        assert_eq!((ended.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, HEAD.as_secs()));
    }

    #[tokio::test(start_paused = true)]
    async fn between_requests_there_is_more_time_and_while_one_is_served_no_limit() {
        let (mut theirs, mut ours) = seated();
        theirs.write_all(b"x").await.unwrap();
        ours.read_u8().await.unwrap();
        ours.activity().set(Doing::Busy);

        let served = tokio::time::timeout(10 * IDLE, ours.read_u8()).await;
        assert!(served.is_err(), "{served:?}");
        ours.activity().set(Doing::Idle);
        let began = Instant::now();

        assert_eq!(ours.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), IDLE.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_a_byte_now_and_then_does_not_stay() {
        let (mut theirs, mut ours) = seated();
        let began = Instant::now();
        tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });

        assert_eq!(ours.write_all(&[0; 4096]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), WRITING.as_secs());
    }
}
