//! A rule's filters, or those of one of its backends, ready for requests: what can be prepared when configuration changes
//! is. What cannot be used becomes an answer that says so; nothing is left out.
//!
//! The proxy runs requests through this, and `selvedge explain` too: what it says of a request is what would happen.

mod rewrite;

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, uri::Authority};

use super::{
    Commands, Cors, Crossing, Delay, Fault, Filters, Fraction, HeaderChanges, OwnAnswer, PathRewrite,
    Redirect, Sources,
};
use crate::{StringMatch, facts};

/// All filters of a rule, or of one backend of it, but for mirrors: who gets copies is bound to more than can be said here.
#[derive(Debug)]
pub struct ReadyFilters {
    /// Who may ask, by address.
    sources: Option<Sources>,
    /// Who may call from a page of another origin.
    pub cors: Option<Cors>,
    /// The longest body of a request, in bytes. 0 means no limit. `None`: what holds for the gateway as a whole.
    pub max_body: Option<u64>,
    /// Failures that are made on purpose: they wait.
    pub delay: Option<Delay>,
    /// Failures that are made on purpose: they fail.
    pub abort: Option<ReadyAbort>,
    /// The answer that the proxy gives itself.
    pub answer: Option<ReadyAnswer>,
    /// What changes in the request's headers.
    pub request_headers: ReadyChanges,
    /// What the path becomes.
    pub path: Option<PathRewrite>,
    /// Whether a query that the new path has stands before the request's own; otherwise it stands in its place.
    adds_query: bool,
    /// What the authority becomes.
    pub authority: Option<ReadyAuthority>,
    /// What changes in the answer's headers.
    pub response_headers: ReadyChanges,
    /// What each of the rule's matches asks of the path, in their order; empty if no filter asks for that.
    matched: Vec<Option<StringMatch>>,
}

/// How requests are made to fail.
#[derive(Debug)]
pub struct ReadyAbort {
    /// The status of the answer.
    pub status: StatusCode,
    /// The same for a gRPC caller.
    pub grpc: u8,
    /// How many of them.
    pub fraction: Fraction,
}

/// An answer that needs no backend.
#[derive(Debug)]
pub enum ReadyAnswer {
    /// To somewhere else.
    Redirect(StatusCode, Redirect),
    /// A fixed one.
    Direct(StatusCode, Bytes),
    /// That a filter cannot be used, and why.
    Unusable(Arc<str>),
}

/// A host, with or without a port, in both ways in which requests name it.
#[derive(Debug)]
pub struct ReadyAuthority {
    /// For the target of a request.
    pub authority: Authority,
    /// For its `Host`.
    pub host: HeaderValue,
}

/// Changes of headers.
#[derive(Debug)]
pub struct ReadyChanges {
    /// The changes.
    pub changes: HeaderChanges,
    /// The name of this host, if some value has a command.
    hostname: Option<Arc<str>>,
}

impl ReadyFilters {
    /// `filters` of a rule whose matches ask `matched` of the path; `None` if they do nothing. `hostname` says the name of
    /// the host that the proxy runs on, and is called only if a filter asks for it.
    pub fn new(
        filters: &Filters,
        matched: impl Iterator<Item = Option<StringMatch>>,
        hostname: impl Fn() -> Arc<str>,
    ) -> Option<Self> {
        if filters.is_empty() {
            return None;
        }
        let mut ready = Self {
            sources: filters.sources.clone(),
            cors: filters.cors.clone(),
            max_body: filters.max_body,
            delay: None,
            abort: None,
            answer: None,
            request_headers: ReadyChanges::new(&filters.request_headers, &hostname),
            path: filters.rewrite.path.clone(),
            adds_query: filters.rewrite.adds_query,
            authority: None,
            response_headers: ReadyChanges::new(&filters.response_headers, &hostname),
            matched: Vec::new(),
        };
        if let Err(why) = ready.prepare_rest(filters) {
            ready.answer = Some(ReadyAnswer::Unusable(Arc::from(why)));
        }
        if filters.ask_for_match() {
            ready.matched = matched.collect();
        }
        Some(ready)
    }

    /// What may turn out not to be usable.
    fn prepare_rest(&mut self, filters: &Filters) -> Result<(), String> {
        if let Some(Fault { delay, abort }) = &filters.fault {
            self.delay = delay.clone();
            self.abort = match abort {
                None => None,
                Some(abort) => {
                    let status = status(abort.status)?;
                    let grpc = abort.grpc.unwrap_or(grpc_of(status));
                    Some(ReadyAbort { status, grpc, fraction: abort.fraction })
                }
            };
        }
        self.answer = match &filters.answer {
            None => None,
            Some(OwnAnswer::Redirect(redirect)) => {
                Some(ReadyAnswer::Redirect(status(redirect.status)?, redirect.clone()))
            }
            Some(OwnAnswer::Direct(direct)) => {
                Some(ReadyAnswer::Direct(status(direct.status)?, direct.body.clone()))
            }
            Some(OwnAnswer::Unusable(why)) => return Err(why.clone()),
        };
        if let Some(authority) = &filters.rewrite.authority {
            self.authority = Some(ReadyAuthority::new(authority)?);
        }
        Ok(())
    }

    /// Whether a client at `address` is answered.
    pub fn may_ask(&self, address: IpAddr) -> bool {
        self.sources.as_ref().is_none_or(|sources| sources.may_ask(address))
    }

