//! Listeners of our daemons that a proxy on this host must not connect to for a client.
//!
//! A proxied request comes from the proxy, so from this host. It would be let in where only this host may, and could
//! stop a daemon or read its configuration. A proxy knows its own listeners. A control plane, or another proxy on this
//! host, marks its listeners by a socket with an abstract name. Such a name belongs to the network namespace, as the
//! listener does, needs no file, and is gone when its process is (unix(7)).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr as Name, UnixDatagram},
    },
    sync::{LazyLock, Mutex, PoisonError},
};

use axum::http::HeaderName;

use crate::here;

/// The header of a request that passed through proxies of ours: their random names, separated by commas. A proxy sets
/// it where the request may come back to a proxy, never between sidecars. Admin ports refuse to reveal or change
/// anything for a request that has it.
pub const HOPS: HeaderName = HeaderName::from_static("selvedge-hops");

/// What a guarded listener is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An outbound listener: what is sent there goes out again.
    Outbound,
    /// An inbound listener: who calls a workload is to reach it, and no sidecar's app is there.
    Inbound,
    /// An admin port, or a control plane's.
    Private,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
            Self::Private => "private",
        }
    }
}

/// The sockets that guard this process's listeners, as long as it lives.
static GUARDS: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());

/// What names are asked with. `None`: there are no such sockets here.
static ASKS: LazyLock<Option<UnixDatagram>> = LazyLock::new(|| UnixDatagram::unbound().ok());

/// Tells every proxy on this host that nothing is to be carried to the listener at `address`, as long as this process
/// lives.
pub fn guard(kind: Kind, address: SocketAddr) {
    let place = Place::of_listener(address);
    // The second name says which kind the first one is of.
    for name in [place.name("listener"), place.name(kind.word())] {
        match name.and_then(|name| UnixDatagram::bind_addr(&name)) {
            Ok(guard) => GUARDS.lock().unwrap_or_else(PoisonError::into_inner).push(guard),
            Err(error) => {
                tracing::debug!(%address, %error, "cannot tell other proxies on this host about this listener");
            }
        }
    }
}

/// The kind of guarded listener that a connection to `dial` would reach, if any. Costs two system calls if there is
/// none. An address of another host is never guarded here, even if a name says so.
pub fn find(dial: SocketAddr) -> Option<Kind> {
    let mut places = [Place::At(dial), Place::Everywhere(dial.port())].into_iter();
    let found = places.find(|place| place.is("listener"))?;
    here::has(dial.ip()).then(|| found.kind())
}

/// Where a listener is.
#[derive(Debug, Clone, Copy)]
enum Place {
    At(SocketAddr),
    /// At every address of the host.
    Everywhere(u16),
}

impl Place {
    fn of_listener(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            ip if ip.is_unspecified() => Self::Everywhere(address.port()),
            ip => Self::At(SocketAddr::new(ip, address.port())),
        }
    }

    fn name(self, what: &str) -> io::Result<Name> {
        Name::from_abstract_name(match self {
            Self::At(address) => format!("selvedge {what} {address}"),
            Self::Everywhere(port) => format!("selvedge {what} *:{port}"),
        })
    }

    fn is(self, what: &str) -> bool {
        let Some(asks) = &*ASKS else { return false };
        match self.name(what).and_then(|name| asks.connect_addr(&name)) {
            Ok(()) => true,
            // Nobody has the name. Any other error is about somebody who has it.
            Err(error) => error.kind() != io::ErrorKind::ConnectionRefused,
        }
    }

    fn kind(self) -> Kind {
        let known = [Kind::Outbound, Kind::Inbound].into_iter().find(|kind| self.is(kind.word()));
        known.unwrap_or(Kind::Private)
    }
}

/// `address` as a connection to it goes: IPv4 as such, and to this host where no host is said (`0.0.0.0`, `[::]`).
pub fn dialled(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from([127, 0, 0, 1]),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1_u16]),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn free(host: &str) -> SocketAddr {
        TcpListener::bind(host).unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_guarded_listener_is_found_and_no_other() {
        let [private, outbound, inbound] = [(); 3].map(|()| free("127.0.0.1:0"));
        assert_eq!(find(private), None);

        guard(Kind::Private, private);
        guard(Kind::Outbound, outbound);
        guard(Kind::Inbound, inbound);

        assert_eq!(find(private), Some(Kind::Private));
        assert_eq!(find(outbound), Some(Kind::Outbound));
        assert_eq!(find(inbound), Some(Kind::Inbound));
        assert_eq!(find(SocketAddr::new([127, 0, 0, 2].into(), private.port())), None);
    }

    /// Anybody on this host may have a name of ours, and shall shut nothing off by it that is elsewhere.
    #[test]
    fn nothing_is_guarded_at_addresses_of_other_hosts() {
        let elsewhere = SocketAddr::from(([192, 0, 2, 1], free("127.0.0.1:0").port()));

        guard(Kind::Private, elsewhere);

        assert!(Place::At(elsewhere).is("listener"));
        assert_eq!(find(elsewhere), None);
    }

    #[test]
    fn a_listener_on_every_address_is_found_at_those_of_this_host() {
        let port = free("[::]:0").port();

        guard(Kind::Private, format!("[::]:{port}").parse().unwrap());

        for own in ["127.0.0.1", "127.0.0.9", "::1"] {
            assert_eq!(find(SocketAddr::new(own.parse().unwrap(), port)), Some(Kind::Private), "{own}");
        }
        assert_eq!(find(SocketAddr::from(([192, 0, 2, 1], port))), None, "another host's");
    }

    #[test]
    fn no_host_is_this_host() {
        for (written, goes) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::ffff:0.0.0.0]:80", "127.0.0.1:80"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
            ("[fe80::1%3]:80", "[fe80::1]:80"),
        ] {
            assert_eq!(dialled(written.parse().unwrap()), goes.parse().unwrap());
        }
    }
}
