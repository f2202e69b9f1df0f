//! Who had an address keeps it.
//!
//! Files have no age: by their order alone, whoever writes a file that sorts earlier would take another namespace's address.
//! So what a namespace had in the configuration before stays reserved for it, as long as its documents claim it. A control
//! plane keeps that across restarts. Of two that are new at once, the first by file has it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use selvedge_model::{
    Host,
    snapshot::{OwnedPorts, Owners as Before},
};

use super::claims::{Claim, Claimant, ClaimedBy, Held, Ports, claim};

/// What is reserved of hosts that several namespaces claim in files: what each of them gets.
#[derive(Debug, Default)]
pub(super) struct Reserved<'a>(HashMap<Host, Held<'a>>);

impl<'a> Reserved<'a> {
    /// Of what `claimants` claim, what their namespaces had `before` is theirs, as far as they get it again, and the rest goes by the
    /// order of the claims: `first` are those that go before all of these. What somebody does not get is reserved for nobody.
    /// Otherwise it would be nobody's now, and somebody else's the next time that the same documents are compiled.
    ///
    /// For the same reason all that somebody gets in a file is reserved then, whoever had it before: so the same documents mean the same,
    /// and the same is said of them, if they are compiled again with what they have come to.
    pub(super) fn new<'c>(
        claimants: &(impl Iterator<Item = &'c Claimant<'a>> + Clone),
        before: &Before,
        first: &HashMap<Host, Held<'a>>,
    ) -> Self
    where
        'a: 'c,
    {
        let mut claims: HashMap<Host, Vec<Claim<'a>>> = HashMap::new();
        for (host, claim) in claimants.clone().flat_map(claims_of) {
            claims.entry(host).or_default().push(claim);
        }
        claims.retain(|_, claims| claims.iter().any(|claim| claim.namespace != claims[0].namespace));
        let reserved = claims.into_iter().map(|(host, claims)| {
            let first = first.get(&host);
            let mut reserved =
                had(&claims, before.addresses.get(&host).map(Vec::as_slice).unwrap_or_default());
            let all = loop {
                let all = settled(first, &reserved, &claims);
                if !leave_out_what_is_not_had(&mut reserved, &all) {
                    break all;
                }
            };
            let got = all.claims().iter().skip(first.map_or(0, |first| first.claims().len()));
            (host, got.filter(|claim| claim.by.is_in_file()).cloned().collect())
        });
        Self(reserved.collect())
    }

    /// What is reserved of `host`.
    pub(super) fn of(&self, host: &Host) -> Option<&Held<'a>> {
        self.0.get(host)
    }
}

/// Of what `claims` of one host claim in files, what their namespaces had `before`.
fn had<'a>(claims: &[Claim<'a>], before: &[OwnedPorts]) -> Held<'a> {
    let mut by_namespace: HashMap<&str, Vec<&OwnedPorts>> = HashMap::new();
    for had in before {
        by_namespace.entry(&had.namespace).or_default().push(had);
    }
    // Whoever claims all of a host has all kept that it had there: another such claim of its namespace adds nothing.
    let mut whole: HashSet<&str> = HashSet::new();
    let mut in_files = Held::default();
    for claim in claims.iter().filter(|claim| claim.by.is_in_file()) {
        if claim.ports == Ports::All && !whole.insert(claim.namespace) {
            continue;
        }
        let had = by_namespace.get(claim.namespace).into_iter().flatten();
        had.filter_map(|had| both(claim, had)).for_each(|kept| in_files.add(kept));
    }
    in_files
}

/// Who has what, if after those who come `first` the `claims` are settled in their order.
fn settled<'a>(first: Option<&Held<'a>>, reserved: &Held<'a>, claims: &[Claim<'a>]) -> Held<'a> {
    let mut here = first.cloned().unwrap_or_default();
    for claim in claims {
        here.settle(reserved, claim.clone());
    }
    here
}

