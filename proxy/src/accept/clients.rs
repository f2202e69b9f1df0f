//! How many connections clients may have open.
//!
//! Each connection of a client's may need another one to an endpoint. Without a limit a process would run out
//! of files in the middle of requests, where the failure looks like an endpoint's; with it, whoever comes
//! when there are too many is turned away at the door.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The share of the files that a process may have open, which is for clients' connections: three of five.
/// The rest is for connections to endpoints, which idle clients do not need.
const SHARE: (u64, u64) = (3, 5);

/// Connections of clients, of all workers.
#[derive(Debug)]
pub struct Clients {
    limit: usize,
    open: AtomicUsize,
}

/// One connection of a client's, as long as this lives.
#[derive(Debug)]
pub struct Client(Arc<Clients>);

impl Clients {
    /// At most `limit`; `None`: as many as the limit of open files suggests.
    pub fn new(limit: Option<u32>) -> Self {
        let limit = limit.map_or_else(usual, u64::from);
        Self { limit: usize::try_from(limit).unwrap_or(usize::MAX), open: AtomicUsize::new(0) }
    }

    /// One more; `None`: there are too many.
    pub fn enter(self: &Arc<Self>) -> Option<Client> {
        let one_more = |open| (open < self.limit).then_some(open + 1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Client(Arc::clone(self)))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Allows the process as many open files as it may allow itself. The usual 1,024 are for programs that cannot
/// do with more.
pub fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn usual() -> u64 {
    let files = getrlimit(Resource::Nofile).current;
    files.map_or(u64::MAX, |files| (files / SHARE.1 * SHARE.0).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room() {
        let clients = Arc::new(Clients::new(Some(1)));
        let first = clients.enter().unwrap();
        assert!(clients.enter().is_none());

        drop(first);

        assert!(clients.enter().is_some());
    }

    #[test]
    fn the_usual_limit_leaves_files_for_connections_to_endpoints() {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);

        assert!(Clients::new(None).limit as u64 <= files / 5 * 3);
    }
}
