//! A rule's filters, or those of one of its backends, bound to what they act on.

use std::{fs, sync::Arc};

use http::HeaderValue;
use selvedge_model::{
    Filters, StringMatch,
    filter::{BasicAuth, Fraction, Mirror, ReadyFilters},
    gateway::UserList,
};

use super::{BoundLimits, BoundShare, Limiters};

/// All filters of a rule, or of one backend of it.
#[derive(Debug)]
pub struct BoundFilters {
    /// Those that need only the request.
    pub ready: ReadyFilters,
    /// How many requests are let in. `None`: all.
    pub limits: Option<BoundLimits>,
    /// Who may ask, by name and password. `None`: all.
    pub basic: Option<Box<BoundBasic>>,
    /// Who gets a copy of the request as it is after those.
    pub mirrors: Vec<BoundMirror>,
}

/// Who may ask, by name and password.
#[derive(Debug)]
pub struct BoundBasic {
    /// The document that says so, such as `Secret shop/users`.
    pub document: Arc<str>,
    /// How others learn that they must say who they are.
    pub challenge: HeaderValue,
    /// Who may. `None`: they are not known, so nobody may.
    pub users: Option<Arc<UserList>>,
}

impl BoundBasic {
    fn bind(basic: &BasicAuth, users: &[Arc<UserList>]) -> Box<Self> {
        let challenge = HeaderValue::from_str(&basic.challenge());
        Box::new(Self {
            document: format!("Secret {}", basic.users.secret()).into(),
            challenge: challenge.unwrap_or(HeaderValue::from_static("Basic realm=\"\"")),
            users: users.iter().find(|users| users.name == basic.users).cloned(),
        })
    }
}

/// Who gets copies.
#[derive(Debug)]
pub struct BoundMirror {
    /// Where they go and where they are counted.
    pub share: Arc<BoundShare>,
    /// Of how many requests.
    pub fraction: Fraction,
}

impl BoundFilters {
    /// `filters` of a rule whose matches ask `matched` of the path; `None` if they do nothing. Limits and passwords are
    /// looked up in what is given. `mirror` binds each of the mirrors.
    pub fn bind(
        filters: &Filters,
        (limiters, users): (&Limiters, &[Arc<UserList>]),
        matched: impl Iterator<Item = Option<StringMatch>>,
        mirror: impl FnMut(&Mirror) -> BoundMirror,
    ) -> Option<Arc<Self>> {
        let ready = ReadyFilters::new(filters, matched, hostname)?;
        let limits = limiters.bind(&filters.limits);
        let basic = filters.basic.as_ref().map(|basic| BoundBasic::bind(basic, users));
        let mirrors = filters.mirrors.iter().map(mirror).collect();
        Some(Arc::new(Self { ready, limits, basic, mirrors }))
    }
}

/// The name of this host; empty if the system does not say it.
fn hostname() -> Arc<str> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    Arc::from(name.trim())
}
