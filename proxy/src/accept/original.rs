//! Where a connection was going before the kernel redirected it to one of our listeners.
//!
//! Asked once for each connection, right after it was accepted (`SO_ORIGINAL_DST`). The answer is the
//! kernel's own record of the redirection, which no client can forge.

use std::{io, net::SocketAddr};

use socket2::{SockAddr, SockRef};
use tokio::net::TcpStream;

/// Where a redirected connection was going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Original {
    /// The address and port that the client dialled; an IPv4 address is never written as IPv6.
    pub address: SocketAddr,
    /// Whether it dialled our listener itself, so that nothing was redirected.
    pub is_ours: bool,
}

impl Original {
    /// The original destination of `tcp`.
    ///
    /// # Errors
    /// If the connection has ended already.
    pub fn of(tcp: &TcpStream) -> io::Result<Self> {
        let local = canonical(tcp.local_addr()?);
        let socket = SockRef::from(tcp);
        let asked = match local {
            SocketAddr::V4(_) => socket.original_dst_v4(),
            SocketAddr::V6(_) => socket.original_dst_v6(),
        };
        // No record: the kernel does not track this connection, so it cannot have been redirected.
        let address = asked.ok().as_ref().and_then(SockAddr::as_socket).map_or(local, canonical);
        Ok(Self { address, is_ours: address == local })
    }
}

/// `address`, an IPv4 one as such even if it came through an IPv6 socket. Without IPv6's flow and scope,
/// which are no part of where somebody is.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Ends `tcp` with a reset, so that its client takes it for a failure and not for an end.
pub fn reset(tcp: &TcpStream) {
    if let Err(error) = SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO)) {
        tracing::debug!(%error, "a refused connection is closed without a reset");
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    async fn pair(listen: &str, dial: &str) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(listen).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (client, accepted) =
            tokio::join!(TcpStream::connect(format!("{dial}:{port}")), listener.accept());
        (client.unwrap(), accepted.unwrap().0)
    }

    #[tokio::test]
    async fn a_connection_that_nobody_redirected_was_meant_for_us() {
        for (listen, dial) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")] {
            let (client, server) = pair(listen, dial).await;

            let original = Original::of(&server).unwrap();

            assert_eq!(original, Original { address: client.peer_addr().unwrap(), is_ours: true });
        }
    }

    #[tokio::test]
    async fn a_reset_is_an_error_to_the_client() {
        let (mut client, server) = pair("127.0.0.1:0", "127.0.0.1").await;

        reset(&server);
        drop(server);

        let error = client.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
