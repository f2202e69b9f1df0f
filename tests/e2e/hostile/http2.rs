//! HTTP/2 that no client library would send, made of hand-written frames.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Mesh, SOON, TARGET};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A frame as it is sent.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("small").to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header fields as HPACK's literals without indexing (RFC 7541, section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    fn string(text: &str, block: &mut Vec<u8>) {
        let mut length = text.len();
        if length < 127 {
            block.push(u8::try_from(length).expect("small"));
        } else {
            block.push(127);
            length -= 127;
            while length >= 128 {
                block.push(u8::try_from(length % 128).expect("small") | 128);
                length /= 128;
            }
            block.push(u8::try_from(length).expect("small"));
        }
        block.extend(text.as_bytes());
    }
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        string(name, &mut block);
        string(value, &mut block);
    }
    block
}

/// The pseudo-headers of a request for `path`.
pub(super) fn request(path: &str) -> [(&str, &str); 4] {
    [(":method", "POST"), (":scheme", "http"), (":authority", TARGET), (":path", path)]
}

/// What was read of one frame.
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) stream: u32,
    pub(super) payload: Vec<u8>,
}

/// A connection with HTTP/2's preface behind it.
pub(super) struct Raw(pub(super) TcpStream);

impl Raw {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.expect("the listener is there");
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("a new connection");
        stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.expect("a new connection");
        Self(stream)
    }

    /// The next frame; `None` once the other end has closed.
    pub(super) async fn read(&mut self) -> Option<Frame> {
        read(&mut self.0).await
    }

    /// What became of this stream.
    async fn outcome(&mut self, stream: u32) -> Reaction {
        let outcome = async {
            loop {
                let Some(frame) = self.read().await else { return Reaction::Closed };
                match (frame.kind, frame.stream) {
                    (HEADERS, of) if of == stream => return Reaction::Status(status(&frame.payload)),
                    (RST_STREAM, of) if of == stream => return Reaction::Reset,
                    (GOAWAY, _) => return Reaction::Closed,
                    _ => {}
                }
            }
        };
        timeout(SOON, outcome).await.unwrap_or(Reaction::Nothing)
    }
}

/// The next frame; `None` once the other end has closed.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("32 bits")];
    stream.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Some(Frame { kind: head[3], stream, payload })
}

/// The status of an answer's header block: an index into HPACK's static table, or a literal of ours.
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8C, ..] => 400,
        // "431" in Huffman code.
        [0x48 | 0x08, 0x83, 0x69, 0x90, 0xFF, ..] => 431,
        // Another one, which no case expects.
        _ => 0,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reaction {
    Status(u16),
    /// The stream is over.
    Reset,
    /// The connection is over.
    Closed,
    Nothing,
}

/// A request: fields, what is sent as its body, and what may become of it.
struct Case {
    what: &'static str,
    fields: Vec<(&'static str, String)>,
    body: &'static str,
    allowed: &'static [Reaction],
    seen: &'static [&'static str],
}

/// RFC 9113, section 8.1.1: the error of one stream.
const REFUSED: &[Reaction] = &[Reaction::Reset, Reaction::Status(400)];

/// The cases that end the connection: what the crate h2 cannot read while it decodes a block of fields. It stops there, and nobody knows
/// any more what the following blocks mean. `proxy/README.md` lists them.
const ENDS_ALL: &[&str] = &[
    "an empty method",
    "a method with a space",
    "a pseudo-header that nobody knows",
    "a name in capitals",
    "a name with a colon",
    "a name with a line break",
    "an empty name",
    "a value with a line break",
    "a value with NUL",
];

fn refused(what: &'static str, fields: &[(&'static str, &str)], body: &'static str) -> Case {
    let fields = fields.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let allowed: &'static [Reaction] = if ENDS_ALL.contains(&what) { &[Reaction::Closed] } else { REFUSED };
    Case { what, fields, body, allowed, seen: &[] }
}

/// A usual request with more fields.
fn with(what: &'static str, more: &[(&'static str, &str)], body: &'static str) -> Case {
    refused(what, &[&request("/hostile"), more].concat(), body)
}

