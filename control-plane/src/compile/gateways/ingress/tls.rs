//! Which hosts are served over TLS, and with which certificates.

use std::{cmp::Reverse, collections::BTreeSet};

use selvedge_model::{
    Order,
    gateway::{Carries, Hostname, ListenerTls, Termination},
};

use super::{
    super::{
        super::Problems,
        WantedObject,
        draft::{Draft, NewListener, written},
    },
    Ingress, NAME,
    hosts::{Host, Hosts},
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

/// All of them, of which each has the certificate that the oldest names. Canaries have none of their own.
pub(super) fn hosts<'a>(ours: &[&'a Ingress], problems: &mut Problems) -> Vec<TlsHost<'a>> {
    let mut hosts: Vec<TlsHost<'a>> = Vec::new();
    for &ingress in ours.iter().filter(|ingress| ingress.spec.nginx.canary.is_none()) {
        for tls in &ingress.spec.tls {
            let (field, secret) = (tls.field.as_str(), tls.secret.as_deref());
            let of_rules = ingress.spec.rules.iter().map(|rule| &rule.host).filter(|_| tls.hosts.is_empty());
            for name in tls.hosts.iter().chain(of_rules) {
                let new = TlsHost { name: name.clone(), ingress, field, secret };
                match hosts.iter().find(|first| first.name == *name) {
                    None => hosts.push(new),
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
        let Some(rule) = ingress.spec.rules.first().filter(|_| ingress.spec.nginx.canary.is_none()) else {
            continue;
        };
        for alias in &ingress.spec.nginx.aliases {
            let covering = covering(&hosts, &rule.host).map(|host| (host.ingress, host.field, host.secret));
            if let Some((ingress, field, secret)) =
                covering.filter(|_| !hosts.iter().any(|host| host.name == *alias))
            {
                hosts.push(TlsHost { name: alias.clone(), ingress, field, secret });
            }
        }
    }
    hosts
}

/// The most specific of `hosts` that all of `name` is in.
fn covering<'h, 'a>(hosts: &'h [TlsHost<'a>], name: &Hostname) -> Option<&'h TlsHost<'a>> {
    all_covering(hosts, name).max_by_key(|over| over.name.rank())
}

/// Those of `hosts` that all of `name` is in.
pub(super) fn all_covering<'h, 'a>(
    hosts: &'h [TlsHost<'a>],
    name: &Hostname,
) -> impl Iterator<Item = &'h TlsHost<'a>> {
    hosts.iter().filter(move |over| over.name.intersection(name).as_ref() == Some(name))
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
pub(super) fn add_to(
    draft: &mut Draft<'_>,
    over_tls: &[TlsHost<'_>],
    (hosts, users): (&Hosts<'_>, &AllUsers<'_>),
    problems: &mut Problems,
) {
    for over in over_tls {
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
        for (name, host) in over.served(over_tls, hosts) {
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

    /// What it serves: names, each with the host whose rules are for them. What is another listener's is left to that.
    fn served<'h, 'a>(
        &self,
        over_tls: &[TlsHost<'_>],
        hosts: &'h Hosts<'a>,
    ) -> Vec<(Hostname, &'h Host<'a>)> {
        let mut candidates: Vec<&Host<'a>> = hosts.iter().collect();
        candidates.sort_by_key(|host| Reverse(host.name.rank()));
        let mut served: Vec<(Hostname, &Host<'a>)> = Vec::new();
        for host in candidates {
            let Some(both) = self.name.intersection(&host.name) else { continue };
            let is_own = covering(over_tls, &both).is_some_and(|over| over.name == self.name);
            if is_own && !served.iter().any(|(name, _)| *name == both) {
                served.push((both, host));
            }
        }
        served
    }
}
