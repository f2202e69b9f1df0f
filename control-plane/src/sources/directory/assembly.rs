//! What is in use of all documents, put together: of two of one name the first, of a document that fails its last good
//! version, and of one that never was good what it is taken for.

use std::{collections::BTreeMap, path::Path};

use super::{
    super::{
        consequence,
        last_good::{LastGood, UsedDocument},
    },
    Precedence,
    named::NamedFiles,
    told::{Stage, StoodIn, Told},
};
use crate::{
    problem::{DocumentName, Fault, Problem, Severity},
    resources::{DecodeOutcome, Decoded, Resources, StandIn, secret, unusable},
};

/// What is in use, while it is being put together.
pub(super) struct Assembly<'a> {
    last_good: &'a LastGood,
    files: NamedFiles<'a>,
    chosen: BTreeMap<DocumentName, Chosen>,
    /// Whether the places of the chosen ones are not in the order in which they were chosen.
    is_out_of_order: bool,
    /// Where each name was first met, whether understood or not.
    taken: BTreeMap<DocumentName, String>,
    /// Files with a malformed document that nobody can name, the problem that says so, and what it is taken for.
    unnamed: Vec<(Precedence, usize, Option<StandIn>)>,
    pub(super) problems: Vec<Problem>,
    /// What was told of documents, and what stands in for those that cannot be used and have no last good version.
    pub(super) told: Told,
    /// Whether two documents have one name.
    pub(super) has_namesakes: bool,
    /// Whether documents are in use that are in no file that can be read.
    pub(super) has_lost: bool,
}

/// A document that is in use.
struct Chosen {
    place: Precedence,
    /// How many were chosen before it.
    count: usize,
    used: UsedDocument,
}

impl<'a> Assembly<'a> {
    pub(super) fn new(last_good: &'a LastGood, files: NamedFiles<'a>) -> Self {
        Self {
            last_good,
            files,
            chosen: BTreeMap::new(),
            is_out_of_order: false,
            taken: BTreeMap::new(),
            unnamed: Vec::new(),
            problems: Vec::new(),
            told: Told::default(),
            has_namesakes: false,
            has_lost: false,
        }
    }

    pub(super) fn add(&mut self, place: Precedence, document: &Decoded) {
        let here = format!("{}:{}", place.2.display(), document.line);
        let first = document.name.as_ref().and_then(|name| self.taken.get(name));
        let counts = !matches!(document.outcome, DecodeOutcome::NotActedOn);
        self.has_namesakes |= counts && first.is_some();
        match (&document.outcome, first) {
            (DecodeOutcome::NotActedOn, _) => self.problems.extend_from_slice(&document.problems),
            (DecodeOutcome::Understood(resource), Some(first)) => {
                let name = resource.name();
                self.problems.push(Problem {
                    severity: Severity::Error,
                    document: Some(name.clone()),
                    path: resource.location().path.clone(),
                    line: Some(document.line),
                    field: String::new(),
                    message: format!(
                        "is defined twice; {first} comes first and is used: rename or remove one"
                    ),
                    fault: Fault::Namesake,
                });
                let first = self.chosen.get(name).map(|chosen| &chosen.used.resource);
                if let Some(stand_in) = unusable::of_passed_over(first, resource) {
                    self.stand_in(self.problems.len() - 1, stand_in, (Stage::Named, place));
                }
            }
            (DecodeOutcome::Understood(resource), None) => {
                let name = resource.name().clone();
                self.problems.extend_from_slice(&document.problems);
                self.taken.insert(name.clone(), here);
                let before = self.last_good.find(&name);
                let filled = self.files.filled(resource.clone());
                let (resource, inherits) =
                    secret::with_last_good(filled, before.map(|before| &before.resource));
                // What is in use after a restart is what was good.
                let chunk = before.filter(|_| inherits).map_or(&document.chunk, |before| &before.chunk);
                let kept = UsedDocument { resource, chunk: chunk.clone() };
                self.choose(name, place, kept);
            }
            (DecodeOutcome::Failed, _) => self.add_failed(place, document, here),
        }
    }

