//! The resources held: what the control plane has told us, by the names and versions that it gave them.
//!
//! A transaction is decoded and checked as a whole against what would be held after it, and only then applied: a
//! half-understood update never changes anything.

mod draft;

use std::{collections::BTreeMap, sync::Arc};

use selvedge_api::ResourceName;
use selvedge_certs::bundle::Bundle;
use selvedge_model::{
    Lookup, Revocations, Service, ServiceKey, TrustDomain, Workload, WorkloadName,
    gateway::{CertificateName, GatewayPort, ServerCertificate, UserList, UserListName},
    policy::network::{PartName, SetPart},
    snapshot::address,
};

use self::draft::{Content, HeldEndpoints};
pub use self::draft::{Draft, Refusal};
use crate::dns::Listed;

/// What a transaction changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// How many resources it brought.
    pub upserts: usize,
    /// How many it took away.
    pub removals: usize,
    /// Whether the trust roots are among them.
    pub bundle: bool,
}

/// The proxy that the resources must be for.
#[derive(Debug, Clone)]
pub struct Recipient {
    /// The workload that this is the sidecar of.
    pub workload: WorkloadName,
    /// The trust domain that our certificate is of.
    pub trust_domain: TrustDomain,
}

impl Recipient {
    fn accepts(&self, name: &ResourceName, content: &Content) -> Result<(), Refusal> {
        let found = match content {
            Content::Own(workload) if workload.name != self.workload => {
                format!("the workload {}; this is the sidecar of {}", workload.name, self.workload)
            }
            Content::Bundle(bundle) if bundle.trust_domain != self.trust_domain => {
                format!("the roots of {}; this mesh is {}", bundle.trust_domain, self.trust_domain)
            }
            _ => return Ok(()),
        };
        Err(Refusal::Misnamed { name: name.clone(), found })
    }
}

/// Everything held.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// As it was told, without the members of the sets that its policies name.
    told: Option<Arc<Workload>>,
    /// With them.
    own: Option<Arc<Workload>>,
    sets: BTreeMap<PartName, Arc<SetPart>>,
    bundle: Option<Arc<Bundle>>,
    revocations: Arc<Revocations>,
    lookups: BTreeMap<Arc<str>, Lookup>,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    endpoints: BTreeMap<ServiceKey, HeldEndpoints>,
    gateway_ports: BTreeMap<u16, Arc<GatewayPort>>,
    certificates: BTreeMap<CertificateName, Arc<ServerCertificate>>,
    user_lists: BTreeMap<UserListName, Arc<UserList>>,
    versions: Arc<BTreeMap<ResourceName, String>>,
}

impl Resources {
    /// This workload.
    pub fn own(&self) -> Option<&Arc<Workload>> {
        self.own.as_ref()
    }

    /// The trust roots, if the stream has brought any.
    pub fn bundle(&self) -> Option<&Arc<Bundle>> {
        self.bundle.as_ref()
    }

    /// The peers that are refused although their certificates are still valid.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// What each authority means.
    pub fn lookups(&self) -> &BTreeMap<Arc<str>, Lookup> {
        &self.lookups
    }

    /// A service's port.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// The endpoints of a service's port.
    pub fn endpoints(&self, key: &ServiceKey) -> Option<&Arc<Listed>> {
        self.endpoints.get(key).map(|held| &held.listed)
    }

    /// What we serve as a gateway, by port.
    pub fn gateway_ports(&self) -> &BTreeMap<u16, Arc<GatewayPort>> {
        &self.gateway_ports
    }

    /// A certificate that we show as a gateway.
    pub fn certificate(&self, name: &CertificateName) -> Option<&Arc<ServerCertificate>> {
        self.certificates.get(name)
    }

    /// Whom we let in by their passwords as a gateway.
    pub fn users(&self, name: &UserListName) -> Option<&Arc<UserList>> {
        self.user_lists.get(name)
    }

    /// The version of everything held.
    pub fn versions(&self) -> &Arc<BTreeMap<ResourceName, String>> {
        &self.versions
    }

    /// Takes in a whole transaction, or nothing of it.
    ///
    /// # Errors
    /// If any part of it cannot be used by the sidecar of `us`, or if the answer to an authority that is
    /// still `asked` for would not be complete. Then `self` is as it was.
    pub fn take_in(
        &mut self,
        draft: Draft,
        us: &Recipient,
        asked: impl Fn(&str) -> bool,
    ) -> Result<Change, Refusal> {
        if let Some(refusal) = draft.refused {
            return Err(refusal);
        }
        let mut next = self.clone();
        let mut change = Change::default();
        for name in &draft.removals {
            change.removals += usize::from(next.remove(name));
        }
        for (name, (version, content)) in draft.upserts {
            us.accepts(&name, &content)?;
            let content = self.whole(&name, &version, content)?;
            change.upserts += 1;
            change.bundle |= name == ResourceName::Bundle;
            next.insert(name, version, content);
        }
        next.is_complete(asked)?;
        next.has_what_it_serves()?;
        if next.told != self.told || next.sets != self.sets {
            next.own = next.told.as_ref().map(|told| next.with_sets(told));
        }
        *self = next;
        Ok(change)
    }

    /// `content` of the resource called `name`; if it is only what has changed in a list of endpoints, with all that has not.
    fn whole(&self, name: &ResourceName, version: &str, content: Content) -> Result<Content, Refusal> {
        let Content::EndpointsDelta(delta) = content else { return Ok(content) };
        let held = match name {
            ResourceName::Endpoints(key) => self.endpoints.get(key),
            _ => None,
        };
        match held.filter(|_| self.versions.get(name) == Some(&delta.base)) {
            Some(held) => held.edited(name, version, delta).map(Content::Endpoints),
            None => Err(Refusal::OtherBase { name: name.clone(), base: delta.base }),
        }
    }

