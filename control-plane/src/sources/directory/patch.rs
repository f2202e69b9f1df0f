//! A file with another text, put in the place of what it was without looking at the others.
//!
//! What is in use of a document depends on the others by its name and its place among them alone: by the name, because of
//! two the first counts and because its last good version has it. So a file whose documents are called as before, stand
//! where they stood and have the same problems changes nothing but themselves; and where no two documents of all files have one
//! name, new ones only have to be put where they belong. A document that cannot be used is one of these: it comes to its last good
//! version, if that stood in its place, or to what stands in for it, and to what is told of it. Whatever else has changed,
//! everything is put together anew, and that is what this comes to as well.

use std::{
    collections::{BTreeSet, HashSet},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    super::{Loaded, consequence, last_good::UsedDocument},
    Directory,
    told::{Stage, StoodIn, Told, undated_place},
};
use crate::{
    problem::{DocumentName, Problem},
    resources::{DecodeOutcome, Decoded, Object, Resource, Resources, StandIn},
};

/// The most documents that are worth being put where they belong one by one: each is looked for among all of its kind.
const MOST: usize = 1_000;
/// The most stand-ins of all files with which it is worth it: they come after all documents, and are taken away and put there again.
const MOST_STAND_INS: usize = 100;

/// What counts since a look and did not before.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Files of documents that have another text, each with what it was decoded to before.
    pub(super) texts: Vec<(PathBuf, Vec<Decoded>)>,
    /// Whether there is more.
    pub(super) is_more: bool,
}

impl Changes {
    pub(super) fn any(&self) -> bool {
        self.is_more || !self.texts.is_empty()
    }

    /// Whether nothing but what documents say is different, where `now` gives those of a file.
    pub(super) fn keep_places<'d>(&self, now: impl Fn(&Path) -> Option<&'d [Decoded]>) -> bool {
        let keeps = |(path, before): &(PathBuf, Vec<Decoded>)| {
            now(path).is_some_and(|after| are_same_but_content(before, after))
        };
        !self.is_more && self.texts.iter().all(keeps)
    }
}

/// What documents may have had to do with each other when all were put together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Simplicity {
    /// Two have one name.
    pub(super) has_namesakes: bool,
    /// A file cannot be read, or what is in use is not what the documents that are there come to by themselves.
    pub(super) has_lost: bool,
    /// Not all could be saved, which is tried again and told as long as it is so.
    pub(super) is_unsaved: bool,
    /// A file was about to count as gone.
    pub(super) has_going: bool,
}

/// What becomes of what is in use.
#[derive(Debug, Default)]
struct Patch {
    resources: Resources,
    objects: Arc<Vec<Object>>,
    problems: Vec<Problem>,
    /// `None`: what it was.
    told: Option<Told>,
    used: Vec<(DocumentName, UsedDocument)>,
    gone: Vec<DocumentName>,
}

/// What the documents of a file come to, none of which is dated or has to do with another.
#[derive(Debug, Default)]
struct Outcome {
    /// What they are called.
    names: BTreeSet<DocumentName>,
    /// Those of which a version is in use, with that one.
    used: Vec<(DocumentName, UsedDocument)>,
    /// Those that cannot be used.
    failed: Vec<DocumentName>,
    /// Whether there is one that cannot be used, of which the name cannot be read.
    has_unnamed: bool,
    stand_ins: Vec<StoodIn>,
    /// What is told of each, by its place.
    problems: Vec<(usize, Vec<Problem>)>,
}

impl Directory {
    /// Puts `changes` into what is in use. `false`: nothing is done, because all is to be put together anew.
    pub(super) fn patch(&mut self, changes: &Changes) -> bool {
        let Simplicity { has_namesakes, has_lost, is_unsaved, has_going } = self.simplicity;
        if changes.is_more || has_namesakes || has_going || self.has_going() {
            return false;
        }
        let Loaded { resources, problems, objects } = &*self.loaded;
        let mut patch = Patch {
            resources: resources.clone(),
            objects: Arc::clone(objects),
            problems: problems.clone(),
            ..Patch::default()
        };
        let mut come = HashSet::new();
        for (path, before) in &changes.texts {
            let Some(file) = self.files.get(path) else { return false };
            let done = patch.keep_places(before, &file.documents)
                || (!has_lost && self.take_places(&mut patch, path, (before, &file.documents), &mut come));
            if !done {
                return false;
            }
        }
        let Patch { resources, objects, mut problems, told, used, gone } = patch;
        // What could not be saved is told after all else but what was found out at the start.
        let mut end = problems.len() - self.last_good_problems.len();
        if is_unsaved && end > 0 {
            end -= 1;
            problems.remove(end);
        }
        let unsaved = self.last_good.change(used, &gone, &self.root);
        self.simplicity.is_unsaved = !unsaved.is_empty();
        problems.splice(end..end, unsaved);
        if let Some(told) = told {
            self.told = told;
        }
        self.loaded = Arc::new(Loaded { resources, problems, objects });
        true
    }

