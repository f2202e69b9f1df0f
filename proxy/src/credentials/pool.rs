//! The threads that compute hashes of passwords: few, with a short queue, and after all that carries traffic.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, available_parallelism},
};

use rustix::process::setpriority_process;
use selvedge_model::gateway::PasswordHash;
use tokio::sync::oneshot;

use super::{failures::Token, htpasswd, turns::Turns};

/// How many passwords may wait.
const QUEUE: usize = 64;

/// How nice its threads are to others (`nice(2)`): with both at work, a worker has about ten times as much of a core.
const NICE: i32 = 10;

/// See the module. Its threads end with it.
#[derive(Debug)]
pub(super) struct Pool {
    waiting: Arc<Waiting>,
}

/// A password that is to be verified.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) hash: Arc<PasswordHash>,
    pub(super) password: Vec<u8>,
    /// Whether there is a user with this hash who asks; otherwise it is computed for its time alone.
    pub(super) is_user: bool,
    /// What it costs its sender if it is wrong.
    pub(super) token: Token,
    pub(super) answer: oneshot::Sender<bool>,
}

#[derive(Debug)]
struct Waiting {
    /// `None`: no more will come.
    jobs: Mutex<Option<Turns<Job>>>,
    has_come: Condvar,
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<Turns<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// A pool for half of the machine's cores.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub(super) fn start() -> io::Result<Self> {
        let threads = available_parallelism().map_or(1, |cores| cores.get().div_ceil(2));
        let waiting =
            Arc::new(Waiting { jobs: Mutex::new(Some(Turns::new(QUEUE))), has_come: Condvar::new() });
        let pool = Self { waiting };
        for index in 0..threads {
            let waiting = Arc::clone(&pool.waiting);
            let started =
                thread::Builder::new().name(format!("passwords-{index}")).spawn(move || work(&waiting));
            // One is enough.
            if let Err(error) = started.map(drop)
                && index == 0
            {
                return Err(error);
            }
        }
        Ok(pool)
    }

    /// Has `job` done in its turn. If too many wait, one of those is dropped who wait most, without an answer.
    pub(super) fn verify(&self, job: Job) {
        let client = job.token.client();
        let dropped = self.waiting.lock().as_mut().and_then(|jobs| jobs.add(client, job));
        self.waiting.has_come.notify_one();
        drop(dropped);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let left = self.waiting.lock().take();
        self.waiting.has_come.notify_all();
        drop(left);
    }
}

/// Does what is `waiting` until nobody can send any more.
fn work(waiting: &Waiting) {
    // Of this thread alone, on Linux. Without it, it is only less nice.
    let _ = setpriority_process(None, NICE);
    while let Some(job) = next(waiting) {
        // Nobody waits for it any more: its token goes back, because nobody has learnt anything.
        if job.answer.is_closed() {
            continue;
        }
        // Whatever a library does with what a stranger sends, this thread goes on.
        let verified = catch_unwind(AssertUnwindSafe(|| htpasswd::verify(&job.hash, &job.password)));
        let is_right = verified.unwrap_or(false) && job.is_user;
        if is_right {
            drop(job.token);
        } else {
            job.token.spend();
        }
        let _ = job.answer.send(is_right);
    }
}

/// Waits for the next; `None`: there will be none.
fn next(waiting: &Waiting) -> Option<Job> {
    let mut jobs = waiting.lock();
    loop {
        if let Some(job) = jobs.as_mut()?.next() {
            return Some(job);
        }
        jobs = waiting.has_come.wait(jobs).unwrap_or_else(PoisonError::into_inner);
    }
}
