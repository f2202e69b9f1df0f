//! What the client sees of answers.

use http::StatusCode;

use super::{APP, Apparatus, Complaints, Message, Then, WAYS, Way, message::Framing, without};

/// An answer, and what the client is to see otherwise than if it had got it directly.
struct Row {
    name: &'static str,
    method: &'static str,
    answer: Vec<u8>,
    then: Then,
    /// Fields that do not arrive.
    gone: &'static [&'static str],
    /// The values of a field that arrive instead.
    instead: Option<(&'static str, &'static str)>,
    /// The framing that arrives instead.
    framing: Option<Framing>,
    /// Trailers are not passed on: no `Trailer` names them.
    loses_trailers: bool,
    /// It is refused, as `protocol`: no reader could be sure of it.
    refused: bool,
    /// Interim answers that arrive where HTTP/1.1 goes all the way.
    interim: &'static [&'static str],
}

impl Row {
    fn new(name: &'static str, method: &'static str, answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        let (gone, instead, framing, interim) = (&[][..], None, None, &[][..]);
        Self {
            name,
            method,
            answer,
            then: Then::GoOn,
            gone,
            instead,
            framing,
            loses_trailers: false,
            refused: false,
            interim,
        }
    }

    fn then(mut self, then: Then) -> Self {
        self.then = then;
        self
    }

    fn gone(mut self, names: &'static [&'static str]) -> Self {
        self.gone = names;
        self
    }

    fn instead(mut self, name: &'static str, value: &'static str) -> Self {
        self.instead = Some((name, value));
        self
    }

    fn framed(mut self, framing: Framing) -> Self {
        self.framing = Some(framing);
        self
    }

    fn loses_trailers(mut self) -> Self {
        self.loses_trailers = true;
        self
    }

    fn refused(mut self) -> Self {
        self.refused = true;
        self.then = Then::Close;
        self
    }

    fn interim(mut self, statuses: &'static [&'static str]) -> Self {
        self.interim = statuses;
        self
    }
}

fn get(name: &'static str, answer: &str) -> Row {
    Row::new(name, "GET", format!("HTTP/1.1 {answer}"))
}

