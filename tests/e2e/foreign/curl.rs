//! curl, in every way that it speaks HTTP without TLS.

use std::{fs, net::SocketAddr, path::PathBuf};

use selvedge_tests::needs::Need;
use serde_json::Value;
use tokio::process::Command;

use super::{APP, Ways, succeeds};

/// The size of the bodies that are large.
const LARGE: usize = 20 << 20;

/// What curl got.
struct Answer {
    /// curl's own variables; see its manual, `--write-out`.
    facts: Value,
    /// Heads and trailers, lines ended by CRLF.
    heads: String,
    body: Vec<u8>,
}

impl Answer {
    fn summary(&self) -> String {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(500)]);
        format!("{}\n{}", self.heads, body)
    }
}

struct Curl {
    program: PathBuf,
    directory: tempfile::TempDir,
}

impl Curl {
    fn found() -> Option<Self> {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Some(Self { program: Need::Curl.program()?, directory })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command whose connections to [`APP`] go to `at`.
    fn command(&self, at: SocketAddr) -> Command {
        let mut command = Command::new(&self.program);
        command.args(["--silent", "--show-error", "--no-buffer", "--max-time", "50", "--proxy", ""]);
        command.args(["--connect-to", &format!("::{at}")]);
        command
    }

    async fn ask(&self, at: SocketAddr, arguments: &[&str], path: &str) -> Answer {
        let (body, heads) = (self.file("body"), self.file("heads"));
        fs::write(&body, "").expect("a writable directory");
        let mut command = self.command(at);
        command.args(["--write-out", "%{json}", "--output"]).arg(&body);
        command.arg("--dump-header").arg(&heads).args(arguments).arg(format!("http://{APP}{path}"));
        let facts = succeeds(&mut command).await;
        Answer {
            facts: serde_json::from_str(&facts).expect("curl writes JSON"),
            heads: fs::read_to_string(&heads).expect("curl wrote it"),
            body: fs::read(&body).expect("it was there before"),
        }
    }
}

/// What is expected of one request: curl's arguments, the path, then status, version, and what else must be
/// in the heads (a line's beginning) or in the body.
type Case = (&'static [&'static str], &'static str, u16, &'static str, &'static [&'static str], &'static str);

const CASES: [Case; 28] = [
    (&["--http1.1"], "/", 200, "1.1", &["content-type: application/json"], "\"method\":\"GET\""),
    (&["--http1.0"], "/", 200, "1", &["HTTP/1.0 200"], "\"path\":\"/\""),
    (&["--http1.0", "--header", "connection: keep-alive"], "/", 200, "1", &["connection: keep-alive"], "{"),
    (&["--http1.0", "--header", "Host:"], "/", 400, "1.1", &["selvedge-error: "], "bad-request: "),
    (&["--http1.0", "--data", "hello"], "/echo", 200, "1", &[], "hello"),
    (&["--http1.0"], "/trailers", 200, "1", &[], "hello"),
    (&["--http2-prior-knowledge"], "/", 200, "2", &["content-type: application/json"], "\"method\":\"GET\""),
    // The wish to upgrade is not taken up, which is a server's right (RFC 9113 says no more of it).
    (&["--http2"], "/", 200, "1.1", &[], "\"method\":\"GET\""),
    (&["--http2", "--data", "hello"], "/echo", 200, "1.1", &[], "hello"),
    (&["--http1.1", "--head"], "/?bytes=1000000", 200, "1.1", &["content-length: 1000000"], ""),
    (&["--http2-prior-knowledge", "--head"], "/?bytes=1000000", 200, "2", &["content-length: 1000000"], ""),
    (&["--http1.0", "--head"], "/?bytes=1000000", 200, "1", &["content-length: 1000000"], ""),
    (&["--http1.1", "--data", "hello"], "/echo", 200, "1.1", &["content-type: application/x-www"], "hello"),
    (
        &["--http1.1", "--header", "expect: 100-continue", "--data", "hello"],
        "/echo",
        200,
        "1.1",
        &["HTTP/1.1 100"],
        "hello",
    ),
    (
        &["--http1.1", "--header", "transfer-encoding: chunked", "--data", "hello"],
        "/echo",
        200,
        "1.1",
        &[],
        "hello",
    ),
    (&["--http2-prior-knowledge", "--data", "hello"], "/echo", 200, "2", &[], "hello"),
    (
        &["--http1.1", "--header", "te: trailers"],
        "/trailers",
        200,
        "1.1",
        &["trailer: x-checksum", "x-checksum: sha-of-hello"],
        "hello",
    ),
    (
        &["--http2-prior-knowledge", "--header", "te: trailers"],
        "/trailers",
        200,
        "2",
        &["x-checksum: sha-of-hello"],
        "hello",
    ),
    (&["--http1.1"], "/?status=204", 204, "1.1", &[], ""),
    (&["--http1.1"], "/?status=503", 503, "1.1", &[], "{"),
    (&["--http1.1", "--request", "DELETE"], "/", 200, "1.1", &[], "\"method\":\"DELETE\""),
    (
        &["--http2-prior-knowledge", "--request", "PATCH", "--data", "x"],
        "/",
        200,
        "2",
        &[],
        "\"method\":\"PATCH\"",
    ),
    (&["--http1.1", "--request", "OPTIONS"], "/", 200, "1.1", &[], "\"method\":\"OPTIONS\""),
    (&["--http1.1", "--path-as-is"], "/a/../b//c", 200, "1.1", &[], "\"path\":\"/b//c\""),
    (&["--http2-prior-knowledge", "--path-as-is"], "/a/./b", 200, "2", &[], "\"path\":\"/a/b\""),
    (&["--http1.1", "--header", "connection: close"], "/", 200, "1.1", &["connection: close"], "{"),
    (&["--http1.1", "--cookie", "a=1; b=2"], "/", 200, "1.1", &[], "\"cookie\":\"a=1; b=2\""),
    (&["--http2-prior-knowledge", "--cookie", "a=1; b=2"], "/", 200, "2", &[], "\"cookie\":\"a=1; b=2\""),
];

