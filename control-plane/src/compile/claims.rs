//! Who claims which ports of an address, and what is said to who does not get them.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use selvedge_model::{Host, HostPort};

use crate::{
    problem::DocumentName,
    resources::{Document, Location, ServiceEntrySpec, ServiceSpec},
};

/// A document, as problems of others point at it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described<'a> {
    name: &'a DocumentName,
    location: &'a Location,
}

impl<'a, T> From<&'a Document<T>> for Described<'a> {
    fn from(document: &'a Document<T>) -> Self {
        Self { name: &document.name, location: &document.location }
    }
}

impl<'a> Described<'a> {
    /// Whether somebody wrote it into a file.
    pub(super) fn is_in_file(self) -> bool {
        self.location.path.is_some()
    }

    /// Whether it is the very same.
    pub(super) fn is(self, other: Self) -> bool {
        std::ptr::eq(self.name, other.name)
    }

    /// The namespace that it is in.
    pub(super) fn namespace(self) -> &'a str {
        &self.name.namespace
    }
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.location)
    }
}

/// The ports of an address that a document claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ports {
    /// All, declared or not.
    All,
    /// These.
    These(BTreeSet<u16>),
}

#[cfg(test)]
impl Ports {
    fn contain(&self, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::These(ports) => ports.contains(&port),
        }
    }
}

/// What kind of thing has an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClaimedBy {
    /// A pod with its own address: no other workload shares it, not even in its namespace.
    Pod,
    /// A pod in its node's network: its ports are its own, and the node's others are not.
    PodOfNode,
    /// A service: connections to it are carried on by the cluster's network.
    Service,
    /// Anything else.
    Other,
}

impl ClaimedBy {
    /// Whether no other workload shares its ports, not even in its namespace.
    pub(super) fn is_a_pod(self) -> bool {
        matches!(self, Self::Pod | Self::PodOfNode)
    }
}

/// Who has some ports of an address.
#[derive(Debug, Clone)]
pub(super) struct Claim<'a> {
    pub(super) namespace: &'a str,
    pub(super) by: Described<'a>,
    pub(super) what: ClaimedBy,
    pub(super) ports: Ports,
}

/// What a claim does not get, and who has it.
#[derive(Debug)]
pub(super) struct LostClaim<'a> {
    /// Everything at the address.
    pub(super) all: bool,
    /// These ports of it.
    pub(super) ports: BTreeSet<u16>,
    pub(super) to: Described<'a>,
}

impl LostClaim<'_> {
    /// What is wrong, for who wrote the claim on `host`.
    pub(super) fn message(&self, host: &Host) -> String {
        let what = match (self.all, self.ports.iter().next()) {
            (false, Some(port)) => HostPort::new(host.clone(), *port).to_string(),
            _ => host.to_string(),
        };
        format!(
            "{what} belongs to {}, so this declaration has no effect; use another address or port here",
            self.to
        )
    }
}

/// Who claims something.
pub(super) enum Claimant<'a> {
    /// The workload of this number.
    Workload(usize, Host, Claim<'a>),
    /// A `Service` in a file, by its clusterIPs.
    ClusterIp(&'a Document<ServiceSpec>),
    /// A `ServiceEntry`, by its `addresses`.
    Addresses(&'a Document<ServiceEntrySpec>),
    /// The document that lists an endpoint.
    Endpoint(Host, Claim<'a>),
}

/// Whether the addresses in `document` were given out by a cluster, so that nobody wrote them.
pub(super) fn in_cluster<T>(document: &&Document<T>) -> bool {
    document.location.path.is_none()
}

/// A claim that `document` makes.
pub(super) fn claim<'a, T>(document: &'a Document<T>, what: ClaimedBy, ports: Ports) -> Claim<'a> {
    Claim { namespace: &document.name.namespace, by: document.into(), what, ports }
}

/// Who has ports of one host, the first claim first.
///
/// A host may have as many claims as it has ports, each by a document of its own: nothing here looks through all of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Held<'a> {
    claims: Vec<Claim<'a>>,
    /// Of all claims.
    any: Firsts,
    /// Of those on all ports.
    all: Firsts,
    /// Of those on each port alone.
    ports: HashMap<u16, Firsts>,
}

/// The places of the first of some claims, as far as it matters whose they are.
#[derive(Debug, Clone, Copy, Default)]
struct Firsts {
    first: Option<u32>,
    /// The first that is of another namespace than that one.
    of_another: Option<u32>,
    /// The first that a pod makes.
    of_a_pod: Option<u32>,
}

