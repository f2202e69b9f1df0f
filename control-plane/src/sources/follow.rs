//! When a directory is looked at: as soon as the kernel tells of a change, and again and again in any case.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::{
    Loaded,
    directory::{Directory, Look, Patience},
    files::Holds,
    notices::{Following, Noticed, Notices},
};

/// From when something is told until it is looked at: what is written in one go is mostly told in one go.
const GATHERING: Duration = Duration::from_millis(10);
/// How long the text of a file must stay as it is that nobody is writing, before it counts. A file that gets its name when it
/// is whole needs no time at all; this is for those who write one anew in several goes.
const SETTLED: Duration = Duration::from_millis(25);
/// Where the kernel tells of every change, all files are read this many times less often.
const SELDOM: u32 = 20;
/// Between two looks there is this many times the time that the last one took, however much is told, but no more than the
/// interval.
const BREATHER: u32 = 2;

impl Directory {
    /// Looks again and again, and sends all there is whenever anything changed, until nobody listens.
    pub async fn watch(self, sender: watch::Sender<Arc<Loaded>>) {
        let interval = self.options().poll_interval;
        let notices = Notices::open().inspect_err(|error| without_notices(error, interval)).ok();
        watch(self, Follower::new(interval, notices), sender).await;
    }
}

async fn watch(mut directory: Directory, mut follower: Follower, sender: watch::Sender<Arc<Loaded>>) {
    loop {
        let look = tokio::task::spawn_blocking(move || {
            let change = follower.look(&mut directory);
            (directory, follower, change)
        });
        let Ok((looked_at, after, change)) = look.await else {
            tracing::error!("reading the configuration directory failed; its last state stays in use");
            return;
        };
        (directory, follower) = (looked_at, after);
        if let Some(loaded) = change {
            sender.send_replace(loaded);
        }
        tokio::select! {
            () = follower.rest(&directory) => {}
            () = sender.closed() => return,
        }
    }
}

/// Who decides when to look next, and how.
#[derive(Debug)]
struct Follower {
    interval: Duration,
    /// `None`: the kernel tells nothing.
    notices: Option<Notices>,
    /// Whether it tells of every change.
    is_told_all: bool,
    /// When everything was read.
    last_whole: Option<Instant>,
    /// From when on to look because of what was told.
    told: Option<Instant>,
    /// The files of which was told since the last look, if it was of nothing else.
    files: Option<BTreeSet<PathBuf>>,
    /// No look before this.
    breather: Instant,
}

impl Follower {
    fn new(interval: Duration, notices: Option<Notices>) -> Self {
        let breather = Instant::now();
        Self { interval, notices, is_told_all: false, last_whole: None, told: None, files: None, breather }
    }

    /// When everything is to be read again.
    fn next_whole(&self) -> Option<Instant> {
        let times = if self.is_told_all { SELDOM } else { 1 };
        self.last_whole.map(|last| last + self.interval * times)
    }

    /// Looks once.
    fn look(&mut self, directory: &mut Directory) -> Option<Arc<Loaded>> {
        let now = Instant::now();
        let is_due = self.next_whole().is_none_or(|next| next <= now);
        let is_settled = |notices: &Notices| !notices.is_being_written(self.interval);
        let with_text = match &self.notices {
            Some(notices) if self.is_told_all && is_settled(notices) => SETTLED.min(self.interval),
            _ => self.interval,
        };
        let patience = Patience { with_text, otherwise: self.interval };
        self.told = None;
        let files = self.files.replace(BTreeSet::new()).filter(|_| self.is_told_all && !is_due);
        let of_files = files.and_then(|files| directory.look_at(files, patience).ok());
        let change = of_files.unwrap_or_else(|| {
            let look = if is_due || !self.is_told_all { Look::Whole } else { Look::Quick };
            self.look_at_all(directory, look, patience, now)
        });
        let after = Instant::now();
        self.breather = after + self.interval.min(now.elapsed() * BREATHER);
        change
    }

    /// Looks at all there is, and follows what was seen.
    fn look_at_all(
        &mut self,
        directory: &mut Directory,
        look: Look,
        patience: Patience,
        now: Instant,
    ) -> Option<Arc<Loaded>> {
        let change = directory.look(look, patience);
        if look == Look::Whole {
            self.last_whole = Some(now);
        }
        let following = self.follow(directory.directories());
        self.is_told_all = following != Following::Partly && directory.is_told_by_directories();
        if following == Following::AllFromNow {
            self.told = Some(Instant::now() + GATHERING);
            self.files = None;
        }
        change
    }

    fn follow(&mut self, directories: &BTreeMap<PathBuf, Holds>) -> Following {
        let Some(notices) = &mut self.notices else { return Following::Partly };
        notices.follow(directories).unwrap_or_else(|error| {
            without_notices(&error, self.interval);
            self.notices = None;
            Following::Partly
        })
    }

    /// Waits until it is time for the next look.
    async fn rest(&mut self, directory: &Directory) {
        loop {
            let whole = self.next_whole().unwrap_or_else(Instant::now);
            // Whatever waits to count is due before long.
            let due = directory.due().unwrap_or(whole);
            let next = self.told.map_or(due, |told| told.min(due)).max(self.breather);
            tokio::select! {
                () = sleep_until(next) => return,
                noticed = next_notice(&mut self.notices) => self.take(noticed),
            }
        }
    }

    fn take(&mut self, noticed: io::Result<Noticed>) {
        match noticed {
            Ok(Noticed { files, is_more, is_lossy }) => {
                if is_more || !files.is_empty() {
                    self.told.get_or_insert_with(|| Instant::now() + GATHERING);
                }
                match &mut self.files {
                    Some(told) if !is_more => told.extend(files),
                    told => *told = None,
                }
                if is_lossy {
                    self.last_whole = None;
                }
            }
            Err(error) => {
                without_notices(&error, self.interval);
                self.notices = None;
                self.is_told_all = false;
            }
        }
    }
}

async fn next_notice(notices: &mut Option<Notices>) -> io::Result<Noticed> {
    match notices {
        Some(notices) => notices.next().await,
        None => pending().await,
    }
}

fn without_notices(error: &io::Error, interval: Duration) {
    tracing::warn!(
        %error,
        ?interval,
        "the kernel does not tell of changes in the configuration directory, so it is read again and again; raise \
         fs.inotify.max_user_watches and fs.inotify.max_user_instances, and restart"
    );
}

#[cfg(test)]
mod tests;
