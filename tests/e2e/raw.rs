//! A pair of sidecars around a test that is both the client and the app, byte by byte: what libraries are too
//! well behaved to send, and what they would hide of an answer.

use std::{io, net::SocketAddr, time::Duration};

use bytes::BytesMut;
use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::Mesh;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::SELVEDGE;

/// How long any one exchange may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// Clients whose sidecars carry HTTP/1.1 requests over HTTP/2, and over HTTP/1.1.
pub(crate) const CALLERS: [&str; 2] = ["over-http2", "over-http1"];

/// The name under which the app is called.
pub(crate) const APP: &str = "app:8080";

/// The workload of the app.
pub(crate) const SERVER: &str = "app-1";

/// How long the server's sidecar lets what is in progress go on when it is terminated.
pub(crate) const DRAIN_TIMEOUT: &str = "2s";

/// The mesh, and the app's listening socket.
pub(crate) struct Around {
    pub(crate) mesh: Mesh,
    app: TcpListener,
}

impl Around {
    pub(crate) async fn new() -> Self {
        Self::with(&[]).await
    }

    /// All sidecars have these flags, too; those without a value have an empty one here.
    pub(crate) async fn with(flags: &[(&str, &str)]) -> Self {
        let [over_http2, over_http1] = CALLERS;
        let mut server = Spec::server(SERVER, "app", 8080);
        server.app = AppKind::None;
        let specs = [
            Spec::client(over_http2).flag("--carrier", "http2"),
            Spec::client(over_http1).flag("--carrier", "http1"),
            server.flag("--drain-timeout", DRAIN_TIMEOUT),
        ];
        let specs = specs.map(|mut spec| {
            let words = flags.iter().flat_map(|(name, value)| [*name, *value]);
            spec.flags.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
            spec
        });
        let mesh = Mesh::of(SELVEDGE, specs).await;
        let app = TcpListener::bind(mesh.workload(SERVER).app).await.expect("the app's address is ours");
        Self { mesh, app }
    }

    pub(crate) fn outbound(&self, caller: &str) -> SocketAddr {
        self.mesh.workload(caller).outbound
    }

    /// A connection of the client app `caller`'s to its sidecar.
    pub(crate) async fn client(&self, caller: &str) -> Raw {
        Raw::new(TcpStream::connect(self.outbound(caller)).await.expect("the sidecar listens"))
    }

    /// A new client's `request`, as far as the app, which has read its head.
    pub(crate) async fn asked(&self, caller: &str, request: impl AsRef<[u8]>) -> (Raw, Raw) {
        let mut client = self.client(caller).await;
        client.send(request).await;
        let mut app = self.accept().await;
        app.head().await;
        (client, app)
    }

    /// A connection of a client without a sidecar to the server's.
    pub(crate) async fn plain_client(&self) -> Raw {
        let inbound = self.mesh.workload(SERVER).inbound;
        Raw::new(TcpStream::connect(inbound).await.expect("the sidecar listens"))
    }

    /// The next connection of the server's sidecar to the app.
    pub(crate) async fn accept(&self) -> Raw {
        let (stream, _) = within("a connection to the app", self.app.accept()).await.expect("a connection");
        Raw::new(stream)
    }
}

impl Around {
    /// The next connection to the app, whenever it comes.
    pub(crate) async fn accept_unhurried(&self) -> TcpStream {
        self.app.accept().await.expect("a connection").0
    }

    /// Whether no connection to the app comes for longer than any retry waits.
    pub(crate) async fn nobody_connects(&self) -> bool {
        timeout(Duration::from_millis(500), self.app.accept()).await.is_err()
    }
}

/// One connection, and what was read from it too early.
pub(crate) struct Raw {
    pub(crate) stream: TcpStream,
    read: BytesMut,
}

impl Raw {
    /// A connection that somebody else has made.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self::new(stream)
    }

    fn new(stream: TcpStream) -> Self {
        Self { stream, read: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("writing", self.stream.write_all(bytes.as_ref())).await.expect("the other end reads");
    }

    /// Everything up to and including `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        self.try_until(end).await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; an error if the other end closes or breaks the connection before.
    async fn try_until(&mut self, end: &str) -> Result<String, String> {
        loop {
            let found = self.read.windows(end.len()).position(|window| window == end.as_bytes());
            if let Some(at) = found {
                let text = self.read.split_to(at + end.len());
                return Ok(String::from_utf8(text.to_vec()).expect("text"));
            }
            let more = within(end, self.stream.read_buf(&mut self.read)).await;
            if more.as_ref().map_or(true, |&more| more == 0) {
                return Err(format!(
                    "{more:?} instead of {end:?} after {:?}",
                    String::from_utf8_lossy(&self.read)
                ));
            }
        }
    }

    /// The head of a message.
    pub(crate) async fn head(&mut self) -> Head {
        self.try_head().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The same; an error if the other end closes or breaks the connection before.
    pub(crate) async fn try_head(&mut self) -> Result<Head, String> {
        self.try_until("\r\n\r\n").await.map(Head)
    }

    /// Exactly `length` bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> String {
        while self.read.len() < length {
            let more = within("more bytes", self.stream.read_buf(&mut self.read)).await;
            assert!(more.is_ok_and(|more| more > 0), "only {:?}", String::from_utf8_lossy(&self.read));
        }
        String::from_utf8(self.read.split_to(length).to_vec()).expect("text")
    }

    /// What comes before the other end closes or breaks the connection.
    pub(crate) async fn rest(&mut self) -> String {
        loop {
            match within("the end", self.stream.read_buf(&mut self.read)).await {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&self.read.split()).into_owned(),
                Ok(_) => {}
            }
        }
    }

    /// Answers the request that was just read with 200 and `body`, and no more after that: so each request
    /// finds a connection to the app of its own.
    pub(crate) async fn answer(&mut self, body: &str) {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        self.send(head + body).await;
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// Closes the connection with a reset, as a killed process's is.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("an open socket");
    }
}

/// The first lines of a message, to the empty one.
pub(crate) struct Head(pub(crate) String);

impl Head {
    pub(crate) fn first_line(&self) -> &str {
        self.0.lines().next().unwrap_or_default()
    }

    pub(crate) fn status(&self) -> &str {
        self.first_line().split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header, if there is exactly one.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.0.lines().skip(1).filter_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        });
        values.next().filter(|_| values.next().is_none())
    }
}

/// `what`, within [`LIMIT`].
pub(crate) async fn within<T>(name: &str, what: impl Future<Output = T>) -> T {
    timeout(LIMIT, what).await.unwrap_or_else(|_| panic!("not within {LIMIT:?}: {name}"))
}
