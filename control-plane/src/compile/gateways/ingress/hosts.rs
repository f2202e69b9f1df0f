//! What all `Ingress`es say, host by host.

mod aliases;
mod told;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use selvedge_model::{StringMatch, filter::PathRewrite, gateway::Hostname};

use super::{
    super::super::{
        Problems,
        rule_names::{DEFAULT_BACKEND, path_name},
    },
    Ingress,
    canary::CanaryOf,
    users,
};
use crate::resources::ingress::{IngressBackend, IngressPath, IngressRule};

/// The path that all others begin with.
const ALL: &str = "/";

/// The hosts, each with its paths.
pub(super) struct Hosts<'a> {
    list: Vec<Host<'a>>,
    /// The place of each in the list.
    places: HashMap<Hostname, usize>,
}

/// One host, or those below a wildcard, or all others.
#[derive(Clone)]
pub(super) struct Host<'a> {
    pub(super) name: Hostname,
    /// The `Ingress` of whose first host this is another name.
    pub(super) alias_of: Option<&'a Ingress>,
    /// In the order in which they are tried.
    pub(super) paths: Vec<Path<'a>>,
    /// The place of each among them, until they are in that order: there may be many.
    places: HashMap<Asked, usize>,
}

/// By what a path is found: how it is read, and how it is written.
type Asked = (Reading, String);

/// How a path is read. The same path may be there once in each way, as locations of nginx may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Reading {
    /// Letter by letter, as the beginning of others.
    Letters,
    /// By whole segments.
    Segments,
    /// As all of a path.
    Exact,
}

impl Reading {
    /// Those that a path takes which asks this. What is a regular expression goes before none of the two that are not, so it
    /// takes both: younger ones would take its requests. And a canary finds what it is of, whichever of the two is one.
    fn of(asks: &StringMatch) -> &'static [Self] {
        match asks {
            StringMatch::Exact(_) => &[Self::Exact],
            StringMatch::PathPrefix(_) => &[Self::Segments],
            StringMatch::Prefix(_) => &[Self::Letters],
            StringMatch::Regex(_) | StringMatch::Present => &[Self::Segments, Self::Letters],
        }
    }
}

/// Who gets the requests for a path.
#[derive(Clone)]
pub(super) struct Path<'a> {
    pub(super) ingress: &'a Ingress,
    /// What the rule is called behind the name of its document, such as `rules[0].paths[1]`.
    pub(super) called: String,
    pub(super) asks: StringMatch,
    /// How it is written in the document, by whose length it is ranked.
    written: &'a str,
    pub(super) rewrite: Option<&'a PathRewrite>,
    pub(super) backend: &'a IngressBackend,
    /// Who takes a part of them.
    pub(super) canary: Option<CanaryOf<'a>>,
    /// Whether clients may have told their password to an older `Ingress` of another namespace, which is not for this one.
    pub(super) hides_passwords: bool,
}

impl<'a> Hosts<'a> {
    /// What `ours` say, oldest first.
    pub(super) fn new(ours: &[&'a Ingress], problems: &mut Problems) -> Self {
        let mut hosts = Self { list: Vec::new(), places: HashMap::new() };
        let (canaries, others): (Vec<&Ingress>, Vec<&Ingress>) =
            ours.iter().partition(|ingress| ingress.spec.nginx.canary.is_some());
        for ingress in &others {
            for (index, rule) in ingress.spec.rules.iter().enumerate() {
                hosts.add_rule(ingress, index, rule, problems);
            }
        }
        for ingress in &others {
            hosts.add_default(ingress);
        }
        for ingress in canaries {
            for rule in &ingress.spec.rules {
                for path in &rule.paths {
                    hosts.add_canary(ingress, rule, path, problems);
                }
            }
        }
        hosts.add_all_aliases(&others, problems);
        hosts.report_shared(problems);
        hosts.hide_passwords(problems);
        hosts.report_wider_passwords(problems);
        hosts.report_other_readings(problems);
        for host in &mut hosts.list {
            host.places = HashMap::new();
            host.tell_slashes_apart();
            // Plain paths of one length have no request in common.
            let by_text = host.paths.iter().any(|path| matches!(path.asks, StringMatch::Regex(_)));
            host.paths.sort_by(|one, other| other.rank(by_text).cmp(&one.rank(by_text)));
        }
        hosts
    }

    /// Each of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Host<'a>> {
        self.list.iter()
    }

