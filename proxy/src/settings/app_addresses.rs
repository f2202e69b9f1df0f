//! Where the app listens: one address for each of its workload's ports, as `--app` says.
//!
//! A port without an address is refused. Using the app of another port would send a request for one service to another.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use crate::error::{Failure, Reason};

/// One value of `--app`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// The workload's port that it serves. `None`: the address's own, or the only one that the workload has.
    port: Option<u16>,
    /// Where the app listens.
    address: SocketAddr,
}

/// A value of `--app` that says no address.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not an address; write IP:PORT, or PORT=IP:PORT for one of several ports")]
pub struct InvalidListen(String);

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        let invalid = || InvalidListen(text.to_owned());
        let (port, address) = match text.trim().split_once('=') {
            Some((port, address)) => {
                let port = port.trim().parse().ok().filter(|port| *port != 0);
                (Some(port.ok_or_else(invalid)?), address.trim())
            }
            None => (None, text.trim()),
        };
        let address: SocketAddr = address.parse().map_err(|_| invalid())?;
        if address.port() == 0 { Err(invalid()) } else { Ok(Self { port, address }) }
    }
}

/// Every value of `--app` together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listens {
    /// By the workload's port.
    ports: BTreeMap<u16, SocketAddr>,
    /// The address for which no port is said.
    bare: Option<SocketAddr>,
}

/// Values of `--app` that contradict each other.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListens {
    /// Two addresses for one port.
    #[error("--app gives two addresses for port {0}; remove one")]
    Twice(u16),
    /// Two addresses without a port.
    #[error("--app has {0} and {1} without a port; write PORT={0} and PORT={1}")]
    TwoBare(SocketAddr, SocketAddr),
}

impl Listens {
    /// What `values` say together. `None`: there are none.
    ///
    /// # Errors
    /// If they contradict each other.
    pub fn new(values: &[Listen]) -> Result<Option<Self>, InvalidListens> {
        let (mut ports, mut bare) = (BTreeMap::new(), None);
        for Listen { port, address } in values {
            match (port, bare) {
                (Some(port), _) if ports.insert(*port, *address).is_some() => {
                    return Err(InvalidListens::Twice(*port));
                }
                (Some(_), _) => {}
                (None, Some(other)) => return Err(InvalidListens::TwoBare(other, *address)),
                (None, None) => bare = Some(*address),
            }
        }
        if let Some(bare) = bare.filter(|bare| ports.contains_key(&bare.port())) {
            return Err(InvalidListens::Twice(bare.port()));
        }
        Ok((!values.is_empty()).then_some(Self { ports, bare }))
    }

    /// Every address, each once.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let mut addresses: Vec<_> = self.ports.values().copied().chain(self.bare).collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// Where the app listens for `port` of a workload whose ports are `declared`.
    ///
    /// # Errors
    /// [`Reason::AppUnreachable`] if no address is said for it, [`Reason::Policy`] if it is not one of the workload's.
    pub fn find(&self, port: u16, declared: &[u16]) -> Result<SocketAddr, Failure> {
        if let Some(address) = self.ports.get(&port) {
            return Ok(*address);
        }
        match self.bare.filter(|_| self.port_of_bare(declared) == Some(port)) {
            Some(bare) => Ok(bare),
            None if declared.contains(&port) => Err(self.missing(port)),
            None => Err(not_ours(port)),
        }
    }

    /// The one port that there is an app for, and where it listens: for connections that cannot say which port they are
    /// for.
    ///
    /// # Errors
    /// [`Reason::Policy`] if there are several, or other ports than this app's.
    pub fn only(&self, declared: &[u16]) -> Result<(u16, SocketAddr), Failure> {
        let bare = self.port_of_bare(declared).zip(self.bare);
        let mut served = self.ports.iter().map(|(port, address)| (*port, *address)).chain(bare);
        let only = served.next().filter(|_| served.next().is_none());
        only.filter(|(port, _)| declared.iter().all(|other| other == port)).ok_or_else(|| {
            let what = "without mutual TLS the request does not say which of this workload's ports it is for; \
                        call it through a sidecar, or the app itself";
            Failure::new(Reason::Policy, what)
        })
    }

    /// The ports among `declared` that no address is said for.
    pub fn without(&self, declared: &[u16]) -> Vec<u16> {
        declared.iter().copied().filter(|port| self.find(*port, declared).is_err()).collect()
    }

    /// The port that the address without one is for: its own, or, if that is not the workload's, the only one that
    /// has no address yet.
    fn port_of_bare(&self, declared: &[u16]) -> Option<u16> {
        let own = self.bare?.port();
        if declared.is_empty() || declared.contains(&own) {
            return Some(own);
        }
        let mut others = declared.iter().filter(|port| !self.ports.contains_key(port));
        let only = others.next().copied();
        only.filter(|_| others.next().is_none())
    }

