//! Other names of hosts (`server-alias`). A name for which an older `Ingress` has rules keeps those alone; what a younger one
//! says of it stands behind, as if both had written the name in their rules.

use std::collections::HashMap;

use selvedge_model::gateway::Hostname;

use super::{
    super::{
        super::{super::Problems, copies::Copies},
        Ingress,
    },
    DEFAULT_BACKEND, Host, Hosts, Path, overruled,
};
use crate::resources::ingress::nginx::annotation;

/// As many other names of a namespace may be regular expressions: each is looked at for every host that nobody has.
const MOST_PATTERNS: usize = 32;

/// What the other names of each namespace come to, so far.
#[derive(Default)]
struct Room<'a> {
    copies: Copies<'a>,
    patterns: HashMap<&'a str, usize>,
}

impl<'a> Hosts<'a> {
    /// Gives the hosts of `ingresses`, which are oldest first, their other names.
    pub(super) fn add_all_aliases(&mut self, ingresses: &[&'a Ingress], problems: &mut Problems) {
        let mut room = Room::default();
        for ingress in ingresses {
            self.add_aliases(ingress, &mut room, problems);
        }
    }

    fn add_aliases(&mut self, ingress: &'a Ingress, room: &mut Room<'a>, problems: &mut Problems) {
        let field = annotation("server-alias");
        let mut aliases: Vec<&Hostname> = Vec::new();
        for alias in &ingress.spec.nginx.aliases {
            match self.elder_at(alias, ingress) {
                Some(elder) => {
                    let message = format!(
                        "{alias} has rules of its own, of {} ({}), so it is no other name of a host; remove it here",
                        elder.name, elder.location
                    );
                    problems.warning(ingress, &field, message);
                }
                None if aliases.contains(&alias) => {}
                None => aliases.push(alias),
            }
        }
        if aliases.is_empty() {
            return;
        }
        let first = ingress.spec.rules.first().and_then(|rule| self.places.get(&rule.host));
        let Some(host) = first.map(|at| self.list[*at].clone()) else { return };
        let patterns = room.patterns.entry(&ingress.name.namespace).or_default();
        *patterns += aliases.iter().filter(|alias| matches!(alias, Hostname::Like(_))).count();
        if *patterns > MOST_PATTERNS {
            let message = format!(
                "is not acted on: the Ingresses of the namespace {} have more than {MOST_PATTERNS} regular expressions here; \
                 write names, or wildcards such as *.example.com",
                ingress.name.namespace
            );
            return problems.error(ingress, &field, message);
        }
        if let Err(why) = room.copies.take_more(&ingress.name, aliases.len(), host.size()) {
            return problems.error(ingress, &field, format!("is not acted on: {why}"));
        }
        for alias in aliases {
            self.add_alias(alias, ingress, &host, problems);
        }
    }

    /// Who has rules for `alias` that are not younger than `ingress`.
    fn elder_at(&self, alias: &Hostname, ingress: &Ingress) -> Option<&'a Ingress> {
        let host = &self.list[*self.places.get(alias)?];
        let elder = host.paths.iter().map(|path| path.ingress).min_by_key(|one| one.seniority())?;
        (elder.seniority() <= ingress.seniority()).then_some(elder)
    }

    /// Makes `alias` another name of `main`, because `ingress` says so. What younger ones say of it stands behind.
    fn add_alias(
        &mut self,
        alias: &Hostname,
        ingress: &'a Ingress,
        main: &Host<'a>,
        problems: &mut Problems,
    ) {
        let host = self.host(alias);
        let own = std::mem::take(&mut host.paths);
        host.places.clear();
        host.alias_of = Some(ingress);
        if own.is_empty() {
            (host.paths, host.places) = (main.paths.clone(), main.places.clone());
            return;
        }
        let of_main = main.paths.iter().map(|path| (path.clone(), false));
        let mut all: Vec<(Path<'a>, bool)> =
            of_main.chain(own.into_iter().map(|path| (path, true))).collect();
        all.sort_by_key(|(path, _)| (path.called == DEFAULT_BACKEND, path.ingress.seniority()));
        for (path, is_own) in all {
            let (from, backend, is_default) = (path.ingress, path.backend, path.called == DEFAULT_BACKEND);
            if let Some(first) = host.add(path)
                && is_own
                && !is_default
            {
                overruled(from, backend, (first, alias), problems);
            }
        }
    }
}
