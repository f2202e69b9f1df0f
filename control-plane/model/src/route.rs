//! Which rule a request follows: matches as data, in an order that is decided when configuration changes.
//!
//! One table serves two orders: Istio's (`VirtualService`: the first match in list order) and Gateway
//! API's (the most specific match, whatever its place). The second is the first over a sorted list, so
//! [`RouteTable::find`] is the same walk for both; where the list is long, an index by paths leaves out what cannot hold.

mod claim;
mod field;
pub(crate) mod index;
mod missed;

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Serialize, Serializer};

use self::index::Index;
pub use self::{
    claim::ClaimPath,
    field::{HeaderField, UnknownField},
    missed::{Missed, query_value},
};
use crate::{
    AccessLog, Filters, RetryPolicy, SessionPersistence, StreamTimeouts,
    expression::{self, Expression, RegexError},
    facts,
    normalize::path::Spellings,
};

/// A regular expression (RE2 syntax) that must match a whole text. Equal ones share what is compiled.
#[derive(Debug, Clone, PartialEq)]
pub struct FullRegex(Expression);

/// What stands before and after an expression that must match a whole text.
const ANCHORS: (&str, &str) = ("^(?:", ")$");

impl FullRegex {
    /// Reads `source`. It is compiled once a text is to be matched.
    ///
    /// # Errors
    /// If it is not a regular expression of this syntax, is too long, or is too large when compiled.
    pub fn new(source: &str) -> Result<Self, RegexError> {
        // First by itself: `a)|(?:b` is an expression only between our anchors, and would escape them.
        expression::groups(source)?;
        let (before, after) = ANCHORS;
        Expression::new(&format!("{before}{source}{after}")).map(Self)
    }

    /// The same, ready for requests.
    ///
    /// # Errors
    /// If this process holds [as much as it may](expression::PROCESS_LIMIT).
    pub fn held(self) -> Result<Self, RegexError> {
        self.0.hold().map(|()| self)
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        let (before, after) = ANCHORS;
        let text = self.0.text();
        &text[before.len()..text.len() - after.len()]
    }

    /// Whether all of `text` matches.
    pub fn is_match(&self, text: &str) -> bool {
        self.0.compiled().is_match(text)
    }

    /// What its group `number` has of `path`, if all of one of the [spellings](Spellings) of that matches and there is such a group
    /// that has a part in it.
    pub fn group<'t>(&self, path: &'t str, number: usize) -> Option<&'t str> {
        let range = |text: &str| {
            let groups = self.0.compiled().captures_iter(text).next()?;
            Some(groups.get_group(number)?.range())
        };
        // They are equally long.
        path.get(Spellings::of(path).each().find_map(range)?)
    }
}

impl Serialize for FullRegex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

/// What a match asks of a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// A raw string prefix (Istio: `/foo` matches `/foobar`).
    Prefix(String),
    /// A prefix by path segments (Gateway API `PathPrefix`: `/foo` matches `/foo/bar`, not `/foobar`).
    PathPrefix(String),
    /// The whole text matches.
    Regex(FullRegex),
    /// Anything, as long as it is there.
    Present,
}

impl StringMatch {
    /// Whether `text` is what is asked for.
    pub fn is_match(&self, text: &str) -> bool {
        match self {
            Self::Exact(exact) => text == exact,
            Self::Prefix(prefix) => text.starts_with(prefix.as_str()),
            Self::PathPrefix(prefix) => {
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Regex(regex) => regex.is_match(text),
            Self::Present => true,
        }
    }

    fn is_match_ignoring_case(&self, text: &str) -> bool {
        let starts =
            |prefix: &str| text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
        match self {
            Self::Exact(exact) => text.eq_ignore_ascii_case(exact),
            Self::Prefix(prefix) => starts(prefix),
            _ => self.is_match(text),
        }
    }

    /// How specific a path match is: its kind (Exact, prefix, regular expression), then its length.
    fn path_rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(text) => (3, text.len()),
            Self::Prefix(text) | Self::PathPrefix(text) => (2, text.strip_suffix('/').unwrap_or(text).len()),
            Self::Regex(regex) => (1, regex.source().len()),
            Self::Present => (0, 0),
        }
    }
}

