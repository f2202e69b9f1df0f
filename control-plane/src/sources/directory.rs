//! Documents from a directory of YAML and JSON files, which is read again and again.
//!
//! A change counts once two readings in a row are equal, because a half-written YAML file often parses. A document that
//! fails keeps its last good version; a document that was deleted is gone. When the directory is read is up to
//! `follow`.

mod assembly;
mod named;
mod patch;
mod told;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Loaded,
    expressions::Budgets,
    files::{FileState, Holds, Known, NotOnlyFiles, Scan, files_at, is_certificate, scan},
    in_parallel,
    last_good::LastGood,
};
use crate::{
    problem::{DocumentName, Problem, Severity},
    resources::{DecodeOutcome, Decoded, Object, decode::decode_again, unusable},
};
use assembly::Assembly;
use named::{Filled, NamedFiles};
use patch::{Changes, Simplicity};
use told::{Stage, Told};

/// How a directory is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Time between two looks, where nothing tells of changes; and how long a change must stay as it is before it counts
    /// if its file is still being written, or has gone. Default 250 ms.
    pub poll_interval: Duration,
    /// The namespace of documents that do not name a namespace; default `default`.
    pub default_namespace: String,
    /// Where the last good version of every document is kept; `None` = in memory only.
    pub last_good: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(250),
            default_namespace: "default".to_owned(),
            last_good: None,
        }
    }
}

/// Why a directory yields nothing at all.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It does not exist, is not a directory, or may not be read.
    #[error("the configuration directory {path} cannot be read: {source}; create it or name another")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Everything that `root` holds now.
///
/// # Errors
/// If `root` cannot be read. What is wrong inside is in [`Loaded::problems`].
pub fn load(root: &Path, options: Options) -> Result<Arc<Loaded>, DirectoryError> {
    let mut directory = Directory::new(root, options);
    let scan = scan(root, &mut Known::default())
        .map_err(|source| DirectoryError::Unreadable { path: root.to_owned(), source })?;
    directory.apply(Ok(scan), Instant::now(), Patience::NONE);
    Ok(directory.loaded)
}

/// A directory that is being followed.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    options: Options,
    /// Whether it has been looked at.
    looked: bool,
    /// Whether the root could be read at least once.
    started: bool,
    files: BTreeMap<PathBuf, File>,
    /// Those that wait to count.
    waiting: BTreeSet<PathBuf>,
    /// What was read of them.
    known: Known,
    /// The directories in which a change may change what there is.
    directories: BTreeMap<PathBuf, Holds>,
    /// Whether a file may also change without a change in any of them.
    has_unseen: bool,
    /// When it is known whether what the last look saw counts; `None`: all of it does.
    due: Option<Instant>,
    /// What is wrong with the root or the directories below.
    unreadable: BTreeMap<PathBuf, String>,
    last_good: LastGood,
    last_good_problems: Vec<Problem>,
    /// The documents that name files, with what these hold.
    filled: Filled,
    expressions: Budgets,
    loaded: Arc<Loaded>,
    /// How `loaded` was put together.
    simplicity: Simplicity,
    /// What of it was told of single documents, and what stands in for those that cannot be used.
    told: Told,
}

/// One file, as it counts.
#[derive(Debug)]
struct File {
    counted: FileState,
    /// What the last look saw, if that does not count yet, and since when looks see it.
    pending: Option<(FileState, Instant)>,
    /// Whether it has made way for others since it counted last.
    has_waited: bool,
    documents: Vec<Decoded>,
}

/// Whether `document` says where a service is, and nothing of who may call it or how.
fn is_endpoints(document: &Decoded) -> bool {
    document.name.as_ref().is_some_and(|name| matches!(&*name.kind, "EndpointSlice" | "WorkloadEntry"))
}

impl File {
    /// Whether the last look did not see it any more, which does not count yet.
    fn is_going(&self) -> bool {
        matches!(self.pending, Some((FileState::Gone, _)))
    }
}

