//! The last good version of every document, in memory and on disk.
//!
//! On disk, because a control plane that restarts beside a broken file must not forget the rules that
//! were in use. Documents are kept as text and read again: the text is the one stable format.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::in_parallel;
use crate::{
    problem::{DocumentName, Problem, Severity},
    resources::{
        DecodeOutcome, Decoded, Resource,
        decode::{Chunk, decode_chunk},
    },
};

/// One document in use.
#[derive(Debug, Clone)]
pub(super) struct UsedDocument {
    pub(super) resource: Resource,
    /// The text that it stands in.
    pub(super) chunk: Chunk,
}

/// Every document in use, by name.
#[derive(Debug, Default)]
pub(super) struct LastGood {
    directory: Option<PathBuf>,
    documents: BTreeMap<DocumentName, UsedDocument>,
    /// Those of which the disk does not say what is in use, because that could not be written yet.
    unsaved: BTreeSet<DocumentName>,
    /// What an earlier run has saved, until it is taken up.
    saved: Vec<Saved>,
}

/// A saved file, and what it holds if it can be read.
type Saved = (PathBuf, Result<SavedDocument, String>);

/// A document as it is written to disk.
#[derive(Debug, Serialize, Deserialize)]
struct SavedDocument {
    /// The file that it came from, below the configuration directory.
    path: PathBuf,
    index: usize,
    lines_before: u64,
    first_of_chunk: usize,
    text: String,
}

impl LastGood {
    /// What `directory` holds, which is not in use yet; nothing is kept on disk if it is `None`.
    pub(super) fn open(directory: Option<PathBuf>) -> Self {
        let files = directory.as_deref().map(saved_files).unwrap_or_default();
        let saved = in_parallel(files, |path| {
            let saved = read_saved(&path);
            (path, saved)
        });
        Self { directory, documents: BTreeMap::new(), unsaved: BTreeSet::new(), saved }
    }

    /// Takes into use what was saved of documents below `root`. `there` is what now stands in a file, by its place: what says the
    /// same is not read a second time.
    pub(super) fn take_up<'d>(
        &mut self,
        root: &Path,
        default_namespace: &str,
        there: impl Fn(&Path, usize) -> Option<&'d Decoded> + Sync,
    ) -> Vec<Problem> {
        let read = |(path, saved): Saved| {
            let taken_up = saved.and_then(|saved| saved.take_up(root, default_namespace, &there));
            (path, taken_up)
        };
        let mut problems = Vec::new();
        for (path, taken_up) in in_parallel(std::mem::take(&mut self.saved), read) {
            match taken_up {
                Ok((name, used)) => {
                    self.documents.insert(name, used);
                }
                Err(why) => {
                    let message = format!("is not a saved document ({why}); remove it");
                    problems.push(Problem::with_path(Severity::Warning, &path, message));
                }
            }
        }
        problems
    }

    pub(super) fn find(&self, name: &DocumentName) -> Option<&UsedDocument> {
        self.documents.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&DocumentName, &UsedDocument)> {
        self.documents.iter()
    }

    /// Makes `documents` what is kept, in memory and on disk.
    pub(super) fn replace(
        &mut self,
        documents: BTreeMap<DocumentName, UsedDocument>,
        root: &Path,
    ) -> Vec<Problem> {
        let before = std::mem::replace(&mut self.documents, documents);
        let is_same = |name: &DocumentName, used: &UsedDocument| {
            before.get(name).is_some_and(|old| old.is_same_text(used))
        };
        let changed = self.documents.iter().filter(|(name, used)| !is_same(name, used)).map(|(name, _)| name);
        let gone = before.keys().filter(|name| !self.documents.contains_key(*name));
        self.unsaved.extend(changed.chain(gone).cloned());
        self.save(root)
    }

    /// Also keeps `documents`, or keeps them in the place of what they were, and no longer those that are `gone`.
    pub(super) fn change(
        &mut self,
        documents: Vec<(DocumentName, UsedDocument)>,
        gone: &[DocumentName],
        root: &Path,
    ) -> Vec<Problem> {
        for (name, used) in documents {
            if !self.documents.get(&name).is_some_and(|before| before.is_same_text(&used)) {
                self.unsaved.insert(name.clone());
            }
            self.documents.insert(name, used);
        }
        for name in gone {
            self.documents.remove(name);
            self.unsaved.insert(name.clone());
        }
        self.save(root)
    }

    /// Writes what the disk does not say yet, if documents are kept there. What cannot be written is tried again the next time:
    /// the disk may have been full.
    fn save(&mut self, root: &Path) -> Vec<Problem> {
        let Self { directory, documents, unsaved, .. } = self;
        let Some(directory) = directory.as_deref() else {
            unsaved.clear();
            return Vec::new();
        };
        let mut failed: Option<io::Error> = None;
        unsaved.retain(|name| {
            let saved = match documents.get(name) {
                Some(used) => write_saved(directory, name, used, root),
                None => remove_saved(directory, name),
            };
            let is_saved = saved.is_ok();
            failed = failed.take().or(saved.err());
            !is_saved
        });
        let Some(error) = failed else { return Vec::new() };
        let message = format!(
            "the last good documents cannot be saved ({error}); after a restart, a broken file would have no last good version"
        );
        vec![Problem::with_path(Severity::Warning, directory, message)]
    }
}

