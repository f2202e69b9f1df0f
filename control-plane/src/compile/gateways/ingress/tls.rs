//! Which hosts are served over TLS, and with which certificates.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use selvedge_model::{
    Order,
    gateway::{Carries, Hostname, ListenerTls, Termination},
};

use super::{
    super::{
        super::Problems,
        WantedObject,
        copies::Copies,
        draft::{Draft, NewListener, written},
    },
    Ingress, NAME,
    hosts::{Host, Hosts, around},
    rules::{self, Over},
    users::AllUsers,
};

/// The port of TLS.
const HTTPS: u16 = 443;

/// A host, or those below a wildcard, that is served over TLS.
#[derive(Debug)]
pub(super) struct TlsHost<'a> {
    name: Hostname,
    ingress: &'a Ingress,
    /// The field that says it, such as `spec.tls[0]`.
    field: &'a str,
    secret: Option<&'a str>,
}

/// All of them, each with its certificate, found by their names.
#[derive(Debug, Default)]
pub(super) struct TlsHosts<'a> {
    list: Vec<TlsHost<'a>>,
    places: HashMap<Hostname, usize>,
}

impl<'a> TlsHosts<'a> {
    /// Those of `ours`, of which each has the certificate that the oldest names. Canaries have none of their own. A host without
    /// rules of its own follows those of a wider one of `hosts`: what is too much of that is left out.
    pub(super) fn new(ours: &[&'a Ingress], hosts: &Hosts<'a>, problems: &mut Problems) -> Self {
        let mut all = Self::default();
        let (mut copies, mut sizes) = (Copies::default(), HashMap::new());
        for &ingress in ours.iter().filter(|ingress| ingress.spec.nginx.canary.is_none()) {
            for tls in &ingress.spec.tls {
                let (field, secret) = (tls.field.as_str(), tls.secret.as_deref());
                let of_rules =
                    ingress.spec.rules.iter().map(|rule| &rule.host).filter(|_| tls.hosts.is_empty());
                for name in tls.hosts.iter().chain(of_rules) {
                    let new = TlsHost { name: name.clone(), ingress, field, secret };
                    match all.get(name) {
                        None => {
                            let followed = hosts.covering(name).filter(|followed| followed.name != *name);
                            let size = followed.map_or(0, |followed| {
                                *sizes.entry(&followed.name).or_insert_with(|| followed.size())
                            });
                            match copies.take_more(&ingress.name, 1, size) {
                                Ok(()) => all.add(new),
                                Err(why) => {
                                    let message = format!("{name} is not served over TLS: {why}");
                                    problems.error(ingress, field, message);
                                }
                            }
                        }
                        Some(first) if first.certificate() == new.certificate() => {}
                        Some(first) => {
                            let message = format!(
                                "has no effect for {name}: {} ({}) is older and names the certificate of that host; name the \
                                 same Secret, or remove it",
                                first.ingress.name, first.ingress.location
                            );
                            problems.overruled(ingress, field, message);
                        }
                    }
                }
            }
        }
        // Another name of a host has its certificate, too.
        for ingress in ours {
            let Some(rule) = ingress.spec.rules.first().filter(|_| ingress.spec.nginx.canary.is_none())
            else {
                continue;
            };
            for alias in &ingress.spec.nginx.aliases {
                // One that was left out has no rules.
                let has_rules = hosts.covering(alias).is_some_and(|host| host.name == *alias);
                if has_rules
                    && all.get(alias).is_none()
                    && let Some(&TlsHost { ingress, field, secret, .. }) = all.covering(&rule.host)
                {
                    all.add(TlsHost { name: alias.clone(), ingress, field, secret });
                }
            }
        }
        all
    }

    fn add(&mut self, new: TlsHost<'a>) {
        self.places.insert(new.name.clone(), self.list.len());
        self.list.push(new);
    }

    fn get(&self, name: &Hostname) -> Option<&TlsHost<'a>> {
        self.places.get(name).map(|place| &self.list[*place])
    }

