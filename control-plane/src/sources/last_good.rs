//! The last good version of every document, in memory and on disk.
//!
//! On disk, because a control plane that restarts beside a broken file must not forget the rules that
//! were in use. Documents are kept as text and read again: the text is the one stable format. The text of a list is kept
//! once for all of its documents.

mod texts;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
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
use texts::SharedTexts;

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
    /// Of saved documents, the shared text that they stand in.
    in_texts: HashMap<DocumentName, Arc<str>>,
    texts: SharedTexts,
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
    /// The text that it stands in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// What that is called, if others stand in it, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shared_text: Option<Arc<str>>,
}

/// A part of a file that was saved, with the documents that stand in it.
struct SavedPart {
    source: PathBuf,
    chunk: Chunk,
    shared_text: Option<Arc<str>>,
    /// Where each is saved, and its place in the file.
    documents: Vec<(PathBuf, usize)>,
}

/// What is to be in use of a saved document.
type TakenUp = Result<(DocumentName, UsedDocument), String>;

impl LastGood {
    /// What `directory` holds, which is not in use yet; nothing is kept on disk if it is `None`.
    pub(super) fn open(directory: Option<PathBuf>) -> Self {
        let files = directory.as_deref().map(saved_files).unwrap_or_default();
        let saved = in_parallel(files, |path| {
            let saved = read_saved(&path);
            (path, saved)
        });
        Self { directory, saved, ..Self::default() }
    }

    /// Takes into use what was saved of documents below `root`. `there` is what now stands in a file, by its place: what says the
    /// same is not read a second time.
    pub(super) fn take_up<'d>(
        &mut self,
        root: &Path,
        default_namespace: &str,
        there: impl Fn(&Path, usize) -> Option<&'d Decoded> + Sync,
    ) -> Vec<Problem> {
        let (parts, mut failed) = self.saved_parts(root);
        let are_all_read = failed.is_empty();
        let read = |part: SavedPart| (part.shared_text.clone(), part.take_up(default_namespace, &there));
        for (shared_text, documents) in in_parallel(parts, read) {
            for (path, taken_up) in documents {
                match taken_up {
                    Ok((name, used)) => {
                        if let Some(text) = &shared_text {
                            self.texts.name(text);
                            self.in_texts.insert(name.clone(), Arc::clone(text));
                        }
                        self.documents.insert(name, used);
                    }
                    Err(why) => {
                        // Its file still names the text, and another version may understand it.
                        shared_text.iter().for_each(|text| self.texts.name(text));
                        failed.push((path, why));
                    }
                }
            }
        }
        // Of what could not be read nobody knows which text it stands in.
        if let Some(directory) = self.directory.as_deref().filter(|_| are_all_read) {
            self.texts.remove_unknown(directory);
        }
        failed.sort();
        let problem = |(path, why): (PathBuf, String)| {
            let message = format!("is not a saved document ({why}); remove it");
            Problem::with_path(Severity::Warning, &path, message)
        };
        failed.into_iter().map(problem).collect()
    }

    /// What was saved, by the parts of files that it stands in; and which of it cannot be read.
    fn saved_parts(&mut self, root: &Path) -> (Vec<SavedPart>, Vec<(PathBuf, String)>) {
        let (mut parts, mut failed) = (Vec::<SavedPart>::new(), Vec::new());
        let mut texts = HashMap::<Arc<str>, Result<Arc<str>, String>>::new();
        let mut places = HashMap::new();
        let directory = self.directory.as_deref().unwrap_or(root);
        for (path, saved) in std::mem::take(&mut self.saved) {
            let read = saved.and_then(|saved| {
                let text = match (&saved.text, &saved.shared_text) {
                    (Some(text), _) => Arc::from(text.as_str()),
                    (None, Some(name)) => {
                        let text =
                            texts.entry(Arc::clone(name)).or_insert_with(|| texts::read(directory, name));
                        text.clone()?
                    }
                    (None, None) => return Err("it has no text".to_owned()),
                };
                Ok((saved, text))
            });
            let (saved, text) = match read {
                Ok(read) => read,
                Err(why) => {
                    failed.push((path, why));
                    continue;
                }
            };
            let SavedDocument {
                path: source, index, lines_before, first_of_chunk: first, shared_text, ..
            } = saved;
            let new = parts.len();
            let place = match &shared_text {
                Some(name) => {
                    let part = (Arc::clone(name), source.clone(), lines_before, first);
                    *places.entry(part).or_insert(new)
                }
                None => new,
            };
            if place == new {
                let chunk = Chunk { text, lines_before, first };
                let documents = Vec::new();
                parts.push(SavedPart { source: root.join(source), chunk, shared_text, documents });
            }
            parts[place].documents.push((path, index));
        }
        (parts, failed)
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
    /// the disk may have been full. While it is, one document is tried each time, however many wait.
    fn save(&mut self, root: &Path) -> Vec<Problem> {
        let Self { directory, documents, unsaved, in_texts, texts, .. } = self;
        let Some(directory) = directory.as_deref() else {
            unsaved.clear();
            return Vec::new();
        };
        let shared = shared_texts(unsaved.iter().filter_map(|name| documents.get(name)));
        let mut failed: Option<io::Error> = None;
        let mut is_full = false;
        unsaved.retain(|name| {
            let used = documents.get(name);
            // What goes makes room, and needs none.
            if is_full && used.is_some() {
                return true;
            }
            let text = used.and_then(|used| shared.get(&Arc::as_ptr(&used.chunk.text)));
            let saved = match used {
                Some(used) => save_document(directory, name, used, (text, &mut *texts), root),
                None => remove_saved(directory, name),
            };
            is_full = saved.as_ref().is_err_and(has_no_room);
            let is_saved = saved.is_ok();
            if is_saved {
                text.into_iter().for_each(|text| texts.name(text));
                let before = match text {
                    Some(text) => in_texts.insert(name.clone(), Arc::clone(text)),
                    None => in_texts.remove(name),
                };
                before.iter().for_each(|before| texts.unname(before));
            }
            failed = failed.take().or(saved.err());
            !is_saved
        });
        texts.remove_unused(directory);
        let Some(error) = failed else { return Vec::new() };
        let message = format!(
            "the last good documents cannot be saved ({error}); after a restart, a broken file would have no last good version"
        );
        vec![Problem::with_path(Severity::Warning, directory, message)]
    }
}

