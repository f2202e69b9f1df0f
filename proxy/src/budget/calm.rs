//! Whether the other side of an HTTP/2 connection sends too many frames without content.
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, CONTINUATION, DATA without data and unknown frames cost their
//! sender little. They cost their receiver work, an answer, or memory (CVE-2019-9512 and its siblings, CVE-2023-44487,
//! CVE-2024-27316). RFC 9113, section 10.5, lets such a connection end with ENHANCE_YOUR_CALM. Frames sent in good
//! faith answer what we send. So each frame of ours with headers or data allows for some, as in Envoy
//! (`max_inbound_window_update_frames_per_data_frame_sent`), and so does time. Pure except for the clock, which is read
//! once in a thousand such frames.

use std::time::Instant;

use super::frames::{CONTINUATION, DATA, Frame, HEADERS};

/// How many such frames may come at once.
const BURST: u32 = 1_000;

/// How many more are allowed for each second.
const PER_SECOND: u32 = 200;

/// How many more are allowed for each frame with headers or data that we send.
const PER_FRAME_SENT: u32 = 10;

/// This many bytes of a frame without content cost as much as another frame.
const AS_ONE_MORE: usize = 256;

const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Calm {
    /// How many such frames may still come.
    left: u32,
    /// Up to when time has been allowed for.
    refilled: Instant,
    /// The highest stream that the other side has opened.
    highest: u32,
}

impl Calm {
    /// Nothing has come yet.
    pub(super) fn new(now: Instant) -> Self {
        Self { left: BURST, refilled: now, highest: 0 }
    }

    /// The highest stream that the other side has opened.
    pub(super) fn highest(&self) -> u32 {
        self.highest
    }

    /// Notes that a frame has begun to arrive. `false`: it is one too many.
    pub(super) fn arrived(&mut self, frame: Frame, now: impl FnOnce() -> Instant) -> bool {
        // A head that opens nothing and ends nothing carries nothing (RFC 9113, section 8.1), except for interim
        // answers.
        let is_idle = frame.kind == HEADERS && frame.stream <= self.highest && frame.flags & END_STREAM == 0;
        if frame.kind == HEADERS {
            self.highest = self.highest.max(frame.stream);
        }
        let cost = cost(frame).max(is_idle.into());
        if cost > self.left {
            self.refill(now());
        }
        let is_calm = cost <= self.left;
        self.left = self.left.saturating_sub(cost);
        is_calm
    }

    /// A frame is sent.
    pub(super) fn sent(&mut self, frame: Frame) {
        if matches!(frame.kind, HEADERS | DATA) && frame.length > 0 {
            self.left = (self.left + PER_FRAME_SENT).min(BURST);
        }
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled).as_millis();
        let earned = u32::try_from(passed * u128::from(PER_SECOND) / 1_000).unwrap_or(BURST);
        self.left = self.left.saturating_add(earned).min(BURST);
        if earned > 0 {
            self.refilled = now;
        }
    }
}

/// What a frame costs: nothing if it carries something.
fn cost(frame: Frame) -> u32 {
    let carries = match frame.kind {
        HEADERS => true,
        DATA => frame.length > usize::from(frame.flags & PADDED != 0) || frame.flags & END_STREAM != 0,
        _ => false,
    };
    let bytes = if frame.kind == CONTINUATION { 0 } else { frame.length / AS_ONE_MORE };
    if carries { 0 } else { 1 + u32::try_from(bytes).unwrap_or(BURST) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{
        super::frames::{RST_STREAM, WINDOW_UPDATE},
        *,
    };

    fn frame(kind: u8, flags: u8, length: usize) -> Frame {
        Frame { kind, flags, stream: 1, length }
    }

    fn taken(calm: &mut Calm, frame: Frame, most: u32, now: Instant) -> u32 {
        (0..most).take_while(|_| calm.arrived(frame, || now)).count() as u32
    }

    #[test]
    fn what_carries_nothing_is_taken_up_to_a_number_and_at_a_rate() {
        let start = Instant::now();
        for (kind, flags, length) in [
            (6, 0, 8),
            (4, 0, 6),
            (2, 0, 5),
            (WINDOW_UPDATE, 0, 4),
            (RST_STREAM, 0, 4),
            (9, 0, 0),
            (DATA, 0, 0),
            (DATA, PADDED, 1),
            (77, 0, 0),
        ] {
            let (mut calm, frame) = (Calm::new(start), frame(kind, flags, length));
            assert_eq!(taken(&mut calm, frame, 5_000, start), BURST, "kind {kind}");
            assert_eq!(
                taken(&mut calm, frame, 5_000, start + Duration::from_secs(1)),
                PER_SECOND,
                "kind {kind}"
            );
        }
    }

    #[test]
    fn what_carries_something_costs_nothing_and_what_we_send_allows_for_more() {
        let start = Instant::now();
        let mut calm = Calm::new(start);
        for useful in [frame(HEADERS, END_STREAM, 40), frame(DATA, 0, 1), frame(DATA, END_STREAM, 0)] {
            assert_eq!(taken(&mut calm, useful, 5_000, start), 5_000);
        }
        let mut opening = (2..5_000).map(|stream| Frame { stream, ..frame(HEADERS, 0, 40) });
        assert!(opening.all(|opening| calm.arrived(opening, || start)));
        assert_eq!(taken(&mut calm, frame(HEADERS, 0, 40), 5_000, start), BURST, "they open nothing");
        calm.left = BURST;

        for _ in 0..5_000 {
            assert_eq!(taken(&mut calm, frame(WINDOW_UPDATE, 0, 4), 8, start), 8);
            calm.sent(frame(DATA, 0, 16_384));
        }
    }

    #[test]
    fn large_frames_that_carry_nothing_cost_more() {
        let start = Instant::now();
        let taken = taken(&mut Calm::new(start), frame(4, 0, 16_384), 5_000, start);
        assert_eq!(taken, BURST / 65);
    }
}
