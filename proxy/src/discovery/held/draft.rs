//! A transaction whose parts are still arriving, decoded and not yet applied.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_api::{
    ConvertError, ResourceName,
    convert::added_endpoints,
    delta::{FEWEST, Fingerprints, Misfit, edit},
    resource::UnknownResource,
    wire,
};
use selvedge_certs::bundle::Bundle;
use selvedge_model::{
    Endpoints, Lookup, Revocations, Service, Workload,
    gateway::{GatewayPort, ServerCertificate, UserList},
    policy::network::SetPart,
};

use crate::{
    dns::Listed,
    joining::{UnusableBundle, bundle},
};

/// The most resources of a transaction: a bound against a control plane that misbehaves.
pub(super) const MAX_TRANSACTION_RESOURCES: usize = 1 << 17;

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
    /// The contents are not what the name says.
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
    /// Changes of a list of endpoints that this proxy does not have as it was before them.
    #[error("{name}: what has changed since version {base}, which this proxy does not have")]
    OtherBase {
        /// The list.
        name: ResourceName,
        /// The version that it was to have.
        base: String,
    },
    /// Changes of a list of endpoints that are not changes of the one that this proxy has.
    #[error("{name}: {reason}")]
    Misfit {
        /// The list.
        name: ResourceName,
        /// Why.
        reason: Misfit,
    },
    /// Changes of a list of endpoints that do not come to what was meant.
    #[error("{name}: with what has changed it has version {found}, not {meant}")]
    OtherResult {
        /// The list.
        name: ResourceName,
        /// The version that the resource has.
        meant: String,
        /// That of what the changes come to.
        found: String,
    },
    /// More resources than any configuration needs.
    #[error("the transaction has more than {MAX_TRANSACTION_RESOURCES} resources")]
    TooLarge,
}

/// A resource's contents.
#[derive(Debug)]
pub(super) enum Content {
    Own(Arc<Workload>),
    Bundle(Arc<Bundle>),
    Revocations(Arc<Revocations>),
    Lookup(Lookup),
    Service(Arc<Service>),
    Endpoints(HeldEndpoints),
    EndpointsDelta(wire::EndpointsDelta),
    SetPart(Arc<SetPart>),
    GatewayPort(Arc<GatewayPort>),
    Certificate(Arc<ServerCertificate>),
    Users(Arc<UserList>),
}

/// Endpoints, and what stands for them if the control plane may tell of changes alone.
#[derive(Debug, Clone)]
pub(super) struct HeldEndpoints {
    pub(super) listed: Arc<Listed>,
    /// `None`: they are so few that they always come together.
    fingerprints: Option<Arc<Fingerprints>>,
}

impl HeldEndpoints {
    /// The list that `delta`, of the resource called `name` with this `version`, makes of this one. All that has not changed
    /// is shared.
    ///
    /// # Errors
    /// If that is not the list that the control plane means.
    pub(super) fn edited(
        &self,
        name: &ResourceName,
        version: &str,
        mut delta: wire::EndpointsDelta,
    ) -> Result<Self, Refusal> {
        let other_base = |base: &str| Refusal::OtherBase { name: name.clone(), base: base.to_owned() };
        let misfit = |reason| Refusal::Misfit { name: name.clone(), reason };
        let before = self.fingerprints.as_ref().ok_or_else(|| other_base(&delta.base))?;
        let fingerprints = before.edited(&mut delta).map_err(misfit)?;
        let found = fingerprints.version(name);
        if found != version {
            return Err(Refusal::OtherResult { name: name.clone(), meant: version.to_owned(), found });
        }
        let removed = std::mem::take(&mut delta.removed);
        let unreadable = |reason| Refusal::Content { name: name.clone(), reason };
        let places = delta.added_at.clone();
        let added = added_endpoints(delta).map_err(unreadable)?;
        let added = added.into_iter().map(|(at, endpoint)| (at, Arc::new(endpoint)));
        let list = edit(self.listed.list(), &removed, added).map_err(misfit)?;
        Ok(Self {
            listed: Arc::new(self.listed.with(list, &places)),
            fingerprints: Some(Arc::new(fingerprints)),
        })
    }

    /// Shares with those `before` what is the same.
    pub(super) fn share_with(&mut self, before: &Self) {
        if let Some(listed) = Arc::get_mut(&mut self.listed) {
            listed.share_with(&before.listed);
        }
    }
}

/// A transaction whose parts are still arriving.
#[derive(Debug, Default)]
pub struct Draft {
    pub(super) upserts: BTreeMap<ResourceName, (String, Content)>,
    pub(super) removals: BTreeSet<ResourceName>,
    pub(super) refused: Option<Refusal>,
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

    /// Makes the transaction all that is held: everything else in `held` is removed.
    pub fn replace_all_of<'a>(&mut self, held: impl Iterator<Item = &'a ResourceName>) {
        let others = held.filter(|name| !self.upserts.contains_key(*name));
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
            let authority = Arc::from(lookup.authority.as_str());
            let lookup = Lookup::try_from(lookup).map_err(unreadable)?;
            (ResourceName::Lookup(authority), Content::Lookup(lookup))
        }
        Body::Service(service) => {
            let service = Service::try_from(service).map_err(unreadable)?;
            (ResourceName::Service(service.key.clone()), Content::Service(Arc::new(service)))
        }
        Body::Endpoints(mut endpoints) => {
            let is_long = endpoints.list.len() >= FEWEST;
            let fingerprints = is_long.then(|| Arc::new(Fingerprints::of(&mut endpoints)));
            let listed = Listed::from(Endpoints::try_from(endpoints).map_err(unreadable)?);
            let found = ResourceName::Endpoints(listed.key.clone());
            (found, Content::Endpoints(HeldEndpoints { listed: Arc::new(listed), fingerprints }))
        }
        // It does not say itself of what list it is a change.
        Body::EndpointsDelta(delta) if matches!(name, ResourceName::Endpoints(_)) => {
            (name.clone(), Content::EndpointsDelta(delta))
        }
        Body::EndpointsDelta(_) => {
            let found = "changes of a list of endpoints".to_owned();
            return Err(Refusal::Misnamed { name: name.clone(), found });
        }
        Body::GatewayPort(served) => {
            let served = GatewayPort::try_from(served).map_err(unreadable)?;
            (ResourceName::GatewayPort(served.port), Content::GatewayPort(Arc::new(served)))
        }
        Body::Certificate(certificate) => {
            let certificate = ServerCertificate::try_from(certificate).map_err(unreadable)?;
            let found = ResourceName::Certificate(certificate.name.clone());
            (found, Content::Certificate(Arc::new(certificate)))
        }
        Body::Users(users) => {
            let users = UserList::try_from(users).map_err(unreadable)?;
            (ResourceName::Users(users.name.clone()), Content::Users(Arc::new(users)))
        }
        // It does not say itself of what set it is a part.
        Body::SetPart(part) if matches!(name, ResourceName::SetPart(_)) => {
            let part = SetPart::try_from(part).map_err(unreadable)?;
            (name.clone(), Content::SetPart(Arc::new(part)))
        }
        Body::SetPart(_) => {
            let found = "a part of a set".to_owned();
            return Err(Refusal::Misnamed { name: name.clone(), found });
        }
    };
    if found == *name {
        Ok(content)
    } else {
        Err(Refusal::Misnamed { name: name.clone(), found: found.to_string() })
    }
}
