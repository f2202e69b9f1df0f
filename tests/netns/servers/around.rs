//! Servers in a mesh, each as a user without rights.

use std::{
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use selvedge_demo::{call, workload::sum_of};
use selvedge_tests::poll;

use super::{MAIL, MARIADB, POSTGRES, REDIS, WEB};
use crate::{
    mesh::{Mesh, Workload, client},
    network::Kind,
};

/// The user that servers run as: `nobody`, since PostgreSQL asks for one that has a name.
pub(super) const UID: u32 = 65534;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// A server's process; killed with all that it started.
pub(super) struct Server {
    child: Child,
    log: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the server\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        let group = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A mesh of a client and of a server's workload, and a directory that is the server's own.
pub(super) struct Around {
    pub(super) mesh: Mesh,
    pub(super) directory: tempfile::TempDir,
}

impl Around {
    pub(super) async fn new() -> Self {
        let mut mesh = Mesh::on(Kind::Bridge).await;
        let ports = [REDIS, POSTGRES, MARIADB, MAIL, WEB];
        let ports = ports.map(|port| format!("{{name: p{port}, port: {port}}}")).join(", ");
        mesh.write(
            "service-db.yaml",
            &format!(
                "apiVersion: v1\nkind: Service\nmetadata: {{name: db, namespace: default}}\n\
                 spec: {{selector: {{app: db}}, ports: [{ports}]}}\n"
            ),
        );
        mesh.add([client("client"), client("db")]).await;
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
        chown(directory.path(), Some(UID), Some(UID)).unwrap();
        Self { mesh, directory }
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn db(&self) -> &Workload {
        self.mesh.workload("db")
    }

    pub(super) fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.db().place.address, port)
    }

    /// Starts a server in the workload `db`, and waits until it listens.
    pub(super) async fn serve(&self, program: &Path, arguments: &[&str], port: u16) -> Server {
        let log = self.directory.path().join("server.log");
        let file = fs::File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path()).uid(UID).gid(UID).process_group(0);
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = self.db().namespace().inside(|| command.spawn()).unwrap();
        let server = Server { child, log };
        let address = self.db().loopback(port);
        poll(START, &format!("{} listens", program.display()), async || {
            self.db()
                .namespace()
                .run(move || async move {
                    tokio::net::TcpStream::connect(address).await.map(drop).map_err(|error| error.to_string())
                })
                .await
        })
        .await;
        server
    }

    /// Runs a program as the server's user, to its end.
    pub(super) fn prepare(&self, program: &Path, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path()).uid(UID).gid(UID);
        self.db().namespace().expect(&mut command);
    }

    /// What a client says that runs in the workload `client`.
    pub(super) async fn ask(&self, program: &Path, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("timeout");
        command.arg("30").arg(program).args(arguments);
        let file = self.directory.path().join("input");
        fs::write(&file, input).unwrap();
        command.stdin(fs::File::open(&file).unwrap());
        self.mesh.workload("client").namespace().expect(&mut command)
    }

    /// That all went over mutual TLS, as opaque connections.
    pub(super) async fn all_was_carried(&self) {
        for (workload, direction) in [("client", "outbound"), ("db", "inbound")] {
            let workload = self.mesh.workload(workload);
            let admin = workload.loopback(4191);
            let metrics = workload.call(admin, call::to(&admin.to_string(), "/metrics")).await.unwrap();
            let metrics = metrics.text();
            let name = format!("selvedge_{direction}_tcp_connections_opened_total");
            let carried: String = metrics
                .lines()
                .filter(|line| line.contains("mtls=\"true\""))
                .map(|line| line.to_owned() + "\n")
                .collect();
            assert!(sum_of(&carried, &name).unwrap_or_default() >= 1.0, "{metrics}");
        }
    }
}
