//! Waiting for many sockets with `epoll`, for the app and the load generator.
//!
//! They use it bare, without an async runtime, because what they cost is taken from the two cores
//! that the proxies are measured on.

use std::io;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;

/// How many ready sockets one wait reports at most; the rest come with the next.
const EVENTS_PER_WAIT: usize = 256;

/// A set of sockets, each known by a number of the caller's choice.
pub(crate) struct Readiness {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_PER_WAIT) })
    }

    /// Reports `id` whenever `source` can be read; closing the source ends the watch.
    pub(crate) fn watch(&self, source: impl AsFd, id: u64) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, epoll::EventData::new_u64(id), epoll::EventFlags::IN)?)
    }

    /// Reports `id` when `source`, watched already, has room for more, instead of when it can be read; or back.
    pub(crate) fn rewatch(&self, source: impl AsFd, id: u64, for_room: bool) -> io::Result<()> {
        let what = if for_room { epoll::EventFlags::OUT } else { epoll::EventFlags::IN };
        Ok(epoll::modify(&self.epoll, source, epoll::EventData::new_u64(id), what)?)
    }

    /// Replaces `ready` with the numbers of what can be read now, waiting up to `limit` for the first.
    pub(crate) fn wait(&mut self, ready: &mut Vec<u64>, limit: Option<Duration>) -> io::Result<()> {
        ready.clear();
        self.events.clear();
        let limit = limit.map(Timespec::try_from).transpose().map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, "the wait is longer than a clock can say")
        })?;
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }
}
