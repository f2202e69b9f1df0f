//! What is known of a cluster, kept step by step. Pure: no API server, no clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_kubernetes::Error;
use serde_json::Value;

use super::in_use::{Change, Entry, InUse};
use crate::{
    problem::{DocumentName, Fault, Problem, Severity},
    resources::{
        DecodeOutcome, Decoded, decode_value,
        kinds::{ResourceKind, by_name, followed},
        secret::with_last_good,
    },
    sources::{Loaded, consequence, expressions::Budgets},
};

/// Stands for all kinds together where a step has the place of one.
pub(super) const EVERY_KIND: usize = usize::MAX;

/// Something that happened to one kind.
#[derive(Debug)]
pub(super) enum Step {
    Listing,
    Present(Value),
    Listed,
    Applied(Value),
    Deleted(Value),
    /// It is not served.
    Missing,
    Failed(Error),
    /// The API server answers again.
    Answers,
}

/// Namespace and name; the namespace is empty for what has none.
type Name = (String, String);

/// One kind.
#[derive(Debug)]
struct OfKind {
    /// What it is in messages.
    called: String,
    wanted: &'static ResourceKind,
    /// Whether it has been listed, or is known to be missing.
    settled: bool,
    served: bool,
    objects: BTreeMap<Name, Entry>,
    /// What a listing has named so far.
    listing: Option<BTreeMap<Name, Entry>>,
    /// Why it cannot be followed.
    failure: Option<String>,
    /// Whether it is never asked for.
    is_refused: bool,
}

/// Everything that is known.
#[derive(Debug)]
pub(super) struct ClusterObjects {
    default_namespace: String,
    kinds: Vec<OfKind>,
    /// Of kinds that are not followed as a whole: what is watched by name, each as if it were a kind with one object.
    named: BTreeMap<DocumentName, OfKind>,
    /// Why nothing can be followed.
    unreachable: Option<String>,
    /// Whether everything has been listed once.
    started: bool,
    in_use: InUse,
    expressions: Budgets,
}

