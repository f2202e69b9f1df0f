//! The processes of a mesh: started, watched, killed, and never left behind.
//!
//! Each is in its own process group, so that Ctrl-C on the terminal reaches only whoever started it, and holds
//! a stdin that we keep open: it exits when that closes, which happens even if we are killed with SIGKILL.
//! Its stdout announces its listeners, one JSON line each; its stderr goes to a file.

use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, File},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, kill_process, kill_process_group},
};
use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{mpsc, watch},
};

/// How much of a process' log is shown with its failure.
const TAIL_LINES: usize = 12;

/// How long a killed process may take to be gone.
const REAP_LIMIT: Duration = Duration::from_secs(5);

/// Why a process is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started at all.
    #[error("cannot start {name} ({}): {source}", binary.display())]
    Start {
        /// Its name.
        name: String,
        /// What was to be executed.
        binary: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its log file could not be made.
    #[error("cannot write {name}'s log {}: {source}", log.display())]
    Log {
        /// Its name.
        name: String,
        /// Where.
        log: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It ended before it did what was waited for.
    #[error("{0}")]
    Exited(#[from] Exit),
    /// It runs, but does not do what was waited for.
    #[error("{name} did not {what} within {limit:?}; its log ends:\n{log}")]
    Silent {
        /// Its name.
        name: String,
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
        /// The end of its log.
        log: String,
    },
}

/// A process ended, and nobody had asked it to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{name} (pid {pid}) ended: {status}; its log ends:\n{log}")]
pub struct Exit {
    /// Its name.
    pub name: String,
    /// Its process id, as long as it lived.
    pub pid: u32,
    /// How it ended.
    pub status: ExitStatus,
    /// The end of its log.
    pub log: String,
}

/// Where processes come from: one binary, whose subcommands are all programs of the mesh.
#[derive(Debug, Clone)]
pub struct Processes {
    binary: PathBuf,
    logs: PathBuf,
    /// The user and group that they run as; none = ours.
    user: Option<u32>,
    exits: mpsc::UnboundedSender<Exit>,
}

/// Tells of processes that ended although nobody asked them to.
#[derive(Debug)]
pub struct Exits(mpsc::UnboundedReceiver<Exit>);

impl Exits {
    /// The next one. Never returns if all goes well.
    pub async fn next(&mut self) -> Exit {
        match self.0.recv().await {
            Some(exit) => exit,
            None => std::future::pending().await,
        }
    }
}

impl Processes {
    /// Processes of `binary`, whose logs go to the directory `logs`.
    pub fn new(binary: &Path, logs: &Path) -> (Self, Exits) {
        let (exits, receiver) = mpsc::unbounded_channel();
        (Self { binary: binary.to_owned(), logs: logs.to_owned(), user: None, exits }, Exits(receiver))
    }

    /// The same, but run as another user and its group, with no other groups. That takes root's rights.
    #[must_use]
    pub fn as_user(&self, id: u32) -> Self {
        Self { user: Some(id), ..self.clone() }
    }

    /// The binary that is started.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// The logs of all processes that were started.
    pub fn logs(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.logs).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        logs.sort();
        logs
    }

    /// Where a process' log is.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Starts `binary arguments…` as `name`; what it logs is added to the log of earlier runs.
    ///
    /// # Errors
    /// If it cannot be started. That it ends at once is told by [`Process::listener`] and [`Exits`].
    pub fn start<S: AsRef<std::ffi::OsStr>>(
        &self,
        name: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Process, ProcessError> {
        let log = self.log(name);
        let file = File::options().create(true).append(true).open(&log);
        let file =
            file.map_err(|source| ProcessError::Log { name: name.to_owned(), log: log.clone(), source })?;
        let mut command = self.command();
        command.args(arguments).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file);
        let start =
            |source| ProcessError::Start { name: name.to_owned(), binary: self.binary.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.expect("a child that nobody waited for has an id");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("piped above");
        let wanted = Arc::new(AtomicBool::new(false));
        let (listeners, said) = announced(stdout);
        let status = self.keep(child, name, pid, log.clone(), Arc::clone(&wanted));
        Ok(Process { name: name.to_owned(), pid, log, wanted, listeners, said, status, stdin })
    }

    /// The binary without the settings of whoever started us: `SELVEDGE_…` variables are flags too.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("SELVEDGE_") {
                command.env_remove(name);
            }
        }
        command.env("AWS_LC_SYS_NO_JITTER_ENTROPY", "1");
        if let Some(id) = self.user {
            command.uid(id).gid(id);
        }
        command
    }

    /// Waits for the child beside everything else, so that its end is known at once.
    fn keep(
        &self,
        mut child: Child,
        name: &str,
        pid: Pid,
        log: PathBuf,
        wanted: Arc<AtomicBool>,
    ) -> watch::Receiver<Option<Exit>> {
        let (sender, receiver) = watch::channel(None);
        let exits = self.exits.clone();
        let (name, pid) = (name.to_owned(), pid.as_raw_nonzero().get().cast_unsigned());
        tokio::spawn(async move {
            let Ok(status) = child.wait().await else { return };
            let exit = Exit { name, pid, status, log: tail(&log) };
            if !wanted.load(Ordering::Acquire) {
                let _ = exits.send(exit.clone()); // nobody may be listening any more
            }
            let _ = sender.send(Some(exit));
        });
        receiver
    }
}

