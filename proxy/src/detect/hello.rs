//! A TLS ClientHello: whom it asks for, and whether it is a mesh peer's.
//!
//! rustls parses it from the bytes that were read. They are kept as well, to be passed on if the TLS is not for us. A
//! hello may come in any number of segments: it is read, never peeked at.

use std::{io, time::Duration};

use bytes::BytesMut;
use selvedge_certs::tls::ALPN_MESH;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_rustls::rustls::server::{Accepted, Acceptor};

/// The most that is read for a hello: what a handshake message may be in rustls.
const LONGEST: usize = 64 << 10;

/// Time for a hello to come.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read at once.
const READ: usize = 4096;

/// A ClientHello.
pub enum Hello {
    /// A mesh peer's: its ALPN is the mesh's. The bytes that were read are in here, but for the `rest`.
    Mesh {
        /// What rustls goes on from.
        accepted: Box<Accepted>,
        /// What was read beyond the hello.
        rest: BytesMut,
    },
    /// Somebody else's.
    Other {
        /// The name that it asks for, lower case.
        server_name: Option<String>,
    },
}

impl Hello {
    /// The name that it asks for, lower case; a mesh peer's asks for none that means anything.
    pub fn server_name(self) -> Option<String> {
        match self {
            Self::Mesh { .. } => None,
            Self::Other { server_name } => server_name,
        }
    }
}

impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Mesh { .. } => f.write_str("Mesh"),
            Self::Other { server_name } => f.debug_tuple("Other").field(server_name).finish(),
        }
    }
}

/// Reads the hello that `read` is the beginning of, as far into `read` as it goes. What rustls does not
/// understand is somebody else's TLS, of which no name is known.
///
/// # Errors
/// Whatever reading gives, and `UnexpectedEof` if the client closes before the end of its hello.
pub async fn hello(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while fed < read.len() {
            let Ok(taken @ 1..) = acceptor.read_tls(&mut &read[fed..]) else { return Ok(unknown()) };
            fed += taken;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(understood(accepted, read, fed)),
                Err(_) => return Ok(unknown()),
            }
        }
        if read.len() >= LONGEST {
            return Ok(unknown());
        }
        read.reserve(READ);
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A hello that this proxy answers itself.
pub enum Answered {
    /// It can be. All bytes that were read stay in the buffer; this many of them are the hello.
    Accepted(Box<Accepted>, usize),
    /// It cannot be; this is what the client is told.
    Refused(tokio_rustls::rustls::Error, Vec<u8>),
}

/// Reads the hello that `read` is the beginning of, for whoever answers it or passes it on.
///
/// # Errors
/// As [`hello`].
pub async fn answered(stream: &mut (impl AsyncRead + Unpin), read: &mut BytesMut) -> io::Result<Answered> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while fed < read.len() {
            fed += acceptor.read_tls(&mut &read[fed..])?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Ok(Answered::Accepted(Box::new(accepted), fed)),
                Err((error, mut alert)) => {
                    let mut told = Vec::new();
                    alert.write_all(&mut told)?;
                    return Ok(Answered::Refused(error, told));
                }
            }
        }
        if read.len() >= LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        read.reserve(READ);
        if stream.read_buf(read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

impl std::fmt::Debug for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Accepted(_, length) => f.debug_tuple("Accepted").field(length).finish(),
            Self::Refused(error, _) => f.debug_tuple("Refused").field(error).finish(),
        }
    }
}

fn unknown() -> Hello {
    Hello::Other { server_name: None }
}

fn understood(accepted: Accepted, read: &mut BytesMut, fed: usize) -> Hello {
    let hello = accepted.client_hello();
    if hello.alpn().is_some_and(|mut offered| offered.any(|alpn| alpn == ALPN_MESH)) {
        let rest = read.split_off(fed);
        return Hello::Mesh { accepted: Box::new(accepted), rest };
    }
    Hello::Other { server_name: hello.server_name().map(str::to_ascii_lowercase) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The first flight of a client that asks for `name`.
    fn first_flight(name: &str, alpn: &[u8]) -> Vec<u8> {
        let mut config = ClientConfig::builder_with_provider(selvedge_certs::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut sent = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut sent).unwrap();
        }
        sent
    }

    /// What is found in `sent`, of which `first` bytes come at once and the rest in pieces of `room`.
    async fn found(sent: &[u8], first: usize, room: usize) -> (io::Result<Hello>, BytesMut) {
        let (mut client, mut server) = tokio::io::duplex(room);
        let mut read = BytesMut::from(&sent[..first]);
        let later = sent[first..].to_vec();
        let sending = async move {
            client.write_all(&later).await.ok();
        };
        let reading = async {
            let found = hello(&mut server, &mut read).await;
            // After the decision nothing more is read.
            drop(server);
            found
        };
        let (found, ()) = tokio::join!(reading, sending);
        (found, read)
    }

    #[tokio::test]
    async fn a_hello_cut_at_every_byte_asks_for_the_same_name() {
        let sent = first_flight("DB.Example.com", b"h2");
        assert!(sent.len() > 1200, "a hello with a post-quantum share: {}", sent.len());
        for first in 0..sent.len() {
            let (found, read) = found(&sent, first, sent.len()).await;
            let Hello::Other { server_name } = found.unwrap() else { panic!("not the mesh's") };
            assert_eq!(server_name.as_deref(), Some("db.example.com"), "cut at {first}");
            assert_eq!(&read[..], &sent[..], "all is kept to be passed on");
        }
        let (found, _) = found(&sent, 0, 1).await;
        assert!(matches!(found.unwrap(), Hello::Other { server_name: Some(_) }));
    }

    #[tokio::test]
    async fn a_mesh_peers_hello_is_known_by_its_alpn() {
        let sent = first_flight("whoever", ALPN_MESH);

        let (found, _) = found(&sent, 3, 100).await;

        assert!(matches!(found.unwrap(), Hello::Mesh { rest, .. } if rest.is_empty()));
    }

    #[tokio::test]
    async fn what_is_no_hello_is_somebody_elses_and_half_a_hello_is_none() {
        let (nonsense, _) = found(b"\x16\x03\x01\x00\x05nonsense of all kinds", 4, 8).await;
        assert!(matches!(nonsense.unwrap(), Hello::Other { server_name: None }));

        let sent = first_flight("a.example", b"h2");
        let (half, _) = found(&sent[..sent.len() - 1], 5, 64).await;
        assert_eq!(half.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn any_bytes_are_somebodys_or_nobodys(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let sent = [&[0x16, 3, 1][..], &bytes].concat();
            let (found, read) = runtime.block_on(found(&sent, 3, 64));
            let ours = matches!(found, Ok(Hello::Mesh { .. }));
            prop_assert!(!ours);
            prop_assert!(sent.starts_with(&read));
        }
    }
}
