//! What is in use of a cluster, with one object changed in the place where it stands, without looking at the others.
//!
//! What is in use of an object depends on the others by its place among them alone, and where it has regular expressions
//! (`Budgets`). Whatever else has changed, everything is put together anew, and that is what this comes to as well.

use std::sync::Arc;

use crate::{
    problem::Problem,
    resources::{Object, Resource},
    sources::Loaded,
};

/// One object.
#[derive(Debug)]
pub(super) struct Entry {
    /// What is in use of it: the last version that was understood.
    pub(super) resource: Option<Resource>,
    pub(super) problems: Vec<Problem>,
    pub(super) object: Option<Object>,
}

/// What a step has changed.
#[derive(Debug)]
pub(super) enum Change<'e> {
    Nothing,
    /// One object: as it was, and as it is.
    Object(Option<Entry>, Option<&'e Entry>),
    /// Something else, or more.
    More,
}

impl Change<'_> {
    pub(super) fn more_if(is_more: bool) -> Self {
        if is_more { Self::More } else { Self::Nothing }
    }
}

/// What is in use.
#[derive(Debug, Default)]
pub(super) struct InUse {
    loaded: Loaded,
    has_changed: bool,
    /// Whether everything is to be put together anew.
    is_stale: bool,
}

impl InUse {
    pub(super) fn take(&mut self, change: Change<'_>) {
        match change {
            Change::Nothing => return,
            // Half of a change is no harm where all is put together anew.
            Change::Object(before, after) => {
                self.is_stale = self.is_stale || self.patch(before.as_ref(), after).is_none();
            }
            Change::More => self.is_stale = true,
        }
        self.has_changed = true;
    }

    /// Whether anything has changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.has_changed)
    }

    pub(super) fn is_stale(&self) -> bool {
        self.is_stale
    }

    pub(super) fn replace(&mut self, loaded: Loaded) {
        (self.loaded, self.is_stale) = (loaded, false);
    }

    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Puts `after` where `before` was; `None`: that cannot be told.
    fn patch(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> Option<()> {
        let both = [before, after];
        let problems = both.map(|entry| entry.map_or(&[][..], |entry| &entry.problems[..]));
        let resources = both.map(|entry| entry.and_then(|entry| entry.resource.as_ref()));
        let objects = both.map(|entry| entry.and_then(|entry| entry.object.as_ref()));
        let stands_alone = |resource: &Resource| resource.expressions().is_empty();
        if problems[0] != problems[1] || !resources.into_iter().flatten().all(stands_alone) {
            return None;
        }
        self.patch_object(objects)?;
        let all = &mut self.loaded.resources;
        let is_done = match resources {
            [None, None] => true,
            [Some(old), Some(new)] if old.is(new) => true,
            [Some(old), Some(new)] if old.metadata().created == new.metadata().created => {
                all.exchange(old, new.clone())
            }
            // Problems and objects stand in the order of the documents, too.
            _ if !problems[0].is_empty() || objects[0].is_some() => false,
            [old, new] => {
                old.is_none_or(|old| all.take(old)) && new.is_none_or(|new| all.insert_in_kind(new.clone()))
            }
        };
        is_done.then_some(())
    }

    fn patch_object(&mut self, objects: [Option<&Object>; 2]) -> Option<()> {
        match objects {
            [None, None] => Some(()),
            [Some(old), Some(new)] if old == new => Some(()),
            [Some(old), Some(new)] => {
                let place = self.loaded.objects.iter().position(|there| there == old)?;
                Arc::make_mut(&mut self.loaded.objects)[place] = new.clone();
                Some(())
            }
            // People write these, and seldom.
            _ => None,
        }
    }
}

impl Entry {
    pub(super) fn is(&self, other: &Self) -> bool {
        let same_resource = match (&self.resource, &other.resource) {
            (Some(this), Some(other)) => this == other,
            (None, None) => true,
            _ => false,
        };
        same_resource && self.problems == other.problems && self.object == other.object
    }
}
