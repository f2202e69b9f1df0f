//! The resources held: what the control plane has told us, by the names and versions that it gave them.
//!
//! A transaction is decoded and checked as a whole against what would be held after it, and only then
//! taken in: a half-understood update never changes anything.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_api::{ConvertError, ResourceName, resource::UnknownResource, wire};
use selvedge_certs::bundle::Bundle;
use selvedge_model::{
    Endpoints, Lookup, Revocations, Service, ServiceKey, TrustDomain, Workload, WorkloadName,
    snapshot::address,
};

use crate::joining::{UnusableBundle, bundle};

/// What a transaction may hold before its last part: a bound against a control plane gone wrong.
const MAX_TRANSACTION_RESOURCES: usize = 1 << 17;

/// Why a transaction was not taken in. The text goes to the control plane, which shows it to operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A kind of resource that this version does not know.
    #[error(transparent)]
    Unknown(#[from] UnknownResource),
    /// Contents that this version cannot read: an unknown enum, a bad regular expression, no address.
    #[error("{name}: {reason}")]
    Content {
        /// The resource.
        name: ResourceName,
        /// What is wrong.
        reason: ConvertError,
    },
    /// Trust roots that nobody could be verified with.
    #[error("bundle: {0}")]
    Bundle(#[from] UnusableBundle),
    /// The contents say that they are something else than the name says.
    #[error("{name} contains {found}")]
    Misnamed {
        /// The resource.
        name: ResourceName,
        /// What it holds.
        found: String,
    },
    /// The transaction lacks what it refers to.
    #[error(
        "{name} refers to {missing}, which this proxy does not have and the transaction does not contain"
    )]
    Dangling {
        /// What refers to it.
        name: ResourceName,
        /// What is not there.
        missing: ResourceName,
    },
    /// More resources than any configuration needs.
    #[error("the transaction has more than {MAX_TRANSACTION_RESOURCES} resources")]
    TooLarge,
}

/// A resource's contents.
#[derive(Debug, Clone)]
enum Content {
    Own(Arc<Workload>),
    Bundle(Arc<Bundle>),
    Revocations(Arc<Revocations>),
    Lookup(Lookup),
    Service(Arc<Service>),
    Endpoints(Arc<Endpoints>),
}

/// A transaction whose parts are still arriving.
#[derive(Debug, Default)]
pub struct Draft {
    upserts: BTreeMap<ResourceName, (String, Content)>,
    removals: BTreeSet<ResourceName>,
    refused: Option<Refusal>,
}

impl Draft {
    /// Adds a part. What is wrong with it shows when the whole is taken in.
    pub fn add(&mut self, part: wire::Transaction) {
        if self.refused.is_some() {
            return;
        }
        // A name that cannot be read names nothing that we hold.
        self.removals.extend(part.removals.iter().filter_map(|name| name.parse().ok()));
        self.refused = part.upserts.into_iter().try_for_each(|resource| self.upsert(resource)).err();
    }

    /// Makes the transaction the whole of what is held: of `held` nothing else stays.
    pub fn replace_all_of(&mut self, held: &Resources) {
        let others = held.versions.keys().filter(|name| !self.upserts.contains_key(*name));
        self.removals.extend(others.cloned());
    }

    fn upsert(&mut self, resource: wire::Resource) -> Result<(), Refusal> {
        if self.upserts.len() >= MAX_TRANSACTION_RESOURCES {
            return Err(Refusal::TooLarge);
        }
        let name: ResourceName = resource.name.parse()?;
        let content = decode(&name, resource.body)?;
        self.upserts.insert(name, (resource.version, content));
        Ok(())
    }
}

fn decode(name: &ResourceName, body: Option<wire::resource::Body>) -> Result<Content, Refusal> {
    use wire::resource::Body;

    let unreadable = |reason| Refusal::Content { name: name.clone(), reason };
    let (found, content) = match body.ok_or(unreadable(ConvertError::Missing { field: "body" }))? {
        Body::Self_(workload) => {
            let workload = Workload::try_from(workload).map_err(unreadable)?;
            (ResourceName::Own, Content::Own(Arc::new(workload)))
        }
        Body::Bundle(roots) => (ResourceName::Bundle, Content::Bundle(Arc::new(bundle(roots)?))),
        Body::Revocations(list) => {
            let list = Revocations::try_from(list).map_err(unreadable)?;
            (ResourceName::Revocations, Content::Revocations(Arc::new(list)))
        }
        Body::Lookup(lookup) => {
            let authority = lookup.authority.clone();
            let lookup = Lookup::try_from(lookup).map_err(unreadable)?;
            (ResourceName::Lookup(authority), Content::Lookup(lookup))
        }
        Body::Service(service) => {
            let service = Service::try_from(service).map_err(unreadable)?;
            (ResourceName::Service(service.key.clone()), Content::Service(Arc::new(service)))
        }
        Body::Endpoints(endpoints) => {
            let endpoints = Endpoints::try_from(endpoints).map_err(unreadable)?;
            (ResourceName::Endpoints(endpoints.key.clone()), Content::Endpoints(Arc::new(endpoints)))
        }
    };
    if found == *name {
        Ok(content)
    } else {
        Err(Refusal::Misnamed { name: name.clone(), found: found.to_string() })
    }
}

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

