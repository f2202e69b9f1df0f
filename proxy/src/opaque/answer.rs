//! The answer of a mesh peer's sidecar to an opaque connection, before the app's first byte: accepted, or why not.
//!
//! Nothing waits for it. Our app's bytes are on their way meanwhile, and the answer comes with the first bytes of the
//! other app, so it costs no round trip. A refusal comes at once.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use selvedge_api::preamble;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::{
    error::{Failure, Reason},
    io::{Abort, Framed, Liveness, Stream, passes_on},
};

/// What may be a TCP connection.
pub(crate) trait Carried {
    /// That connection.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Carried for Framed<Stream> {
    fn tcp(&self) -> Option<&TcpStream> {
        Some(self.get_ref().tcp())
    }
}

/// A stream whose first bytes read are an answer, which is taken out.
#[derive(Debug)]
pub(crate) struct Answered<S> {
    inner: S,
    /// How the connection is watched again once the answer has come.
    doubted: Option<Liveness>,
    /// `None`: it has been heard.
    awaited: Option<Awaited>,
}

/// As much of the answer as has come.
#[derive(Debug, Default)]
struct Awaited {
    prefix: [u8; 2],
    message: Vec<u8>,
    read: usize,
}

/// The peer's sidecar refused the connection, or did not say what sidecars say.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(pub(crate) Failure);

impl<S> Answered<S> {
    /// `inner`, at whose other end a sidecar is going to answer. Until then it may be `doubted` that there is one.
    pub(crate) fn expected(inner: S, doubted: Option<Liveness>) -> Self {
        Self { inner, doubted, awaited: Some(Awaited::default()) }
    }

    /// `inner`, at whose other end there is no sidecar.
    pub(crate) fn unexpected(inner: S) -> Self {
        Self { inner, doubted: None, awaited: None }
    }

    /// Whether the answer has come, and accepts the connection.
    pub(crate) fn is_heard(&self) -> bool {
        self.awaited.is_none()
    }

    /// What was read, whose bytes are the app's alone once the answer is heard.
    pub(crate) fn into_inner(self) -> S {
        self.inner
    }
}

/// The failure that `error` stands for, if it is an answer's.
pub(crate) fn refusal(error: &io::Error) -> Option<&Failure> {
    error.get_ref()?.downcast_ref().map(|Refused(failure)| failure)
}

fn refused(reason: Reason, what: String) -> io::Error {
    io::Error::other(Refused(Failure::new(reason, what)))
}

/// The failure that a refusal in these words names.
fn named(words: &str) -> io::Error {
    let (word, what) = words.split_once(": ").unwrap_or((words, ""));
    let reason = Reason::from_word(word).unwrap_or(Reason::Reset);
    refused(reason, format!("the peer's sidecar refused the connection: {what}"))
}

impl Awaited {
    /// Reads on. Ready when the whole answer has come and accepts the connection.
    fn poll(&mut self, cx: &mut Context<'_>, mut inner: Pin<&mut impl AsyncRead>) -> Poll<io::Result<()>> {
        loop {
            let place = match self.read.checked_sub(2) {
                None => &mut self.prefix[self.read..],
                Some(start) => &mut self.message[start..],
            };
            let mut into = ReadBuf::new(place);
            ready!(inner.as_mut().poll_read(cx, &mut into))?;
            let read = into.filled().len();
            if read == 0 {
                let what = "the peer's sidecar closed the connection and did not say why".to_owned();
                return Poll::Ready(Err(refused(Reason::Reset, what)));
            }
            self.read += read;
            if self.read == 2 {
                let length = preamble::length(self.prefix);
                let length = length.map_err(|error| refused(Reason::Protocol, error.to_string()))?;
                self.message.resize(length, 0);
            }
            if self.read >= 2 && self.read - 2 == self.message.len() {
                return Poll::Ready(match preamble::decode_answer(&self.message) {
                    Ok(None) => Ok(()),
                    Ok(Some(words)) => Err(named(&words)),
                    Err(error) => Err(refused(Reason::Protocol, error.to_string())),
                });
            }
        }
    }
}

impl<S: AsyncRead + Carried + Unpin> AsyncRead for Answered<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Some(awaited) = &mut this.awaited {
            ready!(awaited.poll(cx, Pin::new(&mut this.inner)))?;
            this.awaited = None;
            if let (Some(liveness), Some(tcp)) = (this.doubted.take(), this.inner.tcp()) {
                liveness.trust(tcp);
            }
        }
        Pin::new(&mut this.inner).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Answered<S> {
    passes_on!(poll_write, poll_flush, poll_shutdown, poll_write_vectored, is_write_vectored);
}

impl<S: Abort> Abort for Answered<S> {
    fn abort(&self) {
        self.inner.abort();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    impl Carried for DuplexStream {
        fn tcp(&self) -> Option<&TcpStream> {
            None
        }
    }

    /// What is read of a peer that sends `sent` in pieces of `room` bytes and closes.
    async fn read(sent: &[u8], room: usize) -> Result<Vec<u8>, Failure> {
        let (mut peer, end) = duplex(room);
        let mut answered = Answered::expected(end, None);
        let sending = async {
            // After a refusal nothing more is read.
            peer.write_all(sent).await.ok();
            drop(peer);
        };
        let mut read = Vec::new();
        let (ended, ()) = tokio::join!(
            async {
                let ended = answered.read_to_end(&mut read).await;
                drop(answered);
                ended
            },
            sending
        );
        match ended {
            Ok(_) => Ok(read),
            Err(error) => Err(refusal(&error).expect("an answer's").clone()),
        }
    }

    #[tokio::test]
    async fn what_follows_is_the_apps_however_it_is_cut() {
        let sent = [&preamble::ACCEPTED[..], b"220 ready"].concat();
        for room in 1..=sent.len() {
            assert_eq!(read(&sent, room).await.unwrap(), b"220 ready", "pieces of {room}");
        }
        assert_eq!(read(&preamble::ACCEPTED, 1).await.unwrap(), b"");
    }

    #[tokio::test]
    async fn a_refusal_is_the_failure_that_it_names() {
        let sent = preamble::encode_refusal("app-unreachable: nobody listens: at all");
        for room in 1..=sent.len() {
            let failure = read(&sent, room).await.unwrap_err();
            assert_eq!(failure.reason, Reason::AppUnreachable);
            assert!(failure.what.ends_with("nobody listens: at all"), "{failure}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_not_passed_on() {
        assert_eq!(read(b"", 8).await.unwrap_err().reason, Reason::Reset);
        assert_eq!(read(&[0], 8).await.unwrap_err().reason, Reason::Reset);
        assert_eq!(read(&[0xff, 0xff, 1], 8).await.unwrap_err().reason, Reason::Protocol);
        assert_eq!(read(&[0, 1, 0xff], 8).await.unwrap_err().reason, Reason::Protocol);
        assert_eq!(read(&preamble::encode_refusal("nonsense"), 8).await.unwrap_err().reason, Reason::Reset);
    }
}