impl ClusterObjects {
    pub(super) fn new(default_namespace: &str) -> Self {
        let of_kind = |wanted: &'static ResourceKind| {
            OfKind::new(wanted, format!("{} ({})", wanted.kind, wanted.api_versions[0]))
        };
        Self {
            default_namespace: default_namespace.to_owned(),
            kinds: followed().map(of_kind).collect(),
            named: BTreeMap::new(),
            unreachable: None,
            started: false,
            in_use: InUse::default(),
            expressions: Budgets::default(),
        }
    }

    /// All there is, if that has changed since it was last asked for, and everything has been listed.
    pub(super) fn changed(&mut self) -> Option<Loaded> {
        if !self.kinds.iter().all(|kind| kind.settled) {
            return None;
        }
        if !std::mem::replace(&mut self.started, true) {
            let missing: Vec<&str> =
                self.kinds.iter().filter(|kind| !kind.served).map(|kind| kind.wanted.kind).collect();
            tracing::info!(
                missing = missing.join(", "),
                "every kind is listed; a kind that the cluster does not serve yet is watched as soon as it does"
            );
        }
        if !self.in_use.take_changed() {
            return None;
        }
        if self.in_use.is_stale() {
            let loaded = self.assemble();
            self.in_use.replace(loaded);
        }
        Some(self.in_use.loaded().clone())
    }

    /// As if everything that is in use had to be put together anew.
    #[cfg(test)]
    pub(super) fn forget(&mut self) {
        self.in_use.take(Change::More);
    }

    #[cfg(test)]
    pub(super) fn is_put_together_anew(&self) -> bool {
        self.in_use.is_stale()
    }

    pub(super) fn take(&mut self, (index, step): (usize, Step)) {
        // One API server that is away is one problem, not one for each kind.
        if let Step::Failed(error) = &step
            && (index == EVERY_KIND || matches!(error, Error::Unreachable { .. }))
        {
            if self.unreachable.is_none() {
                // Before everything has been listed nobody else tells of problems.
                if !self.started {
                    tracing::warn!("{error}");
                }
                self.unreachable = Some(format!("{error}; the last known state stays in use"));
                self.in_use.take(Change::More);
            }
            return;
        }
        self.reachable();
        let Some(kind) = self.kinds.get_mut(index) else { return };
        self.in_use.take(kind.take(step, &self.default_namespace));
    }

    fn reachable(&mut self) {
        if self.unreachable.take().is_some() {
            self.in_use.take(Change::More);
        }
    }

    /// The objects `wanted` are watched by name, and no others; those that are `too_many` are not, and it is said why.
    pub(super) fn name(&mut self, wanted: &BTreeSet<DocumentName>, too_many: &BTreeSet<DocumentName>) {
        let before = self.named.len();
        self.named.retain(|name, one| {
            let (is_wanted, is_refused) = (wanted.contains(name), too_many.contains(name));
            // One that is wanted now after it was too many, or the other way round, begins anew.
            (is_wanted || is_refused) && one.is_refused == is_refused
        });
        let mut is_different = self.named.len() != before;
        for name in wanted.union(too_many) {
            let Some(kind) = by_name(&name.kind) else { continue };
            let is_refused = too_many.contains(name);
            self.named.entry(name.clone()).or_insert_with(|| {
                is_different |= is_refused;
                let mut one = OfKind::new(kind, name.to_string());
                one.is_refused = is_refused;
                one.failure = is_refused.then(|| {
                    format!("{name} is not read: its namespace has too many objects that gateways name; name fewer")
                });
                one
            });
        }
        if is_different {
            self.in_use.take(Change::More);
        }
    }

    /// Whether it is known of each object that is named whether there is one, or why that cannot be known.
    pub(super) fn are_named_known(&self) -> bool {
        self.named.values().all(|one| one.settled || one.failure.is_some())
    }

    /// Takes a step of an object that is watched by name.
    pub(super) fn take_named(&mut self, name: &DocumentName, step: Step) {
        if matches!(&step, Step::Failed(Error::Unreachable { .. })) {
            return self.take((EVERY_KIND, step));
        }
        self.reachable();
        let Some(one) = self.named.get_mut(name) else { return };
        let change = match one.take(step, &self.default_namespace) {
            // They are in the order of their names.
            Change::Object(None, _) | Change::Object(_, None) => Change::More,
            change => change,
        };
        self.in_use.take(change);
    }

    fn assemble(&mut self) -> Loaded {
        let mut loaded = Loaded::default();
        let mut objects = Vec::new();
        for kind in self.kinds.iter().chain(self.named.values()) {
            let mut entries: Vec<(&Name, &Entry)> = kind.objects.iter().collect();
            // The oldest first, as Gateway API and Istio settle conflicts.
            entries.sort_by_cached_key(|(name, entry)| {
                let created = entry.resource.as_ref().and_then(|resource| resource.metadata().created);
                (created.is_none(), created, *name)
            });
            for (_, entry) in entries {
                loaded.problems.extend_from_slice(&entry.problems);
                objects.extend(entry.object.clone());
                if let Some(resource) = &entry.resource {
                    loaded.resources.push(resource.clone());
                }
            }
            loaded.problems.extend(kind.failure.as_ref().map(|why| of_cluster(why)));
        }
        loaded.problems.extend(self.unreachable.as_ref().map(|why| of_cluster(why)));
        loaded.objects = Arc::new(objects);
        self.expressions.apply(&mut loaded.resources, &mut loaded.problems);
        loaded
    }
}

/// A problem with the cluster as a whole.
fn of_cluster(message: &str) -> Problem {
    let message = message.to_owned();
    Problem {
        severity: Severity::Error,
        document: None,
        path: None,
        line: None,
        field: String::new(),
        message,
        fault: Fault::Between,
    }
}

