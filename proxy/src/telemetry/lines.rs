//! Lines of the access log on their way to standard output.
//!
//! A worker adds lines to a buffer of its own, and a thread writes them. Whatever standard output is, a disk or a pipe that
//! nobody reads, no request waits for it: when a buffer is full, lines are lost and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// How many bytes wait of one worker, beyond which lines are lost.
const WAITING: usize = 1 << 20;
/// How long lines are gathered before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// How often it is looked whether all are written, when the proxy ends.
const LOOK: Duration = Duration::from_millis(5);

/// See the module.
#[derive(Debug)]
pub(super) struct Lines {
    /// One for each worker.
    shards: Box<[Mutex<Vec<u8>>]>,
    /// Whether there are any that the thread has not taken up.
    are_waiting: AtomicBool,
    /// Whether the thread is writing some.
    is_writing: AtomicBool,
    lost: AtomicU64,
    thread: OnceLock<Thread>,
}

impl Lines {
    /// None yet, of this many workers.
    pub(super) fn new(workers: usize) -> Arc<Self> {
        let shards = std::iter::repeat_with(Mutex::default).take(workers).collect();
        Arc::new(Self {
            shards,
            are_waiting: AtomicBool::new(false),
            is_writing: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            thread: OnceLock::new(),
        })
    }

    /// Starts what writes lines to `out`, if it does not run yet.
    pub(super) fn start(self: &Arc<Self>, out: impl Write + Send + 'static) {
        self.thread.get_or_init(|| {
            let lines = Arc::clone(self);
            let writing = thread::Builder::new().name("access-log".to_owned()).spawn(move || lines.run(out));
            match writing {
                Ok(handle) => handle.thread().clone(),
                Err(error) => {
                    tracing::error!(%error, "the access log is not written: a thread for it cannot be started");
                    thread::current()
                }
            }
        });
    }

    /// Adds the line that `format` writes, with its end.
    pub(super) fn add(&self, worker: usize, format: impl FnOnce(&mut Vec<u8>)) {
        let Some(shard) = self.shards.get(worker) else { return };
        let mut waiting = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING {
            drop(waiting);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        format(&mut waiting);
        drop(waiting);
        // Who sees the flag need not set it: it is taken back before the buffers are emptied. All workers share it.
        if !self.are_waiting.load(Ordering::Relaxed)
            && !self.are_waiting.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// How many were lost.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all are written, for `longest` at most.
    pub(super) fn finish(&self, longest: Duration) {
        let until = Instant::now() + longest;
        let is_done =
            || !self.are_waiting.load(Ordering::Acquire) && !self.is_writing.load(Ordering::Acquire);
        while self.thread.get().is_some() && !is_done() && Instant::now() < until {
            thread::park_timeout(LOOK);
        }
    }

    fn run(&self, mut out: impl Write) {
        let mut taken = Vec::new();
        loop {
            if !self.are_waiting.load(Ordering::Acquire) {
                thread::park();
                continue;
            }
            rest(GATHER);
            self.is_writing.store(true, Ordering::Release);
            self.are_waiting.store(false, Ordering::Release);
            for shard in &self.shards {
                std::mem::swap(&mut taken, &mut *shard.lock().unwrap_or_else(PoisonError::into_inner));
                self.write(&mut out, &taken);
                taken.clear();
            }
            self.is_writing.store(false, Ordering::Release);
        }
    }

    fn write(&self, out: &mut impl Write, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        if let Err(error) = out.write_all(lines).and_then(|()| out.flush()) {
            let lost = lines.iter().filter(|byte| **byte == b'\n').count();
            self.lost.fetch_add(lost as u64, Ordering::Relaxed);
            tracing::debug!(%error, lost, "lines of the access log could not be written");
        }
    }
}

/// Waits for so long, whoever wakes this thread meanwhile: who adds the first line while others are written does.
fn rest(time: Duration) {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

/// Standard output, locked for each write alone.
#[derive(Debug)]
pub(super) struct Stdout;

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stdout().lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// What takes each write when it is told to.
    struct Slow {
        written: mpsc::Sender<Vec<u8>>,
        go_on: mpsc::Receiver<()>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.written.send(bytes.to_vec()).map_err(io::Error::other)?;
            self.go_on.recv().map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_wait_for_a_slow_disk_and_are_lost_beyond_their_room_but_nobody_waits() {
        let (written, seen) = mpsc::channel();
        let (may_go_on, go_on) = mpsc::channel();
        let lines = Lines::new(1);
        lines.start(Slow { written, go_on });
        let line = vec![b'x'; 1023];
        let add = || {
            lines.add(0, |out| {
                out.extend_from_slice(&line);
                out.push(b'\n');
            })
        };

        add();
        let first = seen.recv_timeout(Duration::from_secs(20)).unwrap();
        for _ in 0..2 * WAITING / 1024 {
            add();
        }

        assert!(first.ends_with(b"\n"));
        let lost = lines.lost();
        assert_eq!(lost, (WAITING / 1024) as u64, "what has no room is counted");
        may_go_on.send(()).unwrap();
        may_go_on.send(()).unwrap();
        let second = seen.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(second.len(), WAITING);
        lines.finish(Duration::from_secs(20));
        assert_eq!(lines.lost(), lost);
    }

    #[test]
    fn lines_that_come_while_others_are_written_are_gathered_too() {
        let (written, seen) = mpsc::channel();
        let (may_go_on, go_on) = mpsc::channel();
        let lines = Lines::new(1);
        lines.start(Slow { written, go_on });
        lines.add(0, |out| out.extend_from_slice(b"one\n"));
        seen.recv_timeout(Duration::from_secs(20)).unwrap();
        lines.add(0, |out| out.extend_from_slice(b"two\n"));

        let over = Instant::now();
        may_go_on.send(()).unwrap();
        may_go_on.send(()).unwrap();
        let second = seen.recv_timeout(Duration::from_secs(20)).unwrap();

        assert_eq!(second, b"two\n");
        assert!(over.elapsed() >= GATHER, "{:?}", over.elapsed());
    }

    #[test]
    fn what_cannot_be_written_is_counted_as_lost() {
        let (written, seen) = mpsc::channel();
        let (may_go_on, go_on) = mpsc::channel::<()>();
        drop((seen, may_go_on));
        let lines = Lines::new(1);
        lines.start(Slow { written, go_on });

        lines.add(0, |out| out.extend_from_slice(b"one\n"));
        lines.finish(Duration::from_secs(20));

        assert_eq!(lines.lost(), 1);
    }
}
