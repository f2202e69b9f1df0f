//! Listening sockets, and the line on stdout that tells their real address.
//!
//! Never SO_REUSEPORT: a second daemon on the same port must fail with "port in use", not take half of
//! the connections.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use serde::Serialize;
use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted: as many as Linux allows by default (`net.core.somaxconn`). Beyond,
/// it drops what it is sent, and a client tries again after a second.
const BACKLOG: i32 = 4096;

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another process has the port, or this one has it twice.
    #[error(
        "{flag} {address}: the port is already in use; stop the program that has it, \
         or choose another port with {flag} (port 0 takes any free one)"
    )]
    InUse {
        /// The setting that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// The address belongs to no interface of this host.
    #[error("{flag} {address}: this host has no such address; choose another one with {flag}")]
    NoSuchAddress {
        /// The setting that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// Anything else, such as a privileged port without the right to it.
    #[error("{flag} {address}: cannot listen: {source}")]
    Failed {
        /// The setting that names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A non-blocking listener on `address`, which the setting `flag` (such as `--inbound`) named.
///
/// `[::]` serves IPv4 too; on a host without IPv6 it becomes `0.0.0.0`.
///
/// # Errors
/// If the operating system refuses; the message names `flag` and what to do.
pub fn tcp(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ListenError> {
    let every_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
    let opened = match open(address) {
        Err(error) if any_address_without_ipv6(&error, address) => open(every_v4),
        opened => opened,
    };
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { flag, address },
        _ if is_without(&source) => ListenError::NoSuchAddress { flag, address },
        _ => ListenError::Failed { flag, address, source },
    })
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // So that a restart does not wait for old connections in TIME_WAIT; two listeners still conflict.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn any_address_without_ipv6(error: &io::Error, address: SocketAddr) -> bool {
    address.is_ipv6() && address.ip().is_unspecified() && is_without(error)
}

/// Whether the host has no such address: EADDRNOTAVAIL (IPv6 may be switched off by sysctl), or EAFNOSUPPORT
/// (this kernel has no IPv6).
fn is_without(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[derive(Serialize)]
struct Announcement<'a> {
    listener: &'a str,
    address: SocketAddr,
}

/// Prints `{"listener":"<name>","address":"<address>"}` on stdout, so that nothing picks ports by guessing.
///
/// Nobody may be reading: a closed stdout is not an error.
pub fn announce(name: &str, address: SocketAddr) {
    let mut stdout = io::stdout().lock();
    let line = serde_json::to_string(&Announcement { listener: name, address })
        .expect("a name and an address always have a JSON form");
    let written = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if let Err(error) = written {
        tracing::debug!(%error, "stdout is closed; the listener's address was not printed");
    }
    tracing::info!(listener = name, %address, "listening");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_port_in_use_is_one_error_that_names_the_flag_and_the_remedy() {
        let first = tcp("--inbound", address("127.0.0.1:0")).unwrap();
        let taken = first.local_addr().unwrap();

        let error = tcp("--inbound", taken).unwrap_err();

        assert!(matches!(error, ListenError::InUse { .. }));
        let message = error.to_string();
        assert!(message.contains("--inbound") && message.contains("choose another port"), "{message}");
    }

    #[test]
    fn an_address_of_another_host_is_named() {
        let error = tcp("--listen", address("192.0.2.1:0")).unwrap_err();

        assert!(matches!(error, ListenError::NoSuchAddress { .. }), "{error}");
    }

    #[test]
    fn the_unspecified_address_serves_ipv4() {
        let listener = tcp("--inbound", address("[::]:0")).unwrap();
        let port = listener.local_addr().unwrap().port();

        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("the backlog takes it");
    }
}
