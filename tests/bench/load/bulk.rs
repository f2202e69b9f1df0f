//! Large bodies, one at a time: what a GiB costs.

use std::io::{Read, Write};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::generator::Target;
use super::stream::{ClientStream, Handshake};
use super::{Load, Sample, Turn, Watch, Work};

const CHUNK: usize = 256 * 1024;

/// How much goes before what is measured, so that connections are open and windows have grown.
const WARM_UP_BYTES: u64 = 4 << 20;

pub(super) fn take(turn: Turn, target: &Target, watch: &Watch) -> anyhow::Result<Sample> {
    let mut stream = ClientStream::connect(target, Handshake::Full)?;
    let mut transfer = |bytes| match watch.load {
        Load::Upload => upload(&mut stream, &target.authority, bytes),
        _ => download(&mut stream, &target.authority, bytes),
    };
    transfer(WARM_UP_BYTES)?;
    watch.during(|| {
        let start = Instant::now();
        transfer(turn.bulk_bytes)?;
        let amount = turn.bulk_bytes as f64 / f64::from(1 << 30);
        Ok(Work { amount, elapsed: start.elapsed(), failed: 0, p50_us: None, p99_us: None })
    })
}

fn download(stream: &mut ClientStream, authority: &str, bytes: u64) -> anyhow::Result<()> {
    write!(stream, "GET /bytes/{bytes} HTTP/1.1\r\nhost: {authority}\r\n\r\n")?;
    let mut buffer = vec![0; CHUNK];
    let (length, arrived) = head(stream, &mut buffer)?;
    ensure!(length == bytes, "an answer of {length} bytes where {bytes} were asked for");
    rest(stream, &mut buffer, length - arrived)
}

fn upload(stream: &mut ClientStream, authority: &str, bytes: u64) -> anyhow::Result<()> {
    write!(stream, "POST /upload HTTP/1.1\r\nhost: {authority}\r\ncontent-length: {bytes}\r\n\r\n")?;
    let mut buffer = vec![b'x'; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let some = left.min(CHUNK as u64);
        stream.write_all(&buffer[..some as usize]).context("the upload came to a halt")?;
        left -= some;
    }
    let (length, arrived) = head(stream, &mut buffer)?;
    rest(stream, &mut buffer, length - arrived)
}

/// Reads an answer's head; the length of its body, and how much of that came along.
fn head(stream: &mut ClientStream, buffer: &mut [u8]) -> anyhow::Result<(u64, u64)> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).context("no answer to a bulk request")?;
        ensure!(read > 0, "the connection ended before an answer");
        filled += read;
        let Some(end) = buffer[..filled].windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        ensure!(head.starts_with("http/1.1 200 "), "a bulk request was answered with:\n{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).context("no content-length")?;
        return Ok((length, (filled - end - 4) as u64));
    }
}

fn rest(stream: &mut ClientStream, buffer: &mut [u8], mut left: u64) -> anyhow::Result<()> {
    while left > 0 {
        let read = stream.read(buffer).context("the download came to a halt")?;
        ensure!(read > 0, "the connection ended {left} bytes before the answer did");
        left = left.checked_sub(read as u64).context("more bytes than the answer has")?;
    }
    Ok(())
}