impl Firsts {
    fn add(&mut self, place: u32, claims: &[Claim<'_>]) {
        let claim = &claims[place as usize];
        match self.first {
            None => self.first = Some(place),
            Some(first) if claims[first as usize].namespace != claim.namespace => {
                self.of_another.get_or_insert(place);
            }
            Some(_) => {}
        }
        if claim.what.is_a_pod() {
            self.of_a_pod.get_or_insert(place);
        }
    }

    /// The first that is of another namespace than `namespace`.
    fn elsewhere(self, claims: &[Claim<'_>], namespace: &str) -> Option<u32> {
        match self.first {
            Some(first) if claims[first as usize].namespace == namespace => self.of_another,
            first => first,
        }
    }
}

impl<'a> Held<'a> {
    pub(super) fn claims(&self) -> &[Claim<'a>] {
        &self.claims
    }

    /// Who has `port`.
    pub(super) fn of(&self, port: u16) -> Option<&Claim<'a>> {
        let firsts = [Some(self.all), self.ports.get(&port).copied()];
        let first = firsts.into_iter().flatten().filter_map(|firsts| firsts.first).min()?;
        self.claims.get(first as usize)
    }

    /// Adds `claim`, whoever else has its ports.
    pub(super) fn add(&mut self, claim: Claim<'a>) {
        // Each is of a document or more, and no machine holds as many of them.
        let Ok(place) = u32::try_from(self.claims.len()) else { return };
        self.claims.push(claim);
        let Self { claims, any, all, ports } = self;
        any.add(place, claims);
        match &claims[place as usize].ports {
            Ports::All => all.add(place, claims),
            Ports::These(these) => {
                for port in these {
                    ports.entry(*port).or_default().add(place, claims);
                }
            }
        }
    }

    /// Adds `claim` for the ports that nobody has yet and that are not `reserved` for another namespace. Gives what it does
    /// not get.
    pub(super) fn settle(&mut self, reserved: &Self, mut claim: Claim<'a>) -> Option<LostClaim<'a>> {
        let all = |held: &Self| if claim.ports == Ports::All { held.any } else { held.all };
        if let Some(first) = self.rival(reserved, claim.namespace, |held| Some(all(held))) {
            let to = self.at(reserved, first);
            return Some(LostClaim { all: true, ports: BTreeSet::new(), to });
        }
        let mut lost: Option<(Place, BTreeSet<u16>)> = None;
        if let Ports::These(ports) = &mut claim.ports {
            ports.retain(|port| {
                let at_port = |held: &Self| held.ports.get(port).copied();
                let Some(rival) = self.rival(reserved, claim.namespace, at_port) else { return true };
                let (first, taken) = lost.get_or_insert_with(|| (rival, BTreeSet::new()));
                *first = rival.min(*first);
                taken.insert(*port);
                false
            });
        }
        let lost = lost.map(|(first, ports)| LostClaim { all: false, ports, to: self.at(reserved, first) });
        self.add(claim);
        lost
    }

    /// The first claim that a claim of `namespace` does not go before, of those `of` here, and then of those that are
    /// `reserved`. What is reserved for its own namespace may be reserved for itself.
    fn rival(&self, reserved: &Self, namespace: &str, of: impl Fn(&Self) -> Option<Firsts>) -> Option<Place> {
        let here = of(self).and_then(|firsts| {
            let elsewhere = firsts.elsewhere(&self.claims, namespace);
            elsewhere.into_iter().chain(firsts.of_a_pod).min().map(Place::Here)
        });
        let of_reserved = || of(reserved)?.elsewhere(&reserved.claims, namespace).map(Place::Reserved);
        here.or_else(of_reserved)
    }

    fn at(&self, reserved: &Self, place: Place) -> Described<'a> {
        match place {
            Place::Here(place) => self.claims[place as usize].by,
            Place::Reserved(place) => reserved.claims[place as usize].by,
        }
    }
}

/// Where a claim is: what somebody has goes before what is reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Here(u32),
    Reserved(u32),
}

