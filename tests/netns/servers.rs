//! Servers that people run, and their own clients, who know nothing of a mesh: Redis, PostgreSQL, MariaDB, mail.
//!
//! Debian's packages, with data of the test's own, as a user without rights. The ports are declared by a Service
//! whose names say nothing about a protocol, and are not those that any list knows: who speaks first, and what,
//! has to be found out.

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
use selvedge_tests::{needs::Need, poll};

use crate::{
    SELVEDGE,
    mesh::{Mesh, Workload, client},
    network::Kind,
    rights::netns,
};

/// The user that servers run as: `nobody`, since PostgreSQL asks for one that has a name.
const UID: u32 = 65534;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(60);

/// The ports of the service `db`, of which nothing is said but a number.
const REDIS: u16 = 16379;
const POSTGRES: u16 = 15432;
const MARIADB: u16 = 13306;
const MAIL: u16 = 10025;
const WEB: u16 = 18443;

/// A server's process; killed with all that it started.
struct Server {
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
struct Around {
    mesh: Mesh,
    directory: tempfile::TempDir,
}

impl Around {
    async fn new() -> Self {
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

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    fn db(&self) -> &Workload {
        self.mesh.workload("db")
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.db().place.address, port)
    }

    /// Starts a server in the workload `db`, and waits until it listens.
    async fn serve(&self, program: &Path, arguments: &[&str], port: u16) -> Server {
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
    fn prepare(&self, program: &Path, arguments: &[&str]) {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.directory.path()).uid(UID).gid(UID);
        self.db().namespace().expect(&mut command);
    }

    /// What a client says that runs in the workload `client`.
    async fn ask(&self, program: &Path, arguments: &[&str], input: &[u8]) -> String {
        let mut command = Command::new("timeout");
        command.arg("30").arg(program).args(arguments);
        let file = self.directory.path().join("input");
        fs::write(&file, input).unwrap();
        command.stdin(fs::File::open(&file).unwrap());
        self.mesh.workload("client").namespace().expect(&mut command)
    }

