//! A rule's filters, or those of one of its backends, ready for requests: what can be prepared when configuration changes
//! is. What cannot be used becomes an answer that says so; nothing is left out.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, uri::Authority};
use selvedge_model::{
    Filters, StringMatch,
    filter::{Cors, Delay, Fault, Fraction, HeaderChanges, Mirror, OwnAnswer, PathRewrite, Redirect},
};

use super::BoundShare;

/// All filters of a rule, or of one backend of it.
#[derive(Debug)]
pub struct BoundFilters {
    /// Who may call from a page of another origin.
    pub cors: Option<Cors>,
    /// Failures that are made on purpose: they wait.
    pub delay: Option<Delay>,
    /// Failures that are made on purpose: they fail.
    pub abort: Option<BoundAbort>,
    /// The answer that the proxy gives itself.
    pub answer: Option<BoundAnswer>,
    /// What changes in the request's headers.
    pub request_headers: BoundChanges,
    /// What the path becomes.
    pub path: Option<PathRewrite>,
    /// What the authority becomes.
    pub authority: Option<BoundAuthority>,
    /// Who gets a copy of the request as it is then.
    pub mirrors: Vec<BoundMirror>,
    /// What changes in the answer's headers.
    pub response_headers: BoundChanges,
    /// What each of the rule's matches asks of the path, in their order; empty if no filter asks for that.
    pub matched: Vec<Option<StringMatch>>,
}

/// How requests are made to fail.
#[derive(Debug)]
pub struct BoundAbort {
    /// The status of the answer.
    pub status: StatusCode,
    /// The same for a gRPC caller.
    pub grpc: u8,
    /// How many of them.
    pub fraction: Fraction,
}

/// Who gets copies.
#[derive(Debug)]
pub struct BoundMirror {
    /// Where they go and where they are counted.
    pub share: Arc<BoundShare>,
    /// Of how many requests.
    pub fraction: Fraction,
}

/// An answer that needs no backend.
#[derive(Debug)]
pub enum BoundAnswer {
    /// To somewhere else.
    Redirect(StatusCode, Redirect),
    /// A fixed one.
    Direct(StatusCode, Bytes),
    /// That a filter cannot be used, and why.
    Unusable(Arc<str>),
}

/// A host, with or without a port, in both ways in which requests name it.
#[derive(Debug)]
pub struct BoundAuthority {
    /// For the target of a request.
    pub authority: Authority,
    /// For its `Host`.
    pub host: HeaderValue,
}

/// Changes of headers.
#[derive(Debug)]
pub struct BoundChanges {
    /// The changes.
    pub changes: HeaderChanges,
    /// The name of this host, if some value has a command.
    pub hostname: Option<Arc<str>>,
}

impl BoundFilters {
    /// `filters` of a rule whose matches ask `matched` of the path; `None` if they do nothing. `mirror` binds each of the
    /// mirrors.
    pub fn bind(
        filters: &Filters,
        matched: impl Iterator<Item = Option<StringMatch>>,
        mirror: impl FnMut(&Mirror) -> BoundMirror,
    ) -> Option<Arc<Self>> {
        let Filters { cors, fault, answer, request_headers, rewrite, mirrors, response_headers } = filters;
        let does_nothing = cors.is_none()
            && fault.is_none()
            && answer.is_none()
            && rewrite.is_empty()
            && request_headers.is_empty()
            && mirrors.is_empty()
            && response_headers.is_empty();
        if does_nothing {
            return None;
        }
        let mut bound = Self {
            cors: cors.clone(),
            delay: None,
            abort: None,
            answer: None,
            request_headers: BoundChanges::bind(request_headers),
            path: rewrite.path.clone(),
            authority: None,
            mirrors: mirrors.iter().map(mirror).collect(),
            response_headers: BoundChanges::bind(response_headers),
            matched: Vec::new(),
        };
        if let Err(why) = bound.bind_rest(filters) {
            bound.answer = Some(BoundAnswer::Unusable(Arc::from(why)));
        }
        if filters.path_rewrites().any(PathRewrite::asks_for_match) {
            bound.matched = matched.collect();
        }
        Some(Arc::new(bound))
    }

