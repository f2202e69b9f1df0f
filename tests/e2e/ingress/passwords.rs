//! Names and passwords (`auth-type: basic`), as curl sends them.

use std::{net::SocketAddr, path::PathBuf};

use selvedge_demo::call;
use selvedge_tests::{Mesh, SOON, gateway::Gateway, needs::Need, poll};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
};

use super::{ALL, ingress, mesh_of};

/// Each has the password `secret`: bcrypt, `$apr1$`, SHA-512, SHA-1, and one in the old format, which is not known.
const FILE: &str = "# staff
    ann:$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW
    bob:$apr1$Uu1.eRtt$4uvvI39f/k0Od4JugIz6Y.
    carl:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1
    dora:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=
    eve:rqXexS6ZhobKA
";

/// Parts of hashes and of passwords: they are shown nowhere.
const HIDDEN: [&str; 5] = ["2r9OfJnf", "4uvvI39f", "TVLlQcbp", "5en6G6Me", "rqXexS6"];

fn file(text: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: users}}\nstringData:\n  auth: |\n    {text}---\n"
    )
}

const MAP: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: map}\nstringData: {fred: '{PLAIN}secret'}\n---\n";

const BASIC: &[(&str, &str)] =
    &[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "the \"inner\" shop")];

/// Documents of hosts of which all but one ask for a password.
fn documents() -> String {
    let map = [("auth-type", "basic"), ("auth-secret", "default/map"), ("auth-secret-type", "auth-map")];
    ingress("ready.test", &[], ALL)
        + &ingress("staff.test", BASIC, ALL)
        + &ingress("map.test", &map, ALL)
        + &ingress("gone.test", &[("auth-type", "basic"), ("auth-secret", "gone")], ALL)
        + MAP
}

async fn mesh() -> (Mesh, Gateway) {
    mesh_of(&(documents() + &file(FILE)), "ready.test").await
}

struct Curl(PathBuf);

/// The status, the head, and the body if it is an app's.
type Got = (u64, String, Value);

impl Curl {
    /// What is at `http://HOST/` of the gateway for `arguments`.
    async fn ask(&self, gateway: &Gateway, host: &str, arguments: &[&str]) -> Got {
        let at: SocketAddr = gateway.at(80);
        let mut command = Command::new(&self.0);
        command.args(["--silent", "--show-error", "--include", "--max-time", "50", "--proxy", ""]);
        command.args(["--connect-to", &format!("::{at}")]).args(arguments).arg(format!("http://{host}/"));
        let output = command.output().await.expect("curl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    async fn status(&self, gateway: &Gateway, host: &str, user: &str) -> u64 {
        self.ask(gateway, host, &["--user", user]).await.0
    }
}

/// A connection that stays open.
struct Open(TcpStream);

impl Open {
    async fn to(gateway: &Gateway) -> Self {
        Self(TcpStream::connect(gateway.at(80)).await.unwrap())
    }