/// Whether `error` is that of a disk on which there is no room.
fn has_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
    // Beside the kinds there are the shared texts.
    let is_hidden =
        |path: &Path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    let kinds = below(directory).into_iter().filter(|path| path.is_dir() && !is_hidden(path));
    let mut files: Vec<_> =
        kinds.flat_map(|kind| below(&kind)).flat_map(|namespace| below(&namespace)).collect();
    // Any order that is always the same; paths by their parts take ten times as long to compare.
    files.sort_unstable_by(|one, other| one.as_os_str().cmp(other.as_os_str()));
    files
}

fn read_saved(path: &Path) -> Result<SavedDocument, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

impl SavedPart {
    fn take_up<'d>(
        mut self,
        default_namespace: &str,
        there: impl Fn(&Path, usize) -> Option<&'d Decoded>,
    ) -> Vec<(PathBuf, TakenUp)> {
        let source: Arc<Path> = Arc::from(&*self.source);
        let mut read: Option<Vec<Decoded>> = None;
        let each = std::mem::take(&mut self.documents).into_iter().map(|(path, index)| {
            if let Some(Decoded { outcome: DecodeOutcome::Understood(resource), chunk, .. }) =
                there(&source, index).filter(|there| there.chunk == self.chunk)
            {
                // From now on they are the same in memory, and the next are compared at once.
                self.chunk = chunk.clone();
                let used = UsedDocument { resource: resource.clone(), chunk: chunk.clone() };
                return (path, Ok((resource.name().clone(), used)));
            }
            let read = read.get_or_insert_with(|| decode_chunk(&self.chunk, &source, default_namespace));
            let taken_up = match read.iter().find(|document| document.index == index) {
                Some(Decoded { outcome: DecodeOutcome::Understood(resource), .. }) => {
                    let used = UsedDocument { resource: resource.clone(), chunk: self.chunk.clone() };
                    Ok((resource.name().clone(), used))
                }
                _ => Err("this version does not understand it".to_owned()),
            };
            (path, taken_up)
        });
        each.collect()
    }
}

/// What the texts are called in which more than one of `documents` stand, by where they are in memory.
fn shared_texts<'d>(documents: impl Iterator<Item = &'d UsedDocument>) -> HashMap<*const str, Arc<str>> {
    let mut counts = HashMap::<*const str, (usize, &str)>::new();
    for used in documents {
        let text = &used.chunk.text;
        counts.entry(Arc::as_ptr(text)).or_insert((0, &**text)).0 += 1;
    }
    let shared = counts.into_iter().filter(|(_, (count, _))| *count > 1);
    shared.map(|(place, (_, text))| (place, texts::name_of(text))).collect()
}

/// Writes one document; and first the text that it stands in, if others do so, too.
fn save_document(
    directory: &Path,
    name: &DocumentName,
    kept: &UsedDocument,
    (shared_text, texts): (Option<&Arc<str>>, &mut SharedTexts),
    root: &Path,
) -> io::Result<()> {
    if let Some(shared_text) = shared_text {
        texts.write(directory, shared_text, &kept.chunk.text)?;
    }
    let location = kept.resource.location();
    let path = location.path.as_deref().unwrap_or(root);
    let saved = SavedDocument {
        path: path.strip_prefix(root).unwrap_or(path).to_owned(),
        index: location.index,
        lines_before: kept.chunk.lines_before,
        first_of_chunk: kept.chunk.first,
        text: shared_text.is_none().then(|| kept.chunk.text.to_string()),
        shared_text: shared_text.cloned(),
    };
    write_private(directory, &saved_path(directory, name), &serde_json::to_vec(&saved)?)
}

/// Writes `contents` to `path`, which is below `directory`, so that nobody else can read it, and nobody ever reads half of it.
fn write_private(directory: &Path, path: &Path, contents: &[u8]) -> io::Result<()> {
    let parent = path.parent().unwrap_or(directory);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let writing = directory.join(".writing");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&writing)?;
    file.write_all(contents)?;
    fs::rename(&writing, path)
}
