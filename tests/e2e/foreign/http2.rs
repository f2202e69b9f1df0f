//! HTTP/2 by nghttp and h2load, and frame by frame by python-h2.

use std::net::SocketAddr;

use selvedge_tests::needs::Need;
use tokio::process::Command;

use super::{APP, Ways, passes, script, succeeds};

#[tokio::test]
async fn frames_that_are_seldom_sent_are_understood() {
    let Some(_) = script("h2_frames.py") else { return };
    let ways = Ways::to_reviews().await;
    for (way, at) in ways.each() {
        passes(&mut script("h2_frames.py").expect("as above"), way, at, APP, &[], 18).await;
    }
}

/// nghttp's arguments, the path, and what its report of the frames must have.
type Case = (&'static [&'static str], &'static str, &'static [&'static str]);

const CASES: [Case; 7] = [
    (&[], "/", &[":status: 200", "\"method\":\"GET\""]),
    (&["--header=:method: HEAD"], "/?bytes=70000", &[":status: 200", "content-length: 70000"]),
    (&["--padding=200"], "/", &[":status: 200"]),
    (&["--no-dep"], "/?status=404", &[":status: 404"]),
    (&["--header-table-size=0", "--encoder-header-table-size=0"], "/", &[":status: 200"]),
    (&["--header=te: trailers"], "/trailers", &["x-checksum: sha-of-hello"]),
    (&["--hexdump"], "/", &[":status: 200"]),
];

fn nghttp(program: &std::path::Path, at: SocketAddr, path: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["--verbose", "--timeout=30", "--header", &format!(":authority: {APP}")]);
    command.arg(format!("http://{at}{path}"));
    command
}

#[tokio::test]
async fn nghttp_is_served() {
    let Some(program) = Need::Nghttp.program() else { return };
    let ways = Ways::to_reviews().await;
    for (way, at) in ways.each() {
        for (arguments, path, expected) in CASES {
            let told = succeeds(nghttp(&program, at, path).args(arguments)).await;
            for line in expected {
                assert!(told.contains(line), "{way}: {arguments:?}: no {line:?} in\n{told}");
            }
        }
    }
}

#[tokio::test]
async fn nghttps_uploads_arrive_through_windows_of_any_size() {
    let Some(program) = Need::Nghttp.program() else { return };
    let ways = Ways::to_reviews().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; 300_000]).unwrap();
    for (way, at) in ways.each() {
        for arguments in
            [&[][..], &["--window-bits=10", "--connection-window-bits=16"], &["--trailer=x-checksum: 1"]]
        {
            let mut command = nghttp(&program, at, "/echo");
            command.args(arguments).arg("--data").arg(file.path()).arg("--stat");
            let told = succeeds(&mut command).await;

            assert!(told.contains(":status: 200"), "{way}: {arguments:?}\n{told}");
            // The last column but one of its statistics: the size of the body.
            assert!(told.contains(" 200 292K /echo"), "{way}: {arguments:?}\n{told}");
        }
    }
}

#[tokio::test]
async fn h2load_loses_no_request() {
    let Some(program) = Need::H2load.program() else { return };
    let ways = Ways::to_reviews().await;
    for (way, at) in ways.each() {
        for (arguments, path) in [
            (&["-c8", "-m16"][..], "/"),
            (&["-c50", "-m1"], "/"),
            (&["-c2", "-m100", "-w12", "-W16"], "/?bytes=20000"),
            (&["-c8", "-p", "http/1.1"], "/"),
        ] {
            let mut command = Command::new(&program);
            command.args(["-n2000", "--header", &format!(":authority: {APP}")]).args(arguments);
            let told = succeeds(command.arg(format!("http://{at}{path}"))).await;

            assert!(told.contains(" 2000 succeeded, 0 failed"), "{way}: {arguments:?}\n{told}");
            assert!(told.contains("status codes: 2000 2xx"), "{way}: {arguments:?}\n{told}");
        }
    }
}
