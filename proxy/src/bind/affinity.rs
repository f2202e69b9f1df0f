//! What a backend's requests are kept together by, prepared for requests.

use std::{fmt, time::Duration};

use aws_lc_rs::{constant_time::verify_slices_are_equal, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, HeaderValue};
use selvedge_model::{HashCookie, HashKey, LoadBalancer, SessionKey};

/// What requests are kept together by ([`HashKey`]).
#[derive(Debug)]
pub enum Affinity {
    /// The values of a header.
    Header(HeaderName),
    /// The host that is asked for (`:authority`).
    Authority,
    /// The path with its query (`:path`).
    Path,
    /// The value of a cookie.
    Cookie(AffinityCookie),
    /// The client's address.
    SourceAddress,
    /// The first value of a query parameter.
    Query(Box<str>),
}

/// A cookie by whose value requests are kept together.
#[derive(Debug)]
pub struct AffinityCookie {
    /// Its name.
    pub name: Box<str>,
    /// What clients are given that have none; `None`: nothing.
    pub given: Option<CookieText>,
    /// Whether a client gets another one if its endpoint fails.
    pub renewed_on_failure: bool,
    /// What those are signed with that clients are given. `None`: they are not.
    pub signature: Option<Box<Signature>>,
}

/// What makes the values of cookies: a random number and its signature (the first half of HMAC-SHA-256), in base64url.
///
/// So nobody can look for a value that belongs to the endpoint which he wants, although everybody knows the hash function. What
/// is not signed may be the app's own cookie of the same name, or made up. It has a hash that only who has the key can tell.
pub struct Signature(hmac::Key);

/// Bytes of the number, and of its signature.
const HALF: usize = 16;

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signature(hidden)")
    }
}

impl Signature {
    fn new(key: &SessionKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key.0))
    }

    /// The value with this `number`.
    pub fn value(&self, number: u128) -> String {
        let mut bytes = [0; 2 * HALF];
        bytes[..HALF].copy_from_slice(&number.to_be_bytes());
        let signature = hmac::sign(&self.0, &bytes[..HALF]);
        bytes[HALF..].copy_from_slice(&signature.as_ref()[..HALF]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether `value` has the form of those that are given.
    pub fn may_be(value: &[u8]) -> bool {
        URL_SAFE_NO_PAD.decode_slice(value, &mut [0; 2 * HALF + 2]) == Ok(2 * HALF)
    }

    /// Whether `value` is one that was given, by whichever proxy has the key. Each is written in one way alone.
    pub fn is_ours(&self, value: &[u8]) -> bool {
        let mut bytes = [0; 2 * HALF + 2];
        if URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) != Ok(2 * HALF) {
            return false;
        }
        let (number, signature) = bytes[..2 * HALF].split_at(HALF);
        verify_slices_are_equal(&hmac::sign(&self.0, number).as_ref()[..HALF], signature).is_ok()
    }

    /// The hash of a `value` that is not ours: the same at all proxies that have the key.
    pub fn hash(&self, value: &[u8]) -> u64 {
        let signature = hmac::sign(&self.0, value);
        // Other bytes than a signature has.
        let bytes = &signature.as_ref()[HALF..];
        bytes.iter().take(size_of::<u64>()).fold(0, |hash, byte| (hash << 8) | u64::from(*byte))
    }
}

impl Affinity {
    /// What `balancer` keeps requests together by, if it does.
    pub fn of(balancer: &LoadBalancer) -> Option<Self> {
        let LoadBalancer::ConsistentHash(hash) = balancer else { return None };
        Some(match &hash.key {
            HashKey::Header(name) => match name.as_str() {
                ":authority" | "host" => Self::Authority,
                ":path" => Self::Path,
                // A name that is none is no request's.
                name => Self::Header(HeaderName::from_bytes(name.as_bytes()).ok()?),
            },
            HashKey::Cookie(cookie) => Self::Cookie(AffinityCookie::of(cookie)),
            HashKey::SourceAddress => Self::SourceAddress,
            HashKey::Query(name) => Self::Query(name.as_str().into()),
        })
    }
}

impl AffinityCookie {
    fn of(cookie: &HashCookie) -> Self {
        let HashCookie { name, ttl, path, attributes, renewed_on_failure, key } = cookie;
        let given = ttl.map(|ttl| {
            let ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
            CookieText::new(name, ttl, path.as_deref(), attributes)
        });
        // What no proxy gives is the app's own.
        let signature = key.as_ref().filter(|_| given.is_some()).map(|key| Box::new(Signature::new(key)));
        Self { name: name.as_str().into(), given, renewed_on_failure: *renewed_on_failure, signature }
    }
}

