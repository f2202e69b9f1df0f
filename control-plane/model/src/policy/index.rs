//! Which of many rules can match at all: those that ask for the peer that there is, or for the path, the host or the token.
//!
//! A rule that can match only listed peers (principals, service accounts, namespaces) is found by a hash of the peer's, or
//! by how its principal begins. One that can match only certain paths is found by how the path begins; one for listed hosts
//! or request principals by a hash of those. Of a rule that asks for several of these, what the fewest other rules ask for
//! is taken. All others are tried one after the other.

use std::{
    cell::Cell,
    collections::{BTreeSet, HashMap},
    hash::{BuildHasherDefault, Hasher},
};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    condition::{Asks, Condition, Stage, account, principal},
    path::PathTemplate,
    reading::Readings,
    rule::Rule,
    text::{TextPattern, TextSet},
};
use crate::{SpiffeId, route::index::Index as Beginnings, token::Token};

/// See the module. Rules are named by their place in the order in which they are tried.
#[derive(Debug, Clone)]
pub(super) struct Index {
    /// Those that are found by a peer.
    peers: Peers,
    /// Of all others those that ask for a peer, for what is no request and has neither path nor host.
    besides: Peers,
    /// Those that ask for no peer, in their order, for the same.
    anybody: Vec<usize>,
    /// Whether any is found by what only a request has.
    has_requests: bool,
    /// By a host in lower case.
    hosts: Listed,
    /// By the issuer and subject of a token.
    tokens: Listed,
    /// All others, by how a path begins.
    paths: Beginnings,
}

/// Rules by a text that must be equal.
type Listed = HashMap<Box<str>, Vec<usize>, BuildHasherDefault<Quick>>;

/// A hash of texts without a secret: what is in an index is written in policies, and requests only look it up.
#[derive(Debug, Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The end of a text, which is always there.
    fn write_u8(&mut self, _byte: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Rules by the peers that they ask for.
#[derive(Debug, Clone)]
struct Peers {
    /// By principal.
    principals: Listed,
    /// By service account.
    accounts: Listed,
    /// By namespace.
    namespaces: Listed,
    /// By how a principal begins.
    beginnings: Beginnings,
}

impl Peers {
    /// Of rules by their places, each with its keys.
    fn over(filed: &[(usize, &BTreeSet<Key>)]) -> Self {
        let [mut principals, mut accounts, mut namespaces] = [(); 3].map(|()| Listed::default());
        let mut beginnings = Vec::new();
        for (place, keys) in filed {
            let list = |listed: &mut Listed, text: &str| listed.entry(text.into()).or_default().push(*place);
            for key in *keys {
                match key {
                    Key::Principal(text) => list(&mut principals, text),
                    Key::Account(text) => list(&mut accounts, text),
                    Key::Namespace(text) => list(&mut namespaces, text),
                    Key::Beginning(text) => beginnings.push((&**text, *place)),
                    Key::Path(_) | Key::Host(_) | Key::Token(_) => {}
                }
            }
        }
        Self { principals, accounts, namespaces, beginnings: Beginnings::over(beginnings.into_iter()) }
    }

    /// Tries those that ask for `identity`. What none of them asks for is not looked for in it.
    fn try_all<M: Fn(usize) -> bool>(&self, identity: &SpiffeId, first: &First<'_, M>) {
        if !self.principals.is_empty() {
            first.of_listed(self.principals.get(principal(identity)));
        }
        if !self.beginnings.is_empty() {
            first.note(self.beginnings.first(principal(identity), first.matches));
        }
        if !self.accounts.is_empty() {
            first.of_listed(self.accounts.get(account(identity)));
        }
        if !self.namespaces.is_empty() {
            first.of_listed(self.namespaces.get(identity.namespace()));
        }
    }
}

/// What there is that a rule can match.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Key {
    /// The peer's principal is this.
    Principal(Box<str>),
    /// The peer's service account is this.
    Account(Box<str>),
    /// The peer's namespace is this.
    Namespace(Box<str>),
    /// The peer's principal begins so.
    Beginning(Box<str>),
    /// The path begins so.
    Path(Box<str>),
    /// The host, in lower case, is this.
    Host(Box<str>),
    /// The request's principal is this.
    Token(Box<str>),
}

