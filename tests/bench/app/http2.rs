//! HTTP/2 as far as it takes to answer every stream with the same bytes: no header is decoded, and no header
//! is ever put into the table, so that one preformatted block fits every answer.

use std::collections::VecDeque;
use std::io;

use super::BODY_BYTES;

/// What a client begins with (RFC 9113, section 3.4).
pub(super) const PREFACE: [u8; 24] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Frame types and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A window's size until something else is said; that of streams is never less than an answer here.
const INITIAL_WINDOW: i64 = 65_535;

/// HPACK (RFC 7541): `:status: 200` is indexed; then literals never put into the table, their names indexed.
const HEADER_BLOCK: [u8; 21] = *b"\x88\x0f\x10\x0atext/plain\x0f\x0d\x041024";

pub(super) struct Http2 {
    /// A frame whose end has not arrived.
    partial: Vec<u8>,
    /// What may be sent on the connection.
    window: i64,
    /// What has been received since the client was last given more room.
    received: u32,
    /// Streams that were asked on and have no answer yet.
    waiting: VecDeque<u32>,
}

impl Http2 {
    pub(super) fn new(unsent: &mut Vec<u8>) -> Self {
        // MAX_CONCURRENT_STREAMS (3): 4096.
        frame(unsent, SETTINGS, 0, 0, &[0, 3, 0, 0, 0x10, 0]);
        Self { partial: Vec::new(), window: INITIAL_WINDOW, received: 0, waiting: VecDeque::new() }
    }

    /// Takes the frames that are whole with these bytes.
    pub(super) fn receive(&mut self, bytes: &[u8], unsent: &mut Vec<u8>) -> io::Result<()> {
        let mut all = std::mem::take(&mut self.partial);
        all.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(head) = all.get(at..at + 9) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let Some(payload) = all.get(at + 9..at + 9 + length) else { break };
            self.take(head[3], head[4], stream, payload, unsent)?;
            at += 9 + length;
        }
        all.drain(..at);
        self.partial = all;
        self.answer(unsent);
        Ok(())
    }

    fn take(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: &[u8],
        unsent: &mut Vec<u8>,
    ) -> io::Result<()> {
        match kind {
            SETTINGS if flags & ACK == 0 => frame(unsent, SETTINGS, ACK, 0, &[]),
            PING if flags & ACK == 0 => frame(unsent, PING, ACK, 0, payload),
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.try_into().map(u32::from_be_bytes);
                self.window += i64::from(more.map_err(|_| io::ErrorKind::InvalidData)?);
            }
            HEADERS if flags & END_HEADERS == 0 => return Err(io::ErrorKind::Unsupported.into()),
            HEADERS if flags & END_STREAM != 0 => self.waiting.push_back(stream),
            DATA => {
                self.received += payload.len() as u32;
                if i64::from(self.received) > INITIAL_WINDOW / 2 {
                    frame(unsent, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
                    self.received = 0;
                }
                if flags & END_STREAM != 0 {
                    self.waiting.push_back(stream);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self, unsent: &mut Vec<u8>) {
        while self.window >= BODY_BYTES as i64
            && let Some(stream) = self.waiting.pop_front()
        {
            self.window -= BODY_BYTES as i64;
            frame(unsent, HEADERS, END_HEADERS, stream, &HEADER_BLOCK);
            frame(unsent, DATA, END_STREAM, stream, &[b'x'; BODY_BYTES]);
        }
    }
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len() as u32;
    to.extend_from_slice(&length.to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many answers these bytes bring, and how many bytes they are.
    fn answers(http2: &mut Http2, bytes: &[u8]) -> usize {
        let mut unsent = Vec::new();
        http2.receive(bytes, &mut unsent).unwrap();
        unsent.len() / (9 + HEADER_BLOCK.len() + 9 + BODY_BYTES)
    }

    fn request(stream: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS | END_STREAM, stream, &[0x82]);
        bytes
    }

    #[test]
    fn a_stream_is_answered_when_its_end_has_come() {
        let mut http2 = Http2::new(&mut Vec::new());
        let two = [request(1), request(3)].concat();

        assert_eq!(answers(&mut http2, &two[..two.len() - 1]), 1);
        assert_eq!(answers(&mut http2, &two[two.len() - 1..]), 1);
    }

    #[test]
    fn no_more_is_sent_than_the_connection_has_room_for() {
        let mut http2 = Http2::new(&mut Vec::new());
        let many: Vec<u8> = (0..100).flat_map(|n| request(2 * n + 1)).collect();

        assert_eq!(answers(&mut http2, &many), 63);

        let mut room = Vec::new();
        frame(&mut room, WINDOW_UPDATE, 0, 0, &1_000_000_u32.to_be_bytes());
        assert_eq!(answers(&mut http2, &room), 37);
    }
}