/// A usual request that names its destination in `host` instead of `:authority`.
fn with_host(what: &'static str, host: &'static str) -> Case {
    let mut case = instead(what, ":authority", None);
    case.fields.push(("host", host.to_owned()));
    case
}

/// A usual request in which one pseudo-header is another.
fn instead(what: &'static str, name: &str, value: Option<&'static str>) -> Case {
    let fields: Vec<_> = request("/hostile")
        .into_iter()
        .filter_map(|field| if field.0 == name { value.map(|value| (field.0, value)) } else { Some(field) })
        .collect();
    refused(what, &fields, "")
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        instead("no method", ":method", None),
        instead("no scheme", ":scheme", None),
        instead("no path", ":path", None),
        instead("no authority", ":authority", None),
        instead("an empty path", ":path", Some("")),
        instead("an empty method", ":method", Some("")),
        instead("a path that does not begin with a slash", ":path", Some("hostile")),
        instead("a path with a space", ":path", Some("/hostile HTTP/1.1")),
        instead("a path with a line break", ":path", Some("/hostile\r\nx: y")),
        instead("a path with NUL encoded", ":path", Some("/hostile%00")),
        instead("a path that is half encoded", ":path", Some("/hostile%0")),
        instead("an asterisk that is not for OPTIONS", ":path", Some("*")),
        instead("a method with a space", ":method", Some("GET /smuggled HTTP/1.1\r\n")),
        instead("a method of our own", ":method", Some("SELVEDGE-REFUSED")),
        instead("an authority with userinfo", ":authority", Some("me@target:9080")),
        instead("an authority with a path", ":authority", Some("target:9080/a")),
        instead("an authority with a line break", ":authority", Some("target:9080\r\nx: y")),
        with_host("a host with a path and no authority", "target:9080/x"),
        with_host("a host with a query and no authority", "target:9080?x"),
        with_host("a host with userinfo and no authority", "me@target:9080"),
        with_host("a host with a space and no authority", "target:9080 x"),
        with_host("a host with two ports and no authority", "target:9080:80"),
        with_host("a host with a name for a port and no authority", "target:http"),
        with_host("a host that is a list and no authority", "target:9080, target:9080"),
        with_host("an empty host and no authority", ""),
        with_host("an unfinished address and no authority", "[::1"),
        instead("an authority with two ports", ":authority", Some("target:9080:80")),
        instead("an empty authority", ":authority", Some("")),
        with("a host with a path beside an authority", &[("host", "target:9080/x")], ""),
        with("an empty host beside an authority", &[("host", "")], ""),
        with("two methods", &[(":method", "GET")], ""),
        with("two paths", &[(":path", "/other")], ""),
        with("two authorities", &[(":authority", "other")], ""),
        with("a status", &[(":status", "200")], ""),
        with("a pseudo-header that nobody knows", &[(":hostile", "1")], ""),
        with("a pseudo-header after a field", &[("x", "y"), (":path", "/other")], ""),
        with("a name in capitals", &[("X-Hostile", "1")], ""),
        with("a name with a colon", &[("x:y", "1")], ""),
        with("a name with a line break", &[("x\r\ny", "1")], ""),
        with("an empty name", &[("", "1")], ""),
        with("a value with a line break", &[("x", "y\r\nz: w")], ""),
        with("a value with NUL", &[("x", "y\0z")], ""),
        with("connection", &[("connection", "close")], ""),
        with("keep-alive", &[("keep-alive", "1")], ""),
        with("proxy-connection", &[("proxy-connection", "close")], ""),
        with("upgrade", &[("upgrade", "h2c")], ""),
        with("transfer-encoding", &[("transfer-encoding", "chunked")], "0\r\n\r\n"),
        with("te that is not trailers", &[("te", "gzip")], ""),
        with("another host", &[("host", "other")], ""),
        with("two hosts", &[("host", TARGET), ("host", TARGET)], ""),
        with(
            "a body longer than its length",
            &[("content-length", "3")],
            "abcGET /smuggled HTTP/1.1\r\n\r\n",
        ),
        with("a body shorter than its length", &[("content-length", "300")], "abc"),
        with("a body where none is", &[("content-length", "0")], "GET /smuggled HTTP/1.1\r\n\r\n"),
        with("no body where one is", &[("content-length", "3")], ""),
        with("two lengths", &[("content-length", "3"), ("content-length", "4")], "abc"),
        with("a length list", &[("content-length", "3, 3")], "abc"),
        with("a length with a sign", &[("content-length", "+3")], "abc"),
        instead("CONNECT with a path", ":method", Some("CONNECT")),
        refused("CONNECT", &[(":method", "CONNECT"), (":authority", TARGET)], ""),
    ];
    let long = "x".repeat(62_000);
    cases.push(Case {
        allowed: &[Reaction::Status(431)],
        ..with("a field that is too long", &[("x", &long)], "")
    });
    let far_too_long = "x".repeat(200_000);
    cases.push(Case {
        allowed: &[Reaction::Status(431), Reaction::Reset, Reaction::Closed],
        ..with("a field that is far too long", &[("x", &far_too_long)], "")
    });
    cases.push(Case { allowed: &[Reaction::Status(431)], ..with("too many fields", &[("x", "y"); 101], "") });
    cases.push(Case {
        allowed: &[Reaction::Status(200)],
        seen: &["/hostile"],
        ..with_host("a host and no authority", TARGET)
    });
    cases.push(Case {
        allowed: &[Reaction::Status(200)],
        seen: &["/good"],
        ..refused(
            "a usual request",
            &[&request("/./%67ood")[..], &[("content-length", "3"), ("te", "trailers")]].concat(),
            "abc",
        )
    });
    cases
}

