//! The requests in a client's HTTP/1 stream: where each head and each body begins and ends, and which is refused.

use std::sync::Arc;

use memchr::memchr_iter;

use super::{
    chunks::Chunks,
    head::{Framing, NO_TUNNEL, judge},
};
use crate::{
    clients::{WaitingFor, Watch},
    error::Refusal,
    settings::HeadLimits,
};

/// The requests in one stream, as far as they have come.
#[derive(Debug)]
pub(super) struct Requests {
    limits: HeadLimits,
    pub(super) watch: Arc<Watch>,
    pub(super) stage: Stage,
    /// Whether CONNECT may open a tunnel.
    pub(super) tunnels: bool,
}

/// What the next byte belongs to.
#[derive(Debug)]
pub(super) enum Stage {
    Head,
    /// A body of which this many bytes are still to come.
    Sized(u64),
    Chunked(Chunks),
    /// The answer to CONNECT says whether it is a tunnel's, or begins the next head.
    Asked,
    /// No HTTP any more.
    Tunnel,
    /// A request was refused: nothing more is read.
    Refused,
    /// A body went wrong.
    Broken,
}

impl Requests {
    /// None yet. `tunnels`: the client may ask for a tunnel by CONNECT.
    pub(super) fn new(limits: HeadLimits, watch: Arc<Watch>) -> Self {
        Self { limits, watch, stage: Stage::Head, tunnels: false }
    }

    /// Goes through `bytes`, the first `seen` of which are an incomplete head. Returns how many of them
    /// hyper may have.
    pub(super) fn inspect(&mut self, bytes: &[u8], seen: usize) -> usize {
        let partial = seen > 0 && !self.may_be_whole(bytes, seen);
        let mut at = 0;
        while at < bytes.len() {
            if at == 0 && partial && matches!(self.stage, Stage::Head) && !self.watch.is_tunnel() {
                break;
            }
            let Some(passed) = self.pass(&bytes[at..]) else { break };
            at += passed;
        }
        if matches!(self.stage, Stage::Head) && at < bytes.len() && !self.watch.waits_for(WaitingFor::Head) {
            self.watch.wait(WaitingFor::Head);
        }
        at
    }

    /// How many bytes of `rest`, from its first, hyper may have. `None`: it may have none of them yet.
    fn pass(&mut self, rest: &[u8]) -> Option<usize> {
        match &mut self.stage {
            Stage::Head if self.watch.is_tunnel() => {
                self.stage = Stage::Tunnel;
                Some(0)
            }
            Stage::Head => self.pass_head(rest),
            Stage::Sized(left) => {
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                *left -= here as u64;
                if *left == 0 {
                    self.follow(Framing::Empty);
                }
                Some(here)
            }
            Stage::Chunked(chunks) => {
                let Ok(passed) = chunks.pass(rest) else {
                    self.stage = Stage::Broken;
                    return None;
                };
                if chunks.is_over() {
                    self.follow(Framing::Empty);
                }
                Some(passed)
            }
            Stage::Tunnel => Some(rest.len()),
            Stage::Asked | Stage::Refused | Stage::Broken => None,
        }
    }

    /// The same of a head.
    fn pass_head(&mut self, rest: &[u8]) -> Option<usize> {
        match judge(rest, self.limits) {
            Ok(Some(head)) if head.framing == Framing::Tunnel && !self.tunnels => {
                // hyper would keep such a connection for a tunnel, and never close it as it closes others.
                self.refuse(NO_TUNNEL);
                None
            }
            Ok(Some(head)) => {
                self.follow(head.framing);
                Some(head.length)
            }
            Ok(None) => None,
            Err(refusal) => {
                self.refuse(refusal);
                None
            }
        }
    }

    /// Whether a head that was incomplete can be whole now. Saves judging it again for every byte.
    fn may_be_whole(&self, bytes: &[u8], seen: usize) -> bool {
        let from = seen.saturating_sub(2);
        let end = |at: usize| matches!(bytes[from + at..], [_, b'\n', ..] | [_, b'\r', b'\n', ..]);
        bytes.len() > self.limits.bytes || memchr_iter(b'\n', &bytes[from..]).any(end)
    }

    /// A head has ended, or a body.
    fn follow(&mut self, framing: Framing) {
        let (stage, waiting) = match framing {
            Framing::Empty => (Stage::Head, WaitingFor::Request),
            Framing::Sized(length) => (Stage::Sized(length), WaitingFor::Nothing),
            Framing::Chunked => (Stage::Chunked(Chunks::new()), WaitingFor::Nothing),
            Framing::Tunnel => (Stage::Asked, WaitingFor::Request),
        };
        self.stage = stage;
        self.watch.wait(waiting);
    }

    /// Reads nothing more, and has `refusal` answered.
    pub(super) fn refuse(&mut self, refusal: Refusal) {
        self.watch.refuse(refusal);
        self.stage = Stage::Refused;
    }
}
