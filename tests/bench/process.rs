//! The processes of a run: started with a deadline, stopped with the run, whatever ends it.
//!
//! Our own programs exit when their stdin closes. The peers know nothing of that, so `setpriv`
//! (util-linux, part of every Debian) has the kernel end them with us.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// What a program prints when it listens.
#[derive(Debug, Serialize, Deserialize)]
struct Announcement {
    listener: String,
    address: SocketAddr,
}

/// Prints where this program listens.
pub(crate) fn announce(listener: &str, address: SocketAddr) -> anyhow::Result<()> {
    let line = serde_json::to_string(&Announcement { listener: listener.to_owned(), address })?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Ends this process when whoever started it is gone.
pub(crate) fn exit_when_stdin_closes() {
    std::thread::spawn(|| {
        let mut buffer = [0; 64];
        while io::stdin().read(&mut buffer).is_ok_and(|read| read > 0) {}
        std::process::exit(0);
    });
}

/// A child of this process.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Running {
    /// Starts `command`; what it writes to stderr goes to a file in `logs`.
    pub(crate) fn start(name: &str, mut command: Command, logs: &Path) -> anyhow::Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let stderr = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("it was asked for above");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // Reads on when nobody listens any more, so that the child never waits for its stdout.
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            // What else it says, such as an access log, nobody asks for.
            for line in lines.filter(|line| line.starts_with("{\"listener\"")) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { name: name.to_owned(), child, stdin, lines, log })
    }

    /// Starts a program that knows nothing of us; the kernel ends it with this process.
    pub(crate) fn start_foreign(
        name: &str,
        program: &Path,
        args: &[&str],
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).args(args);
        Self::start(name, command, logs)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the child has said where the named listener is.
    pub(crate) fn address_of(&mut self, listener: &str) -> anyhow::Result<SocketAddr> {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else { break };
            match serde_json::from_str::<Announcement>(&line) {
                Ok(announced) if announced.listener == listener => return Ok(announced.address),
                _ => {}
            }
        }
        Err(self.failure(&format!("did not say where its listener {listener:?} is")))
    }

    /// An error that says how the child is and what it last wrote.
    pub(crate) fn failure(&mut self, what: &str) -> anyhow::Error {
        let state = match self.child.try_wait() {
            Ok(Some(status)) => format!("it ended with {status}"),
            Ok(None) => "it is running".to_owned(),
            Err(error) => error.to_string(),
        };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        anyhow!("{} {what}; {state}; its last words:\n{}", self.name, tail.join("\n"))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended by itself, which is what the signal is for.
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks the child to finish by `signal` and waits for it.
    pub(crate) fn finish(mut self, signal: Signal, limit: Duration) -> anyhow::Result<()> {
        self.signal(signal);
        let ended = poll_until(limit, || Ok(self.child.try_wait()?.map(drop)))?;
        ended.ok_or_else(|| self.failure("did not finish when asked to"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stdin.take());
        // Once it is waited for, its number may be another process's.
        if !matches!(self.child.try_wait(), Ok(None)) {
            return;
        }
        self.signal(Signal::TERM);
        let ended = poll_until(Duration::from_secs(3), || Ok(self.child.try_wait()?.map(drop)));
        if !matches!(ended, Ok(Some(()))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Asks `probe` every few milliseconds until it has something, or nothing when `limit` has passed.
pub(crate) fn poll_until<T>(
    limit: Duration,
    mut probe: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe()? {
            return Ok(Some(found));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A port that was free a moment ago, for peers that cannot be asked to choose their own.
pub(crate) fn spare_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Where an installed program is; peers live in sbin, which is not on everybody's PATH.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let also = ["/usr/sbin", "/usr/local/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(also)
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Runs a command to its end; its output is the answer, or part of the error.
pub(crate) fn output(mut command: Command) -> anyhow::Result<String> {
    let program = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        bail!("{program} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_announces_nothing_is_named_with_its_last_words() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out of luck >&2"]);

        let mut child = Running::start("unlucky", command, logs.path()).unwrap();
        let error = child.address_of("inbound").unwrap_err().to_string();

        assert!(error.contains("unlucky did not say where"), "{error}");
        assert!(error.contains("out of luck"), "{error}");
    }

    #[test]
    fn a_child_says_where_it_listens() {
        let logs = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"echo noise; echo '{"listener":"app","address":"127.0.0.1:8"}'; read _"#]);

        let mut child = Running::start("speaker", command, logs.path()).unwrap();

        assert_eq!(child.address_of("app").unwrap(), "127.0.0.1:8".parse().unwrap());
    }
}
