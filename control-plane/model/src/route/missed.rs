//! Whether a request is what a match asks for, and if not, on which of its conditions that fails.
//!
//! The conditions are looked at in one order, cheapest first, and the first that does not hold ends it. So the proxy, which
//! asks only whether all hold, does the same work as `selvedge explain`, which says which one does not.

use super::{HeaderField, Match, StringMatch};
use crate::{facts, normalize::path::Spellings};

/// The first condition of a [`Match`] that does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// [`Match::path`].
    Path,
    /// [`Match::grpc`].
    Grpc,
    /// [`Match::method`].
    Method,
    /// [`Match::authority`].
    Authority,
    /// The one at this index of [`Match::headers`].
    Header(usize),
    /// The one at this index of [`Match::without_headers`].
    WithoutHeader(usize),
    /// The one at this index of [`Match::query`].
    Query(usize),
}

impl Match {
    /// Whether every condition holds.
    #[inline]
    pub fn is_match(&self, request: &facts::Request<'_>) -> bool {
        self.missed(request).is_none()
    }

    /// The first condition that does not hold; `None`: all hold. Who the client must be is decided before, by
    /// [`RouteTable::for_client`](super::RouteTable::for_client).
    #[inline]
    pub fn missed(&self, request: &facts::Request<'_>) -> Option<Missed> {
        self.missed_at(&Spellings::of(request.path), request)
    }

    /// The same of a request whose path is spelled so.
    #[inline]
    pub(super) fn missed_at(&self, path: &Spellings<'_>, request: &facts::Request<'_>) -> Option<Missed> {
        let misses =
            |wanted: &Option<StringMatch>, text| wanted.as_ref().is_some_and(|wanted| !wanted.is_match(text));
        if self.path_misses(path) {
            return Some(Missed::Path);
        }
        if self.grpc.as_ref().is_some_and(|wanted| !wanted.is_match(request.path)) {
            return Some(Missed::Grpc);
        }
        if misses(&self.method, request.method.as_str()) {
            return Some(Missed::Method);
        }
        if misses(&self.authority, request.authority) {
            return Some(Missed::Authority);
        }
        if let Some(place) = self.headers.iter().position(|header| misses_header(header, request)) {
            return Some(Missed::Header(place));
        }
        if let Some(place) = self.without_headers.iter().position(|header| has_header(header, request)) {
            return Some(Missed::WithoutHeader(place));
        }
        let place = self.query.iter().position(|parameter| misses_parameter(parameter, request.query))?;
        Some(Missed::Query(place))
    }

    fn path_misses(&self, path: &Spellings<'_>) -> bool {
        match &self.path {
            None => false,
            Some(wanted) if self.ignore_path_case => {
                !path.each().any(|text| wanted.is_match_ignoring_case(text))
            }
            Some(wanted) => !path.each().any(|text| wanted.is_match(text)),
        }
    }
}

fn misses_header((name, wanted): &(HeaderField, StringMatch), request: &facts::Request<'_>) -> bool {
    name.is_match(wanted, request) != Some(true)
}

fn has_header((name, unwanted): &(HeaderField, StringMatch), request: &facts::Request<'_>) -> bool {
    match name.is_match(unwanted, request) {
        Some(is_match) => is_match,
        // A claim that is missing is no empty text.
        None if matches!(name, HeaderField::Claim(_)) => false,
        None => !matches!(unwanted, StringMatch::Present) && unwanted.is_match(""),
    }
}

fn misses_parameter((name, wanted): &(String, StringMatch), query: &str) -> bool {
    query_value(query, name).is_none_or(|value| !wanted.is_match(value))
}

/// The first value of a query parameter, as it is written; a parameter without `=` is empty.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .find(|(key, _)| *key == name)
        .map(|(_, v)| v)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Method};

    use super::*;
    use crate::{
        GrpcMatch,
        facts::{Connection, Source},
    };

    fn exact(text: &str) -> StringMatch {
        StringMatch::Exact(text.to_owned())
    }

    /// What `one` misses of a POST for `/a.B/C?x=1` with the header `v: 2`.
    fn missed(one: &Match) -> Option<Missed> {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("v"), HeaderValue::from_static("2"))].into_iter().collect();
        let request = facts::Request {
            connection: &Connection::new(Source::UNKNOWN, 80),
            method: &Method::POST,
            scheme: "http",
            authority: "shop",
            path: "/a.B/C",
            query: "x=1",
            headers: &headers,
            token: None,
        };
        assert_eq!(one.is_match(&request), one.missed(&request).is_none());
        one.missed(&request)
    }

    #[test]
    fn the_first_condition_that_does_not_hold_is_named() {
        let header = |name: &str, value| (name.parse().unwrap(), exact(value));
        let of_grpc = |service| GrpcMatch { service: Some(exact(service)), method: None };
        let all = Match {
            path: Some(exact("/a.B/C")),
            method: Some(exact("POST")),
            authority: Some(exact("shop")),
            headers: vec![header("v", "2")],
            without_headers: vec![header("w", "2")],
            query: vec![("x".to_owned(), exact("1"))],
            grpc: Some(of_grpc("a.B")),
            ..Match::default()
        };
        assert_eq!(missed(&all), None);
        for (wrong, expected) in [
            (Match { path: Some(exact("/")), method: Some(exact("GET")), ..all.clone() }, Missed::Path),
            (Match { grpc: Some(of_grpc("b")), ..all.clone() }, Missed::Grpc),
            (Match { method: Some(exact("GET")), ..all.clone() }, Missed::Method),
            (Match { authority: Some(exact("web")), ..all.clone() }, Missed::Authority),
            (Match { headers: vec![header("v", "2"), header("w", "3")], ..all.clone() }, Missed::Header(1)),
            (Match { without_headers: vec![header("v", "2")], ..all.clone() }, Missed::WithoutHeader(0)),
            (Match { query: vec![("y".to_owned(), exact("1"))], ..all.clone() }, Missed::Query(0)),
        ] {
            assert_eq!(missed(&wrong), Some(expected));
        }
    }
}
