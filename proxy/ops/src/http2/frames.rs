//! HTTP/2 frames as they pass, without keeping any of them (RFC 9113, section 4.1).

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// Kinds of frames (RFC 9113, section 6).
pub const DATA: u8 = 0;
/// The beginning of a request's or an answer's head.
pub const HEADERS: u8 = 1;
/// Ends one stream.
pub const RST_STREAM: u8 = 3;
/// The end of a connection, and why.
pub const GOAWAY: u8 = 7;
/// Lets the other side send more.
pub const WINDOW_UPDATE: u8 = 8;
/// The rest of a head.
pub const CONTINUATION: u8 = 9;

/// The flag of a header block's last frame.
pub const END_HEADERS: u8 = 4;

/// What a client sends before its first frame.
const PREFACE: usize = 24;

/// One direction of a connection, and the place in it that has been reached.
#[derive(Debug)]
pub struct Frames {
    /// Bytes before the first frame.
    skip: usize,
    head: [u8; HEAD],
    /// How much of the head has been seen.
    seen: usize,
    /// How much of the payload has not.
    left: usize,
}

/// What is seen of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen<'a> {
    /// Its head, before any of its payload.
    Head,
    /// A piece of its payload.
    Piece(&'a [u8]),
}

/// A frame's head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// What it is: [`DATA`] and so on.
    pub kind: u8,
    /// By its kind.
    pub flags: u8,
    /// 0: the whole connection.
    pub stream: u32,
    /// Bytes of its payload.
    pub length: usize,
}

impl Frames {
    /// What a server sends.
    pub fn of_server() -> Self {
        Self { skip: 0, head: [0; HEAD], seen: 0, left: 0 }
    }

    /// What a client sends.
    pub fn of_client() -> Self {
        Self { skip: PREFACE, ..Self::of_server() }
    }

    /// Whether no frame has begun that has not ended.
    pub fn is_between(&self) -> bool {
        self.skip == 0 && self.seen == 0
    }

    /// Goes on through `bytes`, and shows each frame's head, and each piece of a payload in them.
    pub fn pass(&mut self, mut bytes: &[u8], mut see: impl FnMut(Frame, Seen<'_>)) {
        let skipped = self.skip.min(bytes.len());
        self.skip -= skipped;
        bytes = &bytes[skipped..];
        while !bytes.is_empty() {
            if self.seen < HEAD {
                let part = (HEAD - self.seen).min(bytes.len());
                self.head[self.seen..self.seen + part].copy_from_slice(&bytes[..part]);
                self.seen += part;
                bytes = &bytes[part..];
                if self.seen == HEAD {
                    let [a, b, c, ..] = self.head;
                    self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                    see(self.frame(), Seen::Head);
                }
            }
            let piece = self.left.min(bytes.len());
            if piece > 0 {
                see(self.frame(), Seen::Piece(&bytes[..piece]));
                self.left -= piece;
                bytes = &bytes[piece..];
            }
            if self.seen == HEAD && self.left == 0 {
                self.seen = 0;
            }
        }
    }

    #[inline]
    fn frame(&self) -> Frame {
        let [a, b, c, kind, flags, stream @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Frame { kind, flags, stream: u32::from_be_bytes(stream) & !(1 << 31), length }
    }
}

/// A GOAWAY frame with ENHANCE_YOUR_CALM (section 6.8): the end of a connection that floods.
pub fn goaway(last_stream: u32) -> [u8; 17] {
    const ENHANCE_YOUR_CALM: u8 = 0xb;
    let [a, b, c, d] = last_stream.to_be_bytes();
    [0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, a, b, c, d, 0, 0, 0, ENHANCE_YOUR_CALM]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, 0], &stream.to_be_bytes(), payload].concat()
    }

    proptest! {
        #[test]
        fn frames_are_seen_whole_however_they_are_cut(
            sent in prop::collection::vec(
                (0u8..10, 0u32..5, prop::collection::vec(any::<u8>(), 0..40)), 0..20,
            ),
            piece in 1usize..60,
            from_client: bool,
        ) {
            let mut bytes = if from_client { vec![b'P'; PREFACE] } else { Vec::new() };
            for (kind, stream, payload) in &sent {
                bytes.extend(frame(*kind, *stream, payload));
            }
            let mut frames = if from_client { Frames::of_client() } else { Frames::of_server() };

            let mut seen: Vec<(Frame, Option<u8>)> = Vec::new();
            for piece in bytes.chunks(piece) {
                frames.pass(piece, |frame, part| match part {
                    Seen::Head => seen.push((frame, None)),
                    Seen::Piece(part) => seen.extend(part.iter().map(|byte| (frame, Some(*byte)))),
                });
            }
            prop_assert!(frames.is_between());

            let expected: Vec<_> = sent
                .iter()
                .flat_map(|(kind, stream, payload)| {
                    let frame = Frame { kind: *kind, flags: 0, stream: *stream, length: payload.len() };
                    std::iter::once((frame, None)).chain(payload.iter().map(move |byte| (frame, Some(*byte))))
                })
                .collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