    /// What may turn out not to be usable.
    fn bind_rest(&mut self, filters: &Filters) -> Result<(), String> {
        if let Some(Fault { delay, abort }) = &filters.fault {
            self.delay = delay.clone();
            self.abort = match abort {
                None => None,
                Some(abort) => {
                    let status = status(abort.status)?;
                    let grpc = abort.grpc.unwrap_or(grpc_of(status));
                    Some(BoundAbort { status, grpc, fraction: abort.fraction })
                }
            };
        }
        self.answer = match &filters.answer {
            None => None,
            Some(OwnAnswer::Redirect(redirect)) => {
                Some(BoundAnswer::Redirect(status(redirect.status)?, redirect.clone()))
            }
            Some(OwnAnswer::Direct(direct)) => {
                Some(BoundAnswer::Direct(status(direct.status)?, direct.body.clone()))
            }
            Some(OwnAnswer::Unusable(why)) => return Err(why.clone()),
        };
        if let Some(authority) = &filters.rewrite.authority {
            self.authority = Some(BoundAuthority::bind(authority)?);
        }
        Ok(())
    }

    /// What the match at `place` asks of the path.
    pub fn matched(&self, place: Option<usize>) -> Option<&StringMatch> {
        self.matched.get(place?)?.as_ref()
    }

    /// How long a request waits on purpose, if this is one that does.
    pub fn drawn_delay(&self, rng: &mut fastrand::Rng) -> Option<Duration> {
        self.delay.as_ref().filter(|delay| delay.fraction.draw(rng)).map(|delay| delay.time)
    }

    /// How a request fails on purpose, if this is one that does.
    pub fn drawn_abort(&self, rng: &mut fastrand::Rng) -> Option<&BoundAbort> {
        self.abort.as_ref().filter(|abort| abort.fraction.draw(rng))
    }
}

impl BoundAuthority {
    fn bind(authority: &str) -> Result<Self, String> {
        let unusable = || format!("{authority:?}, to which it rewrites the authority, is no host");
        let host = HeaderValue::from_str(authority).map_err(|_| unusable())?;
        Ok(Self { authority: authority.parse().map_err(|_| unusable())?, host })
    }
}

impl BoundChanges {
    fn bind(changes: &HeaderChanges) -> Self {
        let changes = changes.that_may_be_made();
        let hostname = changes.has_commands().then(hostname);
        Self { changes, hostname }
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

/// The name of this host; empty if the system does not say it.
fn hostname() -> Arc<str> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Arc::from(name.trim())
}

#[cfg(test)]
mod tests {
    use selvedge_model::filter::{Abort, DirectResponse, RedirectPort, Rewrite};

    use super::*;

    fn bind(
        filters: &Filters,
        matched: impl Iterator<Item = Option<StringMatch>>,
    ) -> Option<Arc<BoundFilters>> {
        BoundFilters::bind(filters, matched, |mirror| panic!("{mirror:?}"))
    }

    fn unusable(filters: &Filters) -> Option<String> {
        match &bind(filters, std::iter::empty())?.answer {
            Some(BoundAnswer::Unusable(why)) => Some(why.to_string()),
            _ => None,
        }
    }

    #[test]
    fn what_does_nothing_is_nothing() {
        assert!(bind(&Filters::default(), std::iter::empty()).is_none());
    }

    #[test]
    fn what_cannot_be_used_says_so_and_is_not_left_out() {
        let redirect =
            Redirect { status: 99, scheme: None, host: None, port: RedirectPort::Default, path: None };
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
                    rewrite: Rewrite { authority: Some("a b".to_owned()), path: None },
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
        let bound = |path| {
            let filters =
                Filters { rewrite: Rewrite { path: Some(path), authority: None }, ..Filters::default() };
            let matched = [None, Some(StringMatch::Prefix("/a".to_owned()))];
            bind(&filters, matched.into_iter()).expect("a filter")
        };
        assert!(bound(PathRewrite::Full("/x".to_owned())).matched(Some(1)).is_none());
        let bound = bound(PathRewrite::Prefix("/x".to_owned()));
        assert_eq!(bound.matched(Some(1)), Some(&StringMatch::Prefix("/a".to_owned())));
        assert_eq!((bound.matched(Some(0)), bound.matched(Some(2)), bound.matched(None)), (None, None, None));
    }
}
