//! A backend that takes its time over each answer. It is for few connections: each has a thread.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::CHUNK;
use super::http1::Http1;
use crate::process::exit_when_stdin_closes;

/// Serves HTTP/1.1; an answer begins this `delay` after its request has come.
pub(super) fn serve(listener: &TcpListener, delay: Duration, exits: bool) -> anyhow::Result<()> {
    if exits {
        exit_when_stdin_closes();
    }
    for stream in listener.incoming() {
        let mut stream = stream?;
        // Whoever breaks off is gone; there is nothing else to do about it.
        thread::spawn(move || answer(&mut stream, delay));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it is slow on purpose, and waits for nothing")]
fn answer(stream: &mut TcpStream, delay: Duration) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut http1, mut buffer, mut unsent) = (Http1::default(), vec![0; CHUNK], Vec::new());
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => http1.receive(&buffer[..read], &mut unsent)?,
        }
        http1.more(&mut unsent);
        if !unsent.is_empty() {
            thread::sleep(delay);
            stream.write_all(&unsent)?;
            unsent.clear();
        }
    }
}