#[tokio::test]
async fn every_kind_of_request_is_served_by_every_way() {
    let Some(curl) = Curl::found() else { return };
    let ways = Ways::to_reviews().await;
    let mut wrong = Vec::new();
    for (way, at) in ways.each() {
        for (arguments, path, status, version, heads, body) in CASES {
            let answer = curl.ask(at, arguments, path).await;
            let lines = answer.heads.lines().map(str::to_ascii_lowercase).collect::<Vec<_>>();
            let has = |start: &&str| lines.iter().any(|line| line.starts_with(&start.to_ascii_lowercase()));
            // A HEAD's answer has no body, whatever curl writes to its file then.
            let found = match body {
                "" => answer.facts["size_download"] == 0,
                _ => answer.body.windows(body.len()).any(|part| part == body.as_bytes()),
            };
            let right = answer.facts["http_code"] == status
                && answer.facts["http_version"] == version
                && heads.iter().all(has)
                && found;
            if !right {
                wrong.push(format!("{way}: {arguments:?} {path}\n{}", answer.summary()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[tokio::test]
async fn large_bodies_arrive_whole_whatever_frames_them() {
    let Some(curl) = Curl::found() else { return };
    let ways = Ways::to_reviews().await;
    let sent: Vec<u8> = (0..LARGE).map(|at| (at / 251 + at % 241).to_le_bytes()[0]).collect();
    let file = curl.file("upload");
    fs::write(&file, &sent).unwrap();
    let file = file.to_str().unwrap();

    for (way, at) in ways.each() {
        for arguments in [
            // Waits for a 100 by itself, as it does for every large body.
            &["--http1.1", "--upload-file", file][..],
            &["--http1.1", "--header", "transfer-encoding: chunked", "--upload-file", file],
            &["--http1.0", "--header", "expect:", "--upload-file", file],
            &["--http2-prior-knowledge", "--upload-file", file],
        ] {
            let answer = curl.ask(at, arguments, "/echo").await;

            assert_eq!(answer.facts["http_code"], 200, "{way}: {arguments:?} {}", answer.heads);
            assert!(answer.body == sent, "{way}: {arguments:?} echoed {} bytes", answer.body.len());
        }
    }
}

#[tokio::test]
async fn connections_are_kept() {
    let Some(curl) = Curl::found() else { return };
    let ways = Ways::to_reviews().await;
    for (way, at) in ways.each() {
        // Over HTTP/1.1 only: curl 7.88 fails at the second request on an HTTP/2 connection, to whomever.
        for (arguments, most) in [
            (&["--http1.1"][..], 1),
            (&["--http2"], 1),
            (&["--http1.1", "--parallel", "--parallel-max", "20"], 20),
        ] {
            let mut command = curl.command(at);
            command.args(arguments).args(["--output", "/dev/null"]);
            command.args(["--write-out", "%{http_code} %{num_connects}\n"]);
            let told = succeeds(command.arg(format!("http://{APP}/?n=[1-200]"))).await;

            let (mut answers, mut connections) = (0, 0);
            for line in told.lines() {
                let (status, connects) = line.split_once(' ').unwrap();
                assert_eq!(status, "200", "{way}: {arguments:?}");
                answers += 1;
                connections += connects.parse::<usize>().unwrap();
            }
            assert_eq!(answers, 200, "{way}: {arguments:?}");
            assert!(connections <= most, "{way}: {arguments:?} took {connections} connections");
        }
    }
}

#[tokio::test]
async fn a_refusal_says_whose_it_is() {
    let Some(curl) = Curl::found() else { return };
    let ways = Ways::to_reviews().await;
    for (_, at) in ways.each().take(2) {
        // With HTTP/2 no body: a refusal may come before it, and be followed by RST_STREAM with NO_ERROR
        // (RFC 9113, section 8.1), which curl 7.88 takes for an error if it is still sending.
        for (version, method) in
            [("--http1.0", "POST"), ("--http1.1", "POST"), ("--http2-prior-knowledge", "DELETE")]
        {
            let mut command = curl.command(at);
            command.args([version, "--include", "--request", method, "http://nobody.invalid/"]);
            if method == "POST" {
                command.args(["--data", "x"]);
            }
            let told = succeeds(&mut command).await;

            let head = told.split("\r\n\r\n").next().unwrap();
            assert!(head.contains("selvedge-error: "), "{version}: {told}");
        }
    }
}
