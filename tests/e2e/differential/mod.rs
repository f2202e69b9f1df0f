//! What a pair of sidecars changes in messages, and that it changes nothing else.
//!
//! Each message of a broad corpus of odd but legal ones is sent to the app directly, and then through sidecars.
//! What the app sees and what the client sees must be the same, but for what `proxy/README.md` lists; each row
//! says which of those differences it has.

mod answers;
mod http2;
mod message;
mod requests;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use message::{Fields, Message, Reader};
use selvedge_demo::workload::{AppKind, Spec};
use selvedge_tests::Mesh;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::{SELVEDGE, raw::LIMIT};

/// The name under which the app is called.
const APP: &str = "app:8080";

/// A way to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// No sidecar.
    Direct,
    /// A pair that speaks HTTP/2.
    OverHttp2,
    /// A pair that speaks HTTP/1.1.
    OverHttp1,
    /// The server's sidecar alone: its client is in no mesh.
    Plain,
}

/// Those with sidecars.
const WAYS: [Way; 3] = [Way::OverHttp2, Way::OverHttp1, Way::Plain];

/// What the app answers, and what it does then.
#[derive(Debug, Clone)]
struct Script {
    answer: Vec<u8>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It reads the next request.
    GoOn,
    /// It closes its connection.
    Close,
    /// It breaks its connection.
    Break,
}

/// An app that answers as it is told, and the ways to it.
struct Apparatus {
    mesh: Mesh,
    script: Arc<Mutex<Script>>,
    seen: mpsc::UnboundedReceiver<Message>,
}

impl Apparatus {
    async fn new() -> Self {
        let mesh = mesh(&[]).await;
        let app = mesh.workload("app-1").app;
        let listener = TcpListener::bind(app).await.expect("the app's address is ours");
        let script = Arc::new(Mutex::new(Script { answer: Vec::new(), then: Then::Close }));
        let (notes, seen) = mpsc::unbounded_channel();
        let told = Arc::clone(&script);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&told), notes.clone()));
            }
        });
        Self { mesh, script, seen }
    }

    fn address(&self, way: Way) -> SocketAddr {
        address(&self.mesh, way)
    }

    fn tell(&self, answer: impl Into<Vec<u8>>, then: Then) {
        *self.script.lock().expect("no one panics with it") = Script { answer: answer.into(), then };
    }

    /// What the app sees of `request`, and what its client sees then. `method`: the request's.
    async fn exchange(&mut self, way: Way, method: &str, request: &[u8]) -> Exchange {
        let mut stream = TcpStream::connect(self.address(way)).await.expect("somebody listens");
        stream.write_all(request).await.expect("it is read");
        let mut reader = Reader::new(&mut stream);
        let answer = tokio::time::timeout(LIMIT, reader.answer(method)).await;
        let (interim, answer) = answer.ok().flatten().unzip();
        let app = self.seen.try_recv().ok();
        Exchange { app, interim: interim.unwrap_or_default(), answer }
    }
}

/// One request and its answer, from both ends.
struct Exchange {
    app: Option<Message>,
    interim: Vec<String>,
    answer: Option<Message>,
}

async fn mesh(flags: &[(&str, &str)]) -> Mesh {
    let mut server = Spec::server("app-1", "app", 8080);
    server.app = AppKind::None;
    let specs = [
        Spec::client("over-http2").flag("--carrier", "http2"),
        Spec::client("over-http1").flag("--carrier", "http1"),
        server,
    ];
    let specs = specs.map(|spec| flags.iter().fold(spec, |spec, (name, value)| spec.flag(name, value)));
    Mesh::of(SELVEDGE, specs).await
}

fn address(mesh: &Mesh, way: Way) -> SocketAddr {
    match way {
        Way::Direct => mesh.workload("app-1").app,
        Way::OverHttp2 => mesh.workload("over-http2").outbound,
        Way::OverHttp1 => mesh.workload("over-http1").outbound,
        Way::Plain => mesh.workload("app-1").inbound,
    }
}

/// Answers whole requests on one connection.
async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>, notes: mpsc::UnboundedSender<Message>) {
    let (read, mut write) = stream.into_split();
    let mut reader = Reader::new(read);
    while let Some(request) = reader.request().await {
        let Script { answer, then } = script.lock().expect("no one panics with it").clone();
        if notes.send(request).is_err() || write.write_all(&answer).await.is_err() {
            return;
        }
        match then {
            Then::GoOn => {}
            Then::Close => return,
            Then::Break => {
                let stream = write.as_ref();
                stream.set_zero_linger().expect("an open socket");
                return;
            }
        }
    }
}

/// What the app is told about whoever called by `way`.
fn forwarded(way: Way) -> Option<String> {
    let caller = match way {
        Way::OverHttp2 => "over-http2",
        Way::OverHttp1 => "over-http1",
        Way::Direct | Way::Plain => return None,
    };
    let of = |account| format!("spiffe://cluster.local/ns/default/sa/{account}");
    Some(format!("By={};URI={}", of("app"), of(caller)))
}

/// What `fields` are without those called `names`.
fn without(fields: &Fields, names: &[&str]) -> Fields {
    let kept = fields.iter().filter(|(name, _)| !names.contains(&name.as_str()));
    kept.map(|(name, values)| (name.clone(), values.clone())).collect()
}

/// The complaints of a whole corpus, at its end.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    #[expect(clippy::needless_pass_by_value, reason = "callers make both on the spot")]
    fn expect<T: PartialEq + std::fmt::Debug>(
        &mut self,
        what: &str,
        name: &str,
        way: Way,
        got: T,
        expected: T,
    ) {
        if got != expected {
            self.0.push(format!("{name:?}, {way:?}: {what}\n  is       {got:?}\n  expected {expected:?}"));
        }
    }
}

impl Drop for Complaints {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "{} differences:\n{}", self.0.len(), self.0.join("\n"));
        }
    }
}
