//! What keeps a rule's sessions at their endpoints: the tokens that name those.
//!
//! A token says to which backend and endpoint a session belongs, when it began, and when it was last used. It is encrypted
//! and authenticated (AES-256-GCM) with a key that all proxies of the rule have and no client: nobody can read an address
//! from it, or name one. A token that does not fit, whatever is wrong with it, is none, and the request is balanced.
//!
//! Keys do not change with time: they are as old as the control plane's token key, and each rule has its own. A token
//! gives nobody anything but a choice among endpoints that its rule has anyway.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderName;
use selvedge_model::{BackendName, SessionCarrier, SessionPersistence};
use xxhash_rust::xxh3::xxh3_64;

use super::{BoundBackend, CookieText};
use crate::balance::address_bytes;

/// The form of what is encrypted.
const VERSION: u8 = 1;

/// What is encrypted: the form, two times, the backend, the address and the port.
const PLAIN: usize = 1 + 8 + 8 + 8 + 16 + 2;
const TAG: usize = 16;
const SEALED: usize = NONCE_LEN + PLAIN + TAG;

/// A session with an idle timeout is told again that it was used, but not more often than this: seconds.
const TOLD_AGAIN: u64 = 1;

/// How a rule's sessions are kept.
#[derive(Debug)]
pub struct BoundSession {
    /// What carries its tokens.
    pub carrier: Carrier,
    /// Whether a session whose endpoint fails goes on at the one that answered instead.
    pub moves_on_failure: bool,
    absolute_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    key: RandomizedNonceKey,
}

/// What carries tokens.
#[derive(Debug)]
pub enum Carrier {
    /// A header of this name.
    Header(HeaderName),
    /// A cookie of this name.
    Cookie(Box<str>, CookieText),
}

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// When it began: seconds since 1970.
    began: u64,
    /// When it was last used, as far as the client was told.
    used: u64,
    /// What stands for its backend.
    backend: u64,
    /// Where its endpoint's app listens.
    pub endpoint: SocketAddr,
}

impl Session {
    /// One that begins at `endpoint` of `backend`.
    pub fn new(backend: &BoundBackend, endpoint: SocketAddr) -> Self {
        Self::at(backend.in_tokens, endpoint)
    }

    fn at(backend: u64, endpoint: SocketAddr) -> Self {
        let now = now();
        Self { began: now, used: now, backend, endpoint }
    }

    /// Whether it belongs to `backend`.
    pub fn is_with(&self, backend: &BoundBackend) -> bool {
        self.backend == backend.in_tokens
    }

    /// The same, used now; `None`: the client need not be told.
    fn used_again(self) -> Option<Self> {
        let now = now();
        (now.saturating_sub(self.used) >= TOLD_AGAIN).then_some(Self { used: now, ..self })
    }
}

/// What stands for `backend` in tokens.
pub(crate) fn stands_for(backend: &BackendName) -> u64 {
    xxh3_64(backend.to_string().as_bytes())
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl BoundSession {
    /// What `session` asks for; `None` if its name cannot be one, which the control plane refuses.
    pub fn of(session: &SessionPersistence) -> Option<Self> {
        let carrier = match &session.carrier {
            SessionCarrier::Header => Carrier::Header(HeaderName::from_bytes(session.name.as_bytes()).ok()?),
            SessionCarrier::Cookie { path, max_age, attributes } => {
                let text = CookieText::new(&session.name, *max_age, Some(path), attributes);
                Carrier::Cookie(session.name.as_str().into(), text.secure_if_it_can_be())
            }
        };
        Some(Self {
            carrier,
            moves_on_failure: session.moves_on_failure,
            absolute_timeout: session.absolute_timeout,
            idle_timeout: session.idle_timeout,
            key: RandomizedNonceKey::new(&AES_256_GCM, &session.key.0).ok()?,
        })
    }

    /// Whether `value` has the form of tokens, of whatever key. What has not is the app's own.
    pub fn is_token(value: &[u8]) -> bool {
        sealed(value).is_some()
    }

    /// The session that `token` names; `None` if it names none that goes on.
    pub fn read(&self, token: &[u8]) -> Option<Session> {
        let mut sealed = sealed(token)?;
        let (nonce, sealed) = sealed[..SEALED].split_at_mut(NONCE_LEN);
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.key.open_in_place(nonce, Aad::from(self.name()), sealed).ok()?;
        let session = decoded(plain)?;
        let now = now();
        let is_over = |since: u64, limit: Option<Duration>| {
            limit.is_some_and(|limit| now.saturating_sub(since) >= limit.as_secs().max(1))
        };
        (!is_over(session.began, self.absolute_timeout) && !is_over(session.used, self.idle_timeout))
            .then_some(session)
    }

    /// The token of `session`.
    pub fn token(&self, session: &Session) -> Option<String> {
        let mut sealed = encoded(session).to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(self.name()), &mut sealed).ok()?;
        let whole = [nonce.as_ref().as_slice(), &sealed].concat();
        Some(URL_SAFE_NO_PAD.encode(whole))
    }

    /// What `session` becomes with one more request; `None`: the client need not be told.
    pub fn used_again(&self, session: Session) -> Option<Session> {
        self.idle_timeout.and_then(|_| session.used_again())
    }

    fn name(&self) -> &[u8] {
        match &self.carrier {
            Carrier::Header(name) => name.as_str().as_bytes(),
            Carrier::Cookie(name, _) => name.as_bytes(),
        }
    }
}

