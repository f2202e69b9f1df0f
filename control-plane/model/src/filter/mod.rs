//! What happens to a request between the rule that it matches and the backend that is drawn for it, and to the answer
//! on its way back.
//!
//! The order is the same for every kind of route. On the way out:
//!
//! 1. [`Sources`]: who may ask at all, by address.
//! 2. [`Filters::limits`]: how many requests are let in.
//! 3. [`Cors`]: a preflight is answered.
//! 4. [`BasicAuth`]: who has no name with its password is refused. Neither goes on.
//! 5. [`Filters::max_body`]: a body that says that it is longer is refused. Any other is read as long as it is not.
//! 6. [`Fault`]: a delay, then an abort.
//! 7. [`OwnAnswer`]: a redirect, a direct response, or the refusal of a filter that cannot be used.
//! 8. [`Filters::request_headers`], then [`Filters::rewrite`].
//! 9. [`Filters::mirrors`]: copies of the request as it is now.
//! 10. The draw of the backend; then the filters of that backend, in this same order.
//!
//! On the way back: the backend's `response_headers`, the rule's `response_headers`, then what CORS adds.

mod basic;
mod cors;
mod fault;
mod headers;
mod ready;
mod redirect;
mod rewrite;
mod sources;

use serde::Serialize;

use crate::limit::RateLimit;

pub use self::{
    basic::BasicAuth,
    cors::{Cors, Crossing, OriginMatch, UnmatchedPreflights},
    fault::{Abort, Delay, Fault, Fraction},
    headers::{Commands, HeaderChange, HeaderChanges, HeaderText, HeaderTextError, Piece, may_change},
    ready::{ReadyAbort, ReadyAnswer, ReadyAuthority, ReadyChanges, ReadyFilters, grpc_of},
    redirect::{DirectResponse, LocationPiece, Redirect, RedirectPort},
    rewrite::{PathRewrite, RegexRewrite, RegexRewriteError, Rewrite, with_query},
    sources::Sources,
};

/// All filters of a rule, or of one backend of it. The default does nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Filters {
    /// Who may ask, by address. `None`: all.
    pub sources: Option<Sources>,
    /// How many requests are let in.
    pub limits: Vec<RateLimit>,
    /// Who may call from a page of another origin.
    pub cors: Option<Cors>,
    /// Who may ask, by name and password. `None`: all.
    pub basic: Option<BasicAuth>,
    /// The longest body of a request, in bytes (nginx's `proxy-body-size`). 0 means no limit. `None`: what holds for the
    /// gateway as a whole.
    pub max_body: Option<u64>,
    /// Failures that are made on purpose.
    pub fault: Option<Fault>,
    /// The answer that the proxy gives itself; nothing is sent to a backend then.
    pub answer: Option<OwnAnswer>,
    /// What changes in the request's headers.
    pub request_headers: HeaderChanges,
    /// What changes in its path and authority.
    pub rewrite: Rewrite,
    /// Who gets a copy of it.
    pub mirrors: Vec<Mirror>,
    /// What changes in the answer's headers.
    pub response_headers: HeaderChanges,
}

impl Filters {
    /// Whether they do nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What a path becomes: the request's own, and that of a redirect.
    pub fn path_rewrites(&self) -> impl Iterator<Item = &PathRewrite> {
        let redirected = match &self.answer {
            Some(OwnAnswer::Redirect(redirect)) => redirect.path.as_ref(),
            _ => None,
        };
        self.rewrite.path.iter().chain(redirected)
    }

    /// Whether it matters to some of them what the match asked of the path.
    pub(crate) fn ask_for_match(&self) -> bool {
        let redirects = match &self.answer {
            Some(OwnAnswer::Redirect(redirect)) => redirect.asks_for_match(),
            _ => false,
        };
        redirects || self.rewrite.path.as_ref().is_some_and(PathRewrite::asks_for_match)
    }
}

/// An answer that needs no backend.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum OwnAnswer {
    /// To somewhere else.
    Redirect(Redirect),
    /// A fixed answer.
    Direct(DirectResponse),
    /// A filter that cannot be used, and why. Gateway API: a request that it would have met is answered 500, and the
    /// filter is never left out (HTTPRoute `filters`, `extensionRef`).
    Unusable(String),
}

/// A backend that gets a copy of requests. Its answers are thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mirror {
    /// Its index in the service's backends.
    pub backend: usize,
    /// Of how many requests.
    pub fraction: Fraction,
}
