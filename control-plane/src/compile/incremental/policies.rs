//! A change of `AuthorizationPolicy`s, `PeerAuthentication`s and `RequestAuthentication`s, and what is said of them if workloads change.
//!
//! What is said of such a policy depends on the workloads of its namespace, and on all service accounts. These are kept
//! ([`Faced`](super::super::workloads::Faced)), so that it can be said anew of those policies alone that a change concerns. What an
//! `AuthorizationPolicy` has its effect on are the workloads that it selects, and nothing else. A `PeerAuthentication` says besides
//! how these are called.
//!
//! `RequestAuthentication`s are few, and one without a selector is for all: if one changes, each workload asks them again, and what is
//! to be said of them is found out anew.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use selvedge_model::{Workload, WorkloadName, facts::selects, snapshot::Occupant};

use super::{
    super::{
        MeshSettings, Problems, asked, inbound, meant,
        targets::{Selected, Targets, only_namespace},
        workloads::KnownWorkload,
    },
    Last,
    edits::{Edits, Pair},
    index::{Everything, both},
    local::Local,
};
use crate::{
    problem::DocumentName,
    resources::{
        AuthorizationPolicySpec, Document, PeerAuthenticationSpec, RequestAuthenticationSpec, Resources,
        service_entry::EntryEndpoints,
    },
};

/// Whether a policy in `namespace` that is for `targets` is for `workload`.
fn is_for(namespace: &str, targets: &Targets<'_>, workload: Selected<'_>, settings: &MeshSettings) -> bool {
    let may_be = only_namespace(namespace, settings).is_none_or(|own| own == workload.namespace)
        || workload.gateway.is_some_and(|gateway| targets.may_be_for(gateway));
    may_be && targets.ports(workload).is_some()
}

/// The policies of which something else may have to be said, because the workloads `differing` are other ones in `new` than in `old`.
pub(super) fn concerned(
    all: &Resources,
    settings: &MeshSettings,
    differing: &[&KnownWorkload<'_>],
    (old, new): (&Local<'_>, &Local<'_>),
) -> BTreeSet<DocumentName> {
    let mut concerned = BTreeSet::new();
    if differing.is_empty() {
        return concerned;
    }
    let is_for_one = |namespace: &str, targets: &Targets<'_>| {
        differing.iter().any(|known| is_for(namespace, targets, known.selected(), settings))
    };
    let (before, after) = (old.accounts(), new.accounts());
    let accounts: BTreeSet<(&str, &str)> = before.symmetric_difference(&after).copied().collect();
    for policy in &all.authorization_policies {
        let names_one = || {
            let mut named = meant::accounts_named(policy, settings);
            named.any(|(namespace, name)| accounts.contains(&(namespace.as_str(), name.as_str())))
        };
        let targets = Targets::of_authorization(policy, settings);
        if is_for_one(&policy.name.namespace, &targets) || (!accounts.is_empty() && names_one()) {
            concerned.insert(policy.name.clone());
        }
    }
    for policy in &all.peer_authentications {
        let targets = Targets::new(&policy.name.namespace, &policy.spec.selector, None, settings);
        if is_for_one(&policy.name.namespace, &targets) {
            concerned.insert(policy.name.clone());
        }
    }
    concerned
}