    /// Removes what the documents `before` in the file `path` come to, and puts what those `after` do where that belongs, if that can
    /// be told. `come` are the new ones of all files.
    fn take_places(
        &self,
        patch: &mut Patch,
        path: &Path,
        (before, after): (&[Decoded], &[Decoded]),
        come: &mut HashSet<DocumentName>,
    ) -> bool {
        if before.is_empty() || after.is_empty() || patch.used.len() + before.len().max(after.len()) > MOST {
            return false;
        }
        let Some((old, new)) = self.outcome(path, before).zip(self.outcome(path, after)) else {
            return false;
        };
        let is_known = |name: &DocumentName| {
            let is_elsewhere = || patch.objects.iter().any(|object| object.name == *name);
            self.last_good.find(name).is_some()
                || self.told.failed.contains(name)
                || (new.failed.contains(name) && is_elsewhere())
        };
        let mut added = new.names.difference(&old.names);
        let are_new = added.all(|name| !is_known(name) && come.insert(name.clone()));
        // Where a name cannot be read, it may be that of any document which is not there any more.
        let is_missed = |(name, _): &(DocumentName, UsedDocument)| !new.names.contains(name);
        if !are_new
            || (new.has_unnamed && old.used.iter().any(is_missed))
            || !patch.replace_objects(before, after, || self.object_after(path))
        {
            return false;
        }
        let told = patch.told.get_or_insert_with(|| self.told.clone());
        if told.stand_ins.len() + new.stand_ins.len() > MOST_STAND_INS {
            return false;
        }
        let stand_ins = told.stand_ins.iter().map(|(_, resource)| resource);
        let mut all = old.used.iter().map(|(_, used)| &used.resource).chain(stand_ins);
        if !all.all(|resource| patch.resources.take(resource)) {
            return false;
        }
        let is_used = |name: &DocumentName| new.used.iter().any(|(used, _)| used == name);
        let gone = old.used.into_iter().map(|(name, _)| name).filter(|name| !is_used(name));
        patch.gone.extend(gone);
        for (_, used) in &new.used {
            patch.resources.insert_by_place(used.resource.clone());
        }
        told.replace_stand_ins(path, new.stand_ins);
        for (_, resource) in &told.stand_ins {
            patch.resources.push(resource.clone());
        }
        told.failed.retain(|name| !old.failed.contains(name));
        told.failed.extend(new.failed);
        told.replace_problems(path, new.problems, &mut patch.problems);
        patch.used.extend(new.used);
        true
    }

    /// What `documents`, which are all of the file `path`, come to by themselves; `None`: there is more to one of them.
    fn outcome(&self, path: &Path, documents: &[Decoded]) -> Option<Outcome> {
        let mut outcome = Outcome::default();
        for document in documents {
            let mut problems = document.problems.clone();
            match &document.outcome {
                DecodeOutcome::NotActedOn => return None,
                DecodeOutcome::Understood(resource) => {
                    outcome.uses(resource.name(), resource.clone(), document)?;
                }
                DecodeOutcome::Failed => {
                    let problem = problems.first_mut()?;
                    let stand_in = document.stand_in.as_ref();
                    let (stage, stand_in) = match &document.name {
                        Some(name) => {
                            let kept = self.last_good.find(name);
                            problem.message.push_str(&consequence(kept.map(|kept| &kept.resource), stand_in));
                            match kept {
                                Some(kept) => outcome.keeps(name, kept, (path, document.index))?,
                                None => outcome.names.insert(name.clone()).then_some(())?,
                            }
                            outcome.failed.push(name.clone());
                            (Stage::Named, stand_in.filter(|_| kept.is_none()))
                        }
                        None => {
                            outcome.has_unnamed = true;
                            let words = stand_in.map(|stand_in| format!("; {}", stand_in.words));
                            problem.message.push_str(&words.unwrap_or_default());
                            (Stage::Unnamed, stand_in)
                        }
                    };
                    if let Some(StandIn { resource, .. }) = stand_in {
                        let place = (stage, undated_place(path, document.index));
                        outcome.stand_ins.push((place, stands_alone(resource).then(|| resource.clone())?));
                    }
                }
            }
            outcome.problems.push((document.index, problems));
        }
        Some(outcome)
    }

    /// What the first object is called that comes after those of the file `path`, none of which is dated.
    fn object_after(&self, path: &Path) -> Option<DocumentName> {
        let later = self.files.range::<Path, _>((Bound::Excluded(path), Bound::Unbounded));
        let documents = later.flat_map(|(path, file)| file.documents.iter().map(move |one| (path, one)));
        let mut undated = documents.filter(|(path, document)| self.place(path, document).0);
        undated.find_map(|(_, document)| Some(document.object.as_ref()?.name.clone()))
    }
}

