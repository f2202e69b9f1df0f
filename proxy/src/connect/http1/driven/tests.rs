//! A connection over a pipe, whose other end is the test.

use std::{
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

/// A task that counts how often it is woken.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn woken(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }

    /// Polls `future` as this task.
    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

struct Client {
    sender: SendRequest<Body>,
    driven: Rc<Driven>,
    keeping: Keeping,
}

/// A client's connection, on which `room` bytes may be on their way, and its server's end.
async fn connected(room: usize) -> (Client, DuplexStream) {
    let (client, server) = duplex(room);
    let handshake = hyper::client::conn::http1::handshake::<_, Body>(TokioIo::new(client));
    let (sender, connection) = handshake.await.unwrap();
    let (driven, keeping) = Driven::new(connection.with_upgrades());
    (Client { sender, driven, keeping }, server)
}

fn request(body: Body) -> http::Request<Body> {
    http::Request::post("/").header("host", "app").body(body).unwrap()
}

/// Reads the head of a request, and nothing after it.
async fn read_head(server: &mut DuplexStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(server.read_u8().await.unwrap());
    }
}

/// The answer to a request without a body, of which the server sends this once it has the request.
async fn answered(client: &mut Client, server: &mut DuplexStream, sent: &[u8]) -> Box<http::Response<Body>> {
    let ask = client.driven.ask(&mut client.sender, request(Body::default()));
    let (answer, written) = soon(async { tokio::join!(ask, server.write_all(sent)) }).await;
    written.unwrap();
    answer.unwrap()
}

async fn text(answer: Box<http::Response<Body>>) -> String {
    String::from_utf8(answer.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// What `future` comes to, which a broken connection would let wait for ever.
async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("it does not wait for ever")
}

#[tokio::test]
async fn a_request_and_its_answer_wake_no_task_but_the_requests() {
    let (mut client, mut server) = connected(4096).await;
    let (asking, keeping) = (Arc::<Task>::default(), Arc::<Task>::default());
    assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());
    for _ in 0..3 {
        keeping.woken();
        let mut ask = Box::pin(client.driven.ask(&mut client.sender, request(Body::default())));
        assert!(asking.poll(ask.as_mut()).is_pending());
        assert_eq!(asking.woken(), 0);
        let mut sent = [0; 1024];
        let length = server.read(&mut sent).now_or_never().expect("it was sent").unwrap();
        assert!(sent[..length].ends_with(b"\r\n\r\n"));

        server.write_all(ANSWER).await.unwrap();
        assert_eq!(asking.woken(), 1);
        let Poll::Ready(Ok(answer)) = asking.poll(ask.as_mut()) else { panic!("it has arrived") };
        drop(ask);

        assert!(client.sender.is_ready());
        assert_eq!(text(answer).now_or_never().expect("it is all there"), "hello");
        assert_eq!((asking.woken(), keeping.woken()), (0, 0));
    }
}

/// The last piece that is read wakes the connection, which has nothing to do then. That wake alone is left out.
#[tokio::test]
async fn what_comes_after_an_answer_that_was_read_whole_wakes_the_connections_own_task() {
    let (mut client, mut server) = connected(4096).await;
    let keeping = Arc::<Task>::default();
    assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());
    for _ in 0..3 {
        let (head, rest) = ANSWER.split_at(ANSWER.len() - 2);
        let answer = answered(&mut client, &mut server, head).await;
        server.write_all(rest).await.unwrap();
        assert_eq!(soon(text(answer)).await, "hello");
        assert!(client.sender.is_ready());
        keeping.woken();
    }

    drop(server);

    assert!(keeping.woken() > 0, "it hears that the server has closed");
    assert!(keeping.poll(pin!(&mut client.keeping)).is_ready());
}

#[tokio::test]
async fn what_comes_later_than_the_head_is_read_by_whoever_wants_it() {
    let (mut client, mut server) = connected(4096).await;
    let (asking, keeping) = (Arc::<Task>::default(), Arc::<Task>::default());
    assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());
    let (whole, rest) = ANSWER.split_at(ANSWER.len() - 3);
    let answer = answered(&mut client, &mut server, whole).await;
    let mut text = Box::pin(text(answer));
    assert!(asking.poll(text.as_mut()).is_pending());
    keeping.woken();

    server.write_all(rest).await.unwrap();

    assert_eq!((asking.woken(), keeping.woken()), (1, 0));
    assert!(matches!(asking.poll(text.as_mut()), Poll::Ready(text) if text == "hello"));
    drop(text);
    assert!(client.sender.is_ready());
    assert_eq!((asking.woken(), keeping.woken()), (0, 0));
}

#[tokio::test]
async fn the_end_of_an_answer_in_chunks_is_found_with_its_last_bytes() {
    let (mut client, mut server) = connected(4096).await;
    let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    for _ in 0..2 {
        let answer = answered(&mut client, &mut server, chunks).await;

        assert_eq!(text(answer).now_or_never().expect("all of it is there"), "hello");
        assert!(client.sender.is_ready());
    }
}

