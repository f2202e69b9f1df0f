//! Buffers for bytes that pass through. One is borrowed from the worker for one read and its write, and kept by a
//! connection only while the other side does not take what was read.
//!
//! So an idle connection holds none, and a thousand busy ones share a few. The buffers belong to the worker's thread:
//! nothing is shared, and nothing is passed along to find them.

use crate::spare::{self, Spare};

/// One buffer, in bytes: four TLS records of 16 KiB, which is what rustls takes in and sends at once.
pub(crate) const BUFFER: usize = 64 << 10;

/// How many buffers a worker keeps that are not in use: 1 MiB.
const KEPT: usize = 16;

thread_local! {
    static FREE: Spare<Box<[u8]>> = const { Spare::new(KEPT) };
}

/// A buffer of [`BUFFER`] bytes; dropping it gives it back to the worker.
#[derive(Debug)]
pub(crate) struct Buffer(Box<[u8]>);

impl Buffer {
    /// One that nobody uses. Its contents are left over from others.
    pub(crate) fn take() -> Self {
        let free = FREE.with(Spare::take);
        Self(free.unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        spare::leave(&FREE, std::mem::take(&mut self.0));
    }
}

impl std::ops::Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::ops::DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Bytes that were read and not yet passed on.
#[derive(Debug)]
pub(crate) struct Rest {
    buffer: Buffer,
    start: usize,
    end: usize,
}

impl Rest {
    /// The first `length` bytes of `buffer`.
    pub(crate) fn new(buffer: Buffer, length: usize) -> Self {
        let end = length.min(buffer.len());
        Self { buffer, start: 0, end }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Forgets the first `length` bytes: they have been passed on.
    pub(crate) fn advance(&mut self, length: usize) {
        self.start = self.end.min(self.start + length);
    }

    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_that_is_given_back_is_used_again() {
        let first = Buffer::take();
        let place = first.as_ptr();
        drop(first);

        assert_eq!(Buffer::take().as_ptr(), place);
    }

    #[test]
    fn a_worker_keeps_few_of_many() {
        drop((0..3 * KEPT).map(|_| Buffer::take()).collect::<Vec<_>>());

        assert_eq!(FREE.with(Spare::len), KEPT);
    }

    #[test]
    fn what_has_been_passed_on_is_no_longer_there() {
        let mut buffer = Buffer::take();
        buffer[..5].copy_from_slice(b"hello");
        let mut rest = Rest::new(buffer, 5);

        rest.advance(2);
        assert_eq!(rest.bytes(), b"llo");
        rest.advance(9);
        assert!(rest.is_empty());
    }
}
