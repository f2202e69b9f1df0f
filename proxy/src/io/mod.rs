//! Streams of bytes, whatever the bytes mean: with bytes put back that were read too early, read ahead, framed, gathered,
//! or ended with a reset; and how soon the proxy notices that a peer is gone.

mod abort;
mod buffers;
mod delegate;
mod framed;
mod gather;
mod last_answer;
mod liveness;
mod read_ahead;
mod share;
mod stream;

pub use self::{
    abort::{Abort, Duplex, reset},
    framed::Framed,
    liveness::Liveness,
    read_ahead::ReadAhead,
    stream::{Prefixed, Stream},
};
pub(crate) use self::{
    buffers::{BUFFER, Buffer, Rest},
    delegate::passes_on,
    framed::{AnswerBody, HEADER},
    gather::{Gathered, Gathering},
    last_answer::LastAnswer,
};