#[tokio::test]
async fn what_is_read_faster_than_passed_on_comes_in_goes() {
    let (mut client, mut server) = connected(1 << 20).await;
    let task = Arc::<Task>::default();
    let bytes = 200_000;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n");
    let answer = [head.as_bytes(), &vec![b'x'; bytes]].concat();
    let answer = answered(&mut client, &mut server, &answer).await;
    let mut body = answer.into_body();

    let (mut read, mut goes) = (0, 0);
    while read < bytes {
        match task.poll(pin!(body.frame())) {
            Poll::Ready(frame) => read += frame.unwrap().unwrap().into_data().unwrap().len(),
            Poll::Pending => {
                assert!(task.woken() > 0, "it goes on");
                goes += 1;
            }
        }
    }

    assert!(goes > 0);
    assert!(client.sender.is_ready());
}

#[tokio::test]
async fn an_answer_that_nobody_reads_to_its_end_ends_its_connection() {
    let (mut client, mut server) = connected(4096).await;
    let answer = answered(&mut client, &mut server, &ANSWER[..ANSWER.len() - 1]).await;
    let keeping = Arc::<Task>::default();
    assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());

    drop(answer);

    assert!(keeping.woken() > 0);
    soon(client.keeping).await.unwrap();
    assert!(client.sender.is_closed());
}

#[tokio::test]
async fn an_answer_hears_that_its_connection_was_ended_by_its_own_task() {
    let (mut client, mut server) = connected(4096).await;
    let task = Arc::<Task>::default();
    let answer = answered(&mut client, &mut server, &ANSWER[..ANSWER.len() - 5]).await;
    let mut body = answer.into_body();
    assert!(task.poll(pin!(body.frame())).is_pending());
    task.woken();

    drop(client.keeping);

    assert_eq!(task.woken(), 1);
    assert!(soon(body.collect()).await.is_err());
}

#[tokio::test]
async fn the_rest_of_a_request_that_was_answered_early_is_sent_by_the_connections_own_task() {
    let (mut client, mut server) = connected(64).await;
    let body = vec![b'x'; 100_000];
    let answered = async {
        let ask = client.driven.ask(&mut client.sender, request(Body::full(body.clone())));
        let (answer, _) = tokio::join!(ask, async {
            read_head(&mut server).await;
            server.write_all(ANSWER).await.unwrap();
        });
        answer.unwrap()
    };
    assert_eq!(text(soon(answered).await).await, "hello");

    let mut sent = vec![0; body.len()];
    let reading = async { server.read_exact(&mut sent).await.unwrap() };
    soon(async {
        tokio::select! {
            _ = reading => {}
            ended = &mut client.keeping => panic!("it has ended: {ended:?}"),
        }
    })
    .await;

    assert!(sent == body);
}

#[tokio::test]
async fn a_request_that_is_given_up_ends_its_connection() {
    let (mut client, mut server) = connected(4096).await;
    let keeping = Arc::<Task>::default();
    assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());
    assert!(client.driven.ask(&mut client.sender, request(Body::default())).now_or_never().is_none());
    assert!(keeping.woken() > 0);

    soon(client.keeping).await.unwrap();

    let mut sent = Vec::new();
    soon(server.read_to_end(&mut sent)).await.unwrap();
    assert!(sent.ends_with(b"\r\n\r\n"));
    assert!(client.sender.is_closed());
}

#[tokio::test]
async fn an_end_of_the_connection_is_noticed_whoever_waits() {
    for asks in [true, false] {
        let (mut client, server) = connected(4096).await;
        let (asking, keeping) = (Arc::<Task>::default(), Arc::<Task>::default());
        assert!(keeping.poll(pin!(&mut client.keeping)).is_pending());
        let mut ask = asks.then(|| Box::pin(client.driven.ask(&mut client.sender, request(Body::default()))));
        if let Some(ask) = &mut ask {
            assert!(asking.poll(ask.as_mut()).is_pending());
        }
        keeping.woken();

        drop(server);

        assert_eq!((asking.woken(), keeping.woken()), (usize::from(asks), usize::from(!asks)));
        if let Some(ask) = &mut ask {
            assert!(matches!(asking.poll(ask.as_mut()), Poll::Ready(Err(_))));
        }
        drop(ask);
        assert_eq!(keeping.woken(), usize::from(asks));
        assert!(keeping.poll(pin!(&mut client.keeping)).is_ready());
        assert!(client.sender.is_closed());
    }
}

#[tokio::test]
async fn a_request_hears_that_its_connection_was_ended_by_its_own_task() {
    let (mut client, _server) = connected(4096).await;
    let asking = Arc::<Task>::default();
    let mut ask = Box::pin(client.driven.ask(&mut client.sender, request(Body::default())));
    assert!(asking.poll(ask.as_mut()).is_pending());

    drop(client.keeping);

    assert_eq!(asking.woken(), 1);
    assert!(matches!(asking.poll(ask.as_mut()), Poll::Ready(Err(_))));
    drop(ask);
    let mut again = client.driven.ask(&mut client.sender, request(Body::default())).now_or_never();
    let unsent = again.take().expect("no wait").unwrap_err().take_message();
    assert!(unsent.is_some(), "it comes back");
}

#[tokio::test]
async fn a_connection_that_a_request_has_lost_by_a_panic_does_not_keep_its_task() {
    let (client, _server) = connected(4096).await;
    drop(client.driven.connection.take());

    soon(client.keeping).await.unwrap();

    assert!(client.sender.is_closed());
}
