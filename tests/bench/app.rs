//! The backend: answers every request without a body with the same preformatted bytes.
//!
//! It understands just enough HTTP/1.1 to count requests (a head ends at an empty line), because
//! whatever it spends is taken from the machine that the proxies share.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::Context;

use crate::process::announce;
use crate::readiness::Readiness;

const LISTENER: u64 = 0;
const STDIN: u64 = 1;
const FIRST_CONNECTION: u64 = 2;

/// A head longer than this is not from our load generator.
const MAX_HEAD: usize = 64 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Size of every answer's body. At most 16 KiB, so that an answer always fits a socket's buffer.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u16).range(0..=16_384))]
    body_bytes: u16,
    #[arg(long, hide = true)]
    exit_on_stdin_close: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .with_context(|| format!("cannot listen on {}; is the port taken?", args.listen))?;
    listener.set_nonblocking(true)?;
    announce("app", listener.local_addr()?)?;
    App::new(listener, args)?.serve().context("the app failed")
}

struct App {
    listener: TcpListener,
    readiness: Readiness,
    connections: Vec<Option<Connection>>,
    answer: Vec<u8>,
    buffer: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    /// The beginning of a head whose end has not arrived.
    head: Vec<u8>,
}

impl App {
    fn new(listener: TcpListener, args: &Args) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        readiness.watch(&listener, LISTENER)?;
        if args.exit_on_stdin_close {
            readiness.watch(io::stdin(), STDIN)?;
        }
        Ok(Self {
            listener,
            readiness,
            connections: Vec::new(),
            answer: answer(usize::from(args.body_bytes)),
            buffer: vec![0; MAX_HEAD],
        })
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
                    connection => self.answer((connection - FIRST_CONNECTION) as usize),
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
        self.connections[index] = Some(Connection { stream, head: Vec::new() });
        Ok(())
    }

    /// Answers what has arrived; a connection that ends or fails is dropped.
    fn answer(&mut self, index: usize) {
        let Some(connection) = &mut self.connections[index] else { return };
        match connection.requests(&mut self.buffer) {
            Ok(requests) if (0..requests).all(|_| connection.stream.write_all(&self.answer).is_ok()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => self.connections[index] = None,
        }
    }
}

impl Connection {
    /// How many requests are complete with the bytes that can be read now.
    fn requests(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.head.is_empty() && buffer[..read].ends_with(b"\r\n\r\n") {
            return Ok(heads(&buffer[..read]).0);
        }
        self.head.extend_from_slice(&buffer[..read]);
        let (requests, consumed) = heads(&self.head);
        self.head.drain(..consumed);
        if self.head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(requests)
    }
}

/// How many heads are complete in `bytes`, and where the last of them ends.
fn heads(bytes: &[u8]) -> (usize, usize) {
    let ends = bytes.windows(4).enumerate().filter(|(_, window)| window == b"\r\n\r\n");
    ends.fold((0, 0), |(count, _), (at, _)| (count + 1, at + 4))
}

fn answer(body_bytes: usize) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {body_bytes}\r\n\r\n");
    let mut answer = head.into_bytes();
    answer.resize(answer.len() + body_bytes, b'x');
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_counts_when_its_empty_line_has_come() {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut two_and_a_half = request.repeat(2);
        two_and_a_half.extend_from_slice(b"GET / HT");

        assert_eq!(heads(&two_and_a_half), (2, request.len() * 2));
        assert_eq!(heads(&request[..request.len() - 1]), (0, 0));
    }

    #[test]
    fn an_answer_carries_the_length_that_it_has() {
        let answer = answer(1024);

        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
        let (_, head_length) = heads(&answer);
        assert_eq!(answer.len() - head_length, 1024);
    }
}
