//! A file with another text, put in the place of what it was without looking at the others.
//!
//! What is in use of a document depends on the others by its name and its place among them alone: by the name, because of
//! two the first counts and because its last good version has it. So a file whose documents are called as before, stand
//! where they stood and have the same problems changes nothing but themselves; and where all documents of all files are
//! understood and no two have one name, new ones only have to be put where they belong. Whatever else has changed,
//! everything is put together anew, and that is what this comes to as well.

use std::{
    collections::{BTreeSet, HashSet},
    path::PathBuf,
    sync::Arc,
};

use super::{
    super::{Loaded, last_good::UsedDocument},
    Directory, File,
};
use crate::{
    problem::DocumentName,
    resources::{DecodeOutcome, Decoded, Object, Resource, Resources},
};

/// The most documents that are worth being put where they belong one by one: each is looked for among all of its kind.
const MOST: usize = 1_000;

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
}

/// What documents may have had to do with each other when all were put together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Simplicity {
    /// Two have one name.
    pub(super) has_namesakes: bool,
    /// One or a file cannot be used.
    pub(super) has_failed: bool,
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
    used: Vec<(DocumentName, UsedDocument)>,
    gone: Vec<DocumentName>,
}

impl Directory {
    /// Puts `changes` into what is in use. `false`: nothing is done, because all is to be put together anew.
    pub(super) fn patch(&mut self, changes: &Changes) -> bool {
        let Simplicity { has_namesakes, has_failed, is_unsaved, has_going } = self.simplicity;
        let is_going = has_going || self.files.values().any(File::is_going);
        if changes.is_more || has_namesakes || is_unsaved || is_going {
            return false;
        }
        let Loaded { resources, objects, .. } = &*self.loaded;
        let mut patch =
            Patch { resources: resources.clone(), objects: Arc::clone(objects), ..Patch::default() };
        let mut come = HashSet::new();
        for (path, before) in &changes.texts {
            let Some(file) = self.files.get(path) else { return false };
            let is_known = |name: &DocumentName| self.last_good.find(name).is_some();
            let done = patch.keep_places(before, &file.documents)
                || (!has_failed && patch.take_places(before, &file.documents, is_known, &mut come));
            if !done {
                return false;
            }
        }
        let mut problems = self.loaded.problems.clone();
        let unsaved = self.last_good.change(patch.used, &patch.gone, &self.root);
        if !unsaved.is_empty() {
            self.simplicity.is_unsaved = true;
            let end = problems.len() - self.last_good_problems.len();
            problems.splice(end..end, unsaved);
        }
        let Patch { resources, objects, .. } = patch;
        self.loaded = Arc::new(Loaded { resources, problems, objects });
        true
    }
}

impl Patch {
    /// Puts each of `after` in the place of the same one of `before`; `false` if they differ in more than what they say. What was
    /// done until then is of no use.
    fn keep_places(&mut self, before: &[Decoded], after: &[Decoded]) -> bool {
        if before.is_empty() || before.len() != after.len() {
            return false;
        }
        let mut pairs = before.iter().zip(after);
        if !pairs.clone().all(|(old, new)| is_same_but_content(old, new)) {
            return false;
        }
        pairs.all(|(old, new)| match (&old.outcome, &new.outcome) {
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

    /// Removes the documents of `before`, and puts those of `after` where they belong, if that can be told. `come` are the new
    /// ones of all files.
    fn take_places(
        &mut self,
        before: &[Decoded],
        after: &[Decoded],
        is_known: impl Fn(&DocumentName) -> bool,
        come: &mut HashSet<DocumentName>,
    ) -> bool {
        if before.is_empty() || after.is_empty() || self.used.len() + before.len().max(after.len()) > MOST {
            return false;
        }
        let Some((old, new)) = undated(before).zip(undated(after)) else { return false };
        let names = |list: &[&Resource]| -> BTreeSet<DocumentName> {
            list.iter().map(|one| one.name().clone()).collect()
        };
        let (old_names, new_names) = (names(&old), names(&new));
        let mut added = new_names.difference(&old_names);
        let are_new = added.all(|name| !is_known(name) && come.insert(name.clone()));
        if new_names.len() != new.len() || !are_new || !self.replace_objects(before, after) {
            return false;
        }
        if !old.iter().all(|resource| self.resources.take(resource)) {
            return false;
        }
        for (document, resource) in after.iter().zip(new) {
            self.using(document, resource);
            self.resources.insert_by_place(resource.clone());
        }
        self.gone.extend(old_names.difference(&new_names).cloned());
        true
    }

    /// Puts the objects of `after` in the place of those of `before`, which stand together.
    fn replace_objects(&mut self, before: &[Decoded], after: &[Decoded]) -> bool {
        let old: Vec<&Object> = before.iter().filter_map(|document| document.object.as_ref()).collect();
        let new: Vec<&Object> = after.iter().filter_map(|document| document.object.as_ref()).collect();
        if old == new {
            return true;
        }
        let Some(first) = old.first() else { return false };
        let start = self.objects.iter().position(|there| there.name == first.name);
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

/// What `documents` say, if all are understood without a word and have no time: then they stand together, in this order.
fn undated(documents: &[Decoded]) -> Option<Vec<&Resource>> {
    let undated = documents.iter().map(|document| match &document.outcome {
        DecodeOutcome::Understood(resource) => {
            let is_dated = resource.metadata().created.is_some();
            (document.problems.is_empty() && stands_alone(resource) && !is_dated).then_some(resource)
        }
        _ => None,
    });
    undated.collect()
}

/// Whether a document has nothing to do with other files, and nothing to share with other documents.
fn stands_alone(resource: &Resource) -> bool {
    let names_files = matches!(resource, Resource::Secret(_) | Resource::ConfigMap(_));
    !names_files && resource.expressions().is_empty()
}

#[cfg(test)]
mod tests;