impl<'a> FromIterator<Claim<'a>> for Held<'a> {
    fn from_iter<I: IntoIterator<Item = Claim<'a>>>(claims: I) -> Self {
        let mut held = Self::default();
        claims.into_iter().for_each(|claim| held.add(claim));
        held
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::resources::{DecodeOutcome, Resource, ServiceEntrySpec, decode};

    /// Documents of the namespaces `a`, `b` and `c`.
    fn documents() -> Vec<std::sync::Arc<Document<ServiceEntrySpec>>> {
        let one = |namespace: &str| {
            let text = format!(
                "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: a, namespace: {namespace}}}\n\
                 spec: {{hosts: [a.example.com], ports: [{{number: 80, name: http}}]}}\n"
            );
            let mut decoded = decode(&text, &std::sync::Arc::from(Path::new("a.yaml")), "default");
            match decoded.remove(0).outcome {
                DecodeOutcome::Understood(Resource::ServiceEntry(document)) => document,
                other => panic!("{other:?}"),
            }
        };
        ["a", "b", "c"].map(one).into()
    }

    /// What [`Held::settle`] is held to: it looks through all claims.
    fn settle_slowly<'a>(
        here: &mut Vec<Claim<'a>>,
        reserved: &[Claim<'a>],
        mut claim: Claim<'a>,
    ) -> Option<(bool, BTreeSet<u16>, String)> {
        let is_elsewhere = |other: &&Claim<'_>| other.namespace != claim.namespace;
        let rivals: Vec<&Claim<'a>> = here
            .iter()
            .filter(|other| other.what.is_a_pod() || is_elsewhere(other))
            .chain(reserved.iter().filter(is_elsewhere))
            .collect();
        let first = match &claim.ports {
            Ports::All => rivals.first(),
            Ports::These(_) => rivals.iter().find(|rival| rival.ports == Ports::All),
        };
        if let Some(first) = first {
            return Some((true, BTreeSet::new(), first.by.to_string()));
        }
        let Ports::These(ports) = &mut claim.ports else {
            here.push(claim);
            return None;
        };
        let is_taken = |port: &u16| rivals.iter().any(|rival| rival.ports.contain(*port));
        let taken: BTreeSet<u16> = ports.iter().copied().filter(is_taken).collect();
        let first = rivals.iter().find(|rival| taken.iter().any(|port| rival.ports.contain(*port)));
        let to = first.map(|first| first.by.to_string());
        ports.retain(|port| !taken.contains(port));
        here.push(claim);
        to.map(|to| (false, taken, to))
    }

    type Drawn = (usize, u8, Option<BTreeSet<u16>>);

    fn drawn() -> impl Strategy<Value = Vec<Drawn>> {
        let ports = proptest::option::weighted(0.8, proptest::collection::btree_set(1_u16..6, 0..4));
        vec((0_usize..3, 0_u8..4, ports), 0..8)
    }

    fn claims<'a>(
        documents: &'a [std::sync::Arc<Document<ServiceEntrySpec>>],
        drawn: &[Drawn],
    ) -> Vec<Claim<'a>> {
        let what = |what| match what {
            0 => ClaimedBy::Pod,
            1 => ClaimedBy::PodOfNode,
            _ => ClaimedBy::Other,
        };
        let one = |(whose, by, ports): &Drawn| {
            claim(&documents[*whose], what(*by), ports.clone().map_or(Ports::All, Ports::These))
        };
        drawn.iter().map(one).collect()
    }

    proptest! {
        #[test]
        fn who_has_a_port_is_found_as_if_all_claims_were_looked_through(
            reserved in drawn(), claimed in drawn()
        ) {
            let documents = documents();
            let reserved = claims(&documents, &reserved);
            let held_reserved: Held<'_> = reserved.iter().cloned().collect();
            let (mut held, mut slowly) = (Held::default(), Vec::new());
            for claim in claims(&documents, &claimed) {
                let lost = held.settle(&held_reserved, claim.clone());
                let lost = lost.map(|lost| (lost.all, lost.ports, lost.to.to_string()));
                prop_assert_eq!(lost, settle_slowly(&mut slowly, &reserved, claim));
                let shown = |claims: &[Claim<'_>]| format!("{claims:?}");
                prop_assert_eq!(shown(held.claims()), shown(&slowly));
            }
            for port in 0..7 {
                let slow = slowly.iter().find(|claim| claim.ports.contain(port));
                prop_assert_eq!(format!("{:?}", held.of(port)), format!("{:?}", slow));
            }
        }
    }

    #[test]
    fn a_hundred_thousand_claims_on_one_address_are_settled_one_by_one() {
        let documents = documents();
        let one = |number: usize| {
            let port = u16::try_from(number % 60_000).unwrap();
            claim(&documents[number % 2], ClaimedBy::Other, Ports::These([port].into()))
        };
        let reserved: Held<'_> = (0..100_000).map(one).collect();
        let mut held = Held::default();

        let lost = (0..100_000).filter(|number| held.settle(&reserved, one(*number)).is_some()).count();

        assert_eq!((lost, held.claims().len()), (0, 100_000));
        assert!((0..60_000).all(|port| held.of(port).is_some()));
    }
}
