//! The threads that compute hashes of passwords: few, with a short queue, and after all that carries traffic.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, available_parallelism},
};

use rustix::process::setpriority_process;
use selvedge_model::gateway::PasswordHash;
use tokio::sync::oneshot;

use super::htpasswd;

/// How many passwords may wait.
const QUEUE: usize = 64;

/// How nice its threads are to others (`nice(2)`): with both at work, a worker has about ten times as much of a core.
const NICE: i32 = 10;

/// See the module.
#[derive(Debug)]
pub(super) struct Pool {
    jobs: SyncSender<Job>,
}

struct Job {
    hash: Arc<PasswordHash>,
    password: Vec<u8>,
    answer: oneshot::Sender<bool>,
}

impl Pool {
    /// A pool for half of the machine's cores. Its threads end with it.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start() -> io::Result<Self> {
        let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let (jobs, waiting) = sync_channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for index in 0..threads {
            let waiting = Arc::clone(&waiting);
            let started =
                thread::Builder::new().name(format!("passwords-{index}")).spawn(move || work(&waiting));
            // One is enough.
            if let Err(error) = started.map(drop)
                && index == 0
            {
                return Err(error);
            }
        }
        Ok(Self { jobs })
    }

    /// Whether `password` is the one that `hash` is of: that comes later. `None`: too many others wait.
    pub(super) fn verify(
        &self,
        hash: &Arc<PasswordHash>,
        password: &[u8],
    ) -> Option<oneshot::Receiver<bool>> {
        let (answer, verdict) = oneshot::channel();
        let job = Job { hash: Arc::clone(hash), password: password.to_vec(), answer };
        self.jobs.try_send(job).ok().map(|()| verdict)
    }
}

/// Does what is `waiting` until nobody can send any more.
fn work(waiting: &Mutex<Receiver<Job>>) {
    // Of this thread alone, on Linux. Without it, it is only less nice.
    let _ = setpriority_process(None, NICE);
    loop {
        // Held while it waits: the threads take turns.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { hash, password, answer }) = job else { return };
        if answer.is_closed() {
            continue;
        }
        // Whatever a library does with what a stranger sends, this thread goes on.
        let verified = catch_unwind(AssertUnwindSafe(|| htpasswd::verify(&hash, &password)));
        let _ = answer.send(verified.unwrap_or(false));
    }
}