impl OfKind {
    fn new(wanted: &'static ResourceKind, called: String) -> Self {
        Self {
            called,
            wanted,
            settled: false,
            served: false,
            objects: BTreeMap::new(),
            listing: None,
            failure: None,
            is_refused: false,
        }
    }

    /// Takes one step; what is different now.
    fn take(&mut self, step: Step, default_namespace: &str) -> Change<'_> {
        match step {
            Step::Listing => {
                self.listing = Some(BTreeMap::new());
                Change::Nothing
            }
            Step::Present(object) => {
                let (name, entry) = self.read(object, default_namespace);
                self.listing.get_or_insert_default().insert(name, entry);
                Change::Nothing
            }
            Step::Listed => {
                let listed = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.objects, listed);
                let same = before.len() == self.objects.len()
                    && before.iter().zip(&self.objects).all(|((a, old), (b, new))| a == b && old.is(new));
                let late = std::mem::replace(&mut self.settled, true) && !self.served;
                let first = !std::mem::replace(&mut self.served, true);
                if late {
                    tracing::info!(
                        kind = self.wanted.kind,
                        "the cluster serves this kind now; it is watched"
                    );
                }
                Change::more_if(self.failure.take().is_some() || first || !same)
            }
            Step::Applied(object) => {
                let (name, entry) = self.read(object, default_namespace);
                let had_failed = self.failure.take().is_some();
                let is_same = self.objects.get(&name).is_some_and(|old| old.is(&entry));
                let before = self.objects.insert(name.clone(), entry);
                if had_failed || is_same {
                    return Change::more_if(had_failed);
                }
                Change::Object(before, self.objects.get(&name))
            }
            Step::Deleted(object) => {
                let before = self.objects.remove(&name_of(&object));
                if self.failure.take().is_some() {
                    return Change::More;
                }
                before.map_or(Change::Nothing, |before| Change::Object(Some(before), None))
            }
            Step::Missing => {
                let first = !std::mem::replace(&mut self.settled, true);
                self.served = false;
                self.listing = None;
                let had = !std::mem::take(&mut self.objects).is_empty();
                Change::more_if(self.failure.take().is_some() || first || had)
            }
            Step::Failed(error) => {
                let why = format!(
                    "{} cannot be watched: {error}; what was last known of it stays in use",
                    self.called
                );
                let new = self.failure.as_ref() != Some(&why);
                if new && !self.settled {
                    tracing::warn!("{why}");
                }
                self.settled |= self.wanted.is_dispensable;
                self.failure = Some(why);
                Change::more_if(new)
            }
            Step::Answers => Change::Nothing,
        }
    }

    /// What `object` says, with what is already known of the same object where that is equal or better.
    fn read(&self, object: Value, default_namespace: &str) -> (Name, Entry) {
        let name = name_of(&object);
        let before = self.objects.get(&name);
        let Decoded { outcome, problems, stand_in, object, .. } = decode_value(object, default_namespace);
        let mut entry = Entry { resource: None, problems, object };
        match outcome {
            DecodeOutcome::Understood(resource) => {
                let known = before.and_then(|before| before.resource.as_ref());
                let (resource, _) = with_last_good(resource, known);
                entry.resource = Some(known.filter(|known| **known == resource).cloned().unwrap_or(resource));
            }
            DecodeOutcome::NotActedOn => {}
            DecodeOutcome::Failed => {
                let good = before.and_then(|before| before.resource.as_ref());
                let good = good.filter(|resource| !resource.is_stand_in()).cloned();
                if let Some(problem) = entry.problems.first_mut() {
                    problem.message.push_str(&consequence(good.as_ref(), stand_in.as_ref()));
                }
                entry.resource = good.or(stand_in.map(|stand_in| stand_in.resource));
            }
        }
        (name, entry)
    }
}

fn name_of(object: &Value) -> Name {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    (text("/metadata/namespace"), text("/metadata/name"))
}