fn encoded(session: &Session) -> [u8; PLAIN] {
    let mut plain = [0; PLAIN];
    plain[0] = VERSION;
    plain[1..9].copy_from_slice(&session.began.to_be_bytes());
    plain[9..17].copy_from_slice(&session.used.to_be_bytes());
    plain[17..25].copy_from_slice(&session.backend.to_be_bytes());
    plain[25..41].copy_from_slice(&address_bytes(session.endpoint.ip()));
    plain[41..].copy_from_slice(&session.endpoint.port().to_be_bytes());
    plain
}

/// What a token of this text holds, still sealed, and two bytes more; `None` if it is none, of whatever key.
fn sealed(token: &[u8]) -> Option<[u8; SEALED + 2]> {
    let mut sealed = [0; SEALED + 2];
    (URL_SAFE_NO_PAD.decode_slice(token, &mut sealed) == Ok(SEALED)).then_some(sealed)
}

fn decoded(plain: &[u8]) -> Option<Session> {
    let (version, rest) = plain.split_first()?;
    let (began, rest) = rest.split_first_chunk()?;
    let (used, rest) = rest.split_first_chunk()?;
    let (backend, rest) = rest.split_first_chunk()?;
    let (address, port) = rest.split_first_chunk::<16>()?;
    let address = IpAddr::V6(Ipv6Addr::from(*address)).to_canonical();
    (*version == VERSION).then_some(Session {
        began: u64::from_be_bytes(*began),
        used: u64::from_be_bytes(*used),
        backend: u64::from_be_bytes(*backend),
        endpoint: SocketAddr::new(address, u16::from_be_bytes(port.try_into().ok()?)),
    })
}

#[cfg(test)]
mod tests {
    use selvedge_model::{ServiceKey, SessionKey};

    use super::*;

    fn bound(key: u8, idle_timeout: Option<Duration>, absolute_timeout: Option<Duration>) -> BoundSession {
        BoundSession::of(&SessionPersistence {
            name: "session".into(),
            carrier: SessionCarrier::Header,
            absolute_timeout,
            idle_timeout,
            moves_on_failure: true,
            key: SessionKey([key; 32]),
        })
        .unwrap()
    }

    fn backend(host: &str) -> u64 {
        stands_for(&BackendName { service: ServiceKey::new(host, 80), subset: None })
    }

    #[test]
    fn a_token_is_read_by_whoever_has_the_key_and_by_nobody_else() {
        let session = Session::at(backend("a"), "10.0.0.1:8080".parse().unwrap());
        let token = bound(1, None, None).token(&session).unwrap();

        let read = bound(1, None, None).read(token.as_bytes()).unwrap();
        assert_eq!(read, session);
        assert!(read.backend == backend("a") && read.backend != backend("b"));
        assert_eq!(bound(2, None, None).read(token.as_bytes()), None);
        assert_ne!(bound(1, None, None).token(&session).unwrap(), token, "each has a nonce of its own");
    }

    #[test]
    fn a_token_is_told_from_what_an_app_sets_by_its_form() {
        let token =
            bound(1, None, None).token(&Session::at(backend("a"), ([10, 0, 0, 1], 80).into())).unwrap();

        assert!(BoundSession::is_token(token.as_bytes()));
        assert!(BoundSession::is_token("A".repeat(token.len()).as_bytes()), "of another key, or spoilt");
        for of_app in ["", "8C1A4E0F2B7D", &token[1..], &format!("{token}A"), &"!".repeat(token.len())] {
            assert!(!BoundSession::is_token(of_app.as_bytes()), "{of_app}");
        }
    }

    #[test]
    fn what_is_no_token_names_no_session() {
        let bound = bound(1, None, None);
        let token = bound.token(&Session::at(backend("a"), "[fd00::1]:80".parse().unwrap())).unwrap();
        for place in 0..token.len() {
            let mut spoilt = token.clone().into_bytes();
            spoilt[place] = if spoilt[place] == b'A' { b'B' } else { b'A' };
            // The last character has bits that say nothing.
            let read = bound.read(&spoilt);
            assert!(read.is_none(), "{place}: {read:?}");
        }
        for text in ["", "a", "10.0.0.1:8080", &token[1..], &format!("{token}AAAA"), &"A".repeat(5_000)] {
            assert_eq!(bound.read(text.as_bytes()), None);
        }
    }

    #[test]
    fn a_session_ends_by_either_timeout() {
        let second = Some(Duration::from_secs(1));
        let old = Session {
            began: now() - 100,
            used: now() - 1,
            ..Session::at(backend("a"), ([10, 0, 0, 1], 80).into())
        };
        let reads = |bound: &BoundSession| bound.read(bound.token(&old).unwrap().as_bytes()).is_some();

        assert!(reads(&bound(1, Some(Duration::from_secs(60)), Some(Duration::from_secs(3_600)))));
        assert!(!reads(&bound(1, second, None)));
        assert!(!reads(&bound(1, None, Some(Duration::from_secs(100)))));
        assert!(bound(1, second, None).used_again(old).unwrap().used > old.used);
        assert_eq!(bound(1, None, second).used_again(old), None);
    }
}
