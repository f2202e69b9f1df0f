//! Which namespace has which host that `ServiceEntry`s name.
//!
//! A host that a namespace's `ServiceEntry`s export to nobody else (`exportTo: ['.']`) is its own, whatever others have under that name.
//! Any other host has one meaning in the mesh, so one namespace has it: who had it before, if a document of it in a file still claims
//! it, or else who claims it first. In a cluster that is the oldest document. Files have no age: by their order alone, whoever
//! writes a file that sorts earlier would take another namespace's host.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use ipnet::IpNet;

use super::super::{MeshSettings, Problems};
use crate::resources::{Document, ServiceEntrySpec};

/// Who has which host.
pub(super) type Names = BTreeMap<Arc<str>, Arc<str>>;

/// A host that a `ServiceEntry` names. Its namespace has room for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim<'a> {
    pub(super) document: &'a Document<ServiceEntrySpec>,
    /// The place of the host in it.
    pub(super) index: usize,
}

impl<'a> Claim<'a> {
    pub(super) fn host(self) -> &'a str {
        &self.document.spec.hosts[self.index]
    }

    pub(super) fn namespace(self) -> &'a str {
        &self.document.name.namespace
    }

    /// The field of the host.
    pub(super) fn field(self) -> String {
        format!("spec.hosts[{}]", self.index)
    }

    /// Whether it is for the clients of its own namespace alone, and they call one host by it.
    fn is_for_own(self) -> bool {
        let host = self.host();
        !self.document.spec.export_to.leaves(self.namespace())
            && !host.starts_with('*')
            && host.parse::<IpAddr>().is_err()
    }

    fn is_in_file(self) -> bool {
        self.document.location.path.is_some()
    }
}

/// The owner of each host that is claimed.
#[derive(Debug, Default)]
pub(super) struct Owners<'a> {
    by_host: HashMap<&'a str, Owner<'a>>,
    /// The hosts that namespaces, which do not own them, have for their own clients alone.
    apart: HashSet<(&'a str, &'a str)>,
}

#[derive(Debug)]
struct Owner<'a> {
    namespace: &'a str,
    /// Whether it keeps the host because of a file.
    is_kept: bool,
}

impl<'a> Owners<'a> {
    /// Of `claims`, the first of each host first, and what was `before`. The same claims after this give the same.
    pub(super) fn new(claims: &[Claim<'a>], before: &Names) -> Self {
        // What any of its entries exports is not for a namespace alone.
        let exported = claims.iter().filter(|claim| !claim.is_for_own());
        let exported: HashSet<(&str, &str)> =
            exported.map(|claim| (claim.host(), claim.namespace())).collect();
        let exported_by_somebody: HashSet<&str> = exported.iter().map(|(host, _)| *host).collect();
        let is_for_own = |claim: &Claim<'a>| !exported.contains(&(claim.host(), claim.namespace()));
        let mut owners: HashMap<&str, Owner<'_>> = HashMap::with_capacity(claims.len());
        for claim in
            claims.iter().filter(|one| !is_for_own(one) || !exported_by_somebody.contains(one.host()))
        {
            let namespace = claim.namespace();
            let had = claim.is_in_file() && before.get(claim.host()).is_some_and(|had| **had == *namespace);
            let owner = owners.entry(claim.host()).or_insert(Owner { namespace, is_kept: false });
            if had {
                owner.namespace = namespace;
            }
            // One that was never of use keeps nothing from others.
            owner.is_kept |=
                owner.namespace == namespace && claim.is_in_file() && (had || !claim.document.unusable);
        }
        let is_apart = |claim: &Claim<'a>| {
            is_for_own(claim)
                && owners.get(claim.host()).is_none_or(|owner| owner.namespace != claim.namespace())
        };
        let apart = claims.iter().filter(|claim| is_apart(claim));
        let apart = apart.map(|claim| (claim.host(), claim.namespace())).collect();
        Self { by_host: owners, apart }
    }

    /// Whether the namespace of `claim` has its host.
    pub(super) fn has(&self, claim: Claim<'_>) -> bool {
        self.by_host.get(claim.host()).is_some_and(|owner| owner.namespace == claim.namespace())
    }

    /// Whether it has it for its own clients, beside who has it for others.
    pub(super) fn has_apart(&self, claim: Claim<'_>) -> bool {
        self.apart.contains(&(claim.host(), claim.namespace()))
    }

    /// What is to be known the next time; what is as it was `before` is the same `Arc`.
    pub(super) fn kept(&self, before: &Names) -> Names {
        let kept = self.by_host.iter().filter(|(_, owner)| owner.is_kept);
        let shared = kept.map(|(host, owner)| match before.get_key_value(*host) {
            Some((host, had)) if **had == *owner.namespace => (Arc::clone(host), Arc::clone(had)),
            _ => (Arc::from(*host), Arc::from(owner.namespace)),
        });
        shared.collect()
    }
}

/// How long the prefix of a range of IPv4 addresses is at most that is told to be wide, and the same of IPv6.
const WIDE: (u8, u8) = (7, 15);

/// Reports the host of `claim`, which its namespace has, if it takes much that is of other namespaces.
pub(super) fn report_wide_host(claim: Claim<'_>, settings: &MeshSettings, problems: &mut Problems) {
    let is_wide = claim.host().strip_prefix("*.").is_some_and(|domain| !domain.contains('.'));
    if is_wide && is_for_others(claim.document, settings) {
        let message = format!(
            "{} is every host below a whole top-level domain, for clients of other namespaces too: it takes their requests to each \
             that no other document names; name the domains that are meant, or write exportTo: ['.']",
            claim.host()
        );
        problems.warning(claim.document, &claim.field(), message);
    }
}

/// Reports the ranges of `document` that take much that is of other namespaces.
pub(super) fn report_wide_ranges(
    document: &Document<ServiceEntrySpec>,
    settings: &MeshSettings,
    problems: &mut Problems,
) {
    let is_wide = |range: &&IpNet| range.prefix_len() <= if range.addr().is_ipv4() { WIDE.0 } else { WIDE.1 };
    let is_of_use = !document.unusable && !document.spec.ports.is_empty();
    if let Some(range) = document.spec.ranges.iter().find(is_wide)
        && is_of_use
        && is_for_others(document, settings)
    {
        let message = format!(
            "{range} is very wide, and for clients of other namespaces too: at the ports of this entry it takes their connections to \
             each address that no other document names; name the ranges that are meant, or write exportTo: ['.']"
        );
        problems.warning(document, "spec.addresses", message);
    }
}

/// Whether `document` is for clients of other namespaces, and not from those who are responsible for all.
fn is_for_others(document: &Document<ServiceEntrySpec>, settings: &MeshSettings) -> bool {
    let namespace = &*document.name.namespace;
    namespace != settings.root_namespace && document.spec.export_to.leaves(namespace)
}
