//! Where a gateway's container listens for each port that clients call. Pure.
//!
//! A process without privileges cannot have a port below 1024, and some ports are the proxy's own. Every other port is the
//! same in the container, so a listener that comes or goes there changes nothing of the pods. Ports 80 and 443 always
//! have a place for the same reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// The first port that needs no privilege.
const FIRST: u16 = 1024;
/// The ports of every proxy: outbound, inbound, admin.
const OF_PROXY: [u16; 3] = [4140, 4143, 4191];
/// Ports that most gateways have at some time.
const USUAL: [u16; 2] = [80, 443];
/// How far away a port's place is.
const DISTANCE: u16 = 8000;
/// To the next place, if that one is taken.
const STEP: u16 = 1000;

/// Ports that are others in the container than for clients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mapped(BTreeMap<u16, u16>);

impl Mapped {
    /// Where the container has those of `ports` that it cannot have.
    pub(super) fn of(ports: &BTreeSet<u16>) -> Self {
        let (moved, mut taken): (BTreeSet<u16>, BTreeSet<u16>) =
            ports.iter().partition(|port| **port < FIRST || OF_PROXY.contains(port));
        taken.extend(OF_PROXY);
        let mut mapped = BTreeMap::new();
        for port in moved.into_iter().chain(USUAL) {
            if mapped.contains_key(&port) {
                continue;
            }
            let places = (port.saturating_add(DISTANCE)..=u16::MAX).step_by(STEP.into());
            if let Some(place) = places.into_iter().find(|place| !taken.contains(place)) {
                taken.insert(place);
                mapped.insert(port, place);
            }
        }
        Self(mapped)
    }

    /// As the annotation of the pods has it: `80=8080,443=8443`.
    pub(super) fn annotation(&self) -> String {
        let mut text = String::new();
        for (port, place) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{port}={place}").expect("a String grows");
        }
        text
    }

    /// The container's ports that have a name, by that name.
    ///
    /// A Service finds them by it: while pods are replaced, old and new ones may have different places.
    pub(super) fn named(&self) -> Vec<(String, u16)> {
        self.0.iter().map(|(port, place)| (name(*port), *place)).collect()
    }

    /// What the Service says of the container's port for `port`: its name, or its number.
    pub(super) fn target(&self, port: u16) -> serde_json::Value {
        match self.0.contains_key(&port) {
            true => name(port).into(),
            false => port.into(),
        }
    }
}

/// What a port is called, in the container and in the Service.
pub(super) fn name(port: u16) -> String {
    format!("port-{port}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn annotation(ports: &[u16]) -> String {
        Mapped::of(&ports.iter().copied().collect()).annotation()
    }

    #[test]
    fn ports_that_need_a_privilege_or_are_the_proxys_have_another_place() {
        assert_eq!(annotation(&[80]), "80=8080,443=8443");
        assert_eq!(annotation(&[25, 443, 9000]), "25=8025,80=8080,443=8443");
        assert_eq!(annotation(&[4191]), "80=8080,443=8443,4191=12191");
        assert_eq!(annotation(&[80, 8080]), "80=9080,443=8443", "what is taken is left alone");
    }

    #[test]
    fn a_listener_on_a_port_of_its_own_changes_nothing() {
        assert_eq!(annotation(&[80]), annotation(&[80, 443, 9000, 15443]));
        let mapped = Mapped::of(&BTreeSet::from([80, 9000]));
        assert_eq!((mapped.target(80), mapped.target(9000)), ("port-80".into(), 9000.into()));
    }

    proptest! {
        #[test]
        fn no_two_ports_have_one_place(ports in prop::collection::btree_set(1_u16.., 0..64)) {
            let mapped = Mapped::of(&ports);
            let mut places = BTreeSet::from(OF_PROXY);
            for port in &ports {
                let place = mapped.0.get(port).copied().unwrap_or(*port);
                prop_assert!(place >= FIRST);
                prop_assert!(places.insert(place), "{place} is taken");
            }
        }
    }
}