fn remove_saved(directory: &Path, name: &DocumentName) -> io::Result<()> {
    match fs::remove_file(saved_path(directory, name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl UsedDocument {
    fn is_same_text(&self, other: &Self) -> bool {
        let (ours, theirs) = (self.resource.location(), other.resource.location());
        self.chunk == other.chunk && ours.path == theirs.path && ours.index == theirs.index
    }
}

/// `<kind>/<namespace>/<name>`: names are Kubernetes object names, which are safe as file names.
fn saved_path(directory: &Path, name: &DocumentName) -> PathBuf {
    let namespace = if name.namespace.is_empty() { "cluster-wide" } else { &name.namespace };
    directory.join(&*name.kind).join(namespace).join(&*name.name)
}

fn saved_files(directory: &Path) -> Vec<PathBuf> {
    let below = |path: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let kinds = below(directory).into_iter().filter(|path| path.is_dir());
    let mut files: Vec<_> =
        kinds.flat_map(|kind| below(&kind)).flat_map(|namespace| below(&namespace)).collect();
    files.sort();
    files
}

fn read_saved(path: &Path) -> Result<SavedDocument, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

impl SavedDocument {
    fn take_up<'d>(
        self,
        root: &Path,
        default_namespace: &str,
        there: impl Fn(&Path, usize) -> Option<&'d Decoded>,
    ) -> Result<(DocumentName, UsedDocument), String> {
        let source = root.join(&self.path);
        if let Some(Decoded { outcome: DecodeOutcome::Understood(resource), chunk, .. }) =
            there(&source, self.index).filter(|there| self.is_text(&there.chunk))
        {
            return Ok((
                resource.name().clone(),
                UsedDocument { resource: resource.clone(), chunk: chunk.clone() },
            ));
        }
        let (lines_before, first) = (self.lines_before, self.first_of_chunk);
        let chunk = Chunk { text: Arc::from(self.text), lines_before, first };
        let documents = decode_chunk(&chunk, &Arc::from(source), default_namespace);
        let found = documents.into_iter().find(|document| document.index == self.index);
        match found {
            Some(Decoded { outcome: DecodeOutcome::Understood(resource), .. }) => {
                Ok((resource.name().clone(), UsedDocument { resource, chunk }))
            }
            _ => Err("this version does not understand it".to_owned()),
        }
    }

    fn is_text(&self, chunk: &Chunk) -> bool {
        let there = (chunk.lines_before, chunk.first);
        there == (self.lines_before, self.first_of_chunk) && *chunk.text == *self.text
    }
}

fn write_saved(directory: &Path, name: &DocumentName, kept: &UsedDocument, root: &Path) -> io::Result<()> {
    let location = kept.resource.location();
    let path = location.path.as_deref().unwrap_or(root);
    let saved = SavedDocument {
        path: path.strip_prefix(root).unwrap_or(path).to_owned(),
        index: location.index,
        lines_before: kept.chunk.lines_before,
        first_of_chunk: kept.chunk.first,
        text: kept.chunk.text.to_string(),
    };
    let path = saved_path(directory, name);
    let parent = path.parent().unwrap_or(directory);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let writing = directory.join(".writing");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&writing)?;
    file.write_all(&serde_json::to_vec(&saved)?)?;
    fs::rename(&writing, &path)
}
