//! What all `Ingress`es say, host by host.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    sync::Arc,
};

use selvedge_model::{StringMatch, filter::PathRewrite, gateway::Hostname};

use super::{
    super::super::{
        Problems,
        rule_names::{DEFAULT_BACKEND, path_name},
    },
    super::{copies::Copies, draft::sharing},
    Ingress,
    canary::CanaryOf,
    rules::CHALLENGES,
    users,
};
use crate::resources::ingress::{
    IngressBackend, IngressPath, IngressRule,
    nginx::{AUTH_TYPE, annotation},
};

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
    /// In the order in which they are tried.
    pub(super) paths: Vec<Path<'a>>,
    /// The place of each among them, until they are in that order: there may be many.
    places: HashMap<Asked, usize>,
}

/// By what a path is found: whether it is exact, and how it is written. So a canary finds what it is of, whichever of the two
/// is read as a regular expression.
type Asked = (bool, String);

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
        let mut copies = Copies::default();
        for ingress in &others {
            hosts.add_aliases(ingress, &mut copies, problems);
        }
        hosts.report_shared(problems);
        hosts.hide_passwords(problems);
        hosts.report_wider_passwords(problems);
        hosts.report_other_readings(problems);
        for host in &mut hosts.list {
            host.places = HashMap::new();
            host.tell_slashes_apart();
            host.paths.sort_by_key(|path| Reverse(path.rank()));
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
            list.push(Host { name: name.clone(), paths: Vec::new(), places: HashMap::new() });
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
            let new = match host.places.entry(asked(path)) {
                Entry::Vacant(new) => new,
                Entry::Occupied(there) => {
                    let first = host.paths[*there.get()].ingress;
                    let message = format!(
                        "has no effect: {} ({}) is older and has this path of {}; remove one of them",
                        first.name, first.location, rule.host
                    );
                    problems.overruled(ingress, &format!("{}.path", path.field), message);
                    continue;
                }
            };
            new.insert(host.paths.len());
            host.paths.push(Path {
                ingress,
                called: path_name(index, place),
                asks: path.asks.clone(),
                written: &path.written,
                rewrite: path.rewrite.as_ref(),
                backend: &path.backend,
                canary: None,
                hides_passwords: false,
            });
        }
    }

    /// Has the default backend of `ingress` get what no path is for: at its own hosts, and at those that are nobody's.
    fn add_default(&mut self, ingress: &'a Ingress) {
        let Some(backend) = &ingress.spec.default_backend else { return };
        let own = ingress.spec.rules.iter().map(|rule| &rule.host);
        for name in own.chain([&Hostname::Any]) {
            let host = self.host(name);
            let Entry::Vacant(new) = host.places.entry((false, ALL.to_owned())) else { continue };
            new.insert(host.paths.len());
            host.paths.push(Path {
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
            let place = *host.places.get(&asked(path))?;
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

    /// Reports hosts that several namespaces have paths of. Nobody's host is everybody's.
    fn report_shared(&self, problems: &mut Problems) {
        for host in self.list.iter().filter(|host| host.name != Hostname::Any) {
            let Some(first) = host.paths.iter().map(|path| path.ingress).min_by_key(|one| one.seniority())
            else {
                continue;
            };
            for path in &host.paths {
                if path.ingress.name.namespace != first.name.namespace {
                    let message = sharing(&host.name, &first.name, &first.location.to_string());
                    problems.warning(path.ingress, "spec.rules", message);
                }
            }
        }
    }

    /// Keeps passwords from other namespaces. A browser sends what was asked for at one path with other requests to the host,
    /// too. As for all of a host, the older one decides: what a younger one asks for takes no tokens from an older one.
    fn hide_passwords(&mut self, problems: &mut Problems) {
        for host in &mut self.list {
            let asking = asking(host);
            for path in host.paths.iter_mut().filter(|path| !asks(path.ingress)) {
                let ingress = path.ingress;
                for one in asking.values().filter(|one| one.name.namespace != ingress.name.namespace) {
                    let is_older = one.seniority() < ingress.seniority();
                    path.hides_passwords |= is_older;
                    let (name, host) = (&host.name, "give it a host of its own");
                    if is_older {
                        let message = format!(
                            "{} of another namespace asks for passwords at {name}, which browsers send here, too: Authorization is \
                             removed from these requests; if this app needs it, {host}",
                            one.name
                        );
                        problems.warning(ingress, "spec.rules", message);
                    } else {
                        let message = format!(
                            "browsers send the passwords for {name} to {} of another namespace, too, which is older and asks for none; \
                             {host}",
                            ingress.name
                        );
                        problems.warning(one, &annotation(AUTH_TYPE), message);
                    }
                }
            }
        }
    }

    /// Reports hosts below a wildcard of another namespace that is older and asks for passwords. Requests for such a host never
    /// come to the wildcard, which asks nobody for passwords there; but browsers that were asked before the host was there send
    /// them here. What clients send to a host of its own is nevertheless its own: nothing is removed.
    fn report_wider_passwords(&self, problems: &mut Problems) {
        for host in &self.list {
            let wider = around(&host.name).into_iter().filter(|name| !matches!(name, Hostname::Any)).skip(1);
            let wider = wider.filter_map(|name| self.places.get(&name)).map(|place| &self.list[*place]);
            for wide in wider {
                let asking = asking(wide);
                for path in host.paths.iter().filter(|path| !asks(path.ingress)) {
                    let ingress = path.ingress;
                    let others = asking.values().filter(|one| one.name.namespace != ingress.name.namespace);
                    for one in others.filter(|one| one.seniority() < ingress.seniority()) {
                        let message = format!(
                            "{} of another namespace is older and asks for passwords at {}: browsers that were asked at {} send \
                             them here; if that is not meant, use a host that is not below {}",
                            one.name, wide.name, host.name, wide.name
                        );
                        problems.warning(ingress, "spec.rules", message);
                    }
                }
            }
        }
    }

    /// Reports paths that nginx's controller would read as regular expressions because of another `Ingress` of their host: it
    /// reads all paths of a host so as soon as one is.
    fn report_other_readings(&self, problems: &mut Problems) {
        for host in &self.list {
            let Some(first) = host.paths.iter().find(|path| path.is_of_regex()) else { continue };
            let mut told: HashSet<(&str, &str)> = HashSet::new();
            // What is for all requests is so in either reading, and nobody writes the ways to certificates himself.
            let is_alike = |path: &&Path<'_>| path.written == ALL || path.written.starts_with(CHALLENGES);
            for path in host.paths.iter().filter(|path| !path.is_of_regex() && !is_alike(path)) {
                let name = &path.ingress.name;
                if !told.insert((&*name.namespace, &*name.name)) {
                    continue;
                }
                let message = format!(
                    "nginx's controller would read {:?} as a regular expression, for whatever begins so in upper or lower case, \
                     because {} has use-regex or rewrite-target for {}; here it stays what its pathType says. If that is \
                     meant, write use-regex: \"true\" here, too",
                    path.written, first.ingress.name, host.name
                );
                let field = path.backend.field.trim_end_matches(".backend");
                problems.warning(path.ingress, &format!("{field}.path"), message);
            }
        }
    }

    /// Gives the hosts of `ingress` their other names.
    fn add_aliases(&mut self, ingress: &'a Ingress, copies: &mut Copies<'a>, problems: &mut Problems) {
        let field = annotation("server-alias");
        let mut aliases: Vec<&Hostname> = Vec::new();
        for alias in &ingress.spec.nginx.aliases {
            if self.places.contains_key(alias) {
                let message =
                    format!("{alias} has rules of its own, so it is no other name of a host; remove it here");
                problems.warning(ingress, &field, message);
            } else {
                aliases.push(alias);
            }
        }
        if aliases.is_empty() {
            return;
        }
        let first = ingress.spec.rules.first().and_then(|rule| self.places.get(&rule.host));
        let Some(host) = first.map(|at| self.list[*at].clone()) else { return };
        if let Err(why) = copies.take_more(&ingress.name, aliases.len(), host.size()) {
            return problems.error(ingress, &field, format!("is not acted on: {why}"));
        }
        for alias in aliases {
            if let Entry::Vacant(place) = self.places.entry(alias.clone()) {
                place.insert(self.list.len());
                self.list.push(Host { name: alias.clone(), places: HashMap::new(), ..host.clone() });
            }
        }
    }
}

/// Whether `ingress` asks for passwords.
fn asks(ingress: &Ingress) -> bool {
    ingress.spec.nginx.passwords.is_some()
}

/// Who asks for passwords at `host`: of each namespace the oldest.
fn asking<'a>(host: &Host<'a>) -> BTreeMap<&'a str, &'a Ingress> {
    let mut asking: BTreeMap<&str, &Ingress> = BTreeMap::new();
    for ingress in host.paths.iter().map(|path| path.ingress).filter(|ingress| asks(ingress)) {
        let one = asking.entry(&*ingress.name.namespace).or_insert(ingress);
        if ingress.seniority() < one.seniority() {
            *one = ingress;
        }
    }
    asking
}

impl Host<'_> {
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
        Hostname::OneBelow(_) | Hostname::Below(_) | Hostname::Any => None,
    };
    let any = (*name != Hostname::Any).then_some(Hostname::Any);
    std::iter::once(name.clone()).chain(wider).chain(any).collect()
}

impl Path<'_> {
    /// The greater is tried first: an exact path, then the longer one, as nginx's controller sorts them.
    fn rank(&self) -> (bool, usize) {
        (matches!(self.asks, StringMatch::Exact(_)), self.written.len())
    }

    /// Whether nginx's controller would read it as a regular expression for its own `Ingress`'s sake.
    fn is_of_regex(&self) -> bool {
        self.ingress.spec.nginx.use_regex || self.ingress.spec.nginx.rewrite_target.is_some()
    }
}

/// By which `path` is found.
fn asked(path: &IngressPath) -> Asked {
    (matches!(path.asks, StringMatch::Exact(_)), path.written.clone())
}
