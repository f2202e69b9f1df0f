use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

/// The two ends of a copy, as those who talk through it see them; each pipe holds `room` bytes.
fn through(
    room: usize,
) -> (DuplexStream, DuplexStream, impl Future<Output = (Result<(), Broken>, u64, u64)>) {
    let (client, mut client_end) = duplex(room);
    let (server, mut server_end) = duplex(room);
    let copying = async move {
        let (out, back) = (Meter::default(), Meter::default());
        let ended = copy(&mut client_end, &mut server_end, &out, &back).await;
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
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), client.write(&[7; 4096])).await {
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
        let side = if is_server { Side::Server } else { Side::Client };
        assert_eq!(ended.unwrap().expect_err("it broke").side, side);
    }
}

#[tokio::test]
async fn whoever_breaks_is_named() {
    let (_client, mut client_end) = duplex(8);

    let ended = copy(&mut client_end, &mut Gone, &Meter::default(), &Meter::default()).await;

    assert_eq!(ended.expect_err("it broke").side, Side::Server);
}

#[test]
fn an_open_connection_needs_little() {
    let (_client, mut client_end) = duplex(8);
    let (_server, mut server_end) = duplex(8);
    let (out, back) = (Meter::default(), Meter::default());

    let copying = copy(&mut client_end, &mut server_end, &out, &back);

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
