//! Which listener and which virtual host of a port a request or a connection is for.
//!
//! The most specific listener for a name counts, and of that the most specific virtual host. No other is tried, whatever
//! it has (Gateway API, `Listener` `hostname`). A request on TLS belongs to the listener that its connection has chosen
//! (GEP-3567).

use std::borrow::Cow;

use super::GatewayPort;

/// Where a request or a connection belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The place of its listener in the port.
    pub listener: usize,
    /// The place of its virtual host in the listener.
    pub virtual_host: usize,
}

/// Why a port serves a request or a connection not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotServed {
    /// No listener is for its name.
    NoListener,
    /// Its TLS connection was made to another listener than the one at this place, which is for its name.
    Misdirected(usize),
    /// The listener at this place is for its name, and has no virtual host for it.
    NoVirtualHost(usize),
}

impl NotServed {
    /// In the words in which a client is told.
    pub fn words(self) -> &'static str {
        match self {
            Self::NoListener | Self::NoVirtualHost(_) => {
                "this gateway has no routes for the host that the request is for"
            }
            Self::Misdirected(_) => {
                "this TLS connection was made for another host; make a connection of its own for this one"
            }
        }
    }
}

impl GatewayPort {
    /// What a request in plaintext, or an opaque connection, is for by its name: the host of its authority or the TLS server
    /// name, in lower case, without a port or a dot at its end.
    ///
    /// # Errors
    /// If this port has nothing for it.
    pub fn choose(&self, name: Option<&str>) -> Result<Chosen, NotServed> {
        let listener = self.listener(name).ok_or(NotServed::NoListener)?;
        let virtual_host = self.listeners[listener].virtual_host(name);
        let virtual_host = virtual_host.ok_or(NotServed::NoVirtualHost(listener))?;
        Ok(Chosen { listener, virtual_host })
    }

    /// What a request is for whose TLS connection has chosen the listener at `own`; `None`: that listener is no more.
    ///
    /// # Errors
    /// As [`choose`](Self::choose), and if it is for a listener with which its own does not
    /// [share](super::Listener::shares) connections.
    pub fn choose_on(&self, own: Option<usize>, name: &str) -> Result<Chosen, NotServed> {
        let place = self.listener(Some(name)).ok_or(NotServed::NoListener)?;
        let shared = own.filter(|own| *own == place || self.listeners[*own].shares(&self.listeners[place]));
        shared.ok_or(NotServed::Misdirected(place))?;
        self.choose(Some(name))
    }
}

/// The host in `authority`, as host names are compared: in lower case, without a port and a dot at its end.
pub fn host_of(authority: &str) -> Cow<'_, str> {
    let is_port = |port: &str| port.bytes().all(|digit| digit.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Carries, Hostname, Listener, VirtualHost, virtual_host},
        *,
    };

    fn listener(name: &str, hostname: &str, hosts: &[&str]) -> Listener {
        let virtual_hosts = hosts.iter().map(|host| {
            let hostname: Hostname = host.parse().unwrap();
            VirtualHost { service: virtual_host(&hostname, "shop/edge/http", 80), hostname }
        });
        Listener::new(name.into(), hostname.parse().unwrap(), None, virtual_hosts.collect())
    }

    fn port() -> GatewayPort {
        let listeners = vec![
            listener("a", "a.example.com", &["a.example.com"]),
            listener("b", "*.example.com", &["b.example.com"]),
            listener("a", "c.example.com", &["c.example.com"]),
        ];
        GatewayPort::new(443, Carries::Tls, listeners)
    }

    #[test]
    fn a_name_chooses_a_listener_and_then_a_virtual_host() {
        let port = port();
        assert_eq!(port.choose(Some("b.example.com")), Ok(Chosen { listener: 1, virtual_host: 0 }));
        assert_eq!(port.choose(Some("d.example.com")), Err(NotServed::NoVirtualHost(1)));
        assert_eq!(port.choose(Some("example.org")), Err(NotServed::NoListener));
        assert_eq!(port.choose(None), Err(NotServed::NoListener));
    }

    #[test]
    fn a_request_on_tls_belongs_to_what_its_connection_chose() {
        let port = port();
        assert!(port.choose_on(Some(0), "a.example.com").is_ok());
        assert!(port.choose_on(Some(0), "c.example.com").is_ok(), "the two are one server");
        assert_eq!(port.choose_on(Some(0), "b.example.com"), Err(NotServed::Misdirected(1)));
        assert_eq!(port.choose_on(None, "a.example.com"), Err(NotServed::Misdirected(0)));
        assert_eq!(port.choose_on(Some(0), "example.org"), Err(NotServed::NoListener));
    }

    #[test]
    fn the_host_of_an_authority_is_compared_without_port_dot_and_case() {
        for (authority, host) in [
            ("shop.example.com", "shop.example.com"),
            ("Shop.Example.com:8080", "shop.example.com"),
            ("shop.example.com.", "shop.example.com"),
            ("shop.example.com.:80", "shop.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("10.0.0.1:80", "10.0.0.1"),
        ] {
            assert_eq!(host_of(authority), host, "{authority}");
        }
    }
}