/// A cookie as `Set-Cookie` writes it (RFC 6265, section 4.1), but for its value.
#[derive(Debug)]
pub struct CookieText {
    before: Box<str>,
    after: Box<str>,
    /// The same where the client's connection is encrypted.
    after_secure: Box<str>,
}

impl CookieText {
    /// The cookie `name` that is kept for `max_age`, or until the browser is closed.
    pub fn new(name: &str, max_age: Option<Duration>, path: Option<&str>, attributes: &[String]) -> Self {
        let max_age = max_age.map(|age| format!("Max-Age={}", age.as_secs().max(1)));
        let path = path.map(|path| format!("Path={path}"));
        let all = max_age.into_iter().chain(path).chain(attributes.iter().cloned());
        let after: String = all.map(|attribute| format!("; {attribute}")).collect();
        Self { before: format!("{name}=").into(), after_secure: after.as_str().into(), after: after.into() }
    }

    /// The same, with `Secure` where the client's connection is encrypted.
    #[must_use]
    pub fn secure_if_it_can_be(self) -> Self {
        let is_secure = self.after.split("; ").any(|attribute| attribute.eq_ignore_ascii_case("secure"));
        let secure = if is_secure { "" } else { "; Secure" };
        Self { after_secure: format!("{}{secure}", self.after).into(), ..self }
    }

    /// Whether `set_cookie`, the value of a `Set-Cookie`, sets a cookie of the same name.
    pub fn is_set_by(&self, set_cookie: &HeaderValue) -> bool {
        let pair = set_cookie.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        // `before` has the name and `=`.
        let (name, _) = self.before.as_bytes().split_at(self.before.len() - 1);
        let place = pair.iter().position(|byte| *byte == b'=');
        place.is_some_and(|place| pair[..place].trim_ascii() == name)
    }

    /// `Set-Cookie` with this `value`; `None` if no header can say it.
    pub fn with(&self, value: &str, secure: bool) -> Option<HeaderValue> {
        let after = if secure { &self.after_secure } else { &self.after };
        HeaderValue::try_from(format!("{}{value}{after}", self.before)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_ours_if_somebody_with_the_key_has_made_it_and_no_other_is() {
        let [ours, same, other] = [1, 1, 2].map(|byte| Signature::new(&SessionKey([byte; 32])));
        let value = ours.value(7);

        assert!(same.is_ours(value.as_bytes()) && !other.is_ours(value.as_bytes()));
        assert_eq!(value, same.value(7));
        assert_ne!(value, ours.value(8));
        // Nor is one that is written in another way: it would have another hash.
        let letters = || (b'!'..=b'~').filter(|letter| *letter != b';');
        for place in 0..value.len() {
            for letter in letters().filter(|letter| *letter != value.as_bytes()[place]) {
                let mut spoilt = value.clone().into_bytes();
                spoilt[place] = letter;
                assert!(!ours.is_ours(&spoilt), "{place}: {}", char::from(letter));
            }
        }
        for text in
            ["", "00000000000000000000000000000007", &value[1..], &format!("{value}="), &"A".repeat(9_000)]
        {
            assert!(!ours.is_ours(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_ours_has_a_hash_that_depends_on_the_key() {
        let [ours, same, other] = [1, 1, 2].map(|byte| Signature::new(&SessionKey([byte; 32])));

        assert_eq!(ours.hash(b"jason"), same.hash(b"jason"));
        assert_ne!(ours.hash(b"jason"), other.hash(b"jason"));
        assert_ne!(ours.hash(b"jason"), ours.hash(b"jasmin"));
    }

    #[test]
    fn a_cookie_is_written_with_its_attributes() {
        let attributes = ["SameSite=Lax".to_owned(), "HttpOnly".to_owned()];
        let cookie = CookieText::new("user", Some(Duration::from_secs(60)), Some("/shop"), &attributes);
        assert_eq!(
            cookie.with("1f", true).unwrap(),
            "user=1f; Max-Age=60; Path=/shop; SameSite=Lax; HttpOnly"
        );

        for (set, is_same) in [
            ("user=1f", true),
            (" user =; Path=/", true),
            ("users=1", false),
            ("user", false),
            ("a=user=1", false),
            ("User=1", false),
            ("", false),
        ] {
            assert_eq!(cookie.is_set_by(&HeaderValue::from_static(set)), is_same, "{set}");
        }

        let cookie = CookieText::new("user", None, None, &[]).secure_if_it_can_be();
        assert_eq!(cookie.with("1f", false).unwrap(), "user=1f");
        assert_eq!(cookie.with("1f", true).unwrap(), "user=1f; Secure");
    }
}
