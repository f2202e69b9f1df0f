//! `delegate`: a `VirtualService` that leaves a route to another one, as Istio merges the two.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use selvedge_model::{ClientMatch, HeaderField, Match, StringMatch, filter::Fraction};
use selvedge_ops::plain_within;

use super::{super::Problems, VirtualService};
use crate::{
    problem::{DocumentName, LONGEST_NAME},
    resources::{
        Resources,
        virtual_service::{DelegateTo, Destination, HttpRoute, PortMatch},
    },
};

/// How much the routes of delegates may come to for those of one namespace that delegate to them, in bytes, nearly. Each has
/// them once more, and each match of its own once more again.
const MOST: usize = 64 << 20;
/// What one of them takes at least, in bytes.
const LEAST: usize = 512;

/// A route as it counts for the hosts of a document.
#[derive(Debug, Clone)]
pub(super) struct Effective<'a> {
    /// The document that it stands in, in whose namespace its short names are.
    pub(super) document: &'a VirtualService,
    /// What it is called.
    pub(super) name: String,
    /// The document that its matches stand in, and the index of the route there that has them.
    pub(super) asked_by: (&'a VirtualService, usize),
    /// The document of another namespace that leaves a route to this one, and the index of that route: what is wrong because of
    /// it is told there. Whoever wrote the delegate has not asked for it, and cannot mend it.
    pub(super) left_by: Option<(&'a VirtualService, usize)>,
    /// What it says.
    pub(super) route: Cow<'a, HttpRoute>,
    /// Who gets copies of its requests.
    pub(super) mirrors: Vec<Mirrored<'a>>,
}

/// A mirror of a route.
#[derive(Debug, Clone)]
pub(super) struct Mirrored<'a> {
    /// The document that names it, in whose namespace its short names are.
    pub(super) document: &'a VirtualService,
    /// Where that names it, such as `spec.http[0].mirror`.
    pub(super) field: String,
    /// Who it is.
    pub(super) to: &'a Destination,
    /// Of how many requests it gets a copy.
    pub(super) fraction: Fraction,
}

/// A route, and the document that it stands in.
type Written<'a> = (&'a VirtualService, &'a HttpRoute);

/// The documents without hosts, to which others may delegate.
#[derive(Debug)]
pub(super) struct Delegates<'a> {
    by_name: BTreeMap<(&'a str, &'a str), &'a VirtualService>,
    /// Those to which some document delegates.
    named: BTreeSet<(&'a str, &'a str)>,
    /// What the documents of each namespace have taken of [`MOST`].
    used: BTreeMap<&'a str, usize>,
    /// What each of them has taken.
    taken: BTreeMap<&'a DocumentName, usize>,
}

impl<'a> Delegates<'a> {
    pub(super) fn new(resources: &'a Resources) -> Self {
        let documents = resources.virtual_services.iter().map(|document| &**document);
        let by_name = documents.map(|document| ((&*document.name.namespace, &*document.name.name), document));
        let by_name = by_name.collect();
        Self { by_name, named: BTreeSet::new(), used: BTreeMap::new(), taken: BTreeMap::new() }
    }

