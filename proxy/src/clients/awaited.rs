//! The answer that a client of HTTP/1 waits for, and the interim answers that it gets before (RFC 9110,
//! section 15.2): `103 Early Hints`, above all.
//!
//! They are heard on the connections that requests are sent on (`connect::interim`). hyper cannot send any on those that it
//! serves. So they are left here, already written out. Our own stream beneath hyper sends them when hyper is not in the middle of a
//! message: see `serve::strict`.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering},
};

/// Bytes of interim answers that wait to be sent. More are left out: they are hints.
const LIMIT: usize = 16 << 10;

/// See the module. On one thread, as its [`super::Watch`] is.
#[derive(Debug, Default)]
pub(crate) struct Awaited {
    /// The number of the request that is being answered. What was said about an earlier one does not count.
    exchange: AtomicU32,
    state: AtomicU8,
    /// Whether there is anything in `interim`. Read for each write, so that the lock need not be taken.
    some: AtomicBool,
    interim: Mutex<Vec<u8>>,
    /// Whether the client speaks HTTP/1.0.
    old: AtomicBool,
}

/// No answer is awaited.
const NONE: u8 = 0;
/// One answer, and nothing else before it.
const FINAL: u8 = 1;
/// One answer, after any number of interim ones.
const ANY: u8 = 2;

impl Awaited {
    /// A request has come; `interim`: its client understands interim answers, as HTTP/1.0 does not.
    pub(crate) fn begin(&self, interim: bool) {
        self.exchange.store(self.exchange.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        self.state.store(if interim { ANY } else { FINAL }, Ordering::Relaxed);
        self.old.store(!interim, Ordering::Relaxed);
    }

    /// Its answer has come. Whether one was awaited: with HTTP/2 none is.
    pub(crate) fn end(&self) -> bool {
        let was_on = self.is_on();
        self.state.store(NONE, Ordering::Relaxed);
        was_on
    }

    /// Whether an answer is awaited.
    pub(crate) fn is_on(&self) -> bool {
        self.state.load(Ordering::Relaxed) != NONE
    }

    /// Whether the client, as far as it has said, speaks HTTP/1.0.
    pub(crate) fn is_old(&self) -> bool {
        self.old.load(Ordering::Relaxed)
    }

    /// The number of the request whose client may be told something before its answer.
    pub(crate) fn exchange(&self) -> Option<u32> {
        (self.state.load(Ordering::Relaxed) == ANY).then(|| self.exchange.load(Ordering::Relaxed))
    }

    /// Leaves an interim answer to request number `exchange`. Whether it is to be sent.
    pub(crate) fn leave(&self, exchange: u32, text: &[u8]) -> bool {
        let mut interim = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.exchange() == Some(exchange) && interim.len() + text.len() <= LIMIT;
        if wanted {
            interim.extend_from_slice(text);
            self.some.store(true, Ordering::Relaxed);
        }
        wanted
    }

    /// Whether an interim answer is to be sent.
    pub(crate) fn has_interim(&self) -> bool {
        self.some.load(Ordering::Relaxed)
    }

    /// What is to be sent.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.some.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.interim.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_that_is_being_answered_has_interim_answers() {
        let awaited = Awaited::default();
        assert_eq!(awaited.exchange(), None, "nobody has asked");

        awaited.begin(true);
        let first = awaited.exchange().unwrap();
        assert!(awaited.leave(first, b"a") && awaited.leave(first, b"b"));
        assert!(awaited.has_interim());
        assert_eq!(awaited.take(), b"ab");
        assert!(!awaited.has_interim());

        awaited.end();
        assert!(!awaited.leave(first, b"late"));
        awaited.begin(true);
        assert!(!awaited.leave(first, b"of another"));
        awaited.begin(false);
        assert_eq!((awaited.exchange(), awaited.is_on()), (None, true), "HTTP/1.0 has none");
    }

    #[test]
    fn there_are_only_so_many() {
        let awaited = Awaited::default();
        awaited.begin(true);
        let exchange = awaited.exchange().unwrap();

        assert!(awaited.leave(exchange, &[b'a'; LIMIT]));
        assert!(!awaited.leave(exchange, b"a"));

        assert_eq!(awaited.take().len(), LIMIT);
    }
}