    /// What CORS makes of a request with this method and these headers.
    pub fn crossing(&self, method: &Method, headers: &HeaderMap) -> Crossing {
        self.cors.as_ref().map_or(Crossing::Goes(None), |cors| cors.judge(method, headers))
    }

    /// How long a request waits on purpose, if this is one that does.
    pub fn drawn_delay(&self, rng: &mut fastrand::Rng) -> Option<Duration> {
        self.delay.as_ref().filter(|delay| delay.fraction.draw(rng)).map(|delay| delay.time)
    }

    /// How a request fails on purpose, if this is one that does.
    pub fn drawn_abort(&self, rng: &mut fastrand::Rng) -> Option<&ReadyAbort> {
        self.abort.as_ref().filter(|abort| abort.fraction.draw(rng))
    }

    /// The `Location` of `redirect`, which is one of these filters, for `request`, which came here by the match at `place`.
    ///
    /// # Errors
    /// Why it cannot be one.
    pub fn location(
        &self,
        redirect: &Redirect,
        request: &facts::Request<'_>,
        place: Option<usize>,
    ) -> Result<HeaderValue, &'static str> {
        HeaderValue::try_from(redirect.location(request, self.matched(place)))
            .map_err(|_| "the Location of its redirect cannot be the value of a header")
    }

    /// What the match at `place` asks of the path.
    fn matched(&self, place: Option<usize>) -> Option<&StringMatch> {
        self.matched.get(place?)?.as_ref()
    }
}

impl ReadyAuthority {
    fn new(authority: &str) -> Result<Self, String> {
        let unusable = || format!("{authority:?}, to which it rewrites the authority, is no host");
        let host = HeaderValue::from_str(authority).map_err(|_| unusable())?;
        Ok(Self { authority: authority.parse().map_err(|_| unusable())?, host })
    }
}

impl ReadyChanges {
    fn new(changes: &HeaderChanges, hostname: impl Fn() -> Arc<str>) -> Self {
        let changes = changes.that_may_be_made();
        let hostname = changes.has_commands().then(hostname);
        Self { changes, hostname }
    }

    /// The changes, with what their commands stand for; `commands` says that on a host of this name, and is called only if
    /// there are some.
    pub fn said<'a: 'c, 'c>(
        &'a self,
        commands: impl FnOnce(&'c str) -> Commands<'c>,
    ) -> Cow<'a, HeaderChanges> {
        match &self.hostname {
            None => Cow::Borrowed(&self.changes),
            Some(hostname) => Cow::Owned(self.changes.said(&commands(hostname))),
        }
    }
}

fn status(status: u16) -> Result<StatusCode, String> {
    let found = StatusCode::from_u16(status).ok().filter(|status| !status.is_informational());
    found.ok_or_else(|| format!("{status} cannot be the status of an answer"))
}

/// The gRPC status for an answer that is none of gRPC's ("HTTP to gRPC Status Code Mapping").
pub fn grpc_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Abort, DirectResponse, RedirectPort, Rewrite};

    fn ready(filters: &Filters, matched: impl Iterator<Item = Option<StringMatch>>) -> Option<ReadyFilters> {
        ReadyFilters::new(filters, matched, Arc::default)
    }

    fn unusable(filters: &Filters) -> Option<String> {
        match &ready(filters, std::iter::empty())?.answer {
            Some(ReadyAnswer::Unusable(why)) => Some(why.to_string()),
            _ => None,
        }
    }

    #[test]
    fn what_does_nothing_is_nothing() {
        assert!(ready(&Filters::default(), std::iter::empty()).is_none());
    }

    #[test]
    fn what_cannot_be_used_says_so_and_is_not_left_out() {
        let redirect = Redirect { scheme: None, port: RedirectPort::Default, ..Redirect::to_https(99) };
        let abort = Abort { status: 1000, grpc: None, fraction: Fraction::ALL };
        for (filters, why) in [
            (Filters { answer: Some(OwnAnswer::Redirect(redirect)), ..Filters::default() }, "99 cannot"),
            (
                Filters {
                    answer: Some(OwnAnswer::Direct(DirectResponse { status: 101, body: Bytes::new() })),
                    ..Filters::default()
                },
                "101 cannot",
            ),
            (
                Filters { fault: Some(Fault { delay: None, abort: Some(abort) }), ..Filters::default() },
                "1000 cannot",
            ),
            (
                Filters {
                    rewrite: Rewrite { authority: Some("a b".to_owned()), ..Rewrite::default() },
                    ..Filters::default()
                },
                "\"a b\"",
            ),
            (
                Filters { answer: Some(OwnAnswer::Unusable("no such".to_owned())), ..Filters::default() },
                "no such",
            ),
        ] {
            let found = unusable(&filters).expect("it cannot be used");
            assert!(found.starts_with(why), "{found}");
        }
    }

    #[test]
    fn a_match_is_kept_only_for_who_asks_for_it() {
        let kept = |path| {
            let filters =
                Filters { rewrite: Rewrite { path: Some(path), ..Rewrite::default() }, ..Filters::default() };
            let matched = [None, Some(StringMatch::Prefix("/a".to_owned()))];
            ready(&filters, matched.into_iter()).expect("a filter")
        };
        assert!(kept(PathRewrite::Full("/x".to_owned())).matched(Some(1)).is_none());
        let ready = kept(PathRewrite::Prefix("/x".to_owned()));
        assert_eq!(ready.matched(Some(1)), Some(&StringMatch::Prefix("/a".to_owned())));
        assert_eq!((ready.matched(Some(0)), ready.matched(Some(2)), ready.matched(None)), (None, None, None));
    }
}