    /// The most specific one that all of `name` is in.
    pub(super) fn covering(&self, name: &Hostname) -> Option<&Host<'a>> {
        around(name).into_iter().find_map(|name| self.places.get(&name)).map(|place| &self.list[*place])
    }

    fn host(&mut self, name: &Hostname) -> &mut Host<'a> {
        let list = &mut self.list;
        let at = *self.places.entry(name.clone()).or_insert_with(|| {
            list.push(Host { name: name.clone(), alias_of: None, paths: Vec::new(), places: HashMap::new() });
            list.len() - 1
        });
        &mut self.list[at]
    }

    fn add_rule(
        &mut self,
        ingress: &'a Ingress,
        index: usize,
        rule: &'a IngressRule,
        problems: &mut Problems,
    ) {
        let host = self.host(&rule.host);
        if rule.paths.is_empty() && ingress.spec.default_backend.is_none() {
            let message =
                "has no paths, and there is no defaultBackend to get its requests; give it one of them";
            problems.warning(ingress, &rule.field, message);
        }
        for (place, path) in rule.paths.iter().enumerate() {
            let new = Path {
                ingress,
                called: path_name(index, place),
                asks: path.asks.clone(),
                written: &path.written,
                rewrite: path.rewrite.as_ref(),
                backend: &path.backend,
                canary: None,
                hides_passwords: false,
            };
            if let Some(first) = host.add(new) {
                overruled(ingress, &path.backend, (first, &rule.host), problems);
            }
        }
    }

    /// Has the default backend of `ingress` get what no path is for: at its own hosts, and at those that are nobody's.
    fn add_default(&mut self, ingress: &'a Ingress) {
        let Some(backend) = &ingress.spec.default_backend else { return };
        let own = ingress.spec.rules.iter().map(|rule| &rule.host);
        for name in own.chain([&Hostname::Any]) {
            // Who has said before where all goes is told nothing.
            let _older = self.host(name).add(Path {
                ingress,
                called: DEFAULT_BACKEND.to_owned(),
                asks: StringMatch::PathPrefix(ALL.to_owned()),
                written: ALL,
                rewrite: None,
                backend,
                canary: None,
                hides_passwords: false,
            });
        }
    }

    fn add_canary(
        &mut self,
        ingress: &'a Ingress,
        rule: &'a IngressRule,
        path: &'a IngressPath,
        problems: &mut Problems,
    ) {
        let Some(canary) = &ingress.spec.nginx.canary else { return };
        let host = self.places.get(&rule.host).map(|at| &mut self.list[*at]);
        let main = host.and_then(|host| {
            let place = host.place_of_main(&path.asks, &path.written)?;
            host.paths.get_mut(place)
        });
        let Some(main) = main else {
            let message = format!(
                "gets nothing: no Ingress that is not a canary has this path of {}; add one",
                rule.host
            );
            return problems.warning(ingress, &format!("{}.path", path.field), message);
        };
        if main.ingress.name.namespace != ingress.name.namespace {
            let message = format!(
                "has no effect: the path is that of {} ({}), and a canary takes requests only from Ingresses of its own \
                 namespace; write it in that namespace",
                main.ingress.name, main.ingress.location
            );
            return problems.overruled(ingress, &format!("{}.path", path.field), message);
        }
        if let Some(first) = &main.canary {
            let message = format!(
                "has no effect: {} ({}) is the canary there already; remove one of them",
                first.ingress.name, first.ingress.location
            );
            return problems.overruled(ingress, &format!("{}.path", path.field), message);
        }
        users::report_canary(ingress, main.ingress, problems);
        main.canary = Some(CanaryOf { ingress, canary, backend: &path.backend });
    }
}

