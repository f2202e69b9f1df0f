//! The streams that bytes pass through, whatever they mean: what was read too early is put back, read ahead,
//! framed, or ended with a reset; and how soon a peer is noticed that is gone.

mod abort;
mod buffers;
mod delegate;
mod framed;
mod last_answer;
mod liveness;
mod read_ahead;
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
    framed::HEADER,
    last_answer::LastAnswer,
};