/// How a directory is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Every file is read.
    Whole,
    /// Files are read that have changed, as their times tell.
    Quick,
}

/// How long a change must stay as it is before it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Of a text.
    pub(super) with_text: Duration,
    /// Of all else, such as that a file has gone: some who write a file remove it first.
    pub(super) otherwise: Duration,
}

impl Patience {
    /// Two looks are enough.
    const NONE: Self = Self { with_text: Duration::ZERO, otherwise: Duration::ZERO };

    fn with(self, state: &FileState) -> Duration {
        match state {
            FileState::Text(_) => self.with_text,
            FileState::Gone | FileState::Unreadable(_) => self.otherwise,
        }
    }
}

/// A text from this size on makes way for smaller ones, in bytes.
const LARGE: usize = 64 << 10;
/// For how long, from when it would have counted: until what is smaller is compiled and sent.
const MAKES_WAY: Duration = Duration::from_millis(100);

/// Documents with a time come first, oldest first; then by file and place.
type Precedence = (bool, Option<OffsetDateTime>, PathBuf, usize);

impl Directory {
    /// The directory `root`, not yet looked at.
    pub fn new(root: &Path, options: Options) -> Self {
        let last_good = LastGood::open(options.last_good.clone());
        Self {
            root: root.to_owned(),
            options,
            looked: false,
            started: false,
            files: BTreeMap::new(),
            waiting: BTreeSet::new(),
            known: Known::default(),
            directories: BTreeMap::from([(root.to_owned(), Holds { is_walked: true, ..Holds::default() })]),
            has_unseen: false,
            due: None,
            unreadable: BTreeMap::new(),
            last_good,
            last_good_problems: Vec::new(),
            filled: Filled::default(),
            expressions: Budgets::default(),
            loaded: Arc::new(Loaded::default()),
            simplicity: Simplicity::default(),
            told: Told::default(),
        }
    }

    /// Looks once; all there is if anything changed, which the first look always does.
    pub fn poll(&mut self) -> Option<Arc<Loaded>> {
        self.look(Look::Whole, Patience::NONE)
    }

    pub(super) fn look(&mut self, look: Look, patience: Patience) -> Option<Arc<Loaded>> {
        let now = Instant::now();
        if look == Look::Whole {
            self.known = Known::default();
        }
        let scan = scan(&self.root, &mut self.known);
        self.apply(scan, now, patience).then(|| Arc::clone(&self.loaded))
    }