/// One set of conditions, all of which must hold. Empty = every request.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Match {
    /// The path without its query, as the proxy normalised it. Of the hex digits of encoded characters the case means nothing; here they
    /// are in capitals.
    pub path: Option<StringMatch>,
    /// Whether `path` ignores ASCII case (Istio `ignoreUriCase`; exact and prefix only).
    pub ignore_path_case: bool,
    /// The method.
    pub method: Option<StringMatch>,
    /// The authority, port included as the client sent it.
    pub authority: Option<StringMatch>,
    /// Headers that must match; several values of one name are joined with `,`.
    pub headers: Vec<(HeaderField, StringMatch)>,
    /// Headers that must not match (Istio `withoutHeaders`); a missing one counts as empty.
    pub without_headers: Vec<(HeaderField, StringMatch)>,
    /// Query parameters; the first value of each name counts.
    pub query: Vec<(String, StringMatch)>,
    /// The gRPC service and method, which are the path's two segments.
    pub grpc: Option<GrpcMatch>,
    /// Who the client must be.
    pub client: ClientMatch,
}

/// What a match asks of a gRPC call (Gateway API `GRPCRoute` `matches.method`); at least one of the two.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct GrpcMatch {
    /// The service with its package, such as `helloworld.Greeter`.
    pub service: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
}

impl GrpcMatch {
    /// Whether `path` is that of a call which is asked for.
    pub fn is_match(&self, path: &str) -> bool {
        let call = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let asked =
            |wanted: &Option<StringMatch>, text| wanted.as_ref().is_none_or(|wanted| wanted.is_match(text));
        call.is_some_and(|(service, method)| asked(&self.service, service) && asked(&self.method, method))
    }

    /// How many characters it asks of the service, then of the method.
    fn rank(&self) -> (usize, usize) {
        let length = |wanted: &Option<StringMatch>| wanted.as_ref().map_or(0, |wanted| wanted.path_rank().1);
        (length(&self.service), length(&self.method))
    }
}

/// What a match asks of the workload whose sidecar it is (`VirtualService` `sourceLabels`, `sourceNamespace`). It is
/// decided when configuration changes, by [`RouteTable::for_client`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ClientMatch {
    /// Labels that it must carry.
    pub labels: BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: Option<String>,
}

impl ClientMatch {
    /// Whether a workload with these `labels` in `namespace` is asked for.
    pub fn is_match(&self, labels: &BTreeMap<String, String>, namespace: &str) -> bool {
        self.labels.iter().all(|(name, value)| labels.get(name) == Some(value))
            && self.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
    }
}

impl Match {
    /// Whether it asks for a claim of the request's token, which only gateways know.
    pub fn asks_for_claims(&self) -> bool {
        let fields = self.headers.iter().chain(&self.without_headers);
        fields.map(|(field, _)| field).any(|field| matches!(field, HeaderField::Claim(_)))
    }

    /// How specific this is, greatest first in Gateway API's order (HTTPRoute `rules.matches`, GRPCRoute
    /// `rules.matches`).
    pub fn specificity(&self) -> impl Ord + use<> {
        let path = self.path.as_ref().map_or((0, 0), StringMatch::path_rank);
        let grpc = self.grpc.as_ref().map_or((0, 0), GrpcMatch::rank);
        (path, grpc, self.method.is_some(), self.headers.len(), self.query.len())
    }
}

/// One backend's share of a rule's requests.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WeightedBackend {
    /// Its index in the service's backends.
    pub backend: usize,
    /// Its share is `weight` / the sum of all.
    pub weight: u32,
    /// What happens to this share alone. `None`: nothing.
    pub filters: Option<Box<Filters>>,
}

/// What happens to requests that a match sends here.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rule {
    /// What it is called in logs, metrics and errors, such as `VirtualService default/reviews http[1]`.
    pub name: String,
    /// Which requests; any of these. Empty = every request.
    pub matches: Vec<Match>,
    /// Where they go. None, or weights that sum to nothing: answered with `unusable_status`.
    pub backends: Vec<WeightedBackend>,
    /// Time for the whole request, retries included; default none.
    pub timeout: Option<Duration>,
    /// Time for the answer once the request is sent, and without anything passing; default none.
    pub stream: StreamTimeouts,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// What happens to a request before a backend is drawn, and to its answer.
    pub filters: Filters,
    /// What keeps a session at its endpoint; `None`: each request is balanced by itself.
    pub session: Option<Box<SessionPersistence>>,
    /// The status for requests that have no backend which can be used: the share of a broken one, or all if there is
    /// none. 503 for Istio's routes, 500 for those of Gateway API.
    pub unusable_status: u16,
    /// Where lines about its requests go at their clients' proxies; `None`: as those do with all their requests.
    pub access_log: Option<AccessLog>,
}

