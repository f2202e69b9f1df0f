//! Where something is: an IP address, or a name that only the caller's own DNS knows.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use serde::{Serialize, Serializer};

/// The longest name that DNS allows, without a dot at its end (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// The longest part of a name between two dots.
const MAX_LABEL: usize = 63;

/// An IP address, or a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An address; an IPv4 address that was written as IPv6 (`::ffff:192.0.2.1`) is the IPv4 one.
    Ip(IpAddr),
    /// A name, in lower case, without a dot at its end.
    Name(Arc<str>),
}

/// A text is neither an IP address nor a DNS name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neither an IP address nor a DNS name")]
pub struct HostError;

/// A text is no `HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no HOST:PORT; HOST is an IP address (IPv6 in brackets) or a DNS name")]
pub struct HostPortError;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Which host.
    pub host: Host,
    /// Which of its ports; not 0.
    pub port: u16,
}

impl Host {
    /// The address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Name(_) => None,
        }
    }

    /// The name, if it is one.
    pub fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Ip(_) => None,
            Self::Name(name) => Some(name),
        }
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self::Ip(ip.to_canonical()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        // Docker's own names have underscores.
        if !is_name(name, |byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err(HostError);
        }
        Ok(Self::Name(Arc::from(name.to_ascii_lowercase())))
    }
}

/// Whether `name` is a DNS name of labels of these characters, without a dot at its end. One whose last label has digits
/// only is a mistyped address.
pub(crate) fn is_name(name: &str, may_be_in_label: fn(u8) -> bool) -> bool {
    let is_label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(may_be_in_label)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_letters =
        name.rsplit('.').next().is_some_and(|last| !last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= MAX_NAME && ends_in_letters && name.split('.').all(is_label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

impl HostPort {
    /// The port `port` of `host`.
    pub fn new(host: Host, port: u16) -> Self {
        Self { host, port }
    }

    /// The socket address, if the host is an address.
    pub fn socket(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.host.ip()?, self.port))
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: Host::Ip(address.ip().to_canonical()), port: address.port() }
    }
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, HostPortError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return if address.port() == 0 { Err(HostPortError) } else { Ok(address.into()) };
        }
        let (host, port) = text.rsplit_once(':').ok_or(HostPortError)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(HostPortError)?;
        match host.parse() {
            Ok(host @ Host::Name(_)) => Ok(Self { host, port }),
            _ => Err(HostPortError),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => fmt::Display::fmt(&SocketAddr::new(*ip, self.port), f),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_host_is_an_address_or_a_name() {
        for (text, host) in [
            ("10.0.0.1", Host::Ip("10.0.0.1".parse().unwrap())),
            ("fd00::1", Host::Ip("fd00::1".parse().unwrap())),
            ("Reviews-v1", Host::Name("reviews-v1".into())),
            ("my_service.shop.example.", Host::Name("my_service.shop.example".into())),
        ] {
            assert_eq!(text.parse(), Ok(host), "{text}");
        }
        let long = "a".repeat(64);
        for text in
            ["", ".", "a..b", "-a", "a-", "10.0.0.300", "10.0.0", "a b", "a/b", "unix:///x", "*.a", &long]
        {
            assert_eq!(text.parse::<Host>(), Err(HostError), "{text}");
        }
    }

    #[test]
    fn a_place_needs_a_port() {
        for text in ["reviews:9080", "10.0.0.1:80", "[fd00::1]:80"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in ["reviews", "reviews:", "reviews:0", "reviews:65536", "10.0.0.1:0", "fd00::1:80", ":80"] {
            assert_eq!(text.parse::<HostPort>(), Err(HostPortError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_written_the_same(text in "[a-z0-9_.:\\[\\]-]{0,24}") {
            if let Ok(place) = text.parse::<HostPort>() {
                prop_assert_eq!(place.to_string().parse(), Ok(place));
            }
        }
    }
}