    /// That all went over mutual TLS, as opaque connections.
    async fn all_was_carried(&self) {
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

async fn redis() {
    let (Some(server), Some(cli)) = (Need::RedisServer.program(), Need::RedisCli.program()) else { return };
    let around = Around::new().await;
    let port = REDIS.to_string();
    let arguments = ["--port", &port, "--bind", "0.0.0.0", "--save", "", "--protected-mode", "no"];
    let _server = around.serve(&server, &arguments, REDIS).await;
    let host = around.address(REDIS).ip().to_string();
    let to = ["-h", &host, "-p", &port];

    let large = vec![b'x'; 3 << 20];
    let set = around.ask(&cli, &[&to[..], &["-x", "SET", "large"]].concat(), &large).await;
    assert_eq!(set.trim(), "OK");
    let got = around.ask(&cli, &[&to[..], &["STRLEN", "large"]].concat(), b"").await;
    assert_eq!(got.trim(), large.len().to_string());
    let got = around.ask(&cli, &[&to[..], &["GET", "large"]].concat(), b"").await;
    assert!(got.trim().as_bytes() == large, "{} bytes came back", got.len());

    around.all_was_carried().await;
}

async fn postgresql() {
    let programs = [Need::Initdb, Need::Postgres, Need::Psql].map(Need::program);
    let [Some(initdb), Some(postgres), Some(psql)] = programs else { return };
    let around = Around::new().await;
    let (data, port) = (around.path("data"), POSTGRES.to_string());
    around.prepare(&initdb, &["-D", &data, "-U", "app", "-A", "trust", "--no-sync"]);
    fs::write(format!("{data}/pg_hba.conf"), "host all all all trust\n").unwrap();
    let directory = around.path("");
    let arguments = ["-D", &data, "-p", &port, "-c", "listen_addresses=*", "-k", &directory];
    let _server = around.serve(&postgres, &arguments, POSTGRES).await;
    let host = around.address(POSTGRES).ip().to_string();
    let query = "select count(*), sum(length(repeat('x', 1000))) from generate_series(1, 3000)";

    let said = around
        .ask(&psql, &["-h", &host, "-p", &port, "-U", "app", "-At", "postgres", "-c", query], b"")
        .await;

    assert_eq!(said.trim(), "3000|3000000");
    around.all_was_carried().await;
}

/// The client says nothing until the server has: nobody has told the mesh so.
async fn mariadb() {
    let programs = [Need::MariadbInstallDb, Need::Mariadbd, Need::Mariadb].map(Need::program);
    let [Some(install), Some(mariadbd), Some(client)] = programs else { return };
    let around = Around::new().await;
    let (data, socket) =
        (format!("--datadir={}", around.path("data")), format!("--socket={}", around.path("s")));
    around.prepare(
        &install,
        &["--no-defaults", &data, "--skip-test-db", "--auth-root-authentication-method=normal"],
    );
    let port = format!("--port={MARIADB}");
    let arguments = [
        "--no-defaults",
        &data,
        &socket,
        &port,
        "--bind-address=*",
        "--skip-grant-tables",
        "--skip-name-resolve",
    ];
    let _server = around.serve(&mariadbd, &arguments, MARIADB).await;
    let host = format!("--host={}", around.address(MARIADB).ip());

    let arguments =
        ["--no-defaults", &host, &port, "--user=root", "--skip-ssl", "--batch", "--skip-column-names"];
    let said = around
        .ask(&client, &[&arguments[..], &["-e", "select 40 + 2, length(repeat('x', 3000000))"]].concat(), b"")
        .await;

    assert_eq!(said.trim(), "42\t3000000");
    around.all_was_carried().await;
}

/// Speaks first, and TLS only when asked (RFC 3207).
const STARTTLS: &str = r#"
import socketserver, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2] + "/cert.pem", sys.argv[2] + "/key.pem")
class Mail(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.sendall(b"220 mail ready\r\n")
        lines = self.request.makefile("rb", buffering=0)
        while line := lines.readline():
            if line.upper().startswith(b"EHLO"):
                self.request.sendall(b"250-mail\r\n250 STARTTLS\r\n")
            elif line.upper().startswith(b"STARTTLS"):
                self.request.sendall(b"220 go ahead\r\n")
                break
        secure = context.wrap_socket(self.request, server_side=True)
        secure.sendall(b"said in " + secure.version().encode() + b"\r\n")
        secure.unwrap()
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
Server(("0.0.0.0", int(sys.argv[1])), Mail).serve_forever()
"#;

/// A CA and a certificate for `localhost`, for the server's user.
fn certificates(around: &Around) -> (String, String) {
    let (ca, own) = (around.path("ca"), around.path("own"));
    let certs = |arguments: &[&str]| {
        let mut command = Command::new(SELVEDGE);
        around.db().namespace().expect(command.arg("certs").args(arguments));
    };
    certs(&["ca", "--out", &ca]);
    let identity = "spiffe://cluster.local/ns/default/sa/mail";
    certs(&["issue", "--ca", &ca, "--identity", identity, "--dns", "localhost", "--out", &own]);
    for path in [own.clone(), format!("{own}/cert.pem"), format!("{own}/key.pem")] {
        chown(path, Some(UID), Some(UID)).unwrap();
    }
    (format!("{ca}/ca.pem"), own)
}

async fn starttls() {
    let (Some(python), Some(openssl)) = (Need::Python.program(), Need::Openssl.program()) else { return };
    let around = Around::new().await;
    let (ca, own) = certificates(&around);
    let port = MAIL.to_string();
    let _server = around.serve(&python, &["-c", STARTTLS, &port, &own], MAIL).await;
    let to = around.address(MAIL).to_string();

    let arguments =
        ["s_client", "-starttls", "smtp", "-connect", &to, "-CAfile", &ca, "-verify_return_error"];
    let more = ["-verify_hostname", "localhost", "-quiet", "-ign_eof"];
    let said = around.ask(&openssl, &[&arguments[..], &more].concat(), b"").await;

    assert!(said.contains("said in TLSv1.3"), "{said}");
    around.all_was_carried().await;
}

/// TLS of the app's own passes through, by the name that it asks for.
async fn tls_by_name() {
    let (Some(openssl), Some(curl)) = (Need::Openssl.program(), Need::Curl.program()) else { return };
    let around = Around::new().await;
    let (ca, own) = certificates(&around);
    let (cert, key, port) = (format!("{own}/cert.pem"), format!("{own}/key.pem"), WEB.to_string());
    let arguments =
        ["s_server", "-accept", &port, "-cert", &cert, "-cert_chain", &cert, "-key", &key, "-www", "-quiet"];
    let _server = around.serve(&openssl, &arguments, WEB).await;
    let to = format!("localhost:{WEB}:{}", around.address(WEB));

    let url = format!("https://localhost:{WEB}/");
    let said = around.ask(&curl, &["-sS", "--cacert", &ca, "--connect-to", &to, &url], b"").await;

    assert!(said.contains("TLSv1.3"), "{said}");
    around.all_was_carried().await;
}

#[test]
fn redis_is_carried() {
    netns(redis);
}

#[test]
fn postgresql_is_carried() {
    netns(postgresql);
}

#[test]
fn mariadb_is_carried_which_speaks_first() {
    netns(mariadb);
}

#[test]
fn mail_is_carried_that_turns_to_tls() {
    netns(starttls);
}

#[test]
fn an_apps_own_tls_is_carried() {
    netns(tls_by_name);
}