impl Default for Rule {
    /// For every request, and without a backend.
    fn default() -> Self {
        Self {
            name: String::new(),
            matches: Vec::new(),
            backends: Vec::new(),
            timeout: None,
            stream: StreamTimeouts::default(),
            retry: RetryPolicy::default(),
            filters: Filters::default(),
            session: None,
            unusable_status: 503,
            access_log: None,
        }
    }
}

impl Rule {
    /// The index of every backend that it names, mirrors included.
    pub fn backends_named(&self) -> impl Iterator<Item = usize> {
        let shares = self.backends.iter();
        let of_shares = shares.clone().filter_map(|share| share.filters.as_deref());
        let filters = std::iter::once(&self.filters).chain(of_shares);
        let mirrors = filters.flat_map(|filters| filters.mirrors.iter().map(|mirror| mirror.backend));
        shares.map(|share| share.backend).chain(mirrors)
    }
}

impl WeightedBackend {
    /// A share of `weight` without filters of its own.
    pub const fn new(backend: usize, weight: u32) -> Self {
        Self { backend, weight, filters: None }
    }
}

/// Draws a place in `weights`, each as likely as its weight says; `None` if they sum to nothing.
pub fn draw(weights: impl ExactSizeIterator<Item = u32> + Clone, rng: &mut fastrand::Rng) -> Option<usize> {
    let total: u64 = weights.clone().map(u64::from).sum();
    if weights.len() == 1 || total == 0 {
        // One alone needs no random number.
        return (total > 0).then_some(0);
    }
    let mut drawn = rng.u64(..total);
    for (place, weight) in weights.map(u64::from).enumerate() {
        if drawn < weight {
            return Some(place);
        }
        drawn -= weight;
    }
    None
}

/// Which of several matching rules wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Order {
    /// The first in the list (Istio `VirtualService`).
    Listed,
    /// The most specific match among those of the first [tier](RouteTable::in_tiers); among equals, the first in the list
    /// (Gateway API).
    MostSpecific,
}

/// A service's rules, ready to be searched.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RouteTable {
    order: Order,
    rules: Vec<Arc<Rule>>,
    /// The tier of each rule, the smaller ones tried first whatever the matches ask. Empty: all are of one tier.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<u32>,
    /// What a client follows that none of the rules is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    for_others: Option<Box<Rule>>,
    /// Rule and match index, in the order in which they are tried.
    #[serde(skip)]
    tried: Vec<(usize, Option<usize>)>,
    /// Of `tried`, if that is long.
    #[serde(skip)]
    index: Option<Index>,
}

/// So many matches are tried one after the other sooner than an index finds those that can hold.
const FEW: usize = 12;

impl RouteTable {
    /// A table of `rules` in `order`.
    pub fn new(order: Order, rules: Vec<Rule>) -> Self {
        Self::sharing(order, rules.into_iter().map(Arc::new).collect())
    }

    /// Has the rules of `other` where its own are equal to them: what others see of a service is mostly the same.
    pub fn share(&mut self, other: &Self) {
        for (own, other) in self.rules.iter_mut().zip(&other.rules) {
            if **own == **other {
                *own = Arc::clone(other);
            }
        }
    }

    /// A table of `rules` in `order`, which other tables may have too.
    pub fn sharing(order: Order, rules: Vec<Arc<Rule>>) -> Self {
        Self::in_tiers(order, rules, Vec::new())
    }