    /// The most specific one that all of `name` is in.
    fn covering(&self, name: &Hostname) -> Option<&TlsHost<'a>> {
        self.all_covering(name).next()
    }

    /// Those that all of `name` is in, the most specific first.
    pub(super) fn all_covering(&self, name: &Hostname) -> impl Iterator<Item = &TlsHost<'a>> {
        around(name).into_iter().filter_map(|name| self.get(&name))
    }

    /// What each serves: names, each with the host whose rules are for them. What is another one's is left to that.
    fn served<'h>(&self, hosts: &'h Hosts<'a>) -> Vec<Vec<(Hostname, &'h Host<'a>)>> {
        let mut candidates: Vec<&Host<'a>> = hosts.iter().collect();
        candidates.sort_by_key(|host| Reverse(host.name.rank()));
        let mut served = vec![Vec::new(); self.list.len()];
        for host in candidates {
            let place = around(&host.name).into_iter().find_map(|name| self.places.get(&name));
            if let Some(place) = place {
                served[*place].push((host.name.clone(), host));
            }
        }
        // A name without rules of its own has those of a wider one.
        for (over, served) in self.list.iter().zip(&mut served) {
            let followed = hosts.covering(&over.name).filter(|host| host.name != over.name);
            served.extend(followed.map(|host| (over.name.clone(), host)));
        }
        served
    }
}

/// The Secrets that `ours` name.
pub(super) fn wanted(ours: &[&Ingress]) -> BTreeSet<WantedObject> {
    let tls = ours.iter().flat_map(|ingress| ingress.spec.tls.iter().map(move |tls| (ingress, tls)));
    let named = tls.filter_map(|(ingress, tls)| {
        let (namespace, name) = (ingress.name.namespace.to_string(), tls.secret.clone()?);
        Some(WantedObject { kind: "Secret", namespace, name })
    });
    named.collect()
}

/// Adds a listener for each of `over_tls`, with those of `hosts` that it has names of.
pub(super) fn add_to<'a>(
    draft: &mut Draft<'_>,
    over_tls: &TlsHosts<'a>,
    (hosts, users): (&Hosts<'a>, &AllUsers<'_>),
    problems: &mut Problems,
) {
    for (over, served) in over_tls.list.iter().zip(over_tls.served(hosts)) {
        let termination = over.termination(draft, problems);
        let (seat, shared) = (draft.seat, draft.shared);
        let place = draft.listen(NewListener {
            name: format!("{} {}", over.ingress.name, over.name),
            key: format!("{}/{NAME}/https", seat.namespace),
            port: HTTPS,
            carries: Carries::Tls,
            hostname: over.name.clone(),
            tls: Some(ListenerTls::Terminate(termination)),
            written: written(over.ingress, over.field),
            with: Vec::new(),
            has_equal_siblings: false,
        });
        for (name, host) in served {
            let at = draft.host(place, &name);
            at.order = Order::Listed;
            let rules = rules::of(host, (&Over::Tls, users), &mut at.backends, problems);
            at.rules = rules.into_iter().map(|rule| shared.share(rule)).collect();
        }
    }
}

impl TlsHost<'_> {
    /// Whether it sends requests for what `path` serves in plaintext to TLS: a younger document of another namespace does
    /// not.
    pub(super) fn may_redirect(&self, path: &Ingress) -> bool {
        self.ingress.name.namespace == path.name.namespace || self.ingress.seniority() < path.seniority()
    }

    fn certificate(&self) -> (&str, Option<&str>) {
        (&self.ingress.name.namespace, self.secret)
    }

    /// How TLS ends. Without a certificate that can be shown, nobody is served.
    fn termination(&self, draft: &mut Draft<'_>, problems: &mut Problems) -> Termination {
        let mut certificates = Vec::new();
        let outcome = format!("so nobody is served at {} over TLS", self.name);
        match self.secret {
            None => {
                let message =
                    format!("names no secretName, {outcome}; name a Secret of the type kubernetes.io/tls");
                problems.error(self.ingress, self.field, message);
            }
            Some(secret) => match draft.certificate(&self.ingress.name.namespace, secret, &self.name) {
                Ok(found) => {
                    certificates.push(found.server.name.clone());
                    let field = format!("{}.secretName", self.field);
                    found.remarks.into_iter().for_each(|one| one.report(self.ingress, &field, problems));
                }
                Err(refused) => {
                    let field = format!("{}.secretName", self.field);
                    problems.error(self.ingress, &field, format!("{} ({outcome})", refused.why));
                    refused.at_object.into_iter().for_each(|problem| problems.add(*problem));
                }
            },
        }
        Termination { certificates, clients: None, tls12: true, http: true }
    }
}
