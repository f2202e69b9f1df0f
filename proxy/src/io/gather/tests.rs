use std::future::poll_fn;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;

use super::*;

/// What was taken, a piece for each write.
type Taken = Rc<RefCell<Vec<Vec<u8>>>>;

/// Takes so many bytes at a time, and nothing every other time.
struct Slow {
    most: usize,
    taken: Taken,
    is_busy: bool,
}

impl AsyncWrite for Slow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.is_busy = !this.is_busy && this.most < ROOM;
        if this.is_busy {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let some = &buf[..buf.len().min(this.most)];
        this.taken.borrow_mut().push(some.to_vec());
        Poll::Ready(Ok(some.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn taking(most: usize) -> (Gathered<Slow>, Gathering<Slow>, Taken) {
    let taken = Taken::default();
    let (gathered, gathering) = Gathered::new(Slow { most, taken: Rc::clone(&taken), is_busy: false });
    (gathered, gathering, taken)
}

#[test]
fn what_is_written_in_one_poll_is_sent_at_its_end_together() {
    let (mut stream, gathering, taken) = taking(usize::MAX);

    let writing = gathering.sending(async {
        for _ in 0..10 {
            stream.write_all(b"head").await.unwrap();
            stream.write_all(&[b'x'; 1024]).await.unwrap();
            stream.flush().await.unwrap();
        }
        assert!(taken.borrow().is_empty(), "not before it has to be");
    });

    writing.now_or_never().unwrap();
    assert_eq!(taken.borrow().iter().map(Vec::len).collect::<Vec<_>>(), [10 * 1028]);
    assert_eq!(stream.0.stream.borrow().waiting.capacity(), 0, "nothing is held");
}

#[tokio::test]
async fn all_comes_in_its_order_whatever_its_size_and_however_slow_the_peer_is() {
    let sizes = [1, 9, 300, 1024, ROOM - 1, ROOM, ROOM + 1, 5, 3 * ROOM, 4000, 4000, 4000, 4000, 4000, 2];
    for most in [7, 1000, ROOM - 1, usize::MAX] {
        let (mut stream, gathering, taken) = taking(most);
        let sent: Vec<Vec<u8>> =
            sizes.iter().map(|size| (0..*size).map(|_| fastrand::u8(..)).collect()).collect();

        let writing = async {
            for bytes in &sent {
                let (mut first, second) = bytes.split_at(bytes.len() / 3);
                let pieces = [IoSlice::new(first), IoSlice::new(second)];
                let written = stream.write_vectored(&pieces).await.unwrap();
                first = &first[written.min(first.len())..];
                stream.write_all(first).await.unwrap();
                let of_second = written.saturating_sub(bytes.len() / 3);
                stream.write_all(&second[of_second..]).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        gathering.sending(writing).await;

        assert!(taken.borrow().concat() == sent.concat(), "{most} at a time");
    }
}

#[test]
fn what_is_left_is_sent_when_the_peer_takes_more() {
    let (mut stream, gathering, taken) = taking(10);
    let mut is_written = false;
    let waits = poll_fn(|cx| {
        if !std::mem::replace(&mut is_written, true) {
            assert!(Pin::new(&mut stream).poll_write(cx, &[1; 35]).is_ready());
        }
        Poll::<()>::Pending
    });

    let mut sending = std::pin::pin!(gathering.sending(waits));
    for _ in 0..10 {
        assert!(sending.as_mut().now_or_never().is_none());
    }

    assert_eq!(taken.borrow().concat(), [1; 35]);
}

#[test]
fn what_could_not_be_sent_is_said_at_the_next_write() {
    let (mut stream, gathering, _) = taking(0);
    let writes = |stream: &mut Gathered<Slow>| stream.write(b"more").now_or_never().unwrap();
    gathering.clone().sending(async { writes(&mut stream).unwrap() }).now_or_never();
    gathering.sending(std::future::ready(())).now_or_never();

    assert_eq!(writes(&mut stream).unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[tokio::test]
async fn only_the_connection_of_a_client_sends() {
    use hyper::rt::Executor;

    tokio::task::LocalSet::new()
        .run_until(async {
            let (mut stream, gathering, taken) = taking(usize::MAX);
            let (asks, asked) = tokio::sync::oneshot::channel();
            gathering.execute(async move {
                asked.await.unwrap();
                stream.write_all(b"second").await.unwrap();
                drop(stream);
            });
            tokio::task::yield_now().await;
            let shared = gathering.0.upgrade().unwrap();
            assert!(shared.stream.borrow_mut().gather(&[IoSlice::new(b"first ")], 6));
            shared.is_due.set(true);

            gathering.execute(async {});
            tokio::task::yield_now().await;
            assert!(taken.borrow().is_empty(), "a request's future has sent it");
            asks.send(()).unwrap();
            tokio::task::yield_now().await;

            assert_eq!(taken.borrow().concat(), b"first second");
        })
        .await;
}
