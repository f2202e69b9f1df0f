//! What a connection carries, from its first bytes: TLS, HTTP/2 with prior knowledge, or HTTP/1.
//!
//! Bytes are read once into a buffer and replayed to whoever serves the connection. Only as many are
//! waited for as the decision needs: one, unless they begin as HTTP/2's preface does.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// How an HTTP/2 connection with prior knowledge begins (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first byte of a TLS record that holds a handshake message (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// Enough for a usual request or ClientHello in one read.
const FIRST_READ: usize = 2048;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A TLS ClientHello.
    Tls,
    /// Anything that is neither of the others is left to the HTTP/1 parser to refuse.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Reads until it is clear what `stream` carries. Returns that, with the bytes read; `None` if the other
/// end closed before.
///
/// # Errors
/// Whatever reading gives.
pub async fn detect(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<(Detected, Bytes)>> {
    let mut read = BytesMut::with_capacity(FIRST_READ);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            // Fewer bytes than a preface, and no more to come: HTTP/1 knows what to answer.
            return Ok((!read.is_empty()).then(|| (Detected::Http1, read.freeze())));
        }
        if let Some(detected) = decide(&read) {
            return Ok(Some((detected, read.freeze())));
        }
    }
}

/// What `read` is the beginning of; `None` if more is needed.
fn decide(read: &[u8]) -> Option<Detected> {
    match read {
        [] => None,
        [TLS_HANDSHAKE, ..] => Some(Detected::Tls),
        _ if read.starts_with(PREFACE) => Some(Detected::Http2),
        _ if PREFACE.starts_with(read) => None,
        _ => Some(Detected::Http1),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn what_arrives_in_single_bytes_is_detected_and_kept() {
        for (sent, expected) in [
            (PREFACE, Detected::Http2),
            (b"POST / HTTP/1.1\r\n\r\n", Detected::Http1),
            (b"PRI * HTTP/1.1\r\n\r\n", Detected::Http1),
            (b"\x16\x03\x01\x00\x10", Detected::Tls),
        ] {
            let (mut client, mut server) = tokio::io::duplex(1);
            let writer = async move {
                client.write_all(sent).await.ok();
                client
            };

            let (_client, found) = tokio::join!(writer, async {
                let (detected, mut bytes) = detect(&mut server).await.unwrap().unwrap();
                let mut all = BytesMut::from(&bytes.split_off(0)[..]);
                while all.len() < sent.len() {
                    server.read_buf(&mut all).await.unwrap();
                }
                (detected, all)
            });

            assert_eq!(found.0, expected, "{sent:?}");
            assert_eq!(&found.1[..], sent);
        }
    }

    #[tokio::test]
    async fn a_connection_that_closes_at_once_is_nothing() {
        let (client, mut server) = tokio::io::duplex(1);
        drop(client);

        assert_eq!(detect(&mut server).await.unwrap(), None);
    }
}
