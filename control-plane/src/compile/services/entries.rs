//! The hosts of `ServiceEntry`s: which of them a document may have, for which clients, and how many there is room for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::snapshot::Owners as Before;

use super::{
    Catalog, MOST_ENDPOINTS, MOST_PORTS, MeshSettings, Problems,
    host::{HostDocument, KnownHost, PortDocument},
    listed,
    names::{self, Claim, Names},
    namespace_of,
};
use crate::resources::{Document, Resources, ServiceEntrySpec};

/// How many ports the hosts of the `ServiceEntry`s of each namespace have, and how many endpoints and addresses these list; `None`: some
/// have no room.
#[derive(Debug, Default)]
pub(in super::super) struct EntryRoom(HashMap<Arc<str>, Option<(usize, usize)>>);

impl EntryRoom {
    /// What becomes of it where the hosts that came to `old` come to `new` now. `None`: that has to be asked of all documents,
    /// because there may be no room.
    pub(in super::super) fn follow(&mut self, old: &Self, new: &Self) -> Option<()> {
        for (namespace, was) in &old.0 {
            let (taken, was) = (self.0.get_mut(namespace)?.as_mut()?, (*was)?);
            *taken = (taken.0.checked_sub(was.0)?, taken.1.checked_sub(was.1)?);
        }
        for (namespace, more) in &new.0 {
            let (taken, more) = (self.0.entry(Arc::clone(namespace)).or_insert(Some((0, 0))), (*more)?);
            let taken = taken.as_mut()?;
            *taken = (taken.0 + more.0, taken.1 + more.1);
            if taken.0 > MOST_PORTS || taken.1 > MOST_ENDPOINTS {
                return None;
            }
        }
        Some(())
    }
}

impl<'a> Catalog<'a> {
    /// Adds the hosts of `ServiceEntry`s, each of the namespace that has it.
    pub(super) fn add_entries(
        &mut self,
        resources: &'a Resources,
        settings: &MeshSettings,
        before: &Before,
        problems: &mut Problems,
    ) {
        // What cannot be used comes last: it only keeps its hosts from being nobody's.
        let entries = || resources.service_entries.iter().map(|entry| &**entry);
        let usable = entries().filter(|entry| !entry.unusable);
        let mut claims = Vec::new();
        for document in usable.chain(entries().filter(|entry| entry.unusable)) {
            let mut met = HashSet::new();
            for index in 0..document.spec.hosts.len() {
                let claim = Claim { document, index };
                if !met.insert(claim.host()) {
                    let message = format!("{} is given twice; keep one", claim.host());
                    problems.error_alone(document, &claim.field(), message);
                } else if self.may_claim(claim, settings, problems) {
                    claims.push(claim);
                }
            }
            names::report_wide_ranges(document, settings, problems);
        }
        let owners = names::Owners::new(&claims, &before.names);
        for claim in claims.iter().filter(|claim| owners.has(**claim)) {
            self.add_entry(*claim, problems);
            names::report_wide_host(*claim, settings, problems);
        }
        for claim in claims.iter().filter(|claim| owners.has_apart(**claim)) {
            self.add_entry_apart(*claim, problems);
        }
        let has_none = |claim: &Claim<'_>| !owners.has(*claim) && !owners.has_apart(*claim);
        for claim in claims.iter().filter(|claim| has_none(claim) && !claim.document.unusable) {
            let Some(known) = self.hosts.get(claim.host()) else { continue };
            let namespace = claim.namespace();
            let remedy = match known.is_known_in(namespace) {
                true => "which clients here follow, too; remove it here".to_owned(),
                false => {
                    format!("which is not exported to {namespace}; have it exported, or name another host")
                }
            };
            let message = format!(
                "{} belongs to {}, so this entry has no effect on it, but that one, {remedy}",
                claim.host(),
                known.first.describe()
            );
            problems.overruled(claim.document, &claim.field(), message);
        }
        self.owners = owners;
    }

    /// Who has which hosts of entries in files; `before`: who had them.
    pub(in super::super) fn names(&self, before: &Before) -> Names {
        self.owners.kept(&before.names)
    }

    /// Whether a `ServiceEntry` may have a host, if that is nobody else's: it is no name of a service elsewhere, and its namespace
    /// has room for it.
    fn may_claim(&mut self, claim: Claim<'a>, settings: &MeshSettings, problems: &mut Problems) -> bool {
        let (document, host, namespace) = (claim.document, claim.host(), claim.namespace());
        let field = claim.field();
        if let Some(message) = self.is_anothers(host, namespace, &settings.cluster_domain) {
            problems.error(document, &field, message);
            return false;
        }
        let (ports, endpoints) = self.entry_ports.entry(namespace).or_default();
        let more = document.spec.ports.len().max(1);
        if more > MOST_PORTS - *ports {
            let message = format!(
                "{host} is left out: the hosts of the ServiceEntries of the namespace {namespace} may have {MOST_PORTS} ports \
                 together, and others that come before have {ports}; name fewer hosts or ports, or a wildcard"
            );
            problems.no_room(document, &field, message);
            self.crowded.insert(namespace);
            return false;
        }
        let needed = more.saturating_mul(listed(&document.spec));
        if needed > MOST_ENDPOINTS - *endpoints {
            let message = format!(
                "{host} is left out: the hosts of the ServiceEntries of the namespace {namespace} may have {MOST_ENDPOINTS} \
                 endpoints and addresses together, each at each port, and others that come before have {endpoints}; name \
                 fewer hosts, ports or endpoints"
            );
            problems.no_room(document, &field, message);
            self.crowded.insert(namespace);
            return false;
        }
        *ports += more;
        *endpoints += needed;
        true
    }

