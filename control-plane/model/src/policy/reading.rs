//! How else than as it is written an app may read a request.
//!
//! Where a match refuses, one reading that matches is enough; where it permits, each must match. `any` says which of the
//! two is asked.

use std::{borrow::Cow, cell::OnceCell};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    path::{Loose, PathSet, loosen},
    server::Routed,
    text::{TextPattern, TextSet},
};
use crate::{facts, normalize::path::in_capitals, route::HeaderField, token::reads_as};

/// Headers by which a client may ask an app to take a request for one with another method.
static METHOD_OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// A request, and how else an app may read it; each reading is made when the first condition asks for it.
#[derive(Debug)]
pub(super) struct Readings<'a> {
    pub(super) request: &'a facts::Request<'a>,
    path: OnceCell<Cow<'a, str>>,
    loose_path: OnceCell<Loose<'a>>,
    overrides: OnceCell<bool>,
    /// The routes of its server that it follows; `None`: the server has none.
    routed: Option<Routed>,
}

impl<'a> Readings<'a> {
    pub(super) fn new(request: &'a facts::Request<'a>) -> Self {
        Self {
            request,
            path: OnceCell::new(),
            loose_path: OnceCell::new(),
            overrides: OnceCell::new(),
            routed: None,
        }
    }

    /// The same of a request that follows these routes.
    pub(super) fn routed<'b>(&self, routed: Routed) -> Readings<'b>
    where
        'a: 'b,
    {
        Readings { routed: Some(routed), ..Readings::new(self.request) }
    }

    /// Whether the request follows such a route of its server.
    pub(super) fn is_routed(&self, is_one: impl Fn(usize) -> bool, any: bool) -> bool {
        self.routed.is_some_and(|routed| if any { routed.any(is_one) } else { routed.all(is_one) })
    }

    pub(super) fn loose_path(&self) -> &Loose<'a> {
        self.loose_path.get_or_init(|| loosen(self.request.path))
    }

    /// The path as sets of paths are asked for it.
    pub(super) fn path(&self) -> &str {
        self.path.get_or_init(|| in_capitals(self.request.path))
    }

    /// The methods that an app may take the request for, besides its own.
    fn other_methods(&self) -> impl Iterator<Item = &str> {
        let headers = self.request.headers;
        let overrides = *self.overrides.get_or_init(|| headers.keys().any(overrides_method));
        let fields = overrides.then_some(headers).into_iter().flat_map(HeaderMap::iter);
        fields.filter(|(name, _)| overrides_method(name)).map(|(_, value)| text(value))
    }

    /// The hosts, in lower case, of which [`is_host`](Self::is_host) asks whether they are in a set.
    pub(super) fn hosts(&self, any: bool) -> impl Iterator<Item = Cow<'_, str>> {
        let authority = self.request.authority;
        let bare = Some(without_port(authority)).filter(|bare| any && bare.len() != authority.len());
        [Some(authority), bare].into_iter().flatten().map(|host| {
            match host.bytes().any(|byte| byte.is_ascii_uppercase()) {
                true => Cow::Owned(host.to_ascii_lowercase()),
                false => Cow::Borrowed(host),
            }
        })
    }

    /// Whether the request's host is in `set`.
    pub(super) fn is_host(&self, set: &TextSet, any: bool) -> bool {
        let authority = self.request.authority;
        in_any_case(set, authority) || (any && in_any_case(set, without_port(authority)))
    }

    /// Whether the request's method is in `set`. Apps that write methods in capitals (Django, Werkzeug) take `delete` for
    /// `DELETE`.
    pub(super) fn is_method(&self, set: &TextSet, any: bool) -> bool {
        let method = self.request.method.as_str();
        let in_capitals = |method: &str| set.contains(method) || set.contains(&method.to_ascii_uppercase());
        match any {
            true => {
                set.contains(method)
                    || (method.bytes().any(|byte| byte.is_ascii_lowercase()) && in_capitals(method))
                    || self.other_methods().any(in_capitals)
            }
            false => set.contains(method) && self.other_methods().all(in_capitals),
        }
    }

    /// Whether `field` is in `set`. A part of the request that is named like a header is read as the part itself.
    pub(super) fn is_field(&self, field: &HeaderField, set: &TextSet, any: bool) -> bool {
        let exact = || field.value(self.request).is_some_and(|value| set.contains(&value));
        match field {
            HeaderField::Header(name) => is_header(set, self.request.headers, name, any),
            HeaderField::Authority => exact() || (any && self.is_host(set, any)),
            HeaderField::Method => self.is_method(set, any),
            // Policies ask for paths and claims by other names.
            HeaderField::Scheme | HeaderField::Path | HeaderField::Claim(_) => exact(),
        }
    }

    /// Whether the path is in `set`.
    pub(super) fn is_path(&self, set: &PathSet, any: bool) -> bool {
        let is_itself = set.contains(self.path());
        match any {
            true => is_itself || set.contains_loosely(self.loose_path()),
            false => {
                is_itself && self.loose_path().elsewhere.as_deref().is_none_or(|path| set.contains(path))
            }
        }
    }

    /// Whether the path with its query is in `set`.
    pub(super) fn is_target(&self, set: &PathSet, any: bool) -> bool {
        let query = self.request.query;
        if query.is_empty() {
            return self.is_path(set, any);
        }
        let is_in = |path: &str| set.contains(&format!("{path}?{query}"));
        let is_itself = is_in(self.path());
        match any {
            true => is_itself || set.contains_target_loosely(self.loose_path(), query),
            false => is_itself && self.loose_path().elsewhere.as_deref().is_none_or(is_in),
        }
    }
}