    fn missing(&self, port: u16) -> Failure {
        let address = self.addresses().first().map_or(IpAddr::from([127, 0, 0, 1]), SocketAddr::ip);
        let address = SocketAddr::new(address, port);
        let what = format!(
            "this workload's port {port} has no app: {self} serves other ports; add --app {port}={address}, or \
             wherever the app listens for it"
        );
        Failure::new(Reason::AppUnreachable, what)
    }
}

/// The failure of a request for a `port` that is not this workload's.
pub fn not_ours(port: u16) -> Failure {
    Failure::new(Reason::Policy, format!("port {port} is not one of this workload's ports"))
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = self.ports.iter().map(|(port, address)| format!("--app {port}={address}"));
        let bare = self.bare.map(|bare| format!("--app {bare}"));
        f.write_str(&ports.chain(bare).collect::<Vec<_>>().join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listens(values: &str) -> Listens {
        let values: Vec<_> = values.split(',').map(|value| value.parse().unwrap()).collect();
        Listens::new(&values).unwrap().unwrap()
    }

    /// The app's port for the workload's port, or why there is none.
    fn found(values: &str, port: u16, declared: &[u16]) -> Result<u16, Reason> {
        let found = listens(values).find(port, declared);
        found.map(|address| address.port()).map_err(|failure| failure.reason)
    }

    #[test]
    fn each_port_has_its_own_address_and_none_is_answered_by_anothers() {
        let both = "9080=127.0.0.1:1,9081=[::1]:2";
        assert_eq!(found(both, 9080, &[9080, 9081]), Ok(1));
        assert_eq!(found(both, 9081, &[9080, 9081]), Ok(2));
        assert_eq!(found(both, 9082, &[9080, 9081]), Err(Reason::Policy));
        assert_eq!(found("9080=127.0.0.1:1", 9081, &[9080, 9081]), Err(Reason::AppUnreachable));
        assert_eq!(found("9080=127.0.0.1:1", 9080, &[]), Ok(1), "who runs it says so");
    }

    #[test]
    fn a_bare_address_serves_its_own_port_or_the_only_one_left() {
        let bare = "127.0.0.1:9080";
        assert_eq!(found(bare, 9080, &[9080, 9081]), Ok(9080));
        assert_eq!(found(bare, 9081, &[9080, 9081]), Err(Reason::AppUnreachable));
        assert_eq!(found(bare, 9080, &[]), Ok(9080));
        assert_eq!(found("127.0.0.1:8080", 9080, &[9080]), Ok(8080));
        assert_eq!(found("127.0.0.1:8080", 8080, &[9080]), Err(Reason::Policy), "one port has one number");
        assert_eq!(found("127.0.0.1:8080", 9080, &[9080, 9081]), Err(Reason::AppUnreachable));
        assert_eq!(found("127.0.0.1:8080,9081=127.0.0.1:1", 9080, &[9080, 9081]), Ok(8080));
    }

    #[test]
    fn a_port_without_an_address_is_refused_in_words_that_mend_it() {
        let failure = listens("127.0.0.1:9080").find(9081, &[9080, 9081]).unwrap_err().to_string();

        assert!(
            failure.starts_with("app-unreachable: ") && failure.contains("9081=127.0.0.1:9081"),
            "{failure}"
        );
        assert_eq!(listens("127.0.0.1:9080").without(&[9080, 9081, 9082]), [9081, 9082]);
    }

    #[test]
    fn who_cannot_say_which_port_it_means_reaches_the_only_one() {
        let only = |values: &str, declared: &[u16]| listens(values).only(declared).map(|(port, _)| port).ok();

        assert_eq!(only("127.0.0.1:8080", &[9080]), Some(9080));
        assert_eq!(only("127.0.0.1:8080", &[]), Some(8080));
        assert_eq!(only("9080=127.0.0.1:8080", &[9080]), Some(9080));
        assert_eq!(only("9080=127.0.0.1:1,9081=127.0.0.1:2", &[9080, 9081]), None);
        assert_eq!(only("127.0.0.1:9080", &[9080, 9081]), None, "it may mean the other one");
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let refused = |values: &str| {
            let values: Vec<_> = values.split(',').map(|value| value.parse().unwrap()).collect();
            Listens::new(&values).unwrap_err()
        };
        assert_eq!(refused("1=127.0.0.1:1,1=127.0.0.1:2"), InvalidListens::Twice(1));
        assert_eq!(refused("127.0.0.1:1,1=127.0.0.1:2"), InvalidListens::Twice(1));
        assert!(matches!(refused("127.0.0.1:1,127.0.0.1:2"), InvalidListens::TwoBare(..)));
        for invalid in ["", "9080", "9080=", "=127.0.0.1:1", "0=127.0.0.1:1", "127.0.0.1:0", "a=127.0.0.1:1"]
        {
            assert!(invalid.parse::<Listen>().is_err(), "{invalid}");
        }
    }
}
