//! The configuration files below a directory, as they are at this moment.
//!
//! Symbolic links are followed, because a ConfigMap's mount consists of them; hidden entries are not
//! looked into, because that mount keeps its versions in some; nor is a file system's `lost+found`, which only root
//! may read. A directory that was already visited
//! (a link to a parent, say) is not visited again.

use std::{
    collections::{BTreeMap, HashSet},
    ffi::OsStr,
    fs, io,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Directories inside directories; more is a mistake or an attack.
const MAX_DEPTH: usize = 32;
/// One file's size in bytes. Kubernetes stops at 3 MiB for one object.
const MAX_FILE_SIZE: u64 = 16 << 20;

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
}

/// Reads every configuration file below `root`.
///
/// # Errors
/// If `root` itself cannot be read.
pub(super) fn scan(root: &Path) -> io::Result<Scan> {
    let mut walk = DirectoryWalk { scan: Scan::default(), visited: HashSet::new() };
    walk.directory(root, 0)?;
    Ok(walk.scan)
}

struct DirectoryWalk {
    scan: Scan,
    /// Device and inode of every directory.
    visited: HashSet<(u64, u64)>,
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
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            entries.push(entry?.path());
        }
        entries.sort();
        for entry in entries {
            self.entry(entry, depth);
        }
        Ok(())
    }

    fn entry(&mut self, path: PathBuf, depth: usize) {
        let hidden = |name: &OsStr| name.as_encoded_bytes().starts_with(b".") || name == "lost+found";
        let hidden = path.file_name().is_some_and(hidden);
        if hidden {
            return;
        }
        let wanted = path.extension().and_then(OsStr::to_str).is_some_and(is_wanted);
        match fs::metadata(&path) {
            Ok(metadata) if metadata.is_dir() => {
                if let Err(error) = self.directory(&path, depth + 1) {
                    self.scan.unreadable.insert(path, error.to_string());
                }
            }
            // A pipe or a socket would never end.
            Ok(metadata) if metadata.is_file() && wanted => {
                let seen = read(&path);
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

fn is_wanted(extension: &str) -> bool {
    EXTENSIONS.iter().any(|wanted| wanted.eq_ignore_ascii_case(extension))
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