fn overrides_method(name: &HeaderName) -> bool {
    METHOD_OVERRIDES.iter().any(|known| reads_as(name, known))
}

fn in_any_case(set: &TextSet, text: &str) -> bool {
    let (exact, others) = set.parts();
    let bytes = text.as_bytes();
    exact.iter().any(|one| one.as_bytes().eq_ignore_ascii_case(bytes))
        || others.iter().any(|pattern| match pattern {
            TextPattern::Prefix(prefix) => {
                bytes.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
            }
            TextPattern::Suffix(suffix) => {
                let start = bytes.len().checked_sub(suffix.len());
                start.is_some_and(|start| bytes[start..].eq_ignore_ascii_case(suffix.as_bytes()))
            }
            other => other.is_match(text),
        })
}

/// A host without its port and the dot at the end of a full name.
fn without_port(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(':') => host,
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

/// Whether the header `name` is in `set`: several lines of it are one text with commas, as Envoy reads them. If `any`, one
/// line is enough; otherwise each line must be in `set`. Lines under a name that apps take for the same count, too.
fn is_header(set: &TextSet, headers: &HeaderMap, name: &HeaderName, any: bool) -> bool {
    let is_in = |value: &HeaderValue| match value.to_str() {
        // As in Istio, `*` asks only whether the header is there.
        Ok(text) => set.contains(text) || (text.is_empty() && asks_presence(set)),
        Err(_) => set.contains(&String::from_utf8_lossy(value.as_bytes())),
    };
    let mut lines = headers.get_all(name).iter();
    let (first, second) = (lines.next(), lines.next());
    let joined = || {
        let lines: Vec<_> = headers.get_all(name).iter().map(text).collect();
        set.contains(&lines.join(","))
    };
    let mut alike =
        headers.iter().filter(|(other, _)| *other != name && reads_as(other, name)).map(|(_, value)| value);
    if any {
        return first.is_some_and(is_in)
            || (second.is_some() && (headers.get_all(name).iter().any(is_in) || joined()))
            || alike.any(is_in);
    }
    first.is_some_and(is_in)
        && (second.is_none() || (headers.get_all(name).iter().all(is_in) && joined()))
        && alike.all(is_in)
}

fn asks_presence(set: &TextSet) -> bool {
    set.parts().1.contains(&TextPattern::Present)
}

fn text(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("\u{fffd}")
}
