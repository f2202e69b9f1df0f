//! The corpus of hostile HTTP/1 requests, replayed byte for byte.

use std::{fs, net::SocketAddr, path::PathBuf};

use selvedge_certs::tls::Current;
use selvedge_demo::workload::Workload;
use selvedge_tests::credentials;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Mesh, SOON};
use crate::mesh_client;

/// One line of `tests/corpus/expectations`.
struct Case {
    name: String,
    request: Vec<u8>,
    statuses: Vec<String>,
    /// The reason that the last answer gives, if a proxy made it.
    reason: Option<String>,
    seen: Vec<String>,
}

fn corpus() -> Vec<Case> {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/corpus");
    let expectations = fs::read_to_string(directory.join("expectations")).expect("it is in the repository");
    let cases: Vec<_> = expectations
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let [name, answers, seen] = line.split(" | ").collect::<Vec<_>>()[..] else {
                panic!("not FILE | ANSWERS | PATHS: {line}")
            };
            let mut statuses: Vec<_> = answers.split(", ").map(str::to_owned).collect();
            let last = statuses.pop().expect("split gives one at least");
            let (status, reason) = last.split_once(' ').map_or((&last[..], None), |(s, r)| (s, Some(r)));
            statuses.push(status.to_owned());
            Case {
                name: name.to_owned(),
                request: fs::read(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")),
                statuses,
                reason: reason.map(str::to_owned),
                seen: seen.split(' ').filter(|path| *path != "-").map(str::to_owned).collect(),
            }
        })
        .collect();
    let files = fs::read_dir(&directory).expect("it was read").flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|kind| kind == "http"));
    assert_eq!(files.count(), cases.len(), "every file has its line in expectations");
    cases
}

/// Where hostile requests go in.
enum Way<'a> {
    /// A listener, in plaintext.
    Plain(SocketAddr),
    /// The target's inbound listener, as a mesh peer that carries HTTP/1.1.
    Mesh(&'a Current, &'a Workload),
}

impl Way<'_> {
    /// Sends `request`, in pieces of `piece` bytes, and reads until the other end closes.
    async fn exchange(&self, request: &[u8], piece: usize) -> String {
        match self {
            Self::Plain(address) => {
                let stream = TcpStream::connect(address).await.expect("the listener is there");
                stream.set_nodelay(true).expect("a socket");
                exchange(stream, request, piece).await
            }
            Self::Mesh(configuration, target) => {
                exchange(mesh_client::connect(configuration, target).await, request, piece).await
            }
        }
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite, request: &[u8], piece: usize) -> String {
    let (mut read, mut write) = tokio::io::split(stream);
    let mut answer = Vec::new();
    let sending = async {
        for piece in request.chunks(piece) {
            // It may have been refused before all of it is sent.
            if write.write_all(piece).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let reading = timeout(SOON, read.read_to_end(&mut answer));
    let ((), read) = tokio::join!(sending, reading);
    let closed = match read {
        Ok(Ok(_)) => "",
        Ok(Err(error)) => &format!("\n(then {error})"),
        Err(_) => "\n(and then not closed)",
    };
    String::from_utf8_lossy(&answer).into_owned() + closed
}

/// The status codes of the answers in `text`.
fn statuses(text: &str) -> Vec<&str> {
    let after = text.match_indices("HTTP/1.").filter_map(|(at, _)| text.get(at + 8..at + 12));
    after.filter_map(|after| after.strip_prefix(' ')).filter(|s| s.parse::<u16>().is_ok()).collect()
}

fn reason(text: &str) -> Option<&str> {
    let (_, rest) = text.rsplit_once("selvedge-error: ")?;
    rest.split([':', '\r']).next()
}

/// What is not as expected about `answer`.
fn complaint(case: &Case, answer: &str, seen: &[String]) -> Option<String> {
    let as_expected = statuses(answer) == case.statuses
        && reason(answer) == case.reason.as_deref()
        && !answer.ends_with(')')
        && seen == case.seen;
    (!as_expected).then(|| {
        let Case { name, statuses, reason, seen: expected, .. } = case;
        format!(
            "{name}: expected {statuses:?} {reason:?}, the app to see {expected:?}; it saw {seen:?}\n{answer}"
        )
    })
}

#[tokio::test]
async fn hostile_requests_are_refused_and_never_forwarded() {
    let mesh = Mesh::with_gateway(&[]).await;
    let mut complaints = Vec::new();
    let configuration = mesh_client::configuration(credentials(&mesh.cluster, "client"));
    let plain = mesh.listeners().into_iter().map(|(listener, address)| (listener, Way::Plain(address)));
    let ways = plain.chain([("mesh TLS", Way::Mesh(&configuration, mesh.target()))]);
    for (listener, way) in ways {
        for mut case in corpus() {
            // It has no path that a rule of the gateway could match.
            if listener == "gateway" && case.name == "good-options-asterisk.http" {
                case.statuses = vec!["404".to_owned()];
                case.reason = Some("no-route".to_owned());
                case.seen.clear();
            }
            for piece in [usize::MAX, 7] {
                if case.request.len() > 10_000 && piece < case.request.len() {
                    continue;
                }
                mesh.app.seen();
                let answer = way.exchange(&case.request, piece).await;
                let complaint = complaint(&case, &answer, &mesh.app.seen());
                complaints.extend(complaint.map(|what| format!("{listener}, pieces of {piece}: {what}")));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    mesh.is_well().await;

    let refused = mesh.client().admin("/metrics").await.expect("metrics").text();
    assert!(refused.contains("\"bad-request\"") && refused.contains("\"head-too-large\""), "{refused}");
}