    fn add_failed(&mut self, place: Precedence, document: &Decoded, here: String) {
        let start = self.problems.len();
        self.problems.extend_from_slice(&document.problems);
        let Some(name) = &document.name else {
            self.unnamed.push((place, start, document.stand_in.clone()));
            return;
        };
        if self.taken.contains_key(name) {
            // Another one of its name is in use, which does not make up for a policy.
            let policy = document.stand_in.clone().filter(|stand_in| unusable::is_policy(&stand_in.resource));
            if let Some(policy) = policy {
                self.stand_in(start, policy, (Stage::Named, place));
            }
            return;
        }
        self.taken.insert(name.clone(), here);
        self.told.failed.insert(name.clone());
        let kept = self.last_good.find(name).map(|kept| self.still(kept));
        let good = kept.as_ref().map(|kept| &kept.resource);
        if let Some(problem) = self.problems.get_mut(start) {
            problem.message.push_str(&consequence(good, document.stand_in.as_ref()));
        }
        match (kept, &document.stand_in) {
            (Some(kept), _) => self.choose(name.clone(), place, kept),
            (None, Some(stand_in)) => {
                self.told.stand_ins.push(((Stage::Named, place), stand_in.resource.clone()));
            }
            (None, None) => {}
        }
    }

    /// A last good version, with what its files hold now.
    fn still(&self, kept: &UsedDocument) -> UsedDocument {
        let filled = self.files.filled(kept.resource.clone());
        let (resource, _) = secret::with_last_good(filled, Some(&kept.resource));
        UsedDocument { resource, chunk: kept.chunk.clone() }
    }

    /// Takes `stand_in` into use for what is at `place`, and says so where the problem is told.
    pub(super) fn stand_in(&mut self, problem: usize, stand_in: StandIn, place: (Stage, Precedence)) {
        if let Some(problem) = self.problems.get_mut(problem) {
            problem.message.push_str(&format!("; {}", stand_in.words));
        }
        self.told.stand_ins.push((place, stand_in.resource));
    }

    /// Keeps what a malformed document may have been: all that its file once held and no longer names.
    pub(super) fn keep_unnamed(&mut self) {
        for (place, problem, stand_in) in std::mem::take(&mut self.unnamed) {
            let names = self.keep_below(&place.2);
            if let Some(problem) = self.problems.get_mut(problem).filter(|_| !names.is_empty()) {
                let listed: Vec<_> = names.iter().map(ToString::to_string).collect();
                problem.message.push_str(&format!("; {} stays in use as it was", listed.join(", ")));
            }
            if let Some(stand_in) = stand_in
                && !names.iter().any(|name| name.kind == stand_in.resource.name().kind)
            {
                self.stand_in(problem, stand_in, (Stage::Unnamed, place));
            }
        }
    }

    /// Keeps the last good version of every document at or below `path` that was not met.
    pub(super) fn keep_below(&mut self, path: &Path) -> Vec<DocumentName> {
        let mut names = Vec::new();
        for (name, kept) in self.last_good.all() {
            let location = kept.resource.location();
            let Some(file) = location.path.as_deref().filter(|file| file.starts_with(path)) else { continue };
            if !self.taken.contains_key(name) {
                let created = kept.resource.metadata().created;
                let place = (created.is_none(), created, file.to_path_buf(), location.index);
                self.taken.insert(name.clone(), location.to_string());
                (self.is_out_of_order, self.has_lost) = (true, true);
                self.choose(name.clone(), place, self.still(kept));
                names.push(name.clone());
            }
        }
        names
    }

    fn choose(&mut self, name: DocumentName, place: Precedence, used: UsedDocument) {
        let count = self.chosen.len();
        self.chosen.insert(name, Chosen { place, count, used });
    }

    /// Whether anything in use is from `path` or below.
    pub(super) fn holds_below(&self, path: &Path) -> bool {
        self.chosen.values().any(|chosen| chosen.place.2.starts_with(path))
    }

    pub(super) fn finish(self) -> (Resources, Vec<Problem>, Told, BTreeMap<DocumentName, UsedDocument>) {
        let mut in_order: Vec<&Chosen> = self.chosen.values().collect();
        match self.is_out_of_order {
            true => in_order.sort_by(|one, other| one.place.cmp(&other.place)),
            false => in_order.sort_unstable_by_key(|chosen| chosen.count),
        }
        let mut resources = Resources::default();
        let in_use = in_order.into_iter().map(|chosen| chosen.used.resource.clone());
        let stand_ins = self.told.stand_ins.iter().map(|(_, resource): &StoodIn| resource.clone());
        for resource in in_use.chain(stand_ins) {
            resources.push(resource);
        }
        let kept = self.chosen.into_iter().map(|(name, chosen)| (name, chosen.used)).collect();
        (resources, self.problems, self.told, kept)
    }
}
