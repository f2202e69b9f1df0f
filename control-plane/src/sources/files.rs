//! The configuration files below a directory, as they are at this moment: documents, and certificates with their keys, which
//! documents may name.
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

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use selvedge_certs::files::open_named;

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Of certificates and keys in PEM.
const OF_CERTIFICATES: [&str; 4] = ["pem", "crt", "cer", "key"];
/// Directories inside directories; more is a mistake or an attack.
const MAX_DEPTH: usize = 32;
/// One file's size in bytes. Kubernetes stops at 3 MiB for one object.
const MAX_FILE_SIZE: u64 = 16 << 20;

/// What all files have together, in bytes. A file may be sparse, so that very many large ones take no room on their disk.
const MOST_TEXT: u64 = if cfg!(test) { 3 * MAX_FILE_SIZE } else { 1 << 30 };
/// Files and directories below the root that may have to do with the configuration.
const MOST_ENTRIES: usize = if cfg!(test) { 100 } else { 1_000_000 };

/// Links on the way to one file, as for the kernel.
const MOST_LINKS: usize = 40;

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
    /// Whether a file may also change without a change in any of them.
    pub(super) has_unseen: bool,
}

/// What of a directory counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Holds {
    /// Whether its configuration files are read, and the directories below.
    pub(super) is_walked: bool,
    /// Links by which something is reached that is read, and files to which they lead.
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
    let mut walk = DirectoryWalk {
        // Where it cannot be told, no certificate is below it.
        root: fs::canonicalize(root).ok(),
        scan: Scan::default(),
        visited: HashSet::new(),
        room: (MOST_TEXT, MOST_ENTRIES),
        before,
        known: Known::default(),
    };
    walk.follow(root, End::TellsItself);
    walk.directory(root, 0)?;
    *known = walk.known;
    Ok(walk.scan)
}

/// There is more to what is at a path than a file's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOnlyFiles;

/// What is at each of `paths`, which are configuration files in directories that a scan has walked, and are no links on the
/// way to others.
///
/// # Errors
/// One of them is not just a file that only its own directory tells of, or its directory is not there.
pub(super) fn files_at(
    paths: BTreeSet<PathBuf>,
    known: &mut Known,
) -> Result<BTreeMap<PathBuf, FileState>, NotOnlyFiles> {
    let seen = |path: PathBuf| {
        // Where a certificate leads is for a scan to find out.
        if is_hidden(path.file_name()) || is_certificate(&path) {
            return Err(NotOnlyFiles);
        }
        let seen = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() && !has_other_ways(&path, &metadata) => {
                known.file(&path, &metadata)
            }
            // Where its directory is not there either, all of that may have another place, or be missing for a while.
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && path.parent().is_some_and(Path::is_dir) =>
            {
                FileState::Gone
            }
            _ => return Err(NotOnlyFiles),
        };
        Ok((path, seen))
    };
    paths.into_iter().map(seen).collect()
}

impl Known {
    /// The text of the file at `path`, which has this `metadata`.
    fn file(&mut self, path: &Path, metadata: &fs::Metadata) -> FileState {
        let stamp = Stamp::of(metadata);
        let before = self.0.remove(path).filter(|(before, _)| *before == stamp);
        let now = SystemTime::now();
        let seen = match before {
            Some((_, text)) => FileState::Text(text),
            None if is_too_large(metadata) => too_large(),
            None => read(path),
        };
        if let FileState::Text(text) = &seen
            && stamp.is_older_than(now)
        {
            self.0.insert(path.to_owned(), (stamp, Arc::clone(text)));
        }
        seen
    }
}