impl<'a> Host<'a> {
    /// Adds `new`. If its path is there already, it is left out, and this is whose that is.
    fn add(&mut self, new: Path<'a>) -> Option<&'a Ingress> {
        let keys = Reading::of(&new.asks).iter().map(|reading| (*reading, new.written.to_owned()));
        let keys: Vec<Asked> = keys.collect();
        if let Some(there) = keys.iter().find_map(|key| self.places.get(key)) {
            return Some(self.paths[*there].ingress);
        }
        self.places.extend(keys.into_iter().map(|key| (key, self.paths.len())));
        self.paths.push(new);
        None
    }

    /// The place of the path of which one that is `written` so and asks this is the canary: one that is read alike, and
    /// otherwise the other of those that are not exact.
    fn place_of_main(&self, asks: &StringMatch, written: &str) -> Option<usize> {
        let alike = Reading::of(asks);
        let others: &[Reading] =
            if alike == [Reading::Exact] { &[] } else { &[Reading::Segments, Reading::Letters] };
        let mut all = alike.iter().chain(others);
        all.find_map(|reading| self.places.get(&(*reading, written.to_owned()))).copied()
    }

    /// Where a path is there with and without a slash at its end, the one with the slash is not for the other's requests.
    fn tell_slashes_apart(&mut self) {
        let written: HashSet<&str> = self.paths.iter().map(|path| path.written).collect();
        for path in &mut self.paths {
            let bare = path.written.strip_suffix('/').filter(|bare| !bare.is_empty());
            if bare.is_some_and(|bare| written.contains(bare))
                && let StringMatch::PathPrefix(text) = &path.asks
            {
                path.asks = StringMatch::Prefix(text.clone());
            }
        }
    }

    /// About how much memory its paths take, in bytes.
    pub(super) fn size(&self) -> usize {
        let mut each: HashMap<*const Ingress, usize> = HashMap::new();
        let size = |path: &Path<'_>| {
            *each.entry(std::ptr::from_ref(path.ingress)).or_insert_with(|| {
                let paths: usize = path.ingress.spec.rules.iter().map(|rule| rule.paths.len()).sum();
                path.ingress.size / paths.max(1)
            })
        };
        self.paths.iter().map(size).sum()
    }
}

/// The sets that all of `name` is in, as an `Ingress` may write them, the most specific first.
pub(super) fn around(name: &Hostname) -> Vec<Hostname> {
    let wider = match name {
        Hostname::Exact(text) => {
            text.split_once('.').map(|(_, suffix)| Hostname::OneBelow(Arc::from(suffix)))
        }
        Hostname::OneBelow(_) | Hostname::Below(_) | Hostname::Like(_) | Hostname::Any => None,
    };
    let any = (*name != Hostname::Any).then_some(Hostname::Any);
    std::iter::once(name.clone()).chain(wider).chain(any).collect()
}

impl Path<'_> {
    /// The greater is tried first: an exact path, then the longer one, and of equally long ones the greater text if that is
    /// asked, as nginx's controller sorts them; of one text what is read by segments.
    fn rank(&self, by_text: bool) -> (bool, usize, &str, Option<Reading>) {
        let reading = Reading::of(&self.asks).first().copied();
        let text = if by_text { self.written } else { "" };
        (reading == Some(Reading::Exact), self.written.len(), text, reading)
    }

    /// Whether all requests are for it that no other is for.
    pub(super) fn is_root(&self) -> bool {
        self.written == ALL && !matches!(self.asks, StringMatch::Exact(_))
    }

    /// Whether nginx's controller would read it as a regular expression for its own `Ingress`'s sake.
    fn is_of_regex(&self) -> bool {
        self.ingress.spec.nginx.use_regex || self.rewrite.is_some()
    }
}

/// Tells `ingress` that its path to `backend` has no effect at `host`, because `first` has it.
fn overruled(
    ingress: &Ingress,
    backend: &IngressBackend,
    (first, host): (&Ingress, &Hostname),
    problems: &mut Problems,
) {
    let message = format!(
        "has no effect: {} ({}) is older and has this path of {host}; remove one of them",
        first.name, first.location
    );
    let field = backend.field.trim_end_matches(".backend");
    problems.overruled(ingress, &format!("{field}.path"), message);
}