/// Who the resources must be for.
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
    own: Option<Arc<Workload>>,
    bundle: Option<Arc<Bundle>>,
    revocations: Arc<Revocations>,
    lookups: BTreeMap<Arc<str>, Lookup>,
    services: BTreeMap<ServiceKey, Arc<Service>>,
    endpoints: BTreeMap<ServiceKey, Arc<Endpoints>>,
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

    /// Who is refused although its certificate is still valid.
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
    pub fn endpoints(&self, key: &ServiceKey) -> Option<&Arc<Endpoints>> {
        self.endpoints.get(key)
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
            change.upserts += 1;
            change.bundle |= name == ResourceName::Bundle;
            next.insert(name, version, content);
        }
        next.is_complete(asked)?;
        *self = next;
        Ok(change)
    }

    fn insert(&mut self, name: ResourceName, version: String, content: Content) {
        if self.versions.get(&name) == Some(&version) {
            // Resources already: keeping the old `Arc` tells the binder that nothing changed.
            return;
        }
        match content {
            Content::Own(workload) => self.own = Some(workload),
            Content::Bundle(bundle) => self.bundle = Some(bundle),
            Content::Revocations(list) => self.revocations = list,
            Content::Lookup(lookup) => {
                if let ResourceName::Lookup(authority) = &name {
                    self.lookups.insert(Arc::from(authority.as_str()), lookup);
                }
            }
            Content::Service(service) => {
                self.services.insert(service.key.clone(), service);
            }
            Content::Endpoints(endpoints) => {
                self.endpoints.insert(endpoints.key.clone(), endpoints);
            }
        }
        Arc::make_mut(&mut self.versions).insert(name, version);
    }

    fn remove(&mut self, name: &ResourceName) -> bool {
        match name {
            ResourceName::Own => self.own = None,
            // Without roots we could not even be told of new ones: the last ones stay.
            ResourceName::Bundle => return false,
            ResourceName::Revocations => self.revocations = Arc::default(),
            ResourceName::Lookup(authority) => drop(self.lookups.remove(authority.as_str())),
            ResourceName::Service(key) => drop(self.services.remove(key)),
            ResourceName::Endpoints(key) => drop(self.endpoints.remove(key)),
        }
        Arc::make_mut(&mut self.versions).remove(name).is_some()
    }

    /// Whether everything is held that the authorities asked for lead to: an authority whose service is
    /// missing would fail, and a service whose endpoints are missing would answer that it has none.
    fn is_complete(&self, asked: impl Fn(&str) -> bool) -> Result<(), Refusal> {
        let dangling = |name, missing| Err(Refusal::Dangling { name, missing });
        for (authority, lookup) in self.lookups.iter().filter(|(authority, _)| asked(authority)) {
            let name = || ResourceName::Lookup(authority.to_string());
            let (keys, named): (Vec<_>, _) = match lookup {
                Lookup::None => continue,
                Lookup::Service(key) => (vec![key], None),
                Lookup::Address(found) => {
                    let port = address(authority).filter(|_| found.named).map(|address| address.port());
                    let keys = found.services.iter().map(|declared| &declared.key);
                    (keys.collect(), port.map(ServiceKey::named))
                }
            };
            // Of an address the lists say which of those who may be there is.
            let lists = matches!(lookup, Lookup::Address(_)).then_some(&keys).into_iter().flatten().copied();
            if let Some(key) = lists.chain(&named).find(|key| !self.endpoints.contains_key(*key)) {
                return dangling(name(), ResourceName::Endpoints(key.clone()));
            }
            for key in keys {
                let Some(service) = self.services.get(key) else {
                    return dangling(name(), ResourceName::Service(key.clone()));
                };
                let mut usable = service.backends.iter().filter(|backend| backend.broken.is_none());
                let missing = usable.find(|backend| !self.endpoints.contains_key(&backend.name.service));
                if let Some(backend) = missing {
                    let missing = ResourceName::Endpoints(backend.name.service.clone());
                    return dangling(ResourceName::Service(key.clone()), missing);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