struct DirectoryWalk {
    /// Without links; `None`: nobody knows.
    root: Option<PathBuf>,
    scan: Scan,
    /// Device and inode of every directory.
    visited: HashSet<(u64, u64)>,
    /// How many bytes and entries there may still be.
    room: (u64, usize),
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
            let (path, kind) = (entry.path(), entry.file_type().ok());
            let is_other = kind.is_some_and(|kind| kind.is_file()) && !is_configuration(&path);
            if is_other || is_hidden(path.file_name()) {
                continue;
            }
            let Some(left) = self.room.1.checked_sub(1) else {
                return Err(io::Error::other(format!(
                    "with this directory there are more than {MOST_ENTRIES} files and directories; remove some, or divide them among \
                     control planes"
                )));
            };
            self.room.1 = left;
            entries.push((path, kind.is_some_and(|kind| kind.is_symlink())));
        }
        entries.sort();
        for (entry, is_link) in entries {
            self.entry(entry, is_link, depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, is_link: bool, depth: usize) {
        let wanted = is_configuration(&path);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                if is_link {
                    self.follow(&path, End::TellsItself);
                }
                if let Err(error) = self.directory(&path, depth + 1) {
                    self.scan.unreadable.insert(path, error.to_string());
                }
            }
            // A pipe or a socket would never end.
            Ok(metadata) if metadata.is_file() && wanted => {
                if is_link {
                    self.follow(&path, End::IsRead);
                }
                self.scan.has_unseen |= has_other_ways(&path, &metadata);
                let seen = match is_certificate(&path) && !self.is_inside(&path) {
                    true => FileState::Unreadable(
                        "leads out of the configuration directory, so it is not read; put it there itself"
                            .to_owned(),
                    ),
                    false if !self.has_room(&metadata) => FileState::Unreadable(format!(
                        "is left out: with it all files are larger than {} MiB together; remove some",
                        MOST_TEXT >> 20
                    )),
                    false => self.file(&path, &metadata),
                };
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
                    self.follow(&path, End::IsRead);
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

    /// Takes room for a file with this `metadata`; whether there was as much. One that is too large by itself is not read.
    fn has_room(&mut self, metadata: &fs::Metadata) -> bool {
        let needed = if is_too_large(metadata) { 0 } else { metadata.len() };
        let left = self.room.0.checked_sub(needed);
        self.room.0 = left.unwrap_or(self.room.0);
        left.is_some()
    }

    /// Whether the file at `path` is below the root, whatever links lead there.
    fn is_inside(&self, path: &Path) -> bool {
        let real = fs::canonicalize(path);
        self.root.as_deref().is_some_and(|root| real.is_ok_and(|real| real.starts_with(root)))
    }

    /// A change of what `path` leads to, or of a link on the way there, is one of the directory that has it.
    fn follow(&mut self, path: &Path, end: End) {
        let Ok(way) = way_to(path, end) else {
            self.scan.has_unseen = true;
            return;
        };
        for (directory, name) in way {
            self.scan.directories.entry(directory).or_default().targets.insert(name);
        }
    }

    /// The text of the file at `path`, which has this `metadata`.
    fn file(&mut self, path: &Path, metadata: &fs::Metadata) -> FileState {
        if let Some(before) = self.before.0.remove(path) {
            self.known.0.insert(path.to_owned(), before);
        }
        self.known.file(path, metadata)
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

/// What is at the end of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A file.
    IsRead,
    /// A directory that is looked into.
    TellsItself,
}

/// The links by which `path` is reached, each as a directory that is reached without any and a name in it; at the end what
/// is read, or what is not there.
fn way_to(path: &Path, end: End) -> io::Result<Vec<(PathBuf, OsString)>> {
    let steps = |path: &Path| path.components().map(|step| step.as_os_str().to_owned()).rev().collect();
    let mut here = PathBuf::new();
    let mut ahead: Vec<OsString> = steps(&std::path::absolute(path)?);
    let mut way = Vec::new();
    while let Some(name) = ahead.pop() {
        // The root replaces all before it.
        let next = here.join(&name);
        match fs::symlink_metadata(&next) {
            _ if name == ".." => {
                here.pop();
            }
            Ok(metadata) if metadata.is_symlink() => {
                if way.len() >= MOST_LINKS {
                    return Err(io::Error::other("too many links"));
                }
                ahead.extend::<Vec<OsString>>(steps(&fs::read_link(&next)?));
                way.push((here.clone(), name));
            }
            Ok(_) => {
                if ahead.is_empty() && end == End::IsRead {
                    way.push((here.clone(), name));
                }
                here = next;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                way.push((here, name));
                return Ok(way);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(way)
}

/// Whether the file at `path` may be written by a name that is not in a directory which tells of it: another hard link, or
/// the one by which it is mounted here.
fn has_other_ways(path: &Path, metadata: &fs::Metadata) -> bool {
    let is_mounted = || match statx(CWD, path, AtFlags::empty(), StatxFlags::empty()) {
        Ok(found) => found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        Err(_) => true,
    };
    metadata.nlink() > 1 || is_mounted()
}

/// Whether what has this name is not looked at, unless a link leads there.
pub(super) fn is_hidden(name: Option<&OsStr>) -> bool {
    let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".") || name == "lost+found";
    name.is_some_and(hidden)
}

/// Whether a file of this name is read.
pub(super) fn is_configuration(path: &Path) -> bool {
    has_one_of(path, &EXTENSIONS) || is_certificate(path)
}

/// Whether a file of this name holds certificates or a key, and no documents.
pub(super) fn is_certificate(path: &Path) -> bool {
    has_one_of(path, &OF_CERTIFICATES)
}

fn has_one_of(path: &Path, extensions: &[&str]) -> bool {
    let is_wanted = |extension: &str| extensions.iter().any(|wanted| wanted.eq_ignore_ascii_case(extension));
    path.extension().and_then(OsStr::to_str).is_some_and(is_wanted)
}

/// Whether a file has more than [`MAX_FILE_SIZE`], as far as it says how large it is.
fn is_too_large(metadata: &fs::Metadata) -> bool {
    metadata.len() > MAX_FILE_SIZE
}

fn too_large() -> FileState {
    FileState::Unreadable(format!("is larger than {} MiB; split it", MAX_FILE_SIZE >> 20))
}

fn read(path: &Path) -> FileState {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // A pipe may have come in its place meanwhile.
        open_named(path)?.take(MAX_FILE_SIZE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        // It may have grown meanwhile.
        Ok(bytes) if bytes.len() as u64 > MAX_FILE_SIZE => too_large(),
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => FileState::Text(Arc::from(text)),
            Err(_) => FileState::Unreadable("is not UTF-8 text".to_owned()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => FileState::Gone,
        Err(error) => FileState::Unreadable(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, mkfifoat};

    use super::*;

    /// Why files of these names below `root` are not read.
    fn unread(root: &Path) -> (BTreeMap<String, String>, Scan) {
        let scan = scan(root, &mut Known::default()).unwrap();
        let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
        let unread = scan.files.iter().filter_map(|(path, state)| match state {
            FileState::Unreadable(why) => Some((name(path), why.clone())),
            _ => None,
        });
        (unread.collect(), scan)
    }

    #[test]
    fn sparse_files_take_no_more_than_there_is_room_for() {
        let directory = tempfile::tempdir().unwrap();
        let sparse = |name: &str, size: u64| {
            let file = fs::File::create(directory.path().join(name)).unwrap();
            file.set_len(size).unwrap();
        };
        sparse("0.yaml", 1 << 40);
        for number in 1..=4 {
            sparse(&format!("{number}.yaml"), MAX_FILE_SIZE);
        }
        fs::write(directory.path().join("small.yaml"), "a: b").unwrap();

        let (unread, scan) = unread(directory.path());

        assert!(unread["0.yaml"].contains("larger than 16 MiB; split it"), "{unread:?}");
        assert!(unread["4.yaml"].contains("larger than 48 MiB together"), "{unread:?}");
        assert!(unread["small.yaml"].contains("is left out"), "{unread:?}");
        assert_eq!((unread.len(), scan.files.len()), (3, 6));
    }

    #[test]
    fn of_very_many_files_those_that_come_last_are_not_looked_at_and_others_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str| fs::write(directory.path().join(path), "a: b").unwrap();
        for number in 0..2 * MOST_ENTRIES {
            write(&format!("{number}.txt"));
        }
        write("a.yaml");
        for below in ["b", "c"] {
            fs::create_dir(directory.path().join(below)).unwrap();
            (0..MOST_ENTRIES / 2).for_each(|number| write(&format!("{below}/{number}.yaml")));
        }

        let (unread, scan) = unread(directory.path());

        assert_eq!((unread.len(), scan.files.len()), (0, 1 + MOST_ENTRIES / 2));
        let why = &scan.unreadable[&directory.path().join("c")];
        assert!(why.contains("more than 100 files and directories"), "{why}");
    }

    #[test]
    fn what_has_come_in_a_files_place_meanwhile_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe.yaml");
        mkfifoat(CWD, &pipe, Mode::RUSR).unwrap();

        let FileState::Unreadable(why) = read(&pipe) else { panic!("a pipe was read") };

        assert!(why.contains("replace it by a file"), "{why}");
    }
}
