//! What the kernel tells of changes in directories (inotify), so that they are looked at as soon as something has changed.
//!
//! Nothing rests on it alone. A file system of another machine tells of no change that is made there, a queue may overflow,
//! and the kernel follows only so many directories: whoever asks here also looks again and again.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    ffi::OsStr,
    io,
    mem::MaybeUninit,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags},
        statfs,
    },
    io::Errno,
};
use tokio::net::unix::pipe;

use super::files::{Holds, is_configuration, is_hidden};

/// File systems that tell of every change, as `statfs` calls them: ext, XFS, Btrfs, tmpfs, ramfs, overlay, F2FS, ZFS and
/// bcachefs.
const LOCAL: [i64; 9] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0x0102_1994,
    0x8584_58F6,
    0x794C_7630,
    0xF2F5_2010,
    0x2FC1_2FC1,
    0xCA45_1A4E,
];

/// What has another name.
const MOVED: ReadFlags = ReadFlags::MOVED_FROM.union(ReadFlags::MOVED_TO);

/// One event has at most 16 bytes, a name of 255 bytes, and what aligns it.
const BUFFER: usize = 16 << 10;

/// Of directories that are followed, what has changed.
#[derive(Debug)]
pub(super) struct Notices {
    /// For Tokio it is a pipe: something of which the kernel tells when it can be read.
    queue: pipe::Receiver,
    /// By what the kernel calls it.
    followed: HashMap<i32, Followed>,
    /// Files that somebody has begun to write and not closed, and when the last of it was written.
    open: BTreeMap<PathBuf, Instant>,
}

/// A directory that is followed.
#[derive(Debug)]
struct Followed {
    path: PathBuf,
    holds: Holds,
    /// Whether it has no other path here.
    has_one_path: bool,
}

/// Whether the kernel tells of all changes in what is to be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Following {
    /// Of all.
    All,
    /// The same, and something is followed only now: what has changed before that was not told.
    AllFromNow,
    /// Not of all: some of it cannot be followed, or is on a file system that does not tell.
    Partly,
}

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Noticed {
    /// Files that may be others now. No other path leads to them, and none leads on from them.
    pub(super) files: BTreeSet<PathBuf>,
    /// Whether there is more that can be of interest.
    pub(super) is_more: bool,
    /// Whether some of it was lost.
    pub(super) is_lossy: bool,
}