/// One running process. Dropping it kills it.
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    /// Whether we asked it to end.
    wanted: Arc<AtomicBool>,
    listeners: watch::Receiver<BTreeMap<String, Vec<SocketAddr>>>,
    said: Said,
    status: watch::Receiver<Option<Exit>>,
    stdin: Option<ChildStdin>,
}

impl Process {
    /// As it was called when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has said on stdout, line by line, besides announcing its listeners.
    pub fn lines(&self) -> Vec<String> {
        self.said.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads its stdout no longer, or again: unread, the pipe fills up.
    pub fn read_stdout(&self, is_read: bool) {
        self.said.is_read.send_replace(is_read);
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<Exit> {
        self.status.borrow().clone()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Its whole log, earlier runs included.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn whole_log(&self) -> io::Result<String> {
        std::fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The address that it announced as `listener`.
    ///
    /// # Errors
    /// If it ends first, or does not announce it within `limit`.
    pub async fn listener(&self, listener: &str, limit: Duration) -> Result<SocketAddr, ProcessError> {
        let mut listeners = self.listeners.clone();
        let announced = async {
            let found = listeners.wait_for(|all| all.contains_key(listener)).await;
            // stdout closed: it ended, or is about to.
            let Ok(all) = found else { return std::future::pending().await };
            all[listener][0]
        };
        let mut status = self.status.clone();
        tokio::select! {
            biased;
            address = announced => Ok(address),
            Ok(exit) = status.wait_for(Option::is_some) => {
                Err(exit.clone().expect("waited for").into())
            }
            () = tokio::time::sleep(limit) => Err(self.silent(&format!("announce {listener:?}"), limit)),
        }
    }

    /// Sends a signal. SIGKILL and SIGTERM mean that its end is wanted.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        if matches!(signal, Signal::KILL | Signal::TERM) {
            self.wanted.store(true, Ordering::Release);
        }
        Ok(kill_process(self.pid, signal)?)
    }

    /// Stops it with SIGSTOP, and waits until all of its threads stand still.
    ///
    /// The kernel hands the signal to one thread, and the others run on until that one is scheduled: on a busy machine
    /// long enough to answer a request. SIGCONT lets it go on.
    ///
    /// # Errors
    /// If it is gone, or does not stand still within 5 s.
    pub async fn freeze(&self) -> Result<(), ProcessError> {
        let threads = PathBuf::from(format!("/proc/{}/task", self.pid.as_raw_nonzero()));
        let _ = self.signal(Signal::STOP); // it may be gone already: the wait tells
        crate::wait::until(REAP_LIMIT, "all threads stand still", async || stand_still(&threads))
            .await
            .map_err(|_| self.silent("stand still on SIGSTOP", REAP_LIMIT))
    }

    /// Kills it, and waits until it is gone.
    ///
    /// # Errors
    /// If it is not gone within 5 s.
    pub async fn kill(&self) -> Result<ExitStatus, ProcessError> {
        self.end(Signal::KILL, REAP_LIMIT).await
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// If it has not ended within `limit`.
    pub async fn terminate(&self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        self.end(Signal::TERM, limit).await
    }

    /// Closes its stdin, and waits until it has ended of itself.
    ///
    /// # Errors
    /// If it has not ended within `limit`.
    pub async fn close_stdin(&mut self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        self.wanted.store(true, Ordering::Release);
        self.stdin = None;
        self.ended("exit when its stdin closed", limit).await
    }

    /// Waits until it has ended, for whatever reason.
    ///
    /// # Errors
    /// If it has not ended within `limit`.
    pub async fn wait(&self, limit: Duration) -> Result<ExitStatus, ProcessError> {
        self.ended("exit", limit).await
    }

    async fn end(&self, signal: Signal, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let _ = self.signal(signal); // it may be gone already: the wait tells
        self.ended(&format!("exit on {signal:?}"), limit).await
    }

    async fn ended(&self, what: &str, limit: Duration) -> Result<ExitStatus, ProcessError> {
        let mut status = self.status.clone();
        let ended = status.wait_for(Option::is_some);
        match tokio::time::timeout(limit, ended).await {
            Ok(Ok(exit)) => Ok(exit.as_ref().expect("waited for").status),
            _ => Err(self.silent(what, limit)),
        }
    }

    fn silent(&self, what: &str, limit: Duration) -> ProcessError {
        ProcessError::Silent { name: self.name.clone(), what: what.to_owned(), limit, log: self.log_tail() }
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.wanted.store(true, Ordering::Release);
        // Once reaped, the id may be another's.
        if self.status.borrow().is_none() {
            let _ = kill_process_group(self.pid, Signal::KILL);
        }
    }
}

/// Whether all threads of a directory like `/proc/PID/task` are in state T, stopped; else which is not.
fn stand_still(threads: &Path) -> io::Result<()> {
    for thread in fs::read_dir(threads)? {
        let status = thread?.path().join("status");
        let status = match fs::read_to_string(&status) {
            // It has ended since the directory was read.
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOENT | Errno::SRCH)) => {
                continue;
            }
            status => status?,
        };
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or("State: unknown");
        if !state.contains("T (stopped)") {
            return Err(io::Error::other(state.to_owned()));
        }
    }
    Ok(())
}

/// A line of stdout.
#[derive(Deserialize)]
struct Announcement {
    listener: String,
    address: SocketAddr,
}

/// The most lines of stdout that are kept, besides announcements.
const MOST_LINES: usize = 100_000;

/// What a process has said on stdout, besides its announcements.
#[derive(Debug, Clone)]
struct Said {
    lines: Arc<Mutex<Vec<String>>>,
    /// Whether it is read at all.
    is_read: watch::Sender<bool>,
}

/// Reads stdout to its end, so that the process never blocks on it, unless somebody wants that.
fn announced(stdout: ChildStdout) -> (watch::Receiver<BTreeMap<String, Vec<SocketAddr>>>, Said) {
    let (sender, receiver) = watch::channel(BTreeMap::new());
    let said = Said { lines: Arc::default(), is_read: watch::Sender::new(true) };
    let (kept, mut is_read) = (Arc::clone(&said.lines), said.is_read.subscribe());
    tokio::spawn(async move {
        let mut lines = BufReader::new(stdout).lines();
        while is_read.wait_for(|is_read| *is_read).await.is_ok()
            && let Ok(Some(line)) = lines.next_line().await
        {
            if let Ok(Announcement { listener, address }) = serde_json::from_str(&line) {
                sender.send_modify(|all| all.entry(listener).or_insert_with(Vec::new).push(address));
                continue;
            }
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() < MOST_LINES {
                kept.push(line);
            }
        }
    });
    (receiver, said)
}

/// The last lines of a log; colours taken out.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("(cannot be read: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    if last.is_empty() { "  (empty)".to_owned() } else { format!("  {}", last.join("\n  ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    /// `sh` stands in for the binary: it announces a listener and lives until its stdin closes.
    fn started(directory: &Path, script: &str) -> (Process, Exits) {
        let (processes, exits) = Processes::new(Path::new("/bin/sh"), directory);
        (processes.start("app", ["-c", script]).unwrap(), exits)
    }

