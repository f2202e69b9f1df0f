//! What a connection carries, from its first bytes: TLS, HTTP/2 with prior knowledge, HTTP/1, or something
//! else, which is opaque.
//!
//! Bytes are read once into a buffer and replayed to whatever serves the connection. The proxy waits only for as many
//! as the decision needs, and the decision is the same wherever the network cuts them. A client that says nothing may
//! be waiting for its server to speak first; the caller finds that out.

pub mod hello;
mod http1;
pub mod proxied;

use std::{io, time::Duration};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS record that holds a handshake message (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// The next byte: the major version of every TLS, and of SSL 3.
const TLS_MAJOR: u8 = 3;

/// Enough for a usual request or ClientHello in one read.
const FIRST_READ: usize = 2048;

/// How long a client may stop in the middle of what might become HTTP, before it counts as opaque.
const HESITATION: Duration = Duration::from_secs(3);

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A TLS ClientHello.
    Tls,
    /// HTTP/1.0 or HTTP/1.1, well-formed or not.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// None of these.
    Opaque,
}

/// How a connection begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum First {
    /// With bytes that say this.
    Bytes(Detected),
    /// With silence.
    Silence,
    /// Not at all: the client closed it.
    End,
}

/// Reads into `read` until it is clear what `stream` carries, or for as long as `silence` allows its client
/// to say nothing.
///
/// # Errors
/// Whatever reading gives.
pub async fn detect(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
    silence: Option<Duration>,
) -> io::Result<First> {
    read.reserve(FIRST_READ);
    while read.is_empty() {
        let first = stream.read_buf(read);
        let length = match silence {
            None => first.await?,
            Some(silence) => match tokio::time::timeout(silence, first).await {
                Ok(length) => length?,
                Err(_) => return Ok(First::Silence),
            },
        };
        if length == 0 {
            return Ok(First::End);
        }
    }
    let decided = async {
        loop {
            if let Some(detected) = decide(read) {
                return Ok(detected);
            }
            if stream.read_buf(read).await? == 0 {
                // No more will come, so it is no whole request of any HTTP.
                return Ok(Detected::Opaque);
            }
        }
    };
    match tokio::time::timeout(HESITATION, decided).await {
        Ok(detected) => detected.map(First::Bytes),
        Err(_) => Ok(First::Bytes(Detected::Opaque)),
    }
}

/// As [`detect`], for `limit` at most and until `over`; `None`: not in time, or the connection broke.
pub async fn detect_until(
    stream: &mut (impl AsyncRead + Unpin),
    read: &mut BytesMut,
    silence: Option<Duration>,
    limit: Duration,
    over: impl Future<Output = ()>,
) -> Option<First> {
    tokio::select! {
        first = tokio::time::timeout(limit, detect(stream, read, silence)) => first.ok()?.ok(),
        () = over => None,
    }
}

/// What `read` is the beginning of; `None` if more is needed.
fn decide(read: &[u8]) -> Option<Detected> {
    match read {
        [] | [TLS_HANDSHAKE] => None,
        [TLS_HANDSHAKE, TLS_MAJOR, ..] => Some(Detected::Tls),
        _ if read.starts_with(PREFACE) => Some(Detected::Http2),
        _ if PREFACE.starts_with(read) => None,
        _ => http1::decide(read),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_arrives_in_single_bytes_is_detected_and_kept() {
        for (sent, expected) in [
            (PREFACE, Detected::Http2),
            (b"POST / HTTP/1.1\r\n\r\n", Detected::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Detected::Http1),
            (b"\x16\x03\x01\x00\x10", Detected::Tls),
            (b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),
            (b"GE", Detected::Opaque),
        ] {
            let (mut client, mut server) = tokio::io::duplex(1);
            let writer = async move {
                client.write_all(sent).await.unwrap();
                client.shutdown().await.unwrap();
                client
            };

            let (_client, (found, all)) = tokio::join!(writer, async {
                let mut read = BytesMut::new();
                let found = detect(&mut server, &mut read, None).await.unwrap();
                while read.len() < sent.len() {
                    server.read_buf(&mut read).await.unwrap();
                }
                (found, read)
            });

            assert_eq!(found, First::Bytes(expected), "{sent:?}");
            assert_eq!(&all[..], sent);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_is_silent_and_who_closes_is_gone() {
        let (client, mut server) = tokio::io::duplex(1);
        let mut read = BytesMut::new();
        let silence = Some(Duration::from_millis(100));

        let start = tokio::time::Instant::now();
        assert_eq!(detect(&mut server, &mut read, silence).await.unwrap(), First::Silence);
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        drop(client);
        assert_eq!(detect(&mut server, &mut read, silence).await.unwrap(), First::End);
    }

    #[tokio::test(start_paused = true)]
    async fn who_stops_in_the_middle_of_a_word_is_opaque_in_the_end() {
        let (mut client, mut server) = tokio::io::duplex(8);
        client.write_all(b"HELO").await.unwrap();

        let found = detect(&mut server, &mut BytesMut::new(), Some(Duration::from_millis(100))).await;

        assert_eq!(found.unwrap(), First::Bytes(Detected::Opaque));
    }

    /// Beginnings that are met, and random bytes.
    fn beginning() -> impl Strategy<Value = Vec<u8>> {
        let line = ("[A-Za-z!*]{0,40}", "[ /a-zA-Z:.]{0,30}", "( HTTP/1\\.[01])?", "(\r\n|\n|\r)?");
        let line = line.prop_map(|(method, target, version, end)| {
            format!("{method} {target}{version}{end}").into_bytes()
        });
        let preface = (0..=PREFACE.len(), proptest::collection::vec(any::<u8>(), 0..4))
            .prop_map(|(length, more)| [&PREFACE[..length], &more].concat());
        let tls = proptest::collection::vec(any::<u8>(), 0..6).prop_map(|more| [&[0x16][..], &more].concat());
        let anything = proptest::collection::vec(any::<u8>(), 0..700);
        prop_oneof![line, preface, tls, anything]
    }

    proptest! {
        #[test]
        fn a_cut_anywhere_changes_nothing(bytes in beginning()) {
            let whole = decide(&bytes);
            for cut in 0..bytes.len() {
                let part = decide(&bytes[..cut]);
                prop_assert!(part.is_none() || part == whole, "{:?} after {cut} bytes, then {:?}", part, whole);
            }
        }

        #[test]
        fn so_many_bytes_are_always_enough(bytes in proptest::collection::vec(any::<u8>(), 700..800)) {
            prop_assert!(decide(&bytes).is_some());
        }
    }
}