    /// The routes of `document`, those of its delegates in their places.
    pub(super) fn routes(
        &mut self,
        document: &'a VirtualService,
        problems: &mut Problems,
    ) -> Vec<Effective<'a>> {
        let mut routes = Vec::new();
        for route in &document.spec.http {
            match &route.delegate {
                None => {
                    let name = rule_name(document, route);
                    let mirrors = mirrors(None, (document, route), problems);
                    let asked_by = (document, route.index);
                    let (route, left_by) = (Cow::Borrowed(route), None);
                    routes.push(Effective { document, name, asked_by, left_by, route, mirrors });
                }
                Some(to) => routes.extend(self.delegated(document, route, to, problems)),
            }
        }
        routes
    }

    /// About how much memory the routes of delegates take in `document`, in bytes: those of each as often as the document
    /// leaves a route to it.
    pub(super) fn taken(&self, document: &'a VirtualService) -> usize {
        self.taken.get(&document.name).copied().unwrap_or_default()
    }

    /// Reports the documents without hosts to which nobody delegates.
    pub(super) fn report_unused(&self, problems: &mut Problems) {
        for (name, document) in &self.by_name {
            if document.spec.hosts.is_empty() && !self.named.contains(name) {
                let message =
                    "is empty, and no VirtualService delegates to this one, so it has no effect; name a host";
                problems.warning(document, "spec.hosts", message);
            }
        }
    }

    /// The routes of the delegate of `route` in `root`.
    fn delegated(
        &mut self,
        root: &'a VirtualService,
        route: &'a HttpRoute,
        to: &DelegateTo,
        problems: &mut Problems,
    ) -> Vec<Effective<'a>> {
        let field = delegate_field(route.index);
        let delegate = match self.find(root, to) {
            Ok(delegate) => delegate,
            Err(why) => {
                problems.error(root, &field, format!("{why} (the route is left out)"));
                return Vec::new();
            }
        };
        if let Err(why) = self.take(root, route, delegate) {
            problems.no_room(root, &field, format!("{why} (the route is left out)"));
            return Vec::new();
        }
        self.named.insert((&delegate.name.namespace, &delegate.name.name));
        let is_foreign = delegate.name.namespace != root.name.namespace;
        let left_by = is_foreign.then_some((root, route.index));
        let mut routes = Vec::new();
        for child in &delegate.spec.http {
            let name = format!("{} > {}", rule_name(root, route), rule_name(delegate, child));
            match merged(route, child) {
                Some(merged) => {
                    let mirrors = mirrors(Some((root, route)), (delegate, child), problems);
                    let asked_by = match child.matches {
                        Some(_) => (delegate, child.index),
                        None => (root, route.index),
                    };
                    let route = Cow::Owned(merged);
                    routes.push(Effective { document: delegate, name, asked_by, left_by, route, mirrors });
                }
                None if is_foreign => {
                    let message = format!(
                        "{} ({}) asks what no match here allows, so that route is left out",
                        rule_name(delegate, child),
                        delegate.location
                    );
                    problems.error(root, &field, message);
                }
                None => {
                    let message = format!(
                        "asks what no match of {} ({}) allows, which delegates to it, so the route is left out there",
                        rule_name(root, route),
                        root.location
                    );
                    problems.error(delegate, &format!("spec.http[{}].match", child.index), message);
                }
            }
        }
        routes
    }

    /// Takes room for the routes of `delegate` below `route` of `root`.
    fn take(
        &mut self,
        root: &'a VirtualService,
        route: &HttpRoute,
        delegate: &VirtualService,
    ) -> Result<(), String> {
        let asks = |route: &HttpRoute| route.matches.as_ref().map_or(1, |matches| matches.len().max(1));
        let children: usize = delegate.spec.http.iter().map(asks).sum();
        let own = (root.size / root.spec.http.len().max(1)).saturating_add(LEAST);
        let each = delegate.size.saturating_add(own.saturating_mul(children));
        let needed = each.saturating_mul(asks(route));
        let namespace: &'a str = &root.name.namespace;
        let used = self.used.entry(namespace).or_default();
        if needed > MOST - *used {
            return Err(format!(
                "the routes of {} would take {} KiB here, and the namespace {namespace} has {} of {} KiB left for those of \
                 delegates; delegate to it less often, or by fewer matches",
                delegate.name,
                needed.div_ceil(1024),
                (MOST - *used) / 1024,
                MOST / 1024,
            ));
        }
        *used += needed;
        *self.taken.entry(&root.name).or_default() += needed;
        Ok(())
    }

    fn find(&self, root: &VirtualService, to: &DelegateTo) -> Result<&'a VirtualService, String> {
        let own = &*root.name.namespace;
        let namespace = to.namespace.as_deref().unwrap_or(own);
        let name = &to.name;
        let Some(delegate) = self.by_name.get(&(namespace, &**name)).copied() else {
            return Err(format!("there is no VirtualService {namespace}/{name}; add it or correct the name"));
        };
        if !delegate.spec.hosts.is_empty() {
            return Err(format!("VirtualService {namespace}/{name} has hosts of its own; remove its hosts"));
        }
        if !delegate.spec.export_to.includes(namespace, Some(own)) {
            return Err(format!(
                "VirtualService {namespace}/{name} is not exported to {own}; see its exportTo"
            ));
        }
        Ok(delegate)
    }
}