/// Leaves out of `reserved` what those have not got `here` for whom it is. Whether there was any.
fn leave_out_what_is_not_had<'a>(reserved: &mut Held<'a>, here: &Held<'a>) -> bool {
    let (mut all, mut had) = (HashSet::new(), HashSet::new());
    for claim in here.claims().iter().filter(|claim| claim.by.is_in_file()) {
        match &claim.ports {
            Ports::All => drop(all.insert(claim.namespace)),
            Ports::These(ports) => had.extend(ports.iter().map(|port| (claim.namespace, *port))),
        }
    }
    let mut any = false;
    let left = reserved.claims().iter().filter_map(|one| {
        let has_all = all.contains(one.namespace);
        let ports = match &one.ports {
            Ports::All => has_all.then_some(Ports::All),
            Ports::These(ports) => {
                let has = |port: &u16| has_all || had.contains(&(one.namespace, *port));
                let left: BTreeSet<u16> = ports.iter().copied().filter(has).collect();
                (!left.is_empty()).then_some(Ports::These(left))
            }
        };
        any |= ports.as_ref() != Some(&one.ports);
        Some(Claim { ports: ports?, ..*one })
    });
    let left = left.collect();
    *reserved = left;
    any
}

/// The ports of `claim` that its namespace had.
fn both<'a>(claim: &Claim<'a>, had: &OwnedPorts) -> Option<Claim<'a>> {
    let ports = match (&claim.ports, &had.ports) {
        (Ports::All, None) => Ports::All,
        (Ports::All, Some(ports)) => Ports::These(ports.clone()),
        (Ports::These(ports), None) => Ports::These(ports.clone()),
        (Ports::These(ports), Some(had)) => Ports::These(ports & had),
    };
    let is_none = matches!(&ports, Ports::These(ports) if ports.is_empty());
    (!is_none).then_some(Claim { ports, ..*claim })
}

fn claims_of<'a>(claimant: &Claimant<'a>) -> Vec<(Host, Claim<'a>)> {
    match claimant {
        Claimant::Workload(_, host, claim) | Claimant::Endpoint(host, claim) => {
            vec![(host.clone(), Claim { ports: claim.ports.clone(), ..*claim })]
        }
        Claimant::ClusterIp(document) => {
            let claim = || claim(document, ClaimedBy::Service, Ports::All);
            document.spec.addresses.iter().map(|ip| (Host::Ip(*ip), claim())).collect()
        }
        Claimant::Addresses(document) => {
            let ports: BTreeSet<u16> = document.spec.ports.iter().map(|port| port.number).collect();
            let claim = || claim(document, ClaimedBy::Other, Ports::These(ports.clone()));
            document.spec.addresses.iter().map(|ip| (Host::Ip(*ip), claim())).collect()
        }
    }
}

/// Who has which ports by documents in files, of all `claims`: all that a namespace has of a host together.
pub(super) fn owned<'a>(
    claims: impl Iterator<Item = (&'a Host, &'a Held<'a>)>,
) -> BTreeMap<Host, Vec<OwnedPorts>> {
    let mut owners: BTreeMap<Host, Vec<OwnedPorts>> = BTreeMap::new();
    for (host, held) in claims {
        let mut namespaces: BTreeMap<&str, Option<BTreeSet<u16>>> = BTreeMap::new();
        for claim in held.claims().iter().filter(|claim| claim.by.is_in_file()) {
            let had = namespaces.entry(claim.namespace).or_insert_with(|| Some(BTreeSet::new()));
            match &claim.ports {
                Ports::All => *had = None,
                Ports::These(ports) => had.iter_mut().for_each(|had| had.extend(ports)),
            }
        }
        if !namespaces.is_empty() {
            let owned = |(namespace, ports): (&str, _)| OwnedPorts { namespace: namespace.to_owned(), ports };
            owners.insert(host.clone(), namespaces.into_iter().map(owned).collect());
        }
    }
    owners
}