    /// The status of the answer to whom `user`, a name and a password in base64, says.
    async fn ask(&mut self, user: &str) -> u16 {
        let request = format!("GET / HTTP/1.1\r\nhost: staff.test\r\nauthorization: Basic {user}\r\n\r\n");
        self.0.write_all(request.as_bytes()).await.unwrap();
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n") {
            read.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(read).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status")
    }
}

#[tokio::test]
async fn whoever_has_a_name_and_its_password_in_the_secret_is_let_in_and_nobody_else() {
    let Some(curl) = Need::Curl.program().map(Curl) else { return };
    let (mesh, gateway) = mesh().await;

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let (status, head, _) = curl.ask(&gateway, "staff.test", &[version]).await;
        assert_eq!(status, 401, "{head}");
        assert!(head.contains(r#"www-authenticate: basic realm="the \"inner\" shop""#), "{head}");
        assert!(head.contains("selvedge-error: credentials"), "{head}");
        assert!(!head.contains("users"), "a stranger is told no document: {head}");
        for user in ["ann", "bob", "carl", "dora"] {
            let asked = ["--user", &format!("{user}:secret"), version];
            let (status, head, saw) = curl.ask(&gateway, "staff.test", &asked).await;
            assert_eq!(status, 200, "{user}: {head}");
            assert_eq!(saw["headers"].get("authorization"), None, "the app sees no password: {saw}");
        }
    }
    // curl finds out first what it is asked for, on the same connection.
    let (status, head, saw) =
        curl.ask(&gateway, "staff.test", &["--anyauth", "--fail", "--user", "ann:secret"]).await;
    assert!(status == 401 && saw.is_null(), "the first of two answers: {head}");
    for wrong in ["ann:Secret", "ann:", "eve:secret", "zed:secret"] {
        assert_eq!(curl.status(&gateway, "staff.test", wrong).await, 401, "{wrong}");
    }
    let (status, head, _) = curl.ask(&gateway, "map.test", &["--user", "fred:secret"]).await;
    assert_eq!(status, 200, "{head}");
    assert_eq!(curl.status(&gateway, "map.test", "ann:secret").await, 401, "she is in another list");
    let (status, head, _) = curl.ask(&gateway, "gone.test", &["--user", "ann:secret"]).await;
    assert!(status == 500 && head.contains("selvedge-error: filter"), "{head}");
    let (_, _, saw) = curl.ask(&gateway, "ready.test", &["--user", "x:y"]).await;
    assert!(saw["headers"].get("authorization").is_some(), "without a password it is the app's own: {saw}");

    let problems = mesh.control_plane_admin("/problems").await.unwrap().text();
    assert!(
        problems.contains("stringData[auth]") && problems.contains("line 6 has a hash of crypt"),
        "{problems}"
    );
    assert!(problems.contains("there is no Secret default/gone"), "{problems}");
    let config = call::to(&gateway.admin.to_string(), "/config");
    let config = call::send(gateway.admin, config).await.unwrap();
    assert_eq!(config.status, 200, "{}", config.summary());
    let config = config.text();
    let all = mesh.control_plane_admin("/config").await.unwrap().text();
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("no such name and password"), "{log}");
    for hidden in HIDDEN.into_iter().chain(["fred", "zed"]) {
        for shown in [&config, &all, &problems, &log] {
            assert!(!shown.contains(hidden), "{hidden} is shown in {shown}");
        }
    }
    let metrics = call::send(gateway.admin, call::to("admin", "/metrics")).await.unwrap().text();
    assert!(metrics.contains("Secret default/users"), "{metrics}");

    // The same from the documents alone.
    let explained = async |more: &[&str]| {
        let mut command = Command::new(crate::SELVEDGE);
        command.args(["explain", "request", "--to", "http://staff.test/", "--from-address", "192.0.2.1"]);
        let output = command.arg("--config-dir").arg(mesh.config_dir()).args(more).output().await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (without, with) =
        (explained(&[]).await, explained(&["-H", "authorization: Basic YW5uOnNlY3JldA=="]).await);
    assert!(without.contains("401") && without.contains("the request has none"), "{without}");
    assert!(with.contains("lets in whom the Secret default/users has with this password"), "{with}");
    let mut command = Command::new(crate::SELVEDGE);
    let checked = command.args(["check", "--config-dir"]).arg(mesh.config_dir()).output().await.unwrap();
    let checked =
        String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.contains("line 6 has a hash of crypt") && !checked.contains("rqXexS6"), "{checked}");
}

#[tokio::test]
async fn a_changed_secret_holds_for_connections_that_are_open() {
    let (mesh, gateway) = mesh().await;
    let fresh = async |user: &str| Open::to(&gateway).await.ask(user).await;
    let (old, new) = ("YW5uOnNlY3JldA==", "YW5uOm5ldw==");
    let mut open = Open::to(&gateway).await;
    assert_eq!((open.ask(old).await, open.ask(new).await), (200, 401));

    mesh.write("ingresses.yaml", &(documents() + &file("ann:{PLAIN}new\n"))).unwrap();

    poll(SOON, "the new password is let in", async || match fresh(new).await {
        200 => Ok(()),
        status => Err(status.to_string()),
    })
    .await;
    assert_eq!((open.ask(old).await, open.ask(new).await), (401, 200), "on the same connection");
}

#[tokio::test]
async fn a_flood_of_wrong_passwords_from_one_address_is_refused_and_others_are_let_in() {
    let Some(curl) = Need::Curl.program().map(Curl) else { return };
    let (_mesh, gateway) = mesh().await;
    let from = async |address: &str, user: &str| {
        curl.ask(&gateway, "staff.test", &["--interface", address, "--user", user]).await
    };
    assert_eq!(from("127.0.0.9", "bob:secret").await.0, 200);

    let mut refused = None;
    for attempt in 0..200 {
        let (status, head, _) = from("127.0.0.9", &format!("bob:{attempt}")).await;
        if status != 401 {
            refused = Some((attempt, status, head));
            break;
        }
    }

    let (attempt, status, head) = refused.expect("a refusal");
    assert!(attempt >= 20 && status == 429, "{attempt}: {head}");
    assert!(head.contains("retry-after: ") && head.contains("selvedge-error: rate-limit"), "{head}");
    assert_eq!(from("127.0.0.8", "ann:secret").await.0, 200, "another address");
    assert_eq!(
        from("127.0.0.9", "bob:secret").await.0,
        200,
        "who was let in from there before, by any worker"
    );
    let log = gateway.process.whole_log().unwrap();
    assert!(log.contains("too many wrong passwords"), "{log}");
}
