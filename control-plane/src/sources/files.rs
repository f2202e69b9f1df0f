//! The configuration files below a directory, as they are at this moment.
//!
//! Symbolic links are followed, because a ConfigMap's mount consists of them; hidden entries are not
//! looked into, because that mount keeps its versions in some; nor is a file system's `lost+found`, which only root
//! may read. A directory that was already visited
//! (a link to a parent, say) is not visited again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    ffi::{OsStr, OsString},
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Directories inside directories; more is a mistake or an attack.
const MAX_DEPTH: usize = 32;
/// One file's size in bytes. Kubernetes stops at 3 MiB for one object.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// A file that has changed less long ago than this before it was read may have changed again without a trace: its times have
/// grains.
const GRAIN: Duration = Duration::from_secs(2);

/// What was seen at the path of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FileState {
    /// Nothing.
    Gone,
    /// This text.
    Text(Arc<str>),
    /// A file that could not be read, and why.
    Unreadable(String),
}

/// All files of one moment.
#[derive(Debug, Default)]
pub(super) struct Scan {
    pub(super) files: BTreeMap<PathBuf, FileState>,
    /// Directories below the root that could not be read, and why.
    pub(super) unreadable: BTreeMap<PathBuf, String>,
    /// The directories in which a change may change any of it.
    pub(super) directories: BTreeMap<PathBuf, Holds>,
}

/// What of a directory counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holds {
    /// Whether its configuration files are read, and the directories below.
    pub(super) is_walked: bool,
    /// Files to which links lead that are read.
    pub(super) targets: BTreeSet<OsString>,
}

/// What was read before, so that of files that have not changed since only their times are read.
#[derive(Debug, Default)]
pub(super) struct Known(HashMap<PathBuf, (Stamp, Arc<str>)>);

/// What changes of a file when its text does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file changes its times with whatever changes at `now` or later.
    fn is_older_than(&self, now: SystemTime) -> bool {
        let Ok(now) = now.duration_since(UNIX_EPOCH) else { return false };
        u64::try_from(self.changed.0).is_ok_and(|changed| Duration::from_secs(changed) + GRAIN < now)
    }
}

/// Reads every configuration file below `root`; of those that `known` has and that have not changed since, their times.
///
/// # Errors
/// If `root` itself cannot be read.
pub(super) fn scan(root: &Path, known: &mut Known) -> io::Result<Scan> {
    let before = std::mem::take(known);
    let mut walk =
        DirectoryWalk { scan: Scan::default(), visited: HashSet::new(), before, known: Known::default() };
    walk.directory(root, 0)?;
    *known = walk.known;
    Ok(walk.scan)
}

struct DirectoryWalk {
    scan: Scan,
    /// Device and inode of every directory.
    visited: HashSet<(u64, u64)>,
    before: Known,
    known: Known,
}

impl DirectoryWalk {
    fn directory(&mut self, path: &Path, depth: usize) -> io::Result<()> {
        let metadata = fs::metadata(path)?;
        if !self.visited.insert((metadata.dev(), metadata.ino())) {
            return Ok(());
        }
        if depth > MAX_DEPTH {
            return Err(io::Error::other(format!("more than {MAX_DEPTH} directories deep")));
        }
        self.scan.directories.entry(path.to_owned()).or_default().is_walked = true;
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push((entry.path(), entry.file_type().is_ok_and(|kind| kind.is_symlink())));
        }
        entries.sort();
        for (entry, is_link) in entries {
            self.entry(entry, is_link, depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, is_link: bool, depth: usize) {
        let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".") || name == "lost+found";
        let hidden = path.file_name().is_some_and(hidden);
        if hidden {
            return;
        }
        let wanted = is_configuration(&path);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                if let Err(error) = self.directory(&path, depth + 1) {
                    self.scan.unreadable.insert(path, error.to_string());
                }
            }
            // A pipe or a socket would never end.
            Ok(metadata) if metadata.is_file() && wanted => {
                if is_link {
                    self.follow(&path);
                }
                let seen = self.file(&path, &metadata);
                self.scan.files.insert(path, seen);
            }
            // It may stand where a file was to be, as a masked one does.
            Ok(_) if wanted => {
                let why = "is neither a file nor a directory, so it is not read; replace it by a file";
                self.scan.files.insert(path, FileState::Unreadable(why.to_owned()));
            }
            Ok(_) => {}
            // What has gone meanwhile has no target to name; a link to nothing has.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Ok(target) = fs::read_link(&path) {
                    self.dangling(path, wanted, &target);
                }
            }
            Err(error) if wanted => {
                self.scan.files.insert(path, FileState::Unreadable(error.to_string()));
            }
            Err(error) => {
                self.scan.unreadable.insert(path, error.to_string());
            }
        }
    }

    /// A change of the file that `link` leads to is one of its directory.
    fn follow(&mut self, link: &Path) {
        let Ok(target) = link.canonicalize() else { return };
        if let (Some(directory), Some(name)) = (target.parent(), target.file_name()) {
            let holds = self.scan.directories.entry(directory.to_owned()).or_default();
            holds.targets.insert(name.to_owned());
        }
    }

    /// The text of the file at `path`, which has this `metadata`.
    fn file(&mut self, path: &Path, metadata: &fs::Metadata) -> FileState {
        let stamp = Stamp::of(metadata);
        let before = self.before.0.remove(path).filter(|(before, _)| *before == stamp);
        let now = SystemTime::now();
        let seen = match before {
            Some((_, text)) => FileState::Text(text),
            None => read(path),
        };
        if let FileState::Text(text) = &seen
            && stamp.is_older_than(now)
        {
            self.known.0.insert(path.to_owned(), (stamp, Arc::clone(text)));
        }
        seen
    }

    /// Notes a link to `target`, which is not there: a file that was wanted, or by its name maybe a directory.
    fn dangling(&mut self, path: PathBuf, wanted: bool, target: &Path) {
        let why = format!("links to {}, which does not exist; repair or remove the link", target.display());
        if wanted {
            self.scan.files.insert(path, FileState::Unreadable(why));
        } else if path.extension().is_none() {
            self.scan.unreadable.insert(path, why);
        }
    }
}

/// Whether a file of this name is read.
pub(super) fn is_configuration(path: &Path) -> bool {
    let is_wanted = |extension: &str| EXTENSIONS.iter().any(|wanted| wanted.eq_ignore_ascii_case(extension));
    path.extension().and_then(OsStr::to_str).is_some_and(is_wanted)
}

fn read(path: &Path) -> FileState {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_SIZE => {
            FileState::Unreadable(format!("is larger than {} MiB; split it", MAX_FILE_SIZE >> 20))
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => FileState::Text(Arc::from(text)),
            Err(_) => FileState::Unreadable("is not UTF-8 text".to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Gone,
        Err(error) => FileState::Unreadable(format!("cannot be read: {error}")),
    }
}
