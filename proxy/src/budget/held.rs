//! Bytes that count against the budget while something holds them, and a stream that counts what is read from it.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, ReadBuf};

use super::Budget;

/// Bytes of the budget, held as long as this lives.
#[derive(Debug)]
pub struct HeldBytes {
    budget: Arc<Budget>,
    bytes: usize,
}

impl HeldBytes {
    /// None yet.
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What they count in.
    pub fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Holds this many from now on.
    pub fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.budget.add(more as u64),
            None => self.budget.remove((self.bytes - bytes) as u64),
        }
        self.bytes = bytes;
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

/// `inner`, whose reads are reported to `count`, in bytes.
#[derive(Debug)]
pub struct Counted<'a, S, F> {
    inner: &'a mut S,
    count: F,
}

impl<'a, S, F: FnMut(usize)> Counted<'a, S, F> {
    /// See the type.
    pub fn new(inner: &'a mut S, count: F) -> Self {
        Self { inner, count }
    }
}

impl<S: AsyncRead + Unpin, F: FnMut(usize) + Unpin> AsyncRead for Counted<'_, S, F> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut *this.inner).poll_read(cx, buf))?;
        (this.count)(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}