    /// Our workload `told`, with the members of the sets that its policies name, as far as they have arrived.
    fn with_sets(&self, told: &Arc<Workload>) -> Arc<Workload> {
        match told.sets().next() {
            None => Arc::clone(told),
            Some(_) => Arc::new(told.with_sets(|part| self.sets.get(part).cloned())),
        }
    }

    fn insert(&mut self, name: ResourceName, version: String, content: Content) {
        if self.versions.get(&name) == Some(&version) {
            // Resources already: keeping the old `Arc` tells the binder that nothing changed.
            return;
        }
        match content {
            Content::Own(workload) => self.told = Some(workload),
            Content::Bundle(bundle) => self.bundle = Some(bundle),
            Content::Revocations(list) => self.revocations = list,
            Content::Lookup(lookup) => {
                if let ResourceName::Lookup(authority) = &name {
                    self.lookups.insert(Arc::clone(authority), lookup);
                }
            }
            Content::Service(service) => {
                self.services.insert(service.key.clone(), service);
            }
            Content::Endpoints(mut endpoints) => {
                let key = endpoints.listed.key.clone();
                if let Some(before) = self.endpoints.get(&key) {
                    endpoints.share_with(before);
                }
                self.endpoints.insert(key, endpoints);
            }
            // They were applied to the list that was held before: see `take_in`.
            Content::EndpointsDelta(_) => return,
            Content::SetPart(part) => {
                if let ResourceName::SetPart(name) = &name {
                    self.sets.insert(name.clone(), part);
                }
            }
            Content::GatewayPort(served) => drop(self.gateway_ports.insert(served.port, served)),
            Content::Certificate(certificate) => {
                self.certificates.insert(certificate.name.clone(), certificate);
            }
            Content::Users(users) => drop(self.user_lists.insert(users.name.clone(), users)),
        }
        Arc::make_mut(&mut self.versions).insert(name, version);
    }

    fn remove(&mut self, name: &ResourceName) -> bool {
        match name {
            ResourceName::Own => self.told = None,
            // Without roots the control plane could not be verified, so it could not send new ones: the last ones stay.
            ResourceName::Bundle => return false,
            ResourceName::Revocations => self.revocations = Arc::default(),
            ResourceName::Lookup(authority) => drop(self.lookups.remove(authority)),
            ResourceName::Service(key) => drop(self.services.remove(key)),
            ResourceName::Endpoints(key) => drop(self.endpoints.remove(key)),
            ResourceName::SetPart(name) => drop(self.sets.remove(name)),
            ResourceName::GatewayPort(port) => drop(self.gateway_ports.remove(port)),
            ResourceName::Certificate(name) => drop(self.certificates.remove(name)),
            ResourceName::Users(name) => drop(self.user_lists.remove(name)),
        }
        Arc::make_mut(&mut self.versions).remove(name).is_some()
    }

    /// Whether everything is held that `name` refers to: the service's port `key`, and the endpoints of its backends.
    fn has_service(&self, name: &ResourceName, key: &ServiceKey) -> Result<(), Refusal> {
        let Some(service) = self.services.get(key) else {
            return Err(dangling(name.clone(), ResourceName::Service(key.clone())));
        };
        let mut usable = service.backends.iter().filter(|backend| backend.broken.is_none());
        let missing = usable.find(|backend| !self.endpoints.contains_key(&backend.name.service));
        if let Some(backend) = missing {
            let missing = ResourceName::Endpoints(backend.name.service.clone());
            return Err(dangling(ResourceName::Service(key.clone()), missing));
        }
        Ok(())
    }

    /// Whether everything is held that we serve as a gateway.
    fn has_what_it_serves(&self) -> Result<(), Refusal> {
        for served in self.gateway_ports.values() {
            let name = ResourceName::GatewayPort(served.port);
            served.virtual_hosts().try_for_each(|host| self.has_service(&name, &host.service))?;
            let missing = served.certificates().find(|one| !self.certificates.contains_key(*one));
            if let Some(missing) = missing {
                let missing = ResourceName::Certificate(missing.clone());
                return Err(dangling(name, missing));
            }
        }
        Ok(())
    }

    /// Whether everything is held that the authorities asked for lead to: an authority whose service is
    /// missing would fail, and a service whose endpoints are missing would answer that it has none.
    fn is_complete(&self, asked: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        for (authority, lookup) in self.lookups.iter().filter(|(authority, _)| asked(authority)) {
            let name = || ResourceName::Lookup(Arc::clone(authority));
            let (keys, named): (Vec<_>, _) = match lookup {
                Lookup::None => continue,
                Lookup::Service(key) => (vec![key], None),
                Lookup::Address(found) => {
                    let port = address(authority).filter(|_| found.named).map(|address| address.port());
                    let keys = found.services.iter().map(|declared| &declared.key);
                    (keys.collect(), port.map(ServiceKey::named))
                }
            };
            // For an address, the lists say which of its possible owners is there.
            let lists = matches!(lookup, Lookup::Address(_)).then_some(&keys).into_iter().flatten().copied();
            if let Some(key) = lists.chain(&named).find(|key| !self.endpoints.contains_key(*key)) {
                return Err(dangling(name(), ResourceName::Endpoints(key.clone())));
            }
            keys.into_iter().try_for_each(|key| self.has_service(&name(), key))?;
        }
        Ok(())
    }
}

/// `name` refers to `missing`, and that is not there.
fn dangling(name: ResourceName, missing: ResourceName) -> Refusal {
    Refusal::Dangling { name, missing }
}

#[cfg(test)]
mod tests;