impl Outcome {
    /// Has `document` in use, which is called `name` and says `resource`; `None`: there is more to it.
    fn uses(&mut self, name: &DocumentName, resource: Resource, document: &Decoded) -> Option<()> {
        let used = UsedDocument { resource, chunk: document.chunk.clone() };
        self.has_in_use(name, used)
    }

    /// Has the last good version of a document in use, which is called `name` and has this place; `None`: there is more to it.
    fn keeps(
        &mut self,
        name: &DocumentName,
        kept: &UsedDocument,
        (path, index): (&Path, usize),
    ) -> Option<()> {
        let location = kept.resource.location();
        let is_in_place = location.path.as_deref() == Some(path) && location.index == index;
        let kept = UsedDocument { resource: kept.resource.clone(), chunk: kept.chunk.clone() };
        is_in_place.then_some(())?;
        self.has_in_use(name, kept)
    }

    fn has_in_use(&mut self, name: &DocumentName, used: UsedDocument) -> Option<()> {
        let is_alone = stands_alone(&used.resource) && used.resource.metadata().created.is_none();
        (is_alone && self.names.insert(name.clone())).then_some(())?;
        self.used.push((name.clone(), used));
        Some(())
    }
}

impl Patch {
    /// Puts each of `after` in the place of the same one of `before`; `false` if they differ in more than what they say. What was
    /// done until then is of no use.
    fn keep_places(&mut self, before: &[Decoded], after: &[Decoded]) -> bool {
        if !are_same_but_content(before, after) {
            return false;
        }
        before.iter().zip(after).all(|(old, new)| match (&old.outcome, &new.outcome) {
            (DecodeOutcome::Understood(old), DecodeOutcome::Understood(resource)) => {
                if old.is(resource) {
                    return true;
                }
                if self.used.len() >= MOST {
                    return false;
                }
                self.using(new, resource);
                self.resources.exchange(old, resource.clone())
            }
            _ => true,
        })
    }

    /// Puts the objects of `after` in the place of those of `before`, which stand together before `next`, if there is one.
    fn replace_objects(
        &mut self,
        before: &[Decoded],
        after: &[Decoded],
        next: impl FnOnce() -> Option<DocumentName>,
    ) -> bool {
        let old: Vec<&Object> = before.iter().filter_map(|document| document.object.as_ref()).collect();
        let new: Vec<&Object> = after.iter().filter_map(|document| document.object.as_ref()).collect();
        if old == new {
            return true;
        }
        let place = |name: &DocumentName| self.objects.iter().position(|there| there.name == *name);
        let start = match old.first() {
            Some(first) => place(&first.name),
            None => next().map_or(Some(self.objects.len()), |next| place(&next)),
        };
        let Some(range) = start.map(|start| start..start + old.len()) else { return false };
        let are_there = self.objects.get(range.clone()).is_some_and(|there| there.iter().eq(old));
        if are_there {
            Arc::make_mut(&mut self.objects).splice(range, new.into_iter().cloned());
        }
        are_there
    }

    /// `document`, which says `resource`, is in use now.
    fn using(&mut self, document: &Decoded, resource: &Resource) {
        let used = UsedDocument { resource: resource.clone(), chunk: document.chunk.clone() };
        self.used.push((resource.name().clone(), used));
    }
}

/// Whether `before` and `after` are the same documents, of which at most what they say is different.
fn are_same_but_content(before: &[Decoded], after: &[Decoded]) -> bool {
    !before.is_empty()
        && before.len() == after.len()
        && before.iter().zip(after).all(|(old, new)| is_same_but_content(old, new))
}

/// Whether at most what they say is different between two documents.
fn is_same_but_content(one: &Decoded, other: &Decoded) -> bool {
    let is_same_outcome = match (&one.outcome, &other.outcome) {
        (DecodeOutcome::Understood(one), DecodeOutcome::Understood(other)) => {
            one.is(other)
                || (stands_alone(one)
                    && stands_alone(other)
                    && one.metadata().created == other.metadata().created)
        }
        (DecodeOutcome::NotActedOn, DecodeOutcome::NotActedOn) => true,
        _ => false,
    };
    is_same_outcome
        && one.index == other.index
        && one.name == other.name
        && one.object == other.object
        && one.problems == other.problems
}

/// Whether a document has nothing to do with other files, and nothing to share with other documents.
fn stands_alone(resource: &Resource) -> bool {
    let names_files = matches!(resource, Resource::Secret(_) | Resource::ConfigMap(_));
    !names_files && resource.expressions().is_empty()
}

#[cfg(test)]
mod tests;
