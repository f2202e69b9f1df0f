//! What a match on a header compares: a header, or a part of the request that is not a header.
//!
//! HTTP/2 has no `Host` header and HTTP/1.1 no `:authority`: both names mean the authority, in either protocol, and as
//! the client sent it, with its port if it gave one. Envoy reads them so too.
//!
//! A claim is read from the request's token, which the proxy has verified, and never from a header: `@` stands in no
//! header's name, so that nobody can send one that looks like a claim.

use std::{borrow::Cow, fmt, str::FromStr};

use http::{HeaderName, HeaderValue, header};
use serde::{Serialize, Serializer};

use super::{StringMatch, claim::ClaimPath};
use crate::facts;

/// What a match on a header looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderField {
    /// A header.
    Header(HeaderName),
    /// `host` and `:authority`.
    Authority,
    /// `:method`.
    Method,
    /// `:path`: the path as the proxy normalised it, with the query.
    Path,
    /// `:scheme`.
    Scheme,
    /// `@request.auth.claims…`: a claim of the token.
    Claim(ClaimPath),
}

/// A name that no header can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownField {
    /// It is nothing that is known here.
    #[error("{0:?} is not the name of a header; correct it")]
    Header(String),
    /// It begins like a claim, and names none.
    #[error("{0:?} names no claim; write @request.auth.claims[NAME] or @request.auth.claims.NAME")]
    Claim(String),
}

impl FromStr for HeaderField {
    type Err = UnknownField;

    /// Whatever case `name` is written in.
    fn from_str(name: &str) -> Result<Self, UnknownField> {
        if let Some(path) = ClaimPath::parse(name) {
            return path.map(Self::Claim).ok_or_else(|| UnknownField::Claim(name.to_owned()));
        }
        let lower = name.to_ascii_lowercase();
        Ok(match lower.as_str() {
            "host" | ":authority" => Self::Authority,
            ":method" => Self::Method,
            ":path" => Self::Path,
            ":scheme" => Self::Scheme,
            lower => match HeaderName::from_bytes(lower.as_bytes()) {
                Ok(name) => Self::Header(name),
                Err(_) => return Err(UnknownField::Header(name.to_owned())),
            },
        })
    }
}

impl AsRef<str> for HeaderField {
    fn as_ref(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::Authority => ":authority",
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Scheme => ":scheme",
            Self::Claim(path) => path.as_ref(),
        }
    }
}

impl fmt::Display for HeaderField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_ref())
    }
}

impl Serialize for HeaderField {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_ref())
    }
}

impl HeaderField {
    /// Whether `request` has there what is `wanted`; `None` if it has nothing. Of a claim that is a list, one text is enough.
    pub(super) fn is_match(&self, wanted: &StringMatch, request: &facts::Request<'_>) -> Option<bool> {
        match self {
            Self::Claim(path) => path.is_match(wanted, request.token),
            field => field.value(request).map(|value| wanted.is_match(&value)),
        }
    }

    /// What `request` has there, in one text; `None` if it has nothing.
    pub fn value<'a>(&self, request: &facts::Request<'a>) -> Option<Cow<'a, str>> {
        Some(match self {
            Self::Header(name) => return header(request, name),
            Self::Authority => Cow::Borrowed(request.authority),
            Self::Method => Cow::Borrowed(request.method.as_str()),
            Self::Path if request.query.is_empty() => Cow::Borrowed(request.path),
            Self::Path => Cow::Owned(format!("{}?{}", request.path, request.query)),
            Self::Scheme => Cow::Borrowed(request.scheme),
            Self::Claim(path) => return path.shown(request.token),
        })
    }
}

/// All values of a header, joined with `,`, the crumbs of a cookie with `; ` (RFC 9113, section 8.2.3); `None` if it is
/// missing. Bytes that are not UTF-8 become U+FFFD, so that no client makes a header invisible to a rule by adding
/// one to it.
fn header<'a>(request: &facts::Request<'a>, name: &HeaderName) -> Option<Cow<'a, str>> {
    let values = request.headers.get_all(name).iter();
    let mut values = values.map(HeaderValue::as_bytes).map(String::from_utf8_lossy);
    let first = values.next()?;
    let Some(second) = values.next() else {
        return Some(first);
    };
    let between = if *name == header::COOKIE { "; " } else { "," };
    let mut joined = first.into_owned();
    for value in std::iter::once(second).chain(values) {
        joined.push_str(between);
        joined.push_str(&value);
    }
    Some(Cow::Owned(joined))
}
