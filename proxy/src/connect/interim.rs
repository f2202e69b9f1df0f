//! Interim answers (RFC 9110, section 15.2) on their way from an app to its client: `103 Early Hints`.
//!
//! They are passed on where HTTP/1.1 goes on as HTTP/1.1. hyper does not report those that come by HTTP/2, and cannot
//! send any there. `100 Continue` and `101 Switching Protocols` have rules of their own.
//!
//! hyper would report those of HTTP/1.1, too, but takes four allocations for each request that could have some. Hardly any has. So
//! the connection's stream listens to the first bytes of each answer, and tells by them.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use memchr::{memchr_iter, memmem};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{clients::Watch, fields, io::passes_on, step::Conn};

/// What every interim answer begins with.
const BEGINNING: &[u8] = b"HTTP/1.1 1";

/// What every head ends with.
const END: &[u8] = b"\r\n\r\n";

/// How long an interim answer may be, in bytes. A longer one is not passed on.
const LIMIT: usize = 16 << 10;

/// The client that is to have the interim answers to its request.
#[derive(Debug, Clone)]
pub(super) struct Client {
    watch: Arc<Watch>,
    /// The number of its request.
    exchange: u32,
}

impl Client {
    /// The client of the request that has come on `conn`, if it can have any.
    pub(super) fn on(conn: &Conn) -> Option<Self> {
        let watch = conn.watch.get()?;
        let exchange = watch.exchange()?;
        Some(Self { watch: Arc::clone(watch), exchange })
    }
}

/// Who listens on a connection. Shared by its stream and by whoever sends requests on it.
#[derive(Debug, Clone, Default)]
pub(super) struct Listener(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    listening: Mutex<Listening>,
    /// Whether anything of the request was sent. What has come before is no answer to it.
    is_sent: AtomicBool,
}

#[derive(Debug, Default)]
struct Listening {
    /// For whom; `None`: for nobody, or the answer itself has begun.
    client: Option<Client>,
    /// What has come of an interim answer that is not whole.
    part: Vec<u8>,
}

impl Listener {
    /// Passes interim answers to the next request on to `client`.
    pub(super) fn listen(&self, client: Option<Client>) {
        let mut listening = self.listening();
        listening.client = client;
        listening.part.clear();
        self.0.is_sent.store(false, Ordering::Relaxed);
    }

    /// Something of the request is sent.
    fn sends(&self) {
        self.0.is_sent.store(true, Ordering::Relaxed);
    }

    /// Takes note of `bytes`, which have come.
    fn hear(&self, bytes: &[u8]) {
        let mut listening = self.listening();
        if self.0.is_sent.load(Ordering::Relaxed) {
            listening.hear(bytes);
        } else if !bytes.is_empty() {
            listening.stop();
        }
    }

    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.0.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    /// Takes note of `bytes`, which have come.
    fn hear(&mut self, bytes: &[u8]) {
        if self.client.is_none() || bytes.is_empty() {
            return;
        }
        if self.part.is_empty() && !may_be_interim(bytes) {
            return self.stop();
        }
        // What came before has no end.
        let mut from = self.part.len().saturating_sub(END.len() - 1);
        self.part.extend_from_slice(bytes);
        // Where the one at hand begins. Those before it are taken away together: a server may send thousands at once.
        let mut begin = 0;
        while begin < self.part.len() {
            let rest = &self.part[begin..];
            let end = memmem::find(&self.part[from..], END).map(|at| from + at + END.len());
            if end.is_none() && rest.len() <= LIMIT && may_be_interim(rest) {
                break;
            }
            let Some(end) = end.filter(|_| may_be_interim(rest)) else { return self.stop() };
            let head = &self.part[begin..end];
            if has_bare_newlines(head) {
                return self.stop();
            }
            match status(head) {
                Some(StatusCode::CONTINUE) => {}
                None | Some(StatusCode::SWITCHING_PROTOCOLS) => return self.stop(),
                Some(status) => {
                    if let (Some(client), Some(headers)) = (&self.client, headers(head)) {
                        client.watch.interim(client.exchange, &text(status, headers));
                    }
                }
            }
            (begin, from) = (end, end);
        }
        self.part.drain(..begin);
    }

    /// What comes now is the answer.
    fn stop(&mut self) {
        *self = Self::default();
    }
}

/// Whether an answer that begins with `bytes` can be an interim one.
fn may_be_interim(bytes: &[u8]) -> bool {
    let length = bytes.len().min(BEGINNING.len());
    bytes[..length] == BEGINNING[..length]
}

/// Whether a line of `head` ends with a newline alone. hyper takes that for an end, too, and so the head may end before
/// [`END`]: what follows may be the answer itself.
fn has_bare_newlines(head: &[u8]) -> bool {
    memchr_iter(b'\n', head).any(|at| !head[..at].ends_with(b"\r"))
}

/// The status of the answer that begins with `head`; `None`: hyper will refuse it.
fn status(head: &[u8]) -> Option<StatusCode> {
    let digits = head.get(BEGINNING.len() - 1..BEGINNING.len() + 2)?;
    StatusCode::from_bytes(digits).ok()
}