impl Key {
    fn is_of_peer(&self) -> bool {
        match self {
            Self::Principal(_) | Self::Account(_) | Self::Namespace(_) | Self::Beginning(_) => true,
            Self::Path(_) | Self::Host(_) | Self::Token(_) => false,
        }
    }
}

/// Whether a rule with these keys is found by its peer. One without any, which asks for none of nothing, is not: if it asks
/// that of a request, it may yet hold of a connection without requests.
fn is_by_peer(keys: &BTreeSet<Key>) -> bool {
    !keys.is_empty() && keys.iter().all(Key::is_of_peer)
}

impl Index {
    /// Over `rules` in the order in which they are tried. `refuse`: they refuse what they match.
    pub(super) fn over<'a>(rules: impl Iterator<Item = &'a Rule>, refuse: bool) -> Self {
        let keys: Vec<Vec<BTreeSet<Key>>> = rules.map(|rule| ways_to(rule, refuse)).collect();
        let mut counts = HashMap::<&Key, usize>::new();
        for key in keys.iter().flatten().flatten() {
            *counts.entry(key).or_default() += 1;
        }
        let found = |keys: &&BTreeSet<Key>| {
            // Every path begins with nothing.
            let count = |key: &Key| if *key == Key::Path("".into()) { usize::MAX } else { counts[key] };
            keys.iter().map(count).max().unwrap_or(0)
        };
        let (mut peers, mut besides, mut anybody) = (Vec::new(), Vec::new(), Vec::new());
        let (mut hosts, mut tokens, mut paths) = (Listed::default(), Listed::default(), Vec::new());
        let anywhere = BTreeSet::from([Key::Path("".into())]);
        for (place, ways) in keys.iter().enumerate() {
            let keys = ways.iter().min_by_key(found).unwrap_or(&anywhere);
            if is_by_peer(keys) {
                peers.push((place, keys));
                continue;
            }
            match ways.iter().find(|keys| is_by_peer(keys)) {
                Some(keys) => besides.push((place, keys)),
                None => anybody.push(place),
            }
            for key in keys {
                match key {
                    Key::Path(text) => paths.push((&**text, place)),
                    Key::Host(text) => hosts.entry(text.clone()).or_default().push(place),
                    Key::Token(text) => tokens.entry(text.clone()).or_default().push(place),
                    Key::Principal(_) | Key::Account(_) | Key::Namespace(_) | Key::Beginning(_) => {}
                }
            }
        }
        Self {
            has_requests: !besides.is_empty() || !anybody.is_empty(),
            peers: Peers::over(&peers),
            besides: Peers::over(&besides),
            anybody,
            hosts,
            tokens,
            paths: Beginnings::over(paths.into_iter()),
        }
    }

    /// The first of the rules that `matches`, in the order in which they are tried. `refuse`: as in [`Self::over`].
    pub(super) fn first(
        &self,
        stage: Stage<'_>,
        refuse: bool,
        matches: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let first = First { earliest: Cell::new(None), matches: &matches };
        let identity = stage.connection().source.identity;
        if let Some(identity) = identity {
            self.peers.try_all(identity, &first);
        }
        match (stage, identity) {
            (Stage::Request(readings), _) if self.has_requests => self.by_request(readings, refuse, &first),
            (Stage::Request(_), _) => {}
            (Stage::Connection(_) | Stage::Opaque(_), identity) => {
                if let Some(identity) = identity {
                    self.besides.try_all(identity, &first);
                }
                first.of_listed(Some(&self.anybody));
            }
        }
        first.earliest.get()
    }

    fn by_request<M: Fn(usize) -> bool>(&self, readings: &Readings<'_>, refuse: bool, first: &First<'_, M>) {
        if !self.hosts.is_empty() {
            for host in readings.hosts(refuse) {
                first.of_listed(self.hosts.get(&*host));
            }
        }
        if !self.tokens.is_empty()
            && let Some(principal) = readings.request.token.and_then(Token::principal)
        {
            first.of_listed(self.tokens.get(principal));
        }
        let path = readings.path();
        first.note(self.paths.first(path, first.matches));
        if refuse {
            for read in readings.loose_path().readings().filter(|read| *read != path) {
                first.note(self.paths.first(read, first.matches));
            }
        }
    }
}

/// The first rule that was found to match.
struct First<'m, M> {
    earliest: Cell<Option<usize>>,
    matches: &'m M,
}

