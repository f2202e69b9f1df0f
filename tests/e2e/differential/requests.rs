//! What the app sees of requests.

use super::{APP, Apparatus, Complaints, Message, Then, WAYS, Way, forwarded, message::Framing, without};

/// A request, and what the app is to see otherwise than if it had been sent directly.
struct Row {
    name: String,
    method: String,
    request: Vec<u8>,
    /// Fields that do not arrive.
    gone: &'static [&'static str],
    /// The target that arrives instead.
    target: Option<&'static str>,
    /// The values of a field that arrive instead.
    instead: Option<(&'static str, &'static str)>,
    /// Trailers are not passed on: no `Trailer` names them.
    loses_trailers: bool,
}

impl Row {
    /// `lines`: the fields, after the Host; `body`: all that follows the head.
    fn new(name: &str, method: &str, target: &str, lines: &str, body: &str) -> Self {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: {APP}\r\n{lines}\r\n{body}");
        Self::raw(name, method, request)
    }

    fn raw(name: &str, method: &str, request: impl Into<Vec<u8>>) -> Self {
        let (name, method, request) = (name.to_owned(), method.to_owned(), request.into());
        Self { name, method, request, gone: &[], target: None, instead: None, loses_trailers: false }
    }

    fn gone(mut self, names: &'static [&'static str]) -> Self {
        self.gone = names;
        self
    }

    fn target(mut self, target: &'static str) -> Self {
        self.target = Some(target);
        self
    }

    fn loses_trailers(mut self) -> Self {
        self.loses_trailers = true;
        self
    }

    fn instead(mut self, name: &'static str, value: &'static str) -> Self {
        self.instead = Some((name, value));
        self
    }
}

