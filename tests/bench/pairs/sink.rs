//! A collector that takes whatever it is sent over HTTP, and keeps nothing.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::OnceLock,
};

use anyhow::Context;

/// Where it is; it is started when this is asked for the first time.
pub(super) fn address() -> anyhow::Result<SocketAddr> {
    static STARTED: OnceLock<SocketAddr> = OnceLock::new();
    if let Some(address) = STARTED.get() {
        return Ok(*address);
    }
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen as a collector")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Whoever breaks off is told nothing.
            let _ = take(stream);
        }
    });
    Ok(*STARTED.get_or_init(|| address))
}

/// Takes one message.
fn take(stream: TcpStream) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    io::copy(&mut reader.by_ref().take(length), &mut io::sink())?;
    reader.into_inner().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
}