/// Where a route is left to another document.
pub(super) fn delegate_field(index: usize) -> String {
    format!("spec.http[{index}].delegate")
}

/// What a route of a document is called. Its own name may be any text, and each line of a log about it repeats it.
fn rule_name(document: &VirtualService, route: &HttpRoute) -> String {
    match &route.name {
        Some(name) => format!("{} http[{}] {}", document.name, route.index, plain_within(name, LONGEST_NAME)),
        None => format!("{} http[{}]", document.name, route.index),
    }
}

/// `child` below `root`: whatever it does not say itself is as `root` says. `None` if it asks what `root` excludes.
fn merged(root: &HttpRoute, child: &HttpRoute) -> Option<HttpRoute> {
    fn or<T: Clone>(child: &Option<T>, root: &Option<T>) -> Option<T> {
        child.clone().or_else(|| root.clone())
    }
    Some(HttpRoute {
        matches: merged_matches(root.matches.as_deref(), child.matches.as_deref())?,
        left_out: root.left_out || child.left_out,
        headers: or(&child.headers, &root.headers),
        rewrite: or(&child.rewrite, &root.rewrite),
        fault: or(&child.fault, &root.fault),
        cors: or(&child.cors, &root.cors),
        timeout: child.timeout.or(root.timeout),
        retry: or(&child.retry, &root.retry),
        ..child.clone()
    })
}

/// The mirrors of the route `own`, to which `root` may delegate: of what it says nothing, `root` does.
fn mirrors<'a>(root: Option<Written<'a>>, own: Written<'a>, problems: &mut Problems) -> Vec<Mirrored<'a>> {
    let written = || std::iter::once(own).chain(root);
    let first = |of: fn(&HttpRoute) -> Option<Fraction>| written().find_map(|(_, route)| of(route));
    let mut mirrors = Vec::new();
    let single =
        written().find_map(|(document, route)| Some((document, route, route.mirrors.single.as_ref()?)));
    let percentage = first(|route| route.mirrors.percentage);
    let fraction = percentage.or_else(|| first(|route| route.mirrors.percent));
    if let Some((document, route, to)) = single {
        let field = format!("spec.http[{}].mirror", route.index);
        mirrors.push(Mirrored { document, field, to, fraction: fraction.unwrap_or(Fraction::ALL) });
    } else if own.1.mirrors.percentage.or(own.1.mirrors.percent).is_some() {
        let (document, route) = own;
        let message =
            "has a percentage for mirror, which it does not name; name it, or give each of mirrors its own";
        problems.warning(document, &format!("spec.http[{}]", route.index), message);
    }
    let list = written().find(|(_, route)| !route.mirrors.list.is_empty());
    if let Some((document, route)) = list {
        mirrors.extend(route.mirrors.list.iter().map(|mirror| Mirrored {
            document,
            field: format!("spec.http[{}].mirrors[{}].destination", route.index, mirror.to.index),
            to: &mirror.to,
            fraction: mirror.fraction,
        }));
    }
    mirrors.retain(|mirror| mirror.fraction != Fraction::NONE);
    mirrors
}

type Matches = Option<Vec<PortMatch<Match>>>;