impl<M: Fn(usize) -> bool> First<'_, M> {
    fn is_earlier(&self, place: usize) -> bool {
        self.earliest.get().is_none_or(|first| place < first)
    }

    fn note(&self, found: Option<usize>) {
        if let Some(place) = found.filter(|place| self.is_earlier(*place)) {
            self.earliest.set(Some(place));
        }
    }

    /// Tries those of `places` that are earlier.
    fn of_listed(&self, places: Option<&Vec<usize>>) {
        let mut earlier = places.into_iter().flatten().take_while(|place| self.is_earlier(**place));
        let found = earlier.find(|place| (self.matches)(**place)).copied();
        self.note(found);
    }
}

/// By what a rule can be found: each way is all of the keys that it is to be filed under.
fn ways_to(rule: &Rule, refuse: bool) -> Vec<BTreeSet<Key>> {
    let Rule { from, to, when, .. } = rule;
    let ways = [
        of_alternatives(from, when, peers_of),
        of_alternatives(to, when, |condition| beginnings_of(condition, refuse)),
        of_alternatives(to, when, hosts_of),
        of_alternatives(from, when, tokens_of),
    ];
    ways.into_iter().flatten().collect()
}

/// All keys under which a rule is to be found: what each of its `alternatives`, or one of the conditions in `when`, says
/// by `keys`. `None`: none of them says it.
fn of_alternatives(
    alternatives: &[Vec<Condition>],
    when: &[Condition],
    keys: impl Fn(&Condition) -> Option<Vec<Key>>,
) -> Option<BTreeSet<Key>> {
    let first = |conditions: &[Condition]| {
        let mut positive = conditions.iter().filter(|condition| !condition.negated);
        positive.find_map(&keys)
    };
    if let Some(found) = first(when) {
        return Some(found.into_iter().collect());
    }
    if alternatives.is_empty() {
        return None;
    }
    let found: Option<Vec<Vec<Key>>> = alternatives.iter().map(|conditions| first(conditions)).collect();
    Some(found?.into_iter().flatten().collect())
}

fn peers_of(condition: &Condition) -> Option<Vec<Key>> {
    let (set, key): (_, fn(Box<str>) -> Key) = match &condition.asks {
        Asks::Principal(set) => (set, Key::Principal),
        Asks::ServiceAccount(set) => (set, Key::Account),
        Asks::Namespace(set) => (set, Key::Namespace),
        _ => return None,
    };
    let (exact, others) = set.parts();
    let mut peers: Vec<Key> = exact.iter().cloned().map(key).collect();
    for pattern in others {
        match (pattern, &condition.asks) {
            (TextPattern::Prefix(text), Asks::Principal(_)) => peers.push(Key::Beginning(text.clone())),
            _ => return None,
        }
    }
    Some(peers)
}

/// The texts of `set`, if it has no other patterns.
fn exact(set: &TextSet) -> Option<&[Box<str>]> {
    let (exact, others) = set.parts();
    others.is_empty().then_some(exact)
}

fn hosts_of(condition: &Condition) -> Option<Vec<Key>> {
    let Asks::Host(set) = &condition.asks else { return None };
    Some(exact(set)?.iter().map(|host| Key::Host(host.to_ascii_lowercase().into())).collect())
}

fn tokens_of(condition: &Condition) -> Option<Vec<Key>> {
    let Asks::RequestPrincipal(set) = &condition.asks else { return None };
    Some(exact(set)?.iter().cloned().map(Key::Token).collect())
}

fn beginnings_of(condition: &Condition, refuses: bool) -> Option<Vec<Key>> {
    let Asks::Path(set) = &condition.asks else { return None };
    let beginning = |pattern: &TextPattern| match pattern {
        TextPattern::Exact(text) | TextPattern::Prefix(text) => text.to_string(),
        TextPattern::Suffix(_) | TextPattern::Glob(_) | TextPattern::Present => String::new(),
    };
    let all = |texts: &TextSet, templates: &[PathTemplate]| -> Vec<String> {
        let of_texts = texts.patterns().map(|pattern| beginning(&pattern));
        of_texts.chain(templates.iter().map(PathTemplate::beginning)).collect()
    };
    let mut beginnings = all(set.texts(), set.templates());
    if refuses {
        let (texts, templates) = set.loose();
        beginnings.extend(all(texts, templates));
    }
    Some(beginnings.into_iter().map(|text| Key::Path(text.into())).collect())
}