/// Every method with every body that a request may have (RFC 9112, section 6).
fn bodies() -> Vec<Row> {
    const METHODS: [&str; 13] = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
        "PATCH",
        "TRACE",
        "PROPFIND",
        "M-SEARCH",
        "BREW",
        "get",
        "a!#$%&'*+-.^_`|~9",
    ];
    const BODIES: [(&str, &str, &str); 10] = [
        ("an expectation", "Expect: 100-continue\r\nContent-Length: 3\r\n", "abc"),
        ("no body", "", ""),
        ("a length of 0", "Content-Length: 0\r\n", ""),
        ("a length", "Content-Length: 3\r\n", "abc"),
        ("a length with zeros before it", "Content-Length: 0003\r\n", "abc"),
        ("chunks", "Transfer-Encoding: chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
        ("chunks in capitals", "TRANSFER-ENCODING: Chunked\r\n", "00A\r\n0123456789\r\n000\r\n\r\n"),
        ("no chunk but the last", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        (
            "chunks with extensions",
            "Transfer-Encoding: chunked\r\n",
            "1;a=b;c=\"d\"\r\na\r\n2;e\r\nbc\r\n0;f=g\r\n\r\n",
        ),
        (
            "chunks and trailers",
            "Transfer-Encoding: chunked\r\nTrailer: X-Sum, X-More\r\n",
            "3\r\nabc\r\n0\r\nX-Sum: 1\r\nX-More: 2\r\nx-sum: 3\r\n\r\n",
        ),
    ];
    let rows = METHODS.iter().flat_map(|method| BODIES.map(move |body| (*method, body)));
    let rows = rows.map(|(method, (name, lines, body))| match name {
        "an expectation" => Row::new(name, method, "/x", lines, body).gone(&["expect"]),
        _ => Row::new(name, method, "/x", lines, body),
    });
    rows.collect()
}

fn fields() -> Vec<Row> {
    let get = |name, lines: &str| Row::new(name, "GET", "/x", lines, "");
    let many: String = (0..60).map(|n| format!("X-Many: {n}\r\n")).collect();
    let long = format!("X-Long: {}\r\n", "0123456789abcdef".repeat(1500));
    let various: String = (0..80).map(|n| format!("X-Field-{n}: {n}\r\n")).collect();
    let mut rows = vec![
        get("empty values", "X-Empty:\r\nX-Blank:  \t \r\n"),
        get("space around values", "X-A:\t a b\t c \t\r\nX-B:none\r\n"),
        get("many of one name", &many),
        get("many of many names", &various),
        get("a long value", &long),
        get("one name among others", "X-A: 1\r\nX-B: 2\r\nx-a: 3\r\nX-B: 4\r\nX-A: 5, 6\r\n"),
        get("a name of all letters that there are", "a!#$%&'*+-.^_`|~9: 1\r\n"),
        get("values of all marks", "X-Marks: \"a\\\"b\"; (c), <d> @e [f] {g} = ? / : ;\r\n"),
        get("names with underscores", "X_Under: 1\r\nx-under: 2\r\n"),
        get(
            "what other proxies say",
            "Via: 1.0 fred, 1.1 p.example\r\nForwarded: for=192.0.2.60;proto=http\r\nX-Forwarded-For: 1.2.3.4\r\n\
             X-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 1.2.3.4\r\nX-Request-Id: 7\r\n",
        ),
        get("credentials", "Authorization: Basic eDp5\r\nProxy-Authorization: Basic eDp5\r\nCookie: a=b; c=d\r\n"),
        get("conditions", "If-None-Match: \"a\", W/\"b\"\r\nIf-Modified-Since: x\r\nRange: bytes=0-1,5-\r\nIf-Range: \"a\"\r\n"),
        get("a date", "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\nFrom: a@b\r\nReferer: http://a/?b#c\r\n"),
        get("connection options", "Connection: close, X-Hop\r\nX-Hop: 1\r\nX-End: 2\r\n").gone(&["x-hop"]),
        get("in several lines", "Connection: x-hop\r\nConnection: X-HOP2 , keep-alive\r\nX-Hop: 1\r\nX-Hop2: 2\r\nKeep-Alive: 5\r\n")
            .gone(&["x-hop", "x-hop2", "keep-alive"]),
        get("options that must not go", "Connection: host, close\r\n"),
        get("an old client's", "Proxy-Connection: keep-alive\r\nKeep-Alive: 300\r\nConnection: keep-alive\r\n")
            .gone(&["proxy-connection", "keep-alive"]),
        get("an upgrade that nobody takes up", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n")
            .gone(&["upgrade", "http2-settings"]),
        get("trailers are accepted", "TE: trailers\r\nConnection: TE\r\n"),
        get("more than trailers is accepted", "TE: trailers, deflate;q=0.5\r\nConnection: TE\r\n").instead("te", "trailers"),
        get("other than trailers is accepted", "TE: deflate\r\nConnection: TE\r\n").gone(&["te"]),
        get("an expectation without a body", "Expect: 100-continue\r\n").gone(&["expect"]),
        get("another expectation", "Expect: x-something\r\n"),
        get("a Trailer without trailers", "Trailer: x-sum\r\n"),
        get("how far it may go", "Max-Forwards: 0\r\n"),
        Row::new("how far a TRACE may go", "TRACE", "/x", "Max-Forwards: 3\r\n", ""),
        get("what we say ourselves", "X-Forwarded-Client-Cert: By=a\r\nX_Forwarded_Client_Cert: By=b\r\nSelvedge-Error: x\r\n")
            .gone(&["x-forwarded-client-cert", "x_forwarded_client_cert", "selvedge-error"]),
        Row::new("a length that is nominated", "POST", "/x", "Connection: content-length\r\nContent-Length: 3\r\n", "abc"),
        Row::new("a coded body", "PUT", "/x", "Content-Encoding: gzip\r\nContent-MD5: x\r\nContent-Range: bytes 0-2/3\r\nContent-Length: 3\r\n", "abc"),
    ];
    let unannounced = "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    rows.push(
        Row::new("trailers that nothing announces", "POST", "/x", chunked, unannounced).loses_trailers(),
    );
    let mut any_bytes = format!("GET /x HTTP/1.1\r\nHost: {APP}\r\nX-Any: ").into_bytes();
    any_bytes.extend(b' '..=b'~');
    any_bytes.extend(0x80..=0xFF);
    any_bytes.extend(b"\tend\r\n\r\n");
    rows.push(Row::raw("any bytes that a value may have", "GET", any_bytes));
    rows.push(Row::raw(
        "empty lines before it",
        "GET",
        format!("\r\n\r\nGET /x HTTP/1.1\r\nHost: {APP}\r\n\r\n"),
    ));
    rows.push(Row::raw(
        "no space after a colon",
        "GET",
        format!("GET /x HTTP/1.1\r\nhost:{APP}\r\nx-a:1\r\n\r\n"),
    ));
    rows.push(Row::raw(
        "a Host in the middle",
        "GET",
        format!("GET /x HTTP/1.1\r\nX-A: 1\r\nHOST: \t{APP} \r\nX-A: 2\r\n\r\n"),
    ));
    rows
}

fn targets() -> Vec<Row> {
    const SAME: [&str; 24] = [
        "/",
        "//",
        "//a//b//",
        "/?",
        "/a?",
        "/a?b=c",
        "/a?b=c?d&&e=&f",
        "/a;b=c;d/e",
        "/a%2Fb%2fc",
        "/a%20b",
        "/%E2%82%AC",
        "/a:b@c",
        "/!$&'()*+,;=:@",
        "/a[b]",
        "/~user/-._",
        "/?a=/../b/./c",
        "/?%zz=%",
        "/?q={}|\\^`",
        "/a?b=%41%2e",
        "/a...b/.../..c",
        "/a%25b",
        "/index.php/a.b/",
        "/a?b:c@d!$'()*+,;",
        "/a,b",
    ];
    let mut rows: Vec<_> = SAME.iter().map(|target| Row::new(target, "GET", target, "", "")).collect();
    for (sent, arrives) in [
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/%2e%2E/b", "/b"),
        ("/%7Euser%2dx", "/~user-x"),
        ("/a\\b", "/a/b"),
        ("/a{b}", "/a%7Bb%7D"),
        ("http://app:8080/x?y", "/x?y"),
        ("HTTP://app:8080/x", "/x"),
        ("http://app:8080", "/"),
        ("http://app:8080?y", "/?y"),
    ] {
        rows.push(Row::new(sent, "GET", sent, "", "").target(arrives));
    }
    rows.push(Row::new("an asterisk", "OPTIONS", "*", "", ""));
    let long = format!("/{}?{}", "a/".repeat(8_000), "b=c&".repeat(2_000));
    rows.push(Row::new(&long, "GET", &long, "", ""));
    rows.push(Row::raw("HTTP/1.0", "GET", format!("GET /x HTTP/1.0\r\nHost: {APP}\r\n\r\n")));
    rows.push(Row::raw(
        "HTTP/1.0, kept",
        "GET",
        format!("GET /x HTTP/1.0\r\nHost: {APP}\r\nConnection: keep-alive\r\n\r\n"),
    ));
    rows.push(Row::raw(
        "HTTP/1.0 with a body",
        "POST",
        format!("POST /x HTTP/1.0\r\nHost: {APP}\r\nContent-Length: 3\r\n\r\nabc"),
    ));
    let absolute = Row::raw("HTTP/1.0 to a proxy", "GET", format!("GET http://{APP}/x HTTP/1.0\r\n\r\n"));
    rows.push(absolute.target("/x").instead("host", APP));
    rows
}

#[tokio::test]
async fn the_app_sees_what_it_would_see_without_us() {
    let mut apparatus = Apparatus::new().await;
    apparatus.tell("HTTP/1.1 204 No Content\r\n\r\n", Then::GoOn);
    let mut complaints = Complaints::default();

    for row in [bodies(), fields(), targets()].into_iter().flatten() {
        let name = format!("{} {}", row.method, row.name);
        let direct = apparatus.exchange(Way::Direct, &row.method, &row.request).await;
        let direct = direct.app.unwrap_or_else(|| panic!("{name}: the app does not read it"));
        for way in WAYS {
            let through = apparatus.exchange(way, &row.method, &row.request).await;

            let status = through.answer.as_ref().map(Message::status);
            complaints.expect("the answer", &name, way, status, Some("204"));
            complaints.expect("what arrives", &name, way, through.app, Some(expected(&row, &direct, way)));
        }
    }
}

/// What the app is to see, given what it sees of the same request directly.
fn expected(row: &Row, direct: &Message, way: Way) -> Message {
    let mut expected = direct.clone();
    let target = row.target.unwrap_or(&direct.first[1]).to_owned();
    expected.first = [direct.first[0].clone(), target, "HTTP/1.1".to_owned()];
    expected.fields = without(&direct.fields, row.gone);
    expected.fields.remove("connection");
    if let Some((name, value)) = row.instead {
        expected.fields.insert(name.to_owned(), vec![value.to_owned()]);
    }
    if row.loses_trailers {
        expected.trailers.clear();
    }
    if expected.fields.contains_key("te") {
        expected.fields.insert("connection".to_owned(), vec!["te".to_owned()]);
    }
    if expected.framing == Framing::Chunked {
        expected.fields.insert("transfer-encoding".to_owned(), vec!["chunked".to_owned()]);
    }
    if let Some(peer) = forwarded(way) {
        expected.fields.insert("x-forwarded-client-cert".to_owned(), vec![peer]);
    }
    expected
}
