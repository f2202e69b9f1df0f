//! Whether the app has a port open, as the kernel tells it.
//!
//! It does not connect: some servers count connections that say nothing, and lock their client out.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// This network namespace's sockets, and with them those of everything else in the pod.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

/// The state of a listening socket (`TCP_LISTEN` of the kernel's `tcp_states.h`).
const LISTEN: &str = "0A";

/// Where an app listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum App {
    /// At any of these addresses.
    At(Vec<SocketAddr>),
    /// At any of these ports, whatever the address. None: it only calls others.
    Ports(Vec<u16>),
    /// There is no app whose end could be noticed: the proxy is a gateway.
    Everywhere,
}

impl App {
    /// Whether it does. Where the kernel does not say (no Linux, or no `/proc`), it is taken to.
    pub fn listens(&self) -> bool {
        if *self == Self::Everywhere {
            return true;
        }
        let tables = TABLES.map(fs::read_to_string);
        if tables.iter().all(Result::is_err) {
            return true;
        }
        tables.iter().flatten().any(|table| sockets(table).any(|socket| self.is_at(socket)))
    }

    fn is_at(&self, socket: SocketAddr) -> bool {
        match self {
            Self::At(apps) => apps.iter().any(|app| {
                let ip = socket.ip();
                app.port() == socket.port() && (ip == app.ip().to_canonical() || ip.is_unspecified())
            }),
            Self::Ports(ports) => ports.contains(&socket.port()),
            Self::Everywhere => true,
        }
    }
}

/// The listening sockets of a table.
fn sockets(table: &str) -> impl Iterator<Item = SocketAddr> + '_ {
    // `sl local_address rem_address st …`; the first line says so.
    table.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let local = words.next()?;
        (words.nth(1)? == LISTEN).then(|| address(local))?
    })
}

/// `0100007F:1F90` is 127.0.0.1:8080: words of four bytes, each in the order of this machine.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len())
        .step_by(8)
        .map(|at| u32::from_str_radix(ip.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let ip = match words?.as_slice() {
        [v4] => IpAddr::V4(Ipv4Addr::from(*v4)),
        [a, b, c, d] => {
            let bytes = <[u8; 16]>::try_from([*a, *b, *c, *d].concat()).ok()?;
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn only_listening_sockets_are_read() {
        let table = format!(
            "{HEAD}   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000\n   \
             1: 0100007F:1F91 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000\n   \
             2: 00000000000000000000000001000000:2378 00000000000000000000000000000000:0000 0A 0\n   \
             3: 0000000000000000FFFF00000100007F:0050 00000000000000000000000000000000:0000 0A 0\n   \
             4: nonsense 0A\n   5: 01:02 x 0A\n"
        );

        let found: Vec<_> = sockets(&table).map(|socket| socket.to_string()).collect();

        assert_eq!(found, ["127.0.0.1:8080", "[::1]:9080", "127.0.0.1:80"]);
    }

    #[test]
    fn an_app_listens_as_long_as_its_socket_is_open() {
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let port = listener.local_addr().unwrap().port();
            let [other, own] = [1, port].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
            let apps = [App::At(vec![own]), App::At(vec![other, own]), App::Ports(vec![1, port])];
            for app in &apps {
                assert!(app.listens(), "{app:?} at {bind}");
            }

            drop(listener);

            for app in &apps {
                assert!(!app.listens(), "{app:?} at {bind}");
            }
        }
    }

    #[test]
    fn another_address_is_another_app() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();

        assert!(!App::At(vec![SocketAddr::from(([127, 0, 0, 2], port))]).listens());
        assert!(!App::Ports(Vec::new()).listens());
    }
}
