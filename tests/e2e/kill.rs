//! Processes that are killed from outside: named at once, and nothing is left behind.

use std::{
    fs, io,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use selvedge_tests::{SOON, poll};

use crate::SELVEDGE;

/// How soon a killed process must be reported.
const REPORTED: Duration = Duration::from_secs(5);

/// The frontend, two `reviews` v1 and one v2 with a sidecar each, the control plane, and who clears up.
const PROCESSES: usize = 10;

/// A demo that runs, with the ids of its processes.
struct Running {
    demo: Option<Child>,
    children: Vec<(u32, String)>,
    directory: tempfile::TempDir,
    progress: tempfile::NamedTempFile,
}

impl Running {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let progress = tempfile::NamedTempFile::new().unwrap();
        let demo = Command::new(SELVEDGE)
            .args(["demo", "--json", "--requests", "1000000"])
            .env("TMPDIR", directory.path())
            .stdout(Stdio::piped())
            .stderr(progress.reopen().unwrap())
            .spawn()
            .unwrap();
        let id = demo.id();
        let mut running = Self { demo: Some(demo), children: Vec::new(), directory, progress };
        running.children = poll(SOON, "all processes of the mesh run", async || {
            let children = children_of(id).map_err(|error| error.to_string())?;
            if children.len() == PROCESSES { Ok(children) } else { Err(format!("{children:?}")) }
        })
        .await;
        poll(SOON, "the first step has begun", async || {
            let said = running.said();
            if said.contains("sending requests") { Ok(()) } else { Err(said) }
        })
        .await;
        running
    }

    /// What it said on stderr.
    fn said(&self) -> String {
        fs::read_to_string(self.progress.path()).unwrap()
    }

    /// The child whose command line holds all these words.
    fn child(&self, words: &[&str]) -> u32 {
        let found = self.children.iter().find(|(_, line)| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("no {words:?} in {:?}", self.children)).0
    }

    fn demo(&self) -> u32 {
        self.demo.as_ref().expect("it runs").id()
    }

    /// What the demo said when it ended, which it must soon.
    async fn end(&mut self) -> Output {
        let mut demo = self.demo.take().expect("it runs");
        poll(REPORTED, "the demo ends", async || match demo.try_wait() {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err("it runs on".to_owned()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        demo.wait_with_output().unwrap()
    }

    async fn nothing_is_left(&self) {
        poll(SOON, "no process and no file is left", async || {
            let alive: Vec<_> = self.children.iter().filter(|(id, _)| is_alive(*id)).collect();
            let files = fs::read_dir(self.directory.path()).unwrap().count();
            if alive.is_empty() && files == 0 { Ok(()) } else { Err(format!("{alive:?}, {files} files")) }
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(demo) = &mut self.demo {
            let _ = demo.kill();
            let _ = demo.wait();
        }
    }
}

#[tokio::test]
async fn a_killed_process_is_named_within_five_seconds() {
    for (words, name) in [
        (["control-plane", "--config-dir"], "control-plane"),
        (["proxy", "default/reviews-v1-b"], "reviews-v1-b sidecar"),
        (["app reviews", "reviews-v2"], "reviews-v2 app"),
    ] {
        let mut running = Running::start().await;

        let began = Instant::now();
        signal(running.child(&words), Signal::KILL);
        let output = running.end().await;

        assert!(began.elapsed() < REPORTED);
        assert!(!output.status.success(), "{name}");
        let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let error = summary["error"].as_str().unwrap();
        assert!(error.starts_with(name), "{error}");
        assert!(running.said().contains(name));
        running.nothing_is_left().await;
    }
}

#[tokio::test]
async fn nothing_outlives_a_demo_that_is_killed() {
    let running = Running::start().await;

    signal(running.demo(), Signal::KILL);

    running.nothing_is_left().await;
}

#[tokio::test]
async fn nothing_outlives_a_demo_that_is_interrupted() {
    let mut running = Running::start().await;

    signal(running.demo(), Signal::INT);

    let output = running.end().await;
    assert!(!output.status.success());
    assert!(running.said().contains("interrupted"));
    running.nothing_is_left().await;
}

fn signal(id: u32, signal: Signal) {
    kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
}

/// The children of `parent`, each with its command line.
fn children_of(parent: u32) -> io::Result<Vec<(u32, String)>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Ok(id) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
        // Processes come and go while we look.
        let Some((state, of)) = state_and_parent(id) else { continue };
        if of == parent && state != 'Z' {
            let line = fs::read(Path::new("/proc").join(id.to_string()).join("cmdline")).unwrap_or_default();
            children.push((id, String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    Ok(children)
}

fn is_alive(id: u32) -> bool {
    state_and_parent(id).is_some_and(|(state, _)| state != 'Z')
}

/// From `/proc/<id>/stat`, whose second field is in brackets and may hold anything.
fn state_and_parent(id: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
