//! A limit on frames that cost a client nothing, but cost us an answer or a place in a table.
//!
//! The frames are counted as they pass, before the HTTP/2 library sees them (RFC 9113, section 10.5, names them). Each
//! takes one from an allowance. The allowance grows with time, and with what we send, because a window is updated as
//! often as it is filled. Requests count as well: a client of the control plane makes few. The sidecar, whose clients
//! may make any number, has its own rule for the same frames.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::frames::{DATA, Frame, Frames, HEADERS, Seen, goaway};

/// The most frames at once.
const MOST: f64 = 2_000.0;
/// How many more each second.
const PER_SECOND: f64 = 200.0;
/// The number of sent bytes for which one more frame is allowed.
const BYTES_PER_FRAME: f64 = 1024.0;

/// A server's connection whose client's frames are counted.
#[derive(Debug)]
pub struct Calm<S> {
    stream: S,
    arriving: Frames,
    leaving: Frames,
    allowance: f64,
    at: Instant,
    /// The highest stream that the client has opened.
    highest: u32,
}

impl<S> Calm<S> {
    /// `stream`, from its first byte on.
    pub fn new(stream: S) -> Self {
        let (arriving, leaving) = (Frames::of_client(), Frames::of_server());
        Self { stream, arriving, leaving, allowance: MOST, at: Instant::now(), highest: 0 }
    }

    /// Counts the frames in `bytes`. `false`: they are too many.
    fn is_calm(&mut self, bytes: &[u8]) -> bool {
        let now = Instant::now();
        self.grow((now - self.at).min(Duration::from_secs(60)).as_secs_f64() * PER_SECOND);
        self.at = now;
        let Self { arriving, allowance, highest, .. } = self;
        arriving.pass(bytes, |frame, seen| {
            if seen == Seen::Head {
                *allowance -= cost(frame);
                *highest = if frame.kind == HEADERS { frame.stream.max(*highest) } else { *highest };
            }
        });
        *allowance >= 0.0
    }

    fn grow(&mut self, by: f64) {
        self.allowance = (self.allowance + by).min(MOST);
    }

    /// `bytes` are on their way.
    fn sent(&mut self, bytes: &[u8]) {
        self.leaving.pass(bytes, |_, _| {});
        self.grow(bytes.len() as f64 / BYTES_PER_FRAME);
    }
}

fn cost(frame: Frame) -> f64 {
    if frame.kind == DATA && frame.length > 0 { 0.0 } else { 1.0 }
}

impl<S: AsyncWrite + Unpin> Calm<S> {
    /// The end of a connection that floods: with GOAWAY, if that can be said at once.
    fn end(&mut self, context: &mut Context<'_>) -> io::Error {
        if self.leaving.is_between() {
            let mut stream = Pin::new(&mut self.stream);
            // Who takes nothing is told nothing.
            if let Poll::Ready(Ok(_)) = stream.as_mut().poll_write(context, &goaway(self.highest)) {
                let _ = stream.poll_flush(context);
            }
        }
        io::Error::other("it sent too many frames without content")
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if self.is_calm(&buffer.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        buffer.set_filled(before);
        Poll::Ready(Err(self.end(context)))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            self.sent(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const PING: [u8; 17] = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    const REQUEST: [u8; 10] = [0, 0, 1, HEADERS, 4, 0, 0, 0, 7, 0x82];

    /// What the server reads of `sent` in pieces of so many bytes, how that ends, and the client.
    async fn read(sent: Vec<u8>, piece: usize) -> (Vec<u8>, io::Result<usize>, DuplexStream) {
        let (mut client, server) = duplex(1 << 20);
        client.write_all(&[PREFACE, &sent].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut calm = Calm::new(server);
        let (mut all, mut part) = (Vec::new(), vec![0; piece]);
        loop {
            match calm.read(&mut part).await {
                Ok(read @ 1..) => all.extend_from_slice(&part[..read]),
                end => return (all.split_off(PREFACE.len()), end, client),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_ends_with_goaway_in_whatever_pieces_it_comes() {
        for piece in [4, 9, 17, 1000, 16 << 10] {
            let (seen, end, mut client) = read([&REQUEST[..], &PING.repeat(5_000)].concat(), piece).await;

            assert!(end.unwrap_err().to_string().contains("too many frames"), "{piece}");
            assert!(seen.len() <= PING.len() * 2_000, "{piece}: {}", seen.len());
            let mut told = Vec::new();
            client.read_to_end(&mut told).await.unwrap();
            assert_eq!(told, goaway(7), "{piece}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_within_the_allowance_is_read_as_it_is() {
        let data = [0, 0, 1, DATA, 0, 0, 0, 0, 1, b'x'].repeat(20_000);
        for sent in [PING.repeat(1_000), data] {
            let (seen, end, _) = read(sent.clone(), 4096).await;
            assert_eq!((seen, end.unwrap()), (sent, 0), "data is what connections are for");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_said_in_the_middle_of_a_frame() {
        let (mut client, server) = duplex(1 << 20);
        let mut calm = Calm::new(server);
        calm.write_all(&PING[..12]).await.unwrap();
        client.write_all(&[PREFACE, &PING.repeat(3_000)].concat()).await.unwrap();

        let mut all = Vec::new();
        calm.read_to_end(&mut all).await.unwrap_err();

        drop(calm);
        let mut told = Vec::new();
        client.read_to_end(&mut told).await.unwrap();
        assert_eq!(told, &PING[..12]);
    }
}