/// Each match of `child` below each of `root` that allows it; `None` if one of them is allowed by none.
fn merged_matches(root: Option<&[PortMatch<Match>]>, child: Option<&[PortMatch<Match>]>) -> Option<Matches> {
    let (Some(root), Some(child)) = (root, child) else {
        return Some(root.or(child).map(<[_]>::to_vec));
    };
    if root.is_empty() {
        return Some(Some(Vec::new()));
    }
    let mut merged = Vec::new();
    for child in child {
        let before = merged.len();
        merged.extend(root.iter().filter(|root| allows(root, child)).map(|root| merged_match(root, child)));
        if merged.len() == before {
            return None;
        }
    }
    Some(Some(merged))
}

/// Whether what `child` asks is part of what `root` asks.
fn allows(root: &PortMatch<Match>, child: &PortMatch<Match>) -> bool {
    fn each<K: PartialEq>(root: &[(K, StringMatch)], child: &[(K, StringMatch)]) -> bool {
        child.iter().all(|(name, wanted)| {
            root.iter().filter(|(other, _)| other == name).all(|(_, allowed)| is_part(allowed, wanted))
        })
    }
    fn one(root: Option<&StringMatch>, child: Option<&StringMatch>) -> bool {
        root.zip(child).is_none_or(|(root, child)| is_part(root, child))
    }
    let port = root.port.zip(child.port).is_none_or(|(root, child)| root == child);
    let gateways = root.followed_by.as_ref().zip(child.followed_by.as_ref());
    let gateways = gateways.is_none_or(|(root, child)| root.include_all(child));
    let (root, child) = (&root.condition, &child.condition);
    let labels = child
        .client
        .labels
        .iter()
        .all(|(name, value)| root.client.labels.get(name).is_none_or(|allowed| allowed == value));
    let namespaces = root.client.namespace.as_ref().zip(child.client.namespace.as_ref());
    port && gateways
        && labels
        && namespaces.is_none_or(|(root, child)| root == child)
        && root.ignore_path_case == child.ignore_path_case
        && one(root.path.as_ref(), child.path.as_ref())
        && one(root.method.as_ref(), child.method.as_ref())
        && one(root.authority.as_ref(), child.authority.as_ref())
        && each(&root.headers, &child.headers)
        && each(&root.without_headers, &child.without_headers)
        && each(&root.query, &child.query)
}

/// Whether every text that `child` matches is one that `root` matches. Of regular expressions nobody knows, as in Istio.
fn is_part(root: &StringMatch, child: &StringMatch) -> bool {
    match (root, child) {
        (StringMatch::Present, _) => true,
        (StringMatch::Exact(root), StringMatch::Exact(child)) => root == child,
        (StringMatch::Prefix(root), StringMatch::Exact(child) | StringMatch::Prefix(child)) => {
            child.starts_with(root.as_str())
        }
        _ => false,
    }
}

fn merged_match(root: &PortMatch<Match>, child: &PortMatch<Match>) -> PortMatch<Match> {
    fn list<K: PartialEq + Clone>(
        root: &[(K, StringMatch)],
        child: &[(K, StringMatch)],
    ) -> Vec<(K, StringMatch)> {
        let of_root = root.iter().filter(|(name, _)| child.iter().all(|(other, _)| other != name));
        of_root.chain(child).cloned().collect()
    }
    let (index, port) = (child.index, child.port.or(root.port));
    let followed_by = child.followed_by.clone().or_else(|| root.followed_by.clone());
    let (root, child) = (&root.condition, &child.condition);
    let mut labels = root.client.labels.clone();
    labels.extend(child.client.labels.clone());
    let namespace = child.client.namespace.clone().or_else(|| root.client.namespace.clone());
    let condition = Match {
        path: child.path.clone().or_else(|| root.path.clone()),
        ignore_path_case: child.ignore_path_case,
        method: child.method.clone().or_else(|| root.method.clone()),
        authority: child.authority.clone().or_else(|| root.authority.clone()),
        headers: list::<HeaderField>(&root.headers, &child.headers),
        without_headers: list(&root.without_headers, &child.without_headers),
        query: list(&root.query, &child.query),
        client: ClientMatch { labels, namespace },
        ..child.clone()
    };
    PortMatch { index, port, followed_by, condition }
}