/// Sends a request on stream 1: its fields in frames of at most 16 KiB, then its body.
async fn send(raw: &mut Raw, case: &Case) {
    let fields: Vec<_> = case.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let block = block(&fields);
    let end_stream = if case.body.is_empty() { END_STREAM } else { 0 };
    let parts: Vec<_> = block.chunks(16_384).collect();
    for (place, part) in parts.iter().enumerate() {
        let (kind, first) = if place == 0 { (HEADERS, end_stream) } else { (CONTINUATION, 0) };
        let last = if place + 1 == parts.len() { END_HEADERS } else { 0 };
        // It may have been refused before all of it is sent.
        let _ = raw.0.write_all(&frame(kind, first | last, 1, part)).await;
    }
    if !case.body.is_empty() {
        let _ = raw.0.write_all(&frame(DATA, END_STREAM, 1, case.body.as_bytes())).await;
    }
}

#[tokio::test]
async fn malformed_streams_are_refused_and_never_forwarded() {
    let mesh = Mesh::with_gateway(&[]).await;
    let mut complaints = Vec::new();
    for (listener, address) in mesh.listeners() {
        for case in cases() {
            mesh.app.seen();
            let mut raw = Raw::connect(address).await;
            send(&mut raw, &case).await;
            let outcome = raw.outcome(1).await;
            // What is wrong with one stream ends no other one. (After an answer, a stranger's connection is closed.)
            let next = match outcome {
                Reaction::Reset => {
                    let next = block(&request("/normal"));
                    raw.0.write_all(&frame(HEADERS, END_STREAM | END_HEADERS, 3, &next)).await.unwrap();
                    raw.outcome(3).await
                }
                _ => Reaction::Status(200),
            };
            // On the app's connection nothing is left over that would be taken for a request.
            mesh.is_served().await;
            let mut seen = mesh.app.seen();
            seen.retain(|path| path != "/normal");
            if !case.allowed.contains(&outcome) || next != Reaction::Status(200) || seen != case.seen {
                let complaint = format!("{outcome:?}, then {next:?}, the app saw {seen:?}");
                complaints.push(format!("{listener}: {}: {complaint}", case.what));
            }
        }
    }
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    mesh.is_well().await;
    for workload in [mesh.client(), mesh.target()] {
        let metrics = workload.admin("/metrics").await.expect("metrics").text();
        let refused =
            |line: &&str| line.contains("_requests_total{") && line.contains("error_type=\"head-too-large\"");
        let counts =
            metrics.lines().filter(refused).filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok());
        assert_eq!(counts.sum::<u32>(), 2, "too long, and too many fields: {metrics}");
    }
}
