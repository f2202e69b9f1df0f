//! Who asks, by name and password (HTTP's basic authentication).
//!
//! A hash of a password is made to be slow, so none is computed on a worker's thread: the threads of a small [`pool`] do
//! that, with a queue that has an end. A worker remembers what it has seen verified, so a client's next requests cost one
//! look-up. What is remembered is that a password has a hash, by a keyed hash of both: it stays true whatever becomes of the
//! list, and a list without that hash asks for it no more.
//!
//! A name that is not in the list costs as much as one that is: its password is compared with another user's hash. Each
//! client's address may fail only so often: what is beyond is refused before anything is computed.

mod htpasswd;
mod pool;

use std::{
    cell::RefCell,
    collections::HashSet,
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, header::AUTHORIZATION};
use selvedge_model::{
    gateway::{PasswordHash, UserList},
    limit::network,
};

use self::pool::Pool;
use crate::buckets::{Buckets, Overflow, Rate, Refused};

/// The longest password that is compared, in bytes. Each round of some hashes reads all of it.
const LONGEST_PASSWORD: usize = 512;

/// How many wrong passwords an address may send at once, and in how much time so many more.
const FAILURES: u32 = 20;
const FAILURES_IN: Duration = Duration::from_secs(60);

/// How many passwords of each of its two generations a worker remembers.
const REMEMBERED: usize = 4096;

/// A name with its password, as a client sends them.
pub struct Presented {
    text: Vec<u8>,
    /// The place of the colon between the two.
    colon: usize,
}

impl Presented {
    /// What `headers` say; `None`: nothing that can be read, or more than one thing.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let (Some(field), None) = (fields.next(), fields.next()) else { return None };
        let (scheme, text) = field.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let text = BASE64_STANDARD.decode(text.trim_matches(' ')).ok()?;
        let colon = text.iter().position(|byte| *byte == b':')?;
        Some(Self { text, colon })
    }

    fn user(&self) -> &[u8] {
        &self.text[..self.colon]
    }

    fn password(&self) -> &[u8] {
        &self.text[self.colon + 1..]
    }
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(..)")
    }
}

/// What becomes of a name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The user may come in.
    Right,
    /// There is no such user with that password.
    Wrong,
    /// The client's address has sent too many wrong ones.
    TooMany(Refused),
    /// Too many others are being verified.
    Busy,
}

/// What all workers have in common.
#[derive(Debug)]
pub struct Verifier {
    key: hmac::Key,
    failures: Buckets,
    overflow: Overflow,
    rate: Rate,
    /// Started for the first password.
    pool: OnceLock<Option<Pool>>,
}

impl Default for Verifier {
    fn default() -> Self {
        let mut secret = [0; 32];
        // Without randomness there is no TLS either: rustls has asked for it before.
        aws_lc_rs::rand::fill(&mut secret).expect("the system's randomness");
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            failures: Buckets::default(),
            overflow: Overflow::default(),
            rate: Rate::new(FAILURES, FAILURES_IN, FAILURES),
            pool: OnceLock::new(),
        }
    }
}

/// The keyed hash of a password and of its own hash.
type Tag = [u8; 32];

impl Verifier {
    fn tag(&self, hash: &PasswordHash, password: &[u8]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(hash.reveal().as_bytes());
        // It is in no hash.
        context.update(&[0]);
        context.update(password);
        let mut tag = [0; 32];
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }

    /// A number for a name, the same each time, that nobody else can foresee.
    fn number(&self, user: &[u8]) -> u64 {
        let tag = hmac::sign(&self.key, user);
        tag.as_ref().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    fn pool(&self) -> Option<&Pool> {
        let start = || {
            let started = Pool::start();
            if let Err(error) = &started {
                tracing::error!(%error, "no thread verifies passwords, so nobody is let in by one");
            }
            started.ok()
        };
        self.pool.get_or_init(start).as_ref()
    }
}

/// What one worker knows of passwords.
#[derive(Debug, Default)]
pub struct Credentials {
    verifier: Arc<Verifier>,
    verified: RefCell<Verified>,
}

impl Credentials {
    /// Nothing yet; what all workers have in common is `verifier`.
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, verified: RefCell::default() }
    }

    /// Whether `users` have the one who is `presented` by a client at `address`, at `now`. Dropped before its end, it counts as
    /// a wrong one.
    pub async fn judge(
        &self,
        users: &UserList,
        presented: &Presented,
        address: IpAddr,
        now: Instant,
    ) -> Verdict {
        let password = presented.password();
        if password.len() > LONGEST_PASSWORD || password.contains(&0) {
            return Verdict::Wrong;
        }
        let user = users.find(presented.user());
        let stand_in = || users.stand_in(self.verifier.number(presented.user()));
        let Some(hash) = user.or_else(stand_in) else { return Verdict::Wrong };
        let tag = self.verifier.tag(hash, password);
        if user.is_some() && self.verified.borrow_mut().has(&tag) {
            return Verdict::Right;
        }
        let Verifier { failures, overflow, rate, .. } = &*self.verifier;
        let client = failures.key(network(address));
        if let Err(refused) = failures.take(client, rate, overflow, failures.clock(now)) {
            return Verdict::TooMany(refused);
        }
        let answer = self.verifier.pool().and_then(|pool| pool.verify(hash, password));
        let Some(Ok(is_right)) = (match answer {
            Some(answer) => Some(answer.await),
            None => None,
        }) else {
            failures.give_back(client, rate, overflow);
            return Verdict::Busy;
        };
        if !is_right || user.is_none() {
            return Verdict::Wrong;
        }
        failures.give_back(client, rate, overflow);
        self.verified.borrow_mut().remember(tag);
        Verdict::Right
    }
}

/// What was verified lately. What is not asked for is forgotten when as much again has been verified.
#[derive(Debug, Default)]
struct Verified {
    now: HashSet<Tag>,
    before: HashSet<Tag>,
}

impl Verified {
    fn has(&mut self, tag: &Tag) -> bool {
        if self.now.contains(tag) {
            return true;
        }
        let is_older = self.before.remove(tag);
        if is_older {
            self.remember(*tag);
        }
        is_older
    }

    fn remember(&mut self, tag: Tag) {
        if self.now.len() >= REMEMBERED {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(tag);
    }
}

#[cfg(test)]
mod tests;