fn lengths() -> Vec<Row> {
    let head = |name, answer: &str| Row::new(name, "HEAD", format!("HTTP/1.1 {answer}"));
    vec![
        get("a length", "200 OK\r\nContent-Length: 2\r\n\r\nok"),
        get("a length of 0", "200 OK\r\nContent-Length: 0\r\n\r\n"),
        get("chunks", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        get("chunks in capitals, with extensions", "200 OK\r\nTRANSFER-ENCODING: CHUNKED\r\n\r\n2;a=b\r\nok\r\n0;c\r\n\r\n")
            .instead("transfer-encoding", "chunked"),
        get("no chunk but the last", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        get("trailers", "200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\nX-Sum: 2\r\n\r\n"),
        get("trailers that nothing announces", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 1\r\n\r\n").loses_trailers(),
        get("trailers that must not be", "200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: selvedge-error, content-length, x_forwarded_client_cert\r\n\r\n2\r\nok\r\n0\r\nSelvedge-Error: policy: no\r\nContent-Length: 9\r\nX_Forwarded_Client_Cert: x\r\n\r\n").loses_trailers(),
        get("the connection's end", "200 OK\r\n\r\nok").then(Then::Close).framed(Framing::Chunked),
        get("the connection's end, announced", "200 OK\r\nConnection: close\r\n\r\nok").then(Then::Close).framed(Framing::Chunked),
        get("the connection's end, broken", "200 OK\r\n\r\nok").then(Then::Break).framed(Framing::Chunked),
        Row::new("HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").then(Then::Close),
        Row::new("HTTP/1.0, to the connection's end", "GET", "HTTP/1.0 200 OK\r\n\r\nok").then(Then::Close).framed(Framing::Chunked),
        get("204", "204 No Content\r\nX-A: 1\r\n\r\n"),
        get("204 with a length", "204 No Content\r\nContent-Length: 0\r\n\r\n").gone(&["content-length"]),
        get("204 with chunks", "204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n").gone(&["transfer-encoding"]),
        get("205", "205 Reset Content\r\nContent-Length: 0\r\n\r\n"),
        get("205 in chunks", "205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        get("304", "304 Not Modified\r\nETag: \"7\"\r\n\r\n"),
        get("304 with a length", "304 Not Modified\r\nETag: \"7\"\r\nContent-Length: 1234\r\n\r\n"),
        get("304 with a length of 0", "304 Not Modified\r\nContent-Length: 0\r\n\r\n"),
        get("304 in chunks", "304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n").gone(&["transfer-encoding"]),
        head("304 to HEAD", "304 Not Modified\r\nContent-Length: 1234\r\n\r\n"),
        head("a length to HEAD", "200 OK\r\nContent-Length: 1234\r\n\r\n"),
        head("a length of 0 to HEAD", "200 OK\r\nContent-Length: 0\r\n\r\n"),
        head("chunks to HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").gone(&["transfer-encoding"]),
        head("both to HEAD", "200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n").gone(&["transfer-encoding", "content-length"]),
        head("trailers to HEAD", "200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x\r\n\r\n")
            .gone(&["transfer-encoding", "trailer"]),
        head("nothing to HEAD", "200 OK\r\nX-A: 1\r\n\r\n"),
        head("a length that is none to HEAD", "200 OK\r\nContent-Length: -1\r\n\r\n").gone(&["content-length"]),
        head("204 to HEAD", "204 No Content\r\nContent-Length: 0\r\n\r\n").gone(&["content-length"]),
        head("404 to HEAD", "404 Not Found\r\nContent-Length: 9\r\n\r\n"),
        get("both", "200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").gone(&["content-length"]),
        get("both, the other way", "200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n2\r\nok\r\n0\r\n\r\n").gone(&["content-length"]),
        get("a list of equal lengths", "200 OK\r\nContent-Length: 2, 2\r\n\r\nok").instead("content-length", "2"),
        get("equal lengths", "200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok").instead("content-length", "2"),
        get("lengths that differ", "200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!").refused(),
        get("a list of lengths that differ", "200 OK\r\nContent-Length: 2, 3\r\n\r\nok!").refused(),
        get("a negative length", "200 OK\r\nContent-Length: -2\r\n\r\nok").refused(),
        get("a length with a sign", "200 OK\r\nContent-Length: +2\r\n\r\nok").refused(),
        get("a length that is not a number", "200 OK\r\nContent-Length: two\r\n\r\nok").refused(),
        get("an endless length", "200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nok").refused(),
        get("a coding that nobody asked for", "200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").refused(),
        get("a coding in another line", "200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").refused(),
        get("chunked is not the last", "200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\nok").refused(),
        get("chunked twice", "200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").refused(),
        get("identity", "200 OK\r\nTransfer-Encoding: identity\r\n\r\nok").then(Then::Close).framed(Framing::Chunked),
        get("identity and a length", "200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok").refused(),
        Row::new("chunks of HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").refused(),
        get("a chunk that is none", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").then(Then::Close),
        get("less than the length", "200 OK\r\nContent-Length: 9\r\n\r\nok").then(Then::Close),
        get("less than the length, broken", "200 OK\r\nContent-Length: 9\r\n\r\nok").then(Then::Break),
        get("no last chunk", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n").then(Then::Close),
        get("half a chunk", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok").then(Then::Close),
        get("half of the trailers", "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: 1").then(Then::Close),
        get("more than the length", "200 OK\r\nContent-Length: 2\r\n\r\nok, and more").then(Then::Close),
        get("a large one", &format!("200 OK\r\nContent-Length: 300000\r\n\r\n{}", "0123456789".repeat(30_000))),
    ]
}

fn heads() -> Vec<Row> {
    let with = |name, lines: &str| get(name, &format!("200 OK\r\nContent-Length: 2\r\n{lines}\r\nok"));
    let many: String = (0..80).map(|n| format!("X-Field-{n}: {n}\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "0123456789abcdef".repeat(1500));
    let mut rows = vec![
        get("a status without a name", "299 \r\nContent-Length: 2\r\n\r\nok"),
        get("a status without even a space", "299\r\nContent-Length: 2\r\n\r\nok"),
        get("a status with a name of the app's", "299 All Fine\r\nContent-Length: 2\r\n\r\nok"),
        get("a usual status with a name of the app's", "200 Fine\r\nContent-Length: 2\r\n\r\nok"),
        get("a usual status without a name", "404 \r\nContent-Length: 2\r\n\r\nno"),
        get("a status beyond all classes", "799 X\r\nContent-Length: 2\r\n\r\nok"),
        get("a redirection", "302 Found\r\nLocation: //a/../b?c#d\r\nContent-Length: 0\r\n\r\n"),
        get("a part", "206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nok"),
        get("no part", "416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n"),
        get("an app that is a proxy", "407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"a, b\"\r\nContent-Length: 0\r\n\r\n"),
        get("challenges", "401 Unauthorized\r\nWWW-Authenticate: Basic realm=x\r\nWWW-Authenticate: Bearer\r\nContent-Length: 0\r\n\r\n"),
        get("an upgrade that is required", "426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n").gone(&["upgrade"]),
        with("cookies", "Set-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c\r\nSet-Cookie: a=3\r\n"),
        with("empty values", "X-Empty:\r\nX-Blank: \t \r\n"),
        with("one name among others", "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nX-B: 4\r\n"),
        with("many fields", &many),
        with("a long value", &long),
        with("a date", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nLast-Modified: x\r\nExpires: 0\r\nAge: 5\r\n"),
        with("two dates", "Date: a\r\nDate: b\r\n"),
        with("what other proxies say", "Via: 1.1 a\r\nWarning: 110 - \"x\"\r\nX-Forwarded-Client-Cert: By=a\r\nServer: x y/z (a)\r\n"),
        with("connection options", "Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n").gone(&["x-hop"]).then(Then::Close),
        with("in several lines", "Connection: x-hop\r\nConnection: x-hop2\r\nX-Hop: 1\r\nX-Hop2: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: close\r\n")
            .gone(&["x-hop", "x-hop2", "keep-alive", "proxy-connection"]),
        with("options that must not go", "Connection: content-length\r\n"),
        with("what we say ourselves", "Selvedge-Error: policy: no\r\nselvedge_error: x\r\nSelvedge-Hop: 1\r\n").gone(&["selvedge-error", "selvedge_error", "selvedge-hop"]),
        with("other upgrades", "Upgrade: h2c\r\nConnection: upgrade\r\nAlt-Svc: h3=\":443\"\r\n").gone(&["upgrade"]),
        with("a Trailer without trailers", "Trailer: x\r\n"),
        with("a name of all letters that there are", "a!#$%&'*+-.^_`|~9: 1\r\n"),
        get("lines that end with a line feed alone", "200 OK\nContent-Length: 2\nX-A: 1\n\nok"),
        with("a space before a colon", "X-A : 1\r\n"),
        with("a folded line", "X-A: 1\r\n 2\r\n").refused(),
        with("a name that is none", "X A: 1\r\n").refused(),
        get("a line that is no field", "200 OK\r\nnonsense\r\n\r\n").refused(),
        Row::new("no HTTP", "GET", "nonsense\r\n\r\n").refused(),
        Row::new("another version", "GET", "HTTP/3.0 200 OK\r\n\r\n").refused(),
        get("a hint before", "103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").interim(&["103"]),
        get("a 100 before that nobody waits for", "100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        get("many before", "102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").interim(&["102", "103", "199"]),
        get("an upgrade that nobody asked for", "101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").refused(),
    ];
    let mut any_bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Any: ".to_vec();
    any_bytes.extend(b' '..=b'~');
    any_bytes.extend(0x80..=0xFF);
    any_bytes.extend(b"\tend\r\n\r\nok");
    rows.push(Row::new("any bytes that a value may have", "GET", any_bytes));
    rows
}

/// Versions of HTTP that a client may speak, and what comes of them on the wire.
const VERSIONS: [&str; 2] = ["HTTP/1.1", "HTTP/1.0"];

#[tokio::test]
async fn the_client_sees_what_it_would_see_without_us() {
    let mut apparatus = Apparatus::new().await;
    let mut complaints = Complaints::default();
    for version in VERSIONS {
        for row in [lengths(), heads()].into_iter().flatten() {
            compare(&mut apparatus, &mut complaints, version, &row).await;
        }
    }
}

async fn compare(apparatus: &mut Apparatus, complaints: &mut Complaints, version: &str, row: &Row) {
    let name = format!("{version} {} {}", row.method, row.name);
    let request = format!("{} /x {version}\r\nHost: {APP}\r\nTE: trailers\r\n\r\n", row.method);
    apparatus.tell(row.answer.clone(), row.then);
    let direct = apparatus.exchange(Way::Direct, row.method, request.as_bytes()).await.answer;
    for way in WAYS {
        let through = apparatus.exchange(way, row.method, request.as_bytes()).await;
        // A retry is another request.
        while apparatus.seen.try_recv().is_ok() {}
        let Some(mut got) = through.answer else {
            complaints.expect("the answer", &name, way, "none", "some");
            continue;
        };
        if row.refused {
            let word = got.field("selvedge-error").first().and_then(|error| error.split(':').next());
            complaints.expect("the refusal", &name, way, (got.status(), word), ("502", Some("protocol")));
            continue;
        }
        let Some(direct) = &direct else { panic!("{name}: no answer directly") };
        let mut expected = expected(row, direct, way, version);
        if !expected.fields.contains_key("date") {
            // RFC 9110, section 6.6.1: whoever passes it on adds one.
            let dates = got.fields.remove("date").map_or(0, |dates| dates.len());
            complaints.expect("its date", &name, way, dates, 1);
        }
        got.fields.remove("connection");
        if !expected.is_whole && expected.body.starts_with(&got.body) {
            // What came before the break may have come or not.
            expected.body.clone_from(&got.body);
        }
        let passes_interim = way != Way::OverHttp2 && version == "HTTP/1.1";
        let interim = if passes_interim { row.interim } else { &[] };
        complaints.expect("what comes before", &name, way, through.interim.join(" "), interim.join(" "));
        complaints.expect("what arrives", &name, way, got, expected);
    }
}

/// What a client of `version` is to see, given what it sees of the same answer directly.
fn expected(row: &Row, direct: &Message, way: Way, version: &str) -> Message {
    let mut expected = direct.clone();
    version.clone_into(&mut expected.first[0]);
    if way == Way::OverHttp2 {
        // HTTP/2 has no words for a status: the usual ones are put there again.
        let usual = StatusCode::from_bytes(direct.status().as_bytes())
            .ok()
            .and_then(|status| status.canonical_reason());
        usual.unwrap_or_default().clone_into(&mut expected.first[2]);
    }
    expected.fields = without(&direct.fields, row.gone);
    expected.fields.remove("connection");
    if let Some((name, value)) = row.instead {
        expected.fields.insert(name.to_owned(), vec![value.to_owned()]);
    }
    if let Some(framing) = row.framing {
        expected.framing = framing;
        expected.fields.insert("transfer-encoding".to_owned(), vec!["chunked".to_owned()]);
    }
    if row.loses_trailers {
        expected.trailers.clear();
    }
    if version == "HTTP/1.0" && expected.framing == Framing::Chunked {
        // Which it does not know (RFC 9112, section 6.1).
        expected.framing = Framing::Closed;
        expected.fields.remove("transfer-encoding");
        expected.trailers.clear();
    }
    if version == "HTTP/1.0" {
        expected.fields.remove("trailer");
    }
    expected
}