impl Last {
    /// Says anew what is to be said of the policies called `names` by the workloads that there are.
    pub(super) fn say_of_policies(&mut self, names: &BTreeSet<DocumentName>) {
        let Some(faced) = self.facts.faced.as_ref().filter(|_| !names.is_empty()) else { return };
        let all = &self.resources;
        let part = Resources {
            authorization_policies: named(&all.authorization_policies, names),
            peer_authentications: named(&all.peer_authentications, names),
            ..Resources::default()
        };
        let for_gateways = |one: &Arc<Document<AuthorizationPolicySpec>>| {
            one.spec.any_workload || !one.spec.gateways.is_empty()
        };
        // They may run in other namespaces.
        let names_gateways = part.authorization_policies.iter().any(for_gateways);
        let namespaces: Option<BTreeSet<&str>> =
            names.iter().map(|name| only_namespace(&name.namespace, &self.settings)).collect();
        let is_asked = |name: &WorkloadName| {
            names_gateways || namespaces.as_ref().is_none_or(|own| own.contains(name.namespace()))
        };
        let workloads = &self.mesh.workloads;
        let facing = faced.iter().filter(|(name, _)| is_asked(name));
        let facing = facing.filter_map(|(name, faced)| Some(faced.facing(workloads.get(name)?)));
        let accounts = workloads.values().map(|one| (one.name.namespace(), one.identity.service_account()));
        let mut problems = Problems::default();
        meant::report_each(&part, &self.settings, facing, accounts, &mut problems);
        self.facts.found.of_each_policy.replace(names, problems);
        self.is_said_anew = true;
    }

    /// The workloads that `changed` are for, or were.
    ///
    /// # Errors
    /// One of them may be for all, or for endpoints that no document of a workload describes.
    pub(super) fn workloads_of(
        &self,
        changed: &[Pair<PeerAuthenticationSpec>],
    ) -> Result<Vec<WorkloadName>, Everything> {
        if changed.is_empty() {
            return Ok(Vec::new());
        }
        let faced = self.facts.faced.as_ref().ok_or(Everything)?;
        let has_endpoints = |namespace: &str| {
            let mut here =
                self.resources.service_entries.iter().filter(|one| *one.name.namespace == *namespace);
            here.any(|one| matches!(one.spec.endpoints, EntryEndpoints::Inline(_)))
        };
        let is_for_workloads = |policy: &Document<PeerAuthenticationSpec>| {
            let namespace = only_namespace(&policy.name.namespace, &self.settings);
            !policy.unusable && namespace.is_some_and(|namespace| !has_endpoints(namespace))
        };
        if !both(changed).all(is_for_workloads) {
            return Err(Everything);
        }
        let is_one = |workload: &Workload| {
            both(changed).any(|policy| {
                *policy.name.namespace == *workload.name.namespace()
                    && selects(&policy.spec.selector, &workload.labels)
            })
        };
        let workloads = faced.keys().filter_map(|name| self.mesh.workloads.get(name));
        Ok(workloads.filter(|one| is_one(one)).map(|one| one.name.clone()).collect())
    }