/// The fields of an answer's head; `None`: hyper will refuse it.
fn headers(head: &[u8]) -> Option<HeaderMap> {
    let text = std::str::from_utf8(head).ok()?;
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").skip(1).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let name = HeaderName::from_bytes(name.trim_end().as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value.trim()).ok()?);
    }
    Some(headers)
}

/// An interim answer as its client gets it.
fn text(status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
    fields::interim(&mut headers);
    let reason = status.canonical_reason().unwrap_or_default();
    let mut text = format!("HTTP/1.1 {} {reason}\r\n", status.as_str()).into_bytes();
    for (name, value) in &headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// A stream on which a [`Listener`] listens.
#[derive(Debug)]
pub(super) struct ListenedTo<S> {
    inner: S,
    listener: Listener,
}

impl<S> ListenedTo<S> {
    /// `inner`, and who listens on it.
    pub(super) fn new(inner: S) -> (Self, Listener) {
        let listener = Listener::default();
        (Self { inner, listener: listener.clone() }, listener)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ListenedTo<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let read = Pin::new(&mut this.inner).poll_read(cx, buf);
        this.listener.hear(&buf.filled()[before..]);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ListenedTo<S> {
    passes_on!(poll_flush, poll_shutdown, is_write_vectored);

    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.listener.sends();
        Pin::new(&mut this.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.listener.sends();
        Pin::new(&mut this.inner).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;
    use crate::clients::Patience;

    /// What the client is told that waits for an answer, which comes in these pieces.
    fn told<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
        watch.awaited.begin(true);
        let exchange = watch.exchange().unwrap();
        let client = Client { watch: Arc::clone(&watch), exchange };
        let mut listening = Listening { client: Some(client), part: Vec::new() };
        pieces.into_iter().for_each(|piece| listening.hear(piece));
        String::from_utf8(watch.awaited.take()).unwrap()
    }

    #[tokio::test]
    async fn what_comes_before_a_request_is_sent_is_no_answer_to_it() {
        let watch = Patience::new(Duration::from_secs(1), Duration::from_secs(1)).watch();
        watch.awaited.begin(true);
        let exchange = watch.exchange().unwrap();
        let (ours, mut server) = duplex(1024);
        let (mut stream, listener) = ListenedTo::new(ours);
        let hint = b"HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n";
        for is_sent in [false, true, false] {
            listener.listen(Some(Client { watch: Arc::clone(&watch), exchange }));
            if is_sent {
                stream.write_all(b"GET").await.unwrap();
            }
            server.write_all(hint).await.unwrap();
            stream.read_exact(&mut vec![0; hint.len()]).await.unwrap();

            assert_eq!(watch.awaited.take().len(), if is_sent { hint.len() } else { 0 });
        }
    }

    #[test]
    fn hints_are_written_without_what_concerns_one_connection() {
        let answer = b"HTTP/1.1 103 Very Early\r\nLink: </a.css>\r\nlink : </b.css> \r\nconnection: x-hop\r\nx-hop: 1\r\n\
            transfer-encoding: chunked\r\ncontent-length: 3\r\nselvedge-error: policy: no\r\n\
            selvedge_error: policy: no\r\n\r\n";

        let told = told([&answer[..]]);

        assert_eq!(told, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\nlink: </b.css>\r\n\r\n");
    }

    #[test]
    fn only_interim_answers_are_told_in_whatever_pieces_they_come() {
        let hint = "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n";
        let cases = [
            (format!("HTTP/1.1 100 Continue\r\n\r\n{hint}{hint}HTTP/1.1 200 OK\r\n\r\n{hint}"), 2),
            (format!("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{hint}"), 0),
            (format!("HTTP/1.1 101 Switching Protocols\r\n\r\n{hint}"), 0),
            (format!("HTTP/1.1 10 x\r\n\r\n{hint}"), 0),
            (format!("HTTP/1.0 103 x\r\n\r\n{hint}"), 0),
            (format!("HTTP/1.1 103 x\r\nno field\r\n\r\n{hint}"), 1),
            (format!("HTTP/1.1 103 x\r\na: {}\r\n\r\n{hint}", "b".repeat(2 * LIMIT)), 0),
            (format!("{}HTTP/1.1 200 OK\r\n\r\n", hint.repeat(100)), 100),
            (format!("{hint}HTTP/1.1 103 x\na: b\n\nHTTP/1.1 200 OK\r\nset-cookie: c\r\n\r\n{hint}"), 1),
            (format!("HTTP/1.1 103 x\r\na: b\n\r\nHTTP/1.1 200 OK\r\nset-cookie: c\r\n\r\n{hint}"), 0),
        ];
        for (answer, count) in cases {
            for size in [1, 2, 7, 30, 1000] {
                let told = told(answer.as_bytes().chunks(size));
                assert_eq!(told, hint.repeat(count), "{answer:.100} in pieces of {size}");
            }
        }
    }
}
