//! The last good version of every document, in memory and on disk.
//!
//! On disk, because a control plane that restarts beside a broken file must not forget the rules that
//! were in use. Documents are kept as text and read again: the text is the one stable format.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

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
}

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
    /// What `directory` holds of documents below `root`; nothing is kept on disk if it is `None`.
    pub(super) fn load(
        directory: Option<PathBuf>,
        root: &Path,
        default_namespace: &str,
    ) -> (Self, Vec<Problem>) {
        let mut documents = BTreeMap::new();
        let mut problems = Vec::new();
        for path in directory.as_deref().map(saved_files).unwrap_or_default() {
            match read_saved(&path, root, default_namespace) {
                Ok((name, kept)) => {
                    documents.insert(name, kept);
                }
                Err(why) => {
                    let message = format!("is not a saved document ({why}); remove it");
                    problems.push(Problem::with_path(Severity::Warning, &path, message));
                }
            }
        }
        (Self { directory, documents }, problems)
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
        let Some(directory) = &self.directory else { return Vec::new() };
        let save = || -> io::Result<()> {
            for (name, kept) in &self.documents {
                let unchanged = before.get(name).is_some_and(|old| old.is_same_text(kept));
                if !unchanged {
                    write_saved(directory, name, kept, root)?;
                }
            }
            for name in before.keys().filter(|name| !self.documents.contains_key(*name)) {
                match fs::remove_file(saved_path(directory, name)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            Ok(())
        };
        match save() {
            Ok(()) => Vec::new(),
            Err(error) => {
                let message = format!(
                    "the last good documents cannot be saved ({error}); after a restart, a broken file would have no last good version"
                );
                vec![Problem::with_path(Severity::Warning, directory, message)]
            }
        }
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

fn read_saved(
    path: &Path,
    root: &Path,
    default_namespace: &str,
) -> Result<(DocumentName, UsedDocument), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let saved: SavedDocument = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let source: Arc<Path> = Arc::from(root.join(&saved.path));
    let chunk =
        Chunk { text: Arc::from(saved.text), lines_before: saved.lines_before, first: saved.first_of_chunk };
    let documents = decode_chunk(&chunk, &source, default_namespace);
    let found = documents.into_iter().find(|document| document.index == saved.index);
    match found {
        Some(Decoded { outcome: DecodeOutcome::Understood(resource), .. }) => {
            Ok((resource.name().clone(), UsedDocument { resource, chunk }))
        }
        _ => Err("this version does not understand it".to_owned()),
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
