//! Servers that people run, and their own clients, who know nothing of a mesh: Redis, PostgreSQL, MariaDB, mail.
//!
//! Debian's packages, with data of the test's own, as a user without rights. The ports are declared by a Service
//! whose names say nothing about a protocol, and are not those that any list knows: who speaks first, and what,
//! has to be found out.

mod around;

use std::{fs, os::unix::fs::chown, process::Command};

use selvedge_tests::needs::Need;

use crate::{SELVEDGE, rights::netns};
use around::{Around, UID};

/// The ports of the service `db`, of which nothing is said but a number.
const REDIS: u16 = 16379;
const POSTGRES: u16 = 15432;
const MARIADB: u16 = 13306;
const MAIL: u16 = 10025;
const WEB: u16 = 18443;

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
