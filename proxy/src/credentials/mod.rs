//! Who asks, by name and password (HTTP's basic authentication).
//!
//! A hash of a password is made to be slow, so none is computed on a worker's thread: the threads of a small [`pool`] do
//! that, with a queue that has an end and in which clients take turns. What was verified is remembered, so a client's next
//! requests cost one look-up. What is remembered is that a password that came from a network has a hash, by a keyed hash of
//! all three: it stays true whatever becomes of the list, and a list without that hash asks for it no more. From elsewhere
//! the same password is verified anew, so that nobody is told quickly and for nothing what others have proven.
//!
//! A name that is not in the list costs as much as one that is: its password is compared with another user's hash. Each
//! client's network may fail only so often: what is beyond is refused before anything is computed. Whoever sends the same
//! again while it is being verified waits for that.

mod failures;
mod htpasswd;
mod pool;
mod turns;

use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Instant,
};

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::{
    FutureExt,
    future::{Shared, WeakShared},
};
use http::{HeaderMap, header::AUTHORIZATION};
use selvedge_model::{
    gateway::{PasswordHash, UserList},
    limit::network,
};
use tokio::sync::oneshot;

use self::{
    failures::Failures,
    pool::{Job, Pool},
};
use crate::buckets::Refused;

/// The longest password that is compared, in bytes. Each round of some hashes reads all of it.
const LONGEST_PASSWORD: usize = 512;

/// How many passwords are remembered of each of two generations.
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
    failures: Arc<Failures>,
    /// What any worker has seen verified; asked only for what a worker has not.
    verified: Mutex<Verified>,
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
            failures: Arc::default(),
            verified: Mutex::default(),
            pool: OnceLock::new(),
        }
    }
}

/// The keyed hash of a network, of a password that came from there, and of its own hash.
type Tag = [u8; 32];

impl Verifier {
    fn tag(&self, client: IpAddr, hash: &PasswordHash, password: &[u8]) -> Tag {
        let client = match client {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&client.octets());
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

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is being verified: whether there is such a user, the name, and the rest. All that makes a difference to an answer or
/// to what it costs is in it, so that nobody finds out by it who is a user.
type Asked = (bool, Box<[u8]>, Tag);

/// Who comes to know whether a password is right; an error: nobody does.
type Answer = oneshot::Receiver<bool>;

/// What one worker knows of passwords.
#[derive(Debug, Default)]
pub struct Credentials {
    verifier: Arc<Verifier>,
    verified: RefCell<Verified>,
    /// What is being verified for its clients.
    verifying: RefCell<HashMap<Asked, WeakShared<Answer>>>,
}

impl Credentials {
    /// Nothing yet; what all workers have in common is `verifier`.
    pub fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier, verified: RefCell::default(), verifying: RefCell::default() }
    }

    /// Whether `users` have the one who is `presented` by a client at `address`, at `now`. Dropped before its end, it counts as
    /// a wrong one only if it is one and its hash has been computed.
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
        let client = network(address);
        let tag = self.verifier.tag(client, hash, password);
        if user.is_some() && self.is_known(&tag) {
            return Verdict::Right;
        }
        let asked = (user.is_some(), presented.user().into(), tag);
        let answer = match self.answer(asked, hash, password, client, now) {
            Ok(Some(answer)) => answer,
            Ok(None) => return Verdict::Busy,
            Err(refused) => return Verdict::TooMany(refused),
        };
        match answer.await {
            Ok(true) => {
                self.verified.borrow_mut().remember(tag);
                self.verifier.verified().remember(tag);
                Verdict::Right
            }
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }

    /// Whether this or another worker has seen it verified.
    fn is_known(&self, tag: &Tag) -> bool {
        let mut own = self.verified.borrow_mut();
        if own.has(tag) {
            return true;
        }
        let is_known = self.verifier.verified().has(tag);
        if is_known {
            own.remember(*tag);
        }
        is_known
    }

    /// The answer to what is `asked`, which may be on its way already; `None`: nobody can answer.
    ///
    /// # Errors
    /// If `client` has sent too many wrong ones.
    fn answer(
        &self,
        asked: Asked,
        hash: &Arc<PasswordHash>,
        password: &[u8],
        client: IpAddr,
        now: Instant,
    ) -> Result<Option<Shared<Answer>>, Refused> {
        let mut verifying = self.verifying.borrow_mut();
        let on_its_way = |answer: &WeakShared<Answer>| answer.upgrade().filter(|one| one.peek().is_none());
        if let Some(answer) = verifying.get(&asked).and_then(on_its_way) {
            return Ok(Some(answer));
        }
        let is_user = asked.0;
        let token = self.verifier.failures.take(client, now)?;
        let Some(pool) = self.verifier.pool() else { return Ok(None) };
        let (answer, verdict) = oneshot::channel();
        let verdict = verdict.shared();
        verifying.retain(|_, answer| on_its_way(answer).is_some());
        verifying.extend(verdict.downgrade().map(|weak| (asked, weak)));
        pool.verify(Job { hash: Arc::clone(hash), password: password.to_vec(), is_user, token, answer });
        Ok(Some(verdict))
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
