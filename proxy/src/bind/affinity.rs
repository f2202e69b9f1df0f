//! What a backend's requests are kept together by, prepared for requests.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use selvedge_model::{HashCookie, HashKey, LoadBalancer};

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
        let HashCookie { name, ttl, path, attributes, renewed_on_failure } = cookie;
        let given = ttl.map(|ttl| {
            let ttl = Some(ttl).filter(|ttl| !ttl.is_zero());
            CookieText::new(name, ttl, path.as_deref(), attributes)
        });
        Self { name: name.as_str().into(), given, renewed_on_failure: *renewed_on_failure }
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
    fn a_cookie_is_written_with_its_attributes() {
        let attributes = ["SameSite=Lax".to_owned(), "HttpOnly".to_owned()];
        let cookie = CookieText::new("user", Some(Duration::from_secs(60)), Some("/shop"), &attributes);
        assert_eq!(
            cookie.with("1f", true).unwrap(),
            "user=1f; Max-Age=60; Path=/shop; SameSite=Lax; HttpOnly"
        );

        let cookie = CookieText::new("user", None, None, &[]).secure_if_it_can_be();
        assert_eq!(cookie.with("1f", false).unwrap(), "user=1f");
        assert_eq!(cookie.with("1f", true).unwrap(), "user=1f; Secure");
    }
}
