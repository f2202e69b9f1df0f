//! Who had an address keeps it.
//!
//! Files have no age: by their order alone, whoever writes a file that sorts earlier would take another namespace's address.
//! So what a namespace had in the configuration before stays reserved for it, as long as its documents claim it. A control
//! plane keeps that across restarts. Of two that are new at once, the first by file has it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use selvedge_model::{
    Host,
    snapshot::{OwnedPorts, Owners as Before},
};

use super::claims::{Claim, Claimant, ClaimedBy, Ports, claim, settle};

/// What is reserved for who had it before.
#[derive(Debug, Default)]
pub(super) struct Reserved<'a>(HashMap<Host, Vec<Claim<'a>>>);

impl<'a> Reserved<'a> {
    /// Of what `claimants` claim in files, what their namespaces had `before`, as far as they get it again: `first` are the
    /// claims that go before all of theirs. What somebody does not get is reserved for nobody. Otherwise it would be nobody's now,
    /// and somebody else's the next time that the same documents are compiled.
    pub(super) fn new<'c>(
        claimants: &(impl Iterator<Item = &'c Claimant<'a>> + Clone),
        before: &Before,
        first: &HashMap<Host, Vec<Claim<'a>>>,
    ) -> Self
    where
        'a: 'c,
    {
        let mut reserved = Self::default();
        if before.0.is_empty() {
            return reserved;
        }
        let all = || claimants.clone().flat_map(claims_of);
        for (host, claim) in all().filter(|(_, claim)| claim.by.is_in_file()) {
            let had = before.0.get(&host).into_iter().flatten();
            let had = had.filter(|had| *had.namespace == *claim.namespace);
            let kept: Vec<Claim<'a>> = had.filter_map(|had| both(&claim, had)).collect();
            if !kept.is_empty() {
                reserved.0.entry(host).or_default().extend(kept);
            }
        }
        let mut claims: HashMap<Host, Vec<Claim<'a>>> = HashMap::new();
        for (host, claim) in all().filter(|(host, _)| reserved.0.contains_key(host)) {
            claims.entry(host).or_default().push(claim);
        }
        for (host, reserved) in &mut reserved.0 {
            let first = first.get(host).map(Vec::as_slice).unwrap_or_default();
            let claims = claims.get(host).map(Vec::as_slice).unwrap_or_default();
            while leave_out_what_is_not_had(reserved, first, claims) {}
        }
        reserved
    }

    /// What is reserved of `host`.
    pub(super) fn of(&self, host: &Host) -> &[Claim<'a>] {
        self.0.get(host).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Leaves out of `reserved` what those do not get for whom it is, if after those who come `first` the `claims` are settled in their
/// order. Whether there was any.
fn leave_out_what_is_not_had<'a>(
    reserved: &mut Vec<Claim<'a>>,
    first: &[Claim<'a>],
    claims: &[Claim<'a>],
) -> bool {
    let mut here = first.to_vec();
    for claim in claims {
        settle(&mut here, reserved, claim.clone());
    }
    let mut any = false;
    reserved.retain_mut(|one| {
        let own = here.iter().filter(|claim| claim.namespace == one.namespace);
        match &mut one.ports {
            Ports::All => {
                let has_all = own.clone().any(|claim| claim.ports == Ports::All);
                any |= !has_all;
                has_all
            }
            Ports::These(ports) => {
                let count = ports.len();
                ports.retain(|port| own.clone().any(|claim| claim.ports.contain(*port)));
                any |= ports.len() < count;
                !ports.is_empty()
            }
        }
    });
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

/// Who has which ports by a document in a file, of all `claims`.
pub(super) fn owned<'a>(claims: impl Iterator<Item = (&'a Host, &'a Vec<Claim<'a>>)>) -> Before {
    let mut owners: BTreeMap<Host, Vec<OwnedPorts>> = BTreeMap::new();
    for (host, claims) in claims {
        for claim in claims.iter().filter(|claim| claim.by.is_in_file()) {
            let ports = match &claim.ports {
                Ports::All => None,
                Ports::These(ports) => Some(ports.clone()),
            };
            let owned = OwnedPorts { namespace: claim.namespace.to_owned(), ports };
            owners.entry(host.clone()).or_default().push(owned);
        }
    }
    Before(owners)
}
