//! How much one poll of a task moves before others have their turn.
//!
//! tokio lets a task read and write 128 times in one poll, whatever that moves. With hyper's buffers it would be tens of MiB,
//! and a worker would serve nobody else meanwhile. So here bytes use up the same budget: a poll moves about 1 MiB, reads and
//! writes together. Then the task waits until the worker has looked for what else has come. What passes two of our streams
//! counts twice.

use std::task::{Context, Poll};

use tokio::task::coop;

/// So many bytes use up as much of the budget as one read or write does.
const UNIT: usize = 8 << 10;

/// The whole budget of a poll (tokio's `Budget::initial`).
const WHOLE: usize = 128;

/// Counts `bytes` that were read or written.
#[inline]
pub(super) fn moved(cx: &mut Context<'_>, bytes: usize) {
    if bytes >= UNIT {
        use_up(cx, (bytes / UNIT).min(WHOLE));
    }
}

fn use_up(cx: &mut Context<'_>, units: usize) {
    for _ in 0..units {
        // Asking for what is not there would wake the task.
        if !coop::has_budget_remaining() {
            return;
        }
        if let Poll::Ready(unit) = coop::poll_proceed(cx) {
            unit.made_progress();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, IoSlice},
        pin::Pin,
    };

    use bytes::Bytes;
    use tokio::{
        io::{AsyncRead, AsyncWrite, ReadBuf, join, repeat, sink},
        net::{TcpListener, TcpStream},
    };

    use super::*;
    use crate::io::{Prefixed, Stream};

    /// What hyper reads and writes at once.
    const PIECE: usize = 400 << 10;

    /// How much is moved in one poll of a task by calls of `step`.
    async fn in_one_poll(mut step: impl FnMut(&mut Context<'_>) -> Poll<io::Result<usize>>) -> usize {
        tokio::task::yield_now().await;
        std::future::poll_fn(|cx| {
            let mut moved = 0;
            while let Poll::Ready(piece) = step(cx) {
                moved += piece.unwrap();
            }
            Poll::Ready(moved)
        })
        .await
    }

    #[tokio::test]
    async fn one_poll_moves_about_a_mebibyte_each_way() {
        let mut stream = Prefixed::new(Bytes::new(), join(repeat(1), sink()));
        let mut piece = vec![0; PIECE];
        let most = UNIT * WHOLE + PIECE;

        let read = in_one_poll(|cx| {
            let mut into = ReadBuf::new(&mut piece);
            Pin::new(&mut stream).poll_read(cx, &mut into).map_ok(|()| into.filled().len())
        });
        let read = read.await;
        assert!((PIECE..=most).contains(&read), "{read}");
        let written = in_one_poll(|cx| Pin::new(&mut stream).poll_write(cx, &piece)).await;
        assert!((PIECE..=most).contains(&written), "{written}");
        let pieces = [IoSlice::new(&piece)];
        let written = in_one_poll(|cx| Pin::new(&mut stream).poll_write_vectored(cx, &pieces)).await;
        assert!((PIECE..=most).contains(&written), "{written}");
    }

    #[tokio::test]
    async fn what_is_sent_to_an_app_counts_too() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialled = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, accepted) = tokio::join!(dialled, listener.accept());
        let (mut stream, _app) = (Stream::Plain(ours.unwrap()), accepted.unwrap());
        let piece = vec![0; 64 << 10];

        // A socket takes more than that at once, though nobody reads.
        let written = in_one_poll(|cx| Pin::new(&mut stream).poll_write(cx, &piece)).await;

        assert!(written <= UNIT * WHOLE + piece.len(), "{written}");
    }

    #[tokio::test]
    async fn small_pieces_count_as_nothing() {
        let mut stream = Prefixed::new(Bytes::new(), join(repeat(1), sink()));

        let written = in_one_poll(|cx| Pin::new(&mut stream).poll_write(cx, &[0; UNIT - 1])).await;

        assert_eq!(written, WHOLE * (UNIT - 1));
    }
}