    /// Takes over what has become of `AuthorizationPolicy`s and `RequestAuthentication`s, after all other changes; and what is wrong
    /// with policies if they, or the workloads and services that they are for, are other ones.
    ///
    /// # Errors
    /// Everything must be compiled.
    pub(super) fn follow_policies(
        &mut self,
        authorizations: Edits<AuthorizationPolicySpec>,
        authentications: Edits<RequestAuthenticationSpec>,
        have_workloads_changed: bool,
    ) -> Result<(), Everything> {
        let changed = authorizations.apply(&mut self.resources.authorization_policies);
        let of_tokens = authentications.apply(&mut self.resources.request_authentications);
        let have_any = !self.resources.request_authentications.is_empty();
        let are_tokens_anew = !of_tokens.is_empty() || (have_workloads_changed && have_any);
        let mut problems = Problems::default();
        inbound::Policies::new(&self.resources, &self.settings, &mut problems);
        let policies = asked::Policies::new(&self.resources, &self.settings, &mut problems);
        let targets: Vec<_> = both(&changed)
            .map(|policy| (&*policy.name.namespace, Targets::of_authorization(policy, &self.settings)))
            .collect();
        let (mut others, mut is_asked_otherwise) = (Vec::new(), false);
        let faced = match changed.is_empty() && !are_tokens_anew {
            true => None,
            false => Some(self.facts.faced.as_ref().ok_or(Everything)?),
        };
        for (name, faced) in faced.into_iter().flatten() {
            let workload = self.mesh.workloads.get(name).ok_or(Everything)?;
            let (selected, before) = (faced.selected(workload), &workload.policy);
            let is_one = |(namespace, targets): &(&str, Targets<'_>)| {
                is_for(namespace, targets, selected, &self.settings)
            };
            // Of one whose labels nobody knows, each policy that selects may be for it.
            let is_concerned = selected.labels.is_none() || targets.iter().any(is_one);
            let authorization =
                is_concerned.then(|| policies.authorization(selected, before.authorization.as_ref()));
            let authentication =
                are_tokens_anew.then(|| policies.authentication(selected, before.authentication.as_ref()));
            let authorization = authorization.filter(|found| *found != before.authorization);
            let authentication = authentication.filter(|found| *found != before.authentication);
            if authorization.is_none() && authentication.is_none() {
                continue;
            }
            let mut other = Workload::clone(workload);
            if let Some(found) = authorization {
                other.policy.authorization = found;
            }
            if let Some(found) = authentication {
                is_asked_otherwise |= found.is_some() != before.authentication.is_some();
                other.policy.authentication = found;
            }
            others.push(Arc::new(other));
        }
        let tokens = are_tokens_anew.then(|| {
            let mut problems = Problems::default();
            policies.report_authentications(&mut problems);
            problems
        });
        let mut names: BTreeSet<DocumentName> = both(&changed).map(|policy| policy.name.clone()).collect();
        if is_asked_otherwise {
            // They are told if they ask for tokens where none are accepted.
            names.extend(self.resources.authorization_policies.iter().map(|policy| policy.name.clone()));
        }
        self.facts.found.policies = problems;
        self.put_workloads(others);
        if let Some(tokens) = tokens {
            self.say_of_authentications(tokens);
        }
        self.say_of_policies(&names);
        self.is_said_anew = true;
        Ok(())
    }

    /// Says anew what is to be said of `RequestAuthentication`s by the workloads that there are, and these `problems`.
    fn say_of_authentications(&mut self, mut problems: Problems) {
        let workloads = &self.mesh.workloads;
        let facing = self.facts.faced.iter().flatten();
        let facing = facing.filter_map(|(name, faced)| Some(faced.facing(workloads.get(name)?)));
        meant::report_authentications(&self.resources, &self.settings, facing, &mut problems);
        self.facts.found.tokens = problems;
    }

    /// Puts `others` into the places of the workloads of their names, which are where they were.
    pub(super) fn put_workloads(&mut self, others: Vec<Arc<Workload>>) {
        if others.is_empty() {
            return;
        }
        let by_name: HashMap<&WorkloadName, &Arc<Workload>> =
            others.iter().map(|one| (&one.name, one)).collect();
        let other = |there: &Occupant| by_name.get(&there.workload.name).copied();
        let occupied = self.mesh.occupants.iter();
        let occupied = occupied.filter_map(|(ip, there)| Some((*ip, Arc::clone(other(there)?))));
        for (ip, workload) in occupied.collect::<Vec<_>>() {
            let skipped = self.mesh.occupants.get(&ip).map(|there| there.skipped.clone()).unwrap_or_default();
            self.mesh.occupants.insert(ip, Occupant { workload, skipped });
        }
        let is_named = |there: &(usize, Occupant)| other(&there.1).is_some();
        if self.mesh.named.occupants.values().any(is_named) {
            for (_, there) in self.mesh.named.occupants.values_mut() {
                there.workload = other(there).map_or_else(|| Arc::clone(&there.workload), Arc::clone);
            }
        }
        for workload in others {
            self.mesh.workloads.insert(workload.name.clone(), workload);
        }
    }
}

/// Those of `all` that have one of these names.
fn named<T>(all: &[Arc<Document<T>>], names: &BTreeSet<DocumentName>) -> Vec<Arc<Document<T>>> {
    all.iter().filter(|one| names.contains(&one.name)).cloned().collect()
}
