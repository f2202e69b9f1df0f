//! How often each client may send a wrong password.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::buckets::{Buckets, Overflow, Rate, Refused};

/// How many wrong passwords an address may send at once, and in how much time so many more.
pub(super) const FAILURES: u32 = 20;
pub(super) const FAILURES_IN: Duration = Duration::from_secs(60);

/// What each client may still send, for all workers.
#[derive(Debug)]
pub(super) struct Failures {
    buckets: Buckets,
    overflow: Overflow,
    rate: Rate,
}

impl Default for Failures {
    fn default() -> Self {
        let rate = Rate::new(FAILURES, FAILURES_IN, FAILURES);
        Self { buckets: Buckets::default(), overflow: Overflow::default(), rate }
    }
}

/// The right to have one password verified. It goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Token {
    failures: Arc<Failures>,
    client: IpAddr,
    is_spent: bool,
}

impl Failures {
    /// Takes a token of `client`, a network, at `now`.
    ///
    /// # Errors
    /// If it has none.
    pub(super) fn take(self: &Arc<Self>, client: IpAddr, now: Instant) -> Result<Token, Refused> {
        let Self { buckets, overflow, rate } = &**self;
        buckets.take(buckets.key(client), rate, overflow, buckets.clock(now))?;
        Ok(Token { failures: Arc::clone(self), client, is_spent: false })
    }
}

impl Token {
    /// Whose it is.
    pub(super) fn client(&self) -> IpAddr {
        self.client
    }

    /// Does not give it back.
    pub(super) fn spend(mut self) {
        self.is_spent = true;
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if !self.is_spent {
            let Failures { buckets, overflow, rate } = &*self.failures;
            buckets.give_back(buckets.key(self.client), rate, overflow);
        }
    }
}
