//! A network namespace, alive as long as somebody has it open or is in it.

use std::{
    fs::{self, File},
    io::Write as _,
    os::fd::{AsFd as _, AsRawFd as _},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::sync::oneshot;

/// A network namespace.
#[derive(Debug, Clone)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Namespace {
    /// A new one, with `lo` up and nothing else. `name` is for messages alone.
    pub fn new(name: &str) -> Self {
        let file = thread::spawn(|| {
            #[expect(deprecated, reason = "unsound only for other flags: this one shares no memory")]
            rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
            // Link-local addresses are usable at once, too: nobody else can have them. As long as a router's is doubtful, it
            // asks for no neighbour, and what it should forward is lost.
            let _ = fs::write("/proc/sys/net/ipv6/conf/default/accept_dad", "0"); // there may be no IPv6
            current()
        });
        let namespace = Self { name: name.to_owned(), file: Arc::new(file.join().unwrap()) };
        namespace.ip("link set lo up");
        namespace
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How `ip` is told of it from another namespace, as in `ip link set eth0 netns PATH`.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Does something in it: whatever sockets are opened and whatever processes are started belong to it.
    pub fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        let _back = RestoreNamespace(current());
        enter(&self.file);
        work()
    }

    /// The same with a future, on a thread and a runtime of its own.
    pub async fn run<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        let (sender, receiver) = oneshot::channel();
        let file = Arc::clone(&self.file);
        thread::spawn(move || {
            enter(&file);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let _ = sender.send(runtime.block_on(work())); // the test may have given up
        });
        receiver.await.unwrap_or_else(|_| panic!("what ran in {} panicked: see above", self.name))
    }

    /// `ip ARGUMENTS`
    pub fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        self.expect(command.args(arguments.split_whitespace()));
    }

    /// `nft -f -`, with these rules.
    pub fn nft(&self, rules: &str) {
        let mut command = Command::new("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped());
        let mut child = self.inside(|| command.spawn().unwrap());
        child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{}: nft refused {rules}", self.name);
    }

    /// Runs a command in it to its end.
    pub fn output(&self, command: &mut Command) -> std::process::Output {
        self.inside(|| command.output()).unwrap_or_else(|error| panic!("{}: {command:?}: {error}", self.name))
    }

    /// Runs a command in it, which must succeed; says what it printed.
    pub fn expect(&self, command: &mut Command) -> String {
        let output = self.output(command);
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{}: {command:?}: {}: {said}", self.name, output.status);
        said
    }
}

fn current() -> File {
    File::open("/proc/thread-self/ns/net").unwrap()
}

fn enter(namespace: &File) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// Leads the thread back, even out of a panic.
struct RestoreNamespace(File);

impl Drop for RestoreNamespace {
    fn drop(&mut self) {
        enter(&self.0);
    }
}