impl Notices {
    /// Without anything that is followed.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub(super) fn open() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let queue = pipe::Receiver::from_owned_fd_unchecked(queue)?;
        Ok(Self { queue, followed: HashMap::new(), open: BTreeMap::new() })
    }

    /// Follows these `directories` and no others. It is asked before they are read.
    ///
    /// # Errors
    /// If the kernel follows no more.
    pub(super) fn follow(&mut self, directories: &BTreeMap<PathBuf, Holds>) -> io::Result<Following> {
        let mask = WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut wanted = HashMap::<i32, Followed>::new();
        let mut following = Following::All;
        for (directory, holds) in directories {
            match inotify::add_watch(&self.queue, directory, mask) {
                Ok(watch) => {
                    if !self.followed.contains_key(&watch) && following == Following::All {
                        following = Following::AllFromNow;
                    }
                    match wanted.entry(watch) {
                        Entry::Vacant(entry) => {
                            let (path, holds) = (directory.clone(), holds.clone());
                            entry.insert(Followed { path, holds, has_one_path: true });
                        }
                        Entry::Occupied(mut entry) => {
                            let Followed { holds: all, has_one_path, .. } = entry.get_mut();
                            *has_one_path = false;
                            all.is_walked |= holds.is_walked;
                            all.targets.extend(holds.targets.iter().cloned());
                        }
                    }
                }
                Err(full @ (Errno::NOSPC | Errno::NOMEM)) => return Err(full.into()),
                // It has gone, or may not be read.
                Err(_) => following = Following::Partly,
            }
            if !statfs(directory).is_ok_and(|found| LOCAL.contains(&found.f_type)) {
                following = Following::Partly;
            }
        }
        for watch in self.followed.keys().filter(|watch| !wanted.contains_key(watch)) {
            // Of one that is gone there is no watch any more.
            let _ = inotify::remove_watch(&self.queue, *watch);
        }
        self.followed = wanted;
        self.open.retain(|file, _| file.parent().is_some_and(|parent| directories.contains_key(parent)));
        Ok(following)
    }

    /// Whether somebody is writing a file, and has written some of it within the last `while_ago`.
    pub(super) fn is_being_written(&self, while_ago: Duration) -> bool {
        self.open.values().any(|written| written.elapsed() < while_ago)
    }

    /// Waits until something has happened.
    ///
    /// # Errors
    /// If the kernel tells nothing any more.
    pub(super) async fn next(&mut self) -> io::Result<Noticed> {
        loop {
            self.queue.readable().await?;
            let noticed = self.read()?;
            if noticed != Noticed::default() {
                return Ok(noticed);
            }
        }
    }

    /// All that waits to be read.
    fn read(&mut self) -> io::Result<Noticed> {
        let Self { queue, followed, open } = self;
        let mut noticed = Noticed::default();
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(&*queue, &mut buffer);
        let end = queue.try_io(|| {
            loop {
                match reader.next() {
                    Ok(event) => noticed.add(&event, followed, open),
                    Err(Errno::INTR) => {}
                    Err(error) => return Err::<(), _>(io::Error::from(error)),
                }
            }
        });
        match end {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(noticed),
        }
    }
}

impl Noticed {
    fn add(
        &mut self,
        event: &inotify::Event<'_>,
        followed: &HashMap<i32, Followed>,
        open: &mut BTreeMap<PathBuf, Instant>,
    ) {
        let events = event.events();
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            // Whoever has begun to write may have been forgotten: what follows is looked at as if nobody had.
            open.clear();
            (self.is_more, self.is_lossy) = (true, true);
            return;
        }
        let Some(Followed { path, holds, has_one_path }) = followed.get(&event.wd()) else { return };
        let Some(name) = event.file_name() else {
            self.is_more = true;
            return;
        };
        let name = OsStr::from_bytes(name.to_bytes());
        let is_target = holds.targets.contains(name);
        let is_looked_at = holds.is_walked && !is_hidden(Some(name));
        let is_read = is_looked_at && is_configuration(Path::new(name));
        let is_file = !events.contains(ReadFlags::ISDIR);
        if is_read && is_file && !is_target && *has_one_path {
            self.files.insert(path.join(name));
        } else {
            let is_of_interest = is_looked_at && comes_or_goes(events);
            self.is_more |= is_target || is_read || is_of_interest || is_hard_link(&path.join(name), events);
        }
        if (is_target || is_read) && is_file {
            note_writers(open, path.join(name), events);
        }
    }
}

/// Whatever comes or goes may be a link or a directory with files below.
fn comes_or_goes(events: ReadFlags) -> bool {
    events.intersects(ReadFlags::ISDIR | ReadFlags::CREATE | ReadFlags::DELETE | MOVED)
}

/// Whether `path` is another name that a file has got, by which it may be written.
fn is_hard_link(path: &Path, events: ReadFlags) -> bool {
    let links = || path.symlink_metadata().map_or(0, |metadata| metadata.nlink());
    events.contains(ReadFlags::CREATE) && !events.contains(ReadFlags::ISDIR) && links() > 1
}

/// Keeps in `open` whether `file` is being written.
fn note_writers(open: &mut BTreeMap<PathBuf, Instant>, file: PathBuf, events: ReadFlags) {
    if events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::DELETE | MOVED) {
        open.remove(&file);
    } else if events.contains(ReadFlags::MODIFY) || (events.contains(ReadFlags::CREATE) && !file.is_symlink())
    {
        open.insert(file, Instant::now());
    }
}
