//! Tickets by which workloads resume their sessions with the control plane.
//!
//! After a restart of the control plane all of them come at once, and to resume costs both sides a small part of a whole
//! handshake. So the keys of tickets are derived from a secret that outlives the process. A session ends with what it was made
//! with: the keys are bound to the trust roots, so that no session outlives a root; whoever accepts one looks at the dates of
//! the certificates that it was made with ([`established`](crate::verify::established)); and a key is of no use after half a
//! day. Each connection agrees on keys of its own all the same, so that nobody who learns the secret later can read it.

use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    hmac,
};
use rustls::server::ProducesTickets;

use crate::{bundle::Bundle, facts::fingerprint};

/// How long tickets are made with one key, in seconds. They are accepted for as long again.
const EPOCH: u64 = 6 * 3600;
/// The length of an epoch's number.
const NUMBER: usize = size_of::<u64>();

/// What the keys of tickets are derived from. All replicas have the same.
#[derive(Clone)]
pub struct TicketSecret(hmac::Key);

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret")
    }
}

impl TicketSecret {
    /// That of `secret`, which cannot be found from it.
    pub fn of(secret: &[u8]) -> Self {
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"selvedge session tickets");
        Self(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref()))
    }

    /// Tickets for those who trust, and are trusted by, the roots of `bundle`.
    pub(super) fn tickets(&self, bundle: &Bundle) -> Arc<dyn ProducesTickets> {
        Arc::new(Tickets::new(self, bundle))
    }
}

/// Makes and reads tickets. Each is the number of its epoch, a nonce, and the session, encrypted.
struct Tickets(hmac::Key);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    fn new(secret: &TicketSecret, bundle: &Bundle) -> Self {
        let mut context = hmac::Context::with_key(&secret.0);
        for root in &bundle.roots {
            context.update(&fingerprint(root).0);
        }
        context.update(bundle.trust_domain.as_str().as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref()))
    }

    fn key(&self, epoch: u64) -> Option<RandomizedNonceKey> {
        let key = hmac::sign(&self.0, &epoch.to_be_bytes());
        RandomizedNonceKey::new(&AES_256_GCM, key.as_ref()).ok()
    }

    fn seal(&self, session: &[u8], epoch: u64) -> Option<Vec<u8>> {
        let mut sealed = session.to_vec();
        let aad = Aad::from(epoch.to_be_bytes());
        let nonce = self.key(epoch)?.seal_in_place_append_tag(aad, &mut sealed).ok()?;
        Some([&epoch.to_be_bytes()[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (number, rest) = ticket.split_first_chunk::<NUMBER>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let epoch = u64::from_be_bytes(*number);
        if epoch != now && epoch.checked_add(1) != Some(now) {
            return None;
        }
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key(epoch)?.open_in_place(nonce, Aad::from(*number), &mut sealed).ok()?.len();
        sealed.truncate(opened);
        Some(sealed)
    }
}

/// The number of the epoch that it is; `None` before 1970, when nothing is resumed.
fn epoch() -> Option<u64> {
    Some(SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs() / EPOCH)
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        u32::try_from(EPOCH).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.seal(plain, epoch()?)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.open(cipher, epoch()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forge::Forger;

    fn tickets(secret: &[u8], bundle: &Bundle) -> Tickets {
        Tickets::new(&TicketSecret::of(secret), bundle)
    }

    #[test]
    fn a_ticket_is_of_use_for_two_epochs_and_only_as_it_was_made() {
        let bundle = Forger::new().bundle();
        let ours = tickets(b"secret", &bundle);
        let ticket = ours.seal(b"a session", 7).unwrap();

        // Another process has the same.
        let again = tickets(b"secret", &bundle);
        assert_eq!(again.open(&ticket, 7).as_deref(), Some(&b"a session"[..]));
        assert_eq!(again.open(&ticket, 8).as_deref(), Some(&b"a session"[..]));
        assert_eq!(again.open(&ticket, 9), None, "it is too old");
        assert_eq!(again.open(&ticket, 6), None, "it is of the future");
        for place in 0..ticket.len() {
            let mut other = ticket.clone();
            other[place] ^= 1;
            assert!((6..9).all(|now| ours.open(&other, now).is_none()), "{place}");
            assert_eq!(ours.open(&ticket[..place], 7), None);
        }
    }

    #[test]
    fn a_ticket_is_of_use_to_those_alone_who_have_the_secret_and_trust_the_same_roots() {
        let bundle = Forger::new().bundle();
        let ticket = tickets(b"secret", &bundle).seal(b"a session", 7).unwrap();

        assert_eq!(tickets(b"other secret", &bundle).open(&ticket, 7), None);
        let mut more = bundle.clone();
        more.roots.extend(Forger::new().bundle().roots);
        assert_eq!(tickets(b"secret", &more).open(&ticket, 7), None);
        assert_eq!(tickets(b"secret", &Forger::new().bundle()).open(&ticket, 7), None);
    }
}