    /// Looks at the files at `paths` alone, which are in directories that the last look saw, and at those that wait to count. All
    /// there is if anything changed.
    ///
    /// # Errors
    /// There is something else than a file there, so that all there is must be looked at.
    pub(super) fn look_at(
        &mut self,
        mut paths: BTreeSet<PathBuf>,
        patience: Patience,
    ) -> Result<Option<Arc<Loaded>>, NotOnlyFiles> {
        let now = Instant::now();
        paths.extend(self.waiting.iter().cloned());
        let files = files_at(paths, &mut self.known)?;
        self.due = None;
        let mut changes = Changes::default();
        self.count_files(files.into_iter(), (now, patience), &mut changes);
        Ok(self.take_over(&changes).then(|| Arc::clone(&self.loaded)))
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The directories in which a change may change what there is, as the last look saw them.
    pub(super) fn directories(&self) -> &BTreeMap<PathBuf, Holds> {
        &self.directories
    }

    /// When the next look may make something count that the last one saw; `None`: there is no such thing.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether all that can change what there is changes one of these directories, as far as the last look could read it.
    pub(super) fn is_told_by_directories(&self) -> bool {
        self.unreadable.is_empty() && !self.has_unseen
    }

    fn apply(&mut self, scan: io::Result<Scan>, now: Instant, patience: Patience) -> bool {
        let first = !std::mem::replace(&mut self.looked, true);
        self.due = None;
        let mut changes = Changes { is_more: first, ..Changes::default() };
        match scan {
            Ok(scan) => self.count(scan, now, patience, &mut changes),
            Err(error) => {
                let why = format!("the configuration directory cannot be read ({error}); nothing is changed");
                let unreadable = BTreeMap::from([(self.root.clone(), why)]);
                let before = std::mem::replace(&mut self.unreadable, unreadable.clone());
                changes.is_more |= before != unreadable;
            }
        }
        if first {
            let files = &self.files;
            let there = |path: &Path, place: usize| files.get(path)?.documents.get(place);
            self.last_good_problems =
                self.last_good.take_up(&self.root, &self.options.default_namespace, there);
        }
        self.take_over(&changes)
    }

    /// Takes `changes` into use; whether there are any.
    fn take_over(&mut self, changes: &Changes) -> bool {
        let any = changes.any();
        if any && !self.patch(changes) {
            self.assemble();
        }
        any
    }

    /// Takes over what `scan` saw, as far as it counts.
    fn count(&mut self, mut scan: Scan, now: Instant, patience: Patience, changes: &mut Changes) {
        let at_once = !self.started;
        self.started = true;
        self.directories = std::mem::take(&mut scan.directories);
        self.has_unseen = scan.has_unseen;
        let unreadable = std::mem::take(&mut scan.unreadable);
        changes.is_more |= self.unreadable != unreadable;
        let is_gone = |path: &Path| {
            let is_out_of_sight = || unreadable.keys().any(|directory| path.starts_with(directory));
            !scan.files.contains_key(path) && !is_out_of_sight()
        };
        let gone: Vec<PathBuf> = self.files.keys().filter(|path| is_gone(path)).cloned().collect();
        if at_once {
            self.count_all(scan.files);
            changes.is_more = true;
        } else {
            let gone = gone.into_iter().map(|path| (path, FileState::Gone));
            self.count_files(scan.files.into_iter().chain(gone), (now, patience), changes);
        }
        self.unreadable = unreadable;
    }

    /// Takes over all files of the first scan.
    fn count_all(&mut self, files: BTreeMap<PathBuf, FileState>) {
        let namespace = &self.options.default_namespace;
        let read = |(path, counted): (PathBuf, FileState)| {
            let documents = match &counted {
                FileState::Text(text) if !is_certificate(&path) => {
                    decode_again(text, &Arc::from(&*path), namespace, Vec::new())
                }
                _ => Vec::new(),
            };
            (path, File { counted, pending: None, has_waited: false, documents })
        };
        let there = files.into_iter().filter(|(_, seen)| *seen != FileState::Gone).collect();
        self.files = in_parallel(there, read).into_iter().collect();
    }

    /// Takes over what was seen of `files`. Where small ones are others in what they say and nothing else, large ones count a moment
    /// later: to read what has become of ten thousand endpoints, and to compile it, takes a hundred times as long.
    fn count_files(
        &mut self,
        files: impl Iterator<Item = (PathBuf, FileState)>,
        (now, patience): (Instant, Patience),
        changes: &mut Changes,
    ) {
        let is_large = |(_, seen): &(PathBuf, FileState)| match seen {
            FileState::Text(text) => text.len() >= LARGE,
            FileState::Gone | FileState::Unreadable(_) => false,
        };
        let (large, small): (Vec<_>, Vec<_>) = files.partition(is_large);
        for (path, seen) in small {
            self.count_file(&path, seen, (now, patience), changes);
        }
        // A document that moves from one file to another is in one of them all the time: then both count together.
        let are_apart = changes.any() && changes.keep_places(|path| Some(&*self.files.get(path)?.documents));
        for (path, seen) in large {
            if !(are_apart && self.makes_way(&path, &seen, (now, patience))) {
                self.count_file(&path, seen, (now, patience), changes);
            }
        }
    }

    /// Has the file at `path`, which would count now, wait once for a moment; whether it does.
    fn makes_way(&mut self, path: &Path, seen: &FileState, (now, patience): (Instant, Patience)) -> bool {
        let Some(file) = self.files.get_mut(path) else { return false };
        let Some((pending, since)) = &mut file.pending else { return false };
        let long_enough = patience.with(seen);
        // Not where it might take over a rule that a small file gives up: the two would be apart.
        if !file.documents.iter().all(is_endpoints) {
            return false;
        }
        if file.has_waited || *pending != *seen || now.duration_since(*since) < long_enough {
            return false;
        }
        let due = now + MAKES_WAY;
        (*since, file.has_waited) = (due.checked_sub(long_enough).unwrap_or(now), true);
        self.due = Some(self.due.map_or(due, |first| first.min(due)));
        true
    }

    fn count_file(
        &mut self,
        path: &Path,
        seen: FileState,
        (now, patience): (Instant, Patience),
        changes: &mut Changes,
    ) {
        if let Some(file) = self.files.get_mut(path)
            && file.pending.is_none()
            && file.counted == seen
        {
            // Its text is held once, here and among what is known.
            file.counted = seen;
            return;
        }
        let fresh =
            || File { counted: FileState::Gone, pending: None, has_waited: false, documents: Vec::new() };
        let file = self.files.entry(path.to_owned()).or_insert_with(fresh);
        let was_going = file.is_going();
        let since = match file.pending.take() {
            Some((pending, since)) if pending == seen => Some(since),
            _ => None,
        };
        let long_enough = patience.with(&seen);
        let waited = since.and_then(|since| now.checked_duration_since(since));
        let counts = waited.is_some_and(|waited| waited >= long_enough);
        if file.counted == seen {
            file.counted = seen;
            file.has_waited = false;
            // What was found elsewhere meanwhile was taken for its documents, which had moved.
            changes.is_more |= was_going && self.simplicity.has_going;
        } else if counts {
            let is_text = matches!((&file.counted, &seen), (FileState::Text(_), FileState::Text(_)));
            let before = match &seen {
                FileState::Text(text) if !is_certificate(path) => {
                    let (before, namespace) = (file.documents.clone(), &self.options.default_namespace);
                    let known = std::mem::take(&mut file.documents);
                    file.documents = decode_again(text, &Arc::from(path), namespace, known);
                    Some(before).filter(|_| is_text)
                }
                _ => None,
            };
            (file.counted, file.has_waited) = (seen, false);
            match before {
                Some(before) => changes.texts.push((path.to_owned(), before)),
                None => changes.is_more = true,
            }
        } else {
            let since = since.unwrap_or(now);
            let due = since + long_enough;
            self.due = Some(self.due.map_or(due, |first| first.min(due)));
            file.pending = Some((seen, since));
        }
        let (waits, is_gone) = (file.pending.is_some(), file.counted == FileState::Gone);
        match waits {
            true => drop(self.waiting.insert(path.to_owned())),
            false => drop(self.waiting.remove(path)),
        }
        if is_gone && !waits {
            self.files.remove(path);
        }
    }

    /// Whether the last look did not see a file any more, which does not count yet.
    fn has_going(&self) -> bool {
        self.waiting.iter().any(|path| self.files.get(path).is_some_and(File::is_going))
    }

    /// Puts together what is in use now, from what counts and from last good versions.
    fn assemble(&mut self) {
        let filled = RefCell::default();
        let files = NamedFiles { root: &self.root, files: &self.files, before: &self.filled, now: &filled };
        let mut whole = Assembly::new(&self.last_good, files);
        let mut unread: Vec<(&Path, &str)> =
            self.unreadable.iter().map(|(path, why)| (path.as_path(), why.as_str())).collect();
        let mut documents: Vec<(Precedence, &Decoded)> = Vec::new();
        let elsewhere = self.elsewhere();
        for (path, file) in &self.files {
            let has_moved = |name: &DocumentName| file.is_going() && elsewhere.contains(name);
            let there = file.documents.iter().filter(|one| !one.name.as_ref().is_some_and(has_moved));
            documents.extend(there.map(|document| (self.place(path, document), document)));
            match &file.counted {
                // Whoever names it is told what is wrong.
                _ if is_certificate(path) => {}
                FileState::Unreadable(why) => unread.push((path, why)),
                FileState::Text(_) if file.documents.is_empty() => {
                    let message = "has no document, so it has no effect; remove it, or restore its content";
                    whole.problems.push(Problem::with_path(Severity::Warning, path, message));
                }
                FileState::Text(_) | FileState::Gone => {}
            }
        }
        documents.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Of several of one name, the first counts.
        let mut objects: Vec<Object> = Vec::new();
        let mut met: BTreeSet<&DocumentName> = BTreeSet::new();
        whole.told.before = whole.problems.len();
        for (place, document) in documents {
            if let Some(object) = document.object.as_ref().filter(|object| met.insert(&object.name)) {
                objects.push(object.clone());
            }
            if !document.problems.is_empty() {
                whole.told.documents.push((place.clone(), document.problems.len()));
            }
            whole.add(place, document);
        }
        whole.keep_unnamed();
        whole.has_lost |= !unread.is_empty();
        for (path, why) in unread {
            whole.problems.push(Problem::with_path(Severity::Error, path, why));
            // Of what was never read nobody knows whether it holds a policy. Without the root there is no mesh at all.
            whole.keep_below(path);
            if !whole.holds_below(path) && path != self.root {
                let [first, others @ ..] = unusable::of_path(path);
                let place = (Stage::Unread, (true, None, path.to_owned(), 0));
                whole.stand_in(whole.problems.len() - 1, first, place.clone());
                let others = others.map(|other| (place.clone(), other.resource));
                whole.told.stand_ins.extend(others);
            }
        }
        let mut simplicity = Simplicity {
            has_namesakes: whole.has_namesakes,
            has_lost: whole.has_lost,
            has_going: self.has_going(),
            is_unsaved: false,
        };
        let (mut resources, mut problems, told, kept) = whole.finish();
        let before = problems.len();
        self.filled = filled.into_inner();
        self.expressions.apply(&mut resources, &mut problems);
        // Until the root has been read once, nothing says that a saved document is gone.
        simplicity.has_lost |= !self.started || problems.len() > before;
        if self.started {
            let unsaved = self.last_good.replace(kept, &self.root);
            simplicity.is_unsaved = !unsaved.is_empty();
            problems.extend(unsaved);
        }
        (self.simplicity, self.told) = (simplicity, told);
        problems.append(&mut self.last_good_problems.clone());
        self.loaded = Arc::new(Loaded { resources, problems, objects: Arc::new(objects) });
    }

    /// What is in files that are there, if others seem to have gone. A document that is in both has moved: it is not two of one
    /// name until the old file counts as gone.
    fn elsewhere(&self) -> BTreeSet<&DocumentName> {
        if !self.has_going() {
            return BTreeSet::new();
        }
        let staying = self.files.values().filter(|file| !file.is_going());
        staying.flat_map(|file| &file.documents).filter_map(|document| document.name.as_ref()).collect()
    }

    fn place(&self, path: &Path, document: &Decoded) -> Precedence {
        let created = match &document.outcome {
            DecodeOutcome::Understood(resource) => resource.metadata().created,
            DecodeOutcome::Failed => {
                let kept = document.name.as_ref().and_then(|name| self.last_good.find(name));
                kept.and_then(|kept| kept.resource.metadata().created)
            }
            DecodeOutcome::NotActedOn => None,
        };
        (created.is_none(), created, path.to_owned(), document.index)
    }
}
