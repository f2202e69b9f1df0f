//! What was told of single documents, and what stands in for those that cannot be used, so that both can be changed for one file
//! without looking at the others.

use std::{collections::BTreeSet, path::Path};

use super::Precedence;
use crate::{
    problem::{DocumentName, Problem},
    resources::Resource,
};

/// In which order there are stand-ins, which come after all documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// For a document that has a name.
    Named,
    /// For one whose name cannot be read.
    Unnamed,
    /// For a file or directory that cannot be read.
    Unread,
}

/// What stands in, and for what.
pub(super) type StoodIn = ((Stage, Precedence), Resource);

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// How many problems are told before those of documents.
    pub(super) before: usize,
    /// The documents of which something is told, in their order, and how many problems each has.
    pub(super) documents: Vec<(Precedence, usize)>,
    /// The names of documents that cannot be used.
    pub(super) failed: BTreeSet<DocumentName>,
    /// What is in use in the place of documents and files, in its order.
    pub(super) stand_ins: Vec<StoodIn>,
}

/// The place in a file of a document that does not say when it was made.
pub(super) fn undated_place(path: &Path, index: usize) -> Precedence {
    (true, None, path.to_owned(), index)
}

impl Told {
    /// Puts the problems of the documents in the file `path`, each with its place in the file, where among all `problems` those are
    /// that it had before. None of its documents is dated, nor was one.
    pub(super) fn replace_problems(
        &mut self,
        path: &Path,
        new: Vec<(usize, Vec<Problem>)>,
        problems: &mut Vec<Problem>,
    ) {
        let (first, last) = (undated_place(path, 0), undated_place(path, usize::MAX));
        let start = self.documents.partition_point(|(place, _)| *place < first);
        let end = start + self.documents[start..].partition_point(|(place, _)| *place <= last);
        let count =
            |documents: &[(Precedence, usize)]| documents.iter().map(|(_, count)| count).sum::<usize>();
        let from = self.before + count(&self.documents[..start]);
        let old = from..from + count(&self.documents[start..end]);
        let new: Vec<_> = new.into_iter().filter(|(_, problems)| !problems.is_empty()).collect();
        let places = new.iter().map(|(index, problems)| (undated_place(path, *index), problems.len()));
        self.documents.splice(start..end, places);
        problems.splice(old, new.into_iter().flat_map(|(_, problems)| problems));
    }

    /// Puts `new`, which stand in for documents in the file `path`, in the place of what stood in for these before.
    pub(super) fn replace_stand_ins(&mut self, path: &Path, new: Vec<StoodIn>) {
        self.stand_ins.retain(|((stage, place), _)| *stage == Stage::Unread || place.2 != path);
        for one in new {
            let at = self.stand_ins.partition_point(|(place, _)| *place <= one.0);
            self.stand_ins.insert(at, one);
        }
    }
}
