//! Clients and servers that nobody here wrote, through real sidecars.
//!
//! Our own tests send what we think that clients send; these are the clients. They come from Debian and
//! PyPI, by `.ci/run tools`. Without one its tests are left out: see [`selvedge_tests::needs`].

mod curl;
mod grpc;
mod http2;
mod slow;
mod websocket;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::{Mesh, SOON, needs::Need, poll};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::timeout,
};

use crate::SELVEDGE;

/// How long any one program may run.
const LIMIT: Duration = Duration::from_secs(40);

/// What the servers under test are called.
const APP: &str = "app:8080";

/// A command that runs one of our scripts with the Python that has what `clients/requirements.txt` names.
///
/// # Panics
/// If there is no such Python, in CI.
pub(crate) fn script(name: &str) -> Option<Command> {
    let mut command = Command::new(Need::PythonClients.program()?);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/clients").join(name));
    // Beside the sources is no place for compiled ones.
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    Some(command)
}

/// Runs it to its end.
async fn output(command: &mut Command) -> Output {
    let running = command.stdin(Stdio::null()).kill_on_drop(true).output();
    timeout(LIMIT, running).await.expect("it ends in time").expect("it starts")
}

/// Runs it to its end, which must be a good one; what it printed.
pub(crate) async fn succeeds(command: &mut Command) -> String {
    let output = output(command).await;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stdout}{stderr}", output.status);
    stdout
}

/// The ways to an app: by a client's sidecar with either protocol between the two, and past it.
const WAYS: [&str; 3] = ["over-http2", "over-http1", "past-the-clients-sidecar"];

/// A mesh of the two clients of [`WAYS`] and one server.
struct Ways {
    mesh: Mesh,
}

impl Ways {
    /// To `app`, behind the service `app:8080`.
    async fn to(app: AppKind) -> Self {
        let mut server = Spec::server("app-1", "app", 8080);
        server.app = app;
        let [over_http2, over_http1, _] = WAYS;
        let callers = [(over_http2, "http2"), (over_http1, "http1")];
        let callers = callers.map(|(name, carrier)| Spec::client(name).flag("--carrier", carrier));
        Self { mesh: Mesh::of(SELVEDGE, callers.into_iter().chain([server])).await }
    }

    async fn to_reviews() -> Self {
        Self::to(AppKind::Reviews("v1".to_owned())).await
    }

    /// To a server of somebody else's; it lives for as long as the second value.
    async fn to_script(name: &str) -> Option<(Self, Child)> {
        let mut server = script(name)?;
        let ways = Self::to(AppKind::None).await;
        let app = ways.mesh.workload("app-1").app;
        let server = server.args(address(app)).kill_on_drop(true).spawn().expect("it starts");
        poll(SOON, "the server listens", async || TcpStream::connect(app).await.map(drop)).await;
        Some((ways, server))
    }

    /// Where each way begins.
    fn each(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        WAYS.into_iter().map(|way| {
            let past = way == WAYS[2];
            let address =
                if past { self.mesh.workload("app-1").inbound } else { self.mesh.workload(way).outbound };
            (way, address)
        })
    }
}

fn address(address: SocketAddr) -> [String; 2] {
    [address.ip().to_string(), address.port().to_string()]
}

/// A script that is a table of cases: it prints `ok CASE` for each, and what is wrong with the others.
async fn passes(
    script: &mut Command,
    way: &str,
    at: SocketAddr,
    authority: &str,
    flags: &[&str],
    cases: usize,
) {
    let output = output(script.args(address(at)).arg(authority).args(flags)).await;
    let stdout = String::from_utf8_lossy(&output.stdout);
    let passed = stdout.lines().filter(|line| line.starts_with("ok ")).count();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && passed == cases, "{way}: {passed} of {cases}\n{stdout}{stderr}");
}