    fn alive(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[tokio::test]
    async fn a_listener_is_known_by_the_line_that_announces_it() {
        let directory = tempfile::tempdir().unwrap();
        let script = r#"echo hello; echo '{"listener":"admin","address":"127.0.0.1:4191"}'; cat"#;

        let (process, _exits) = started(directory.path(), script);

        assert_eq!(process.listener("admin", SOON).await.unwrap(), "127.0.0.1:4191".parse().unwrap());
        let error = process.listener("other", Duration::from_millis(30)).await.unwrap_err();
        assert!(error.to_string().starts_with("app did not announce \"other\" within 30ms"), "{error}");
    }

    #[tokio::test]
    async fn an_unwanted_end_is_told_with_name_and_log() {
        let directory = tempfile::tempdir().unwrap();

        let (process, mut exits) = started(directory.path(), "echo port in use >&2; exit 3");

        let exit = tokio::time::timeout(SOON, exits.next()).await.unwrap();
        assert_eq!((exit.name.as_str(), exit.status.code()), ("app", Some(3)));
        assert!(exit.log.contains("port in use"));
        let error = process.listener("admin", SOON).await.unwrap_err();
        assert!(matches!(error, ProcessError::Exited(_)), "{error}");
    }

    #[tokio::test]
    async fn a_wanted_end_is_not_told() {
        let directory = tempfile::tempdir().unwrap();
        let (mut process, mut exits) = started(directory.path(), "cat");

        let status = process.close_stdin(SOON).await.unwrap();

        assert!(status.success());
        assert!(tokio::time::timeout(Duration::from_millis(50), exits.next()).await.is_err());
    }

    #[tokio::test]
    async fn a_dropped_process_is_killed_even_while_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let (process, _exits) = started(directory.path(), "cat");
        let pid = process.pid();
        process.freeze().await.unwrap();

        drop(process);

        crate::wait::until(SOON, "the process is gone", async || {
            if alive(pid) { Err("it is still there") } else { Ok(()) }
        })
        .await
        .unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_started_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (processes, _exits) = Processes::new(Path::new("/nonexistent/selvedge"), directory.path());

        let error = processes.start("reviews", ["app"]).unwrap_err();

        assert!(error.to_string().starts_with("cannot start reviews (/nonexistent/selvedge)"), "{error}");
    }
}
