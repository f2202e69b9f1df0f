//! `resolv.conf`, as far as it matters for looking up addresses (resolv.conf(5)).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The port of name servers that name none.
const DNS_PORT: u16 = 53;
/// glibc's maximum for `ndots`.
const MAX_NDOTS: usize = 15;
/// One question to one server, unless the file asks for less. A user waits behind this.
const MAX_TIMEOUT: Duration = Duration::from_secs(2);
/// glibc's maximum for `attempts`.
const MAX_ATTEMPTS: usize = 5;

/// What a `resolv.conf` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResolvConf {
    /// `nameserver`, in order; `IP`, or `IP:PORT` as in OpenBSD's `[IP]:PORT`.
    pub(super) servers: Vec<SocketAddr>,
    /// `search`, or `domain`; the last one in the file counts.
    pub(super) search: Vec<String>,
    /// A name with at least so many dots is looked up as it is first; default 1.
    pub(super) ndots: usize,
    /// For one question to one server.
    pub(super) timeout: Duration,
    /// How often all servers are asked; default 2.
    pub(super) attempts: usize,
}

impl Default for ResolvConf {
    fn default() -> Self {
        Self { servers: Vec::new(), search: Vec::new(), ndots: 1, timeout: MAX_TIMEOUT, attempts: 2 }
    }
}

impl ResolvConf {
    /// Reads `text`; lines that say nothing that is known are passed over, as the C library does.
    pub(super) fn parse(text: &str) -> Self {
        let mut conf = Self::default();
        for line in text.lines() {
            let line = line.split(['#', ';']).next().unwrap_or_default();
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => conf.servers.extend(words.next().and_then(server)),
                Some("domain" | "search") => {
                    conf.search = words.map(str::to_owned).filter(|domain| domain != ".").collect();
                }
                Some("options") => words.for_each(|option| conf.option(option)),
                _ => {}
            }
        }
        conf
    }

    fn option(&mut self, option: &str) {
        let Some((name, value)) = option.split_once(':') else { return };
        let Ok(value) = value.parse::<usize>() else { return };
        match name {
            "ndots" => self.ndots = value.min(MAX_NDOTS),
            "timeout" => {
                let seconds = u64::try_from(value).unwrap_or(u64::MAX).max(1);
                self.timeout = Duration::from_secs(seconds).min(MAX_TIMEOUT);
            }
            "attempts" => self.attempts = value.clamp(1, MAX_ATTEMPTS),
            _ => {}
        }
    }
}

fn server(word: &str) -> Option<SocketAddr> {
    if let Ok(server) = word.parse::<SocketAddr>() {
        return Some(server);
    }
    // A link-local server's zone, `fe80::1%eth0`, is beyond what the library can be told.
    word.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DNS_PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_container_has_is_read() {
        let conf = ResolvConf::parse(
            "# made by Docker\nsearch shop.svc.cluster.local svc.cluster.local\nnameserver 127.0.0.11\n\
             nameserver ::1 # second\noptions ndots:5 timeout:1 attempts:3 edns0 trust-ad\n",
        );

        let servers = ["127.0.0.11:53".parse().unwrap(), "[::1]:53".parse().unwrap()];
        assert_eq!(conf.servers, servers);
        assert_eq!(conf.search, ["shop.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (5, Duration::from_secs(1), 3));
    }

    #[test]
    fn what_is_odd_is_passed_over_or_held_within_limits() {
        let conf = ResolvConf::parse(
            "nameserver nonsense\nnameserver\nnameserver 127.0.0.1:5353\nsearch a\ndomain b\n\
             options ndots:99 timeout:0 attempts:0 timeout:x rotate\nsortlist 1\n",
        );

        assert_eq!(conf.servers, ["127.0.0.1:5353".parse().unwrap()]);
        assert_eq!(conf.search, ["b"], "the last one counts");
        assert_eq!((conf.ndots, conf.timeout, conf.attempts), (15, Duration::from_secs(1), 1));
        assert_eq!(ResolvConf::parse(""), ResolvConf::default());
    }
}
