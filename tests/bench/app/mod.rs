//! The backend: answers every request without a body with the same preformatted bytes, and carries bulk.
//!
//! It understands just enough of HTTP/1.1 and HTTP/2 to count requests, because whatever it spends is taken
//! from the machine that the proxies share.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::Context;

use self::http1::Http1;
use self::http2::Http2;
use crate::process::announce;
use crate::readiness::Readiness;

mod http1;
mod http2;
mod slow;

const LISTENER: u64 = 0;
const STDIN: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// How much is read at once, and how much more of an answer is made when the last of it is on its way.
const CHUNK: usize = 256 * 1024;

/// What every answer without bulk has as its body.
const BODY_BYTES: usize = 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How long each answer takes, in milliseconds; HTTP/1.1 only.
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    #[arg(long, hide = true)]
    exit_on_stdin_close: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}; is the port taken?", args.listen))?;
    announce("app", listener.local_addr()?)?;
    if args.delay_ms > 0 {
        let delay = Duration::from_millis(args.delay_ms);
        return slow::serve(&listener, delay, args.exit_on_stdin_close);
    }
    listener.set_nonblocking(true)?;
    App::new(listener, args)?.serve().context("the app failed")
}

struct App {
    listener: TcpListener,
    readiness: Readiness,
    connections: Vec<Option<Connection>>,
    buffer: Vec<u8>,
}

impl App {
    fn new(listener: TcpListener, args: &Args) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        readiness.watch(&listener, LISTENER)?;
        if args.exit_on_stdin_close {
            readiness.watch(io::stdin(), STDIN)?;
        }
        Ok(Self { listener, readiness, connections: Vec::new(), buffer: vec![0; CHUNK] })
    }

    fn serve(mut self) -> io::Result<()> {
        let mut ready = Vec::new();
        loop {
            self.readiness.wait(&mut ready, None)?;
            for id in &ready {
                match *id {
                    LISTENER => self.accept()?,
                    STDIN if io::stdin().read(&mut [0; 64])? == 0 => return Ok(()),
                    STDIN => {}
                    connection => self.answer((connection - FIRST_CONNECTION) as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            // The caller gave up between its arrival and now.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let index = match self.connections.iter().position(Option::is_none) {
            Some(index) => index,
            None => {
                self.connections.push(None);
                self.connections.len() - 1
            }
        };
        self.readiness.watch(&stream, FIRST_CONNECTION + index as u64)?;
        self.connections[index] = Some(Connection::new(stream));
        Ok(())
    }

    /// Goes on with a connection; one that ends or fails is dropped.
    fn answer(&mut self, index: usize) -> io::Result<()> {
        let Some(connection) = &mut self.connections[index] else { return Ok(()) };
        let was_waiting = connection.waits();
        match connection.advance(&mut self.buffer) {
            Ok(()) => {
                let waits = connection.waits();
                if waits != was_waiting {
                    let id = FIRST_CONNECTION + index as u64;
                    self.readiness.rewatch(&connection.stream, id, waits)?;
                }
            }
            Err(_) => self.connections[index] = None,
        }
        Ok(())
    }
}

struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    /// What is to be sent and did not fit the socket yet.
    unsent: Vec<u8>,
}

/// What a client speaks shows in its first bytes.
enum Protocol {
    Unknown(Vec<u8>),
    Http1(Http1),
    Http2(Http2),
}

impl Connection {
    const fn new(stream: TcpStream) -> Self {
        Self { stream, protocol: Protocol::Unknown(Vec::new()), unsent: Vec::new() }
    }

    /// Whether it has something to send and no room for it.
    fn waits(&self) -> bool {
        !self.unsent.is_empty() || matches!(&self.protocol, Protocol::Http1(http1) if http1.has_more())
    }

    /// Reads what has come, unless an answer is under way, and sends what can be sent.
    fn advance(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        if !self.waits() {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.receive(&buffer[..read])?;
        }
        loop {
            if self.unsent.is_empty()
                && let Protocol::Http1(http1) = &mut self.protocol
            {
                http1.more(&mut self.unsent);
            }
            if self.unsent.is_empty() {
                return Ok(());
            }
            match self.stream.write(&self.unsent) {
                Ok(written) if written == self.unsent.len() => self.unsent.clear(),
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.protocol {
            Protocol::Http1(http1) => http1.receive(bytes, &mut self.unsent),
            Protocol::Http2(http2) => http2.receive(bytes, &mut self.unsent),
            Protocol::Unknown(start) => {
                start.extend_from_slice(bytes);
                let start = std::mem::take(start);
                if let Some(frames) = start.strip_prefix(&http2::PREFACE) {
                    self.protocol = Protocol::Http2(Http2::new(&mut self.unsent));
                    self.receive(frames)
                } else if http2::PREFACE.starts_with(&start) {
                    self.protocol = Protocol::Unknown(start);
                    Ok(())
                } else {
                    self.protocol = Protocol::Http1(Http1::default());
                    self.receive(&start)
                }
            }
        }
    }
}