    /// How much room hosts of `ServiceEntry`s take.
    pub(in super::super) fn entry_room(&self) -> EntryRoom {
        let taken = |(namespace, taken): (&&str, &(usize, usize))| {
            (Arc::from(*namespace), (!self.crowded.contains(namespace)).then_some(*taken))
        };
        EntryRoom(self.entry_ports.iter().map(taken).collect())
    }

    /// Adds a host of a `ServiceEntry`, whose namespace has it for its own clients alone, beside who has it for others.
    fn add_entry_apart(&mut self, claim: Claim<'a>, problems: &mut Problems) {
        let (document, namespace) = (claim.document, claim.namespace());
        // Whoever has it for others comes first.
        let Some(owner) = self.hosts.get_mut(claim.host()) else { return self.add_entry(claim, problems) };
        owner.apart.insert(namespace);
        let host = Arc::clone(&owner.host);
        let own = KnownHost::apart(host, namespace, HostDocument::Entry(document));
        let key = Arc::clone(&own.key);
        if !self.hosts.contains_key(&key) {
            self.insert(own);
        }
        self.add_entry_at(&key, claim, problems);
    }

    /// Adds a host of a `ServiceEntry`, whose namespace has it.
    fn add_entry(&mut self, claim: Claim<'a>, problems: &mut Problems) {
        let host: Arc<str> = Arc::from(claim.host());
        if !self.hosts.contains_key(&host) {
            let first = HostDocument::Entry(claim.document);
            self.insert(KnownHost::new(Arc::clone(&host), claim.namespace(), first));
        }
        self.add_entry_at(&host, claim, problems);
    }

    /// Adds what a `ServiceEntry` says of a host to the one at `key`.
    fn add_entry_at(&mut self, key: &Arc<str>, claim: Claim<'a>, problems: &mut Problems) {
        let (document, host) = (claim.document, claim.host());
        let (field, source) = (claim.field(), HostDocument::Entry(document));
        if document.unusable {
            self.add_unusable(key, document);
            return;
        }
        let known = match self.hosts.get_mut(key) {
            None => return,
            Some(known) if matches!(known.first, HostDocument::Entry(_)) => known,
            Some(known) => {
                let message =
                    format!("{host} is already defined by {}; remove one of them", known.first.describe());
                return problems.overruled(document, &field, message);
            }
        };
        for port in &document.spec.ports {
            if let Some(other) = known.sources.get(&port.number) {
                let message = format!(
                    "port {} of {host} is already defined by {}; remove one of them",
                    port.number,
                    other.source.describe()
                );
                problems.overruled(document, &field, message);
                continue;
            }
            known.add(
                port.number,
                port.protocol,
                PortDocument { source, below_wildcard: false, alias_of: None },
            );
        }
    }

    /// Adds what nobody else has of the host at `key` of a `ServiceEntry` that cannot be used.
    fn add_unusable(&mut self, key: &Arc<str>, document: &'a Document<ServiceEntrySpec>) {
        let (namespace, source) = (&*document.name.namespace, HostDocument::Entry(document));
        let known = self.hosts.get_mut(key).filter(|known| known.namespace == namespace);
        let Some(known) = known.filter(|known| matches!(known.first, HostDocument::Entry(_))) else { return };
        for port in &document.spec.ports {
            if !known.sources.contains_key(&port.number) {
                let source = PortDocument { source, below_wildcard: false, alias_of: None };
                known.add(port.number, port.protocol, source);
            }
        }
    }

    /// Why a `ServiceEntry` in `namespace` cannot have `host`, which is the name of a Kubernetes service.
    fn is_anothers(&self, host: &str, namespace: &str, cluster_domain: &str) -> Option<String> {
        if let Some(owner) = namespace_of(host, cluster_domain) {
            return (owner != namespace).then(|| match owner {
                "*" => format!(
                    "{host} has no effect: the name of a service belongs to the namespace in that name; write \
                     *.{namespace}.svc.{cluster_domain} for those of this one"
                ),
                _ => format!(
                    "{host} is a name of the namespace {owner}, so this entry has no effect on it; move the entry there, \
                     or give it another host"
                ),
            });
        }
        let full = format!("{host}.svc.{cluster_domain}");
        let known = self.hosts.get(&*full).filter(|known| matches!(known.first, HostDocument::Service(_)))?;
        Some(format!(
            "{host} is another name of {}, which has it; give this entry another host",
            known.first.describe()
        ))
    }
}