    /// The same, where each rule is of the tier that stands at its place in `tiers`: what is of a smaller one is tried first,
    /// whatever the matches ask (Gateway API: the route's host name goes before all else that a request is matched by). Where
    /// `tiers` is shorter, the last one goes on; empty: all are of one tier. In the order [`Listed`](Order::Listed) they
    /// mean nothing.
    pub fn in_tiers(order: Order, rules: Vec<Arc<Rule>>, mut tiers: Vec<u32>) -> Self {
        let last = tiers.last().copied().unwrap_or_default();
        tiers.resize(rules.len(), last);
        if order == Order::Listed || tiers.iter().all(|tier| Some(tier) == tiers.first()) {
            tiers.clear();
        }
        let mut tried = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            if rule.matches.is_empty() {
                tried.push((index, None));
            }
            tried.extend((0..rule.matches.len()).map(|place| (index, Some(place))));
        }
        if order == Order::MostSpecific {
            let empty = Match::default();
            tried.sort_by_key(|(rule, place)| {
                let one = place.map_or(&empty, |place| &rules[*rule].matches[place]);
                (tiers.get(*rule).copied().unwrap_or_default(), Reverse(one.specificity()))
            });
        }
        let beginnings = tried
            .iter()
            .map(|(rule, place)| place.map_or("", |place| index::beginning(&rules[*rule].matches[place])));
        let index = (tried.len() > FEW).then(|| Index::over(beginnings.zip(0..)));
        Self { order, rules, tiers, for_others: None, tried, index }
    }

    /// This table, in which `rule` is for clients that none of the other rules is for.
    #[must_use]
    pub fn with_rule_for_others(self, rule: Rule) -> Self {
        Self { for_others: Some(Box::new(rule)), ..self }
    }

    /// What clients follow that none of the rules is for; `None`: all their requests match nothing.
    pub fn rule_for_others(&self) -> Option<&Rule> {
        self.for_others.as_deref()
    }

    /// Which of several matching rules wins.
    pub fn order(&self) -> Order {
        self.order
    }

    /// The rules, as they were listed.
    pub fn rules(&self) -> &[Arc<Rule>] {
        &self.rules
    }

    /// The tier of each rule, as [`in_tiers`](Self::in_tiers) takes them. Empty: all are of one tier.
    pub fn tiers(&self) -> &[u32] {
        &self.tiers
    }

    /// The same table for one client's sidecar: without the matches, and the rules, that are for other clients. If no
    /// rule is left, it has [the one for such clients](Self::rule_for_others), as in Istio.
    #[must_use]
    pub fn for_client(self, labels: &BTreeMap<String, String>, namespace: &str) -> Self {
        if !self.asks_for_client() {
            return self;
        }
        let is_for = |one: &Match| one.client.is_match(labels, namespace);
        let tiers = self.tiers.into_iter().chain(std::iter::repeat(0));
        let rules = self.rules.into_iter().zip(tiers).filter_map(|(mut rule, tier)| {
            if rule.matches.iter().all(is_for) {
                return Some((rule, tier));
            }
            let own = Arc::make_mut(&mut rule);
            own.matches.retain(is_for);
            (!own.matches.is_empty()).then_some((rule, tier))
        });
        let (mut rules, tiers): (Vec<Arc<Rule>>, Vec<u32>) = rules.unzip();
        if rules.is_empty() {
            rules.extend(self.for_others.map(|rule| Arc::new(*rule)));
        }
        Self::in_tiers(self.order, rules, tiers)
    }

    /// Whether some match is for certain clients only, so that [`Self::for_client`] makes a difference.
    pub fn asks_for_client(&self) -> bool {
        let mut matches = self.rules.iter().flat_map(|rule| &rule.matches);
        matches.any(|one| one.client != ClientMatch::default())
    }

    /// Every match, in the order in which they are tried.
    pub fn tried(&self) -> impl Iterator<Item = Followed> {
        self.tried.iter().map(|(rule, matched)| Followed { rule: *rule, matched: *matched })
    }

    /// The rule that `request` follows, and which of its matches holds. `None`: no rule matches (answered 404).
    pub fn find(&self, request: &facts::Request<'_>) -> Option<Followed> {
        let path = Spellings::of(request.path);
        let holds = |at: usize| {
            let (rule, matched) = self.tried[at];
            matched
                .is_none_or(|matched| self.rules[rule].matches[matched].missed_at(&path, request).is_none())
        };
        let found = match &self.index {
            Some(index) => path.each().filter_map(|text| index.first(text, holds)).min(),
            None => (0..self.tried.len()).find(|at| holds(*at)),
        };
        let (rule, matched) = self.tried[found?];
        Some(Followed { rule, matched })
    }
}

/// A rule that a request follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Followed {
    /// Its index in [`RouteTable::rules`].
    pub rule: usize,
    /// The index of the match that holds, in [`Rule::matches`]; `None`: the rule is for every request.
    pub matched: Option<usize>,
}

#[cfg(test)]
mod tests;
