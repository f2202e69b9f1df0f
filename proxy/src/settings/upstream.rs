//! Listeners for destinations that the app reaches at a local port: `--upstream 5432=pg.default:5432`.
//!
//! Opaque TCP does not say where it is going. Where connections are redirected, the address that was dialled says it.
//! Elsewhere, the local port that the app connects to says it.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    str::FromStr,
    sync::Arc,
};

use http::uri::Authority;
use selvedge_ops::{
    announce, guarded,
    listen::{self, ListenError},
};

/// One value of `--upstream`: where to listen, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where to listen.
    listen: At,
    /// What every connection is for: the host and port, in lower case.
    pub authority: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// This port of 127.0.0.1 and of ::1.
    Loopback(u16),
    /// Exactly there.
    Address(SocketAddr),
}

/// A value of `--upstream` that does not say where to listen, or for what.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not an upstream; write PORT=HOST:PORT, or IP:PORT=HOST:PORT to listen on another address than loopback"
)]
pub struct InvalidUpstream(String);

impl FromStr for Upstream {
    type Err = InvalidUpstream;

    fn from_str(text: &str) -> Result<Self, InvalidUpstream> {
        let invalid = || InvalidUpstream(text.to_owned());
        let (listen, authority) = text.trim().split_once('=').ok_or_else(invalid)?;
        let listen = match listen.trim().parse() {
            Ok(port) => At::Loopback(port),
            Err(_) => At::Address(listen.trim().parse().map_err(|_| invalid())?),
        };
        let authority: Authority = authority.trim().parse().map_err(|_| invalid())?;
        let names_both = !authority.host().is_empty()
            && authority.port_u16().is_some_and(|port| port != 0)
            && !authority.as_str().contains('@');
        if !names_both {
            return Err(invalid());
        }
        Ok(Self { listen, authority: Arc::from(authority.as_str().to_ascii_lowercase()) })
    }
}

impl Upstream {
    /// The port of what every connection is for.
    pub fn port(&self) -> u16 {
        self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or_default()
    }

    /// Opens its listeners, and says where they are. A host without IPv6 has no `::1`: it is left out there.
    ///
    /// # Errors
    /// If a port is taken, or an address is not this host's.
    pub fn open(&self) -> Result<Vec<TcpListener>, ListenError> {
        let mut listeners = match self.listen {
            At::Address(address) => vec![listen::tcp("--upstream", address)?],
            At::Loopback(port) => vec![listen::tcp("--upstream", (Ipv4Addr::LOCALHOST, port).into())?],
        };
        let first = listeners[0].local_addr().map(|address| address.port());
        if let (At::Loopback(asked), Ok(port)) = (self.listen, first) {
            match listen::tcp("--upstream", (Ipv6Addr::LOCALHOST, port).into()) {
                Ok(listener) => listeners.push(listener),
                // The port that the kernel chose for IPv4 may be taken here: nothing depends on it.
                Err(error @ ListenError::NoSuchAddress { .. }) => {
                    tracing::info!(%error, "not listening here")
                }
                Err(error) if asked == 0 => tracing::info!(%error, "not listening here"),
                Err(error) => return Err(error),
            }
        }
        for address in listeners.iter().filter_map(|listener| listener.local_addr().ok()) {
            guarded::guard(guarded::Kind::Outbound, address);
            announce(&format!("upstream {}", self.authority), address);
            if !address.ip().is_loopback() {
                tracing::warn!(%address, "--upstream is not on loopback: whoever reaches it calls with this workload's identity");
            }
        }
        Ok(listeners)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(At, String, u16)> {
        let upstream: Upstream = text.parse().ok()?;
        Some((upstream.listen, upstream.authority.to_string(), upstream.port()))
    }

    #[test]
    fn an_upstream_is_a_place_to_listen_and_a_destination() {
        let any = SocketAddr::from(([0, 0, 0, 0], 1));

        assert_eq!(
            parsed("5432=PG.default:5433"),
            Some((At::Loopback(5432), "pg.default:5433".into(), 5433))
        );
        assert_eq!(parsed("0.0.0.0:1=pg:2"), Some((At::Address(any), "pg:2".into(), 2)));
        assert_eq!(parsed("[::1]:0=[fd00::5]:2").unwrap().1, "[fd00::5]:2");
        for invalid in
            ["", "5432", "5432=", "5432=pg", "5432=pg:0", "5432=:5432", "a=pg:1", "70000=pg:1", "1=u@pg:1"]
        {
            assert_eq!(parsed(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_port_of_loopback_is_open_for_both_families() {
        let listeners = "0=pg:5432".parse::<Upstream>().unwrap().open().unwrap();

        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()), "{addresses:?}");
        assert!(addresses[0].is_ipv4());
    }
}
