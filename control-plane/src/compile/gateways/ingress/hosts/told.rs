//! What is said of hosts that several `Ingress`es have, and whom passwords are kept from.

use std::collections::{BTreeMap, HashSet};

use selvedge_model::gateway::Hostname;

use super::{
    super::{
        super::{super::Problems, draft::sharing},
        Ingress,
        rules::CHALLENGES,
    },
    ALL, Host, Hosts, Path, around,
};
use crate::resources::ingress::nginx::{AUTH_TYPE, annotation};

impl<'a> Hosts<'a> {
    /// Reports hosts that several namespaces have paths of. Nobody's host is everybody's.
    pub(super) fn report_shared(&self, problems: &mut Problems) {
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
    pub(super) fn hide_passwords(&mut self, problems: &mut Problems) {
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
    pub(super) fn report_wider_passwords(&self, problems: &mut Problems) {
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
    pub(super) fn report_other_readings(&self, problems: &mut Problems) {
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
